#include "vmm/io_bus.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>

int io_bus_add(struct io_bus *bus, const struct io_range *range)
{
	uint64_t end;

	if (range->length == 0 || !checked_add_u64(range->base, range->length, &end))
		return -EINVAL;
	for (size_t i = 0; i < bus->count; i++) {
		const struct io_range *other = &bus->ranges[i];

		if (range->base < other->base + other->length && other->base < end)
			return -EEXIST;
	}
	if (bus->count == IO_BUS_RANGES_MAX)
		return -ENOSPC;
	bus->ranges[bus->count++] = *range;
	return 0;
}

/* The range that holds all of an access, or NULL. */
static const struct io_range *find(const struct io_bus *bus, uint64_t address, size_t length)
{
	for (size_t i = 0; i < bus->count; i++) {
		const struct io_range *range = &bus->ranges[i];
		uint64_t offset = address - range->base;

		if (address >= range->base && offset < range->length)
			return length <= range->length - offset ? range : NULL;
	}
	return NULL;
}

void io_bus_read(const struct io_bus *bus, uint64_t address, uint8_t *data, size_t length)
{
	const struct io_range *range = find(bus, address, length);

	if (length == 0 || length > IO_BUS_WIDTH_MAX)
		return;
	memset(data, 0xff, length);
	if (range)
		range->read(range->owner, address - range->base, data, length);
}

void io_bus_write(const struct io_bus *bus, uint64_t address, const uint8_t *data, size_t length)
{
	const struct io_range *range = find(bus, address, length);

	if (range && length > 0 && length <= IO_BUS_WIDTH_MAX)
		range->write(range->owner, address - range->base, data, length);
}
