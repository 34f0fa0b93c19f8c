#include "proxy/secret_memory.h"

#include "base/checked.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Before each block, so that a pointer is all that an owner keeps. */
struct header {
	size_t mapped; /* bytes from the guard page before to the one after */
	size_t locked;
	_Alignas(64) char block[];
};

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* mlock2(), because the sanitizers make mlock() do nothing. */
static int lock_pages(void *start, size_t length)
{
	return mlock2(start, length, 0) == 0 ? 0 : -EPERM;
}

void secret_memory_raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

int secret_memory_new(size_t size, void **ret_block)
{
	size_t page = page_size();
	size_t inner;
	struct header *header;
	char *guard;
	int error;

	if (!checked_add_size(size, sizeof(*header) + page - 1, &inner) || inner > SIZE_MAX / 2)
		return -ENOMEM;
	inner -= inner % page;
	guard = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guard == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(guard + page, inner, PROT_READ | PROT_WRITE) < 0)
		error = -ENOMEM;
	else
		error = lock_pages(guard + page, inner);
	if (error == 0 && (madvise(guard + page, inner, MADV_DONTDUMP) < 0 ||
			   madvise(guard + page, inner, MADV_WIPEONFORK) < 0))
		error = -ENOMEM;
	if (error) {
		munmap(guard, inner + 2 * page);
		return error;
	}
	header = (struct header *)(void *)(guard + page);
	header->mapped = inner + 2 * page;
	header->locked = inner;
	*ret_block = header->block;
	return 0;
}

void secret_memory_free(void *block)
{
	struct header *header;
	size_t mapped;

	if (!block)
		return;
	header = (struct header *)(void *)((char *)block - offsetof(struct header, block));
	mapped = header->mapped;
	explicit_bzero(header, header->locked);
	munmap((char *)header - page_size(), mapped);
}
