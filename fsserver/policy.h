/*
 * What a guest may do to which path. Pure judgement: no I/O but loading the policy file; the
 * caller finds out where an object really is and asks here.
 *
 * Paths are relative to the export's root, '/'-separated, without leading or trailing slash; ""
 * is the root itself. They are the host's true names (the caller takes them from the kernel, not
 * from the guest), and are compared as design rules demand: on a copy that is case-folded,
 * Unicode-normalised, and stripped of ignorable code points, trailing dots and spaces, `git~1`
 * short names and `::$` stream suffixes.
 *
 * Deny wins over allow, except that a rule of the user's policy that names a built-in protection
 * by an explicit `allow` opens exactly what it matches.
 */
#ifndef FSSERVER_POLICY_H
#define FSSERVER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define POLICY_FILE_MAX (256u * 1024u) /* bytes of a policy file */
#define POLICY_RULES_MAX 4096u	       /* rules of one policy, built-in ones beside them */
#define POLICY_PATTERN_MAX 1024u       /* bytes of one glob */

struct policy;

enum policy_profile {
	POLICY_PROFILE_WORKSPACE, /* the protected paths of a workspace; reads are free */
	POLICY_PROFILE_MOUNT,	  /* the same protections, and credentials of homes hidden */
	POLICY_PROFILE_IMAGE,	  /* read-only; credentials and system state hidden */
};

enum policy_access {
	POLICY_READ,	    /* lookup, readdir, open for reading: `hide` and the user's `deny` */
	POLICY_WRITE,	    /* content of an existing file, xattrs, times, fallocate */
	POLICY_CHMOD,	    /* mode or owner; `mode` counts */
	POLICY_CREATE_FILE, /* `mode` counts */
	POLICY_CREATE_DIRECTORY,
	POLICY_CREATE_SYMLINK,
	POLICY_CREATE_SPECIAL,		/* FIFO, socket */
	POLICY_REMOVE,			/* unlink, rmdir, or the old name of a rename; `mode` */
	POLICY_LINK_SOURCE,		/* an existing file about to gain a name */
	POLICY_LINK_TARGET,		/* the new name; `mode` counts */
	POLICY_RENAME_TARGET,		/* a non-directory comes to stand here; `mode` counts */
	POLICY_RENAME_TARGET_DIRECTORY, /* a directory comes to stand here; see policy_pins */
};

struct policy_verdict {
	bool allowed;
	bool hidden; /* to the guest it does not exist: ENOENT rather than EACCES */
	bool final;  /* a user's or project's rule refused: no `allow` opens it */
	/* Static or owned by the policy: the group or rule ("git: .git/hooks/xx", "policy.yaml:12
	 * deny secrets/xx", with xx for the double star), one sentence why, and never NULL when not
	 * allowed. When allowed, `rule` is NULL, but for what an explicit `allow` opened: that
	 * rule, for the log. */
	const char *rule;
	const char *reason;
};

/* A rule that is neither of the policy file nor of the command line. */
struct policy_extra_rule {
	const char *list; /* "deny", "hide" or "readonly": none that opens anything */
	const char *pattern;
	const char *where; /* "file:line", for the label */
};

/* Loads the policy of one export. `policy_fd` >= 0 is an open policy file named `policy_name`
 * for messages; -1 for none. `extra_allow` are globs given on the command line. On a malformed
 * file: -EINVAL and a message "file:line: key: what, and what to write instead" in `error`.
 * *ret_policy is freed with policy_free. */
struct policy_options {
	enum policy_profile profile;
	int policy_fd;
	const char *policy_name;
	const char *const *extra_allow;
	size_t extra_allow_count;
	const char *const *extra_hide; /* globs, anchored like rules of a policy file */
	size_t extra_hide_count;
	const struct policy_extra_rule *extra_rules;
	size_t extra_rule_count;
	bool read_only;
	/* Where the export stands on the host, absolute; homes below it are found by comparing. */
	const char *export_path;
	const char *const
		*homes; /* absolute paths of home directories; `/root` and `/home/xx` implied */
	size_t home_count;
};
int policy_load(const struct policy_options *options, struct policy **ret_policy, char *error,
		size_t error_capacity);
void policy_free(struct policy *policy);

/* Name and SHA-256 (hex, 64 characters) of what is in force, and the number of rules. */
const char *policy_name(const struct policy *policy);
const char *policy_hash(const struct policy *policy);
size_t policy_rule_count(const struct policy *policy);

/* Judges one access to `path`. `mode` as in stat(2), of the object itself, where the access says
 * that it counts: a symlink may not stand where a regular file may. 0 is "not known", which is
 * judged as the worst that it could be. */
void policy_judge(const struct policy *policy, enum policy_access access, const char *path,
		  mode_t mode, struct policy_verdict *ret_verdict);

/* For a rename of `from` to `to`: judges the new place of the object itself (`tail` "") or of what
 * is at `from`/`tail`, as policy_judge(access, "to/tail") would, but a repository that the session
 * made stays its own while it moves. The old places are judged with POLICY_REMOVE. */
void policy_judge_moved(const struct policy *policy, enum policy_access access, const char *from,
			const char *to, const char *tail, mode_t mode,
			struct policy_verdict *ret_verdict);

/* Whether a directory at `path` must not be renamed, exchanged or replaced whatever it holds:
 * it is protected, or it is a proper ancestor in a fixed part of a protected pattern (".git",
 * ".github", "gradle", ".yarn"). What it holds is for the caller to walk, judging each
 * descendant with POLICY_REMOVE at the old place and by policy_judge_moved at the new. */
bool policy_pins(const struct policy *policy, const char *path, struct policy_verdict *ret_verdict);

/* Whether any rule could refuse POLICY_READ of something below `path` (hide it, or by the user's
 * `deny`); else a listing need not judge each name. */
bool policy_may_hide_below(const struct policy *policy, const char *path);

/*
 * Repositories that the guest makes. The caller tells that the guest made the directory `path`
 * (mkdir) or a `.git` file; when that is, or may become, a git directory that did not exist at
 * the start, its own config and info files are open to this session from then on, but never a
 * hook that git would run. Renames of directories are told, so that the exemption moves along.
 */
void policy_directory_created(struct policy *policy, const char *path);
void policy_directory_renamed(struct policy *policy, const char *old_path, const char *new_path);
void policy_directory_removed(struct policy *policy, const char *path);
/* Calls back for each repository born in this session ("new repository" in the review). */
void policy_each_born(const struct policy *policy,
		      void (*callback)(const char *path, void *context), void *context);

/* Whether the host might run or trust `path` later, so that a review lists it first: the flagged
 * names of the design, and any executable file. */
bool policy_is_flagged(const char *path, mode_t mode);

/* Writes the narrowest pattern for `allow` that opens `path`: "/", the path, special characters
 * escaped. False when it does not fit (2 * strlen(path) + 2 bytes always do). */
bool policy_narrowest_allow(const char *path, char *output, size_t capacity);

/* A directory shaped like a git directory (holds HEAD, objects/, refs/) outside any `.git`: the
 * caller found one at `path` at the start or on a lookup; its config and hooks are protected. */
void policy_bare_repository_found(struct policy *policy, const char *path);

#endif
