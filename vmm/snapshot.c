/*
 * Theory of operation
 *
 * A guest that has just started uses a small part of its memory. Which pages the host has given it
 * mincore() tells, in whole huge pages where these are in use; of those the zero ones are left out,
 * for fresh memory is zero. What remains are runs of pages, which are written one after another.
 * Where there would be too many runs, small gaps between them are written as well.
 */
#include "vmm/snapshot.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define RESIDENT_PAGES 512 /* asked for at a time */
#define GAP_FACTOR 8

struct run {
	uint64_t address; /* the guest's */
	uint64_t length;
};
_Static_assert(sizeof(struct run) == 16, "stored layout");

struct run_list {
	struct run *runs; /* SNAPSHOT_RUNS_MAX of them */
	size_t count;
	uint64_t gap; /* bytes between two runs that are written rather than left out */
};

static size_t state_length(const struct snapshot_state *state)
{
	return offsetof(struct snapshot_state, processors) +
	       state->cpus * sizeof(state->processors[0]);
}

/* Where the runs' bytes begin. */
static uint64_t data_offset(const struct snapshot_state *state)
{
	uint64_t end = state_length(state) + state->run_count * sizeof(struct run);

	return (end + PAGE - 1) / PAGE * PAGE;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static bool is_zero(const uint8_t *page)
{
	uint64_t first;

	memcpy(&first, page, sizeof(first));
	return first == 0 && memcmp(page, page + sizeof(first), PAGE - sizeof(first)) == 0;
}

static int add_page(struct run_list *list, uint64_t address)
{
	struct run *last = list->count > 0 ? &list->runs[list->count - 1] : NULL;

	if (last && address - (last->address + last->length) <= list->gap) {
		last->length = address + PAGE - last->address;
		return 0;
	}
	if (list->count == SNAPSHOT_RUNS_MAX)
		return -E2BIG;
	list->runs[list->count++] = (struct run){ address, PAGE };
	return 0;
}

static int add_region(struct run_list *list, const struct guest_region *region)
{
	unsigned char resident[RESIDENT_PAGES];
	uint64_t step = RESIDENT_PAGES * PAGE;

	for (uint64_t at = 0; at < region->length; at += step) {
		uint64_t length = MIN_OF(step, region->length - at);

		if (mincore(region->host + at, (size_t)length, resident) < 0)
			return -errno;
		for (uint64_t page = 0; page < length; page += PAGE) {
			if (!(resident[page / PAGE] & 1) || is_zero(region->host + at + page))
				continue;
			if (add_page(list, region->guest_address + at + page) < 0)
				return -E2BIG;
		}
	}
	return 0;
}

static int find_runs(struct run_list *list, const struct guest_memory *memory)
{
	int r = 0;

	list->count = 0;
	for (size_t i = 0; r == 0 && i < memory->count; i++) {
		if (memory->regions[i].is_private)
			r = add_region(list, &memory->regions[i]);
	}
	return r;
}

static int write_fully(int fd, const void *data, size_t length, uint64_t offset)
{
	const uint8_t *bytes = data;

	while (length > 0) {
		ssize_t count = pwrite(fd, bytes, length, (off_t)offset);

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return count < 0 ? -errno : -EIO;
		bytes += count;
		offset += (uint64_t)count;
		length -= (size_t)count;
	}
	return 0;
}

static int write_runs(int fd, const struct snapshot_state *state, const struct run_list *list,
		      const struct guest_memory *memory)
{
	uint64_t offset = data_offset(state);
	int r = write_fully(fd, list->runs, list->count * sizeof(list->runs[0]),
			    state_length(state));

	for (size_t i = 0; r == 0 && i < list->count; i++) {
		const struct run *run = &list->runs[i];
		const void *bytes = gpa_range(memory, run->address, run->length);

		/* A gap was closed between two regions. */
		if (!bytes)
			return -E2BIG;
		r = write_fully(fd, bytes, (size_t)run->length, offset);
		offset += run->length;
	}
	return r;
}

int snapshot_write(int fd, struct snapshot_state *state, const struct guest_memory *memory)
{
	cleanup_free struct run *runs = calloc(SNAPSHOT_RUNS_MAX, sizeof(*runs));
	struct run_list list = { .runs = runs };
	int r;

	if (!runs)
		return -ENOMEM;
	while ((r = find_runs(&list, memory)) == -E2BIG && list.gap < GUEST_RAM_MAX)
		list.gap = list.gap ? GAP_FACTOR * list.gap : PAGE;
	if (r < 0)
		return r;
	state->magic = SNAPSHOT_MAGIC;
	state->run_count = list.count;
	state->byte_count = 0;
	for (size_t i = 0; i < list.count; i++)
		state->byte_count += runs[i].length;
	r = write_runs(fd, state, &list, memory);
	return r < 0 ? r : write_fully(fd, state, state_length(state), 0);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static int read_part(int fd, void *target, size_t length, uint64_t offset)
{
	int r = pread_full(fd, target, length, offset);

	return r == -ENODATA ? -EINVAL : r;
}

static bool counts_possible(const struct snapshot_state *state, uint64_t file_length)
{
	return state->magic == SNAPSHOT_MAGIC && state->cpus >= 1 &&
	       state->cpus <= PLATFORM_CPUS_MAX && state->devices <= PLATFORM_VIRTIO_MAX &&
	       state->run_count <= SNAPSHOT_RUNS_MAX && state->byte_count <= file_length &&
	       file_length == data_offset(state) + state->byte_count &&
	       state->cpuid.count <= KVM_CPUID_ENTRIES_MAX &&
	       memchr(state->identity, '\0', sizeof(state->identity)) != NULL;
}

int snapshot_read_state(int fd, struct snapshot_state *ret_state)
{
	const size_t fixed = offsetof(struct snapshot_state, processors);
	struct stat status;
	int r;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size == 0)
		return -ENODATA;
	r = read_part(fd, ret_state, fixed, 0);
	if (r < 0)
		return r;
	if (!counts_possible(ret_state, (uint64_t)status.st_size))
		return -EINVAL;
	return read_part(fd, ret_state->processors, state_length(ret_state) - fixed, fixed);
}

static bool in_private_memory(const struct guest_memory *memory, const struct run *run)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_region *region = &memory->regions[i];

		if (region->is_private && run->address >= region->guest_address &&
		    run->address - region->guest_address < region->length &&
		    run->length <= region->length - (run->address - region->guest_address))
			return true;
	}
	return false;
}

int snapshot_read_memory(int fd, const struct snapshot_state *state,
			 const struct guest_memory *memory)
{
	const size_t count = (size_t)state->run_count;
	cleanup_free struct run *runs = calloc(count + 1, sizeof(*runs));
	uint64_t offset = data_offset(state);
	uint64_t left = state->byte_count;
	int r;

	if (!runs)
		return -ENOMEM;
	r = read_part(fd, runs, count * sizeof(*runs), state_length(state));
	for (size_t i = 0; r == 0 && i < count; i++) {
		if (runs[i].length == 0 || runs[i].length > left ||
		    !in_private_memory(memory, &runs[i]))
			return -EINVAL;
		r = read_part(fd, gpa_range(memory, runs[i].address, runs[i].length),
			      (size_t)runs[i].length, offset);
		offset += runs[i].length;
		left -= runs[i].length;
	}
	return r == 0 && left > 0 ? -EINVAL : r;
}

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_mincore),
	JAIL_CALL(SYS_pwrite64),
};
const struct jail_syscall_set snapshot_write_calls = JAIL_SET(calls);
