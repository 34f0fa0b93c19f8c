/*
 * How long the scheduler lets a thread run at a time beside others that want the processor too.
 *
 * Everybody gets the same share in the end. Who asks for short slices gets its share in more and
 * smaller pieces, and so sooner (Documentation/scheduler/sched-eevdf.rst): what stands between two
 * others, and works for both, keeps neither waiting for a whole slice of the other's.
 */
#ifndef BASE_TIME_SLICE_H
#define BASE_TIME_SLICE_H

#include <stdint.h>

/* The shortest that the kernel grants; it takes what is longer than 100 ms as 100 ms. */
#define TIME_SLICE_MIN_NS 100000u

/* For the calling thread, whose niceness stays. Kernels before 6.12 say yes and do nothing. Returns
 * 0, -EPERM for a thread that does not share so (real-time, SCHED_IDLE), or what sched_setattr(2)
 * says. */
int time_slice_ask(uint32_t slice_ns);

#endif
