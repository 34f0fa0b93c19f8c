/* The bytes of a guest's stream on the vsock device: in how many pieces they may come, when the
 * guest is told that they have left, and how many packets it may get at once. */
#include "tests/unit/vsock_world.h"

#include "base/checked.h"

/* What a guest's buffer makes of when it is told about credit. */
static const struct {
	uint32_t buffer, due;
} windows[] = {
	{ 4096, 2048 },
	{ 65536, 32768 },
	{ VSOCK_BUFFER_SIZE, VSOCK_BUFFER_SIZE / 2 },
	{ 4 * VSOCK_BUFFER_SIZE, VSOCK_BUFFER_SIZE / 2 }, /* it has no more of ours than that */
};

/* Newer guests never have more in flight than their own buffer: at half of ours, those with a
 * smaller one would wait for ever. */
START_TEST(credit_is_due_at_half_of_the_smaller_buffer)
{
	static char block[8192];
	uint32_t sent = 0;
	int fd;

	guest_buffer = windows[_i].buffer;
	offer_buffers(8);
	fd = open_stream(1000);
	for (int round = 1; round <= 3; round++) {
		uint32_t due = (uint32_t)round * windows[_i].due;

		while (sent < due - 1) {
			size_t length = MIN_OF(sizeof(block), (size_t)(due - 1 - sent));

			send_with(1000, PORT, VSOCK_OP_RW, 0, block, length);
			ck_assert_int_eq(recv(fd, block, length, MSG_DONTWAIT), (ssize_t)length);
			sent += (uint32_t)length;
			expect_nothing();
		}
		send_with(1000, PORT, VSOCK_OP_RW, 0, block, 1);
		ck_assert_int_eq(recv(fd, block, 1, MSG_DONTWAIT), 1);
		sent++;
		expect(VSOCK_OP_CREDIT_UPDATE);
		ck_assert_uint_eq(packet.forward_count, due);
		expect_nothing();
	}
	ck_assert_uint_eq(violations, 0);
	close(fd);
}
END_TEST

START_TEST(credit_outlives_a_read_of_nothing)
{
	static char block[3776 - VSOCK_HEADER_LENGTH], large[12000];
	int fd;

	guest_buffer = 16384;
	offer_buffers(1);
	fd = open_stream(1000); /* gives its buffer back: one left */
	/* As much as the buffer takes: whether there is more is not known then. */
	ck_assert_int_eq(write(fd, block, sizeof(block)), sizeof(block));
	settle();
	ck_assert(driver_receive(&driver, &packet, &payload));
	ck_assert_uint_eq(packet.length, sizeof(block));
	/* Without a buffer, credit stays owed. */
	send_with(1000, PORT, VSOCK_OP_RW, 0, large, sizeof(large));
	ck_assert_int_eq(recv(fd, large, sizeof(large), MSG_DONTWAIT), sizeof(large));
	expect_nothing();
	/* The next one is tried for the bytes first, of which there are none. */
	driver_offer_buffer(&driver, 3776);
	settle();
	expect(VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_eq(packet.forward_count, sizeof(large));
	expect_nothing();
	close(fd);
}
END_TEST

/* Takes what the device sent, but does not read it: returns its bytes, counts its packets, and
 * looks at the bytes if they are those from `position` on. */
static size_t take_packets(unsigned *packets, const char *expected, size_t position)
{
	struct vsock_header header;
	size_t length = 0;

	while (driver_receive(&driver, &header, &payload)) {
		ck_assert_uint_eq(header.operation, VSOCK_OP_RW);
		ck_assert_mem_eq(payload, expected + position + length, header.length);
		length += header.length;
		(*packets)++;
		driver_offer_buffer(&driver, 3776);
		settle();
	}
	return length;
}

/* Linux counts what packets cost besides their bytes, and resets streams that cost too much. */
START_TEST(small_packets_do_not_pile_up)
{
	static char text[20000];
	const unsigned limit = 65536 / VSOCK_BYTES_PER_PACKET;
	unsigned packets = 0;
	size_t got = 0;
	int fd;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i % 127);
	offer_buffers(32);
	fd = open_stream(1000);
	for (size_t at = 0; at < sizeof(text); at += 200) {
		ck_assert_int_eq(write(fd, text + at, 200), 200);
		settle();
		got += take_packets(&packets, text, got);
	}
	ck_assert_uint_eq(packets, limit);
	ck_assert_uint_eq(got, (size_t)limit * 200);
	/* Having read a part, the guest may still have most packets. */
	for (forward_count = 1000; forward_count < 4000; forward_count += 1000) {
		send_op(1000, VSOCK_OP_CREDIT_UPDATE);
		expect_nothing();
	}
	/* The rest comes in packets that are full. */
	packets = 0;
	forward_count = (uint32_t)got;
	send_op(1000, VSOCK_OP_CREDIT_UPDATE);
	got += take_packets(&packets, text, got);
	ck_assert_uint_eq(got, sizeof(text));
	ck_assert_uint_le(packets, 3);
	close(fd);
}
END_TEST

START_TEST(small_buffers_are_not_filled_without_end)
{
	static char text[20000];
	const unsigned limit = 65536 / VSOCK_BYTES_PER_PACKET;
	struct vsock_header header;
	unsigned packets = 0;
	int fd;

	offer_buffers(2);
	fd = open_stream(1000);
	/* One batch of buffers after the other, all at once for the stream. */
	for (unsigned i = 0; i < DRIVER_QUEUE_SIZE - 10; i++)
		driver_offer_buffer(&driver, VSOCK_HEADER_LENGTH + 100);
	ck_assert_int_eq(write(fd, text, sizeof(text)), sizeof(text));
	for (int round = 0; round < 3; round++) {
		settle();
		for (; driver_receive(&driver, &header, &payload); packets++)
			driver_offer_buffer(&driver, VSOCK_HEADER_LENGTH + 100);
	}
	ck_assert_uint_eq(packets, limit);
	close(fd);
}
END_TEST

/* However little of its buffer a guest reads at a time, its bytes are what bounds full packets. */
START_TEST(full_packets_are_bounded_by_bytes)
{
	static char text[512 * 1024];
	static const uint32_t steps[] = { 1000, 40000, 100, 65000, 5000, 65536 };
	unsigned packets = 0;
	size_t got, written = 0;
	uint32_t expected = 65536;
	int fd;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i % 127);
	offer_buffers(32);
	fd = open_stream(1000);
	written += (size_t)send(fd, text, 200000, MSG_DONTWAIT);
	settle();
	got = take_packets(&packets, text, 0);
	ck_assert_uint_eq(got, expected);
	for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
		ssize_t more = send(fd, text + written, 60000, MSG_DONTWAIT);

		written += more > 0 ? (size_t)more : 0;
		forward_count += steps[i];
		expected += steps[i];
		send_op(1000, VSOCK_OP_CREDIT_UPDATE);
		got += take_packets(&packets, text, got);
		ck_assert_uint_eq(got, expected);
	}
	close(fd);
}
END_TEST

#define PIECES_MAX VIRTQUEUE_CHAIN_MAX

/* Where a packet's header and payload are cut, payload being 100 bytes: at the header's end, in
 * fields of it, before its last byte, behind the payload's first. */
static const struct {
	size_t cuts[PIECES_MAX];
	size_t count;
} packets_in_pieces[] = {
	{ { 0 }, 1 },
	{ { 44 }, 2 },
	{ { 1 }, 2 },
	{ { 29 }, 2 },
	{ { 43 }, 2 },
	{ { 45 }, 2 },
	{ { 143 }, 2 },
	{ { 44, 60 }, 3 },
	{ { 7, 44 }, 3 },
	{ { 13, 101 }, 3 },
	{ { 1,	2,  3,	5,  7,	11, 13, 17, 19, 23, 29,	 31,  37,  41,	43, 47,
	    53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113 },
	  PIECES_MAX },
};

START_TEST(packet_in_pieces)
{
	const size_t *cuts = packets_in_pieces[_i].cuts;
	const size_t count = packets_in_pieces[_i].count;
	char text[100], got[128];
	struct vsock_header header;
	int fd;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('0' + i);
	offer_buffers(8);
	fd = open_stream(1000);
	header = header_of(1000, PORT, VSOCK_OP_RW, 0, sizeof(text));
	/* Round the end of the descriptors, too. */
	for (int i = 0; i < 5; i++) {
		driver_send_cut(&driver, &header, text, sizeof(text), cuts, count);
		settle();
		ck_assert_int_eq(recv(fd, got, sizeof(got), MSG_DONTWAIT), sizeof(text));
		ck_assert_mem_eq(got, text, sizeof(text));
	}
	ck_assert_uint_eq(violations, 0);
	close(fd);
}
END_TEST

/* What the host's socket takes of them ends anywhere in a piece. */
START_TEST(packets_in_pieces_for_a_full_socket)
{
	static const size_t cuts[] = { 30, 1000, 1001, 9000 };
	static uint8_t block[16000], got[VSOCK_BUFFER_SIZE];
	struct vsock_header header;
	size_t sent = 0, total = 0;
	ssize_t count;
	int fd;

	guest_buffer = VSOCK_BUFFER_SIZE;
	offer_buffers(32);
	fd = open_stream(1000);
	header = header_of(1000, PORT, VSOCK_OP_RW, 0, sizeof(block));
	while (sent + sizeof(block) <= VSOCK_BUFFER_SIZE) {
		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = (uint8_t)((sent + i) % 251);
		driver_send_cut(&driver, &header, block, sizeof(block), cuts, 5);
		settle();
		sent += sizeof(block);
	}
	while (total < sent) {
		count = recv(fd, got + total, sizeof(got) - total, MSG_DONTWAIT);
		ck_assert_int_gt(count, 0);
		total += (size_t)count;
		settle();
	}
	ck_assert_uint_eq(total, sent);
	for (size_t i = 0; i < total; i++)
		ck_assert_uint_eq(got[i], i % 251);
	ck_assert_uint_eq(violations, 0);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vsock_flow");
	TCase *tests = tcase_create("vsock_flow");
	SRunner *runner;
	int failed;

	(void)signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, credit_is_due_at_half_of_the_smaller_buffer, 0,
			    (int)ARRAY_LENGTH(windows));
	tcase_add_test(tests, credit_outlives_a_read_of_nothing);
	tcase_add_test(tests, small_packets_do_not_pile_up);
	tcase_add_test(tests, small_buffers_are_not_filled_without_end);
	tcase_add_test(tests, full_packets_are_bounded_by_bytes);
	tcase_add_loop_test(tests, packet_in_pieces, 0, (int)ARRAY_LENGTH(packets_in_pieces));
	tcase_add_test(tests, packets_in_pieces_for_a_full_socket);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
