/* Storing the memory of a guest that sleeps, and finding it again; and the firmware that wakes it.
 */
#include "vmm/qemu_snapshot.h"

#include "base/checked.h"
#include "vmm/acpi_tables.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define THIS "/proc/self/exe"
#define VECTOR (ACPI_MICROVM_ADDRESS + ACPI_FACS_OFFSET + ACPI_FACS_WAKING_VECTOR)

static struct engine_config config = {
	.kernel = THIS,
	.initrd = THIS,
	.cpus = 2,
	.memory_mib = 64,
	.window_address = 32 * MIB,
	.window_size = 2 * MIB,
	.memory_fd = -1,
	.doorbell_fd = -1,
	.snapshot_fd = -1,
	.new_snapshot_fd = -1,
};
static int memory, other, file;
static struct qemu_snapshot *snapshot;
static const char *why;

static int memory_file(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)(config.memory_mib * MIB)), 0);
	return fd;
}

static struct qemu_snapshot *machine(const char *program, const char *command_line, int fd)
{
	struct qemu_snapshot *made = NULL;

	ck_assert_int_eq(qemu_snapshot_new(&config, program, command_line, fd, &made), 0);
	return made;
}

static void set_up(void)
{
	memory = memory_file();
	other = memory_file();
	file = memfd_create("snapshot", MFD_CLOEXEC);
	ck_assert_int_ge(file, 0);
	snapshot = machine(THIS, "quiet", memory);
}

static void tear_down(void)
{
	qemu_snapshot_free(snapshot);
	close(memory);
	close(other);
	close(file);
}

static void put(uint64_t address, const char *text)
{
	ck_assert_int_eq(pwrite(memory, text, strlen(text), (off_t)address), strlen(text));
}

static void expect(uint64_t address, const char *text)
{
	char found[16] = "";

	ck_assert_int_eq(pread(other, found, strlen(text), (off_t)address), strlen(text));
	ck_assert_mem_eq(found, text, strlen(text));
}

START_TEST(sleeps_with_a_vector)
{
	ck_assert(!qemu_snapshot_is_asleep(snapshot));
	put(VECTOR + 2, "\x09");
	ck_assert(qemu_snapshot_is_asleep(snapshot));
}
END_TEST

START_TEST(comes_back)
{
	struct qemu_snapshot *again = machine(THIS, "quiet", other);

	put(0, "bottom");
	put(32 * MIB - 6, "before");
	put(32 * MIB, "window");
	put(34 * MIB, "after");
	put(64 * MIB - 3, "top");
	ck_assert_int_eq(qemu_snapshot_write(snapshot, file), 0);
	ck_assert(qemu_snapshot_fits(again, file, &why));
	ck_assert_int_eq(qemu_snapshot_read(again, file), 0);
	expect(0, "bottom");
	expect(32 * MIB - 6, "before");
	expect(32 * MIB, "\0\0\0\0\0\0");
	expect(34 * MIB, "after");
	expect(64 * MIB - 3, "top");
	qemu_snapshot_free(again);
}
END_TEST

START_TEST(fits_one_machine)
{
	struct qemu_snapshot *others[4] = { machine("/proc/self/stat", "quiet", other),
					    machine(THIS, "loud", other) };

	config.cpus = 1;
	others[2] = machine(THIS, "quiet", other);
	config.cpus = 2;
	config.initrd = "/proc/self/stat";
	others[3] = machine(THIS, "quiet", other);
	config.initrd = THIS;
	put(MIB, "anything");
	ck_assert_int_eq(qemu_snapshot_write(snapshot, file), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(others); i++) {
		ck_assert(!qemu_snapshot_fits(others[i], file, &why));
		ck_assert_str_eq(why, "it is of another machine");
		qemu_snapshot_free(others[i]);
	}
	ck_assert(qemu_snapshot_fits(snapshot, file, &why));
}
END_TEST

START_TEST(is_none)
{
	ck_assert(!qemu_snapshot_fits(snapshot, file, &why));
	ck_assert_str_eq(why, "there is none");
	ck_assert_int_eq(pwrite(file, "noise", 5, 0), 5);
	ck_assert(!qemu_snapshot_fits(snapshot, file, &why));
	ck_assert_str_eq(why, "it cannot be read");
}
END_TEST

START_TEST(needs_its_files)
{
	struct qemu_snapshot *made = NULL;

	ck_assert_int_eq(qemu_snapshot_new(&config, "/nowhere", "", memory, &made), -ENOENT);
	ck_assert_ptr_null(made);
}
END_TEST

/* That it wakes a guest is tests/e2e/software_snapshot.sh's to show. */
START_TEST(firmware)
{
	static uint8_t bytes[65536 + 1];
	int fd = qemu_snapshot_firmware();
	unsigned target;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, sizeof(bytes), 0), 65536);
	ck_assert_uint_eq(bytes[0xfff0], 0xe9); /* jmp, relative to the next instruction */
	target = (0xfff3u + bytes[0xfff1] + (unsigned)(bytes[0xfff2] << 8)) & 0xffff;
	ck_assert_uint_eq(bytes[target], 0xb8);
	for (size_t i = 0; i < target; i++)
		ck_assert_uint_eq(bytes[i], 0);
	ck_assert_int_eq(pwrite(fd, "x", 1, 0), -1);
	ck_assert_int_eq(errno, EPERM);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("qemu_snapshot");
	TCase *tests = tcase_create("qemu_snapshot");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, sleeps_with_a_vector);
	tcase_add_test(tests, comes_back);
	tcase_add_test(tests, fits_one_machine);
	tcase_add_test(tests, is_none);
	tcase_add_test(tests, needs_its_files);
	tcase_add_test(tests, firmware);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
