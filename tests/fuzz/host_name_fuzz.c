/* Any bytes as a host name, an authority and a pattern. What is taken for a name is canonical, and
 * no function of the system takes it for an address. */
#include <arpa/inet.h>
#include <assert.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/host_name.h"
#include "proxy/host_pattern.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const struct host_name *name)
{
	static const struct addrinfo numeric = { .ai_flags = AI_NUMERICHOST };
	struct addrinfo *found = NULL;
	struct host_name again;
	struct in_addr v4;

	assert(name->length >= 1 && name->length <= HOST_NAME_MAX_LENGTH);
	assert(strlen(name->text) == name->length);
	assert(name->text[name->length - 1] != '.');
	assert(!inet_aton(name->text, &v4));
	assert(getaddrinfo(name->text, NULL, &numeric, &found) != 0);
	assert(host_name_parse(name->text, name->length, &again) == 0);
	assert(host_name_equal(name, &again));
}

static void check_pattern(const struct host_pattern *pattern)
{
	static const uint16_t ports[] = { 443, 0 };
	char text[HOST_PATTERN_MAX];
	struct host_pattern again;

	check_name(&pattern->name);
	host_pattern_text(pattern, text);
	assert(host_pattern_parse(text, strlen(text), &again) == 0);
	assert(host_name_equal(&pattern->name, &again.name) && pattern->ports == again.ports);
	if (pattern->is_wildcard)
		assert(!host_pattern_matches(pattern, &pattern->name, 443, ports));
	else
		assert(host_pattern_matches_name(pattern, &pattern->name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of the exact size, so that a read past the end is seen. */
	char *text = malloc(size > 0 ? size : 1);
	struct host_pattern pattern;
	struct host_name name;
	uint16_t port = 0;

	if (!text)
		return 0;
	memcpy(text, data, size);
	if (host_name_parse(text, size, &name) == 0) {
		check_name(&name);
		assert(authority_parse(text, size, 443, &name, &port) == 0 && port == 443);
	}
	if (authority_parse(text, size, 80, &name, &port) == 0) {
		check_name(&name);
		assert(port != 0);
	}
	if (host_pattern_parse(text, size, &pattern) == 0)
		check_pattern(&pattern);
	free(text);
	return 0;
}
