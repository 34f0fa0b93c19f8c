/*
 * What a command line says about the network: hosts, secrets, and forwarded ports.
 *
 * Only form is judged, for a message at once; the broker (matchlock-proxy) decides what a pattern
 * means and refuses what it does not take. Without any of these flags, or with --no-network, there
 * is no network at all.
 */
#ifndef CLI_NETWORK_OPTIONS_H
#define CLI_NETWORK_OPTIONS_H

#include "cli/secret_option.h"
#include "cli/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETWORK_HOSTS_MAX 1024
#define NETWORK_FORWARDS_MAX 32

/* -p and `matchlock port-forward`: connections to the host's port go to the guest's loopback. */
struct port_forward {
	char *address; /* of the host, numeric */
	uint16_t host_port;
	uint16_t guest_port;
};

struct network_options {
	bool is_refused; /* --no-network */
	bool allow_all;
	struct text_list allow;	      /* patterns, as given */
	struct text_list passthrough; /* hosts */
	/* --add-host, name and address by turns. */
	struct text_list added_hosts;
	char *upstream_proxy; /* may hold a password */
	char *upstream_ca;
	struct port_forward forwards[NETWORK_FORWARDS_MAX];
	size_t forward_count;
	struct secret_option secrets[SECRET_COUNT_MAX];
	size_t secret_count;
	bool plants_canaries; /* --canary */
};

/* Whether the session gets a network. */
bool network_is_asked(const struct network_options *network);
void network_options_free(struct network_options *network);

/* One value of the flag; lists take several with commas. -1 with *problem set. */
int network_allow(struct network_options *network, const char *value, struct problem *problem);
int network_pass_through(struct network_options *network, const char *value,
			 struct problem *problem);
int network_add_host(struct network_options *network, const char *value, struct problem *problem);
int network_set_upstream_proxy(struct network_options *network, const char *value,
			       struct problem *problem);
int network_add_secret(struct network_options *network, const char *value, struct problem *problem);
int network_forward(struct network_options *network, const char *value, struct problem *problem);
/* After the last flag: what does not go together. */
int network_judge(const struct network_options *network, struct problem *problem);

/* A pattern of --allow-host and `matchlock allow`. */
int network_check_pattern(const char *flag, const char *pattern, struct problem *problem);
/* "[HOST:]HOSTPORT:GUESTPORT"; the caller frees ret_forward->address. */
int port_forward_parse(const char *text, struct port_forward *ret_forward, struct problem *problem);

#endif
