/*
 * A front end that sends whatever the input says to the vhost-user back end, over a real socket and
 * with real descriptors, so that rings start on memory and addresses of its choice.
 *
 * Input: records of u8 descriptors, u16 length, and so many bytes, which are written as they are
 * (so messages may be split and joined). The low nibble of the first byte is the number of
 * descriptors; the bits above choose what they are.
 */
#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/io.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/vhost_user.h"
#include "vmm/vsock_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define RECORDS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int memory_file = -1, event = -1;

static int refuse(void *provider, struct vsock_connection *connection, uint32_t port)
{
	(void)provider;
	(void)connection;
	(void)port;
	return -ECONNREFUSED;
}

static const struct vsock_stream_operations operations = { .open = refuse };

static void on_violation(void *observer, const char *what)
{
	(void)observer;
	(void)what;
}

static void on_ended(void *observer, int error, const char *what)
{
	bool *ended = observer;

	(void)error;
	if (*ended || !what)
		abort();
	*ended = true;
}

static void play(struct byte_reader *input, int front, struct event_loop *loop,
		 struct vsock_device *device, const bool *ended)
{
	for (int i = 0; i < RECORDS_MAX && !*ended && byte_reader_remaining(input) > 3; i++) {
		uint8_t descriptors = byte_reader_u8(input);
		size_t length = byte_reader_u16(input);
		int fds[FD_MESSAGE_MAX];
		uint8_t reply[512];

		length = length % 1024;
		if (length == 0 || length > byte_reader_remaining(input))
			length = byte_reader_remaining(input);
		for (size_t n = 0; n < FD_MESSAGE_MAX; n++)
			fds[n] = descriptors & 0x10 ? event : memory_file;
		if (send_with_fds(front, byte_reader_bytes(input, length), length, fds,
				  descriptors & 15) < 0)
			return;
		for (int rounds = 0; rounds < 4; rounds++) {
			if (event_loop_run_once(loop, 0) < 0 || *ended)
				break;
			if (vsock_device_run(device) < 0)
				return;
		}
		while (recv(front, reply, sizeof(reply), MSG_DONTWAIT) > 0)
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vsock_device_setup setup = {
		.guest_cid = 3,
		.streams = &operations,
		.interrupt = vhost_user_interrupt,
		.violation = on_violation,
	};
	bool ended = false;
	const struct vhost_user_observer observer = { .ended = on_ended, .observer = &ended };
	struct vhost_user_backend *backend = NULL;
	struct vsock_device *device = NULL;
	struct event_loop loop;
	struct byte_reader input;
	int pair[2];

	if (memory_file < 0) {
		memory_file = driver_memory_file(1 << 20);
		event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	if (event_loop_init(&loop) < 0 || vhost_user_new(&loop, &observer, &backend) < 0)
		abort();
	setup.transport = backend;
	if (vsock_device_new(&setup, &device) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
	    vhost_user_start(backend, device, pair[1]) < 0)
		abort();
	byte_reader_init(&input, data, size);
	play(&input, pair[0], &loop, device, &ended);
	close(pair[0]);
	vhost_user_free(backend);
	vsock_device_free(device);
	event_loop_release(&loop);
	return 0;
}
