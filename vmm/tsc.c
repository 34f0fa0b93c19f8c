#include "vmm/tsc.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#define MEASURE_NS UINT64_C(2000000)
#define BRACKET_TRIES 5

struct instant {
	uint64_t ticks;
	uint64_t nanoseconds;
};

static uint64_t raw_clock(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Both clocks at one instant: of some tries, the one that was interrupted least. */
static struct instant take_instant(void)
{
	struct instant best = { 0 };
	uint64_t best_width = UINT64_MAX;

	for (int i = 0; i < BRACKET_TRIES; i++) {
		uint64_t before = __rdtsc();
		uint64_t nanoseconds = raw_clock();
		uint64_t after = __rdtsc();

		if (after - before < best_width) {
			best_width = after - before;
			best.ticks = before + best_width / 2;
			best.nanoseconds = nanoseconds;
		}
	}
	return best;
}

uint32_t tsc_frequency_khz(void)
{
	uint32_t denominator = 0, numerator = 0, crystal = 0, unused = 0;
	struct instant start, end;
	uint64_t khz;

	if (__get_cpuid_count(0x15, 0, &denominator, &numerator, &crystal, &unused) &&
	    denominator != 0 && numerator != 0 && crystal != 0) {
		khz = (uint64_t)crystal * numerator / denominator / 1000;
	} else {
		start = take_instant();
		while (raw_clock() - start.nanoseconds < MEASURE_NS)
			;
		end = take_instant();
		khz = (end.ticks - start.ticks) * 1000000 / (end.nanoseconds - start.nanoseconds);
	}
	return khz <= UINT32_MAX ? (uint32_t)khz : 0;
}
