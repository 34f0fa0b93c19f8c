/* The block device behind its transport, on real files. */
#include "tests/unit/mmio_driver.h"
#include "vmm/block_device.h"
#include "vmm/block_request.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define FEATURE_RO (UINT64_C(1) << 5)
#define FEATURE_FLUSH (UINT64_C(1) << 9)
#define FEATURE_DISCARD (UINT64_C(1) << 13)
#define FEATURE_WRITE_ZEROES (UINT64_C(1) << 14)
#define DISK_SECTORS 4096u
#define DISK_LENGTH (DISK_SECTORS * BLOCK_SECTOR)
#define DATA (DRIVER_GUEST_BASE + 0x200000)
#define PENDING 0xee /* what a status byte holds until it is written */

static struct driver driver;
static struct event_loop loop;
static struct virtio_mmio *transport;
static struct block_device *disk;
static char path[] = "/tmp/matchlock-block-test-XXXXXX";
static int file;
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

static void bring_up(uint64_t own_features)
{
	ck_assert(mmio_bring_up(transport, &driver,
				MMIO_FEATURES | VIRTIO_FEATURE_INDIRECT_DESC | own_features, 1));
}

static void set_up_disk(bool read_only)
{
	struct block_device_setup setup = { .read_only = read_only,
					    .serial = "matchlock-disk-0123456789",
					    .loop = &loop };
	struct virtio_mmio_setup transport_setup = {
		.operations = &block_device_operations,
		.memory = &driver.memory,
		.interrupt = count_interrupt,
		.violation = note_violation,
	};

	driver_init(&driver);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	file = mkstemp(path);
	ck_assert_int_ge(file, 0);
	for (uint32_t i = 0; i < DISK_SECTORS; i++) {
		uint32_t sector[BLOCK_SECTOR / 4];

		for (size_t k = 0; k < BLOCK_SECTOR / 4; k++)
			sector[k] = i + 1;
		ck_assert_int_eq(pwrite(file, sector, sizeof(sector), (off_t)i * BLOCK_SECTOR),
				 sizeof(sector));
	}
	setup.fd = open(path, read_only ? O_RDONLY : O_RDWR);
	ck_assert_int_eq(block_device_new(&setup, &disk), 0);
	close(setup.fd); /* the ring holds the file */
	transport_setup.device = disk;
	ck_assert_int_eq(virtio_mmio_new(&transport_setup, &transport), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
	bring_up(FEATURE_FLUSH);
}

static void set_up(void)
{
	set_up_disk(false);
}

static void set_up_read_only(void)
{
	set_up_disk(true);
}

static void tear_down(void)
{
	virtio_mmio_free(transport);
	block_device_free(disk);
	event_loop_release(&loop);
	driver_release(&driver);
	close(file);
	unlink(path);
}

static void turn(void)
{
	int more = virtio_mmio_run(transport);

	ck_assert_int_ge(event_loop_run_once(&loop, more ? 0 : 20), 0);
}

/* Until as many requests were answered in all as the driver made. */
static void settle(void)
{
	const struct driver_queue *queue = &driver.queues[0];

	for (int i = 0; i < 2000 && violations == 0; i++) {
		turn();
		if (__atomic_load_n(&queue->used[1], __ATOMIC_ACQUIRE) == queue->available[1])
			return;
	}
	ck_assert_uint_gt(violations, 0);
}

static uint8_t *status_of(uint16_t index)
{
	return driver_bytes(&driver, driver_buffer(0, index) + 0x100);
}

/* Where a request of this index keeps its indirect table. */
static struct driver_descriptor *table_of(uint16_t index)
{
	return (void *)driver_bytes(&driver, driver_buffer(0, index) + 0x200);
}

static void put_header(uint64_t address, uint32_t type, uint64_t sector)
{
	uint8_t *header = driver_bytes(&driver, address);

	memset(header, 0, 16);
	memcpy(header, &type, sizeof(type));
	memcpy(header + 8, &sector, sizeof(sector));
}

/* Offers a request with one part of data, in an indirect table; `flags` is DRIVER_WRITE for data
 * that the device writes. Returns its index. */
static uint16_t request(uint32_t type, uint64_t sector, uint64_t data, uint32_t length,
			uint16_t flags)
{
	uint16_t index = driver.queues[0].next_descriptor++ % DRIVER_QUEUE_SIZE;
	uint64_t base = driver_buffer(0, index);
	struct driver_descriptor *table = table_of(index);
	uint16_t count = 0;

	put_header(base, type, sector);
	*status_of(index) = PENDING;
	table[count] = (struct driver_descriptor){ base, 16, DRIVER_NEXT, 1 };
	count++;
	if (length > 0) {
		table[count] = (struct driver_descriptor){ data, length, flags | DRIVER_NEXT, 2 };
		count++;
	}
	table[count] = (struct driver_descriptor){ base + 0x100, 1, DRIVER_WRITE, 0 };
	count++;
	driver_set(&driver, 0, index, base + 0x200, count * 16u, DRIVER_INDIRECT, 0);
	driver_offer(&driver, 0, index);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	return index;
}

/* One request, to its end. */
static uint8_t do_request(uint32_t type, uint64_t sector, uint32_t length, uint16_t flags)
{
	uint16_t index = request(type, sector, DATA, length, flags);

	settle();
	return *status_of(index);
}

static uint32_t last_used_length(void)
{
	const struct driver_queue *queue = &driver.queues[0];

	return queue->used_ring[(queue->used[1] - 1) % DRIVER_QUEUE_SIZE].length;
}

static uint32_t word_at(uint64_t guest_address)
{
	uint32_t word;

	memcpy(&word, driver_bytes(&driver, guest_address), sizeof(word));
	return word;
}

static uint32_t disk_word(uint64_t sector)
{
	uint32_t word;

	ck_assert_int_eq(pread(file, &word, sizeof(word), (off_t)(sector * BLOCK_SECTOR)),
			 sizeof(word));
	return word;
}

START_TEST(configuration)
{
	uint64_t capacity = 0;
	uint32_t value = 0;

	ck_assert_uint_eq(mmio_read(transport, 8), VIRTIO_ID_BLOCK);
	virtio_mmio_read(transport, MMIO_CONFIG, &capacity, 8);
	ck_assert_uint_eq(capacity, DISK_SECTORS);
	virtio_mmio_read(transport, MMIO_CONFIG + 12, &value, 4);
	ck_assert_uint_eq(value, VIRTQUEUE_CHAIN_MAX - 2);
	virtio_mmio_read(transport, MMIO_CONFIG + 20, &value, 4);
	ck_assert_uint_eq(value, BLOCK_SECTOR);
	virtio_mmio_read(transport, MMIO_CONFIG + 40, &value, 4);
	ck_assert_uint_eq(value, BLOCK_SEGMENTS_MAX);
	ck_assert_uint_eq(mmio_features(transport) & (FEATURE_RO | FEATURE_DISCARD),
			  FEATURE_DISCARD);
	/* Nothing in there is the driver's to write. */
	mmio_write(transport, MMIO_CONFIG, 1);
	virtio_mmio_read(transport, MMIO_CONFIG, &capacity, 8);
	ck_assert_uint_eq(capacity, DISK_SECTORS);
}
END_TEST

START_TEST(reads_and_writes)
{
	ck_assert_uint_eq(do_request(BLOCK_READ, 7, 1024, DRIVER_WRITE), BLOCK_OK);
	ck_assert_uint_eq(last_used_length(), 1025);
	ck_assert_uint_eq(word_at(DATA), 8);
	ck_assert_uint_eq(word_at(DATA + 512), 9);
	ck_assert_uint_eq(word_at(DATA + 1024), 0);
	memset(driver_bytes(&driver, DATA), 0x5a, 512);
	ck_assert_uint_eq(do_request(BLOCK_WRITE, DISK_SECTORS - 1, 512, 0), BLOCK_OK);
	ck_assert_uint_eq(last_used_length(), 1);
	ck_assert_uint_eq(disk_word(DISK_SECTORS - 1), 0x5a5a5a5a);
	ck_assert_uint_eq(disk_word(DISK_SECTORS - 2), DISK_SECTORS - 1);
	ck_assert_uint_eq(do_request(BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
	ck_assert_uint_gt(interrupts, 0);
	ck_assert_uint_eq(violations, 0);
	ck_assert_uint_eq(block_device_in_flight(disk), 0);
}
END_TEST

/* The standard lets a driver cut a request where it likes. */
START_TEST(odd_framing)
{
	uint64_t base = driver_buffer(0, 0);
	uint8_t *status = driver_bytes(&driver, DATA + 700 + 412);

	/* Header in two pieces; data in two, the last with the status at its end. */
	put_header(base, BLOCK_READ, 100);
	*status = PENDING;
	driver_set(&driver, 0, 0, base, 5, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, base + 5, 11, DRIVER_NEXT, 2);
	driver_set(&driver, 0, 2, DATA, 612, DRIVER_NEXT | DRIVER_WRITE, 3);
	driver_set(&driver, 0, 3, DATA + 700, 413, DRIVER_WRITE, 0);
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(*status, BLOCK_OK);
	ck_assert_uint_eq(word_at(DATA), 101);
	ck_assert_uint_eq(word_at(DATA + 512), 102);
	ck_assert_uint_eq(word_at(DATA + 700), 102);
	/* Header and data in one piece. */
	put_header(DATA, BLOCK_WRITE, 200);
	memset(driver_bytes(&driver, DATA + 16), 0x33, 512);
	driver_set(&driver, 0, 0, DATA, 528, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, base + 0x100, 1, DRIVER_WRITE, 0);
	*status_of(0) = PENDING;
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(*status_of(0), BLOCK_OK);
	ck_assert_uint_eq(disk_word(200), 0x33333333);
	ck_assert_uint_eq(disk_word(201), 202);
}
END_TEST

START_TEST(identity)
{
	ck_assert_uint_eq(do_request(BLOCK_GET_ID, 0, 20, DRIVER_WRITE), BLOCK_OK);
	ck_assert_mem_eq(driver_bytes(&driver, DATA), "matchlock-disk-01234", 20);
	ck_assert_uint_eq(last_used_length(), 21);
	memset(driver_bytes(&driver, DATA), 0, 64);
	ck_assert_uint_eq(do_request(BLOCK_GET_ID, 0, 64, DRIVER_WRITE), BLOCK_OK);
	ck_assert_uint_eq(driver_bytes(&driver, DATA)[20], 0);
	ck_assert_uint_eq(do_request(BLOCK_GET_ID, 0, 3, DRIVER_WRITE), BLOCK_OK);
	ck_assert_uint_eq(do_request(BLOCK_GET_ID, 0, 0, 0), BLOCK_OK);
}
END_TEST

static const struct {
	uint32_t type;
	uint64_t sector;
	uint32_t length;
	uint16_t flags;
	uint8_t status;
} answers[] = {
	{ BLOCK_READ, DISK_SECTORS, 512, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, DISK_SECTORS - 1, 1024, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, UINT64_MAX, 512, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, UINT64_MAX / 512, 1024, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, UINT64_MAX / 512 + 1, 512, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, INT64_MAX, 512, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, 0, 511, DRIVER_WRITE, BLOCK_IO_ERROR },
	{ BLOCK_READ, 0, 0, 0, BLOCK_IO_ERROR },
	{ BLOCK_READ, 0, 512, 0, BLOCK_IO_ERROR }, /* nowhere to read to */
	{ BLOCK_WRITE, DISK_SECTORS, 512, 0, BLOCK_IO_ERROR },
	{ BLOCK_WRITE, UINT64_MAX, 512, 0, BLOCK_IO_ERROR },
	{ BLOCK_WRITE, 0, 100, 0, BLOCK_IO_ERROR },
	{ BLOCK_WRITE, 0, 512, DRIVER_WRITE, BLOCK_IO_ERROR }, /* nothing to write */
	{ BLOCK_DISCARD, 0, 0, 0, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, 0, 15, 0, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, 0, 16, 0, BLOCK_IO_ERROR }, /* of no sectors */
	{ BLOCK_WRITE_ZEROES, 0, 16 * 17, 0, BLOCK_IO_ERROR },
	{ 2, 0, 512, 0, BLOCK_UNSUPPORTED },
	{ 14, 0, 512, 0, BLOCK_UNSUPPORTED },
	{ UINT32_MAX, 0, 512, DRIVER_WRITE, BLOCK_UNSUPPORTED },
};

START_TEST(answered_at_once)
{
	struct stat before, after;

	ck_assert_int_eq(fstat(file, &before), 0);
	ck_assert_uint_eq(do_request(answers[_i].type, answers[_i].sector, answers[_i].length,
				     answers[_i].flags),
			  answers[_i].status);
	ck_assert_int_eq(fstat(file, &after), 0);
	ck_assert_int_eq(before.st_size, after.st_size);
	ck_assert_int_eq(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
	ck_assert_uint_eq(violations, 0);
	/* And it lives. */
	ck_assert_uint_eq(do_request(BLOCK_READ, 0, 512, DRIVER_WRITE), BLOCK_OK);
}
END_TEST

START_TEST(more_data_than_allowed)
{
	struct driver_descriptor *table = table_of(0);
	uint64_t base = driver_buffer(0, 0);

	/* All of memory, many times over: each part is fine by itself. */
	put_header(base, BLOCK_READ, 0);
	table[0] = (struct driver_descriptor){ base, 16, DRIVER_NEXT, 1 };
	for (uint16_t i = 1; i < 31; i++)
		table[i] =
			(struct driver_descriptor){ DATA, DRIVER_MEMORY / 2,
						    DRIVER_WRITE | DRIVER_NEXT, (uint16_t)(i + 1) };
	table[31] = (struct driver_descriptor){ base + 0x100, 1, DRIVER_WRITE, 0 };
	driver_set(&driver, 0, 0, base + 0x200, 32 * 16, DRIVER_INDIRECT, 0);
	*status_of(0) = PENDING;
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(*status_of(0), BLOCK_IO_ERROR);
}
END_TEST

struct segment {
	uint64_t sector;
	uint32_t count;
	uint32_t flags;
};

static uint8_t do_segments(uint32_t type, const struct segment *segments, uint32_t count)
{
	memcpy(driver_bytes(&driver, DATA), segments, count * sizeof(*segments));
	return do_request(type, 0, count * (uint32_t)sizeof(*segments), 0);
}

START_TEST(discards_and_zeroes)
{
	const struct segment discarded[] = { { 0, 64, 0 }, { 1024, 1024, 0 } };
	const struct segment zeroed[] = { { 300, 3, 0 }, { 400, 8, 1 }, { 4095, 1, 0 } };
	struct stat before, after;

	ck_assert_int_eq(fstat(file, &before), 0);
	ck_assert_uint_eq(do_segments(BLOCK_DISCARD, discarded, 2), BLOCK_OK);
	ck_assert_int_eq(fstat(file, &after), 0);
	ck_assert_int_eq(before.st_size, after.st_size);
	ck_assert_int_le(after.st_blocks + 1088, before.st_blocks);
	ck_assert_uint_eq(disk_word(63), 0);
	ck_assert_uint_eq(disk_word(64), 65);
	ck_assert_uint_eq(disk_word(1023), 1024);
	ck_assert_uint_eq(disk_word(1024), 0);
	ck_assert_uint_eq(disk_word(2048), 2049);
	ck_assert_uint_eq(do_segments(BLOCK_WRITE_ZEROES, zeroed, 3), BLOCK_OK);
	ck_assert_uint_eq(disk_word(299), 300);
	ck_assert_uint_eq(disk_word(300), 0);
	ck_assert_uint_eq(disk_word(302), 0);
	ck_assert_uint_eq(disk_word(303), 304);
	ck_assert_uint_eq(disk_word(400), 0);
	ck_assert_uint_eq(disk_word(408), 409);
	ck_assert_uint_eq(disk_word(4095), 0);
	ck_assert_int_eq(fstat(file, &after), 0);
	ck_assert_int_eq(after.st_size, DISK_LENGTH);
}
END_TEST

static const struct {
	uint32_t type;
	struct segment segment;
	uint8_t status;
} bad_segments[] = {
	{ BLOCK_DISCARD, { DISK_SECTORS, 1, 0 }, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, { DISK_SECTORS - 1, 2, 0 }, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, { UINT64_MAX, 1, 0 }, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, { UINT64_MAX - 1, UINT32_MAX, 0 }, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, { 0, UINT32_MAX, 0 }, BLOCK_IO_ERROR },
	{ BLOCK_DISCARD, { 0, 1, 1 }, BLOCK_UNSUPPORTED },
	{ BLOCK_WRITE_ZEROES, { 0, 1, 2 }, BLOCK_UNSUPPORTED },
	{ BLOCK_WRITE_ZEROES, { 0, 1, 0x80000001 }, BLOCK_UNSUPPORTED },
	{ BLOCK_WRITE_ZEROES, { UINT64_MAX / 512 + 1, 1, 0 }, BLOCK_IO_ERROR },
};

START_TEST(bad_segment)
{
	const struct segment pair[] = { { 10, 1, 0 }, bad_segments[_i].segment };

	ck_assert_uint_eq(do_segments(bad_segments[_i].type, pair, 2), bad_segments[_i].status);
	/* The good one before it was not carried out either. */
	ck_assert_uint_eq(disk_word(10), 11);
}
END_TEST

START_TEST(read_only_disk)
{
	const struct segment segment = { 0, 1, 0 };

	ck_assert_uint_eq(mmio_features(transport) & (FEATURE_RO | FEATURE_DISCARD), FEATURE_RO);
	ck_assert_uint_eq(do_request(BLOCK_READ, 3, 512, DRIVER_WRITE), BLOCK_OK);
	ck_assert_uint_eq(word_at(DATA), 4);
	ck_assert_uint_eq(do_request(BLOCK_WRITE, 3, 512, 0), BLOCK_IO_ERROR);
	ck_assert_uint_eq(do_segments(BLOCK_DISCARD, &segment, 1), BLOCK_IO_ERROR);
	ck_assert_uint_eq(do_segments(BLOCK_WRITE_ZEROES, &segment, 1), BLOCK_IO_ERROR);
	ck_assert_uint_eq(do_request(BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
	ck_assert_uint_eq(disk_word(0), 1);
	ck_assert_uint_eq(disk_word(3), 4);
}
END_TEST

static void expect_broken(const char *text)
{
	driver_offer(&driver, 0, 0);
	mmio_write(transport, MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(mmio_read(transport, MMIO_STATUS), MMIO_UP | MMIO_NEEDS_RESET);
	ck_assert_str_eq(last_violation, text);
	ck_assert_uint_eq(driver.queues[0].used[1], 0);
	/* A reset heals it. */
	violations = 0;
	bring_up(FEATURE_FLUSH);
	ck_assert_uint_eq(do_request(BLOCK_READ, 0, 512, DRIVER_WRITE), BLOCK_OK);
}

START_TEST(no_header)
{
	driver_set(&driver, 0, 0, DATA, 15, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, DATA, 513, DRIVER_WRITE, 0);
	expect_broken("block request without a header");
}
END_TEST

START_TEST(no_status)
{
	driver_set(&driver, 0, 0, DATA, 528, 0, 0);
	expect_broken("block request without a place for its status");
}
END_TEST

START_TEST(header_alone_writable)
{
	driver_set(&driver, 0, 0, DATA, 16, DRIVER_WRITE, 0);
	expect_broken("block request without a header");
}
END_TEST

START_TEST(data_outside_memory)
{
	driver_set(&driver, 0, 0, DATA, 16, DRIVER_NEXT, 1);
	driver_set(&driver, 0, 1, DRIVER_GUEST_BASE + DRIVER_MEMORY - 512, 1024,
		   DRIVER_NEXT | DRIVER_WRITE, 2);
	driver_set(&driver, 0, 2, DATA, 1, DRIVER_WRITE, 0);
	expect_broken("descriptor outside guest memory");
}
END_TEST

START_TEST(many_at_once)
{
	for (int round = 0; round < 8; round++) {
		uint16_t first = driver.queues[0].next_descriptor;

		for (uint32_t i = 0; i < DRIVER_QUEUE_SIZE; i++)
			(void)request(BLOCK_READ, i * 8, DATA + i * 4096, 4096, DRIVER_WRITE);
		settle();
		for (uint16_t i = 0; i < DRIVER_QUEUE_SIZE; i++) {
			ck_assert_uint_eq(*status_of((uint16_t)(first + i) % DRIVER_QUEUE_SIZE),
					  BLOCK_OK);
			ck_assert_uint_eq(word_at(DATA + i * 4096u), i * 8u + 1);
			ck_assert_uint_eq(word_at(DATA + i * 4096u + 3584), i * 8u + 8);
		}
	}
	ck_assert_uint_eq(violations, 0);
	ck_assert_uint_eq(block_device_in_flight(disk), 0);
}
END_TEST

/* Writes that are synchronised take a while, so that a reset finds them on their way. */
START_TEST(reset_in_flight)
{
	unsigned seen = 0;

	for (int round = 0; round < 20; round++) {
		static uint8_t copy[DRIVER_MEMORY];

		bring_up(0);
		for (uint32_t i = 0; i < DRIVER_QUEUE_SIZE; i++)
			(void)request(i % 2 ? BLOCK_WRITE : BLOCK_READ, i * 64, DATA + i * 32768,
				      32768, i % 2 ? 0 : DRIVER_WRITE);
		(void)event_loop_run_once(&loop, 0);
		(void)virtio_mmio_run(transport);
		seen += block_device_in_flight(disk);
		mmio_write(transport, MMIO_STATUS, 0);
		ck_assert_uint_eq(block_device_in_flight(disk), 0);
		/* From here on nothing touches the guest's memory. */
		memset(driver.bytes, 0xa5, DRIVER_MEMORY);
		memset(copy, 0xa5, DRIVER_MEMORY);
		(void)poll(NULL, 0, 5);
		(void)event_loop_run_once(&loop, 0);
		(void)virtio_mmio_run(transport);
		ck_assert_int_eq(memcmp(driver.bytes, copy, DRIVER_MEMORY), 0);
	}
	ck_assert_uint_gt(seen, 0);
	bring_up(FEATURE_FLUSH);
	ck_assert_uint_eq(do_request(BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
}
END_TEST

static atomic_bool vcpu_done;

/* Another thread brings the disk up, asks for much, and resets it; then all of memory is its own.
 */
static void *resetting_vcpu(void *argument)
{
	static uint8_t copy[DRIVER_MEMORY];

	for (int round = 0; round < 20; round++) {
		if (!mmio_bring_up(transport, &driver, MMIO_FEATURES | VIRTIO_FEATURE_INDIRECT_DESC,
				   1))
			abort();
		for (uint32_t i = 0; i < DRIVER_QUEUE_SIZE; i++)
			(void)request(i % 2 ? BLOCK_WRITE : BLOCK_READ, i * 64, DATA + i * 32768,
				      32768, i % 2 ? 0 : DRIVER_WRITE);
		(void)poll(NULL, 0, round % 4);
		mmio_write(transport, MMIO_STATUS, 0);
		memset(driver.bytes, 0xa5, DRIVER_MEMORY);
		memset(copy, 0xa5, DRIVER_MEMORY);
		(void)poll(NULL, 0, 3);
		if (memcmp(driver.bytes, copy, DRIVER_MEMORY) != 0)
			abort();
	}
	atomic_store(&vcpu_done, true);
	return argument;
}

START_TEST(reset_by_a_vcpu)
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, resetting_vcpu, NULL), 0);
	while (!atomic_load(&vcpu_done))
		turn();
	pthread_join(thread, NULL);
	ck_assert_uint_eq(violations, 0);
	ck_assert_uint_eq(block_device_in_flight(disk), 0);
}
END_TEST

START_TEST(stop_in_flight)
{
	bring_up(0);
	for (uint32_t i = 0; i < DRIVER_QUEUE_SIZE; i++)
		(void)request(BLOCK_WRITE, i * 64, DATA + i * 32768, 32768, 0);
	(void)event_loop_run_once(&loop, 0);
	(void)virtio_mmio_run(transport);
	virtio_mmio_stop(transport);
	ck_assert_uint_eq(block_device_in_flight(disk), 0);
}
END_TEST

START_TEST(file_shrinks)
{
	ck_assert_int_eq(ftruncate(file, 10 * BLOCK_SECTOR), 0);
	ck_assert_uint_eq(do_request(BLOCK_READ, 20, 512, DRIVER_WRITE), BLOCK_IO_ERROR);
	/* Half of it is there: that is no success either. */
	ck_assert_uint_eq(do_request(BLOCK_READ, 9, 1024, DRIVER_WRITE), BLOCK_IO_ERROR);
	ck_assert_uint_eq(do_request(BLOCK_READ, 9, 512, DRIVER_WRITE), BLOCK_OK);
}
END_TEST

START_TEST(unfit_files)
{
	struct block_device_setup setup = { .serial = "", .loop = &loop };
	struct block_device *other = NULL;
	int ends[2];

	setup.fd = open(path, O_RDONLY);
	ck_assert_int_eq(block_device_new(&setup, &other), -EACCES);
	close(setup.fd);
	setup.fd = open(path, O_RDWR | O_APPEND);
	ck_assert_int_eq(block_device_new(&setup, &other), -EINVAL);
	close(setup.fd);
	setup.fd = open(path, O_WRONLY);
	setup.read_only = true;
	ck_assert_int_eq(block_device_new(&setup, &other), -EACCES);
	close(setup.fd);
	setup.fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(block_device_new(&setup, &other), -EINVAL);
	close(setup.fd);
	ck_assert_int_eq(pipe(ends), 0);
	setup.fd = ends[0];
	ck_assert_int_eq(block_device_new(&setup, &other), -EINVAL);
	close(ends[0]);
	close(ends[1]);
	setup.fd = -1;
	ck_assert_int_eq(block_device_new(&setup, &other), -EBADF);
	ck_assert_ptr_null(other);
}
END_TEST

/* Another file takes the place of the disk's. */
static void replace_disk(int fd, uint64_t own_features)
{
	struct virtio_mmio_setup transport_setup = {
		.operations = &block_device_operations,
		.memory = &driver.memory,
		.interrupt = count_interrupt,
		.violation = note_violation,
	};
	struct block_device_setup setup = { .fd = fd, .serial = "s", .loop = &loop };

	virtio_mmio_free(transport);
	block_device_free(disk);
	ck_assert_int_eq(block_device_new(&setup, &disk), 0);
	transport_setup.device = disk;
	ck_assert_int_eq(virtio_mmio_new(&transport_setup, &transport), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
	bring_up(own_features);
	close(file);
	file = fd;
}

/* tmpfs cannot zero a range but by a hole. */
START_TEST(file_without_zero_range)
{
	const struct segment segment = { 1, 2, 0 };
	int fd = memfd_create("disk", MFD_CLOEXEC);

	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(write(fd, (uint8_t[512]){ 1, 2, 3, 4 }, 512), 512);
	replace_disk(fd, FEATURE_FLUSH);
	ck_assert_uint_eq(do_segments(BLOCK_WRITE_ZEROES, &segment, 1), BLOCK_OK);
	ck_assert_uint_eq(disk_word(0), 0x04030201);
	ck_assert_uint_eq(disk_word(1), 0);
	ck_assert_uint_eq(disk_word(2), 0);
	ck_assert_uint_eq(disk_word(3), 0x04030201);
}
END_TEST

/* ---- what is on the disk when a request is answered --------------------------------------------
 *
 * A page of a file that is not on the disk yet is dirty in any mapping of it that has touched it
 * (proc(5), smaps). The file lies beside this program, since /tmp may be memory, where all pages
 * are dirty for ever.
 */

#define SYNC_LENGTH (256u * 1024)
#define PAGE 4096u

static int disk_file(void)
{
	char name[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", name, sizeof(name) - sizeof("-XXXXXX"));
	int fd;

	if (length <= 0)
		return -1;
	memcpy(name + length, "-XXXXXX", sizeof("-XXXXXX"));
	fd = mkostemp(name, O_CLOEXEC);
	if (fd >= 0)
		(void)unlink(name);
	return fd;
}

static bool disk_is_memory(void)
{
	struct statfs system = { 0 };
	int fd = disk_file();
	bool is_memory = fd < 0 || fstatfs(fd, &system) < 0 || system.f_type == TMPFS_MAGIC ||
			 system.f_type == RAMFS_MAGIC;

	if (fd >= 0)
		close(fd);
	return is_memory;
}

/* Dirty pages of a mapping, in KiB. */
static unsigned dirty_of(const volatile uint8_t *mapping)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	unsigned dirty = 0, sum = 0, value;
	char line[PATH_MAX + 128];
	bool inside = false;
	uintptr_t start, end;

	ck_assert_ptr_nonnull(maps);
	for (unsigned at = 0; at < SYNC_LENGTH; at += PAGE)
		sum += mapping[at];
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2)
			inside = start == (uintptr_t)mapping;
		else if (inside && (sscanf(line, "Shared_Dirty: %u", &value) == 1 ||
				    sscanf(line, "Private_Dirty: %u", &value) == 1))
			dirty += value;
	}
	(void)fclose(maps);
	ck_assert_uint_gt(sum, 0);
	return dirty;
}

/* A disk of which nothing is dirty, and its mapping. */
static const uint8_t *clean_disk(uint64_t own_features)
{
	static uint8_t bytes[SYNC_LENGTH];
	const uint8_t *mapping;
	int fd = disk_file();

	memset(bytes, 0x11, sizeof(bytes));
	ck_assert_int_eq(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	ck_assert_int_eq(fsync(fd), 0);
	mapping = mmap(NULL, SYNC_LENGTH, PROT_READ, MAP_SHARED, fd, 0);
	ck_assert(mapping != MAP_FAILED);
	replace_disk(fd, own_features);
	ck_assert_uint_eq(dirty_of(mapping), 0);
	return mapping;
}

START_TEST(a_flush_waits_for_the_disk)
{
	const uint8_t *mapping = clean_disk(FEATURE_FLUSH);
	unsigned dirty = 0;

	/* The kernel may begin to write by itself, at any moment. */
	for (int i = 0; i < 10 && dirty == 0; i++) {
		memset(driver_bytes(&driver, DATA), 0x22 + i, PAGE);
		ck_assert_uint_eq(do_request(BLOCK_WRITE, 8, PAGE, 0), BLOCK_OK);
		dirty = dirty_of(mapping);
	}
	ck_assert_uint_gt(dirty, 0);
	ck_assert_uint_eq(do_request(BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
	ck_assert_uint_eq(dirty_of(mapping), 0);
	ck_assert_uint_eq(mapping[PAGE], driver_bytes(&driver, DATA)[0]);
}
END_TEST

/* Such a driver takes an answer for "on the disk". */
START_TEST(without_flushes_each_write_waits_for_the_disk)
{
	const uint8_t *mapping = clean_disk(0);

	for (uint64_t sector = 0; sector < 64; sector += 16) {
		memset(driver_bytes(&driver, DATA), 0x22, PAGE);
		ck_assert_uint_eq(do_request(BLOCK_WRITE, sector, PAGE, 0), BLOCK_OK);
		ck_assert_uint_eq(dirty_of(mapping), 0);
		ck_assert_uint_eq(mapping[sector * BLOCK_SECTOR], 0x22);
	}
}
END_TEST

/* Less than a page is zeroed in memory, and the page is dirty. */
static unsigned dirty_after_zeroing(const uint8_t *mapping, uint64_t sector)
{
	const struct segment segments[] = { { sector, 1, 0 }, { sector + 16, 1, 0 } };

	ck_assert_uint_eq(do_segments(BLOCK_WRITE_ZEROES, segments, 2), BLOCK_OK);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(mapping[(sector + i * 16) * BLOCK_SECTOR], 0);
		ck_assert_uint_eq(mapping[(sector + i * 16 + 1) * BLOCK_SECTOR], 0x11);
	}
	return dirty_of(mapping);
}

START_TEST(zeroes_wait_for_the_disk_as_writes_do)
{
	const uint8_t *mapping = clean_disk(FEATURE_FLUSH | FEATURE_WRITE_ZEROES);
	unsigned dirty = 0;

	for (uint64_t sector = 1; sector < 8 && dirty == 0; sector++)
		dirty = dirty_after_zeroing(mapping, sector);
	ck_assert_uint_gt(dirty, 0);
	mapping = clean_disk(FEATURE_WRITE_ZEROES);
	for (uint64_t sector = 1; sector < 8; sector++)
		ck_assert_uint_eq(dirty_after_zeroing(mapping, sector), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("block_device");
	TCase *tests = tcase_create("writable");
	TCase *read_only_tests = tcase_create("read-only");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, configuration);
	tcase_add_test(tests, reads_and_writes);
	tcase_add_test(tests, odd_framing);
	tcase_add_test(tests, identity);
	tcase_add_loop_test(tests, answered_at_once, 0,
			    (int)(sizeof(answers) / sizeof(answers[0])));
	tcase_add_test(tests, more_data_than_allowed);
	tcase_add_test(tests, discards_and_zeroes);
	tcase_add_loop_test(tests, bad_segment, 0,
			    (int)(sizeof(bad_segments) / sizeof(bad_segments[0])));
	tcase_add_test(tests, no_header);
	tcase_add_test(tests, no_status);
	tcase_add_test(tests, header_alone_writable);
	tcase_add_test(tests, data_outside_memory);
	tcase_add_test(tests, many_at_once);
	tcase_add_test(tests, reset_in_flight);
	tcase_add_test(tests, reset_by_a_vcpu);
	tcase_add_test(tests, stop_in_flight);
	tcase_add_test(tests, file_shrinks);
	tcase_add_test(tests, unfit_files);
	tcase_add_test(tests, file_without_zero_range);
	if (disk_is_memory()) {
		printf("# not tested: what is on the disk; this program lies in memory\n");
	} else {
		tcase_add_test(tests, a_flush_waits_for_the_disk);
		tcase_add_test(tests, without_flushes_each_write_waits_for_the_disk);
		tcase_add_test(tests, zeroes_wait_for_the_disk_as_writes_do);
	}
	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(read_only_tests, set_up_read_only, tear_down);
	tcase_add_test(read_only_tests, read_only_disk);
	suite_add_tcase(suite, read_only_tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
