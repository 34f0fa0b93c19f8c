/*
 * The broker's configuration: JSON that matchlock writes, so trusted; strict all the same. An
 *unknown key, a missing one, a wrong type or a value out of range is an error that names the key,
 *and in a rule its place in the person's policy file. It may hold the credentials of an upstream
 *proxy: it comes through a descriptor and is not kept in any file.
 *
 *	{"session": "name", "allow": ["*.example.com", "tcp://db.example.com:5432"],
 *	 "passthrough": ["pinned.example.com"], "allow_all": false,
 *	 "freeze_on_canary": false,
 *	 "add_host": [{"name": "db.example.com", "address": "10.0.0.5"}],
 *	 "upstream_proxy": "http://user:password@proxy:3128",
 *	 "rules": [{"where": "policy.yaml:7", "host": "api.example.com", "ports": [443],
 *	            "methods": ["GET"], "paths": ["/v1/users"],
 *	            "require_headers": [{"name": "X-Team", "value": "agents"}],
 *	            "deny_headers": ["X-Admin"], "head_bytes_max": N, "body_bytes_max": N,
 *	            "response_bytes_max": N, "requests_max": N, "bytes_max": N,
 *	            "secrets": [{"name": "API_KEY", "methods": ["GET"], "paths": ["/v1/users"]}],
 *	            "git_push": [{"repository": "/org/repo", "refs": ["refs/heads/agent-*"]}],
 *	            "client_certificate": "NAME", "pass_unread_bodies": false}]}
 *
 * `session` must be there, and in a rule `where` and `host`; one for `tcp://name:port` has limits
 * alone. proxy/egress_policy.h says what rules
 * mean. An empty list of methods or paths is an error, because it could be read both ways; an empty
 * `git_push` allows no push. A required header without `value` may have any. The
 * certificate NAME, with its key, is in the bundle of secrets (wire/secret_bundle.h).
 */
#ifndef PROXY_PROXY_CONFIG_H
#define PROXY_PROXY_CONFIG_H

#include "proxy/egress_policy.h"
#include "proxy/host_table.h"
#include "proxy/upstream_proxy.h"

#define PROXY_CONFIG_FILE_MAX (1024u * 1024u)
#define PROXY_CONFIG_HOSTS_MAX 1024u
#define PROXY_CONFIG_ERROR_MAX 512u

struct proxy_config {
	/* Patterns and rules; what egress_policy_new() takes. */
	struct egress_policy_options policy;
	struct host_table *pinned; /* of add_host; never NULL */
	bool has_upstream;
	struct upstream_proxy upstream;
};

/* Reads the whole of `fd`. Returns 0, or a negative errno with a message in `error`. */
int proxy_config_read(int fd, struct proxy_config **ret_config,
		      char error[static PROXY_CONFIG_ERROR_MAX]);
/* The same of a text. */
int proxy_config_parse(const char *text, size_t length, struct proxy_config **ret_config,
		       char error[static PROXY_CONFIG_ERROR_MAX]);
void proxy_config_free(struct proxy_config *config);

#endif
