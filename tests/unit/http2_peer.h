/*
 * The other end of a connection that a struct http2_codec is on, played frame by frame, so that it
 * can do what no library would.
 */
#ifndef TESTS_UNIT_HTTP2_PEER_H
#define TESTS_UNIT_HTTP2_PEER_H

#include <arpa/inet.h>
#include <check.h>

#include "base/checked.h"
#include "proxy/http2_codec.h"
#include "tests/unit/proxy_world.h"

static struct event_loop loop;
static struct stream stream;
static struct http2_codec codec;
static struct peer peer;
static nghttp2_hd_deflater *deflater;
static nghttp2_hd_inflater *inflater;

static inline void settle(void)
{
	for (unsigned quiet = 0; quiet < 2;)
		quiet = event_loop_run_once(&loop, 2) == 0 ? quiet + 1 : 0;
	peer_read(&peer);
}

static inline void on_stream_ready(struct stream *ready)
{
	(void)ready;
	http2_codec_turn(&codec);
}

/* Both sides have agreed on the settings: the limits hold. */
static inline void peer_start(enum http2_role role)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	static const uint8_t settings[9] = { [3] = NGHTTP2_SETTINGS };
	static const uint8_t agreed[9] = { [3] = NGHTTP2_SETTINGS, [4] = NGHTTP2_FLAG_ACK };
	int pair[2];

	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	ck_assert_int_eq(stream_init(&stream, &loop, pair[0], on_stream_ready), 0);
	ck_assert_int_eq(http2_codec_init(&codec, &stream, role), 0);
	peer_take(&peer, pair[1]);
	ck_assert_int_eq(nghttp2_hd_deflate_new(&deflater, 4096), 0);
	ck_assert_int_eq(nghttp2_hd_inflate_new(&inflater), 0);
	if (role == HTTP2_SERVER)
		peer_say_bytes(&peer, preface, sizeof(preface) - 1);
	peer_say_bytes(&peer, settings, sizeof(settings));
	settle();
	peer_say_bytes(&peer, agreed, sizeof(agreed));
	settle();
}

static inline void peer_stop(void)
{
	http2_codec_release(&codec);
	stream_release(&stream);
	peer_close(&peer);
	nghttp2_hd_deflate_del(deflater);
	nghttp2_hd_inflate_del(inflater);
	event_loop_release(&loop);
}

/* ---- frames (RFC 9113 section 4.1) ----------------------------------------------------------- */

static inline void put_frame(unsigned type, unsigned flags, uint32_t id, const void *payload,
			     size_t length)
{
	const uint8_t head[9] = {
		(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length,
		(uint8_t)type,		 (uint8_t)flags,	 (uint8_t)(id >> 24),
		(uint8_t)(id >> 16),	 (uint8_t)(id >> 8),	 (uint8_t)id
	};

	peer_say_bytes(&peer, head, sizeof(head));
	if (length > 0)
		peer_say_bytes(&peer, payload, length);
}

static inline void put_number(unsigned type, uint32_t id, uint32_t number)
{
	const uint32_t payload = htonl(number);

	put_frame(type, 0, id, &payload, 4);
}

struct field {
	const char *name;
	const char *value;
};

/* In as many frames as it takes. */
static inline void put_head(uint32_t id, unsigned flags, const struct field *fields, size_t count)
{
	static uint8_t block[1u << 18];
	nghttp2_nv list[300];
	ssize_t length;
	size_t at = 0;

	ck_assert_uint_le(count, ARRAY_LENGTH(list));
	for (size_t i = 0; i < count; i++)
		list[i] = (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)fields[i].name,
					.value = (uint8_t *)(uintptr_t)fields[i].value,
					.namelen = strlen(fields[i].name),
					.valuelen = strlen(fields[i].value) };
	length = nghttp2_hd_deflate_hd(deflater, block, sizeof(block), list, count);
	ck_assert_int_gt(length, 0);
	for (bool is_first = true; at < (size_t)length; is_first = false) {
		size_t part = MIN_OF((size_t)length - at, 16384u);
		bool is_last = at + part == (size_t)length;

		put_frame(is_first ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION,
			  (is_first ? flags : 0) | (is_last ? NGHTTP2_FLAG_END_HEADERS : 0u), id,
			  block + at, part);
		at += part;
	}
}

#define ENDS NGHTTP2_FLAG_END_STREAM

static const struct field usual[] = {
	{ ":method", "POST" },
	{ ":scheme", "https" },
	{ ":authority", "api.test" },
	{ ":path", "/a?b" },
};

static inline void put_request(uint32_t id, unsigned flags)
{
	put_head(id, flags, usual, ARRAY_LENGTH(usual));
}

static inline void put_response(uint32_t id, unsigned flags, const char *status)
{
	const struct field fields[] = { { ":status", status } };

	put_head(id, flags, fields, 1);
}

/* The n-th frame from the codec of that type and stream; false when there are not so many. */
struct frame {
	unsigned type;
	unsigned flags;
	uint32_t id;
	const uint8_t *payload;
	size_t length;
};

static inline uint32_t number_at(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
}

static inline bool find_frame(unsigned type, uint32_t id, unsigned nth, struct frame *ret_frame)
{
	size_t at = codec.role == HTTP2_CLIENT ? 24 : 0;

	while (at + 9 <= peer.length) {
		const uint8_t *head = (const uint8_t *)peer.text + at;
		size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

		*ret_frame =
			(struct frame){ head[3], head[4], number_at(head + 5), head + 9, length };
		at += 9 + length;
		ck_assert_uint_le(at, peer.length);
		if (ret_frame->type == type && ret_frame->id == id && nth-- == 0)
			return true;
	}
	return false;
}

/* The code of the stream's reset; -1 when there was none. */
static inline int64_t reset_of(uint32_t id)
{
	struct frame frame;

	return find_frame(NGHTTP2_RST_STREAM, id, 0, &frame) ? (int64_t)number_at(frame.payload)
							     : -1;
}

/* Bytes of DATA on the stream so far, and whether they ended. */
static inline size_t data_of(uint32_t id, bool *ret_ended)
{
	struct frame frame;
	size_t length = 0;

	*ret_ended = false;
	for (unsigned i = 0; find_frame(NGHTTP2_DATA, id, i, &frame); i++) {
		length += frame.length;
		*ret_ended = (frame.flags & ENDS) != 0;
	}
	return length;
}

/* What was let in on the stream, 0 being the connection. */
static inline size_t window_of(uint32_t id)
{
	struct frame frame;
	size_t window = 0;

	for (unsigned i = 0; find_frame(NGHTTP2_WINDOW_UPDATE, id, i, &frame); i++)
		window += number_at(frame.payload);
	return window;
}

/* A head of the codec's, to be taken in their order: whether the field is in it. */
static inline bool has_field(const struct frame *frame, const char *name, const char *value,
			     bool *ret_never_indexed)
{
	const uint8_t *at = frame->payload;
	size_t left = frame->length;
	bool found = false;
	int flags = 0;

	ck_assert_uint_eq(frame->flags & NGHTTP2_FLAG_END_HEADERS, NGHTTP2_FLAG_END_HEADERS);
	while (!(flags & NGHTTP2_HD_INFLATE_FINAL)) {
		nghttp2_nv field;
		ssize_t count;

		flags = 0;
		count = nghttp2_hd_inflate_hd2(inflater, &field, &flags, at, left, 1);
		ck_assert_int_ge(count, 0);
		at += count;
		left -= (size_t)count;
		if (!(flags & NGHTTP2_HD_INFLATE_EMIT) || field.namelen != strlen(name) ||
		    memcmp(field.name, name, field.namelen) != 0 ||
		    field.valuelen != strlen(value) ||
		    memcmp(field.value, value, field.valuelen) != 0)
			continue;
		found = true;
		*ret_never_indexed = (field.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0;
	}
	nghttp2_hd_inflate_end_headers(inflater);
	return found;
}

#endif
