/*
 * The vsock device with its real muxer and real Unix sockets, in a directory of its own, against a
 * driver that a test plays; for one test program.
 */
#ifndef TESTS_UNIT_VSOCK_WORLD_H
#define TESTS_UNIT_VSOCK_WORLD_H

#include "base/event_loop.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/vsock_device.h"
#include "vmm/vsock_muxer.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CID 42
#define PORT 77 /* where the test listens */

static struct driver driver;
static struct event_loop loop;
static struct vsock_device *device;
static struct vsock_muxer *muxer;
static int listener;
static unsigned violations, interrupts;
static char directory[] = "/tmp/matchlock-vsock-test-XXXXXX";
static uint32_t forward_count;
static uint32_t guest_buffer;
static const uint8_t *payload;
static struct vsock_header packet;

static inline void count_violation(void *observer, const char *what)
{
	(void)observer;
	ck_assert_ptr_nonnull(what);
	violations++;
}

static inline void count_interrupt(void *transport, enum vsock_queue queue)
{
	(void)transport;
	(void)queue;
	interrupts++;
}

static inline int unix_socket(const char *name, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	if (listening) {
		ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
		ck_assert_int_eq(listen(fd, 1024), 0);
	} else {
		ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)),
				 0);
	}
	return fd;
}

static inline void set_up(void)
{
	struct vsock_device_setup setup = {
		.guest_cid = CID,
		.streams = &vsock_muxer_operations,
		.interrupt = count_interrupt,
		.violation = count_violation,
	};
	struct rlimit files = { 0 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
	driver_init(&driver);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(vsock_muxer_new(&loop, "v", vsock_muxer_listen("v"), &muxer), 0);
	setup.provider = muxer;
	ck_assert_int_eq(vsock_device_new(&setup, &device), 0);
	ck_assert_int_eq(vsock_muxer_start(muxer, device), 0);
	for (size_t i = 0; i < 2; i++) {
		struct virtqueue_layout layout = driver_layout(&driver, i);

		ck_assert_int_eq(vsock_device_start_queue(device, (enum vsock_queue)i,
							  &driver.memory, &layout),
				 0);
	}
	listener = unix_socket("v_77", true);
	guest_buffer = 65536;
}

static inline void tear_down(void)
{
	vsock_device_free(device);
	vsock_muxer_free(muxer);
	event_loop_release(&loop);
	driver_release(&driver);
	close(listener);
	unlink("v");
	unlink("v_77");
	rmdir(directory);
}

/* Runs the device until it has nothing to do. */
static inline void settle(void)
{
	for (int i = 0; i < 1000; i++) {
		int events, more;

		vsock_device_kick(device, VSOCK_QUEUE_TRANSMIT);
		vsock_device_kick(device, VSOCK_QUEUE_RECEIVE);
		more = vsock_device_run(device);
		ck_assert_int_ge(more, 0);
		events = event_loop_run_once(&loop, 0);
		ck_assert_int_ge(events, 0);
		if (!more && !events)
			return;
	}
	ck_abort_msg("the device never comes to rest");
}

static inline void offer_buffers(int count)
{
	for (int i = 0; i < count; i++)
		driver_offer_buffer(&driver, 3776);
}

static inline struct vsock_header header_of(uint32_t guest_port, uint32_t host_port,
					    uint16_t operation, uint32_t flags, size_t length)
{
	return (struct vsock_header){
		.source_cid = CID,
		.target_cid = VSOCK_CID_HOST,
		.source_port = guest_port,
		.target_port = host_port,
		.length = (uint32_t)length,
		.type = VSOCK_TYPE_STREAM,
		.operation = operation,
		.flags = flags,
		.buffer_allocation = guest_buffer,
		.forward_count = forward_count,
	};
}

static inline void send_with(uint32_t guest_port, uint32_t host_port, uint16_t operation,
			     uint32_t flags, const void *data, size_t length)
{
	struct vsock_header header = header_of(guest_port, host_port, operation, flags, length);

	driver_send(&driver, &header, data, length);
	settle();
}

static inline void send_op(uint32_t guest_port, uint16_t operation)
{
	send_with(guest_port, PORT, operation, 0, NULL, 0);
}

static inline void expect(uint16_t operation)
{
	ck_assert(driver_receive(&driver, &packet, &payload));
	ck_assert_uint_eq(packet.operation, operation);
	ck_assert_uint_eq(packet.target_cid, CID);
	driver_offer_buffer(&driver, 3776);
}

static inline void expect_nothing(void)
{
	ck_assert(!driver_receive(&driver, &packet, &payload));
}

/* Opens a stream from the guest; returns the host's end. */
static inline int open_stream(uint32_t guest_port)
{
	int fd;

	send_op(guest_port, VSOCK_OP_REQUEST);
	expect(VSOCK_OP_RESPONSE);
	ck_assert_uint_eq(packet.source_port, PORT);
	ck_assert_uint_eq(packet.target_port, guest_port);
	ck_assert_uint_eq(packet.buffer_allocation, VSOCK_BUFFER_SIZE);
	fd = accept(listener, NULL, NULL);
	ck_assert_int_ge(fd, 0);
	return fd;
}

#endif
