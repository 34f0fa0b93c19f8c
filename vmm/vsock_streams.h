/*
 * What the files of the vsock device share: its state, and the life of a stream. For
 * vsock_device.c, vsock_streams.c and vsock_guest_packets.c alone; transports and providers see
 * vsock_device.h.
 */
#ifndef VMM_VSOCK_STREAMS_H
#define VMM_VSOCK_STREAMS_H

#include "vmm/vsock_device.h"

#define VSOCK_RECEIVE_BATCH 24 /* receive buffers that one turn of a stream fills at most */
#define VSOCK_RECEIVE_PARTS 128
#define VSOCK_FIRST_HOST_PORT (UINT32_C(1) << 30)

struct pending_reset {
	uint64_t source_cid;
	struct vsock_ports ports;
	uint16_t type;
};

TAILQ_HEAD(connection_list, vsock_connection);

/* What can be stored of the device beside its queues' states. Streams end with that: their other
 * ends are sockets of the host, and the guest is told by an event of the transport's (virtio 1.2,
 * section 5.10.6.7). Host ports go on from here, so that no old packet finds a new stream. */
struct vsock_device_state {
	uint32_t next_host_port;
	uint32_t reserved;
};
_Static_assert(sizeof(struct vsock_device_state) == 8, "stored layout");

struct vsock_device {
	struct vsock_device_setup setup;
	struct virtqueue queues[VSOCK_QUEUE_COUNT];
	bool running[VSOCK_QUEUE_COUNT];
	bool transmit_kicked;
	bool receive_starved; /* no receive buffers; a kick will tell */
	struct vsock_connection *connections;
	struct connection_list all;
	struct connection_list ready;
	size_t connection_count;
	bool had_streams;
	size_t pending_bytes; /* capacity of all buffers that are allocated */
	struct vsock_device_state state;
	struct pending_reset resets[VSOCK_RESETS_MAX];
	size_t reset_start;
	size_t reset_count;
	uint32_t held_chains; /* transmitted and not published */
	uint64_t held_bytes;
	struct virtqueue_chain chains[VSOCK_RECEIVE_BATCH];
	struct iovec parts[VSOCK_RECEIVE_PARTS];
};

/* ---- vsock_streams.c ---------------------------------------------------------------------------
 */

/* Puts a stream on the ready list if it has something for the guest, or takes it off. */
void vsock_stream_ready(struct vsock_connection *connection);
void vsock_stream_unready(struct vsock_connection *connection);
/* Notes a packet that the guest is to get. */
void vsock_stream_owe(struct vsock_connection *connection, enum vsock_owed what);
/* Takes a stream out of everything and frees it. */
void vsock_stream_free(struct vsock_connection *connection);
void vsock_stream_drop_buffer(struct vsock_connection *connection);
/* The stream with these ports which the guest knows, or NULL. */
struct vsock_connection *vsock_stream_find(struct vsock_device *device, struct vsock_ports ports);
/* From now on the stream is found by its ports. */
void vsock_stream_name(struct vsock_connection *connection, struct vsock_ports ports);
/* The host side is over: one last packet, `what`, and the stream is gone. */
void vsock_stream_finish(struct vsock_connection *connection, enum vsock_owed what);
/* The guest is through with the stream and has its RST, or sent one: its ports are free again, and
 * only the bytes that it sent before keep the connection. May free it. */
void vsock_stream_release_guest(struct vsock_connection *connection);
/* The guest has shut both directions: it gets its RST, and the host side what was sent to it. */
void vsock_stream_drain(struct vsock_connection *connection);
/* A draining connection has no bytes left for the host, or nobody to take them. May free it. */
void vsock_stream_drained(struct vsock_connection *connection);

/* ---- vsock_guest_packets.c ---------------------------------------------------------------------
 */

/* Judges one packet of the guest and does what it asks for. */
void vsock_guest_packet(struct vsock_device *device, const struct virtqueue_chain *chain);

#endif
