/*
 * A stored machine whose file was changed: it is read as the VMM reads it, into memory that is
 * fresh, and what it says of devices goes to real ones, which are then run.
 *
 * Input: u8 flags (bit 0: the file gets the length that it says), then changes: u32 offset (modulo
 * the file's length), u8 count (modulo 9), and so many bytes.
 */
#include "base/bytes.h"
#include "base/checked.h"
#include "vmm/balloon_device.h"
#include "vmm/entropy_device.h"
#include "vmm/snapshot.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOW (UINT64_C(64) << 20)
#define WINDOW_ADDRESS (UINT64_C(48) << 20)
#define WINDOW_LENGTH (UINT64_C(2) << 20)
#define PAGES 4
#define CHANGES_MAX 64
#define LENGTH_MAX (UINT64_C(1) << 20)
#define QUEUE_SIZE 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guest_ram_layout layout;
static struct event_loop loop;
static int good = -1, window = -1;
static size_t good_length;
static uint8_t *good_bytes;

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void ignore_interrupt(void *context)
{
	(void)context;
}

static void ignore_violation(void *context, const char *what)
{
	(void)context;
	(void)what;
}

static struct virtio_mmio *make_transport(const struct virtio_device_operations *operations,
					  void *device, const struct guest_memory *memory)
{
	const struct virtio_mmio_setup setup = {
		.operations = operations,
		.device = device,
		.memory = memory,
		.interrupt = ignore_interrupt,
		.violation = ignore_violation,
	};
	struct virtio_mmio *transport;

	require(virtio_mmio_new(&setup, &transport) == 0);
	return transport;
}

/* What a driver has brought up. */
static struct virtio_mmio_image image_of(const struct virtio_device_operations *operations,
					 const void *device)
{
	struct virtio_mmio_image image = {
		.features = operations->features(device),
		.device_id = operations->id,
		.queue_count = operations->queue_count,
		.registers = { .driver_features = operations->features(device), .status = 15 },
	};

	operations->read_config(device, 0, image.config, sizeof(image.config));
	for (unsigned i = 0; i < operations->queue_count; i++)
		image.registers.queues[i] = (struct virtio_mmio_queue_state){
			.descriptors = 0x1000 * (i + 1),
			.available = 0x1000 * (i + 1) + 0x400,
			.used = 0x1000 * (i + 1) + 0x800,
			.size = QUEUE_SIZE,
			.ready = 1,
		};
	return image;
}

static void make_good(void)
{
	static struct snapshot_state state = { .cpus = 1, .devices = 2, .identity = "this" };
	struct guest_memory memory = { 0 };
	struct entropy_device *entropy = NULL;
	struct balloon_device *balloon = NULL;

	window = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	good = memfd_create("good", MFD_CLOEXEC);
	require(window >= 0 && good >= 0 && ftruncate(window, (off_t)LOW) == 0 &&
		fcntl(window, F_ADD_SEALS, F_SEAL_SHRINK) == 0 && event_loop_init(&loop) == 0);
	require(guest_ram_layout(LOW, WINDOW_ADDRESS, WINDOW_LENGTH, &layout) == 0 &&
		guest_ram_map(&layout, window, &memory) == 0);
	for (uint64_t i = 0; i < PAGES; i++)
		memset(gpa_range(&memory, 2 * i * 4096, 4096), 1, 8);
	require(entropy_device_new(&entropy) == 0 && balloon_device_new(&balloon) == 0);
	state.ram = layout;
	state.transports[0] = image_of(&entropy_device_operations, entropy);
	state.transports[1] = image_of(&balloon_device_operations, balloon);
	require(snapshot_write(good, &state, &memory) == 0);
	good_length = (size_t)lseek(good, 0, SEEK_END);
	good_bytes = malloc(good_length);
	require(good_bytes && pread(good, good_bytes, good_length, 0) == (ssize_t)good_length);
	entropy_device_free(entropy);
	balloon_device_free(balloon);
	guest_memory_release(&memory);
}

static void change(struct byte_reader *reader, uint8_t *bytes)
{
	for (int i = 0; i < CHANGES_MAX && byte_reader_remaining(reader) >= 5; i++) {
		uint32_t offset = byte_reader_u32(reader) % (uint32_t)good_length;
		uint8_t count = byte_reader_u8(reader) % 9;

		for (; count > 0 && byte_reader_remaining(reader) > 0; count--, offset++) {
			uint8_t byte = byte_reader_u8(reader);

			if (offset < good_length)
				bytes[offset] = byte;
		}
	}
}

/* As the state says. */
static uint64_t said_length(const uint8_t *bytes)
{
	static struct snapshot_state state;
	uint64_t length;

	memcpy(&state, bytes, offsetof(struct snapshot_state, processors));
	length = offsetof(struct snapshot_state, processors) +
		 (uint64_t)state.cpus * sizeof(state.processors[0]) + state.run_count * 16;
	length = (length + 4095) / 4096 * 4096 + state.byte_count;
	return length > 0 && length < LENGTH_MAX ? length : good_length;
}

static void run_device(struct virtio_mmio *transport, const struct virtio_mmio_image *image)
{
	if (virtio_mmio_restore(transport, image) == 0) {
		struct virtio_mmio_image same;

		require(virtio_mmio_start(transport, &loop) == 0);
		if (virtio_mmio_save(transport, &same) == 0)
			require(memcmp(&same.registers.queues, &image->registers.queues,
				       sizeof(same.registers.queues)) == 0);
		for (int i = 0; i < 4; i++) {
			(void)event_loop_run_once(&loop, 0);
			(void)virtio_mmio_run(transport);
		}
	}
	virtio_mmio_free(transport);
}

static void go_on(int fd, const struct guest_memory *memory)
{
	struct snapshot_state *state = malloc(sizeof(*state));
	struct entropy_device *entropy = NULL;
	struct balloon_device *balloon = NULL;

	require(state && entropy_device_new(&entropy) == 0 && balloon_device_new(&balloon) == 0);
	if (snapshot_read_state(fd, state) == 0) {
		require(state->cpus >= 1 && state->cpus <= PLATFORM_CPUS_MAX &&
			state->devices <= PLATFORM_VIRTIO_MAX);
		if (snapshot_read_memory(fd, state, memory) == 0) {
			run_device(make_transport(&entropy_device_operations, entropy, memory),
				   &state->transports[0]);
			run_device(make_transport(&balloon_device_operations, balloon, memory),
				   &state->transports[1]);
		}
	}
	entropy_device_free(entropy);
	balloon_device_free(balloon);
	free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_memory memory = { 0 };
	struct byte_reader reader;
	uint8_t flags, *bytes;
	int fd;

	if (good < 0)
		make_good();
	byte_reader_init(&reader, data, size);
	flags = byte_reader_u8(&reader);
	bytes = malloc(good_length);
	require(bytes != NULL);
	memcpy(bytes, good_bytes, good_length);
	change(&reader, bytes);
	fd = memfd_create("snapshot", MFD_CLOEXEC);
	require(fd >= 0 && pwrite(fd, bytes, good_length, 0) == (ssize_t)good_length);
	if (flags & 1)
		require(ftruncate(fd, (off_t)said_length(bytes)) == 0);
	require(guest_ram_map(&layout, window, &memory) == 0);
	go_on(fd, &memory);
	guest_memory_release(&memory);
	close(fd);
	free(bytes);
	return 0;
}
