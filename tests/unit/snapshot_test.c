/* The file of a stored machine: what is written comes back, and what is no such file is refused. */
#include "vmm/snapshot.h"

#include "base/checked.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define LOW (UINT64_C(200) << 20)
#define WINDOW_ADDRESS (UINT64_C(144) << 20)
#define WINDOW_LENGTH (UINT64_C(2) << 20)

static struct guest_ram_layout layout;
static struct guest_memory memory, other;
static struct snapshot_state state, again;
static int file, window;

static int memory_file(uint64_t length)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	return fd;
}

static void set_up(void)
{
	file = memfd_create("snapshot", MFD_CLOEXEC);
	window = memory_file(LOW);
	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(guest_ram_layout(LOW, WINDOW_ADDRESS, WINDOW_LENGTH, &layout), 0);
	ck_assert_int_eq(guest_ram_map(&layout, window, &memory), 0);
	ck_assert_int_eq(guest_ram_map(&layout, window, &other), 0);
	memset(&state, 0, sizeof(state));
	state.cpus = 2;
	state.devices = 3;
	state.ram = layout;
	(void)snprintf(state.identity, sizeof(state.identity), "this one");
	state.processors[1].general.rip = 0x1234;
}

static void tear_down(void)
{
	guest_memory_release(&memory);
	guest_memory_release(&other);
	close(file);
	close(window);
}

static uint8_t *at(const struct guest_memory *of, uint64_t address)
{
	uint8_t *bytes = gpa_range(of, address, PAGE);

	ck_assert_ptr_nonnull(bytes);
	return bytes;
}

static void fill(uint64_t address, uint64_t length)
{
	for (uint64_t i = 0; i < length; i += PAGE)
		memset(at(&memory, address + i), (int)((address + i) / PAGE % 255 + 1), PAGE);
}

static void write_it(void)
{
	ck_assert_int_eq(snapshot_write(file, &state, &memory), 0);
}

static void expect_same(uint64_t address)
{
	ck_assert_mem_eq(at(&memory, address), at(&other, address), PAGE);
}

START_TEST(comes_back)
{
	static const uint64_t pages[] = { 0,
					  PAGE,
					  0x9000,
					  0x100000,
					  WINDOW_ADDRESS - PAGE,
					  WINDOW_ADDRESS + WINDOW_LENGTH,
					  LOW - PAGE };

	for (size_t i = 0; i < ARRAY_LENGTH(pages); i++)
		fill(pages[i], PAGE);
	/* Touched, and zero. */
	memset(at(&memory, 0x200000), 0, PAGE);
	/* A single byte at the end of its page. */
	at(&memory, 0x300000)[PAGE - 1] = 7;
	write_it();
	ck_assert_int_eq(snapshot_read_state(file, &again), 0);
	ck_assert_uint_eq(again.byte_count, (ARRAY_LENGTH(pages) + 1) * PAGE);
	ck_assert_uint_eq(again.run_count, ARRAY_LENGTH(pages));
	ck_assert_mem_eq(&state, &again,
			 offsetof(struct snapshot_state, processors) +
				 2 * sizeof(state.processors[0]));
	ck_assert_int_eq(snapshot_read_memory(file, &again, &other), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(pages); i++)
		expect_same(pages[i]);
	expect_same(0x200000);
	expect_same(0x300000);
}
END_TEST

START_TEST(window_is_left_out)
{
	fill(WINDOW_ADDRESS, PAGE);
	fill(0, PAGE);
	write_it();
	ck_assert_uint_eq(state.byte_count, PAGE);
	ck_assert_uint_eq(state.run_count, 1);
	ck_assert_int_eq(snapshot_read_state(file, &again), 0);
	ck_assert_int_eq(snapshot_read_memory(file, &again, &other), 0);
}
END_TEST

/* Every second page is a run of its own, of which there are too many: gaps are closed, but not over
 * the window. */
START_TEST(many_pieces)
{
	for (uint64_t address = 0; address + PAGE < LOW; address += 2 * PAGE) {
		if (address < WINDOW_ADDRESS || address >= WINDOW_ADDRESS + WINDOW_LENGTH)
			fill(address, PAGE);
	}
	write_it();
	ck_assert_uint_eq(state.run_count, 2);
	ck_assert_int_eq(snapshot_read_state(file, &again), 0);
	ck_assert_int_eq(snapshot_read_memory(file, &again, &other), 0);
	expect_same(0);
	expect_same(PAGE);
	expect_same(WINDOW_ADDRESS - 2 * PAGE);
	expect_same(WINDOW_ADDRESS + WINDOW_LENGTH);
	expect_same(LOW - 2 * PAGE);
}
END_TEST

START_TEST(full_disk)
{
	int full = memory_file(PAGE);

	ck_assert_int_eq(fcntl(full, F_ADD_SEALS, F_SEAL_GROW), 0);
	fill(0x100000, 64 * PAGE);
	ck_assert_int_lt(snapshot_write(full, &state, &memory), 0);
	close(full);
}
END_TEST

/* ---- what is no snapshot -----------------------------------------------------------------------
 */

START_TEST(empty_file)
{
	ck_assert_int_eq(snapshot_read_state(file, &again), -ENODATA);
}
END_TEST

/* Cut anywhere, or longer. */
START_TEST(other_length)
{
	static const int64_t lengths[] = { 1, 8, 4096, 20000, -4096, -1, -4097, 0 };
	const int64_t wanted = lengths[_i];
	off_t length;

	fill(0x100000, 64 * PAGE);
	write_it();
	length = lseek(file, 0, SEEK_END);
	ck_assert_int_eq(ftruncate(file, wanted > 0 ? wanted
					 : wanted   ? length + wanted
						    : length + 1),
			 0);
	ck_assert_int_eq(snapshot_read_state(file, &again), -EINVAL);
}
END_TEST

static void put(uint64_t offset, uint64_t value, size_t length)
{
	ck_assert_int_eq(pwrite(file, &value, length, (off_t)offset), (ssize_t)length);
}

static const struct {
	size_t offset; /* in the state */
	size_t length;
	uint64_t value;
} spoilt_states[] = {
	{ offsetof(struct snapshot_state, magic), 8, 0 },
	{ offsetof(struct snapshot_state, cpus), 4, 0 },
	{ offsetof(struct snapshot_state, cpus), 4, PLATFORM_CPUS_MAX + 1 },
	{ offsetof(struct snapshot_state, cpus), 4, 1 },
	{ offsetof(struct snapshot_state, devices), 4, PLATFORM_VIRTIO_MAX + 1 },
	{ offsetof(struct snapshot_state, run_count), 8, SNAPSHOT_RUNS_MAX + 1 },
	{ offsetof(struct snapshot_state, run_count), 8, UINT64_MAX },
	{ offsetof(struct snapshot_state, run_count), 8, UINT64_MAX / 16 },
	{ offsetof(struct snapshot_state, byte_count), 8, 0 },
	{ offsetof(struct snapshot_state, byte_count), 8, UINT64_MAX },
	{ offsetof(struct snapshot_state, byte_count), 8, UINT64_MAX - 4095 },
	{ offsetof(struct snapshot_state, cpuid), 4, KVM_CPUID_ENTRIES_MAX + 1 },
};

START_TEST(spoilt_state)
{
	fill(0x100000, 64 * PAGE);
	write_it();
	put(spoilt_states[_i].offset, spoilt_states[_i].value, spoilt_states[_i].length);
	ck_assert_int_eq(snapshot_read_state(file, &again), -EINVAL);
}
END_TEST

START_TEST(identity_without_end)
{
	static char endless[SNAPSHOT_IDENTITY_MAX];

	write_it();
	memset(endless, 'x', sizeof(endless));
	ck_assert_int_eq(
		pwrite(file, endless, sizeof(endless), offsetof(struct snapshot_state, identity)),
		sizeof(endless));
	ck_assert_int_eq(snapshot_read_state(file, &again), -EINVAL);
}
END_TEST

static const uint64_t bad_runs[][2] = {
	{ LOW, PAGE },		  /* behind memory */
	{ LOW - PAGE, 2 * PAGE }, /* over its end */
	{ WINDOW_ADDRESS, PAGE }, /* memory that is a file's */
	{ WINDOW_ADDRESS - PAGE, 2 * PAGE },
	{ UINT64_MAX - 4095, 4096 },
	{ 0, UINT64_MAX },
	{ 0, 0 },
	{ 0, 3 * PAGE }, /* more than there is */
	{ 0, PAGE },	 /* less */
};

START_TEST(bad_run)
{
	const uint64_t runs =
		offsetof(struct snapshot_state, processors) + 2 * sizeof(state.processors[0]);

	fill(0, 2 * PAGE);
	write_it();
	put(runs, bad_runs[_i][0], 8);
	put(runs + 8, bad_runs[_i][1], 8);
	ck_assert_int_eq(snapshot_read_state(file, &again), 0);
	ck_assert_int_eq(snapshot_read_memory(file, &again, &other), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("snapshot");
	TCase *tests = tcase_create("snapshot");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, comes_back);
	tcase_add_test(tests, window_is_left_out);
	tcase_add_test(tests, many_pieces);
	tcase_add_test(tests, full_disk);
	tcase_add_test(tests, empty_file);
	tcase_add_loop_test(tests, other_length, 0, 8);
	tcase_add_loop_test(tests, spoilt_state, 0, (int)ARRAY_LENGTH(spoilt_states));
	tcase_add_test(tests, identity_without_end);
	tcase_add_loop_test(tests, bad_run, 0, (int)ARRAY_LENGTH(bad_runs));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
