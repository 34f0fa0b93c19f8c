/*
 * Patterns of hosts, as people write them in rules: `example.com` is that name alone,
 * `*.example.com` every name below it and not itself. Both compare whole labels.
 *
 * With a port, `example.com:8443` is that port, `example.com:*` every port; without one a pattern
 * is of the ports that its list has by default. `tcp://db.example.com:5432` is a connection that
 * nobody looks into, and must have a port.
 */
#ifndef PROXY_HOST_PATTERN_H
#define PROXY_HOST_PATTERN_H

#include "proxy/host_name.h"

#define HOST_PATTERN_MAX 300u /* bytes of a pattern's text */

enum host_pattern_ports {
	HOST_PATTERN_PORTS_DEFAULT,
	HOST_PATTERN_PORTS_ONE,
	HOST_PATTERN_PORTS_ALL,
};

struct host_pattern {
	struct host_name name;
	bool is_wildcard; /* the names below `name` */
	bool is_tcp;
	enum host_pattern_ports ports;
	uint16_t port; /* with HOST_PATTERN_PORTS_ONE */
};

/* -EINVAL; -ENOTSUP where an address stands for the name. */
int host_pattern_parse(const char *data, size_t length, struct host_pattern *ret_pattern);
/* The name alone. */
bool host_pattern_matches_name(const struct host_pattern *pattern, const struct host_name *name);
/* Name and port; a pattern without a port is of the `default_ports`, which end with 0. */
bool host_pattern_matches(const struct host_pattern *pattern, const struct host_name *name,
			  uint16_t port, const uint16_t *default_ports);
/* Writes the pattern in its canonical form, with a NUL, into HOST_PATTERN_MAX bytes. */
void host_pattern_text(const struct host_pattern *pattern, char text[static HOST_PATTERN_MAX]);

#endif
