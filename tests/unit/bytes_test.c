/* base/bytes.h: round trips, and what happens at and behind the end. */
#include "base/bytes.h"

#include "base/checked.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(integers_come_back)
{
	uint8_t block[64];
	struct byte_writer writer;
	struct byte_reader reader;

	byte_writer_init(&writer, block, sizeof(block));
	byte_writer_u8(&writer, 0xfe);
	byte_writer_u16(&writer, 0xfedc);
	byte_writer_u32(&writer, 0xfedcba98);
	byte_writer_u64(&writer, UINT64_C(0xfedcba9876543210));
	byte_writer_s32(&writer, INT32_MIN);
	byte_writer_s64(&writer, INT64_MIN);
	byte_writer_bytes(&writer, "abc", 3);
	ck_assert(byte_writer_ok(&writer));
	ck_assert_uint_eq(writer.length, 1 + 2 + 4 + 8 + 4 + 8 + 3);

	byte_reader_init(&reader, block, writer.length);
	ck_assert_uint_eq(byte_reader_u8(&reader), 0xfe);
	ck_assert_uint_eq(byte_reader_u16(&reader), 0xfedc);
	ck_assert_uint_eq(byte_reader_u32(&reader), 0xfedcba98);
	ck_assert_uint_eq(byte_reader_u64(&reader), UINT64_C(0xfedcba9876543210));
	ck_assert_int_eq(byte_reader_s32(&reader), INT32_MIN);
	ck_assert_int_eq(byte_reader_s64(&reader), INT64_MIN);
	ck_assert(!byte_reader_done(&reader));
	ck_assert_mem_eq(byte_reader_bytes(&reader, 3), "abc", 3);
	ck_assert(byte_reader_done(&reader));
}
END_TEST

START_TEST(integers_are_little_endian)
{
	uint8_t block[8];
	struct byte_writer writer;

	byte_writer_init(&writer, block, sizeof(block));
	byte_writer_u16(&writer, 0x0102);
	byte_writer_u32(&writer, 0x03040506);
	ck_assert_mem_eq(block, "\x02\x01\x06\x05\x04\x03", 6);
}
END_TEST

START_TEST(failure_of_a_reader_sticks)
{
	const uint8_t block[] = { 1, 2, 3 };
	struct byte_reader reader;
	uint8_t copy[4] = { 9, 9, 9, 9 };

	byte_reader_init(&reader, block, sizeof(block));
	ck_assert_uint_eq(byte_reader_u32(&reader), 0);
	ck_assert(!byte_reader_ok(&reader));
	ck_assert_uint_eq(byte_reader_u8(&reader), 0);
	ck_assert_uint_eq(byte_reader_remaining(&reader), 0);
	ck_assert(!byte_reader_done(&reader));
	byte_reader_copy(&reader, copy, sizeof(copy));
	ck_assert_mem_eq(copy, "\0\0\0\0", 4);
	ck_assert_ptr_null(byte_reader_bytes(&reader, 0));
}
END_TEST

START_TEST(lengths_do_not_wrap)
{
	const uint8_t block[] = { 1, 2, 3 };
	uint8_t target[4];
	struct byte_reader reader;
	struct byte_writer writer;

	byte_reader_init(&reader, block, sizeof(block));
	byte_reader_u8(&reader);
	ck_assert_ptr_null(byte_reader_bytes(&reader, SIZE_MAX));
	ck_assert(!byte_reader_ok(&reader));

	byte_writer_init(&writer, target, sizeof(target));
	byte_writer_u8(&writer, 1);
	ck_assert_ptr_null(byte_writer_reserve(&writer, SIZE_MAX));
	ck_assert(!byte_writer_ok(&writer));
	ck_assert_uint_eq(writer.length, 1);
}
END_TEST

START_TEST(a_slice_ends_where_it_was_cut)
{
	const uint8_t block[] = { 1, 2, 3, 4 };
	struct byte_reader reader;
	struct byte_reader slice;

	byte_reader_init(&reader, block, sizeof(block));
	slice = byte_reader_slice(&reader, 3);
	ck_assert_uint_eq(byte_reader_u16(&slice), 0x0201);
	ck_assert_uint_eq(byte_reader_u16(&slice), 0);
	ck_assert(!byte_reader_ok(&slice));
	ck_assert(byte_reader_ok(&reader));
	ck_assert_uint_eq(byte_reader_u8(&reader), 4);

	slice = byte_reader_slice(&reader, 1);
	ck_assert(!byte_reader_ok(&slice));
	ck_assert(!byte_reader_ok(&reader));
}
END_TEST

START_TEST(an_empty_block_is_done)
{
	struct byte_reader reader;
	struct byte_reader slice;

	byte_reader_init(&reader, NULL, 0);
	ck_assert(byte_reader_done(&reader));
	byte_reader_copy(&reader, NULL, 0);
	ck_assert(byte_reader_done(&reader));
	byte_reader_init(&reader, "x", 1);
	slice = byte_reader_slice(&reader, 0);
	ck_assert(byte_reader_done(&slice));
	byte_reader_fail(&reader);
	ck_assert(!byte_reader_ok(&reader));
}
END_TEST

START_TEST(failure_of_a_writer_sticks)
{
	uint8_t block[6];
	struct byte_writer writer;

	byte_writer_init(&writer, block, sizeof(block));
	byte_writer_u32(&writer, 1);
	byte_writer_u32(&writer, 2);
	ck_assert(!byte_writer_ok(&writer));
	byte_writer_u8(&writer, 3);
	ck_assert_uint_eq(writer.length, 4);
}
END_TEST

START_TEST(patches_stay_inside_what_was_written)
{
	uint8_t block[8];
	struct byte_writer writer;

	byte_writer_init(&writer, block, sizeof(block));
	byte_writer_u32(&writer, 0);
	byte_writer_patch_u32(&writer, 0, 0x01020304);
	ck_assert(byte_writer_ok(&writer));
	ck_assert_mem_eq(block, "\x04\x03\x02\x01", 4);
	byte_writer_patch_u32(&writer, 1, 0);
	ck_assert(!byte_writer_ok(&writer));
	byte_writer_init(&writer, block, sizeof(block));
	byte_writer_patch_u32(&writer, SIZE_MAX, 0);
	ck_assert(!byte_writer_ok(&writer));
}
END_TEST

START_TEST(checked_arithmetic_leaves_results_alone)
{
	size_t size = 7;
	uint64_t number = 7;

	ck_assert(!checked_add_size(SIZE_MAX, 1, &size));
	ck_assert(!checked_multiply_size(SIZE_MAX / 2, 3, &size));
	ck_assert(!checked_add_u64(UINT64_MAX, 1, &number));
	ck_assert_uint_eq(size, 7);
	ck_assert_uint_eq(number, 7);
	ck_assert(checked_add_size(SIZE_MAX - 1, 1, &size) && size == SIZE_MAX);
	ck_assert(checked_multiply_size(6, 7, &size) && size == 42);
	ck_assert(checked_add_u64(40, 2, &number) && number == 42);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bytes");
	TCase *tests = tcase_create("bytes");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, integers_come_back);
	tcase_add_test(tests, integers_are_little_endian);
	tcase_add_test(tests, failure_of_a_reader_sticks);
	tcase_add_test(tests, lengths_do_not_wrap);
	tcase_add_test(tests, a_slice_ends_where_it_was_cut);
	tcase_add_test(tests, an_empty_block_is_done);
	tcase_add_test(tests, failure_of_a_writer_sticks);
	tcase_add_test(tests, patches_stay_inside_what_was_written);
	tcase_add_test(tests, checked_arithmetic_leaves_results_alone);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
