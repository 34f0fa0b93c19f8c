#include "proxy/address_class.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

struct range {
	uint8_t bytes[16];
	uint8_t bits;
	const char *class;
};

static const struct range ranges_v4[] = {
	{ { 0 }, 8, "this network" },
	{ { 10 }, 8, "private" },
	{ { 100, 64 }, 10, "carrier-grade NAT" },
	{ { 127 }, 8, "loopback" },
	{ { 169, 254 }, 16, "link-local or metadata" },
	{ { 172, 16 }, 12, "private" },
	{ { 192, 0, 0 }, 24, "protocol assignments" },
	{ { 192, 0, 2 }, 24, "documentation" },
	{ { 192, 31, 196 }, 24, "AS112" },
	{ { 192, 52, 193 }, 24, "AMT" },
	{ { 192, 88, 99 }, 24, "6to4 relay" },
	{ { 192, 168 }, 16, "private" },
	{ { 192, 175, 48 }, 24, "AS112" },
	{ { 198, 18 }, 15, "benchmarking" },
	{ { 198, 51, 100 }, 24, "documentation" },
	{ { 203, 0, 113 }, 24, "documentation" },
	/* Azure's, which answers every virtual machine from an address that looks public. */
	{ { 168, 63, 129, 16 }, 32, "metadata" },
	{ { 224 }, 4, "multicast" },
	{ { 240 }, 4, "reserved or broadcast" },
};

/* Outside 2000::/3 all is refused; these only say by which name. */
static const struct range ranges_v6[] = {
	{ { 0 }, 128, "unspecified" },
	{ { [15] = 1 }, 128, "loopback" },
	{ { [10] = 0xff, [11] = 0xff }, 96, "IPv4-mapped" },
	{ { 0 }, 96, "IPv4-compatible" },
	{ { 0x00, 0x64, 0xff, 0x9b }, 96, "NAT64" },
	{ { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48, "NAT64" },
	{ { 0x01, 0x00 }, 64, "discard" },
	{ { 0xfc }, 7, "unique local" },
	{ { 0xfe, 0x80 }, 10, "link-local" },
	{ { 0xfe, 0xc0 }, 10, "site-local" },
	{ { 0xff }, 8, "multicast" },
	{ { 0x20, 0x01, 0x00, 0x00 }, 32, "Teredo" },
	{ { 0x20, 0x01, 0x00 }, 23, "protocol assignments" },
	{ { 0x20, 0x01, 0x0d, 0xb8 }, 32, "documentation" },
	{ { 0x20, 0x02 }, 16, "6to4" },
	{ { 0x26, 0x20, 0x00, 0x4f, 0x80, 0x00 }, 48, "AS112" },
	{ { 0x3f, 0xff, 0x00 }, 20, "documentation" },
};

static bool is_within(const uint8_t *bytes, const struct range *range)
{
	size_t whole = range->bits / 8u;
	unsigned rest = range->bits % 8u;

	if (memcmp(bytes, range->bytes, whole) != 0)
		return false;
	return rest == 0 || (bytes[whole] ^ range->bytes[whole]) >> (8u - rest) == 0;
}

static const char *find_range(const uint8_t *bytes, const struct range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (is_within(bytes, &ranges[i]))
			return ranges[i].class;
	}
	return NULL;
}

/* RFC 5214: an interface identifier of ::0:5efe or ::200:5efe before the IPv4 address. */
static bool is_isatap(const uint8_t *bytes)
{
	static const uint8_t identifier[] = { 0x00, 0x00, 0x5e, 0xfe };

	return (bytes[8] & ~0x02) == identifier[0] &&
	       memcmp(bytes + 9, identifier + 1, sizeof(identifier) - 1) == 0;
}

const char *address_class(const struct ip_address *address)
{
	const char *class;

	if (address->family == 4)
		return find_range(address->bytes, ranges_v4, ARRAY_LENGTH(ranges_v4));
	if (address->family != 6)
		return "unknown family";
	class = find_range(address->bytes, ranges_v6, ARRAY_LENGTH(ranges_v6));
	if (!class && address->bytes[0] >> 5 != 1)
		class = "not global unicast";
	if (!class && is_isatap(address->bytes))
		class = "ISATAP";
	return class;
}

void ip_address_to_socket(const struct ip_address *address, uint16_t port,
			  struct sockaddr_storage *ret_socket, socklen_t *ret_length)
{
	memset(ret_socket, 0, sizeof(*ret_socket));
	if (address->family == 4) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)ret_socket;

		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, address->bytes, sizeof(v4->sin_addr));
		*ret_length = sizeof(*v4);
	} else {
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_socket;

		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		memcpy(&v6->sin6_addr, address->bytes, sizeof(v6->sin6_addr));
		*ret_length = sizeof(*v6);
	}
}

int ip_address_from_socket(const struct sockaddr_storage *socket, struct ip_address *ret_address,
			   uint16_t *ret_port)
{
	struct ip_address address = { .family = 4 };
	uint16_t port;

	if (socket->ss_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)socket;

		memcpy(address.bytes, &v4->sin_addr, sizeof(v4->sin_addr));
		port = ntohs(v4->sin_port);
	} else if (socket->ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)socket;

		address.family = 6;
		memcpy(address.bytes, &v6->sin6_addr, sizeof(v6->sin6_addr));
		port = ntohs(v6->sin6_port);
	} else {
		return -EAFNOSUPPORT;
	}
	*ret_address = address;
	if (ret_port)
		*ret_port = port;
	return 0;
}

int ip_address_parse(const char *text, struct ip_address *ret_address)
{
	struct ip_address address = { .family = 4 };

	if (inet_pton(AF_INET, text, address.bytes) != 1) {
		address = (struct ip_address){ .family = 6 };
		if (inet_pton(AF_INET6, text, address.bytes) != 1)
			return -EINVAL;
	}
	*ret_address = address;
	return 0;
}

void ip_address_text(const struct ip_address *address, char text[static IP_ADDRESS_TEXT_MAX])
{
	int family = address->family == 4 ? AF_INET : AF_INET6;

	if (!inet_ntop(family, address->bytes, text, IP_ADDRESS_TEXT_MAX))
		text[0] = '\0';
}

bool ip_address_equal(const struct ip_address *a, const struct ip_address *b)
{
	return a->family == b->family &&
	       memcmp(a->bytes, b->bytes, a->family == 4 ? 4 : sizeof(a->bytes)) == 0;
}

/*
 * For a destination that is local the kernel's preferred source is that destination itself: a
 * local route has its own address as source, and RFC 6724 prefers the same address (rule 1).
 * Asking anew each time sees addresses that the host gained after the session began.
 */
int address_is_own(const struct ip_address *address)
{
	struct sockaddr_storage peer, local = { 0 };
	struct ip_address source;
	socklen_t length;
	cleanup_fd int fd = -1;
	int error;

	ip_address_to_socket(address, 9, &peer, &length);
	fd = socket(peer.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno == EAFNOSUPPORT ? 0 : -errno;
	if (connect(fd, (const struct sockaddr *)&peer, length) < 0) {
		bool no_route = errno == ENETUNREACH || errno == EHOSTUNREACH ||
				errno == EADDRNOTAVAIL || errno == EACCES || errno == EPERM ||
				errno == EINVAL;

		return no_route ? 0 : -errno;
	}
	length = sizeof(local);
	if (getsockname(fd, (struct sockaddr *)&local, &length) < 0)
		return -errno;
	error = ip_address_from_socket(&local, &source, NULL);
	if (error)
		return error;
	return ip_address_equal(&source, address);
}
