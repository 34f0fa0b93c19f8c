#include "fsserver/window.h"

#include "base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int window_map(struct window *window, int fd, uint64_t offset, uint64_t size)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t end;
	struct stat file;
	int seals;
	void *memory;

	if (offset % page || size % page || channel_count(size) == 0 || size > SIZE_MAX ||
	    !checked_add_u64(offset, size, &end) || end > INT64_MAX)
		return -EINVAL;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return -errno;
	if (!(seals & F_SEAL_SHRINK))
		return -EPERM;
	if (fstat(fd, &file) < 0)
		return -errno;
	if ((uint64_t)file.st_size < end)
		return -EFBIG;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (memory == MAP_FAILED)
		return -errno;
	/* The guest's memory is in no dump of this process. */
	(void)madvise(memory, size, MADV_DONTDUMP);
	*window = (struct window){ .memory = memory, .size = size };
	return 0;
}

void window_unmap(struct window *window)
{
	if (window->memory)
		(void)munmap(window->memory, window->size);
	*window = (struct window){ 0 };
}

int window_take(struct window *window, uint32_t number, struct channel *ret_channel)
{
	uint8_t *memory;

	if (number == 0 || number > channel_count(window->size))
		return -EINVAL;
	if (window->taken & UINT64_C(1) << (number - 1))
		return -EBUSY;
	window->taken |= UINT64_C(1) << (number - 1);
	memory = window->memory + (uint64_t)(number - 1) * CHANNEL_STRIDE;
	channel_begin(memory);
	channel_attach(ret_channel, memory, CHANNEL_HOST);
	return 0;
}

void window_give_back(struct window *window, uint32_t number)
{
	window->taken &= ~(UINT64_C(1) << (number - 1));
}
