#include "proxy/services.h"

#include <time.h>

uint64_t services_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t services_now_ms(void)
{
	return services_now_ns() / 1000000;
}
