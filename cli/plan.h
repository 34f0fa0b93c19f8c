/*
 * The plan of a session: everything that `matchlock run` will do, decided before anything is
 * made or started, so that --dry-run prints the very same thing.
 *
 * It judges what the options ask for against the host: which directories exist and may be served,
 * where the undo stores go, who the command runs as, what its environment is. Problems that stop
 * it are returned; doubtful wishes become warnings.
 */
#ifndef CLI_PLAN_H
#define CLI_PLAN_H

#include "cli/options.h"
#include "cli/paths.h"
#include "cli/session_record.h"
#include "cli/text.h"
#include "cli/user.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#define PLAN_EXPORTS_MAX (RUN_MOUNTS_MAX + 2)
#define PLAN_IMAGE_EXPORT 1 /* export id of the root */
#define PLAN_CPUS_DEFAULT 2 /* or as many as the host has */
#define PLAN_MEMORY_DEFAULT_MIB 2048
#define PLAN_ALLOW_MAX 256 /* --allow-write globs */

enum plan_profile {
	PLAN_PROFILE_WORKSPACE,
	PLAN_PROFILE_MOUNT,
	PLAN_PROFILE_IMAGE,
};

/* A tree or a single file of the host that the guest sees. */
struct plan_export {
	unsigned id;
	const char *name; /* "image", "workspace", "mount" */
	enum plan_profile profile;
	char *host;  /* canonical */
	char *tree;  /* the directory that holds it when it is a file; else NULL */
	char *guest; /* absolute */
	bool read_only;
	char *store;	       /* undo store; NULL when read-only */
	bool store_inside;     /* the store is in HOST/.matchlock */
	struct text_list hide; /* globs, anchored at the export's root */
};

struct plan {
	char id[SESSION_ID_LENGTH + 1];
	const char *engine; /* as asked for: "auto", "kvm", "qemu" */
	unsigned cpus;
	unsigned memory_mib;
	bool huge_pages; /* then the engine is "kvm" */
	struct guest_user user;
	/* The image first, then by depth of the guest's path, so that each mount's target exists
	 * when it is mounted. */
	struct plan_export exports[PLAN_EXPORTS_MAX];
	size_t export_count;
	bool home_is_empty; /* a fresh tmpfs stands at user.home */
	char *cwd;
	char *hostname;
	char *time_zone; /* "" leaves the image's */
	struct text_list environment;
	char *policy; /* canonical path of --policy; NULL for the built-in rules alone */
	bool has_network;
	json_t *egress_rules; /* of the policy; NULL or empty without any */
	bool plants_canaries;
	bool freezes_on_canary;
	struct text_list warnings;
};

int plan_make(const struct run_options *options, const struct paths *paths, struct plan *ret_plan,
	      struct problem *problem);
void plan_free(struct plan *plan);

/* Where the server begins its paths, and where an undo store inside would be. */
const char *plan_export_tree(const struct plan_export *export);

/* NULL without one. */
const struct plan_export *plan_workspace(const struct plan *plan);
/* True when some export can be written. */
bool plan_has_writable(const struct plan *plan);

/* For --dry-run. */
char *plan_text(const struct plan *plan, const struct run_options *options);
json_t *plan_json(const struct plan *plan, const struct run_options *options);

/* The file server's configuration (exports.json). `policy_copy` is the policy file as copied to
 * the session's directory, or NULL. */
json_t *plan_exports_json(const struct plan *plan, const struct run_options *options,
			  const struct paths *paths, const char *policy_copy);

#endif
