/*
 * Memory for what must not leave the process: secret values, and tables built from them.
 *
 * Every block has whole pages of its own, locked (never in swap), left out of core dumps, empty in
 * a child after fork, between two pages that nothing may touch, and wiped before it is given back.
 * It is for a few large blocks rather than many small ones.
 */
#ifndef PROXY_SECRET_MEMORY_H
#define PROXY_SECRET_MEMORY_H

#include <stddef.h>

/* Zeroed memory in *ret_block. Returns 0; -EPERM when it cannot be locked, because RLIMIT_MEMLOCK
 * is reached; -ENOMEM. Calls mmap, mprotect, mlock2, madvise and munmap. */
int secret_memory_new(size_t size, void **ret_block);
/* Raises the soft RLIMIT_MEMLOCK to the hard one; before the jail, which allows no such call. */
void secret_memory_raise_limit(void);
/* NULL is fine. */
void secret_memory_free(void *block);

static inline void secret_memory_cleanup(void *pointer)
{
	secret_memory_free(*(void **)pointer);
}
#define cleanup_secret __attribute__((cleanup(secret_memory_cleanup)))

#endif
