/* The entropy and balloon devices behind their transport, with honest and hostile drivers. */
#include "tests/unit/mmio_driver.h"
#include "vmm/balloon_device.h"
#include "vmm/entropy_device.h"

#include <check.h>
#include <errno.h>
#include <sys/stat.h>

#define PAGE 4096u
#define REPORTING_RINGS 0x8000 /* offset of the third queue's rings */
#define FEATURE_REPORTING (UINT64_C(1) << 5)
/* What the guest may give back, and what it may not although it is its RAM. */
#define FREE_BASE (DRIVER_GUEST_BASE + 0x200000)
#define FREE_LENGTH 0x100000u
#define KEPT_BASE (DRIVER_GUEST_BASE + 0x300000)

static struct driver driver;
static struct event_loop loop;
static struct virtio_mmio *transport;
static struct entropy_device *entropy;
static struct balloon_device *balloon;
static unsigned interrupts, violations;
static const char *last_violation;

static void count_interrupt(void *context)
{
	(void)context;
	interrupts++;
}

static void note_violation(void *context, const char *what)
{
	(void)context;
	last_violation = what;
	violations++;
}

static void set_up(const struct virtio_device_operations *operations, void *device)
{
	const struct virtio_mmio_setup setup = {
		.operations = operations,
		.device = device,
		.memory = &driver.memory,
		.interrupt = count_interrupt,
		.violation = note_violation,
	};

	driver_init(&driver);
	ck_assert_int_eq(guest_memory_allow_discard(&driver.memory, FREE_BASE, FREE_LENGTH), 0);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(virtio_mmio_new(&setup, &transport), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
}

static void set_up_entropy(void)
{
	ck_assert_int_eq(entropy_device_new(&entropy), 0);
	set_up(&entropy_device_operations, entropy);
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, 1));
}

/* The third queue uses the first one's struct for its buffers, with rings of its own. */
static void set_up_balloon(void)
{
	struct virtqueue_layout layout;

	ck_assert_int_eq(balloon_device_new(&balloon), 0);
	set_up(&balloon_device_operations, balloon);
	ck_assert(mmio_features(transport) & FEATURE_REPORTING);
	ck_assert(mmio_negotiate(transport, MMIO_FEATURES | FEATURE_REPORTING));
	for (unsigned i = 0; i < 2; i++) {
		layout = driver_layout(&driver, i);
		ck_assert(mmio_set_queue(transport, i, &layout));
	}
	layout = driver_layout(&driver, 0);
	layout.descriptors += REPORTING_RINGS;
	layout.available += REPORTING_RINGS;
	layout.used += REPORTING_RINGS;
	ck_assert(mmio_set_queue(transport, 2, &layout));
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	ck_assert_uint_eq(mmio_read(transport, MMIO_STATUS), MMIO_UP);
}

static void tear_down(void)
{
	virtio_mmio_free(transport);
	entropy_device_free(entropy);
	balloon_device_free(balloon);
	event_loop_release(&loop);
	driver_release(&driver);
}

/* Returns how many turns the device needed to come to rest. */
static unsigned settle(void)
{
	for (unsigned i = 0; i < 1000; i++) {
		int events = event_loop_run_once(&loop, 0);

		ck_assert_int_ge(events, 0);
		if (!virtio_mmio_run(transport) && !events)
			return i;
	}
	ck_abort_msg("the device never comes to rest");
	return 0;
}

static void expect_broken(const char *text)
{
	settle();
	ck_assert_uint_eq(mmio_read(transport, MMIO_STATUS), MMIO_UP | MMIO_NEEDS_RESET);
	ck_assert_uint_eq(violations, 1);
	ck_assert_str_eq(last_violation, text);
}

/* ---- entropy -----------------------------------------------------------------------------------
 */

static size_t zeros_in(uint64_t address, size_t length)
{
	const uint8_t *bytes = driver_bytes(&driver, address);
	size_t count = 0;

	for (size_t i = 0; i < length; i++)
		count += bytes[i] == 0;
	return count;
}

START_TEST(entropy_fills_buffers)
{
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 64, DRIVER_WRITE | DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, driver_buffer(0, 1), 100, DRIVER_WRITE, 0);
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 1);
	ck_assert_uint_eq(driver.queues[0].used_ring[0].length, 164);
	ck_assert_uint_lt(zeros_in(driver_buffer(0, 0), 64), 8);
	ck_assert_uint_lt(zeros_in(driver_buffer(0, 1), 100), 10);
	ck_assert_uint_eq(zeros_in(driver_buffer(0, 0) + 64, 64), 64);
	ck_assert_uint_eq(zeros_in(driver_buffer(0, 1) + 100, 64), 64);
	ck_assert_uint_eq(interrupts, 1);
	ck_assert_uint_eq(violations, 0);
}
END_TEST

START_TEST(entropy_is_bounded)
{
	/* Half of memory in one buffer, sixty-four times. */
	for (uint16_t i = 0; i < DRIVER_QUEUE_SIZE; i++) {
		driver_set(&driver, 0, i, DRIVER_GUEST_BASE + DRIVER_MEMORY / 2, DRIVER_MEMORY / 2,
			   DRIVER_WRITE, 0);
		driver_offer(&driver, 0, i);
	}
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	ck_assert_uint_ge(settle(), DRIVER_QUEUE_SIZE / ENTROPY_BUDGET);
	ck_assert_uint_eq(driver.queues[0].used[1], DRIVER_QUEUE_SIZE);
	ck_assert_uint_eq(driver.queues[0].used_ring[7].length, ENTROPY_REQUEST_MAX);
	ck_assert_uint_eq(zeros_in(DRIVER_GUEST_BASE + DRIVER_MEMORY / 2 + ENTROPY_REQUEST_MAX,
				   ENTROPY_REQUEST_MAX),
			  ENTROPY_REQUEST_MAX);
}
END_TEST

START_TEST(entropy_readable_buffer)
{
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 64, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, driver_buffer(0, 1), 64, DRIVER_WRITE, 0);
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	expect_broken("entropy buffer with a readable part");
}
END_TEST

START_TEST(entropy_loop)
{
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 64, DRIVER_WRITE | DRIVER_NEXT, 0);
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	expect_broken("descriptor chain too long");
}
END_TEST

/* ---- balloon -----------------------------------------------------------------------------------
 */

static uint64_t resident(void)
{
	struct stat file;

	ck_assert_int_eq(fstat(driver.fd, &file), 0);
	return (uint64_t)file.st_blocks * 512;
}

static void fill_memory(void)
{
	volatile uint8_t *bytes = driver.bytes;

	/* The rings' pages are there too once they were looked at. */
	for (size_t i = 0; i < 0x100000; i += PAGE)
		(void)bytes[i];
	memset(driver.bytes + 0x100000, 0x77, DRIVER_MEMORY - 0x100000);
}

static void expect_bytes(uint64_t address, uint64_t length, uint8_t value)
{
	const uint8_t *bytes = driver_bytes(&driver, address);

	for (uint64_t i = 0; i < length; i++)
		ck_assert_uint_eq(bytes[i], value);
}

static void inflate(const uint32_t *pages, uint32_t count)
{
	uint16_t index = driver.queues[0].next_descriptor++ % DRIVER_QUEUE_SIZE;

	memcpy(driver_bytes(&driver, driver_buffer(0, index)), pages, count * sizeof(*pages));
	driver_set(&driver, 0, index, driver_buffer(0, index), count * 4, 0, 0);
	driver_offer(&driver, 0, index);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
}

/* Offers parts in the reporting queue as one chain. */
static void report(const struct driver_descriptor *parts, uint16_t count)
{
	struct driver_descriptor *table = (void *)(driver.bytes + REPORTING_RINGS);
	uint16_t *available = (void *)(driver.bytes + REPORTING_RINGS + 0x1000);

	for (uint16_t i = 0; i < count; i++) {
		table[i] = parts[i];
		table[i].next = (uint16_t)(i + 1);
		table[i].flags |= i + 1 < count ? DRIVER_NEXT : 0;
	}
	available[2 + available[1] % DRIVER_QUEUE_SIZE] = 0;
	available[1]++;
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 2);
	settle();
}

START_TEST(reported_pages_go_back)
{
	const struct driver_descriptor parts[] = {
		{ FREE_BASE, 16 * PAGE, DRIVER_WRITE, 0 },
		/* Whole pages inside an unaligned range only. */
		{ FREE_BASE + 32 * PAGE + 1, 4 * PAGE, DRIVER_WRITE, 0 },
	};
	const uint16_t *used = (void *)(driver.bytes + REPORTING_RINGS + 0x2000);
	uint64_t before;

	fill_memory();
	before = resident();
	report(parts, 2);
	ck_assert_uint_eq(used[1], 1);
	ck_assert_uint_eq(balloon_device_discarded(balloon), 19 * PAGE);
	ck_assert_uint_eq(before - resident(), 19 * PAGE);
	expect_bytes(FREE_BASE, 16 * PAGE, 0);
	expect_bytes(FREE_BASE + 16 * PAGE, 17 * PAGE, 0x77);
	expect_bytes(FREE_BASE + 33 * PAGE, 3 * PAGE, 0);
	expect_bytes(FREE_BASE + 36 * PAGE, 4 * PAGE, 0x77);
	ck_assert_uint_eq(violations, 0);
}
END_TEST

START_TEST(only_what_may_goes_back)
{
	/* Across both ends of what may go, and wholly outside. */
	const struct driver_descriptor parts[] = {
		{ FREE_BASE - 4 * PAGE, 8 * PAGE, DRIVER_WRITE, 0 },
		{ KEPT_BASE - 4 * PAGE, 8 * PAGE, DRIVER_WRITE, 0 },
		{ KEPT_BASE + 16 * PAGE, 64 * PAGE, DRIVER_WRITE, 0 },
	};

	fill_memory();
	report(parts, 3);
	ck_assert_uint_eq(balloon_device_discarded(balloon), 8 * PAGE);
	expect_bytes(FREE_BASE - 4 * PAGE, 4 * PAGE, 0x77);
	expect_bytes(FREE_BASE, 4 * PAGE, 0);
	expect_bytes(KEPT_BASE - 4 * PAGE, 4 * PAGE, 0);
	expect_bytes(KEPT_BASE, DRIVER_GUEST_BASE + DRIVER_MEMORY - KEPT_BASE, 0x77);
	ck_assert_uint_eq(violations, 0);
}
END_TEST

START_TEST(report_with_readable_part)
{
	const struct driver_descriptor parts[] = { { FREE_BASE, PAGE, 0, 0 },
						   { FREE_BASE, PAGE, DRIVER_WRITE, 0 } };

	fill_memory();
	report(parts, 2);
	expect_broken("page report with a readable part");
	ck_assert_uint_eq(balloon_device_discarded(balloon), 0);
}
END_TEST

START_TEST(report_outside_memory)
{
	const struct driver_descriptor parts[] = {
		{ FREE_BASE, DRIVER_MEMORY, DRIVER_WRITE, 0 },
	};

	report(parts, 1);
	expect_broken("descriptor outside guest memory");
}
END_TEST

START_TEST(balloon_inflates)
{
	const uint32_t first = (uint32_t)(FREE_BASE / PAGE);
	/* A run, one apart from it, one that is kept, none at all, and the last there can be. */
	const uint32_t pages[] = {
		first, first + 1, first + 2, first + 40, (uint32_t)(KEPT_BASE / PAGE), 0, UINT32_MAX
	};
	uint32_t value = 0;

	fill_memory();
	balloon_device_set_target(balloon, 7);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 2);
	virtio_mmio_read(transport, MMIO_CONFIG, &value, 4);
	ck_assert_uint_eq(value, 7);
	inflate(pages, 7);
	ck_assert_uint_eq(balloon_device_discarded(balloon), 4 * PAGE);
	expect_bytes(FREE_BASE, 3 * PAGE, 0);
	expect_bytes(FREE_BASE + 3 * PAGE, PAGE, 0x77);
	expect_bytes(FREE_BASE + 40 * PAGE, PAGE, 0);
	expect_bytes(KEPT_BASE, PAGE, 0x77);
	mmio_write(transport, MMIO_CONFIG + 4, 7);
	ck_assert_uint_eq(balloon_device_actual(balloon), 7);
	/* The target is not the driver's to write; nor are halves of fields. */
	mmio_write(transport, MMIO_CONFIG, 99);
	virtio_mmio_write(transport, MMIO_CONFIG + 4, "\1", 1);
	virtio_mmio_read(transport, MMIO_CONFIG, &value, 4);
	ck_assert_uint_eq(value, 7);
	ck_assert_uint_eq(balloon_device_actual(balloon), 7);
	/* Pages come back as they are touched. */
	driver_set(&driver, 1, 0, driver_buffer(0, 0), 28, 0, 0);
	driver_offer(&driver, 1, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 1);
	settle();
	ck_assert_uint_eq(driver.queues[1].used[1], 1);
	memset(driver_bytes(&driver, FREE_BASE), 1, PAGE);
	ck_assert_uint_eq(violations, 0);
}
END_TEST

static const struct {
	uint32_t length;
	uint16_t flags;
	const char *error;
} bad_inflates[] = {
	{ 7, 0, "inflate buffer that is no list of page numbers" },
	{ 8, DRIVER_WRITE, "inflate buffer that is no list of page numbers" },
	{ (BALLOON_PAGES_MAX + 1) * 4, 0, "inflate buffer with too many page numbers" },
	{ DRIVER_MEMORY, 0, "inflate buffer with too many page numbers" },
};

START_TEST(bad_inflate)
{
	driver_set(&driver, 0, 0, DRIVER_GUEST_BASE, bad_inflates[_i].length,
		   bad_inflates[_i].flags, 0);
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	expect_broken(bad_inflates[_i].error);
	ck_assert_uint_eq(balloon_device_discarded(balloon), 0);
}
END_TEST

START_TEST(discardable_ranges)
{
	struct guest_memory *memory = &driver.memory;

	ck_assert_int_eq(guest_memory_allow_discard(memory, DRIVER_GUEST_BASE + 1, PAGE), -EINVAL);
	ck_assert_int_eq(guest_memory_allow_discard(memory, DRIVER_GUEST_BASE, PAGE + 1), -EINVAL);
	ck_assert_int_eq(guest_memory_allow_discard(memory, DRIVER_GUEST_BASE, 0), -EFAULT);
	ck_assert_int_eq(guest_memory_allow_discard(memory, 0, PAGE), -EFAULT);
	ck_assert_int_eq(
		guest_memory_allow_discard(memory, DRIVER_GUEST_BASE, DRIVER_MEMORY + PAGE),
		-EFAULT);
	for (size_t i = 1; i < GUEST_MEMORY_DISCARDABLE_MAX; i++)
		ck_assert_int_eq(guest_memory_allow_discard(memory, DRIVER_GUEST_BASE, PAGE), 0);
	ck_assert_int_eq(guest_memory_allow_discard(memory, DRIVER_GUEST_BASE, PAGE), -ENOSPC);
	ck_assert_uint_eq(guest_memory_discard(memory, UINT64_MAX - 4095, PAGE), 0);
	ck_assert_uint_eq(guest_memory_discard(memory, UINT64_MAX, 1), 0);
	ck_assert_uint_eq(guest_memory_discard(memory, 0, UINT64_MAX),
			  FREE_LENGTH + (GUEST_MEMORY_DISCARDABLE_MAX - 1) * PAGE);
	ck_assert_uint_eq(guest_memory_discard(memory, FREE_BASE + 1, PAGE - 1), 0);
	ck_assert_uint_eq(guest_memory_discard(memory, FREE_BASE + 1, 2 * PAGE - 2), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("small_devices");
	TCase *entropy_tests = tcase_create("entropy");
	TCase *balloon_tests = tcase_create("balloon");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(entropy_tests, set_up_entropy, tear_down);
	tcase_add_test(entropy_tests, entropy_fills_buffers);
	tcase_add_test(entropy_tests, entropy_is_bounded);
	tcase_add_test(entropy_tests, entropy_readable_buffer);
	tcase_add_test(entropy_tests, entropy_loop);
	suite_add_tcase(suite, entropy_tests);
	tcase_add_checked_fixture(balloon_tests, set_up_balloon, tear_down);
	tcase_set_timeout(balloon_tests, 60);
	tcase_add_test(balloon_tests, reported_pages_go_back);
	tcase_add_test(balloon_tests, only_what_may_goes_back);
	tcase_add_test(balloon_tests, report_with_readable_part);
	tcase_add_test(balloon_tests, report_outside_memory);
	tcase_add_test(balloon_tests, balloon_inflates);
	tcase_add_loop_test(balloon_tests, bad_inflate, 0,
			    (int)(sizeof(bad_inflates) / sizeof(bad_inflates[0])));
	tcase_add_test(balloon_tests, discardable_ranges);
	suite_add_tcase(suite, balloon_tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
