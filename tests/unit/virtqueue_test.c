#include "tests/unit/virtio_driver.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chain;

static void set_up_with(bool indirect)
{
	struct virtqueue_layout layout;

	driver_init(&driver);
	layout = driver_layout(&driver, 0);
	layout.indirect = indirect;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), 0);
}

static void set_up(void)
{
	set_up_with(true);
}

static void tear_down(void)
{
	driver_release(&driver);
}

static void expect_violation(const char *text)
{
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), -EPROTO);
	ck_assert_ptr_nonnull(queue.error);
	ck_assert_str_eq(queue.error, text);
	/* Broken for good. */
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 16, 0, 0);
	driver_offer(&driver, 0, 0);
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), -EPROTO);
}

START_TEST(honest_chain)
{
	driver_set(&driver, 0, 3, driver_buffer(0, 3), 44, DRIVER_NEXT, 9);
	driver_set(&driver, 0, 9, driver_buffer(0, 9), 100, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, driver_buffer(0, 1), 200, DRIVER_WRITE, 0);
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), 0);
	driver_offer(&driver, 0, 3);
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), 1);
	ck_assert_uint_eq(chain.head, 3);
	ck_assert_uint_eq(chain.readable_count, 2);
	ck_assert_uint_eq(chain.readable_length, 144);
	ck_assert_uint_eq(chain.writable_count, 1);
	ck_assert_uint_eq(chain.writable_length, 200);
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), 0);
	virtqueue_rewind(&queue, 1);
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), 1);
	virtqueue_push(&queue, chain.head, 77);
	ck_assert_uint_eq(driver.queues[0].used[1], 0);
	ck_assert(virtqueue_publish(&queue));
	ck_assert_uint_eq(driver.queues[0].used[1], 1);
	ck_assert_uint_eq(driver.queues[0].used_ring[0].id, 3);
	ck_assert_uint_eq(driver.queues[0].used_ring[0].length, 77);
}
END_TEST

START_TEST(bad_layouts)
{
	static const uint16_t sizes[] = { 0, 3, 63, 65, 2048, 65535 };
	struct virtqueue_layout layout = driver_layout(&driver, 0);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		layout.size = sizes[i];
		ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EINVAL);
	}
	layout = driver_layout(&driver, 0);
	layout.descriptors += 8;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EINVAL);
	layout = driver_layout(&driver, 0);
	layout.available += 1;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EINVAL);
	layout = driver_layout(&driver, 0);
	layout.used += 2;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EINVAL);
	/* Just reaching over the end of memory, and around the end of the address space. */
	layout = driver_layout(&driver, 0);
	layout.used = DRIVER_GUEST_BASE + DRIVER_MEMORY - 6 - 8 * DRIVER_QUEUE_SIZE + 2;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EFAULT);
	layout = driver_layout(&driver, 0);
	layout.descriptors = UINT64_MAX - 15;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EFAULT);
	layout = driver_layout(&driver, 0);
	layout.user_addresses = true;
	ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), -EFAULT);
}
END_TEST

static const struct {
	uint64_t address;
	uint32_t length;
	const char *error;
} bad_buffers[] = {
	{ 0, 16, "descriptor outside guest memory" },
	{ DRIVER_GUEST_BASE - 1, 16, "descriptor outside guest memory" },
	{ DRIVER_GUEST_BASE + DRIVER_MEMORY, 1, "descriptor outside guest memory" },
	{ DRIVER_GUEST_BASE + DRIVER_MEMORY - 1, 2, "descriptor outside guest memory" },
	{ DRIVER_GUEST_BASE, DRIVER_MEMORY + 1, "descriptor outside guest memory" },
	{ DRIVER_GUEST_BASE, UINT32_MAX, "descriptor outside guest memory" },
	{ UINT64_MAX, 1, "descriptor outside guest memory" },
	{ UINT64_MAX - 10, 100, "descriptor outside guest memory" },
	{ DRIVER_USER_BASE, 16, "descriptor outside guest memory" },
	{ DRIVER_GUEST_BASE, 0, "descriptor of zero length" },
};

START_TEST(bad_buffer)
{
	driver_set(&driver, 0, 0, bad_buffers[_i].address, bad_buffers[_i].length, 0, 0);
	driver_offer(&driver, 0, 0);
	expect_violation(bad_buffers[_i].error);
}
END_TEST

START_TEST(loops)
{
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 16, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, driver_buffer(0, 1), 16, DRIVER_NEXT, 0);
	driver_offer(&driver, 0, 0);
	expect_violation("descriptor chain too long");
}
END_TEST

START_TEST(indexes_outside)
{
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 16, DRIVER_NEXT, DRIVER_QUEUE_SIZE);
	driver_offer(&driver, 0, 0);
	expect_violation("descriptor index outside its table");
}
END_TEST

START_TEST(head_outside)
{
	driver_offer(&driver, 0, 0xffff);
	expect_violation("descriptor index outside its table");
}
END_TEST

START_TEST(readable_after_writable)
{
	driver_set(&driver, 0, 0, driver_buffer(0, 0), 16, DRIVER_NEXT | DRIVER_WRITE, 1);
	driver_set(&driver, 0, 1, driver_buffer(0, 1), 16, 0, 0);
	driver_offer(&driver, 0, 0);
	expect_violation("readable descriptor after a writable one");
}
END_TEST

START_TEST(available_index_jumps)
{
	driver.queues[0].available[1] = DRIVER_QUEUE_SIZE + 1;
	expect_violation("available index ahead by more than the queue's size");
}
END_TEST

START_TEST(indirect_honest)
{
	struct driver_descriptor *table = (void *)driver_bytes(&driver, driver_buffer(0, 5));

	table[0] = (struct driver_descriptor){ driver_buffer(0, 6), 44, DRIVER_NEXT, 1 };
	table[1] = (struct driver_descriptor){ driver_buffer(0, 7), 100, DRIVER_WRITE, 0 };
	driver_set(&driver, 0, 0, driver_buffer(0, 5), 32, DRIVER_INDIRECT, 0);
	driver_offer(&driver, 0, 0);
	ck_assert_int_eq(virtqueue_pop(&queue, &chain), 1);
	ck_assert_uint_eq(chain.readable_length, 44);
	ck_assert_uint_eq(chain.writable_length, 100);
}
END_TEST

START_TEST(indirect_inside_indirect)
{
	struct driver_descriptor *table = (void *)driver_bytes(&driver, driver_buffer(0, 5));

	table[0] = (struct driver_descriptor){ driver_buffer(0, 5), 16, DRIVER_INDIRECT, 0 };
	driver_set(&driver, 0, 0, driver_buffer(0, 5), 16, DRIVER_INDIRECT, 0);
	driver_offer(&driver, 0, 0);
	expect_violation("indirect table inside another");
}
END_TEST

START_TEST(indirect_index_outside)
{
	struct driver_descriptor *table = (void *)driver_bytes(&driver, driver_buffer(0, 5));

	/* Within the ring's size, but not within this table of one. */
	table[0] = (struct driver_descriptor){ driver_buffer(0, 6), 16, DRIVER_NEXT, 1 };
	table[1] = (struct driver_descriptor){ driver_buffer(0, 6), 16, 0, 0 };
	driver_set(&driver, 0, 0, driver_buffer(0, 5), 16, DRIVER_INDIRECT, 0);
	driver_offer(&driver, 0, 0);
	expect_violation("descriptor index outside its table");
}
END_TEST

static const struct {
	uint64_t address;
	uint32_t length;
	uint16_t flags;
	const char *error;
} bad_tables[] = {
	{ DRIVER_GUEST_BASE, 0, DRIVER_INDIRECT, "indirect table of odd size or alignment" },
	{ DRIVER_GUEST_BASE, 17, DRIVER_INDIRECT, "indirect table of odd size or alignment" },
	{ DRIVER_GUEST_BASE + 8, 16, DRIVER_INDIRECT, "indirect table of odd size or alignment" },
	{ 0, 16, DRIVER_INDIRECT, "indirect table outside guest memory" },
	{ DRIVER_GUEST_BASE + DRIVER_MEMORY - 16, 32, DRIVER_INDIRECT,
	  "indirect table outside guest memory" },
	{ DRIVER_GUEST_BASE, 0xfffffff0, DRIVER_INDIRECT, "indirect table outside guest memory" },
	{ DRIVER_GUEST_BASE, 16, DRIVER_INDIRECT | DRIVER_NEXT,
	  "indirect descriptor with a next one" },
};

START_TEST(bad_table)
{
	driver_set(&driver, 0, 0, bad_tables[_i].address, bad_tables[_i].length,
		   bad_tables[_i].flags, 1);
	driver_offer(&driver, 0, 0);
	expect_violation(bad_tables[_i].error);
}
END_TEST

START_TEST(indirect_not_negotiated)
{
	tear_down();
	set_up_with(false);
	driver_set(&driver, 0, 0, driver_buffer(0, 5), 16, DRIVER_INDIRECT, 0);
	driver_offer(&driver, 0, 0);
	expect_violation("indirect descriptor, which was not negotiated");
}
END_TEST

static atomic_bool stop_flipping;

/* Another virtual CPU, which changes a descriptor while the device looks at it. */
static void *flip(void *unused)
{
	volatile struct driver_descriptor *descriptor = &driver.queues[0].descriptors[0];

	while (!atomic_load(&stop_flipping)) {
		descriptor->address = UINT64_MAX - 4096;
		descriptor->length = UINT32_MAX;
		descriptor->address = driver_buffer(0, 0);
		descriptor->length = 64;
	}
	return unused;
}

START_TEST(descriptor_changes_after_the_check)
{
	const struct guest_region *region = &driver.memory.regions[0];
	pthread_t thread;

	driver_set(&driver, 0, 0, driver_buffer(0, 0), 64, 0, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, flip, NULL), 0);
	for (int i = 0; i < 20000; i++) {
		driver_offer(&driver, 0, 0);
		if (virtqueue_pop(&queue, &chain) == 1) {
			const uint8_t *base = chain.parts[0].iov_base;

			ck_assert(base >= region->host &&
				  chain.parts[0].iov_len <=
					  region->length - (size_t)(base - region->host));
			virtqueue_push(&queue, chain.head, 0);
		} else {
			struct virtqueue_layout layout = driver_layout(&driver, 0);

			layout.next_available = driver.queues[0].available[1];
			ck_assert_int_eq(virtqueue_start(&queue, &driver.memory, &layout), 0);
		}
	}
	atomic_store(&stop_flipping, true);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(indexes_wrap)
{
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = (uint16_t)(i % DRIVER_QUEUE_SIZE);

		driver_set(&driver, 0, head, driver_buffer(0, head), 16, 0, 0);
		driver_offer(&driver, 0, head);
		ck_assert_int_eq(virtqueue_pop(&queue, &chain), 1);
		ck_assert_uint_eq(chain.head, head);
		virtqueue_push(&queue, head, 0);
		(void)virtqueue_publish(&queue);
		ck_assert_uint_eq(driver.queues[0].used[1], (uint16_t)(i + 1));
	}
}
END_TEST

START_TEST(notification)
{
	uint16_t *used_event = &driver.queues[0].available[2 + DRIVER_QUEUE_SIZE];
	uint16_t *available_event = &driver.queues[0].used[2 + 4 * DRIVER_QUEUE_SIZE];

	for (uint16_t i = 0; i < 6; i++) {
		driver_set(&driver, 0, i, driver_buffer(0, i), 16, 0, 0);
		driver_offer(&driver, 0, i);
	}
	/* The driver wants to hear of the third. */
	*used_event = 2;
	for (uint16_t i = 0; i < 6; i++) {
		ck_assert_int_eq(virtqueue_pop(&queue, &chain), 1);
		virtqueue_push(&queue, chain.head, 0);
		ck_assert_int_eq(virtqueue_publish(&queue), i == 2);
		ck_assert(!virtqueue_publish(&queue));
	}
	ck_assert(!virtqueue_request_kick(&queue));
	ck_assert_uint_eq(*available_event, 6);
	driver_offer(&driver, 0, 0);
	/* It came between the last look and the request. */
	ck_assert(virtqueue_request_kick(&queue));
}
END_TEST

START_TEST(copies_over_parts)
{
	char a[3] = "abc", b[4] = "defg", text[8] = "";
	struct iovec parts[] = { { a, 3 }, { b, 4 } }, slice[2];

	ck_assert_uint_eq(iovec_read(parts, 2, 2, text, 3), 3);
	ck_assert_mem_eq(text, "cde", 3);
	ck_assert_uint_eq(iovec_read(parts, 2, 5, text, 8), 2);
	ck_assert_uint_eq(iovec_read(parts, 2, 7, text, 1), 0);
	ck_assert_uint_eq(iovec_write(parts, 2, 1, "XYZ", 3), 3);
	ck_assert_mem_eq(a, "aXY", 3);
	ck_assert_mem_eq(b, "Zefg", 4);
	ck_assert_uint_eq(iovec_slice(parts, 2, 2, 3, slice), 2);
	ck_assert_uint_eq(slice[0].iov_len, 1);
	ck_assert_uint_eq(slice[1].iov_len, 2);
	ck_assert_ptr_eq(slice[0].iov_base, a + 2);
}
END_TEST

START_TEST(memory_regions)
{
	struct guest_memory memory = { 0 };
	int fd = driver_memory_file(65536);
	int plain = memfd_create("plain", MFD_CLOEXEC);

	ck_assert_int_eq(ftruncate(plain, 65536), 0);
	ck_assert_int_eq(guest_memory_map(&memory, plain, 0, 0, 0, 4096), -EPERM);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 0, 0x10000, 0), -EINVAL);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 0, 0x10000, 69632), -EFBIG);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 61440, 0, 0x10000, 8192), -EFBIG);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 1, 0, 0x10000, 4096), -EINVAL);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, UINT64_MAX - 4095, 0, 8192), -EINVAL);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 0, UINT64_MAX - 4095, 8192), -EINVAL);
	ck_assert_int_eq(guest_memory_map(&memory, fd, UINT64_MAX - 4095, 0, 0, 4096), -EINVAL);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 0x1000, 0x100000, 8192), 0);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 0x2000, 0x200000, 4096), -EINVAL);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 0x8000, 0x101000, 4096), -EINVAL);
	for (uint64_t i = 1; i < GUEST_MEMORY_REGIONS_MAX; i++)
		ck_assert_int_eq(guest_memory_map(&memory, fd, 0, i << 20, i << 28, 4096), 0);
	ck_assert_int_eq(guest_memory_map(&memory, fd, 0, 9 << 20, 0, 4096), -ENOSPC);
	ck_assert_ptr_nonnull(gpa_range(&memory, 0x1000, 8192));
	ck_assert_ptr_null(gpa_range(&memory, 0x1000, 8193));
	ck_assert_ptr_null(gpa_range(&memory, 0x1000, 0));
	ck_assert_ptr_null(gpa_range(&memory, 0x2fff, 2));
	ck_assert_ptr_null(gpa_range(&memory, 0xfff, 2));
	ck_assert_ptr_null(gpa_range(&memory, 0x1000, UINT64_MAX));
	ck_assert_ptr_eq(user_range(&memory, 0x100010, 1), gpa_range(&memory, 0x1010, 1));
	guest_memory_release(&memory);
	close(fd);
	close(plain);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("virtqueue");
	TCase *tests = tcase_create("virtqueue");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, honest_chain);
	tcase_add_test(tests, bad_layouts);
	tcase_add_loop_test(tests, bad_buffer, 0,
			    (int)(sizeof(bad_buffers) / sizeof(bad_buffers[0])));
	tcase_add_test(tests, loops);
	tcase_add_test(tests, indexes_outside);
	tcase_add_test(tests, head_outside);
	tcase_add_test(tests, readable_after_writable);
	tcase_add_test(tests, available_index_jumps);
	tcase_add_test(tests, indirect_honest);
	tcase_add_test(tests, indirect_inside_indirect);
	tcase_add_test(tests, indirect_index_outside);
	tcase_add_loop_test(tests, bad_table, 0, (int)(sizeof(bad_tables) / sizeof(bad_tables[0])));
	tcase_add_test(tests, indirect_not_negotiated);
	tcase_add_test(tests, descriptor_changes_after_the_check);
	tcase_add_test(tests, indexes_wrap);
	tcase_add_test(tests, notification);
	tcase_add_test(tests, copies_over_parts);
	tcase_add_test(tests, memory_regions);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
