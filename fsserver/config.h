/*
 * The file server's configuration: JSON that the CLI writes, so trusted; strict all the same. An
 * unknown key, a missing one, a wrong type or a relative path is an error with the key's place.
 *
 *	{"session": "name", "uid": 1000, "gid": 1000, "groups": [27], "homes": ["/home/x"],
 *	 "exports": [{"id": 1, "name": "workspace", "path": "/abs", "profile": "workspace",
 *	              "read_only": false, "immutable": false, "cross_mounts": false,
 *	              "undo_store": "/abs", "policy": "/abs", "policy_name": "...",
 *	              "allow": ["glob"], "hide": ["glob"], "file": "name",
 *	              "rules": [{"list": "deny", "pattern": "glob", "where": "file:line"}]}],
 *	 "quotas": {"nodes": N, "handles": N, "store_bytes": N}}
 *
 * session, uid, gid, exports and in an export id, name, path and profile must be there.
 *
 * With `file` the export is that one regular file, which lies directly in `path`: the guest gets
 * no directory at all. `rules` are further rules of the lists deny, hide and readonly, beside
 * those of the policy file.
 */
#ifndef FSSERVER_CONFIG_H
#define FSSERVER_CONFIG_H

#include "fsserver/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_FILE_MAX (1024u * 1024u)
#define CONFIG_EXPORTS_MAX 63u /* ids 1..63 */
#define CONFIG_NODES_DEFAULT 1000000u
#define CONFIG_HANDLES_DEFAULT 65536u
#define CONFIG_STORE_BYTES_DEFAULT (UINT64_C(16) << 30)

struct config_strings {
	const char **items;
	size_t count;
};

struct config_export {
	uint32_t id;
	const char *name;
	const char *path;
	const char *file; /* NULL: the whole tree */
	enum policy_profile profile;
	bool read_only;
	bool immutable;
	bool cross_mounts;
	const char *undo_store; /* NULL: none */
	const char *policy;	/* NULL: none */
	const char *policy_name;
	struct config_strings allow;
	struct config_strings hide;
	struct policy_extra_rule *rules;
	size_t rule_count;
};

struct config {
	const char *session;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t group_count;
	struct config_strings homes;
	struct config_export *exports;
	size_t export_count;
	uint64_t nodes_max;
	uint64_t handles_max;
	uint64_t store_bytes_max;
	void *document; /* owns all strings */
};

#define CONFIG_ERROR_MAX 512

/* Reads the whole of `fd`. Returns 0, or a negative errno with a message in `error`. */
int config_read(int fd, struct config **ret_config, char error[static CONFIG_ERROR_MAX]);
void config_free(struct config *config);

#endif
