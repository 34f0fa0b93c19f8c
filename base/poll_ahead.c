#include "base/poll_ahead.h"

void poll_ahead_failed(struct poll_ahead *ahead)
{
	ahead->is_wanted = false;
	ahead->rest = POLL_AHEAD_REST;
}

void poll_ahead_slept(struct poll_ahead *ahead, uint64_t duration_ns)
{
	if (duration_ns >= POLL_AHEAD_NS)
		return;
	if (ahead->rest > 0)
		ahead->rest--;
	else
		ahead->is_wanted = true;
}
