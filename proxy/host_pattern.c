#include "proxy/host_pattern.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TCP_PREFIX "tcp://"

static bool begins_with(const char *data, size_t length, const char *prefix)
{
	return length >= strlen(prefix) && memcmp(data, prefix, strlen(prefix)) == 0;
}

int host_pattern_parse(const char *data, size_t length, struct host_pattern *ret_pattern)
{
	struct host_pattern pattern = { .ports = HOST_PATTERN_PORTS_DEFAULT };
	int error;

	if (length >= HOST_PATTERN_MAX)
		return -EINVAL;
	if (begins_with(data, length, TCP_PREFIX)) {
		pattern.is_tcp = true;
		data += strlen(TCP_PREFIX);
		length -= strlen(TCP_PREFIX);
	}
	if (begins_with(data, length, "*.")) {
		pattern.is_wildcard = true;
		data += 2;
		length -= 2;
	}
	if (length > 2 && data[length - 2] == ':' && data[length - 1] == '*') {
		pattern.ports = HOST_PATTERN_PORTS_ALL;
		error = host_name_parse(data, length - 2, &pattern.name);
	} else {
		error = authority_parse(data, length, 0, &pattern.name, &pattern.port);
		if (!error && pattern.port != 0)
			pattern.ports = HOST_PATTERN_PORTS_ONE;
	}
	if (error)
		return error;
	if (pattern.is_tcp && pattern.ports != HOST_PATTERN_PORTS_ONE)
		return -EINVAL;
	*ret_pattern = pattern;
	return 0;
}

bool host_pattern_matches_name(const struct host_pattern *pattern, const struct host_name *name)
{
	size_t below;

	if (!pattern->is_wildcard)
		return host_name_equal(&pattern->name, name);
	if (name->length < pattern->name.length + 2u)
		return false;
	below = (size_t)name->length - pattern->name.length;
	return name->text[below - 1] == '.' &&
	       memcmp(name->text + below, pattern->name.text, pattern->name.length) == 0;
}

bool host_pattern_matches(const struct host_pattern *pattern, const struct host_name *name,
			  uint16_t port, const uint16_t *default_ports)
{
	if (!host_pattern_matches_name(pattern, name))
		return false;
	switch (pattern->ports) {
	case HOST_PATTERN_PORTS_ONE:
		return port == pattern->port;
	case HOST_PATTERN_PORTS_ALL:
		return true;
	case HOST_PATTERN_PORTS_DEFAULT:
		break;
	}
	for (; *default_ports != 0; default_ports++) {
		if (port == *default_ports)
			return true;
	}
	return false;
}

void host_pattern_text(const struct host_pattern *pattern, char text[static HOST_PATTERN_MAX])
{
	char port[8] = "";

	if (pattern->ports == HOST_PATTERN_PORTS_ONE)
		snprintf(port, sizeof(port), ":%u", pattern->port);
	else if (pattern->ports == HOST_PATTERN_PORTS_ALL)
		snprintf(port, sizeof(port), ":*");
	snprintf(text, HOST_PATTERN_MAX, "%s%s%s%s", pattern->is_tcp ? TCP_PREFIX : "",
		 pattern->is_wildcard ? "*." : "", pattern->name.text, port);
}
