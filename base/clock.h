/*
 * The clock that measures durations: CLOCK_MONOTONIC (clock_gettime(2)), which nobody sets. What it
 * says means nothing by itself, and nothing outside this boot.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline uint64_t clock_now_ms(void)
{
	return clock_now_ns() / 1000000;
}

/* Below zero when it has passed. */
static inline int64_t clock_ms_until(uint64_t deadline_ms)
{
	return (int64_t)(deadline_ms - clock_now_ms());
}

#endif
