/*
 * Where an access of a vCPU to I/O ports or to addresses without memory goes: by address range, to
 * the device that claimed it. One bus for ports, one for memory-mapped registers.
 *
 * The guest chooses address, width and alignment. What no single range holds as a whole reads as
 * all ones, as on a PC, and takes writes without effect. Ranges are added before the first vCPU
 * runs; afterwards the bus is constant, so that vCPUs use it without a lock. Devices do their own
 * locking.
 */
#ifndef VMM_IO_BUS_H
#define VMM_IO_BUS_H

#include <stddef.h>
#include <stdint.h>

#define IO_BUS_RANGES_MAX 32
#define IO_BUS_WIDTH_MAX 8

struct io_range {
	uint64_t base;
	uint64_t length;
	/* `offset` + `length` is within the range; `length` is 1..IO_BUS_WIDTH_MAX; little-endian.
	 * Any vCPU thread. */
	void (*read)(void *owner, uint64_t offset, uint8_t *data, size_t length);
	void (*write)(void *owner, uint64_t offset, const uint8_t *data, size_t length);
	void *owner;
};

struct io_bus {
	struct io_range ranges[IO_BUS_RANGES_MAX];
	size_t count;
};

/* Returns 0, -EINVAL for an empty or overflowing range, -EEXIST for one that overlaps another,
 * -ENOSPC. */
int io_bus_add(struct io_bus *bus, const struct io_range *range);
void io_bus_read(const struct io_bus *bus, uint64_t address, uint8_t *data, size_t length);
void io_bus_write(const struct io_bus *bus, uint64_t address, const uint8_t *data, size_t length);

#endif
