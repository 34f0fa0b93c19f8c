/* base/io.h over real pipes, files and sockets. */
#include "base/io.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BULK_SIZE (1 << 20)

static void *write_bulk(void *argument)
{
	const int *fd = argument;
	cleanup_free char *data = calloc(1, BULK_SIZE);

	memset(data, 'x', BULK_SIZE);
	if (write_full(*fd, data, BULK_SIZE) != 0)
		abort();
	close(*fd);
	return NULL;
}

START_TEST(whole_reads_and_writes_pass_a_small_pipe)
{
	cleanup_free char *data = calloc(1, BULK_SIZE + 1);
	int ends[2];
	pthread_t writer;

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(pthread_create(&writer, NULL, write_bulk, &ends[1]), 0);
	ck_assert_int_eq(read_full(ends[0], data, BULK_SIZE + 1), BULK_SIZE);
	ck_assert_int_eq(data[BULK_SIZE - 1], 'x');
	pthread_join(writer, NULL);
	close(ends[0]);
}
END_TEST

START_TEST(errors_are_negative)
{
	char byte;

	ck_assert_int_eq(read_full(-1, &byte, 1), -EBADF);
	ck_assert_int_eq(write_full(-1, "x", 1), -EBADF);
	ck_assert_int_eq(set_nonblocking(-1, true), -EBADF);
	ck_assert_int_eq(set_close_on_exec(-1, true), -EBADF);
	ck_assert_int_eq(send_with_fds(-1, "x", 1, NULL, 0), -EBADF);
}
END_TEST

START_TEST(a_part_of_a_file_is_read_whole_or_not_at_all)
{
	cleanup_fd int fd = memfd_create("io-test", MFD_CLOEXEC);
	char part[4] = "";

	ck_assert_int_eq(write_full(fd, "0123456789", 10), 0);
	ck_assert_int_eq(pread_full(fd, part, 3, 7), 0);
	ck_assert_str_eq(part, "789");
	ck_assert_int_eq(pread_full(fd, part, 3, 8), -ENODATA);
	ck_assert_int_eq(pread_full(fd, part, 1, 10), -ENODATA);
	ck_assert_int_eq(pread_full(fd, part, 0, 10), 0);
	ck_assert_int_eq(pread_full(fd, part, 1, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(pread_full(-1, part, 1, 0), -EBADF);
}
END_TEST

static int file_of(size_t length)
{
	int fd = memfd_create("io-test", MFD_CLOEXEC);

	for (size_t i = 0; i < length; i++)
		ck_assert_int_eq(write(fd, "a", 1), 1);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

START_TEST(files_are_read_up_to_the_limit)
{
	static const size_t lengths[] = { 0, 1, 4095, 4096, 4097, 10000 };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		cleanup_fd int fd = file_of(lengths[i]);
		cleanup_free char *text = NULL;
		char *untouched = NULL;
		size_t length = 1;

		ck_assert_int_eq(read_file(fd, lengths[i], &text, &length), 0);
		ck_assert_uint_eq(length, lengths[i]);
		ck_assert_uint_eq(strlen(text), lengths[i]);
		if (lengths[i] == 0)
			continue;
		lseek(fd, 0, SEEK_SET);
		ck_assert_int_eq(read_file(fd, lengths[i] - 1, &untouched, NULL), -EFBIG);
		ck_assert_ptr_null(untouched);
	}
}
END_TEST

START_TEST(flags_are_set_and_taken_back)
{
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(set_nonblocking(ends[0], true), 0);
	ck_assert(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
	ck_assert_int_eq(set_nonblocking(ends[0], false), 0);
	ck_assert(!(fcntl(ends[0], F_GETFL) & O_NONBLOCK));
	ck_assert_int_eq(set_close_on_exec(ends[0], true), 0);
	ck_assert_int_eq(fcntl(ends[0], F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(set_close_on_exec(ends[0], false), 0);
	ck_assert_int_eq(fcntl(ends[0], F_GETFD), 0);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

static int open_count(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

START_TEST(descriptors_travel)
{
	int sockets[2];
	int sent[2];
	int received[2] = { -1, -1 };
	size_t count = 9;
	char buffer[8];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
	sent[0] = file_of(3);
	sent[1] = file_of(5);
	ck_assert_int_eq(send_with_fds(sockets[0], "hi", 2, sent, 2), 2);
	ck_assert_int_eq(receive_with_fds(sockets[1], buffer, sizeof(buffer), received, 2, &count),
			 2);
	ck_assert_uint_eq(count, 2);
	ck_assert_int_eq(lseek(received[1], 0, SEEK_END), 5);
	ck_assert_int_eq(fcntl(received[0], F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(send_with_fds(sockets[0], "hi", 2, NULL, 0), 2);
	ck_assert_int_eq(receive_with_fds(sockets[1], buffer, sizeof(buffer), received, 0, &count),
			 2);
	ck_assert_uint_eq(count, 0);
	ck_assert_int_eq(send_with_fds(sockets[0], "x", 1, sent, FD_MESSAGE_MAX + 1), -EINVAL);
	close(sockets[0]);
	ck_assert_int_eq(receive_with_fds(sockets[1], buffer, sizeof(buffer), received, 2, &count),
			 0);
	ck_assert_int_eq(send_with_fds(sockets[1], "x", 1, NULL, 0), -EPIPE);
	close(sockets[1]);
}
END_TEST

START_TEST(unwanted_descriptors_are_closed)
{
	int sockets[2];
	int sent[3];
	int received[1] = { -1 };
	size_t count = 9;
	char byte;
	int before;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	for (int i = 0; i < 3; i++)
		sent[i] = file_of(1);
	before = open_count();
	ck_assert_int_eq(send_with_fds(sockets[0], "x", 1, sent, 3), 1);
	ck_assert_int_eq(receive_with_fds(sockets[1], &byte, 1, received, 1, &count), -EPROTO);
	ck_assert_uint_eq(count, 9);
	ck_assert_int_eq(open_count(), before);
}
END_TEST

START_TEST(an_inherited_descriptor_is_one_that_is_open)
{
	static const char *const bad[] = { "",	 "2",	       "-1",
					   "x",	 "99x",	       "+9",
					   " 9", "4294967299", "99999999999999999999" };
	char text[16];
	int fd = dup(STDIN_FILENO);

	ck_assert_int_gt(fd, STDERR_FILENO);
	snprintf(text, sizeof(text), "%d", fd);
	ck_assert_int_eq(fcntl(fd, F_GETFD), 0);
	ck_assert_int_eq(inherited_descriptor(text), fd);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	ck_assert_int_eq(inherited_descriptor(text), -EBADF);
	for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
		ck_assert_int_eq(inherited_descriptor(bad[i]), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("io");
	TCase *tests = tcase_create("io");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, whole_reads_and_writes_pass_a_small_pipe);
	tcase_add_test(tests, errors_are_negative);
	tcase_add_test(tests, a_part_of_a_file_is_read_whole_or_not_at_all);
	tcase_add_test(tests, files_are_read_up_to_the_limit);
	tcase_add_test(tests, flags_are_set_and_taken_back);
	tcase_add_test(tests, descriptors_travel);
	tcase_add_test(tests, unwanted_descriptors_are_closed);
	tcase_add_test(tests, an_inherited_descriptor_is_one_that_is_open);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
