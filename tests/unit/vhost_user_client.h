/*
 * A vhost-user front end for tests: writes messages, honest or not, on one end of a socket pair.
 */
#ifndef TESTS_UNIT_VHOST_USER_CLIENT_H
#define TESTS_UNIT_VHOST_USER_CLIENT_H

#include "base/bytes.h"
#include "base/io.h"
#include "tests/unit/virtio_driver.h"

#include <stdlib.h>
#include <sys/eventfd.h>

enum client_request {
	CLIENT_GET_FEATURES = 1,
	CLIENT_SET_FEATURES = 2,
	CLIENT_SET_OWNER = 3,
	CLIENT_SET_MEM_TABLE = 5,
	CLIENT_SET_VRING_NUM = 8,
	CLIENT_SET_VRING_ADDR = 9,
	CLIENT_SET_VRING_BASE = 10,
	CLIENT_GET_VRING_BASE = 11,
	CLIENT_SET_VRING_KICK = 12,
	CLIENT_SET_VRING_CALL = 13,
	CLIENT_SET_VRING_ERR = 14,
	CLIENT_GET_PROTOCOL_FEATURES = 15,
	CLIENT_SET_PROTOCOL_FEATURES = 16,
	CLIENT_SET_VRING_ENABLE = 18,
	CLIENT_GET_CONFIG = 24,
};

#define CLIENT_FEATURES ((UINT64_C(1) << 32) | (UINT64_C(1) << 29) | (UINT64_C(1) << 30))

/* Encodes one message; returns its length. */
static inline size_t client_message(uint8_t *output, size_t capacity, uint32_t request,
				    uint32_t flags, const void *payload, size_t length)
{
	struct byte_writer writer;

	byte_writer_init(&writer, output, capacity);
	byte_writer_u32(&writer, request);
	byte_writer_u32(&writer, flags);
	byte_writer_u32(&writer, (uint32_t)length);
	byte_writer_bytes(&writer, payload, length);
	return writer.length;
}

static inline void client_send(int socket, uint32_t request, const void *payload, size_t length,
			       const int *fds, size_t fd_count)
{
	uint8_t bytes[2048];
	size_t total = client_message(bytes, sizeof(bytes), request, 1, payload, length);

	if (send_with_fds(socket, bytes, total, fds, fd_count) != (ssize_t)total)
		abort();
}

static inline void client_send_u64(int socket, uint32_t request, uint64_t value, const int *fds,
				   size_t fd_count)
{
	client_send(socket, request, &value, sizeof(value), fds, fd_count);
}

static inline void client_send_state(int socket, uint32_t request, uint32_t index, uint32_t number)
{
	client_send_u64(socket, request, (uint64_t)number << 32 | index, NULL, 0);
}

/* The payload of a memory table with one region. */
static inline size_t client_region(uint8_t output[40], uint32_t count, uint64_t guest,
				   uint64_t length, uint64_t user, uint64_t offset)
{
	struct byte_writer writer;

	byte_writer_init(&writer, output, 40);
	byte_writer_u32(&writer, count);
	byte_writer_u32(&writer, 0);
	byte_writer_u64(&writer, guest);
	byte_writer_u64(&writer, length);
	byte_writer_u64(&writer, user);
	byte_writer_u64(&writer, offset);
	return writer.length;
}

static inline size_t client_addresses(uint8_t output[40], uint32_t index, uint64_t descriptors,
				      uint64_t used, uint64_t available)
{
	struct byte_writer writer;

	byte_writer_init(&writer, output, 40);
	byte_writer_u32(&writer, index);
	byte_writer_u32(&writer, 0);
	byte_writer_u64(&writer, descriptors);
	byte_writer_u64(&writer, used);
	byte_writer_u64(&writer, available);
	byte_writer_u64(&writer, 0);
	return writer.length;
}

#endif
