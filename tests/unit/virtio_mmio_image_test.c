/* A transport and its device, stored and brought back. */
#include "tests/unit/mmio_echo.h"

#include <errno.h>

/* Another process, with the same device and the guest's memory as it was. */
static void set_up_again(const struct virtio_device_operations *operations)
{
	const struct virtio_mmio_setup setup = {
		.operations = operations,
		.device = &echo,
		.memory = &driver.memory,
		.interrupt = count_interrupt,
		.violation = count_violation,
	};
	struct echo fresh = { .thread = pthread_self() };

	virtio_mmio_free(transport);
	memcpy(fresh.config, echo.config, sizeof(fresh.config));
	echo = fresh;
	interrupts = 0;
	ck_assert_int_eq(virtio_mmio_new(&setup, &transport), 0);
}

START_TEST(goes_on_elsewhere)
{
	struct virtio_mmio_image image;

	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	for (int i = 0; i < 3; i++) {
		driver_offer_buffer(&driver, 100);
		mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
		settle();
	}
	ck_assert_int_eq(virtio_mmio_save(transport, &image), 0);
	ck_assert_uint_eq(image.positions[0], 3);
	ck_assert_uint_eq(image.positions[1], 0);
	set_up_again(&echo_operations);
	ck_assert_int_eq(virtio_mmio_restore(transport, &image), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
	ck_assert_uint_eq(status(), MMIO_UP);
	ck_assert_uint_eq(echo.agreed, MMIO_FEATURES);
	/* The interrupt that the driver has not acknowledged comes once more. */
	ck_assert_uint_eq(interrupts, 1);
	ck_assert_uint_eq(mmio_read(transport, MMIO_INTERRUPT_STATUS), 1);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 3);
	driver_offer_buffer(&driver, 100);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(driver.queues[0].used[1], 4);
	expect_violations(0);
}
END_TEST

START_TEST(goes_on_before_queues)
{
	struct virtio_mmio_image image;

	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	ck_assert_int_eq(virtio_mmio_save(transport, &image), 0);
	set_up_again(&echo_operations);
	ck_assert_int_eq(virtio_mmio_restore(transport, &image), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
	ck_assert_uint_eq(echo.starts, 0);
	ck_assert_uint_eq(status(), MMIO_BEFORE_QUEUES);
	expect_violations(0);
}
END_TEST

/* What is under way is not stored. */
START_TEST(busy_device)
{
	static struct virtqueue_chain chain;
	struct virtio_mmio_image image;

	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	driver_offer_buffer(&driver, 100);
	ck_assert_int_eq(virtqueue_pop(&echo.queues[0], &chain), 1);
	ck_assert_int_eq(virtio_mmio_save(transport, &image), -EBUSY);
	virtqueue_push(&echo.queues[0], chain.head, 0);
	ck_assert_int_eq(virtio_mmio_save(transport, &image), -EBUSY);
	(void)virtqueue_publish(&echo.queues[0]);
	ck_assert_int_eq(virtio_mmio_save(transport, &image), 0);
	echo.operations->needs_reset(echo.transport, "test");
	ck_assert_int_eq(virtio_mmio_save(transport, &image), -EPROTO);
}
END_TEST

static const struct {
	size_t offset; /* in the image */
	uint8_t byte;
} spoilt_images[] = {
	{ offsetof(struct virtio_mmio_image, device_id), 0xff },
	{ offsetof(struct virtio_mmio_image, queue_count), 1 },
	{ offsetof(struct virtio_mmio_image, features), 0 },
	{ offsetof(struct virtio_mmio_image, config), 0xff },
	{ offsetof(struct virtio_mmio_image, registers.status), MMIO_UP | MMIO_NEEDS_RESET },
	{ offsetof(struct virtio_mmio_image, registers.status), MMIO_UP | MMIO_FAILED },
	{ offsetof(struct virtio_mmio_image, registers.status), MMIO_DRIVER_OK },
	{ offsetof(struct virtio_mmio_image, registers.driver_features), 0x80 },
	{ offsetof(struct virtio_mmio_image, registers.driver_features_beyond), 1 },
	{ offsetof(struct virtio_mmio_image, registers.queues[0].size), 3 },
	{ offsetof(struct virtio_mmio_image, registers.queues[0].size), 0 },
	{ offsetof(struct virtio_mmio_image, registers.queues[0].size) + 1, 1 },
	{ offsetof(struct virtio_mmio_image, registers.queues[0].ready), 2 },
	{ offsetof(struct virtio_mmio_image, registers.queues[QUEUES].ready), 1 },
	{ offsetof(struct virtio_mmio_image, registers.queues[0].descriptors), 1 },
	{ offsetof(struct virtio_mmio_image, registers.queues[1].used) + 7, 0xff },
};

START_TEST(spoilt_image)
{
	struct virtio_mmio_image image;

	ck_assert(mmio_bring_up(transport, &driver, MMIO_FEATURES, QUEUES));
	ck_assert_int_eq(virtio_mmio_save(transport, &image), 0);
	((uint8_t *)&image)[spoilt_images[_i].offset] = spoilt_images[_i].byte;
	set_up_again(&echo_operations);
	ck_assert_int_eq(virtio_mmio_restore(transport, &image), -EINVAL);
}
END_TEST

START_TEST(device_that_is_not_stored)
{
	struct virtio_device_operations operations = echo_operations;
	struct virtio_mmio_image image;

	ck_assert_int_eq(virtio_mmio_save(transport, &image), 0);
	operations.position = NULL;
	set_up_again(&operations);
	ck_assert_int_eq(virtio_mmio_save(transport, &image), -ENOTSUP);
	ck_assert_int_eq(virtio_mmio_restore(transport, &image), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("virtio_mmio_image");
	TCase *tests = tcase_create("virtio_mmio_image");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, goes_on_elsewhere);
	tcase_add_test(tests, goes_on_before_queues);
	tcase_add_test(tests, busy_device);
	tcase_add_loop_test(tests, spoilt_image, 0,
			    (int)(sizeof(spoilt_images) / sizeof(spoilt_images[0])));
	tcase_add_test(tests, device_that_is_not_stored);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
