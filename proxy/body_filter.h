/*
 * The seam for what looks at a body or changes it on its way: scanners, substituters, redactors.
 *
 * A filter is embedded in its owner's struct and used for one body, from the first byte to the
 * last. It keeps the length, so that a Content-Length stays true.
 */
#ifndef PROXY_BODY_FILTER_H
#define PROXY_BODY_FILTER_H

#include "proxy/byte_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct body_filter {
	/* Appends to `out` what may go on of this and earlier data; after `is_last` nothing is
	 * kept back. Returns 0; -EACCES when the body may not go on (the filter says why through an
	 * accessor of its own); -ENOBUFS when `out` has no room, and then nothing was consumed. */
	int (*feed)(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		    struct byte_buffer *out);
	void (*free)(struct body_filter *filter);
	/* The same of all that is in `in`, while `out` is empty, without copying what need not be;
	 * or NULL. `in` is empty afterwards, if it did not fail. */
	int (*feed_buffer)(struct body_filter *filter, struct byte_buffer *in, bool is_last,
			   struct byte_buffer *out);
};

#endif
