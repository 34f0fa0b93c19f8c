/* The vsock device behind the MMIO transport, with its real muxer and real Unix sockets. */
#include "tests/unit/mmio_driver.h"
#include "vmm/virtio_vsock.h"
#include "vmm/vsock_muxer.h"

#include <check.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct driver driver;
static struct event_loop loop;
static struct virtio_mmio *transport;
static unsigned interrupts, violations;
static const char *last_violation;
static struct virtio_vsock *vsock;
static struct vsock_muxer *muxer;
static char directory[] = "/tmp/matchlock-vsock-test-XXXXXX";
static int listener;

static void count_interrupt(void *context)
{
	(void)context;
	interrupts++;
}

static void count_violation(void *context, const char *what)
{
	(void)context;
	ck_assert_ptr_nonnull(what);
	last_violation = what;
	violations++;
}

static void settle(void)
{
	for (int i = 0; i < 1000; i++) {
		int events = event_loop_run_once(&loop, 0);
		int more = virtio_mmio_run(transport);

		ck_assert_int_ge(events, 0);
		if (!events && !more)
			return;
	}
	ck_abort_msg("the device never comes to rest");
}

static void set_up(void)
{
	struct vsock_device_setup setup = {
		.guest_cid = 42,
		.streams = &vsock_muxer_operations,
		.violation = count_violation,
	};
	struct virtio_mmio_setup transport_setup = {
		.operations = &virtio_vsock_operations,
		.memory = &driver.memory,
		.interrupt = count_interrupt,
		.violation = count_violation,
	};
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "v_77" };

	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
	driver_init(&driver);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(vsock_muxer_new(&loop, "v", vsock_muxer_listen("v"), &muxer), 0);
	setup.provider = muxer;
	ck_assert_int_eq(virtio_vsock_new(&setup, &vsock), 0);
	ck_assert_int_eq(vsock_muxer_start(muxer, virtio_vsock_device(vsock)), 0);
	transport_setup.device = vsock;
	ck_assert_int_eq(virtio_mmio_new(&transport_setup, &transport), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(listener, 8), 0);
}

static void tear_down(void)
{
	virtio_mmio_free(transport);
	virtio_vsock_free(vsock);
	vsock_muxer_free(muxer);
	event_loop_release(&loop);
	driver_release(&driver);
	close(listener);
	unlink("v");
	unlink("v_77");
	rmdir(directory);
}

static void vsock_bring_up(void)
{
	struct virtqueue_layout event = driver_layout(&driver, 0);

	event.descriptors += 2 * DRIVER_QUEUE_SPACE;
	event.available += 2 * DRIVER_QUEUE_SPACE;
	event.used += 2 * DRIVER_QUEUE_SPACE;
	ck_assert(mmio_negotiate(transport, MMIO_FEATURES));
	for (unsigned i = 0; i < 2; i++) {
		struct virtqueue_layout layout = driver_layout(&driver, i);

		mmio_forget_queue(&driver, i);
		ck_assert(mmio_set_queue(transport, i, &layout));
	}
	ck_assert(mmio_set_queue(transport, 2, &event));
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	ck_assert_uint_eq(mmio_read(transport, MMIO_STATUS), MMIO_UP);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 2);
	for (int i = 0; i < 8; i++)
		driver_offer_buffer(&driver, 3776);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
}

static void vsock_send(uint16_t operation, const void *data, size_t length)
{
	const struct vsock_header header = {
		.source_cid = 42,
		.target_cid = VSOCK_CID_HOST,
		.source_port = 1000,
		.target_port = 77,
		.length = (uint32_t)length,
		.type = VSOCK_TYPE_STREAM,
		.operation = operation,
		.buffer_allocation = 65536,
	};

	driver_send(&driver, &header, data, length);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 1);
	settle();
}

START_TEST(vsock_through_registers)
{
	struct vsock_header packet;
	const uint8_t *payload;
	uint64_t cid = 0;
	char text[16];
	int fd;

	ck_assert_uint_eq(mmio_read(transport, 8), VIRTIO_ID_VSOCK);
	virtio_mmio_read(transport, MMIO_CONFIG, &cid, 8);
	ck_assert_uint_eq(cid, 42);
	for (int round = 0; round < 2; round++) {
		vsock_bring_up();
		interrupts = 0;
		vsock_send(VSOCK_OP_REQUEST, NULL, 0);
		ck_assert(driver_receive(&driver, &packet, &payload));
		ck_assert_uint_eq(packet.operation, VSOCK_OP_RESPONSE);
		ck_assert_uint_eq(interrupts, 1);
		fd = accept(listener, NULL, NULL);
		ck_assert_int_ge(fd, 0);
		vsock_send(VSOCK_OP_RW, "request", 7);
		ck_assert_int_eq(read(fd, text, sizeof(text)), 7);
		ck_assert_int_eq(write(fd, "answer", 6), 6);
		settle();
		ck_assert(driver_receive(&driver, &packet, &payload));
		ck_assert_uint_eq(packet.operation, VSOCK_OP_RW);
		ck_assert_mem_eq(payload, "answer", 6);
		/* A reset ends the streams; then all begins anew. */
		mmio_write(transport, MMIO_STATUS, 0);
		ck_assert_int_eq(read(fd, text, sizeof(text)), 0);
		close(fd);
	}
	ck_assert_uint_eq(violations, 0);
}
END_TEST

START_TEST(vsock_broken_by_driver)
{
	struct vsock_header packet;
	const uint8_t *payload;
	char byte;
	int fd;

	vsock_bring_up();
	vsock_send(VSOCK_OP_REQUEST, NULL, 0);
	ck_assert(driver_receive(&driver, &packet, &payload));
	fd = accept(listener, NULL, NULL);
	driver.queues[1].available[1] += DRIVER_QUEUE_SIZE + 1;
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 1);
	settle();
	ck_assert_uint_eq(mmio_read(transport, MMIO_STATUS), MMIO_UP | MMIO_NEEDS_RESET);
	ck_assert_str_eq(last_violation, "available index ahead by more than the queue's size");
	/* Host programs see their streams end at once. */
	ck_assert_int_eq(read(fd, &byte, 1), 0);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("virtio_vsock");
	TCase *tests = tcase_create("virtio_vsock");
	SRunner *runner;
	int failed;

	(void)signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, vsock_through_registers);
	tcase_add_test(tests, vsock_broken_by_driver);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
