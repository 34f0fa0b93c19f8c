/* The device with its real muxer and real Unix sockets, against a driver that this test plays. */
#include "tests/unit/vsock_world.h"

START_TEST(header_round_trip)
{
	struct vsock_header in = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, out;
	uint8_t bytes[VSOCK_HEADER_LENGTH];

	vsock_header_encode(&in, bytes);
	ck_assert_uint_eq(bytes[0], 1);
	ck_assert_uint_eq(bytes[28], 6);
	ck_assert_uint_eq(bytes[40], 10);
	vsock_header_decode(bytes, &out);
	ck_assert_uint_eq(out.source_cid, 1);
	ck_assert_uint_eq(out.forward_count, 10);
	ck_assert_uint_eq(out.operation, 7);
}
END_TEST

START_TEST(both_ways)
{
	char text[16];
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	send_with(1000, PORT, VSOCK_OP_RW, 0, "request", 7);
	ck_assert_int_eq(read(fd, text, sizeof(text)), 7);
	ck_assert_int_eq(write(fd, "answer", 6), 6);
	settle();
	expect(VSOCK_OP_RW);
	ck_assert_uint_eq(packet.length, 6);
	ck_assert_mem_eq(payload, "answer", 6);
	ck_assert_uint_eq(packet.forward_count, 7);
	ck_assert_uint_eq(violations, 0);
	close(fd);
	settle();
	expect(VSOCK_OP_SHUTDOWN);
	ck_assert_uint_eq(packet.flags, VSOCK_SHUTDOWN_BOTH);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
}
END_TEST

START_TEST(half_closes)
{
	char text[16];
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	send_with(1000, PORT, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND, NULL, 0);
	ck_assert_int_eq(read(fd, text, sizeof(text)), 0);
	ck_assert_int_eq(write(fd, "late", 4), 4);
	settle();
	expect(VSOCK_OP_RW);
	shutdown(fd, SHUT_WR);
	settle();
	expect(VSOCK_OP_SHUTDOWN);
	ck_assert_uint_eq(packet.flags, VSOCK_SHUTDOWN_SEND | (packet.flags & 1));
	/* The guest closes: it gets its RST, and only one. */
	send_with(1000, PORT, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH, NULL, 0);
	expect(VSOCK_OP_RST);
	expect_nothing();
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
	close(fd);
}
END_TEST

START_TEST(host_half_close_first)
{
	char text[16];
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	ck_assert_int_eq(write(fd, "last", 4), 4);
	shutdown(fd, SHUT_WR);
	settle();
	expect(VSOCK_OP_RW);
	expect(VSOCK_OP_SHUTDOWN);
	ck_assert_uint_eq(packet.flags, VSOCK_SHUTDOWN_SEND);
	send_with(1000, PORT, VSOCK_OP_RW, 0, "still", 5);
	ck_assert_int_eq(read(fd, text, sizeof(text)), 5);
	/* Now the rest of it goes. */
	close(fd);
	settle();
	expect(VSOCK_OP_SHUTDOWN);
	ck_assert_uint_eq(packet.flags, VSOCK_SHUTDOWN_BOTH);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
}
END_TEST

START_TEST(resets)
{
	offer_buffers(8);
	/* Nobody listens on port 78. */
	send_with(1000, 78, VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(VSOCK_OP_RST);
	/* Packets for no stream. */
	send_op(1000, VSOCK_OP_RW);
	expect(VSOCK_OP_RST);
	send_op(1000, VSOCK_OP_RESPONSE);
	expect(VSOCK_OP_RST);
	/* An RST is never answered. */
	send_op(1000, VSOCK_OP_RST);
	expect_nothing();
	ck_assert_uint_eq(violations, 0);
}
END_TEST

START_TEST(reset_closes)
{
	char byte;
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	send_op(1000, VSOCK_OP_RST);
	ck_assert_int_eq(read(fd, &byte, 1), 0);
	expect_nothing();
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
	close(fd);
}
END_TEST

/* Each of these ends the stream by one RST and counts as a violation. */
static const uint16_t bad_operations[] = { VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE, VSOCK_OP_INVALID, 8,
					   0xffff };

START_TEST(bad_operation)
{
	char byte;
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	send_op(1000, bad_operations[_i]);
	expect(VSOCK_OP_RST);
	expect_nothing();
	ck_assert_uint_eq(violations, 1);
	ck_assert_int_eq(read(fd, &byte, 1), 0);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
	close(fd);
}
END_TEST

START_TEST(data_after_shutdown)
{
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	send_with(1000, PORT, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND, NULL, 0);
	send_with(1000, PORT, VSOCK_OP_RW, 0, "late", 4);
	expect(VSOCK_OP_RST);
	ck_assert_uint_eq(violations, 1);
	close(fd);
}
END_TEST

START_TEST(forged_headers)
{
	struct vsock_header header = {
		.source_cid = CID,
		.target_cid = VSOCK_CID_HOST,
		.source_port = 1000,
		.target_port = PORT,
		.type = VSOCK_TYPE_STREAM,
		.operation = VSOCK_OP_REQUEST,
	};
	uint16_t index;

	offer_buffers(8);
	/* Another guest's address. */
	header.source_cid = CID + 1;
	driver_send(&driver, &header, NULL, 0);
	settle();
	expect_nothing();
	ck_assert_uint_eq(violations, 1);
	/* An address which is not the host's, and a type that was not negotiated. */
	header.source_cid = CID;
	header.target_cid = 7;
	driver_send(&driver, &header, NULL, 0);
	settle();
	expect(VSOCK_OP_RST);
	ck_assert_uint_eq(packet.source_cid, 7);
	header.target_cid = VSOCK_CID_HOST;
	header.type = 2;
	driver_send(&driver, &header, NULL, 0);
	settle();
	expect(VSOCK_OP_RST);
	ck_assert_uint_eq(packet.type, 2);
	/* More payload promised than sent. */
	header.type = VSOCK_TYPE_STREAM;
	header.length = UINT32_MAX;
	driver_send(&driver, &header, NULL, 0);
	settle();
	expect_nothing();
	ck_assert_uint_eq(violations, 2);
	/* Less than a header. */
	index = driver.queues[1].next_descriptor++;
	driver_set(&driver, 1, index, driver_buffer(1, index), 43, 0, 0);
	driver_offer(&driver, 1, index);
	settle();
	ck_assert_uint_eq(violations, 3);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
}
END_TEST

/* The naive device would buffer whatever comes. */
START_TEST(host_never_reads_and_guest_ignores_credit)
{
	static char block[16000];
	size_t sent = 0;
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	for (int i = 0; i < 200 && violations == 0; i++) {
		send_with(1000, PORT, VSOCK_OP_RW, 0, block, sizeof(block));
		sent += sizeof(block);
	}
	ck_assert_uint_eq(violations, 1);
	ck_assert_uint_gt(sent, VSOCK_BUFFER_SIZE);
	ck_assert_uint_lt(sent, 16 * VSOCK_BUFFER_SIZE);
	while (packet.operation != VSOCK_OP_RST)
		ck_assert(driver_receive(&driver, &packet, &payload));
	close(fd);
}
END_TEST

START_TEST(credit_follows_the_host_socket)
{
	static char block[16000];
	uint32_t in_flight = 0, total = 0, read_count = 0;
	bool updated = false;
	int fd;

	offer_buffers(16);
	fd = open_stream(1000);
	/* An honest guest with the last forward count it saw. */
	for (;;) {
		while (driver_receive(&driver, &packet, &payload)) {
			ck_assert_uint_eq(packet.operation, VSOCK_OP_CREDIT_UPDATE);
			in_flight = total - packet.forward_count;
			driver_offer_buffer(&driver, 3776);
		}
		if (in_flight + sizeof(block) > VSOCK_BUFFER_SIZE)
			break;
		send_with(1000, PORT, VSOCK_OP_RW, 0, block, sizeof(block));
		total += sizeof(block);
		in_flight += sizeof(block);
	}
	ck_assert_uint_eq(violations, 0);
	/* All of it arrives, and the credit with it. */
	while (read_count < total) {
		static char back[65536];
		ssize_t count = read(fd, back, sizeof(back));

		ck_assert_int_gt(count, 0);
		read_count += (uint32_t)count;
		settle();
		while (driver_receive(&driver, &packet, &payload)) {
			ck_assert_uint_eq(packet.operation, VSOCK_OP_CREDIT_UPDATE);
			updated = true;
		}
	}
	ck_assert(updated);
	/* Asked for, it comes even if nothing changed. */
	send_op(1000, VSOCK_OP_CREDIT_REQUEST);
	expect(VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_eq(packet.forward_count, total);
	close(fd);
}
END_TEST

START_TEST(pending_bytes_outlive_the_guest)
{
	static char block[16000];
	size_t sent = 0, got = 0;
	ssize_t count;
	int fd;

	offer_buffers(32);
	fd = open_stream(1000);
	while (sent + sizeof(block) <= VSOCK_BUFFER_SIZE + 100000) {
		send_with(1000, PORT, VSOCK_OP_RW, 0, block, sizeof(block));
		sent += sizeof(block);
	}
	send_with(1000, PORT, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH, NULL, 0);
	do {
		ck_assert(driver_receive(&driver, &packet, &payload));
	} while (packet.operation != VSOCK_OP_RST);
	ck_assert_uint_eq(vsock_device_connection_count(device), 1);
	/* The guest may use its port again meanwhile. */
	close(open_stream(1000));
	settle();
	while ((count = read(fd, block, sizeof(block))) > 0) {
		got += (size_t)count;
		settle();
	}
	ck_assert_uint_eq(got, sent);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
	ck_assert_uint_eq(violations, 0);
	close(fd);
}
END_TEST

START_TEST(guest_credit_is_kept)
{
	static char block[200000];
	struct vsock_header header;
	size_t received = 0;
	int fd;

	offer_buffers(DRIVER_QUEUE_SIZE);
	fd = open_stream(1000);
	ck_assert_int_gt(send(fd, block, sizeof(block), MSG_DONTWAIT), 65536);
	settle();
	while (driver_receive(&driver, &header, &payload))
		received += header.length;
	ck_assert_uint_eq(received, 65536);
	offer_buffers(10);
	settle();
	ck_assert(!driver_receive(&driver, &header, &payload));
	/* A forward count from the future is no credit. */
	forward_count = 0x80000000;
	send_op(1000, VSOCK_OP_CREDIT_UPDATE);
	ck_assert(!driver_receive(&driver, &header, &payload));
	forward_count = 1000;
	send_op(1000, VSOCK_OP_CREDIT_UPDATE);
	ck_assert(driver_receive(&driver, &header, &payload));
	ck_assert_uint_eq(header.length, 1000);
	ck_assert_uint_eq(violations, 0);
	close(fd);
}
END_TEST

START_TEST(no_receive_buffers)
{
	int fd;

	offer_buffers(1);
	fd = open_stream(1000); /* gives its buffer back: one left */
	ck_assert_int_eq(write(fd, "one", 3), 3);
	settle();
	ck_assert(driver_receive(&driver, &packet, &payload));
	ck_assert_int_eq(write(fd, "two", 3), 3);
	settle(); /* comes to rest although the socket is readable */
	expect_nothing();
	/* EVENT_IDX: a kick for the next buffer was asked for. */
	ck_assert_uint_eq(driver.queues[0].used[2 + 4 * DRIVER_QUEUE_SIZE],
			  driver.queues[0].available[1]);
	driver_offer_buffer(&driver, 3776);
	settle();
	expect(VSOCK_OP_RW);
	ck_assert_mem_eq(payload, "two", 3);
	close(fd);
}
END_TEST

START_TEST(flood_of_strays)
{
	unsigned answers = 0;

	/* No receive buffers at all: RSTs wait, but not more than fit. */
	for (uint32_t i = 0; i < 2 * VSOCK_RESETS_MAX; i++)
		send_op(i, VSOCK_OP_RW);
	ck_assert_uint_eq(violations, VSOCK_RESETS_MAX);
	for (int round = 0; round < 20; round++) {
		offer_buffers(DRIVER_QUEUE_SIZE);
		settle();
		while (driver_receive(&driver, &packet, &payload))
			answers++;
	}
	ck_assert_uint_eq(answers, VSOCK_RESETS_MAX);
}
END_TEST

START_TEST(flood_of_streams)
{
	unsigned refused = 0;

	offer_buffers(DRIVER_QUEUE_SIZE / 2);
	for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX + 100; i++) {
		send_op(i, VSOCK_OP_REQUEST);
		ck_assert(driver_receive(&driver, &packet, &payload));
		refused += packet.operation == VSOCK_OP_RST;
		driver_offer_buffer(&driver, 3776);
		if (packet.operation == VSOCK_OP_RESPONSE)
			close(accept(listener, NULL, NULL));
		while (driver_receive(&driver, &packet, &payload))
			driver_offer_buffer(&driver, 3776);
	}
	/* Each was closed by the host, told to the guest, and is forgotten. */
	settle();
	ck_assert_uint_eq(refused, 0);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
}
END_TEST

/* A device that was given room for few streams refuses the others and keeps the first. */
START_TEST(too_many_streams)
{
	struct vsock_device_setup setup = {
		.guest_cid = CID,
		.connections_max = 10,
		.streams = &vsock_muxer_operations,
		.provider = muxer,
		.interrupt = count_interrupt,
		.violation = count_violation,
	};
	int first;

	vsock_device_free(device);
	ck_assert_int_eq(vsock_device_new(&setup, &device), 0);
	for (size_t i = 0; i < 2; i++) {
		struct virtqueue_layout layout = driver_layout(&driver, i);

		ck_assert_int_eq(vsock_device_start_queue(device, (enum vsock_queue)i,
							  &driver.memory, &layout),
				 0);
	}
	offer_buffers(8);
	first = open_stream(0);
	for (uint32_t i = 1; i < 10; i++)
		(void)open_stream(i);
	for (uint32_t i = 10; i < 50; i++) {
		send_op(i, VSOCK_OP_REQUEST);
		expect(VSOCK_OP_RST);
	}
	ck_assert_uint_eq(vsock_device_connection_count(device), 10);
	ck_assert_int_eq(write(first, "here", 4), 4);
	settle();
	expect(VSOCK_OP_RW);
}
END_TEST

START_TEST(streams_take_turns)
{
	static char block[60000];
	struct vsock_header header;
	unsigned packets[2] = { 0, 0 };
	int a, b;

	offer_buffers(4);
	a = open_stream(1);
	b = open_stream(2);
	ck_assert_int_eq(write(a, block, sizeof(block)), sizeof(block));
	ck_assert_int_eq(write(b, block, sizeof(block)), sizeof(block));
	/* Each turn of the device ends with a handful of buffers used. */
	for (int i = 0; i < 4; i++) {
		offer_buffers(4);
		settle();
		while (driver_receive(&driver, &header, &payload))
			packets[header.target_port - 1]++;
	}
	ck_assert_uint_gt(packets[0], 0);
	ck_assert_uint_gt(packets[1], 0);
	close(a);
	close(b);
}
END_TEST

START_TEST(bad_receive_buffer)
{
	offer_buffers(1);
	driver.queues[0].descriptors[0].flags = _i ? 0 : DRIVER_WRITE;
	driver.queues[0].descriptors[0].length = _i ? 3776 : 44;
	{
		struct vsock_header header = { .source_cid = CID,
					       .target_cid = VSOCK_CID_HOST,
					       .source_port = 5,
					       .target_port = PORT,
					       .type = VSOCK_TYPE_STREAM,
					       .operation = VSOCK_OP_RW };

		driver_send(&driver, &header, NULL, 0);
	}
	vsock_device_kick(device, VSOCK_QUEUE_TRANSMIT);
	ck_assert_int_eq(vsock_device_run(device), -EPROTO);
	ck_assert_str_ne(vsock_device_error(device), "none");
}
END_TEST

START_TEST(host_connects)
{
	char text[32] = "";
	uint32_t port;
	int fd;

	offer_buffers(8);
	fd = unix_socket("v", false);
	ck_assert_int_eq(write(fd, "CONN", 4), 4);
	settle();
	expect_nothing();
	ck_assert_int_eq(write(fd, "ECT 5000\nearly", 14), 14);
	settle();
	expect(VSOCK_OP_REQUEST);
	ck_assert_uint_eq(packet.target_port, 5000);
	port = packet.source_port;
	expect_nothing();
	send_with(5000, port, VSOCK_OP_RESPONSE, 0, NULL, 0);
	(void)snprintf(text, sizeof(text), "OK %u\n", port);
	{
		char answer[32] = "";

		ck_assert_int_gt(read(fd, answer, sizeof(answer) - 1), 0);
		ck_assert_str_eq(answer, text);
	}
	expect(VSOCK_OP_RW);
	ck_assert_mem_eq(payload, "early", 5);
	close(fd);
}
END_TEST

START_TEST(host_connect_refused)
{
	char byte;
	int fd;

	offer_buffers(8);
	fd = unix_socket("v", false);
	ck_assert_int_eq(write(fd, "CONNECT 5000\n", 13), 13);
	settle();
	expect(VSOCK_OP_REQUEST);
	send_with(5000, packet.source_port, VSOCK_OP_RST, 0, NULL, 0);
	ck_assert_int_eq(read(fd, &byte, 1), 0);
	close(fd);
	/* One that the guest uses without accepting it. */
	fd = unix_socket("v", false);
	ck_assert_int_eq(write(fd, "CONNECT 5000\n", 13), 13);
	settle();
	expect(VSOCK_OP_REQUEST);
	send_with(5000, packet.source_port, VSOCK_OP_RW, 0, "x", 1);
	expect(VSOCK_OP_RST);
	ck_assert_uint_eq(violations, 1);
	ck_assert_int_eq(read(fd, &byte, 1), 0);
	close(fd);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
}
END_TEST

static const char *const bad_lines[] = {
	"CONNECT \n",
	"CONNECT 4294967296\n",
	"CONNECT -1\n",
	"CONNECT 1 \n",
	"connect 1\n",
	"\n",
	"CONNECT 00000000000000000000000000000000001\n",
};

START_TEST(bad_connect_line)
{
	ssize_t length = (ssize_t)strlen(bad_lines[_i]);
	char byte;
	int fd;

	offer_buffers(8);
	fd = unix_socket("v", false);
	ck_assert_int_eq(write(fd, bad_lines[_i], (size_t)length), length);
	settle();
	expect_nothing();
	ck_assert_int_le(read(fd, &byte, 1), 0);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
	close(fd);
}
END_TEST

START_TEST(stopping_drops_streams)
{
	char byte;
	int fd;

	offer_buffers(8);
	fd = open_stream(1000);
	(void)vsock_device_stop_queue(device, VSOCK_QUEUE_TRANSMIT);
	ck_assert_uint_eq(vsock_device_connection_count(device), 0);
	ck_assert_int_eq(read(fd, &byte, 1), 0);
	/* What was held back is published. */
	ck_assert_uint_eq(driver.queues[1].used[1], driver.queues[1].available[1]);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vsock_device");
	TCase *tests = tcase_create("vsock_device");
	SRunner *runner;
	int failed;

	(void)signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, header_round_trip);
	tcase_add_test(tests, both_ways);
	tcase_add_test(tests, half_closes);
	tcase_add_test(tests, host_half_close_first);
	tcase_add_test(tests, resets);
	tcase_add_test(tests, reset_closes);
	tcase_add_loop_test(tests, bad_operation, 0,
			    (int)(sizeof(bad_operations) / sizeof(bad_operations[0])));
	tcase_add_test(tests, data_after_shutdown);
	tcase_add_test(tests, forged_headers);
	tcase_add_test(tests, host_never_reads_and_guest_ignores_credit);
	tcase_add_test(tests, credit_follows_the_host_socket);
	tcase_add_test(tests, pending_bytes_outlive_the_guest);
	tcase_add_test(tests, guest_credit_is_kept);
	tcase_add_test(tests, no_receive_buffers);
	tcase_add_test(tests, flood_of_strays);
	tcase_add_test(tests, flood_of_streams);
	tcase_add_test(tests, too_many_streams);
	tcase_add_test(tests, streams_take_turns);
	tcase_add_loop_test(tests, bad_receive_buffer, 0, 2);
	tcase_add_test(tests, host_connects);
	tcase_add_test(tests, host_connect_refused);
	tcase_add_loop_test(tests, bad_connect_line, 0,
			    (int)(sizeof(bad_lines) / sizeof(bad_lines[0])));
	tcase_add_test(tests, stopping_drops_streams);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
