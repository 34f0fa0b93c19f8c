/* The transport against drivers that follow the rules and drivers that do not. */
#include "tests/unit/mmio_echo.h"

#include <errno.h>
#include <stdatomic.h>

START_TEST(identity)
{
	ck_assert_uint_eq(mmio_read(transport, 0), 0x74726976);
	ck_assert_uint_eq(mmio_read(transport, 4), 2);
	ck_assert_uint_eq(mmio_read(transport, 8), VIRTIO_ID_CONSOLE);
	ck_assert_uint_ne(mmio_read(transport, 0xc), 0);
	ck_assert_uint_eq(mmio_features(transport), echo_features(NULL));
	mmio_write(transport, MMIO_DEVICE_FEATURES_SELECT, 2);
	ck_assert_uint_eq(mmio_read(transport, MMIO_DEVICE_FEATURES), 0);
	/* No shared memory region. */
	ck_assert_uint_eq(mmio_read(transport, 0xb0), UINT32_MAX);
	ck_assert_uint_eq(mmio_read(transport, 0xb4), UINT32_MAX);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_SIZE_MAX), 128);
	mmio_write(transport, MMIO_QUEUE_SELECT, QUEUES);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_SIZE_MAX), 0);
	mmio_write(transport, MMIO_QUEUE_SELECT, UINT32_MAX);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), 0);
	expect_violations(0);
}
END_TEST

START_TEST(honest_driver)
{
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	ck_assert_uint_eq(echo.agreed, MMIO_FEATURES);
	ck_assert_uint_eq(echo.starts, QUEUES);
	driver_offer_buffer(&driver, 100);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	ck_assert_uint_eq(driver.queues[0].used[1], 0); /* never on the vCPU's thread */
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 1);
	ck_assert_uint_eq(interrupts, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 1);
	mmio_write(transport, MMIO_INTERRUPT_ACK, 2);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 1);
	mmio_write(transport, MMIO_INTERRUPT_ACK, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 0);
	/* As KVM would do it. */
	driver_offer_buffer(&driver, 100);
	ck_assert_int_eq(write(virtio_mmio_kick_fd(transport, 0), &(uint64_t){ 1 }, 8), 8);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 2);
	/* The driver asked, by used_event, for no second interrupt. */
	ck_assert_uint_eq(interrupts, 1);
	expect_violations(0);
}
END_TEST

/* All sets of bits in all orders would be many: every status from every reachable state is not. */
START_TEST(status_steps)
{
	static const uint32_t order[] = { 0, MMIO_ACKNOWLEDGE, MMIO_ACKNOWLEDGE | MMIO_DRIVER,
					  MMIO_BEFORE_QUEUES, MMIO_UP };

	for (size_t from = 0; from < 5; from++) {
		for (uint32_t value = 1; value < 256; value++) {
			uint32_t expected = order[from];

			mmio_write(transport, MMIO_STATUS, 0);
			ck_assert_uint_eq(status(), 0);
			for (size_t i = 1; i <= from; i++) {
				if (order[i] == MMIO_BEFORE_QUEUES) {
					mmio_write(transport, MMIO_DRIVER_FEATURES_SELECT, 1);
					mmio_write(transport, MMIO_DRIVER_FEATURES, 1);
				}
				mmio_write(transport, MMIO_STATUS, order[i]);
			}
			ck_assert_uint_eq(status(), order[from]);
			mmio_write(transport, MMIO_STATUS, value);
			/* Our own bit is not the driver's to set. */
			if (from < 4 && (value & ~64u) == order[from + 1] && from != 2)
				expected = order[from + 1];
			if ((value & ~64u) == (order[from] | MMIO_FAILED))
				expected = order[from] | MMIO_FAILED;
			ck_assert_uint_eq(status(), expected);
		}
	}
	ck_assert_uint_eq(echo.starts, 0);
}
END_TEST

static const uint64_t refused_features[] = {
	0,
	VIRTIO_FEATURE_EVENT_INDEX,
	VIRTIO_FEATURE_VERSION_1 | 1,
	VIRTIO_FEATURE_VERSION_1 | UINT64_C(1) << 63,
	UINT64_MAX,
};

START_TEST(features_refused)
{
	ck_assert(!mmio_negotiate(transport, refused_features[_i]));
	ck_assert_uint_eq(status(), MMIO_ACKNOWLEDGE | MMIO_DRIVER);
	/* Nor can it go on without. */
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	ck_assert_uint_eq(status(), MMIO_ACKNOWLEDGE | MMIO_DRIVER);
	expect_violations(1);
	/* It may think better of it. */
	ck_assert(mmio_negotiate(transport, VIRTIO_FEATURE_VERSION_1));
}
END_TEST

START_TEST(features_beyond_and_late)
{
	mmio_write(transport, MMIO_DRIVER_FEATURES, 1); /* before DRIVER */
	expect_violations(1);
	mmio_write(transport, MMIO_STATUS, MMIO_ACKNOWLEDGE);
	mmio_write(transport, MMIO_STATUS, MMIO_ACKNOWLEDGE | MMIO_DRIVER);
	mmio_write(transport, MMIO_DRIVER_FEATURES_SELECT, 1);
	mmio_write(transport, MMIO_DRIVER_FEATURES, 1);
	mmio_write(transport, MMIO_DRIVER_FEATURES_SELECT, 7);
	mmio_write(transport, MMIO_DRIVER_FEATURES, 1);
	mmio_write(transport, MMIO_STATUS, MMIO_BEFORE_QUEUES);
	ck_assert_uint_eq(status(), MMIO_ACKNOWLEDGE | MMIO_DRIVER);
	ck_assert(mmio_bring_up(transport, &driver, VIRTIO_FEATURE_VERSION_1, 1));
	mmio_write(transport, MMIO_DRIVER_FEATURES_SELECT, 0);
	mmio_write(transport, MMIO_DRIVER_FEATURES, (uint32_t)VIRTIO_FEATURE_EVENT_INDEX);
	expect_violations(2);
	ck_assert_uint_eq(echo.agreed, VIRTIO_FEATURE_VERSION_1);
}
END_TEST

static const uint32_t queue_registers[] = { MMIO_QUEUE_SIZE,  MMIO_QUEUE_READY,
					    MMIO_DESCRIPTORS, MMIO_DESCRIPTORS + 4,
					    MMIO_AVAILABLE,   MMIO_AVAILABLE + 4,
					    MMIO_USED,	      MMIO_USED + 4 };

/* CVE-2026-5747: registers that could be written while the rings were in use. */
START_TEST(queue_registers_are_frozen)
{
	struct virtqueue_layout layout = driver_layout(&driver, 1);
	unsigned count = 0;

	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	mmio_write(transport, MMIO_QUEUE_SELECT, 0);
	layout = driver_layout(&driver, 0);
	ck_assert(mmio_set_queue(transport, 0, &layout));
	for (size_t i = 0; i < sizeof(queue_registers) / sizeof(queue_registers[0]); i++) {
		mmio_write(transport, queue_registers[i], 0x7ffff000 + (uint32_t)i);
		expect_violations(++count);
	}
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	ck_assert_uint_eq(status(), MMIO_UP);
	/* Of this queue and of the one that never was ready. */
	for (uint32_t queue = 0; queue < QUEUES; queue++) {
		mmio_write(transport, MMIO_QUEUE_SELECT, queue);
		for (size_t i = 0; i < sizeof(queue_registers) / sizeof(queue_registers[0]); i++) {
			mmio_write(transport, queue_registers[i], 1);
			expect_violations(++count);
		}
		ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), queue == 0);
	}
	ck_assert(!echo.running[1]);
	driver_offer_buffer(&driver, 100);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 1);
}
END_TEST

START_TEST(queue_registers_too_early)
{
	struct virtqueue_layout layout = driver_layout(&driver, 0);

	ck_assert(!mmio_set_queue(transport, 0, &layout));
	mmio_write(transport, MMIO_STATUS, MMIO_ACKNOWLEDGE);
	mmio_write(transport, MMIO_STATUS, MMIO_ACKNOWLEDGE | MMIO_DRIVER);
	ck_assert(!mmio_set_queue(transport, 0, &layout));
	expect_violations(1); /* one for each turn of the loop */
	ck_assert_str_eq(last_violation, "queue register written that is frozen or not yet open");
}
END_TEST

static const uint32_t bad_sizes[] = { 0, 3, 127, 129, 256, 1024, 65536, 0x80000000, UINT32_MAX };

START_TEST(bad_queue_size)
{
	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	mmio_write(transport, MMIO_QUEUE_SIZE, bad_sizes[_i]);
	expect_violations(1);
	mmio_write(transport, MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), 0);
	expect_violations(2);
}
END_TEST

START_TEST(queue_that_does_not_exist)
{
	struct virtqueue_layout layout = driver_layout(&driver, 0);

	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	ck_assert(!mmio_set_queue(transport, QUEUES, &layout));
	ck_assert(!mmio_set_queue(transport, VIRTIO_DEVICE_QUEUES_MAX, &layout));
	ck_assert(!mmio_set_queue(transport, UINT32_MAX, &layout));
	expect_violations(1);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, QUEUES);
	expect_violations(2);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, UINT32_MAX);
	expect_violations(3);
}
END_TEST

static const uint64_t bad_rings[] = { 0, DRIVER_GUEST_BASE + 8, DRIVER_GUEST_BASE + DRIVER_MEMORY,
				      UINT64_MAX - 15, DRIVER_USER_BASE };

START_TEST(rings_outside_memory)
{
	struct virtqueue_layout layout = driver_layout(&driver, 0);

	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	ck_assert(mmio_set_queue(transport, 0, &layout));
	layout.descriptors = bad_rings[_i];
	ck_assert(mmio_set_queue(transport, 1, &layout));
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	ck_assert_uint_eq(status(), MMIO_UP | MMIO_NEEDS_RESET);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 2);
	ck_assert(!echo.running[0] && !echo.running[1]);
	expect_violations(1);
	/* Only a reset helps. */
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	ck_assert_uint_eq(status(), MMIO_UP | MMIO_NEEDS_RESET);
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
}
END_TEST

START_TEST(broken_ring)
{
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	driver_set(&driver, 0, 0, UINT64_MAX, 16, 0, 0);
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(status(), MMIO_UP | MMIO_NEEDS_RESET);
	ck_assert_uint_eq(violations, 1);
	ck_assert_str_eq(last_violation, "descriptor outside guest memory");
	ck_assert(!echo.running[0] && !echo.running[1]);
	/* Nothing more happens, whatever the driver kicks. */
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 1);
	expect_violations(1);
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	driver_offer_buffer(&driver, 16);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 1);
}
END_TEST

START_TEST(reset_forgets_all)
{
	struct virtqueue_layout layout = driver_layout(&driver, 0);

	for (int i = 0; i < 100; i++) {
		ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
		driver_offer_buffer(&driver, 16);
		mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
		if (i & 1)
			settle();
		mmio_write(transport, MMIO_STATUS, 0);
		ck_assert_uint_eq(status(), 0);
		ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 0);
		ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), 0);
		ck_assert(!echo.running[0] && !echo.running[1]);
		/* The kick that was on its way finds nothing. */
		settle();
		ck_assert_uint_eq(driver.queues[0].used[1], i & 1);
	}
	ck_assert_uint_eq(echo.starts, echo.stops);
	/* The size is forgotten too. */
	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	mmio_write(transport, MMIO_QUEUE_SELECT, 0);
	mmio_write_address(transport, MMIO_DESCRIPTORS, layout.descriptors);
	mmio_write(transport, MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), 0);
}
END_TEST

START_TEST(one_queue_stops)
{
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	mmio_write(transport, MMIO_QUEUE_SELECT, 0);
	mmio_write(transport, MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), 0);
	ck_assert(!echo.running[0] && echo.running[1]);
	mmio_write(transport, MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(echo.stops, 1);
	expect_violations(0);
	mmio_write(transport, MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_QUEUE_READY), 0);
	expect_violations(1);
	driver_offer_buffer(&driver, 16);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 0);
}
END_TEST

START_TEST(driver_gives_up)
{
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	mmio_write(transport, MMIO_STATUS, MMIO_UP | MMIO_FAILED);
	ck_assert_uint_eq(status(), MMIO_UP | MMIO_FAILED);
	ck_assert(!echo.running[0] && !echo.running[1]);
	expect_violations(0);
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
}
END_TEST

/* Below the configuration space, nothing but 32 bits at multiples of 4 is an access. */
START_TEST(every_offset_and_width)
{
	static const uint8_t ones[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t bytes[16];

	for (uint64_t offset = 0; offset < VIRTIO_MMIO_WINDOW + 16; offset++) {
		for (size_t length = 1; length <= 9; length++) {
			memset(bytes, 0xaa, sizeof(bytes));
			virtio_mmio_read(transport, offset, bytes, length);
			for (size_t i = length; i < sizeof(bytes); i++)
				ck_assert_uint_eq(bytes[i], 0xaa);
			if (offset >= 0x100 || (length == 4 && offset % 4 == 0))
				continue;
			for (size_t i = 0; i < length; i++)
				ck_assert_uint_eq(bytes[i], 0);
		}
	}
	ck_assert_uint_eq(violations, 0);
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_WINDOW + 16; offset++) {
		for (size_t length = 0; length <= 9; length++)
			virtio_mmio_write(transport, offset, ones, length);
	}
	virtio_mmio_write(transport, UINT64_MAX, ones, 8);
	virtio_mmio_read(transport, UINT64_MAX - 3, bytes, 4);
	ck_assert_uint_eq(status(), 0);
	ck_assert_uint_eq(echo.starts, 0);
	ck_assert_uint_eq(echo.config[0], 1);
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	/* The same on a device that runs: no width but the right one stops or changes it. */
	for (uint64_t offset = 0; offset < 0x100; offset++) {
		for (size_t length = 1; length <= 9; length++) {
			if (offset % 4 == 0 && length == 4)
				continue;
			virtio_mmio_write(transport, offset, (uint8_t[16]){ 0 }, length);
		}
	}
	ck_assert_uint_eq(status(), MMIO_UP);
	ck_assert(echo.running[0] && echo.running[1]);
}
END_TEST

START_TEST(config_space)
{
	uint8_t bytes[8];

	for (size_t length = 1; length <= 8; length++) {
		for (size_t offset = 0; offset < 32; offset++) {
			virtio_mmio_read(transport, MMIO_CONFIG + offset, bytes, length);
			for (size_t i = 0; i < length; i++)
				ck_assert_uint_eq(bytes[i],
						  offset + i < CONFIG_LENGTH ? offset + i + 1 : 0);
		}
	}
	/* Not before there is a driver. */
	virtio_mmio_write(transport, MMIO_CONFIG, "x", 1);
	expect_violations(1);
	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	virtio_mmio_write(transport, MMIO_CONFIG + 1, "abc", 3);
	ck_assert_mem_eq(echo.config, "\1abc\5", 5);
	virtio_mmio_write(transport, MMIO_CONFIG + 10, "xyz", 3);
	ck_assert_mem_eq(echo.config + 10, "xy", 2);
	expect_violations(1);
}
END_TEST

START_TEST(config_generation)
{
	uint32_t before = mmio_read(transport, MMIO_CONFIG_GENERATION);

	/* No interrupt for a driver that is not up. */
	echo.operations->config_changed(echo.transport);
	ck_assert_uint_ne(mmio_read(transport, MMIO_CONFIG_GENERATION), before);
	ck_assert_uint_eq(interrupts, 0);
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	before = mmio_read(transport, MMIO_CONFIG_GENERATION);
	echo.operations->config_changed(echo.transport);
	ck_assert_uint_ne(mmio_read(transport, MMIO_CONFIG_GENERATION), before);
	ck_assert_uint_eq(interrupts, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 2);
}
END_TEST

START_TEST(stopped_transport)
{
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	virtio_mmio_stop(transport);
	ck_assert(!echo.running[0] && !echo.running[1]);
	for (uint64_t offset = 0; offset < 0x200; offset += 4) {
		ck_assert_uint_eq(mmio_read(transport, offset), 0);
		mmio_write(transport, offset, 1);
	}
	ck_assert_uint_eq(echo.stops, QUEUES);
	virtio_mmio_stop(transport);
}
END_TEST

START_TEST(bad_operations)
{
	struct virtio_device_operations operations = echo_operations;
	struct virtio_mmio_setup setup = { .operations = &operations, .device = &echo };
	struct virtio_mmio *other = NULL;

	operations.queue_count = VIRTIO_DEVICE_QUEUES_MAX + 1;
	ck_assert_int_eq(virtio_mmio_new(&setup, &other), -EINVAL);
	operations.queue_count = 1;
	operations.queue_size_max = 100;
	ck_assert_int_eq(virtio_mmio_new(&setup, &other), -EINVAL);
	operations.queue_size_max = 2048;
	ck_assert_int_eq(virtio_mmio_new(&setup, &other), -EINVAL);
	ck_assert_ptr_null(other);
}
END_TEST

/* ---- several vCPUs -----------------------------------------------------------------------------
 */

#define ROUNDS 3000

static atomic_uint vcpus_left;

/* Writes every register there is, with numbers that often do something. */
static void *hammer(void *argument)
{
	uint32_t random = (uint32_t)(uintptr_t)argument;
	static const uint32_t values[] = { 0, 1, 3, 11, 15, 64, 128, 139, UINT32_MAX };

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t offset, value;

		random = random * 1664525 + 1013904223;
		offset = (random >> 8) % 0x110 & ~3u;
		value = values[(random >> 20) % (sizeof(values) / sizeof(values[0]))];
		mmio_write(transport, offset, value);
		(void)mmio_read(transport, offset);
		(void)mmio_read(transport, MMIO_CONFIG + (random >> 24) % 16);
	}
	atomic_fetch_sub(&vcpus_left, 1);
	return NULL;
}

/* Brings the device up and down again, through the noise of the other vCPU. */
static void *up_and_down(void *argument)
{
	for (int i = 0; i < ROUNDS / 10; i++) {
		(void)mmio_bring_up(transport, &driver, MMIO_FEATURES, 0);
		mmio_write(transport, MMIO_QUEUE_NOTIFY, i & 1);
		mmio_write(transport, MMIO_STATUS, 0);
	}
	atomic_fetch_sub(&vcpus_left, 1);
	return argument;
}

/* Brings the queues up and expects, alone with the device thread, to find them stopped after each
 * reset: what it writes to the rings then is a race if they are not. */
static void *owns_the_rings(void *argument)
{
	for (int i = 0; i < ROUNDS / 10; i++) {
		if (!mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES))
			abort();
		mmio_write(transport, MMIO_QUEUE_NOTIFY, i & 1);
		mmio_write(transport, MMIO_STATUS, 0);
		memset(driver.bytes, 0xff, QUEUES * DRIVER_QUEUE_SPACE);
	}
	atomic_fetch_sub(&vcpus_left, 1);
	return argument;
}

static void run_until_vcpus_end(void)
{
	while (atomic_load(&vcpus_left) > 0) {
		ck_assert_int_ge(event_loop_run_once(&loop, 1), 0);
		(void)virtio_mmio_run(transport);
		if (interrupts % 3 == 0)
			echo.operations->config_changed(echo.transport);
	}
}

START_TEST(vcpus_hammer_registers)
{
	pthread_t threads[3];

	atomic_store(&vcpus_left, 3);
	ck_assert_int_eq(pthread_create(&threads[0], NULL, hammer, (void *)(uintptr_t)1), 0);
	ck_assert_int_eq(pthread_create(&threads[1], NULL, hammer, (void *)(uintptr_t)77), 0);
	ck_assert_int_eq(pthread_create(&threads[2], NULL, up_and_down, NULL), 0);
	run_until_vcpus_end();
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	settle();
	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
}
END_TEST

START_TEST(reset_means_stopped)
{
	pthread_t thread;

	atomic_store(&vcpus_left, 1);
	ck_assert_int_eq(pthread_create(&thread, NULL, owns_the_rings, NULL), 0);
	run_until_vcpus_end();
	pthread_join(thread, NULL);
	ck_assert_uint_eq(violations, 0);
	ck_assert_uint_eq(echo.starts, ROUNDS / 10 * QUEUES);
	ck_assert_uint_eq(echo.stops, echo.starts);
}
END_TEST

static void *waits_for_ever(void *argument)
{
	mmio_write(transport, MMIO_STATUS, 0);
	atomic_fetch_sub(&vcpus_left, 1);
	return argument;
}

/* The end of the VM must not find a vCPU waiting for a device thread which does not run. */
START_TEST(stop_releases_vcpus)
{
	pthread_t threads[2];

	atomic_store(&vcpus_left, 2);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, waits_for_ever, NULL), 0);
	usleep(20000);
	ck_assert_uint_eq(atomic_load(&vcpus_left), 2);
	virtio_mmio_stop(transport);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("virtio_mmio");
	TCase *tests = tcase_create("virtio_mmio");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, identity);
	tcase_add_test(tests, honest_driver);
	tcase_add_test(tests, status_steps);
	tcase_add_loop_test(tests, features_refused, 0,
			    (int)(sizeof(refused_features) / sizeof(refused_features[0])));
	tcase_add_test(tests, features_beyond_and_late);
	tcase_add_test(tests, queue_registers_are_frozen);
	tcase_add_test(tests, queue_registers_too_early);
	tcase_add_loop_test(tests, bad_queue_size, 0,
			    (int)(sizeof(bad_sizes) / sizeof(bad_sizes[0])));
	tcase_add_test(tests, queue_that_does_not_exist);
	tcase_add_loop_test(tests, rings_outside_memory, 0,
			    (int)(sizeof(bad_rings) / sizeof(bad_rings[0])));
	tcase_add_test(tests, broken_ring);
	tcase_add_test(tests, reset_forgets_all);
	tcase_add_test(tests, one_queue_stops);
	tcase_add_test(tests, driver_gives_up);
	tcase_add_test(tests, every_offset_and_width);
	tcase_add_test(tests, config_space);
	tcase_add_test(tests, config_generation);
	tcase_add_test(tests, stopped_transport);
	tcase_add_test(tests, bad_operations);
	tcase_add_test(tests, vcpus_hammer_registers);
	tcase_add_test(tests, reset_means_stopped);
	tcase_add_test(tests, stop_releases_vcpus);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
