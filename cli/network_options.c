#include "cli/network_options.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HOST_NAME_MAX_BYTES 253
#define TCP_PREFIX "tcp://"

bool network_is_asked(const struct network_options *network)
{
	return !network->is_refused &&
	       (network->allow_all || network->allow.count > 0 || network->passthrough.count > 0 ||
		network->forward_count > 0);
}

void network_options_free(struct network_options *network)
{
	text_list_free(&network->allow);
	text_list_free(&network->passthrough);
	text_list_free(&network->added_hosts);
	if (network->upstream_proxy)
		explicit_bzero(network->upstream_proxy, strlen(network->upstream_proxy));
	free(network->upstream_proxy);
	free(network->upstream_ca);
	for (size_t i = 0; i < network->forward_count; i++)
		free(network->forwards[i].address);
	for (size_t i = 0; i < network->secret_count; i++)
		secret_option_free(&network->secrets[i]);
	*network = (struct network_options){ 0 };
}

/* ---- names ------------------------------------------------------------------------------ */

static bool parse_port(const char *text, uint16_t *ret_port)
{
	uint64_t number;

	if (!parse_unsigned(text, UINT16_MAX, &number) || number == 0)
		return false;
	*ret_port = (uint16_t)number;
	return true;
}

static bool is_address(const char *text)
{
	struct in6_addr v6;
	struct in_addr v4;

	/* The last takes "127.1" and "0x7f000001", as too many programs do. */
	return inet_pton(AF_INET, text, &v4) == 1 || inet_pton(AF_INET6, text, &v6) == 1 ||
	       inet_aton(text, &v4) == 1;
}

static bool is_host_name(const char *name)
{
	size_t length = strlen(name);

	if (length > 0 && name[length - 1] == '.')
		length--;
	if (length == 0 || length > HOST_NAME_MAX_BYTES || name[0] == '.')
		return false;
	for (size_t i = 0; i < length; i++) {
		unsigned char letter = (unsigned char)name[i];

		if (!isalnum(letter) && letter != '-' && letter != '_' && letter != '.')
			return false;
		if (letter == '.' && name[i + 1] == '.')
			return false;
	}
	return true;
}

static int check_host(const char *flag, const char *name, const char *whole,
		      struct problem *problem)
{
	cleanup_free char *shown = escape_copy(whole);

	if (is_address(name) || name[0] == '[')
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: an address is no host name; give it one with --add-host "
				   "NAME:ADDRESS, and allow that name",
				   flag, shown);
	for (const char *at = name; *at; at++) {
		if ((unsigned char)*at >= 0x80)
			return problem_set(problem, STATUS_USAGE,
					   "%s %s: write the name in its ASCII form (xn--...)",
					   flag, shown);
	}
	if (!is_host_name(name))
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: write a host name such as example.com, or "
				   "*.example.com for all below it",
				   flag, shown);
	return 0;
}

int network_check_pattern(const char *flag, const char *pattern, struct problem *problem)
{
	bool is_tcp = strncmp(pattern, TCP_PREFIX, strlen(TCP_PREFIX)) == 0;
	cleanup_free char *name = text_copy(is_tcp ? pattern + strlen(TCP_PREFIX) : pattern);
	cleanup_free char *shown = escape_copy(pattern);
	char *colon = strchr(name, ':');
	const char *host = name;
	uint16_t port;

	if (!is_tcp && strstr(pattern, "://"))
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: write the host alone, without a scheme or path (or "
				   "tcp://HOST:PORT for what is not HTTP)",
				   flag, shown);
	if (strcmp(pattern, "*") == 0)
		return problem_set(problem, STATUS_USAGE, "%s '*': every host is --allow-all-hosts",
				   flag);
	/* Addresses of IPv6 have more than one. */
	if (colon && strchr(colon + 1, ':'))
		return check_host(flag, name, pattern, problem);
	if (colon) {
		*colon = '\0';
		if (strcmp(colon + 1, "*") != 0 && !parse_port(colon + 1, &port))
			return problem_set(problem, STATUS_USAGE,
					   "%s %s: after the colon comes a port, 1 to 65535", flag,
					   shown);
	}
	if (is_tcp && (!colon || strcmp(colon + 1, "*") == 0))
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: tcp:// wants a port, as in tcp://db.example.com:5432",
				   flag, shown);
	if (strncmp(host, "*.", 2) == 0)
		host += 2;
	return check_host(flag, host, pattern, problem);
}

/* ---- flags ------------------------------------------------------------------------------ */

static int add_each(struct text_list *list, const char *flag, const char *value,
		    int (*check)(const char *, const char *, struct problem *),
		    struct problem *problem)
{
	cleanup_free char *copy = text_copy(value);
	char *rest = copy;
	char *part;

	while ((part = strsep(&rest, ","))) {
		if (*part == '\0')
			return problem_set(problem, STATUS_USAGE, "%s: a host is missing", flag);
		if (check(flag, part, problem) < 0)
			return -1;
		if (list->count == NETWORK_HOSTS_MAX)
			return problem_set(problem, STATUS_USAGE, "more than %d hosts (%s)",
					   NETWORK_HOSTS_MAX, flag);
		text_list_add(list, part);
	}
	return 0;
}

int network_allow(struct network_options *network, const char *value, struct problem *problem)
{
	return add_each(&network->allow, "--allow-host", value, network_check_pattern, problem);
}

static int check_passthrough(const char *flag, const char *host, struct problem *problem)
{
	if (strncmp(host, TCP_PREFIX, strlen(TCP_PREFIX)) == 0)
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: nobody looks into tcp:// as it is; use --allow-host",
				   flag, host);
	return network_check_pattern(flag, host, problem);
}

int network_pass_through(struct network_options *network, const char *value,
			 struct problem *problem)
{
	return add_each(&network->passthrough, "--passthrough", value, check_passthrough, problem);
}

int network_add_host(struct network_options *network, const char *value, struct problem *problem)
{
	const char *colon = strchr(value, ':');
	cleanup_free char *shown = escape_copy(value);
	cleanup_free char *name = NULL;
	cleanup_free char *address = NULL;
	struct in6_addr v6;
	struct in_addr v4;
	size_t length;

	if (!colon)
		return problem_set(problem, STATUS_USAGE, "--add-host %s: write NAME:ADDRESS",
				   shown);
	name = text_printf("%.*s", (int)(colon - value), value);
	length = strlen(colon + 1);
	if (colon[1] == '[' && colon[length] == ']')
		address = text_printf("%.*s", (int)length - 2, colon + 2);
	else
		address = text_copy(colon + 1);
	if (check_host("--add-host", name, value, problem) < 0)
		return -1;
	if (inet_pton(AF_INET, address, &v4) != 1 && inet_pton(AF_INET6, address, &v6) != 1)
		return problem_set(problem, STATUS_USAGE,
				   "--add-host %s: after the name comes an address such as "
				   "10.0.0.5 or fd00::5",
				   shown);
	if (network->added_hosts.count == (size_t)2 * NETWORK_HOSTS_MAX)
		return problem_set(problem, STATUS_USAGE, "more than %d --add-host",
				   NETWORK_HOSTS_MAX);
	text_list_add(&network->added_hosts, name);
	text_list_add(&network->added_hosts, address);
	return 0;
}

int network_set_upstream_proxy(struct network_options *network, const char *value,
			       struct problem *problem)
{
	if (network->upstream_proxy)
		return problem_set(problem, STATUS_USAGE, "--upstream-proxy is given twice");
	/* Not quoted: it may hold a password. */
	if (strncmp(value, "http://", 7) != 0 || value[7] == '\0')
		return problem_set(problem, STATUS_USAGE,
				   "--upstream-proxy: write http://[USER:PASSWORD@]HOST:PORT");
	network->upstream_proxy = text_copy(value);
	return 0;
}

int port_forward_parse(const char *text, struct port_forward *ret_forward, struct problem *problem)
{
	const char *last = strrchr(text, ':');
	const char *before = last ? memrchr(text, ':', (size_t)(last - text)) : NULL;
	const char *first_port = before ? before + 1 : text;
	cleanup_free char *shown = escape_copy(text);
	cleanup_free char *host_port = NULL;
	cleanup_free char *address = text_copy("127.0.0.1");
	struct port_forward forward;
	struct in6_addr v6;
	struct in_addr v4;

	if (last)
		host_port = text_printf("%.*s", (int)(last - first_port), first_port);
	if (!last || !parse_port(host_port, &forward.host_port) ||
	    !parse_port(last + 1, &forward.guest_port))
		return problem_set(problem, STATUS_USAGE,
				   "-p %s: write [HOST:]HOSTPORT:GUESTPORT, as in 8080:80", shown);
	if (before) {
		bool bracketed = text[0] == '[' && before > text && before[-1] == ']';

		free(address);
		address = text_printf("%.*s", (int)(before - text) - (bracketed ? 2 : 0),
				      bracketed ? text + 1 : text);
	}
	if (strcmp(address, "localhost") == 0) {
		free(address);
		address = text_copy("127.0.0.1");
	}
	if (inet_pton(AF_INET, address, &v4) != 1 && inet_pton(AF_INET6, address, &v6) != 1)
		return problem_set(
			problem, STATUS_USAGE,
			"-p %s: HOST is an address of this machine to listen at, such as "
			"0.0.0.0 or [::1]",
			shown);
	forward.address = steal_pointer(&address);
	*ret_forward = forward;
	return 0;
}

int network_forward(struct network_options *network, const char *value, struct problem *problem)
{
	if (network->forward_count == NETWORK_FORWARDS_MAX)
		return problem_set(problem, STATUS_USAGE, "more than %d ports (-p)",
				   NETWORK_FORWARDS_MAX);
	if (port_forward_parse(value, &network->forwards[network->forward_count], problem) < 0)
		return -1;
	network->forward_count++;
	return 0;
}

int network_add_secret(struct network_options *network, const char *value, struct problem *problem)
{
	struct secret_option secret;

	if (network->secret_count == SECRET_COUNT_MAX)
		return problem_set(problem, STATUS_USAGE, "more than %d secrets (--secret)",
				   SECRET_COUNT_MAX);
	if (secret_option_parse(value, &secret, problem) < 0)
		return -1;
	for (size_t i = 0; i < network->secret_count; i++) {
		if (strcmp(network->secrets[i].name, secret.name) != 0)
			continue;
		problem_set(problem, STATUS_USAGE, "--secret %s is given twice", secret.name);
		secret_option_free(&secret);
		return -1;
	}
	network->secrets[network->secret_count++] = secret;
	return 0;
}

int network_judge(const struct network_options *network, struct problem *problem)
{
	const char *flag = network->allow_all		? "--allow-all-hosts"
			   : network->allow.count	? "--allow-host"
			   : network->passthrough.count ? "--passthrough"
			   : network->forward_count	? "-p"
							: NULL;

	if (network->is_refused && flag)
		return problem_set(problem, STATUS_USAGE, "--no-network and %s: give one of them",
				   flag);
	if (network_is_asked(network))
		return 0;
	if (network->upstream_proxy || network->upstream_ca || network->added_hosts.count)
		return problem_set(problem, STATUS_USAGE,
				   "%s: no host may be reached; add --allow-host HOST",
				   network->upstream_proxy ? "--upstream-proxy"
				   : network->upstream_ca  ? "--upstream-ca"
							   : "--add-host");
	return 0;
}
