/*
 * The virtio-vsock device (virtio 1.2, section 5.10), apart from how the guest reaches it.
 *
 * A transport (vhost-user here; MMIO in a process that runs vCPUs itself) starts and stops the two
 * queues, passes kicks in, calls vsock_device_run() after each round of events and interrupts the
 * guest when asked to. A stream provider (vsock_muxer.h) opens host sockets and tells of their
 * events. The event queue needs nothing of us: this device never moves between hosts.
 *
 * Payload is opaque, so it goes straight between guest memory and the host socket; only what a
 * socket refuses at the moment is copied, into a buffer bounded by the credit we gave.
 *
 * Limits: VSOCK_CONNECTIONS_MAX streams at once (fewer if the setup says so), VSOCK_PENDING_MAX
 * bytes of such buffers over all of them, VSOCK_RESETS_MAX answers to unknown streams waiting for
 * receive buffers. Beyond each, the guest's new stream, stream or packet respectively is refused or
 * dropped.
 */
#ifndef VMM_VSOCK_DEVICE_H
#define VMM_VSOCK_DEVICE_H

#include "vmm/virtqueue.h"
#include "vmm/vsock_connection.h"

#define VSOCK_CONNECTIONS_MAX 16384
#define VSOCK_PENDING_MAX (64 * 1024 * 1024)
#define VSOCK_RESETS_MAX 256

#define VSOCK_DEVICE_FEATURES (VIRTIO_FEATURE_EVENT_INDEX | VIRTIO_FEATURE_VERSION_1)

enum vsock_queue {
	VSOCK_QUEUE_RECEIVE = 0, /* to the guest */
	VSOCK_QUEUE_TRANSMIT = 1,
	VSOCK_QUEUE_COUNT = 2,
};

struct vsock_device;

/* The host side of streams. `connection->socket.fd` belongs to the provider's calls below. */
struct vsock_stream_operations {
	/* The guest asks for host port `port`. 0 with the socket open, or a negative errno, which
	 * refuses the stream. Never blocks. */
	int (*open)(void *provider, struct vsock_connection *connection, uint32_t port);
	/* As sendmsg() and readv(), non-blocking, with negative errnos. */
	ssize_t (*send)(struct vsock_connection *connection, const struct iovec *parts,
			size_t count);
	ssize_t (*receive)(struct vsock_connection *connection, const struct iovec *parts,
			   size_t count);
	/* VSOCK_SHUTDOWN_* as the guest sees it: SEND ends what the host reads. */
	void (*shutdown)(struct vsock_connection *connection, uint32_t flags);
	/* Whether vsock_device_stream_writable() is wanted. */
	void (*want_write)(void *provider, struct vsock_connection *connection, bool wanted);
	/* The guest accepted what vsock_device_request() asked for. */
	void (*accepted)(struct vsock_connection *connection);
	void (*close)(void *provider, struct vsock_connection *connection);
};

struct vsock_device_setup {
	uint64_t guest_cid;
	size_t connections_max; /* 0: VSOCK_CONNECTIONS_MAX; what RLIMIT_NOFILE leaves room for */
	const struct vsock_stream_operations *streams;
	void *provider; /* for the stream operations */
	/* Interrupts the guest for a queue that was published. */
	void (*interrupt)(void *transport, enum vsock_queue queue);
	void *transport;
	/* The guest broke the protocol; `what` is static text. May come at any rate. */
	void (*violation)(void *observer, const char *what);
	void *observer;
};

/* Returns 0 with a device that vsock_device_free() releases, or -ENOMEM. */
int vsock_device_new(const struct vsock_device_setup *setup, struct vsock_device **ret_device);
void vsock_device_free(struct vsock_device *device);

/* Copies from the configuration space (guest_cid, 8 bytes); bytes beyond it read as zero. */
void vsock_device_read_config(const struct vsock_device *device, size_t offset, uint8_t *output,
			      size_t length);

/* Starts a stopped queue (see virtqueue_start() for errors; -EBUSY when it runs). */
int vsock_device_start_queue(struct vsock_device *device, enum vsock_queue index,
			     const struct guest_memory *memory,
			     const struct virtqueue_layout *layout);
/* Stops a queue, giving every taken chain back, and drops all streams: a driver that stops a
 * queue has forgotten them. Returns the index to go on from. */
uint16_t vsock_device_stop_queue(struct vsock_device *device, enum vsock_queue index);
/* As virtio_device.h's position: -EBUSY also after the first stream, for streams end with this
 * process, and a guest that spoke to anybody is not one that has just started. */
int vsock_device_position(const struct vsock_device *device, enum vsock_queue index,
			  uint16_t *ret_index);
bool vsock_device_queue_runs(const struct vsock_device *device, enum vsock_queue index);
/* The driver kicked a queue. */
void vsock_device_kick(struct vsock_device *device, enum vsock_queue index);

/* Does what there is to do, fairly and bounded. Returns 0 when idle, 1 when there is more to do at
 * once, -EPROTO when the driver broke a queue (vsock_device_error() says how): the device is then
 * dead until its queues are stopped. */
int vsock_device_run(struct vsock_device *device);
const char *vsock_device_error(const struct vsock_device *device);

/* ---- for the stream provider ------------------------------------------------------------------
 */

/* A connection in state VSOCK_HANDSHAKE whose socket is -1; NULL at the limit. */
struct vsock_connection *vsock_device_connection_new(struct vsock_device *device);
/* Asks the guest for a stream to its port. 0, or -EADDRNOTAVAIL. */
int vsock_device_request(struct vsock_connection *connection, uint32_t guest_port);
/* The socket may have bytes; `end`: it has an end after them; `hung_up`: both directions. */
void vsock_device_stream_readable(struct vsock_connection *connection, bool end, bool hung_up);
void vsock_device_stream_writable(struct vsock_connection *connection);
/* Drops a connection at once, telling the guest by RST if it knows of it. May free it. */
void vsock_device_abort(struct vsock_connection *connection);
/* Whether there is or was a stream. */
bool vsock_device_had_streams(const struct vsock_device *device);
size_t vsock_device_connection_count(const struct vsock_device *device);

#endif
