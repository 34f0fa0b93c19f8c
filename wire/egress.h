/*
 * Egress: how the guest's TCP connections and DNS queries reach the broker on the host, and how
 * connections from the host reach the guest. docs/protocol-egress.md is the description in prose.
 *
 * A stream to EGRESS_STREAM_PORT is one TCP connection that a program in the guest has made; one
 * to EGRESS_PUBLISH_PORT, which the guest listens at, is one that it is to make to its own
 * loopback. Either begins with a struct egress_hello from the side that dials, and is raw bytes
 * both ways from then on; each side ends its direction with a shutdown. There is no reply: what
 * cannot be said in the connection's own protocol is said by closing it. EGRESS_DNS_PORT carries
 * DNS messages, each behind its length as a big-endian u16 (RFC 1035, section 4.2.2), any number a
 * stream.
 *
 * The address in a hello from the guest is what its program wanted to reach, or what a hostile
 * guest claims; either way it is a question, never an address to dial.
 */
#ifndef WIRE_EGRESS_H
#define WIRE_EGRESS_H

#include <assert.h>
#include <stdint.h>

#define EGRESS_STREAM_PORT 1027	 /* the guest dials */
#define EGRESS_DNS_PORT 1028	 /* the guest dials */
#define EGRESS_PUBLISH_PORT 1029 /* the host dials */

#define EGRESS_HELLO_SIZE 24
#define EGRESS_HELLO_MAGIC 0x30654c4dU /* "MLe0" */
#define EGRESS_DNS_MESSAGE_MAX 65535
/* Streams of either kind that the guest holds at a time. */
#define EGRESS_STREAMS_MAX 16384

/* As it is on the wire; integers are little-endian. */
struct egress_hello {
	uint32_t magic;
	uint8_t family; /* 4 or 6 */
	uint8_t zero;
	uint16_t port;	     /* not 0 */
	uint8_t address[16]; /* in network order; of family 4 the first four, the rest zero */
};
static_assert(sizeof(struct egress_hello) == EGRESS_HELLO_SIZE, "wire format");

struct egress_target {
	uint8_t family; /* 4 or 6 */
	uint16_t port;
	uint8_t address[16];
};

/* `data` is EGRESS_HELLO_SIZE bytes. Returns 0, or -EBADMSG for anything not of the form above. */
int egress_decode_hello(const void *data, struct egress_target *ret_target);
void egress_encode_hello(void *buffer, const struct egress_target *target);

#endif
