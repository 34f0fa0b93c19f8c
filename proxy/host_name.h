/*
 * Host names in the one form that everything here compares: lower-case A-labels of letters,
 * digits, hyphens and underscores, without the trailing dot, at most 253 bytes.
 *
 * A name is what a guest asks for; an address never is. So whatever any resolver or URL parser
 * would read as an address is refused as such: dotted quads, their short, decimal, octal and
 * hexadecimal spellings (all of which end in a label that is a number, and no top-level domain
 * does), and IPv6 literals with or without brackets.
 *
 * Sources: RFC 1035 section 2.3.1, RFC 1123 section 2.1, RFC 5890 section 2.3.1; for what is a
 * number, the WHATWG URL standard, "ends in a number checker".
 */
#ifndef PROXY_HOST_NAME_H
#define PROXY_HOST_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOST_NAME_MAX_LENGTH 253u

struct host_name {
	char text[HOST_NAME_MAX_LENGTH + 1]; /* NUL-terminated */
	uint8_t length;			     /* of the text, at least 1 */
};

/* data[0..length) is a name, as received. -ENOTSUP for an address in any spelling, -EINVAL for
 * whatever else is not a host name. */
int host_name_parse(const char *data, size_t length, struct host_name *ret_name);
bool host_name_equal(const struct host_name *a, const struct host_name *b);
/* Whether the name is `domain`, which is in canonical form, or below it. */
bool host_name_is_under(const struct host_name *name, const char *domain);

/* The authority of a request (Host, :authority, that of an absolute-form target, or HOST:PORT of
 * a rule): a name and perhaps a port, 1 to 65535 in decimal without leading zeros; else
 * `default_port`. User information is refused, as is a colon with nothing behind. Errors as
 * above. */
int authority_parse(const char *data, size_t length, uint16_t default_port,
		    struct host_name *ret_name, uint16_t *ret_port);

#endif
