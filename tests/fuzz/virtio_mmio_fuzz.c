/*
 * A driver which reads and writes registers and rings as the input says, against the transport with
 * real devices behind it. Between transport and device stands a check of the calls: queues start
 * once, with a size that the device takes, and nothing is asked of a queue that does not run.
 *
 * Input: u8 device, then operations, one byte each (modulo their number), with their operands; see
 * step().
 */
#include "base/bytes.h"
#include "tests/unit/mmio_driver.h"
#include "vmm/balloon_device.h"
#include "vmm/block_device.h"
#include "vmm/entropy_device.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 400
#define QUEUES_MAX 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct driver driver;
static struct event_loop loop;
static struct virtio_mmio *transport;
static struct block_device *disk; /* NULL where the host has no io_uring; one for all runs */
static const struct virtio_device_operations *real;
static bool running[QUEUES_MAX];

static void require(bool condition)
{
	if (!condition)
		abort();
}

static int checked_start(void *device, unsigned queue, const struct guest_memory *memory,
			 const struct virtqueue_layout *layout)
{
	int r;

	require(queue < real->queue_count && !running[queue]);
	require(layout->size > 0 && layout->size <= real->queue_size_max &&
		(layout->size & (layout->size - 1)) == 0);
	require(memory == &driver.memory && !layout->user_addresses);
	r = real->start(device, queue, memory, layout);
	running[queue] = r == 0;
	return r;
}

static void checked_stop(void *device, unsigned queue)
{
	require(queue < real->queue_count && running[queue]);
	running[queue] = false;
	real->stop(device, queue);
}

static void checked_kick(void *device, unsigned queue)
{
	require(queue < real->queue_count && running[queue]);
	real->kick(device, queue);
}

static int checked_run(void *device)
{
	require(running[0] || running[1] || running[2]);
	return real->run(device);
}

static void on_interrupt(void *context)
{
	(void)context;
}

static void on_violation(void *context, const char *what)
{
	(void)context;
	require(what != NULL);
}

static void bring_up(uint8_t kind)
{
	uint64_t features = MMIO_FEATURES & ~((uint64_t)(kind & 1) << 29);

	features |= kind & 2 ? VIRTIO_FEATURE_INDIRECT_DESC : 0;
	if (!mmio_negotiate(transport, features))
		abort();
	for (unsigned i = 0; i < real->queue_count; i++) {
		struct virtqueue_layout layout = driver_layout(&driver, i % 2);

		if (i == 2 && !(kind & 4))
			break;
		if (kind & 8)
			layout.size = (uint16_t)(layout.size >> ((kind >> 5) % 7));
		if (!mmio_set_queue(transport, i, &layout))
			abort();
	}
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
}

static void write_one(struct byte_reader *input, size_t length)
{
	uint64_t offset = byte_reader_u16(input) % (VIRTIO_MMIO_WINDOW + 64);
	const uint8_t *bytes = byte_reader_bytes(input, length);

	if (bytes)
		virtio_mmio_write(transport, offset, bytes, length);
}

static void read_one(struct byte_reader *input)
{
	uint8_t length = byte_reader_u8(input) % 10;
	uint8_t *exact = malloc(length ? length : 1); /* so that a byte too many is noticed */

	if (exact)
		virtio_mmio_read(transport, byte_reader_u16(input) % (VIRTIO_MMIO_WINDOW + 64),
				 exact, length);
	free(exact);
}

static void descriptor(struct byte_reader *input)
{
	uint8_t where = byte_reader_u8(input);
	uint8_t kind = byte_reader_u8(input);
	uint64_t address = DRIVER_GUEST_BASE + byte_reader_u32(input) % (2 * DRIVER_MEMORY);
	uint32_t length = byte_reader_u16(input);
	uint16_t index = (where >> 1) % DRIVER_QUEUE_SIZE;

	if (kind & 0x80)
		length <<= 8;
	driver_set(&driver, where & 1, index, address, length, kind & 7, (kind >> 3) & 7);
	if (kind & 0x40)
		driver_offer(&driver, where & 1, index);
}

static void raw_bytes(struct byte_reader *input)
{
	uint16_t offset = byte_reader_u16(input);
	uint8_t length = byte_reader_u8(input) % 32;
	const uint8_t *bytes = byte_reader_bytes(input, length);

	if (bytes)
		memcpy(driver.bytes + offset, bytes, length);
}

static void step(struct byte_reader *input)
{
	switch (byte_reader_u8(input) % 9) {
	case 0:
	case 1: /* the registers, which are at multiples of 4 */
		mmio_write(transport, (uint64_t)byte_reader_u8(input) % 0x44 * 4,
			   byte_reader_u32(input));
		break;
	case 2:
		write_one(input, byte_reader_u8(input) % 10);
		break;
	case 3:
		read_one(input);
		break;
	case 4:
		bring_up(byte_reader_u8(input));
		break;
	case 5:
		descriptor(input);
		break;
	case 6:
		raw_bytes(input);
		break;
	case 7:
		mmio_write(transport, MMIO_QUEUE_NOTIFY, byte_reader_u8(input) % 4);
		break;
	default: /* a turn of the device thread */
		require(event_loop_run_once(&loop, 0) >= 0);
		(void)virtio_mmio_run(transport);
		break;
	}
}

static void check_state(void)
{
	uint32_t status = mmio_read(transport, MMIO_STATUS);
	bool any = running[0] || running[1] || running[2];

	require(!any || ((status & MMIO_UP) == MMIO_UP && !(status & MMIO_FAILED)));
	require((status & ~(uint32_t)(MMIO_UP | MMIO_NEEDS_RESET | MMIO_FAILED)) == 0);
}

static void set_up(void)
{
	struct block_device_setup setup = { .serial = "disk", .loop = &loop };

	driver_init(&driver);
	require(guest_memory_allow_discard(&driver.memory, DRIVER_GUEST_BASE + 0x200000,
					   0x100000) == 0);
	require(event_loop_init(&loop) == 0);
	setup.fd = memfd_create("disk", MFD_CLOEXEC);
	require(setup.fd >= 0 && ftruncate(setup.fd, 65536) == 0);
	(void)block_device_new(&setup, &disk);
	close(setup.fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_device_operations checked;
	struct virtio_mmio_setup setup = {
		.operations = &checked,
		.memory = &driver.memory,
		.interrupt = on_interrupt,
		.violation = on_violation,
	};
	struct entropy_device *entropy = NULL;
	struct balloon_device *balloon = NULL;
	struct byte_reader input;
	uint8_t kind;

	if (!driver.bytes)
		set_up();
	memset(driver.bytes, 0, 2 * DRIVER_QUEUE_SPACE);
	memset(running, 0, sizeof(running));
	byte_reader_init(&input, data, size);
	require(entropy_device_new(&entropy) == 0 && balloon_device_new(&balloon) == 0);
	kind = byte_reader_u8(&input) & 3;
	if (kind >= 2 && disk) {
		real = &block_device_operations;
		setup.device = disk;
	} else if (kind & 1) {
		real = &entropy_device_operations;
		setup.device = entropy;
	} else {
		real = &balloon_device_operations;
		setup.device = balloon;
	}
	checked = *real;
	checked.start = checked_start;
	checked.stop = checked_stop;
	checked.kick = checked_kick;
	checked.run = checked_run;
	require(virtio_mmio_new(&setup, &transport) == 0);
	require(virtio_mmio_start(transport, &loop) == 0);
	for (int i = 0; i < STEPS_MAX && byte_reader_remaining(&input) > 0; i++) {
		step(&input);
		check_state();
	}
	virtio_mmio_free(transport);
	require(!running[0] && !running[1] && !running[2]);
	require(!disk || block_device_in_flight(disk) == 0);
	entropy_device_free(entropy);
	balloon_device_free(balloon);
	return 0;
}
