#include "wire/fs.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One operation as on the wire. */
static uint8_t bytes[FS_FRAME_MAX];
static size_t bytes_length;

static void put(enum fs_opcode opcode, const void *fixed, size_t fixed_length, const void *tail,
		size_t tail_length)
{
	struct fs_op op = {
		.opcode = (uint16_t)opcode,
		.length = (uint32_t)(fixed_length + tail_length),
	};

	memcpy(bytes, &op, sizeof(op));
	memcpy(bytes + sizeof(op), fixed, fixed_length);
	if (tail_length)
		memcpy(bytes + sizeof(op) + fixed_length, tail, tail_length);
	bytes_length = sizeof(op) + fixed_length + tail_length;
}

static int decode(struct fs_request *request)
{
	struct byte_reader reader;

	byte_reader_init(&reader, bytes, bytes_length);
	return fs_request_decode(&reader, request);
}

START_TEST(names_are_one_component)
{
	ck_assert_int_eq(fs_name_check("a", 1), 0);
	ck_assert_int_eq(fs_name_check("...", 3), 0);
	ck_assert_int_eq(fs_name_check("", 0), -EINVAL);
	ck_assert_int_eq(fs_name_check(".", 1), -EINVAL);
	ck_assert_int_eq(fs_name_check("..", 2), -EINVAL);
	ck_assert_int_eq(fs_name_check("a/b", 3), -EINVAL);
	ck_assert_int_eq(fs_name_check("a\0b", 3), -EINVAL);
	memset(bytes, 'n', 256);
	ck_assert_int_eq(fs_name_check(bytes, 255), 0);
	ck_assert_int_eq(fs_name_check(bytes, 256), -ENAMETOOLONG);
}
END_TEST

START_TEST(frame_headers_have_limits)
{
	struct fs_frame frame = { .length = 24, .op_count = 1 };

	ck_assert_int_eq(fs_frame_check(&frame), 0);
	frame.length = 23;
	ck_assert_int_eq(fs_frame_check(&frame), -EBADMSG);
	frame.length = FS_FRAME_MAX;
	ck_assert_int_eq(fs_frame_check(&frame), 0);
	frame.length++;
	ck_assert_int_eq(fs_frame_check(&frame), -EBADMSG);
	frame = (struct fs_frame){ .length = 24, .op_count = FS_OPS_MAX + 1 };
	ck_assert_int_eq(fs_frame_check(&frame), -EBADMSG);
	frame = (struct fs_frame){ .length = 24, .op_count = 1, .flags = 2 };
	ck_assert_int_eq(fs_frame_check(&frame), -EBADMSG);
}
END_TEST

START_TEST(a_rename_decodes)
{
	struct fs_rename fixed = {
		.parent = 1, .new_parent = 2, .name_length = 3, .new_name_length = 2
	};
	struct fs_request request;

	put(FS_RENAME, &fixed, sizeof(fixed), "oldnw", 5);
	ck_assert_int_eq(decode(&request), 0);
	ck_assert_str_eq(request.name, "old");
	ck_assert_str_eq(request.new_name, "nw");
	ck_assert_uint_eq(request.rename.new_parent, 2);
	fixed.flags = FS_RENAME_NOREPLACE | FS_RENAME_EXCHANGE;
	put(FS_RENAME, &fixed, sizeof(fixed), "oldnw", 5);
	ck_assert_int_eq(decode(&request), -EINVAL);
}
END_TEST

START_TEST(a_write_borrows_its_data)
{
	struct fs_io fixed = { .nodeid = 5, .handle = 6, .offset = 7, .size = 4 };
	struct fs_request request;

	put(FS_WRITE, &fixed, sizeof(fixed), "data", 4);
	ck_assert_int_eq(decode(&request), 0);
	ck_assert_uint_eq(request.data_length, 4);
	ck_assert_mem_eq(request.data, "data", 4);
	fixed.size = 5;
	put(FS_WRITE, &fixed, sizeof(fixed), "data", 4);
	ck_assert_int_eq(decode(&request), -EBADMSG);
	fixed.size = 3;
	put(FS_WRITE, &fixed, sizeof(fixed), "data", 4);
	ck_assert_int_eq(decode(&request), -EBADMSG);
	fixed = (struct fs_io){ .offset = INT64_MAX, .size = 4 };
	put(FS_WRITE, &fixed, sizeof(fixed), "data", 4);
	ck_assert_int_eq(decode(&request), -EFBIG);
}
END_TEST

START_TEST(no_operation_moves_more_than_the_maximum)
{
	static uint8_t data[FS_DATA_MAX + 1];
	struct fs_io fixed = { .size = FS_DATA_MAX };
	struct fs_readdir list = { .size = FS_DATA_MAX };
	struct fs_request request;

	put(FS_READ, &fixed, sizeof(fixed), NULL, 0);
	ck_assert_int_eq(decode(&request), 0);
	put(FS_WRITE, &fixed, sizeof(fixed), data, fixed.size);
	ck_assert_int_eq(decode(&request), 0);
	put(FS_READDIR, &list, sizeof(list), NULL, 0);
	ck_assert_int_eq(decode(&request), 0);
	fixed.size++;
	list.size++;
	put(FS_READ, &fixed, sizeof(fixed), NULL, 0);
	ck_assert_int_eq(decode(&request), -EINVAL);
	put(FS_WRITE, &fixed, sizeof(fixed), data, fixed.size);
	ck_assert_int_eq(decode(&request), -EINVAL);
	put(FS_READDIR, &list, sizeof(list), NULL, 0);
	ck_assert_int_eq(decode(&request), -EINVAL);
	fixed.size = UINT32_MAX;
	put(FS_READ, &fixed, sizeof(fixed), NULL, 0);
	ck_assert_int_eq(decode(&request), -EINVAL);
}
END_TEST

START_TEST(lengths_that_disagree_end_the_stream)
{
	struct fs_parent fixed = { .parent = 1, .name_length = 4 };
	struct fs_request request;

	put(FS_LOOKUP, &fixed, sizeof(fixed), "name", 4);
	ck_assert_int_eq(decode(&request), 0);
	for (size_t cut = 0; cut < sizeof(struct fs_op) + sizeof(fixed) + 4; cut++) {
		put(FS_LOOKUP, &fixed, sizeof(fixed), "name", 4);
		bytes_length = cut;
		ck_assert_int_eq(decode(&request), -EBADMSG);
	}
	put(FS_LOOKUP, &fixed, sizeof(fixed), "name+", 5);
	ck_assert_int_eq(decode(&request), -EBADMSG);
}
END_TEST

START_TEST(unknown_operations_are_skipped)
{
	struct fs_request request;
	struct byte_reader reader;

	put((enum fs_opcode)60, "xyz", 3, NULL, 0);
	byte_reader_init(&reader, bytes, bytes_length);
	ck_assert_int_eq(fs_request_decode(&reader, &request), -ENOSYS);
	ck_assert(byte_reader_done(&reader));
	put(FS_NOTIFY, "xyz", 3, NULL, 0);
	ck_assert_int_eq(decode(&request), -EBADMSG);
}
END_TEST

START_TEST(symlinks_have_targets)
{
	struct fs_make fixed = { .parent = 1, .name_length = 1, .target_length = 2 };
	struct fs_request request;

	put(FS_SYMLINK, &fixed, sizeof(fixed), "l..", 3);
	ck_assert_int_eq(decode(&request), 0);
	ck_assert_str_eq(request.target, "..");
	put(FS_SYMLINK, &fixed, sizeof(fixed), "l.\0", 3);
	ck_assert_int_eq(decode(&request), -EINVAL);
	put(FS_MKDIR, &fixed, sizeof(fixed), "l..", 3);
	ck_assert_int_eq(decode(&request), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire_fs");
	TCase *tests = tcase_create("decoding");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, names_are_one_component);
	tcase_add_test(tests, frame_headers_have_limits);
	tcase_add_test(tests, a_rename_decodes);
	tcase_add_test(tests, a_write_borrows_its_data);
	tcase_add_test(tests, no_operation_moves_more_than_the_maximum);
	tcase_add_test(tests, lengths_that_disagree_end_the_stream);
	tcase_add_test(tests, unknown_operations_are_skipped);
	tcase_add_test(tests, symlinks_have_targets);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
