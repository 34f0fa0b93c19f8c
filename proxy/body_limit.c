#include "proxy/body_limit.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct body_limit {
	struct body_filter filter;
	struct egress_policy *policy;
	const struct egress_rule *limits;
	bool is_response;
	uint64_t left;
	struct egress_verdict verdict;
};

static uint64_t max_of(const struct egress_rule *limits, bool is_response)
{
	return is_response ? limits->response_bytes_max : limits->body_bytes_max;
}

bool body_limit_is_needed(const struct egress_rule *limits, bool is_response)
{
	return limits && (limits->bytes_max != EGRESS_NO_LIMIT ||
			  max_of(limits, is_response) != EGRESS_NO_LIMIT);
}

static int refuse(struct body_limit *limit, const char *reason, uint64_t most)
{
	struct egress_verdict *verdict = &limit->verdict;

	verdict->allowed = false;
	verdict->reason = reason;
	egress_rule_name(limit->limits, verdict);
	snprintf(verdict->hint, sizeof(verdict->hint), "%.100s allows %llu bytes",
		 limit->limits->where, (unsigned long long)most);
	return -EACCES;
}

int body_limit_count(struct body_filter *filter, size_t length)
{
	struct body_limit *limit = (struct body_limit *)filter;

	if (!limit->verdict.allowed)
		return -EACCES;
	if (length > limit->left)
		return refuse(limit, limit->is_response ? "response_too_large" : "body_too_large",
			      max_of(limit->limits, limit->is_response));
	if (egress_policy_spend(limit->policy, limit->limits, length) < 0)
		return refuse(limit, "bytes_exhausted", limit->limits->bytes_max);
	limit->left -= length;
	return 0;
}

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	int error;

	(void)is_last;
	if (byte_buffer_room(out) < length)
		return -ENOBUFS;
	error = body_limit_count(filter, length);
	return error ? error : byte_buffer_append(out, data, length);
}

static void free_filter(struct body_filter *filter)
{
	free(filter);
}

struct body_filter *body_limit_new(struct egress_policy *policy, const struct egress_rule *limits,
				   bool is_response)
{
	struct body_limit *limit = calloc(1, sizeof(*limit));

	static_assert(offsetof(struct body_limit, filter) == 0, "a filter is its limit");
	if (!limit)
		return NULL;
	limit->filter = (struct body_filter){ .feed = feed, .free = free_filter };
	limit->policy = policy;
	limit->limits = limits;
	limit->is_response = is_response;
	limit->left = max_of(limits, is_response);
	limit->verdict.allowed = true;
	return &limit->filter;
}

const struct egress_verdict *body_limit_verdict(const struct body_filter *filter)
{
	return &((const struct body_limit *)filter)->verdict;
}
