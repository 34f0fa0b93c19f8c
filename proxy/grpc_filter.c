#include "proxy/grpc_filter.h"

#include "base/checked.h"
#include "proxy/secret_filter.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

struct grpc_filter {
	struct body_filter filter; /* first: feed() and free() get this */
	struct body_filter *secrets;
	uint8_t prefix[GRPC_PREFIX_SIZE];
	size_t prefix_length; /* GRPC_PREFIX_SIZE: within a message */
	uint64_t left;	      /* of the message */
	size_t kept;	      /* bytes that `secrets` holds */
	bool refuses_compressed;
};

bool grpc_has_messages(const struct http_head *head)
{
	static const char type[] = "application/grpc";
	ssize_t index = http_head_find(head, "content-type", 0);
	struct http_text value;

	if (index < 0)
		return false;
	value = http_head_field(head, (size_t)index).value;
	return value.length >= sizeof(type) - 1 &&
	       strncasecmp(value.data, type, sizeof(type) - 1) == 0;
}

static int feed_secrets(struct grpc_filter *self, const uint8_t *data, size_t length, bool is_last,
			struct byte_buffer *out)
{
	size_t before = byte_buffer_length(out);
	int error = self->secrets->feed(self->secrets, data, length, is_last, out);

	if (!error)
		self->kept += length - (byte_buffer_length(out) - before);
	return error;
}

/* Up to a message. */
static size_t take_prefix(struct grpc_filter *self, const uint8_t *data, size_t length)
{
	size_t used = 0;

	while (used < length && self->prefix_length < GRPC_PREFIX_SIZE)
		self->prefix[self->prefix_length++] = data[used++];
	if (self->prefix_length < GRPC_PREFIX_SIZE)
		return used;
	self->left = (uint64_t)self->prefix[1] << 24 | (uint64_t)self->prefix[2] << 16 |
		     (uint64_t)self->prefix[3] << 8 | self->prefix[4];
	if (self->left == 0)
		self->prefix_length = 0;
	return used;
}

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	struct grpc_filter *self = (struct grpc_filter *)filter;
	size_t most;

	/* All or nothing is consumed. */
	if (!checked_add_size(self->kept, length, &most) || byte_buffer_room(out) < most)
		return -ENOBUFS;
	while (length > 0) {
		bool in_prefix = self->prefix_length < GRPC_PREFIX_SIZE;
		size_t step = in_prefix ? take_prefix(self, data, length)
					: (size_t)MIN_OF((uint64_t)length, self->left);
		int error;

		if (in_prefix && self->refuses_compressed && (self->prefix[0] & 1)) {
			secret_filter_refuse(self->secrets, SECRET_REFUSAL_CODED,
					     "a gRPC message in it is compressed");
			error = -EACCES;
		} else if (in_prefix) {
			error = byte_buffer_append(out, data, step);
		} else {
			self->left -= step;
			error = feed_secrets(self, data, step, self->left == 0, out);
			if (self->left == 0)
				self->prefix_length = 0;
		}
		if (error)
			return error;
		data += step;
		length -= step;
	}
	return is_last && self->kept > 0 ? feed_secrets(self, data, 0, true, out) : 0;
}

static void free_filter(struct body_filter *filter)
{
	struct grpc_filter *self = (struct grpc_filter *)filter;

	self->secrets->free(self->secrets);
	free(self);
}

struct body_filter *grpc_filter_new(struct body_filter *secrets, bool refuses_compressed)
{
	struct grpc_filter *self = calloc(1, sizeof(*self));

	if (!self) {
		secrets->free(secrets);
		return NULL;
	}
	self->filter = (struct body_filter){ .feed = feed, .free = free_filter };
	self->secrets = secrets;
	secret_filter_take_messages(secrets);
	self->refuses_compressed = refuses_compressed;
	return &self->filter;
}
