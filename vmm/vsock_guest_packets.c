#include "vmm/vsock_streams.h"

#include <errno.h>

static void report_violation(struct vsock_device *device, const char *what)
{
	device->setup.violation(device->setup.observer, what);
}

static void queue_reset(struct vsock_device *device, const struct vsock_header *header)
{
	struct pending_reset *reset;

	if (header->operation == VSOCK_OP_RST)
		return;
	if (device->reset_count == VSOCK_RESETS_MAX) {
		report_violation(device, "more packets for unknown streams than RSTs can wait");
		return;
	}
	reset = &device->resets[(device->reset_start + device->reset_count) % VSOCK_RESETS_MAX];
	*reset = (struct pending_reset){
		.source_cid = header->target_cid,
		.ports = { .guest = header->source_port, .host = header->target_port },
		.type = header->type,
	};
	device->reset_count++;
}

static void violate(struct vsock_connection *connection, const char *what)
{
	report_violation(connection->device, what);
	vsock_stream_finish(connection, VSOCK_OWE_RST);
}

/* The host does not read any more: later bytes of the guest are dropped, and it is told. */
static void host_stopped_reading(struct vsock_connection *connection)
{
	struct vsock_device *device = connection->device;

	connection->forward_count += (uint32_t)connection->buffer_length;
	vsock_stream_drop_buffer(connection);
	if (connection->wants_write)
		device->setup.streams->want_write(device->setup.provider, connection, false);
	if (connection->state == VSOCK_DRAINING) {
		vsock_stream_drained(connection);
		return;
	}
	if (!(connection->host_shutdown & VSOCK_SHUTDOWN_RECEIVE)) {
		connection->host_shutdown |= VSOCK_SHUTDOWN_RECEIVE;
		vsock_stream_owe(connection, VSOCK_OWE_SHUTDOWN);
	}
}

static void count_forwarded(struct vsock_connection *connection, size_t length)
{
	if (vsock_connection_forwarded(connection, length) &&
	    connection->state == VSOCK_ESTABLISHED)
		vsock_stream_owe(connection, VSOCK_OWE_CREDIT);
}

/* Keeps what the socket did not take of a packet. */
static void buffer_rest(struct vsock_connection *connection, const struct virtqueue_chain *chain,
			size_t offset, size_t length)
{
	struct vsock_device *device = connection->device;

	if (!connection->buffer) {
		if (device->pending_bytes > VSOCK_PENDING_MAX - VSOCK_BUFFER_SIZE) {
			violate(connection,
				"too many bytes pending for host programs that do not read");
			return;
		}
		device->pending_bytes += VSOCK_BUFFER_SIZE;
	}
	if (vsock_connection_buffer(connection, chain->parts, chain->readable_count, offset,
				    length) < 0) {
		device->pending_bytes -= VSOCK_BUFFER_SIZE;
		vsock_stream_finish(connection, VSOCK_OWE_RST);
		return;
	}
	if (!connection->wants_write)
		device->setup.streams->want_write(device->setup.provider, connection, true);
}

static void receive_data(struct vsock_connection *connection, const struct vsock_header *header,
			 const struct virtqueue_chain *chain)
{
	struct vsock_device *device = connection->device;
	struct iovec parts[VIRTQUEUE_CHAIN_MAX];
	size_t count, sent = 0;

	if (connection->guest_shutdown & VSOCK_SHUTDOWN_SEND) {
		violate(connection, "data after the guest's own shutdown");
		return;
	}
	if (!vsock_connection_accepts(connection, header->length)) {
		violate(connection, "more data than the credit given");
		return;
	}
	if (header->length == 0)
		return;
	if (connection->host_shutdown & VSOCK_SHUTDOWN_RECEIVE) {
		count_forwarded(connection, header->length);
		return;
	}
	if (connection->buffer_length == 0) {
		ssize_t result;

		count = iovec_slice(chain->parts, chain->readable_count, VSOCK_HEADER_LENGTH,
				    header->length, parts);
		result = device->setup.streams->send(connection, parts, count);
		if (result < 0 && result != -EAGAIN) {
			count_forwarded(connection, header->length);
			host_stopped_reading(connection);
			return;
		}
		sent = result > 0 ? (size_t)result : 0;
		count_forwarded(connection, sent);
	}
	if (sent < header->length)
		buffer_rest(connection, chain, VSOCK_HEADER_LENGTH + sent, header->length - sent);
}

void vsock_device_stream_writable(struct vsock_connection *connection)
{
	struct vsock_device *device = connection->device;

	if (connection->buffer_length > 0) {
		struct iovec part = {
			.iov_base = connection->buffer + connection->buffer_start,
			.iov_len = connection->buffer_length,
		};
		ssize_t result = device->setup.streams->send(connection, &part, 1);

		if (result == -EAGAIN)
			return;
		if (result < 0) {
			host_stopped_reading(connection);
			return;
		}
		vsock_connection_unbuffer(connection, (size_t)result);
		if (!connection->buffer)
			device->pending_bytes -= VSOCK_BUFFER_SIZE;
		count_forwarded(connection, (size_t)result);
	}
	if (connection->buffer_length > 0)
		return;
	if (connection->wants_write)
		device->setup.streams->want_write(device->setup.provider, connection, false);
	if (connection->state == VSOCK_DRAINING)
		vsock_stream_drained(connection);
	else if (connection->guest_shutdown & VSOCK_SHUTDOWN_SEND)
		device->setup.streams->shutdown(connection, VSOCK_SHUTDOWN_SEND);
}

static void receive_shutdown(struct vsock_connection *connection, uint32_t flags)
{
	struct vsock_device *device = connection->device;
	uint32_t added = flags & VSOCK_SHUTDOWN_BOTH & ~connection->guest_shutdown;

	connection->guest_shutdown |= added;
	if (connection->guest_shutdown == VSOCK_SHUTDOWN_BOTH) {
		vsock_stream_drain(connection);
		return;
	}
	if (added & VSOCK_SHUTDOWN_RECEIVE)
		device->setup.streams->shutdown(connection, VSOCK_SHUTDOWN_RECEIVE);
	if ((added & VSOCK_SHUTDOWN_SEND) && connection->buffer_length == 0)
		device->setup.streams->shutdown(connection, VSOCK_SHUTDOWN_SEND);
}

static void open_connection(struct vsock_device *device, const struct vsock_header *header,
			    struct vsock_ports ports)
{
	struct vsock_connection *connection = vsock_device_connection_new(device);

	if (!connection) {
		queue_reset(device, header);
		return;
	}
	if (device->setup.streams->open(device->setup.provider, connection, ports.host) < 0) {
		vsock_stream_free(connection);
		queue_reset(device, header);
		return;
	}
	connection->state = VSOCK_ESTABLISHED;
	vsock_connection_update_credit(connection, header);
	vsock_stream_name(connection, ports);
	vsock_stream_owe(connection, VSOCK_OWE_RESPONSE);
}

static void receive_established(struct vsock_connection *connection,
				const struct vsock_header *header,
				const struct virtqueue_chain *chain)
{
	switch (header->operation) {
	case VSOCK_OP_RW:
		receive_data(connection, header, chain);
		break;
	case VSOCK_OP_SHUTDOWN:
		receive_shutdown(connection, header->flags);
		break;
	case VSOCK_OP_CREDIT_UPDATE:
		vsock_stream_ready(connection);
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		vsock_stream_owe(connection, VSOCK_OWE_CREDIT);
		break;
	default:
		violate(connection, "operation that an established stream does not allow");
		break;
	}
}

static void receive_for_connection(struct vsock_connection *connection,
				   const struct vsock_header *header,
				   const struct virtqueue_chain *chain)
{
	if (header->operation == VSOCK_OP_RST) {
		if (connection->state == VSOCK_DRAINING)
			vsock_stream_release_guest(connection);
		else
			vsock_stream_free(connection);
		return;
	}
	/* Ends itself with the next receive buffer; until then there is nothing to say. */
	if (connection->state == VSOCK_CLOSING || connection->state == VSOCK_DRAINING)
		return;
	vsock_connection_update_credit(connection, header);
	if (connection->state == VSOCK_REQUESTED) {
		if (header->operation != VSOCK_OP_RESPONSE ||
		    (connection->owed & VSOCK_OWE_REQUEST)) {
			violate(connection, "stream not accepted before it is used");
			return;
		}
		connection->state = VSOCK_ESTABLISHED;
		connection->device->setup.streams->accepted(connection);
		vsock_stream_ready(connection);
		return;
	}
	/* Whatever the packet says, it may have brought credit; the packet itself may end it. */
	vsock_stream_ready(connection);
	receive_established(connection, header, chain);
}

void vsock_guest_packet(struct vsock_device *device, const struct virtqueue_chain *chain)
{
	uint8_t bytes[VSOCK_HEADER_LENGTH];
	struct vsock_connection *connection;
	struct vsock_header header;
	struct vsock_ports ports;

	if (iovec_read(chain->parts, chain->readable_count, 0, bytes, sizeof(bytes)) !=
	    sizeof(bytes)) {
		report_violation(device, "packet shorter than its header");
		return;
	}
	vsock_header_decode(bytes, &header);
	if (header.source_cid != device->setup.guest_cid) {
		report_violation(device, "packet from a forged CID");
		return;
	}
	if (header.target_cid != VSOCK_CID_HOST || header.type != VSOCK_TYPE_STREAM) {
		queue_reset(device, &header);
		return;
	}
	ports = (struct vsock_ports){ .guest = header.source_port, .host = header.target_port };
	connection = vsock_stream_find(device, ports);
	if (header.length > chain->readable_length - VSOCK_HEADER_LENGTH) {
		if (connection && connection->state != VSOCK_CLOSING &&
		    connection->state != VSOCK_DRAINING)
			violate(connection, "payload longer than its packet");
		else
			report_violation(device, "payload longer than its packet");
		return;
	}
	if (connection)
		receive_for_connection(connection, &header, chain);
	else if (header.operation == VSOCK_OP_REQUEST)
		open_connection(device, &header, ports);
	else
		queue_reset(device, &header);
}
