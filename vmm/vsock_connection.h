/*
 * One stream between a guest port and a host socket: its state, its credit in both directions,
 * and the bounded buffer for bytes which the host socket did not take yet.
 *
 * Nothing here touches queues or sockets; vsock_device.c does, following what these functions say.
 *
 * Credit (virtio 1.2, section 5.10.6.3): towards the guest we may have at most
 * peer_buffer - (sent_count - peer_forward_count) bytes in flight, modulo 2^32. The guest may
 * have at most VSOCK_BUFFER_SIZE bytes in flight towards us, which is why the buffer has that
 * capacity and no more.
 *
 * Credit counts bytes and nothing else, but Linux keeps each packet that waits for its reader in a
 * buffer of its own, and since 6.12.92 resets a stream when the overhead of these (576 bytes each
 * on x86-64) comes to more than buf_alloc. So a host program that writes little at a time may have
 * only so many packets in flight; what it writes beyond comes together in packets that are full.
 * The stream goes on when the guest says that it has read, which Linux does once it has read all
 * (since 6.8, and Debian's 6.1; before it said nothing until it had read 192 KiB).
 */
#ifndef VMM_VSOCK_CONNECTION_H
#define VMM_VSOCK_CONNECTION_H

#include "base/event_loop.h"
#include "vmm/vsock_packet.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

/* What we announce as buf_alloc for each stream, in bytes. */
#define VSOCK_BUFFER_SIZE (256 * 1024)
/* One packet towards the guest for so many bytes of its buffer, read or not. Packets that are full
 * need less than half of that. */
#define VSOCK_BYTES_PER_PACKET 1024

/* Which events each state allows:
 *
 *   HANDSHAKE    a host client has connected, its CONNECT line is not complete. Unknown to the
 * guest. REQUESTED    we asked the guest; it may answer RESPONSE or RST, nothing else. ESTABLISHED
 * data, credit, SHUTDOWN and RST both ways. DRAINING     the guest has shut both directions and
 * gets an RST; what it sent before is still being written to the host socket. Its packets are
 * ignored; after the RST its port pair may be used anew. CLOSING      the host is through with it;
 * a last RST or SHUTDOWN waits for a receive buffer.
 */
enum vsock_state {
	VSOCK_HANDSHAKE,
	VSOCK_REQUESTED,
	VSOCK_ESTABLISHED,
	VSOCK_DRAINING,
	VSOCK_CLOSING,
};

/* Packets that are owed to the guest. */
enum vsock_owed {
	VSOCK_OWE_REQUEST = 1,
	VSOCK_OWE_RESPONSE = 2,
	VSOCK_OWE_RST = 4,
	VSOCK_OWE_CREDIT = 8,
	VSOCK_OWE_SHUTDOWN = 16, /* with the flags of host_shutdown */
};

struct vsock_ports {
	uint32_t guest;
	uint32_t host;
};

/* A multiplicative hash of both ports, instead of uthash's general function for strings of bytes.
 * The guest chooses ports and could make some collide; the number of connections bounds what that
 * costs, and only its own packets pay. */
static inline unsigned vsock_ports_hash(const struct vsock_ports *ports)
{
	return (unsigned)((ports->host * UINT64_C(0x9e3779b97f4a7c15) +
			   ports->guest * UINT64_C(0xc2b2ae3d27d4eb4f)) >>
			  32);
}
#define HASH_FUNCTION(key, length, hash)                                                           \
	do {                                                                                       \
		(hash) = vsock_ports_hash((const struct vsock_ports *)(const void *)(key));        \
	} while (0)
#include <uthash.h>

struct vsock_connection {
	struct event_source socket; /* first: the muxer gets from one to the other; fd owned */
	struct vsock_device *device;
	UT_hash_handle hh; /* by ports, while the guest knows the stream */
	TAILQ_ENTRY(vsock_connection) ready;
	TAILQ_ENTRY(vsock_connection) all;
	struct vsock_ports ports;
	enum vsock_state state;
	unsigned owed;		 /* enum vsock_owed */
	uint32_t host_shutdown;	 /* VSOCK_SHUTDOWN_* as told or about to be told to the guest */
	uint32_t guest_shutdown; /* VSOCK_SHUTDOWN_* as the guest told */
	bool hashed;
	bool is_ready;	  /* on the device's ready list */
	bool readable;	  /* the socket may have bytes or its end for us */
	bool end_pending; /* the socket's end lies behind the bytes it has: read up to it */
	bool hung_up;	  /* the host side has closed altogether */
	bool wants_write; /* EPOLLOUT is asked for */

	uint32_t peer_buffer;	     /* the guest's buf_alloc */
	uint32_t peer_forward_count; /* the guest's fwd_cnt */
	uint32_t sent_count;	     /* bytes sent to the guest */
	uint32_t marked_count;	     /* sent_count at some moment */
	uint32_t packets_before;     /* sent before that, and not all read as far as we know */
	uint32_t packets_after;	     /* and since */

	uint32_t forward_count;	  /* bytes written to the host socket (or dropped with it) */
	uint32_t announced_count; /* forward_count in the last packet to the guest */

	uint8_t *buffer; /* VSOCK_BUFFER_SIZE bytes while something is pending, else NULL */
	size_t buffer_start;
	size_t buffer_length;
};

/* Takes the credit fields of any packet of the stream. */
void vsock_connection_update_credit(struct vsock_connection *connection,
				    const struct vsock_header *header);
/* Bytes which may be sent to the guest now. A lying guest gets 0 or up to what it said: either way
 * nothing of ours is at stake, for the bytes stay in the host socket meanwhile. */
uint32_t vsock_connection_credit(const struct vsock_connection *connection);
/* Packets with data which may be sent to the guest now. */
uint32_t vsock_connection_packet_credit(const struct vsock_connection *connection);
/* Counts what was sent to the guest. */
void vsock_connection_sent(struct vsock_connection *connection, size_t length, size_t packets);
/* Whether the guest kept to our buf_alloc with `length` more bytes. */
bool vsock_connection_accepts(const struct vsock_connection *connection, uint32_t length);
/* Counts bytes that have left for the host; true when the guest should be told now. */
bool vsock_connection_forwarded(struct vsock_connection *connection, size_t length);
/* Whether there is something to send to the guest, given a receive buffer. */
bool vsock_connection_has_work(const struct vsock_connection *connection);
/* Whether host bytes may be read for the guest now. */
bool vsock_connection_can_read(const struct vsock_connection *connection);

/* Appends to the pending bytes; `length` must have been accepted. Returns 0 or -ENOMEM. The first
 * append allocates the buffer. */
int vsock_connection_buffer(struct vsock_connection *connection, const struct iovec *parts,
			    size_t count, size_t offset, size_t length);
/* Drops `length` pending bytes from the front; frees the buffer when none are left. */
void vsock_connection_unbuffer(struct vsock_connection *connection, size_t length);

#endif
