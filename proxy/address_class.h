/*
 * Which addresses the broker may connect to on a guest's behalf: global unicast ones that no
 * registry has set aside and no translator turns into another, and none of the host's own.
 *
 * A range that is set aside has a class, a short word for people and logs ("private",
 * "loopback"). IPv6 is closed but for 2000::/3, so that a range which is assigned one day is not
 * open by accident. Ranges that carry an IPv4 address inside (v4-mapped, NAT64, 6to4, Teredo,
 * ISATAP) are refused whole, whatever they carry.
 *
 * Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and
 * its updates), RFC 4291, 6052, 3056, 4380, 5214; the metadata services of the cloud providers.
 */
#ifndef PROXY_ADDRESS_CLASS_H
#define PROXY_ADDRESS_CLASS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct ip_address {
	uint8_t family;	   /* 4 or 6 */
	uint8_t bytes[16]; /* network order; those of IPv4 in the first four, then zeros */
};

/* "255.255.255.255" or an IPv6 text, with its NUL. */
#define IP_ADDRESS_TEXT_MAX 46u

/* The socket address for `port`, its length in *ret_length. */
void ip_address_to_socket(const struct ip_address *address, uint16_t port,
			  struct sockaddr_storage *ret_socket, socklen_t *ret_length);
/* -EAFNOSUPPORT for other families. The port goes to *ret_port unless that is NULL. */
int ip_address_from_socket(const struct sockaddr_storage *socket, struct ip_address *ret_address,
			   uint16_t *ret_port);
/* A whole text in the canonical spelling of its family; -EINVAL for anything else. */
int ip_address_parse(const char *text, struct ip_address *ret_address);
void ip_address_text(const struct ip_address *address, char text[static IP_ADDRESS_TEXT_MAX]);
bool ip_address_equal(const struct ip_address *a, const struct ip_address *b);

/* The class of an address that is set aside; NULL for one that is not. A v4-mapped address and
 * any of an unknown family has a class. */
const char *address_class(const struct ip_address *address);

/* Whether the host would deliver to itself what it sends there: asks the kernel's routing table
 * as it is now, by a datagram socket that is connected and sends nothing. An address that the
 * kernel has no route to is not the host's own. A negative errno when there is no answer. */
int address_is_own(const struct ip_address *address);

#endif
