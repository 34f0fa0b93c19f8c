/* proxy/byte_buffer.h: order, the cap, and that an empty queue holds no memory. */
#include "proxy/byte_buffer.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

START_TEST(bytes_come_out_in_order)
{
	struct byte_buffer buffer;
	uint8_t next_in = 0;
	uint8_t next_out = 0;

	byte_buffer_init(&buffer, 5000);
	for (int round = 0; round < 400; round++) {
		uint8_t block[97];

		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = next_in++;
		while (byte_buffer_append(&buffer, block, sizeof(block)) == -ENOBUFS) {
			for (size_t i = 0; i < 61; i++)
				ck_assert_uint_eq(byte_buffer_front(&buffer)[i], next_out++);
			byte_buffer_consume(&buffer, 61);
		}
		ck_assert_uint_le(buffer.capacity, 5000);
	}
	byte_buffer_release(&buffer);
}
END_TEST

START_TEST(the_cap_holds)
{
	struct byte_buffer buffer;
	uint8_t *space;

	byte_buffer_init(&buffer, 10);
	ck_assert_int_eq(byte_buffer_append(&buffer, "0123456789a", 11), -ENOBUFS);
	ck_assert_uint_eq(byte_buffer_length(&buffer), 0);
	ck_assert_int_eq(byte_buffer_append(&buffer, "0123456", 7), 0);
	ck_assert_uint_eq(byte_buffer_room(&buffer), 3);
	ck_assert_int_eq(byte_buffer_reserve(&buffer, 4, &space), -ENOBUFS);
	ck_assert_int_eq(byte_buffer_reserve(&buffer, SIZE_MAX, &space), -ENOBUFS);
	byte_buffer_consume(&buffer, 5);
	ck_assert_int_eq(byte_buffer_reserve(&buffer, 8, &space), 0);
	memcpy(space, "ABCDEFGH", 8);
	byte_buffer_commit(&buffer, 8);
	ck_assert_uint_eq(byte_buffer_length(&buffer), 10);
	ck_assert_mem_eq(byte_buffer_front(&buffer), "56ABCDEFGH", 10);
	byte_buffer_release(&buffer);
}
END_TEST

START_TEST(an_empty_queue_holds_nothing)
{
	struct byte_buffer buffer;

	byte_buffer_init(&buffer, 100);
	ck_assert_int_eq(byte_buffer_append(&buffer, "abc", 3), 0);
	byte_buffer_consume(&buffer, 100);
	ck_assert_uint_eq(byte_buffer_length(&buffer), 0);
	ck_assert_ptr_null(buffer.data);
	ck_assert_int_eq(byte_buffer_append(&buffer, "", 0), 0);
	ck_assert_ptr_null(buffer.data);
	ck_assert_int_eq(byte_buffer_append(&buffer, "d", 1), 0);
	ck_assert_mem_eq(byte_buffer_front(&buffer), "d", 1);
	byte_buffer_release(&buffer);
}
END_TEST

START_TEST(a_block_may_be_kept)
{
	struct byte_buffer buffer;
	const uint8_t *block;

	byte_buffer_init(&buffer, 100);
	byte_buffer_keep(&buffer, true);
	ck_assert_ptr_null(buffer.data);
	ck_assert_int_eq(byte_buffer_append(&buffer, "abc", 3), 0);
	block = buffer.data;
	byte_buffer_consume(&buffer, 3);
	ck_assert_uint_eq(byte_buffer_length(&buffer), 0);
	ck_assert_ptr_eq(buffer.data, block);
	ck_assert_int_eq(byte_buffer_append(&buffer, "de", 2), 0);
	ck_assert_ptr_eq(byte_buffer_front(&buffer), block);
	ck_assert_mem_eq(block, "de", 2);
	byte_buffer_keep(&buffer, false);
	ck_assert_uint_eq(byte_buffer_length(&buffer), 2);
	byte_buffer_keep(&buffer, true);
	byte_buffer_trim(&buffer, 2);
	ck_assert_ptr_eq(buffer.data, block);
	byte_buffer_keep(&buffer, false);
	ck_assert_ptr_null(buffer.data);
	byte_buffer_release(&buffer);
}
END_TEST

/* Each gets the other's block, and stays what it was. */
START_TEST(kept_blocks_change_places)
{
	struct byte_buffer from;
	struct byte_buffer to;
	const uint8_t *first;
	const uint8_t *second;

	byte_buffer_init(&from, 5000);
	byte_buffer_init(&to, 100);
	byte_buffer_keep(&from, true);
	byte_buffer_keep(&to, true);
	ck_assert_int_eq(byte_buffer_append(&to, "x", 1), 0);
	byte_buffer_consume(&to, 1);
	ck_assert_int_eq(byte_buffer_append(&from, "abcdef", 6), 0);
	first = from.data;
	second = to.data;
	byte_buffer_move(&from, &to);
	ck_assert_ptr_eq(to.data, first);
	ck_assert_ptr_eq(from.data, second);
	ck_assert_uint_eq(byte_buffer_length(&from), 0);
	ck_assert_uint_eq(byte_buffer_room(&from), 5000);
	ck_assert_mem_eq(byte_buffer_front(&to), "abcdef", 6);
	ck_assert_uint_eq(byte_buffer_room(&to), 94);
	byte_buffer_keep(&from, false);
	ck_assert_ptr_null(from.data);
	byte_buffer_move(&to, &from);
	ck_assert_ptr_eq(from.data, first);
	ck_assert_ptr_null(to.data);
	byte_buffer_release(&from);
	byte_buffer_release(&to);
}
END_TEST

START_TEST(contents_are_handed_over)
{
	struct byte_buffer from;
	struct byte_buffer to;

	byte_buffer_init(&from, 5000);
	byte_buffer_init(&to, 100);
	ck_assert_int_eq(byte_buffer_append(&from, "abcdef", 6), 0);
	byte_buffer_consume(&from, 1);
	byte_buffer_move(&from, &to);
	ck_assert_uint_eq(byte_buffer_length(&from), 0);
	ck_assert_ptr_null(from.data);
	byte_buffer_trim(&to, 2);
	ck_assert_uint_eq(byte_buffer_length(&to), 3);
	ck_assert_uint_eq(byte_buffer_room(&to), 97);
	ck_assert_mem_eq(byte_buffer_front(&to), "bcd\0\0", 5);
	byte_buffer_trim(&to, 9);
	ck_assert_ptr_null(to.data);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("byte_buffer");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, bytes_come_out_in_order);
	tcase_add_test(tcase, the_cap_holds);
	tcase_add_test(tcase, contents_are_handed_over);
	tcase_add_test(tcase, a_block_may_be_kept);
	tcase_add_test(tcase, kept_blocks_change_places);
	tcase_add_test(tcase, an_empty_queue_holds_nothing);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
