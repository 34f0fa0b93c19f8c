/*
 * The command line of `matchlock run`, and what all subcommands share in reading theirs.
 *
 * Only form is judged here (is this a number, is there a command); whether a directory exists is
 * for the plan. Every mistake is STATUS_USAGE with a sentence that says what to write instead.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "cli/network_options.h"
#include "cli/text.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#define RUN_CPUS_MAX 16
#define RUN_MEMORY_MIN_MIB 128
#define RUN_MEMORY_MAX_MIB (1024 * 1024)
#define RUN_MOUNTS_MAX 32

enum run_verbosity {
	RUN_QUIET,   /* -q */
	RUN_NORMAL,  /* default */
	RUN_VERBOSE, /* --verbose */
	RUN_DEBUG,   /* --debug */
};

/* What a configuration file can set, too. */
enum run_setting {
	SETTING_ENGINE,
	SETTING_CPUS,
	SETTING_MEMORY,
	SETTING_TIMEOUT,
	SETTING_IMAGE,
	SETTING_POLICY,
	SETTING_USER,
	SETTING_ROLLBACK_ON_EXIT,
	SETTING_KEEP_ON_SUCCESS,
	SETTING_QUIET,
	SETTING_VOLUMES, /* these two add up */
	SETTING_ENV,
	SETTING_COUNT,
};

enum setting_source {
	SOURCE_DEFAULT,
	SOURCE_CONFIG,
	SOURCE_FLAG,
	SOURCE_PROJECT,
};

struct mount_option {
	char *host;  /* as given; a leading ~ is the caller's home */
	char *guest; /* absolute, or with a leading ~ for the home in the guest */
	bool read_only;
	char *where; /* "file:line" of a configuration file; NULL for the command line */
};

struct project_file;

struct run_options {
	char *workspace;
	bool rollback_on_exit;
	bool no_snapshot; /* the guest boots, and is not stored */
	bool huge_pages;
	bool keep_on_success;
	char *image; /* NULL: the host's own files */
	bool input;
	bool terminal;
	struct text_list environment;	     /* -e, as given: "K=V" or "K" */
	struct text_list environment_preset; /* the same, of a configuration file */
	struct text_list environment_files;
	char *cwd;
	char *user;
	unsigned cpus;	     /* 0: default */
	unsigned memory_mib; /* 0: default */
	unsigned timeout_ms; /* 0: none */
	char *engine;	     /* "auto", "kvm", "qemu"; NULL: default */
	char *policy;
	struct mount_option mounts[RUN_MOUNTS_MAX];
	size_t mount_count;
	struct text_list allow_write;
	struct network_options network;
	char *name;
	bool dry_run;
	bool json;
	enum run_verbosity verbosity;
	bool help;
	struct text_list command;

	enum setting_source source[SETTING_COUNT];
	bool no_config;
	char *config; /* --config; after user_config_apply() the file that was read, or NULL */
	/* What the workspace's trusted .matchlock.yaml asks for, applied already but for its rules
	 * and `read_only`; NULL without one. */
	struct project_file *project;
	char *project_path;
	char *project_text;	  /* its bytes */
	bool project_changed;	  /* it was trusted, and does not hold as it is now */
	struct text_list notices; /* for the plan to show */
};

/* argv[0] is "run". On success the caller frees with run_options_free(). Without --help there is
 * a command. */
int run_options_parse(int argc, char **argv, struct run_options *ret_options,
		      struct problem *problem);
void run_options_free(struct run_options *options);

/* The name of a setting in config.yaml. */
const char *setting_name(enum run_setting setting);
/* Sets one as its flag would, with the same checks; booleans are "true" and "false". */
int run_options_set(struct run_options *options, enum run_setting setting, const char *value,
		    struct problem *problem);
/* Takes from `preset`, which run_options_set() filled and whose `source` says with what, all that
 * the command line did not give. Volumes and variables of both count; where two volumes have one
 * place in the guest, the command line's. Mounts that do not fit are a problem. */
int run_options_inherit(struct run_options *options, struct run_options *preset,
			struct problem *problem);

/*
 * getopt_long with errors that help: on '?' or ':' *problem names the flag and the nearest known
 * one. `command` is for the text ("run"). Returns as getopt_long, or -2 on a mistake. Call with
 * opterr 0 and a short option string that begins with ':' (after '+').
 */
int next_option(int argc, char **argv, const char *command, const char *short_options,
		const struct option *long_options, struct problem *problem);
/* Makes getopt start anew. */
void restart_options(void);

/* "-v"'s HOST:GUEST[:ro|rw]. The caller frees both strings. */
int parse_mount_option(const char *text, struct mount_option *ret_mount, struct problem *problem);

#endif
