#include "wire/channel.h"

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *memory;
static struct channel_control *control;
static struct channel host;
static struct channel guest;

static void set_up(void)
{
	memory = aligned_alloc(4096, CHANNEL_STRIDE);
	ck_assert_ptr_nonnull(memory);
	memset(memory, 0xee, CHANNEL_STRIDE);
	control = (struct channel_control *)(void *)memory;
	channel_begin(memory);
	channel_attach(&host, memory, CHANNEL_HOST);
	channel_attach(&guest, memory, CHANNEL_GUEST);
}

static void tear_down(void)
{
	free(memory);
}

START_TEST(begins_empty)
{
	ck_assert_int_eq(channel_available(&host), 0);
	ck_assert_int_eq(channel_available(&guest), 0);
	ck_assert_int_eq(channel_room(&host), CHANNEL_RING_SIZE);
	ck_assert_int_eq(channel_room(&guest), CHANNEL_RING_SIZE);
	ck_assert(!channel_peer_sleeps(&host));
	ck_assert(!channel_peer_sleeps(&guest));
}
END_TEST

START_TEST(carries_bytes_once_published)
{
	char text[16] = "";

	channel_put(&guest, "request", 7);
	ck_assert_int_eq(channel_available(&host), 0);
	channel_publish(&guest);
	ck_assert_int_eq(channel_available(&host), 7);
	channel_copy(&host, text, 7);
	ck_assert_str_eq(text, "request");
	ck_assert_int_eq(channel_room(&guest), CHANNEL_RING_SIZE - 7);
	channel_consume(&host, 7);
	ck_assert_int_eq(channel_room(&guest), CHANNEL_RING_SIZE);
	ck_assert_int_eq(channel_available(&guest), 0);
}
END_TEST

/* Blocks of a length that fits the ring no whole number of times, past where the indices wrap. */
START_TEST(goes_round)
{
	enum { LENGTH = 130001 };
	uint8_t *out = malloc(LENGTH);
	uint8_t *in = malloc(LENGTH);

	host.sent = guest.received = UINT32_MAX - 3 * CHANNEL_RING_SIZE;
	channel_publish(&host);
	channel_consume(&guest, 0);
	for (uint64_t total = 0; total < 6 * CHANNEL_RING_SIZE; total += LENGTH) {
		memset(out, (int)(total % 251), LENGTH);
		out[0] = (uint8_t)(total % 241);
		out[LENGTH - 1] = (uint8_t)(total % 239);
		ck_assert_int_ge(channel_room(&host), LENGTH);
		channel_put(&host, out, LENGTH);
		channel_publish(&host);
		ck_assert_int_eq(channel_available(&guest), LENGTH);
		channel_copy(&guest, in, LENGTH);
		channel_consume(&guest, LENGTH);
		ck_assert_mem_eq(in, out, LENGTH);
	}
	free(in);
	free(out);
}
END_TEST

START_TEST(is_full_and_no_more)
{
	uint8_t *block = calloc(1, CHANNEL_RING_SIZE);

	channel_put(&guest, block, CHANNEL_RING_SIZE);
	channel_publish(&guest);
	ck_assert_int_eq(channel_room(&guest), 0);
	ck_assert_int_eq(channel_available(&host), CHANNEL_RING_SIZE);
	free(block);
}
END_TEST

/* What the guest says is checked, and the host's own indices are not read back. */
START_TEST(sees_through_lies)
{
	atomic_store(&control->request_produced.value, CHANNEL_RING_SIZE + 1);
	ck_assert_int_eq(channel_available(&host), -EPROTO);
	atomic_store(&control->request_produced.value, UINT32_MAX);
	ck_assert_int_eq(channel_available(&host), -EPROTO);
	atomic_store(&control->request_produced.value, 5);
	atomic_store(&control->request_consumed.value, 4000);
	ck_assert_int_eq(channel_available(&host), 5);
	atomic_store(&control->reply_consumed.value, 1);
	ck_assert_int_eq(channel_room(&host), -EPROTO);
	atomic_store(&control->reply_consumed.value, 0);
	atomic_store(&control->reply_produced.value, 12345);
	ck_assert_int_eq(channel_room(&host), CHANNEL_RING_SIZE);
}
END_TEST

START_TEST(wakes_a_sleeper_once)
{
	channel_sleep(&host);
	ck_assert(channel_peer_sleeps(&guest));
	ck_assert(!channel_peer_sleeps(&guest));
	channel_sleep(&host);
	channel_wake(&host);
	ck_assert(!channel_peer_sleeps(&guest));
	channel_sleep(&guest);
	ck_assert(channel_peer_sleeps(&host));
}
END_TEST

START_TEST(counts_what_a_window_holds)
{
	ck_assert_uint_eq(channel_count(0), 0);
	ck_assert_uint_eq(channel_count(CHANNEL_STRIDE - 1), 0);
	ck_assert_uint_eq(channel_count(CHANNEL_STRIDE), 1);
	ck_assert_uint_eq(channel_count(UINT64_MAX), CHANNELS_MAX);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire channel");
	TCase *tests = tcase_create("channel");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, begins_empty);
	tcase_add_test(tests, carries_bytes_once_published);
	tcase_add_test(tests, goes_round);
	tcase_add_test(tests, is_full_and_no_more);
	tcase_add_test(tests, sees_through_lies);
	tcase_add_test(tests, wakes_a_sleeper_once);
	tcase_add_test(tests, counts_what_a_window_holds);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
