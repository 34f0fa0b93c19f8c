#include "vmm/vsock_connection.h"

#include "base/checked.h"
#include "vmm/virtqueue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void vsock_connection_update_credit(struct vsock_connection *connection,
				    const struct vsock_header *header)
{
	connection->peer_buffer = header->buffer_allocation;
	connection->peer_forward_count = header->forward_count;
	/* All bytes up to the mark were read, hence all packets of before. */
	if ((int32_t)(header->forward_count - connection->marked_count) >= 0) {
		bool read_all = header->forward_count == connection->sent_count;

		connection->packets_before = read_all ? 0 : connection->packets_after;
		connection->packets_after = 0;
		connection->marked_count = connection->sent_count;
	}
}

uint32_t vsock_connection_credit(const struct vsock_connection *connection)
{
	uint32_t in_flight = connection->sent_count - connection->peer_forward_count;

	return in_flight < connection->peer_buffer ? connection->peer_buffer - in_flight : 0;
}

uint32_t vsock_connection_packet_credit(const struct vsock_connection *connection)
{
	uint32_t limit = MAX_OF(connection->peer_buffer / VSOCK_BYTES_PER_PACKET, UINT32_C(1));
	uint32_t in_flight = connection->packets_before + connection->packets_after;

	return in_flight < limit ? limit - in_flight : 0;
}

void vsock_connection_sent(struct vsock_connection *connection, size_t length, size_t packets)
{
	connection->sent_count += (uint32_t)length;
	connection->packets_after += (uint32_t)packets;
}

bool vsock_connection_accepts(const struct vsock_connection *connection, uint32_t length)
{
	return length <= VSOCK_BUFFER_SIZE - connection->buffer_length;
}

bool vsock_connection_forwarded(struct vsock_connection *connection, size_t length)
{
	/* Linux since 6.1.162 never has more in flight than its own buffer, even if ours is
	 * larger: waiting for half of ours could be waiting for ever. */
	uint32_t window = MIN_OF(connection->peer_buffer, (uint32_t)VSOCK_BUFFER_SIZE);

	connection->forward_count += (uint32_t)length;
	return connection->forward_count - connection->announced_count >= window / 2;
}

bool vsock_connection_can_read(const struct vsock_connection *connection)
{
	return connection->readable && connection->state == VSOCK_ESTABLISHED &&
	       !(connection->guest_shutdown & VSOCK_SHUTDOWN_RECEIVE) &&
	       !(connection->host_shutdown & VSOCK_SHUTDOWN_SEND) &&
	       vsock_connection_credit(connection) > 0 &&
	       vsock_connection_packet_credit(connection) > 0;
}

bool vsock_connection_has_work(const struct vsock_connection *connection)
{
	return connection->owed != 0 || vsock_connection_can_read(connection);
}

int vsock_connection_buffer(struct vsock_connection *connection, const struct iovec *parts,
			    size_t count, size_t offset, size_t length)
{
	size_t end;

	if (!connection->buffer) {
		connection->buffer = malloc(VSOCK_BUFFER_SIZE);
		if (!connection->buffer)
			return -ENOMEM;
		connection->buffer_start = 0;
	}
	end = connection->buffer_start + connection->buffer_length;
	if (length > VSOCK_BUFFER_SIZE - end) {
		memmove(connection->buffer, connection->buffer + connection->buffer_start,
			connection->buffer_length);
		connection->buffer_start = 0;
		end = connection->buffer_length;
	}
	connection->buffer_length +=
		iovec_read(parts, count, offset, connection->buffer + end, length);
	return 0;
}

void vsock_connection_unbuffer(struct vsock_connection *connection, size_t length)
{
	connection->buffer_start += length;
	connection->buffer_length -= length;
	if (connection->buffer_length == 0) {
		free(connection->buffer);
		connection->buffer = NULL;
	}
}
