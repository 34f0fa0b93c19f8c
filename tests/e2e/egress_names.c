/*
 * Names, addresses and connections of the broker in a jail as it has, against the network that the
 * test built:
 *
 *	egress_names DNS-SERVER [--pin NAME=ADDRESS]... WHAT...
 *
 * WHAT is NAME:PORT, which is connected to, or ?NAME, which the guest's DNS is asked for. One line
 * of result each: "NAME:PORT connected to ADDRESS", "NAME:PORT REASON", "?NAME ADDRESS".
 */
#include "base/checked.h"
#include "jail/jail.h"
#include "proxy/connector.h"
#include "proxy/dns_answer.h"

#include <ldns/ldns.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct event_loop loop;
static bool is_done;

static void die(const char *what, int error)
{
	fprintf(stderr, "egress_names: %s: %s\n", what, strerror(-error));
	exit(2);
}

static void on_done(void *context, struct connect_result *result)
{
	const char *what = context;
	char text[IP_ADDRESS_TEXT_MAX];

	ip_address_text(&result->address, text);
	if (result->fd >= 0)
		printf("%s connected to %s\n", what, text);
	else
		printf("%s %s: %s\n", what, result->reason, result->detail);
	if (result->fd >= 0)
		close(result->fd);
	is_done = true;
}

static void connect_to(struct connector *connector, char *what)
{
	struct connector_attempt *attempt;
	struct host_name name;
	uint16_t port;
	int error = authority_parse(what, strlen(what), 443, &name, &port);

	if (error) {
		printf("%s %s\n", what, error == -ENOTSUP ? "is an address" : "is no name");
		return;
	}
	is_done = false;
	error = connector_start(connector, &name, port, on_done, what, &attempt);
	if (error)
		die(what, error);
	while (!is_done) {
		error = event_loop_run_once(&loop, -1);
		if (error < 0)
			die("the event loop", error);
	}
}

static void ask(struct synthetic_addresses *addresses, const char *what)
{
	ldns_pkt *query = ldns_pkt_query_new(ldns_dname_new_frm_str(what + 1), LDNS_RR_TYPE_A,
					     LDNS_RR_CLASS_IN, LDNS_RD);
	uint8_t answer[DNS_ANSWER_MAX];
	size_t length = 0, answer_length = 0;
	uint8_t *wire = NULL;

	if (!query || ldns_pkt2wire(&wire, query, &length) != LDNS_STATUS_OK)
		die(what, -EINVAL);
	if (dns_answer(addresses, wire, length, answer, &answer_length) < 0 || answer_length < 4)
		die(what, -EBADMSG);
	printf("%s %s %u.%u.%u.%u\n", what, (answer[3] & 15) == 0 ? "is" : "is not",
	       answer[answer_length - 4], answer[answer_length - 3], answer[answer_length - 2],
	       answer[answer_length - 1]);
	free(wire);
	ldns_pkt_free(query);
}

/* No file system, and nothing but what the modules say that they call. */
static void enter_jail(void)
{
	const struct jail_syscall_set *const sets[] = { &jail_calls_process, &resolver_calls,
							&connector_calls };
	const struct jail_spec spec = {
		.component = "egress_names",
		.syscall_sets = sets,
		.syscall_set_count = ARRAY_LENGTH(sets),
		.network_allowed = JAIL_NET_CONNECT_TCP,
		.namespaces = CLONE_NEWUSER | CLONE_NEWNS,
		.empty_root = true,
		.keep_all_fds = true,
	};
	struct jail_report report;
	int error = jail_enter(&spec, &report);

	if (error)
		die(report.failed_stage, error);
	if (report.seccomp_calls == 0)
		die("no system call filter", -EPERM);
}

static void pin(struct host_table *pinned, char *text)
{
	char *address_text = strchr(text, '=');
	struct ip_address address;
	struct host_name name;

	if (!address_text || host_name_parse(text, (size_t)(address_text - text), &name) < 0 ||
	    ip_address_parse(address_text + 1, &address) < 0 ||
	    host_table_add(pinned, &name, &address) < 0)
		die(text, -EINVAL);
}

int main(int argc, char **argv)
{
	struct host_table *pinned = host_table_new();
	struct synthetic_addresses *addresses = synthetic_addresses_new();
	struct resolver_options options = { .loop = &loop,
					    .hosts_path = "/nonexistent",
					    .servers = argc > 1 ? argv[1] : NULL,
					    .pinned = pinned };
	struct connector_options connecting = { .loop = &loop, .timeout_ms = 5000 };
	struct connector *connector;
	int next = 2;
	int error;

	if (!pinned || !addresses || argc < 3)
		die("usage", -EINVAL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (; next + 1 < argc && strcmp(argv[next], "--pin") == 0; next += 2)
		pin(pinned, argv[next + 1]);
	error = event_loop_init(&loop);
	if (!error)
		error = resolver_new(&options, &connecting.resolver);
	if (!error)
		error = connector_new(&connecting, &connector);
	if (error)
		die("cannot begin", error);
	enter_jail();
	for (; next < argc; next++) {
		if (argv[next][0] == '?')
			ask(addresses, argv[next]);
		else
			connect_to(connector, argv[next]);
	}
	connector_free(connector);
	resolver_free(connecting.resolver);
	event_loop_release(&loop);
	synthetic_addresses_free(addresses);
	host_table_free(pinned);
	return 0;
}
