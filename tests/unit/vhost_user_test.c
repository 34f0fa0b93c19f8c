/* The vhost-user back end with the real device, against a front end that this test plays. */
#include "base/event_loop.h"
#include "tests/unit/vhost_user_client.h"
#include "vmm/vhost_user.h"
#include "vmm/vsock_device.h"
#include "vmm/vsock_muxer.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

static struct driver driver;
static struct event_loop loop;
static struct vsock_device *device;
static struct vsock_muxer *muxer;
static struct vhost_user_backend *backend;
static int front, kicks[2], calls[2];
static unsigned starts, ends;
static int end_error;
static const char *end_text;
static char directory[] = "/tmp/matchlock-vhost-user-XXXXXX";

static void on_started(void *observer)
{
	(void)observer;
	starts++;
}

static void on_ended(void *observer, int error, const char *what)
{
	(void)observer;
	ends++;
	end_error = error;
	end_text = what;
}

static void on_violation(void *observer, const char *what)
{
	(void)observer;
	(void)what;
}

static void set_up(void)
{
	const struct vhost_user_observer observer = { on_started, on_ended, NULL };
	struct vsock_device_setup setup = {
		.guest_cid = 0x1122334455667788,
		.streams = &vsock_muxer_operations,
		.interrupt = vhost_user_interrupt,
		.violation = on_violation,
	};
	int pair[2];

	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
	driver_init(&driver);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(vsock_muxer_new(&loop, "v", vsock_muxer_listen("v"), &muxer), 0);
	ck_assert_int_eq(vhost_user_new(&loop, &observer, &backend), 0);
	setup.provider = muxer;
	setup.transport = backend;
	ck_assert_int_eq(vsock_device_new(&setup, &device), 0);
	ck_assert_int_eq(vsock_muxer_start(muxer, device), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	front = pair[0];
	ck_assert_int_eq(vhost_user_start(backend, device, pair[1]), 0);
	for (size_t i = 0; i < 2; i++) {
		kicks[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		calls[i] = eventfd(0, EFD_CLOEXEC);
	}
}

static void tear_down(void)
{
	vhost_user_free(backend);
	vsock_device_free(device);
	vsock_muxer_free(muxer);
	event_loop_release(&loop);
	driver_release(&driver);
	close(front);
	for (size_t i = 0; i < 2; i++) {
		close(kicks[i]);
		close(calls[i]);
	}
	unlink("v");
	rmdir(directory);
}

static void run(void)
{
	int more;

	do {
		more = vsock_device_run(device);
	} while (event_loop_run_once(&loop, 0) > 0 || more > 0);
}

static void expect_end(const char *text)
{
	run();
	ck_assert_uint_eq(ends, 1);
	ck_assert_int_ne(end_error, 0);
	ck_assert_str_eq(end_text, text);
	ck_assert(!vsock_device_queue_runs(device, VSOCK_QUEUE_RECEIVE));
	ck_assert(!vsock_device_queue_runs(device, VSOCK_QUEUE_TRANSMIT));
}

static uint64_t expect_u64(uint32_t request)
{
	struct byte_reader reader;
	uint8_t bytes[20];
	uint64_t value;

	run();
	ck_assert_int_eq(recv(front, bytes, sizeof(bytes), MSG_DONTWAIT), sizeof(bytes));
	byte_reader_init(&reader, bytes, sizeof(bytes));
	ck_assert_uint_eq(byte_reader_u32(&reader), request);
	ck_assert_uint_eq(byte_reader_u32(&reader), 5);
	ck_assert_uint_eq(byte_reader_u32(&reader), 8);
	value = byte_reader_u64(&reader);
	return value;
}

static void send_memory(void)
{
	uint8_t bytes[40];
	size_t length =
		client_region(bytes, 1, DRIVER_GUEST_BASE, DRIVER_MEMORY, DRIVER_USER_BASE, 0);

	client_send(front, CLIENT_SET_MEM_TABLE, bytes, length, &driver.fd, 1);
}

static void send_ring(uint32_t index)
{
	uint64_t base = DRIVER_USER_BASE + driver.queues[index].base;
	uint8_t bytes[40];

	client_send_state(front, CLIENT_SET_VRING_NUM, index, DRIVER_QUEUE_SIZE);
	client_send_state(front, CLIENT_SET_VRING_BASE, index, 0);
	(void)client_addresses(bytes, index, base, base + 0x2000, base + 0x1000);
	client_send(front, CLIENT_SET_VRING_ADDR, bytes, sizeof(bytes), NULL, 0);
	client_send_u64(front, CLIENT_SET_VRING_CALL, index, &calls[index], 1);
	client_send_u64(front, CLIENT_SET_VRING_KICK, index, &kicks[index], 1);
}

/* As QEMU does it. */
static void start(void)
{
	client_send_u64(front, CLIENT_SET_FEATURES, CLIENT_FEATURES, NULL, 0);
	send_memory();
	for (uint32_t i = 0; i < 2; i++)
		send_ring(i);
	run();
	ck_assert_uint_eq(starts, 0);
	for (uint32_t i = 0; i < 2; i++)
		client_send_state(front, CLIENT_SET_VRING_ENABLE, i, 1);
	run();
	ck_assert_uint_eq(starts, 2);
	ck_assert_uint_eq(ends, 0);
}

START_TEST(negotiation)
{
	uint8_t bytes[20] = { 0, 0, 0, 0, 8 };
	uint8_t back[64];

	client_send(front, CLIENT_GET_FEATURES, NULL, 0, NULL, 0);
	ck_assert_uint_eq(expect_u64(CLIENT_GET_FEATURES), CLIENT_FEATURES);
	client_send(front, CLIENT_GET_PROTOCOL_FEATURES, NULL, 0, NULL, 0);
	ck_assert_uint_eq(expect_u64(CLIENT_GET_PROTOCOL_FEATURES), 1 << 9);
	client_send_u64(front, CLIENT_SET_PROTOCOL_FEATURES, 1 << 9, NULL, 0);
	client_send(front, CLIENT_SET_OWNER, NULL, 0, NULL, 0);
	client_send_u64(front, CLIENT_SET_VRING_ERR, 1, &kicks[0], 1);
	client_send(front, CLIENT_GET_CONFIG, bytes, sizeof(bytes), NULL, 0);
	run();
	ck_assert_int_eq(recv(front, back, sizeof(back), MSG_DONTWAIT), 32);
	ck_assert_uint_eq(back[24], 0x88);
	ck_assert_uint_eq(back[31], 0x11);
	ck_assert_uint_eq(ends, 0);
}
END_TEST

START_TEST(serves_the_guest)
{
	const uint64_t one = 1;
	struct vsock_header header = {
		.source_cid = 0x1122334455667788,
		.target_cid = VSOCK_CID_HOST,
		.source_port = 1,
		.target_port = 2,
		.type = VSOCK_TYPE_STREAM,
		.operation = VSOCK_OP_REQUEST,
	};
	const uint8_t *payload;
	uint64_t count;

	start();
	driver_offer_buffer(&driver, 3776);
	driver_send(&driver, &header, NULL, 0);
	ck_assert_int_eq(write(kicks[1], &one, sizeof(one)), sizeof(one));
	ck_assert_int_eq(write(kicks[0], &one, sizeof(one)), sizeof(one));
	run();
	run();
	ck_assert(driver_receive(&driver, &header, &payload));
	ck_assert_uint_eq(header.operation, VSOCK_OP_RST);
	ck_assert_int_eq(read(calls[0], &count, sizeof(count)), sizeof(count));
	/* Stop: the index to go on from, and all that was held back. */
	client_send_state(front, CLIENT_SET_VRING_ENABLE, 1, 0);
	client_send_state(front, CLIENT_GET_VRING_BASE, 1, 0);
	ck_assert_uint_eq(expect_u64(CLIENT_GET_VRING_BASE), UINT64_C(1) << 32 | 1);
	ck_assert_uint_eq(driver.queues[1].used[1], 1);
	client_send_state(front, CLIENT_GET_VRING_BASE, 0, 0);
	ck_assert_uint_eq(expect_u64(CLIENT_GET_VRING_BASE), UINT64_C(1) << 32);
	/* And again, as after a reboot of the guest. */
	send_memory();
	send_ring(0);
	client_send_state(front, CLIENT_SET_VRING_ENABLE, 0, 1);
	run();
	ck_assert(vsock_device_queue_runs(device, VSOCK_QUEUE_RECEIVE));
	ck_assert_uint_eq(ends, 0);
}
END_TEST

START_TEST(message_in_pieces)
{
	uint8_t bytes[32];
	size_t length = client_message(bytes, sizeof(bytes), CLIENT_GET_FEATURES, 1, NULL, 0);

	for (size_t i = 0; i < length; i++) {
		ck_assert_int_eq(write(front, bytes + i, 1), 1);
		run();
	}
	ck_assert_uint_eq(expect_u64(CLIENT_GET_FEATURES), CLIENT_FEATURES);
}
END_TEST

START_TEST(front_end_leaves)
{
	start();
	shutdown(front, SHUT_WR);
	run();
	ck_assert_uint_eq(ends, 1);
	ck_assert_int_eq(end_error, 0);
}
END_TEST

#define BAD_FORM "unknown request, or one of a bad size or with stray descriptors"

START_TEST(bad_sizes)
{
	static const struct {
		uint32_t request;
		size_t length;
	} messages[] = {
		{ CLIENT_GET_FEATURES, 8 },
		{ CLIENT_SET_FEATURES, 0 },
		{ CLIENT_SET_FEATURES, 7 },
		{ CLIENT_SET_FEATURES, 16 },
		{ CLIENT_SET_VRING_NUM, 4 },
		{ CLIENT_SET_VRING_ADDR, 8 },
		{ CLIENT_SET_VRING_KICK, 0 },
		{ CLIENT_GET_VRING_BASE, 12 },
		{ 0, 0 },
		{ 6, 8 },
		{ 99, 0 },
		{ UINT32_MAX, 0 },
	};
	static const uint8_t zeros[64];

	client_send(front, messages[_i].request, zeros, messages[_i].length, NULL, 0);
	expect_end(BAD_FORM);
}
END_TEST

START_TEST(bad_headers)
{
	static const struct {
		uint32_t flags;
		uint32_t size;
	} headers[] = { { 0, 0 }, { 2, 0 }, { 5, 0 }, { 1, 513 }, { 1, UINT32_MAX } };
	struct byte_writer writer;
	uint8_t bytes[12];

	byte_writer_init(&writer, bytes, sizeof(bytes));
	byte_writer_u32(&writer, CLIENT_GET_FEATURES);
	byte_writer_u32(&writer, headers[_i].flags);
	byte_writer_u32(&writer, headers[_i].size);
	ck_assert_int_eq(write(front, bytes, sizeof(bytes)), sizeof(bytes));
	expect_end("message with a bad version or size");
}
END_TEST

START_TEST(stray_descriptors)
{
	client_send_u64(front, CLIENT_SET_FEATURES, CLIENT_FEATURES, kicks, 1);
	expect_end(BAD_FORM);
}
END_TEST

START_TEST(too_many_descriptors)
{
	int fds[9];

	for (size_t i = 0; i < 9; i++)
		fds[i] = kicks[0];
	client_send_u64(front, CLIENT_SET_VRING_KICK, 0, fds, 9);
	expect_end("too many descriptors, or a broken socket");
}
END_TEST

START_TEST(kick_without_descriptor)
{
	client_send_u64(front, CLIENT_SET_VRING_KICK, _i ? 0x100 : 0, NULL, 0);
	expect_end(_i ? "kick descriptor that is missing, cannot be polled, or of a running ring"
		      : "ring descriptor message of a bad form");
}
END_TEST

START_TEST(kick_that_cannot_be_polled)
{
	client_send_u64(front, CLIENT_SET_VRING_KICK, 0, &driver.fd, 1);
	expect_end("kick descriptor that is missing, cannot be polled, or of a running ring");
}
END_TEST

START_TEST(ring_that_does_not_exist)
{
	if (_i == 0) {
		client_send_u64(front, CLIENT_SET_VRING_CALL, 2, calls, 1);
		expect_end("ring descriptor message of a bad form");
	} else {
		client_send_state(front, CLIENT_SET_VRING_NUM, _i == 1 ? 2 : UINT32_MAX, 64);
		expect_end("request for a ring that does not exist");
	}
}
END_TEST

START_TEST(bad_ring_numbers)
{
	static const struct {
		uint32_t request;
		uint32_t number;
	} states[] = {
		{ CLIENT_SET_VRING_NUM, 0 },	      { CLIENT_SET_VRING_NUM, 3 },
		{ CLIENT_SET_VRING_NUM, 2048 },	      { CLIENT_SET_VRING_NUM, UINT32_MAX },
		{ CLIENT_SET_VRING_NUM, 0x10000040 }, { CLIENT_SET_VRING_BASE, 65536 },
		{ CLIENT_SET_VRING_ENABLE, 2 },
	};

	client_send_state(front, states[_i].request, 0, states[_i].number);
	expect_end("ring number out of range");
}
END_TEST

START_TEST(features_not_offered)
{
	client_send_u64(front, CLIENT_SET_FEATURES, CLIENT_FEATURES | UINT64_C(1) << 34, NULL, 0);
	expect_end("features that were not offered");
}
END_TEST

static const struct {
	uint32_t count;
	uint64_t guest, length, user, offset;
	size_t fds;
} tables[] = {
	{ 1, 0, 4096, 0, 0, 0 },
	{ 2, 0, 4096, 0, 0, 2 }, /* the second region is not in the payload */
	{ 1, 0, 4096, 0, 0, 2 },
	{ 9, 0, 4096, 0, 0, 1 },
	{ UINT32_MAX, 0, 4096, 0, 0, 1 },
	{ 1, 0, 0, 0, 0, 1 },
	{ 1, 0, DRIVER_MEMORY + 4096, 0, 0, 1 },
	{ 1, 0, 4096, 0, DRIVER_MEMORY, 1 },
	{ 1, 0, 4096, 0, 17, 1 },
	{ 1, UINT64_MAX - 4095, 8192, 0, 0, 1 },
	{ 1, 0, 8192, UINT64_MAX - 4095, 0, 1 },
	{ 1, 0, UINT64_MAX - 4095, 0, 0, 1 },
	{ 1, 0, 4096, 0, UINT64_MAX - 4095, 1 },
};

START_TEST(bad_memory_table)
{
	const int fds[2] = { driver.fd, driver.fd };
	uint8_t bytes[40];
	size_t length = client_region(bytes, tables[_i].count, tables[_i].guest, tables[_i].length,
				      tables[_i].user, tables[_i].offset);

	client_send(front, CLIENT_SET_MEM_TABLE, bytes, length, fds, tables[_i].fds);
	run();
	ck_assert_uint_eq(ends, 1);
	ck_assert_ptr_nonnull(strstr(end_text, "memory"));
}
END_TEST

START_TEST(overlapping_regions)
{
	const int fds[2] = { driver.fd, driver.fd };
	uint8_t bytes[72];

	(void)client_region(bytes, 2, 0x1000, 0x2000, 0x10000, 0);
	memcpy(bytes + 40, bytes + 8, 32);
	if (_i == 0)
		bytes[40 + 17] = 0x80; /* other user address, same guest address */
	else
		bytes[40 + 1] = 0x80; /* the other way round */
	client_send(front, CLIENT_SET_MEM_TABLE, bytes, sizeof(bytes), fds, 2);
	expect_end("memory region that overlaps, overflows, or whose file is short or can shrink");
}
END_TEST

START_TEST(file_that_can_shrink)
{
	int plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t bytes[40];
	size_t length = client_region(bytes, 1, 0, 4096, 0, 0);

	ck_assert_int_eq(ftruncate(plain, 4096), 0);
	client_send(front, CLIENT_SET_MEM_TABLE, bytes, length, &plain, 1);
	expect_end("memory region that overlaps, overflows, or whose file is short or can shrink");
	close(plain);
}
END_TEST

START_TEST(rings_outside_memory)
{
	static const uint64_t bases[] = { 0,
					  DRIVER_GUEST_BASE,
					  DRIVER_USER_BASE + DRIVER_MEMORY,
					  DRIVER_USER_BASE + DRIVER_MEMORY - 512,
					  UINT64_MAX - 15,
					  DRIVER_USER_BASE + 1 };
	uint8_t bytes[40];

	client_send_u64(front, CLIENT_SET_FEATURES, CLIENT_FEATURES, NULL, 0);
	send_memory();
	client_send_state(front, CLIENT_SET_VRING_NUM, 0, DRIVER_QUEUE_SIZE);
	(void)client_addresses(bytes, 0, bases[_i], DRIVER_USER_BASE + 0x2000,
			       DRIVER_USER_BASE + 0x1000);
	client_send(front, CLIENT_SET_VRING_ADDR, bytes, sizeof(bytes), NULL, 0);
	client_send_u64(front, CLIENT_SET_VRING_KICK, 0, kicks, 1);
	client_send_state(front, CLIENT_SET_VRING_ENABLE, 0, 1);
	expect_end("ring with a bad size or outside guest memory");
}
END_TEST

START_TEST(out_of_order)
{
	/* Started before anything is set up, or with its size missing. */
	if (_i == 1) {
		uint8_t bytes[40];

		client_send_u64(front, CLIENT_SET_FEATURES, CLIENT_FEATURES, NULL, 0);
		(void)client_addresses(bytes, 0, DRIVER_USER_BASE, DRIVER_USER_BASE + 0x2000,
				       DRIVER_USER_BASE + 0x1000);
		client_send(front, CLIENT_SET_VRING_ADDR, bytes, sizeof(bytes), NULL, 0);
		send_memory();
	}
	client_send_u64(front, CLIENT_SET_VRING_KICK, 0, kicks, 1);
	client_send_state(front, CLIENT_SET_VRING_ENABLE, 0, 1);
	expect_end(_i == 1 ? "ring with a bad size or outside guest memory"
			   : "ring started before its features and addresses were set");
}
END_TEST

START_TEST(frozen_while_running)
{
	uint8_t bytes[40];

	start();
	switch (_i) {
	case 0:
		client_send_state(front, CLIENT_SET_VRING_NUM, 1, 32);
		expect_end("registers of a running ring written");
		break;
	case 1:
		client_send_state(front, CLIENT_SET_VRING_BASE, 0, 9);
		expect_end("registers of a running ring written");
		break;
	case 2:
		(void)client_addresses(bytes, 0, DRIVER_USER_BASE, DRIVER_USER_BASE + 0x2000,
				       DRIVER_USER_BASE + 0x1000);
		client_send(front, CLIENT_SET_VRING_ADDR, bytes, sizeof(bytes), NULL, 0);
		expect_end("registers of a running ring written");
		break;
	case 3:
		send_memory();
		expect_end("memory table changed while a ring runs");
		break;
	case 4:
		client_send_u64(front, CLIENT_SET_FEATURES, CLIENT_FEATURES, NULL, 0);
		expect_end("features set while a ring runs");
		break;
	default:
		client_send_u64(front, CLIENT_SET_VRING_KICK, 0, kicks, 1);
		expect_end("kick descriptor that is missing, cannot be polled, or of a running "
			   "ring");
		break;
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vhost_user");
	TCase *tests = tcase_create("vhost_user");
	SRunner *runner;
	int failed;

	(void)signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, negotiation);
	tcase_add_test(tests, serves_the_guest);
	tcase_add_test(tests, message_in_pieces);
	tcase_add_test(tests, front_end_leaves);
	tcase_add_loop_test(tests, bad_sizes, 0, 12);
	tcase_add_loop_test(tests, bad_headers, 0, 5);
	tcase_add_test(tests, stray_descriptors);
	tcase_add_test(tests, too_many_descriptors);
	tcase_add_loop_test(tests, kick_without_descriptor, 0, 2);
	tcase_add_test(tests, kick_that_cannot_be_polled);
	tcase_add_loop_test(tests, ring_that_does_not_exist, 0, 3);
	tcase_add_loop_test(tests, bad_ring_numbers, 0, 7);
	tcase_add_test(tests, features_not_offered);
	tcase_add_loop_test(tests, bad_memory_table, 0, (int)(sizeof(tables) / sizeof(tables[0])));
	tcase_add_loop_test(tests, overlapping_regions, 0, 2);
	tcase_add_test(tests, file_that_can_shrink);
	tcase_add_loop_test(tests, rings_outside_memory, 0, 6);
	tcase_add_loop_test(tests, out_of_order, 0, 2);
	tcase_add_loop_test(tests, frozen_while_running, 0, 6);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
