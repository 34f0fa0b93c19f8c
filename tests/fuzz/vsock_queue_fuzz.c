/*
 * A driver which does whatever the input says, against the whole vsock device: honest and forged
 * packets, raw descriptors and ring bytes, receive buffers, and host sockets that take and give
 * what the input says. Any memory that the device would pass to a socket must be guest memory.
 *
 * Input: a sequence of operations, one byte each (modulo the number of operations), then their
 * operands; see step(). Reached that way: vmm/vsock_device.c, vmm/vsock_streams.c and
 * vmm/vsock_guest_packets.c.
 */
#include "base/bytes.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/vsock_connection.h"
#include "vmm/vsock_device.h"
#include "vmm/vsock_packet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS_MAX 64
#define STEPS_MAX 2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct driver driver;
static struct vsock_device *device;
static struct vsock_connection *streams[STREAMS_MAX];
static uint8_t host_mood; /* how the host sockets behave */

/* Only complete ranges of guest memory, or the connection's own buffer, may reach a socket. */
static void check_parts(const struct vsock_connection *connection, const struct iovec *parts,
			size_t count)
{
	const struct guest_region *region = &driver.memory.regions[0];

	for (size_t i = 0; i < count; i++) {
		const uint8_t *base = parts[i].iov_base;

		if (connection->buffer && base >= connection->buffer &&
		    base < connection->buffer + VSOCK_BUFFER_SIZE)
			continue;
		if (base < region->host || base >= region->host + region->length ||
		    parts[i].iov_len > region->length - (size_t)(base - region->host))
			abort();
	}
}

static int stream_open(void *provider, struct vsock_connection *connection, uint32_t port)
{
	(void)provider;
	if (port & 0x80)
		return -ECONNREFUSED;
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		if (!streams[i]) {
			streams[i] = connection;
			connection->socket.fd = 0;
			return 0;
		}
	}
	return -EMFILE;
}

static size_t total_length(const struct iovec *parts, size_t count)
{
	size_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += parts[i].iov_len;
	return total;
}

/* A buffer is there for bytes that wait, and for nothing else: its memory is counted that way. */
static void check_buffers(void)
{
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		const struct vsock_connection *connection = streams[i];

		if (connection && (!connection->buffer != !connection->buffer_length ||
				   connection->buffer_length > VSOCK_BUFFER_SIZE))
			abort();
	}
}

static ssize_t stream_send(struct vsock_connection *connection, const struct iovec *parts,
			   size_t count)
{
	size_t total = total_length(parts, count);

	check_parts(connection, parts, count);
	switch (host_mood & 3) {
	case 0:
		return (ssize_t)total;
	case 1:
		return total > 1 ? (ssize_t)(total / 2) : -EAGAIN;
	case 2:
		return -EAGAIN;
	default:
		return -EPIPE;
	}
}

static ssize_t stream_receive(struct vsock_connection *connection, const struct iovec *parts,
			      size_t count)
{
	size_t total = total_length(parts, count);

	check_parts(connection, parts, count);
	for (size_t i = 0; i < count; i++)
		memset(parts[i].iov_base, 0x55, parts[i].iov_len);
	switch ((host_mood >> 2) & 7) {
	case 0:
	case 1:
		return (ssize_t)total;
	case 2:
	case 3:
		return total > 1 ? (ssize_t)(total / 2) : 1;
	case 4:
		return 0;
	case 5:
		return -ECONNRESET;
	default:
		return -EAGAIN;
	}
}

static void stream_shutdown(struct vsock_connection *connection, uint32_t flags)
{
	if (connection->socket.fd < 0 || flags == 0)
		abort();
}

static void stream_want_write(void *provider, struct vsock_connection *connection, bool wanted)
{
	(void)provider;
	connection->wants_write = wanted;
}

static void stream_accepted(struct vsock_connection *connection)
{
	if (connection->state != VSOCK_ESTABLISHED)
		abort();
}

static void stream_close(void *provider, struct vsock_connection *connection)
{
	(void)provider;
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		if (streams[i] == connection)
			streams[i] = NULL;
	}
}

static const struct vsock_stream_operations operations = {
	.open = stream_open,
	.send = stream_send,
	.receive = stream_receive,
	.shutdown = stream_shutdown,
	.want_write = stream_want_write,
	.accepted = stream_accepted,
	.close = stream_close,
};

static void on_interrupt(void *transport, enum vsock_queue queue)
{
	(void)transport;
	(void)queue;
}

static void on_violation(void *observer, const char *what)
{
	(void)observer;
	if (!what)
		abort();
}

static void start_queue(enum vsock_queue index, uint16_t next)
{
	struct virtqueue_layout layout = driver_layout(&driver, index);

	layout.next_available = next;
	layout.indirect = true;
	if (vsock_device_start_queue(device, index, &driver.memory, &layout) < 0)
		abort();
}

static void host_event(struct byte_reader *input)
{
	uint8_t which = byte_reader_u8(input);
	struct vsock_connection *connection = streams[which % STREAMS_MAX];

	if (which & 0x40) {
		connection = vsock_device_connection_new(device);
		if (!connection)
			return;
		if (stream_open(NULL, connection, 0) < 0) {
			vsock_device_abort(connection);
			return;
		}
		if (vsock_device_request(connection, which & 7) < 0)
			abort();
		return;
	}
	if (!connection)
		return;
	if ((which & 0x80) || connection->state == VSOCK_DRAINING)
		vsock_device_stream_writable(connection);
	else
		vsock_device_stream_readable(connection, which & 0x20, which & 0x10);
}

static void send_packet(struct byte_reader *input)
{
	static const uint8_t zeros[1024];
	uint8_t operation = byte_reader_u8(input), ports = byte_reader_u8(input);
	uint8_t length = byte_reader_u8(input), lie = byte_reader_u8(input);
	struct vsock_header header = {
		.source_cid = lie == 1 ? 9 : 3,
		.target_cid = lie == 2 ? 9 : VSOCK_CID_HOST,
		.source_port = ports & 7,
		.target_port = ports & 0xf0,
		.length = lie == 3 ? UINT32_MAX : (uint32_t)length * 4 + (lie == 5),
		.type = lie == 4 ? 2 : VSOCK_TYPE_STREAM,
		.operation = operation & 15,
		.flags = operation >> 4,
		.buffer_allocation = (uint32_t)lie << 9,
		.forward_count = lie & 0x80 ? byte_reader_u32(input) : 0,
	};

	/* Answers to our own streams need the port that was given out. */
	if (ports & 8)
		header.target_port = (UINT32_C(1) << 30) + (ports >> 4);
	driver_send(&driver, &header, zeros, (size_t)length * 4);
}

static void raw_bytes(struct byte_reader *input)
{
	uint16_t offset = byte_reader_u16(input);
	uint8_t length = byte_reader_u8(input) % 64;
	const uint8_t *bytes = byte_reader_bytes(input, length);

	if (bytes)
		memcpy(driver.bytes + offset, bytes, length);
}

static void raw_descriptor(struct byte_reader *input)
{
	uint8_t where = byte_reader_u8(input);
	uint8_t kind = byte_reader_u8(input);
	uint64_t address = DRIVER_GUEST_BASE + byte_reader_u32(input) % (2 * DRIVER_MEMORY);
	uint32_t length = byte_reader_u16(input);

	if (kind & 0x80)
		length <<= 12;
	driver_set(&driver, where & 1, (where >> 1) % DRIVER_QUEUE_SIZE, address, length, kind & 7,
		   (kind >> 3) & 15);
	if (kind & 0x40)
		driver_offer(&driver, where & 1, (where >> 1) % DRIVER_QUEUE_SIZE);
}

/* Returns false once the device is broken, as it should be by some of these. */
static bool step(struct byte_reader *input)
{
	uint8_t count;

	switch (byte_reader_u8(input) % 8) {
	case 0:
		send_packet(input);
		break;
	case 1:
		count = byte_reader_u8(input);
		for (int i = 0; i < (count & 15); i++)
			driver_offer_buffer(&driver, count & 0x80 ? 100 : 3776);
		break;
	case 2:
		host_event(input);
		break;
	case 3:
		host_mood = byte_reader_u8(input);
		break;
	case 4:
		raw_descriptor(input);
		break;
	case 5:
		raw_bytes(input);
		break;
	case 6:
		count = byte_reader_u8(input);
		start_queue(count & 1, vsock_device_stop_queue(device, count & 1));
		break;
	default:
		break;
	}
	vsock_device_kick(device, VSOCK_QUEUE_TRANSMIT);
	vsock_device_kick(device, VSOCK_QUEUE_RECEIVE);
	return vsock_device_run(device) >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vsock_device_setup setup = {
		.guest_cid = 3,
		.connections_max = STREAMS_MAX,
		.streams = &operations,
		.interrupt = on_interrupt,
		.violation = on_violation,
	};
	struct byte_reader input;

	if (!driver.bytes)
		driver_init(&driver);
	memset(driver.bytes, 0, 2 * DRIVER_QUEUE_SPACE);
	for (size_t i = 0; i < 2; i++) {
		driver.queues[i].seen = 0;
		driver.queues[i].next_descriptor = 0;
	}
	memset(streams, 0, sizeof(streams));
	host_mood = 0;
	byte_reader_init(&input, data, size);
	if (vsock_device_new(&setup, &device) < 0)
		return 0;
	start_queue(VSOCK_QUEUE_RECEIVE, 0);
	start_queue(VSOCK_QUEUE_TRANSMIT, 0);
	for (int i = 0; i < STEPS_MAX && byte_reader_remaining(&input) > 0; i++) {
		if (!step(&input))
			break;
		check_buffers();
		if (vsock_device_connection_count(device) > STREAMS_MAX)
			abort();
	}
	vsock_device_free(device);
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		if (streams[i])
			abort();
	}
	return 0;
}
