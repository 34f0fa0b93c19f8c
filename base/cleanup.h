/*
 * Cleanup attributes: every owned file descriptor and heap block is released when its variable
 * leaves scope; ownership is handed over visibly with steal_fd() and steal_pointer().
 *
 * cleanup_fd closes any descriptor >= 0 and preserves errno. cleanup_free frees any pointer.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_fd_impl(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		close(*fd);
		errno = saved;
	}
}

static inline void cleanup_free_impl(void *pointer)
{
	void **block = pointer;

	free(*block);
}

#define cleanup_fd __attribute__((cleanup(cleanup_fd_impl)))
#define cleanup_free __attribute__((cleanup(cleanup_free_impl)))

/* Returns *fd and leaves -1 behind: the caller now owns the descriptor. */
static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

static inline void *steal_pointer_impl(void *pointer)
{
	void **block = pointer;
	void *stolen = *block;

	*block = NULL;
	return stolen;
}

/* Returns *pointer and leaves NULL behind: the caller now owns the block. */
#define steal_pointer(pointer) ((__typeof__(*(pointer)))steal_pointer_impl(pointer))

#endif
