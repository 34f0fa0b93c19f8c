#include "base/time_slice.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The C library has neither call before its version 2.41. */
int time_slice_ask(uint32_t slice_ns)
{
	struct sched_attr attributes = { .size = sizeof(attributes) };

	if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) < 0)
		return -errno;
	if (attributes.sched_policy != SCHED_NORMAL && attributes.sched_policy != SCHED_BATCH)
		return -EPERM;
	attributes.sched_runtime = slice_ns;
	return syscall(SYS_sched_setattr, 0, &attributes, 0) < 0 ? -errno : 0;
}
