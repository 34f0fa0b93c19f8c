#include "vmm/vsock_streams.h"

#include <errno.h>
#include <stdlib.h>

void vsock_stream_ready(struct vsock_connection *connection)
{
	struct vsock_device *device = connection->device;

	if (connection->is_ready || !vsock_connection_has_work(connection))
		return;
	TAILQ_INSERT_TAIL(&device->ready, connection, ready);
	connection->is_ready = true;
}

void vsock_stream_unready(struct vsock_connection *connection)
{
	if (connection->is_ready)
		TAILQ_REMOVE(&connection->device->ready, connection, ready);
	connection->is_ready = false;
}

void vsock_stream_owe(struct vsock_connection *connection, enum vsock_owed what)
{
	connection->owed |= what;
	vsock_stream_ready(connection);
}

static void forget_ports(struct vsock_connection *connection)
{
	if (connection->hashed)
		HASH_DEL(connection->device->connections, connection);
	connection->hashed = false;
}

void vsock_stream_drop_buffer(struct vsock_connection *connection)
{
	if (connection->buffer)
		connection->device->pending_bytes -= VSOCK_BUFFER_SIZE;
	free(connection->buffer);
	connection->buffer = NULL;
	connection->buffer_length = 0;
}

static void close_socket(struct vsock_connection *connection)
{
	struct vsock_device *device = connection->device;

	if (connection->socket.fd >= 0)
		device->setup.streams->close(device->setup.provider, connection);
	connection->socket.fd = -1;
	vsock_stream_drop_buffer(connection);
}

void vsock_stream_free(struct vsock_connection *connection)
{
	struct vsock_device *device = connection->device;

	vsock_stream_unready(connection);
	forget_ports(connection);
	close_socket(connection);
	TAILQ_REMOVE(&device->all, connection, all);
	device->connection_count--;
	free(connection);
}

struct vsock_connection *vsock_device_connection_new(struct vsock_device *device)
{
	struct vsock_connection *connection;

	if (device->connection_count >= device->setup.connections_max)
		return NULL;
	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return NULL;
	connection->device = device;
	connection->socket.fd = -1;
	connection->state = VSOCK_HANDSHAKE;
	TAILQ_INSERT_TAIL(&device->all, connection, all);
	device->connection_count++;
	device->had_streams = true;
	return connection;
}

struct vsock_connection *vsock_stream_find(struct vsock_device *device, struct vsock_ports ports)
{
	struct vsock_connection *connection;

	HASH_FIND(hh, device->connections, &ports, sizeof(ports), connection);
	return connection;
}

void vsock_stream_name(struct vsock_connection *connection, struct vsock_ports ports)
{
	struct vsock_device *device = connection->device;

	connection->ports = ports;
	HASH_ADD(hh, device->connections, ports, sizeof(ports), connection);
	connection->hashed = true;
}

void vsock_stream_finish(struct vsock_connection *connection, enum vsock_owed what)
{
	close_socket(connection);
	connection->state = VSOCK_CLOSING;
	connection->owed = what;
	vsock_stream_ready(connection);
}

void vsock_device_abort(struct vsock_connection *connection)
{
	bool known =
		connection->state == VSOCK_ESTABLISHED ||
		(connection->state == VSOCK_REQUESTED && !(connection->owed & VSOCK_OWE_REQUEST));

	if (known)
		vsock_stream_finish(connection, VSOCK_OWE_RST);
	else if (connection->state != VSOCK_CLOSING)
		vsock_stream_free(connection);
}

void vsock_stream_release_guest(struct vsock_connection *connection)
{
	vsock_stream_unready(connection);
	forget_ports(connection);
	connection->owed = 0;
	if (connection->buffer_length == 0)
		vsock_stream_free(connection);
}

void vsock_stream_drain(struct vsock_connection *connection)
{
	if (connection->buffer_length == 0) {
		vsock_stream_finish(connection, VSOCK_OWE_RST);
		return;
	}
	connection->state = VSOCK_DRAINING;
	connection->owed = VSOCK_OWE_RST;
	vsock_stream_ready(connection);
}

void vsock_stream_drained(struct vsock_connection *connection)
{
	if (connection->owed)
		vsock_stream_finish(connection, VSOCK_OWE_RST);
	else
		vsock_stream_free(connection);
}

int vsock_device_request(struct vsock_connection *connection, uint32_t guest_port)
{
	struct vsock_device *device = connection->device;
	struct vsock_ports ports = { .guest = guest_port };

	for (size_t i = 0; i <= VSOCK_CONNECTIONS_MAX; i++) {
		ports.host = device->state.next_host_port++;
		if (device->state.next_host_port == UINT32_MAX)
			device->state.next_host_port = VSOCK_FIRST_HOST_PORT;
		if (vsock_stream_find(device, ports))
			continue;
		vsock_stream_name(connection, ports);
		connection->state = VSOCK_REQUESTED;
		vsock_stream_owe(connection, VSOCK_OWE_REQUEST);
		return 0;
	}
	return -EADDRNOTAVAIL;
}
