/*
 * Theory of operation
 *
 * From the guest: each chain of the transmit queue is one packet. Its header is copied once and
 * judged; payload of RW goes by one sendmsg() from guest memory into the host socket. What the
 * socket does not take waits in the connection's buffer, and fwd_cnt counts only what the socket
 * took, so that the guest's credit falls to zero when a host program does not read.
 *
 * To the guest: connections with something to say stand in a queue, the ready list. Each turn gives
 * the first one control packet or up to VSOCK_RECEIVE_BATCH receive buffers, filled by one readv()
 * with gaps left for the headers, then sends it to the back. A connection without credit, for
 * bytes or for packets, leaves the list until the guest's next packet; all leave the sockets alone
 * while there are no receive buffers. So nothing spins, and no stream starves another.
 *
 * Notification: used chains are published per turn. Transmitted chains carry no news for the guest,
 * so their publication waits until TRANSMIT_HOLD_CHAINS or TRANSMIT_HOLD_BYTES of them are
 * together; for a request and its answer this saves the guest one interrupt of two.
 *
 * A connection that ends here but is known to the guest stays as CLOSING until its last packet
 * found a receive buffer; RSTs for streams that we do not know wait in a small ring.
 */
#include "vmm/vsock_streams.h"

#include "base/checked.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRANSMIT_BUDGET 128
#define RECEIVE_BUDGET 16
#define TRANSMIT_HOLD_CHAINS 16
#define TRANSMIT_HOLD_BYTES (64 * 1024)

/* ---- packets of the guest
 * ------------------------------------------------------------------------ */

static void publish(struct vsock_device *device, enum vsock_queue index)
{
	if (virtqueue_publish(&device->queues[index]))
		device->setup.interrupt(device->setup.transport, index);
	if (index == VSOCK_QUEUE_TRANSMIT) {
		device->held_chains = 0;
		device->held_bytes = 0;
	}
}

/* Takes packets off the transmit queue. Returns 1 when some are left, 0, or -EPROTO. */
static int run_transmit(struct vsock_device *device)
{
	struct virtqueue *queue = &device->queues[VSOCK_QUEUE_TRANSMIT];
	uint32_t hold = MIN_OF((uint32_t)TRANSMIT_HOLD_CHAINS, (uint32_t)queue->size / 8);

	for (size_t budget = TRANSMIT_BUDGET; budget > 0; budget--) {
		struct virtqueue_chain *chain = &device->chains[0];
		int r = virtqueue_pop(queue, chain);

		if (r < 0)
			return r;
		if (r == 0) {
			device->transmit_kicked = false;
			if (!virtqueue_request_kick(queue))
				return 0;
			device->transmit_kicked = true;
			continue;
		}
		vsock_guest_packet(device, chain);
		virtqueue_push(queue, chain->head, 0);
		device->held_chains++;
		device->held_bytes += chain->readable_length;
		if (device->held_chains >= hold || device->held_bytes >= TRANSMIT_HOLD_BYTES)
			publish(device, VSOCK_QUEUE_TRANSMIT);
	}
	return 1;
}

/* ---- packets to the guest -----------------------------------------------------------------------
 */

/* Takes one receive buffer. Returns 1, 0 when there is none, or -EPROTO. */
static int take_buffer(struct vsock_device *device, struct virtqueue_chain *chain)
{
	struct virtqueue *queue = &device->queues[VSOCK_QUEUE_RECEIVE];
	int r = virtqueue_pop(queue, chain);

	if (r <= 0)
		return r;
	if (chain->readable_count > 0 || chain->writable_length <= VSOCK_HEADER_LENGTH) {
		queue->error = "receive buffer that is readable or shorter than a packet header";
		return -EPROTO;
	}
	return 1;
}

/* Writes a packet's header and hands the buffer to the guest; the payload is in place. */
static void put_packet(struct vsock_device *device, const struct virtqueue_chain *chain,
		       const struct vsock_header *header)
{
	uint8_t bytes[VSOCK_HEADER_LENGTH];

	vsock_header_encode(header, bytes);
	(void)iovec_write(chain->parts, chain->writable_count, 0, bytes, sizeof(bytes));
	virtqueue_push(&device->queues[VSOCK_QUEUE_RECEIVE], chain->head,
		       VSOCK_HEADER_LENGTH + header->length);
}

static struct vsock_header stream_header(struct vsock_connection *connection,
					 enum vsock_operation operation)
{
	connection->announced_count = connection->forward_count;
	connection->owed &= ~(unsigned)VSOCK_OWE_CREDIT;
	return (struct vsock_header){
		.source_cid = VSOCK_CID_HOST,
		.target_cid = connection->device->setup.guest_cid,
		.source_port = connection->ports.host,
		.target_port = connection->ports.guest,
		.type = VSOCK_TYPE_STREAM,
		.operation = (uint16_t)operation,
		.buffer_allocation = VSOCK_BUFFER_SIZE,
		.forward_count = connection->forward_count,
	};
}

static void send_reset(struct vsock_device *device, const struct virtqueue_chain *chain)
{
	const struct pending_reset *reset = &device->resets[device->reset_start];
	struct vsock_header header = {
		.source_cid = reset->source_cid,
		.target_cid = device->setup.guest_cid,
		.source_port = reset->ports.host,
		.target_port = reset->ports.guest,
		.type = reset->type,
		.operation = VSOCK_OP_RST,
	};

	device->reset_start = (device->reset_start + 1) % VSOCK_RESETS_MAX;
	device->reset_count--;
	put_packet(device, chain, &header);
}

/* Sends the first packet that is owed. The last one of a closing connection frees it. */
static void send_owed(struct vsock_connection *connection, const struct virtqueue_chain *chain)
{
	static const struct {
		enum vsock_owed owed;
		enum vsock_operation operation;
	} order[] = {
		{ VSOCK_OWE_REQUEST, VSOCK_OP_REQUEST },
		{ VSOCK_OWE_RESPONSE, VSOCK_OP_RESPONSE },
		{ VSOCK_OWE_RST, VSOCK_OP_RST },
		{ VSOCK_OWE_SHUTDOWN, VSOCK_OP_SHUTDOWN },
		{ VSOCK_OWE_CREDIT, VSOCK_OP_CREDIT_UPDATE },
	};
	struct vsock_header header;

	for (size_t i = 0; i < ARRAY_LENGTH(order); i++) {
		if (!(connection->owed & order[i].owed))
			continue;
		connection->owed &= ~(unsigned)order[i].owed;
		header = stream_header(connection, order[i].operation);
		if (order[i].owed == VSOCK_OWE_SHUTDOWN)
			header.flags = connection->host_shutdown;
		put_packet(connection->device, chain, &header);
		break;
	}
	if (connection->state == VSOCK_DRAINING)
		vsock_stream_release_guest(connection);
	else if (connection->state == VSOCK_CLOSING)
		vsock_stream_free(connection);
	else
		vsock_stream_ready(connection);
}

/* The host socket has come to its end, or failed. */
static void host_ended(struct vsock_connection *connection, bool failed)
{
	connection->readable = false;
	if (failed) {
		vsock_stream_finish(connection, VSOCK_OWE_RST);
		return;
	}
	connection->host_shutdown |= VSOCK_SHUTDOWN_SEND;
	if (connection->hung_up || (connection->host_shutdown & VSOCK_SHUTDOWN_RECEIVE)) {
		connection->host_shutdown = VSOCK_SHUTDOWN_BOTH;
		vsock_stream_finish(connection, VSOCK_OWE_SHUTDOWN);
		return;
	}
	vsock_stream_owe(connection, VSOCK_OWE_SHUTDOWN);
}

/* Spreads `length` bytes which lie in the payload parts of chains[0..count) over packets. Returns
 * the number of chains used. */
static size_t put_payload(struct vsock_connection *connection, size_t count, size_t length)
{
	struct vsock_device *device = connection->device;
	size_t used = 0;

	for (; used < count && length > 0; used++) {
		const struct virtqueue_chain *chain = &device->chains[used];
		struct vsock_header header = stream_header(connection, VSOCK_OP_RW);
		size_t room = MIN_OF(chain->writable_length - VSOCK_HEADER_LENGTH,
				     (size_t)VSOCK_PAYLOAD_MAX);

		header.length = (uint32_t)MIN_OF(room, length);
		length -= header.length;
		put_packet(device, chain, &header);
	}
	return used;
}

/* Gathers receive buffers for as much as the stream has credit for into device->parts. */
static int gather_buffers(const struct vsock_connection *connection, size_t *ret_chains,
			  size_t *ret_parts, size_t *ret_capacity)
{
	const size_t credit = vsock_connection_credit(connection);
	const size_t chains_max = MIN_OF((size_t)VSOCK_RECEIVE_BATCH,
					 (size_t)vsock_connection_packet_credit(connection));
	struct vsock_device *device = connection->device;
	size_t chains = 0, parts = 0, capacity = 0;

	while (chains < chains_max && capacity < credit &&
	       parts + VIRTQUEUE_CHAIN_MAX <= VSOCK_RECEIVE_PARTS) {
		struct virtqueue_chain *chain = &device->chains[chains];
		size_t room;
		int r = take_buffer(device, chain);

		if (r < 0)
			return r;
		if (r == 0)
			break;
		room = MIN_OF(chain->writable_length - VSOCK_HEADER_LENGTH,
			      (size_t)VSOCK_PAYLOAD_MAX);
		room = MIN_OF(room, credit - capacity);
		parts += iovec_slice(chain->parts, chain->writable_count, VSOCK_HEADER_LENGTH, room,
				     device->parts + parts);
		capacity += room;
		chains++;
	}
	*ret_chains = chains;
	*ret_parts = parts;
	*ret_capacity = capacity;
	return 0;
}

/* One turn of host bytes for the guest. Returns 1, 0 without receive buffers, or -EPROTO. */
static int send_data(struct vsock_connection *connection)
{
	struct vsock_device *device = connection->device;
	size_t chains = 0, parts = 0, capacity = 0, used = 0;
	ssize_t result;
	int r;

	r = gather_buffers(connection, &chains, &parts, &capacity);
	if (r < 0 || chains == 0)
		return r;
	result = device->setup.streams->receive(connection, device->parts, parts);
	if (result > 0) {
		used = put_payload(connection, chains, (size_t)result);
		vsock_connection_sent(connection, (size_t)result, used);
		/* A short read means empty, unless there is an end behind the bytes. */
		if ((size_t)result < capacity && !connection->end_pending)
			connection->readable = false;
	}
	virtqueue_rewind(&device->queues[VSOCK_QUEUE_RECEIVE], (uint16_t)(chains - used));
	if (result == -EAGAIN)
		connection->readable = false;
	else if (result <= 0)
		host_ended(connection, result < 0);
	return 1;
}

/* Gives the first ready connection its turn. Returns 1, 0 without receive buffers, -EPROTO. */
static int run_connection(struct vsock_device *device, struct vsock_connection *connection)
{
	struct virtqueue_chain *chain = &device->chains[0];
	const unsigned first = VSOCK_OWE_REQUEST | VSOCK_OWE_RESPONSE | VSOCK_OWE_RST;
	int r;

	if (vsock_connection_can_read(connection) && !(connection->owed & first)) {
		r = send_data(connection);
		if (r <= 0)
			return r;
		vsock_stream_unready(connection);
		vsock_stream_ready(connection);
		return 1;
	}
	if (connection->owed) {
		r = take_buffer(device, chain);
		if (r <= 0)
			return r;
		vsock_stream_unready(connection);
		send_owed(connection, chain);
		return 1;
	}
	vsock_stream_unready(connection);
	return 1;
}

/* Fills receive buffers. Returns 1 when there is more to do, 0, or -EPROTO. */
static int run_receive(struct vsock_device *device)
{
	struct virtqueue *queue = &device->queues[VSOCK_QUEUE_RECEIVE];
	int r;

	for (size_t budget = RECEIVE_BUDGET; budget > 0; budget--) {
		struct vsock_connection *connection = TAILQ_FIRST(&device->ready);

		/* By turns, so that a flood of strays cannot starve the streams. */
		if (device->reset_count > 0 && (!connection || budget % 2 == 0)) {
			r = take_buffer(device, &device->chains[0]);
			if (r > 0)
				send_reset(device, &device->chains[0]);
		} else if (connection) {
			r = run_connection(device, connection);
		} else {
			return 0;
		}
		if (r < 0)
			return r;
		publish(device, VSOCK_QUEUE_RECEIVE);
		if (r == 0 && !virtqueue_request_kick(queue)) {
			device->receive_starved = true;
			return 0;
		}
	}
	return 1;
}

/* ---- the device --------------------------------------------------------------------------------
 */

int vsock_device_new(const struct vsock_device_setup *setup, struct vsock_device **ret_device)
{
	struct vsock_device *device = calloc(1, sizeof(*device));

	if (!device)
		return -ENOMEM;
	device->setup = *setup;
	if (setup->connections_max == 0 || setup->connections_max > VSOCK_CONNECTIONS_MAX)
		device->setup.connections_max = VSOCK_CONNECTIONS_MAX;
	device->state.next_host_port = VSOCK_FIRST_HOST_PORT;
	TAILQ_INIT(&device->all);
	TAILQ_INIT(&device->ready);
	*ret_device = device;
	return 0;
}

static void drop_connections(struct vsock_device *device)
{
	struct vsock_connection *connection;

	while ((connection = TAILQ_FIRST(&device->all)) != NULL)
		vsock_stream_free(connection);
	device->reset_count = 0;
}

void vsock_device_free(struct vsock_device *device)
{
	if (!device)
		return;
	drop_connections(device);
	free(device);
}

void vsock_device_read_config(const struct vsock_device *device, size_t offset, uint8_t *output,
			      size_t length)
{
	uint64_t cid = htole64(device->setup.guest_cid);

	memset(output, 0, length);
	if (offset < sizeof(cid))
		memcpy(output, (const uint8_t *)&cid + offset,
		       MIN_OF(length, sizeof(cid) - offset));
}

int vsock_device_start_queue(struct vsock_device *device, enum vsock_queue index,
			     const struct guest_memory *memory,
			     const struct virtqueue_layout *layout)
{
	int r;

	if (device->running[index])
		return -EBUSY;
	r = virtqueue_start(&device->queues[index], memory, layout);
	if (r < 0)
		return r;
	device->running[index] = true;
	virtqueue_suppress_kick(&device->queues[index]);
	/* The driver may have filled its queue before we could see a kick. */
	vsock_device_kick(device, index);
	return 0;
}

uint16_t vsock_device_stop_queue(struct vsock_device *device, enum vsock_queue index)
{
	if (device->running[index]) {
		publish(device, index);
		device->running[index] = false;
		drop_connections(device);
	}
	return device->queues[index].state.next_available;
}

int vsock_device_position(const struct vsock_device *device, enum vsock_queue index,
			  uint16_t *ret_index)
{
	if (device->had_streams || device->reset_count > 0)
		return -EBUSY;
	return virtqueue_position(&device->queues[index], ret_index);
}

bool vsock_device_queue_runs(const struct vsock_device *device, enum vsock_queue index)
{
	return device->running[index];
}

void vsock_device_kick(struct vsock_device *device, enum vsock_queue index)
{
	if (index == VSOCK_QUEUE_TRANSMIT)
		device->transmit_kicked = true;
	else
		device->receive_starved = false;
}

int vsock_device_run(struct vsock_device *device)
{
	int transmit = 0, receive = 0;

	if (device->running[VSOCK_QUEUE_TRANSMIT] && device->transmit_kicked)
		transmit = run_transmit(device);
	if (transmit < 0)
		return transmit;
	if (device->running[VSOCK_QUEUE_RECEIVE] && !device->receive_starved)
		receive = run_receive(device);
	if (receive < 0)
		return receive;
	return transmit || receive;
}

const char *vsock_device_error(const struct vsock_device *device)
{
	for (size_t i = 0; i < VSOCK_QUEUE_COUNT; i++) {
		if (device->queues[i].error)
			return device->queues[i].error;
	}
	return "none";
}

void vsock_device_stream_readable(struct vsock_connection *connection, bool end, bool hung_up)
{
	connection->readable = true;
	connection->end_pending |= end;
	connection->hung_up |= hung_up;
	if (hung_up && connection->state == VSOCK_REQUESTED) {
		vsock_device_abort(connection);
		return;
	}
	/* Nothing is left to be read for the guest, and now nobody is left to write to either. */
	if (hung_up && connection->state == VSOCK_ESTABLISHED &&
	    ((connection->host_shutdown & VSOCK_SHUTDOWN_SEND) ||
	     (connection->guest_shutdown & VSOCK_SHUTDOWN_RECEIVE))) {
		connection->host_shutdown = VSOCK_SHUTDOWN_BOTH;
		vsock_stream_finish(connection, VSOCK_OWE_SHUTDOWN);
		return;
	}
	vsock_stream_ready(connection);
}

bool vsock_device_had_streams(const struct vsock_device *device)
{
	return device->had_streams;
}

size_t vsock_device_connection_count(const struct vsock_device *device)
{
	return device->connection_count;
}
