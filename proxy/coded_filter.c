#include "proxy/coded_filter.h"

#include "base/checked.h"
#include "proxy/secret_filter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define PIECE_MAX 16384u

struct coded_filter {
	struct body_filter filter; /* first: feed() and free() get this */
	struct body_filter *secrets;
	struct byte_buffer unread; /* what `secrets` lets go; nobody wants it */
	enum body_coding coding;
	z_stream stream;
	bool is_begun; /* within the coded form */
	uint64_t taken;
	uint64_t given;
};

enum body_coding body_coding_of(const struct http_head *head, struct http_text *ret_name)
{
	enum body_coding coding = BODY_CODING_NONE;

	for (ssize_t i = http_head_find(head, "content-encoding", 0); i >= 0;
	     i = http_head_find(head, "content-encoding", (size_t)i + 1)) {
		struct http_text list = http_head_field(head, (size_t)i).value;
		struct http_text name;

		while (http_text_next_element(&list, &name)) {
			if (http_text_is(name, "identity"))
				continue;
			*ret_name = name;
			if (coding != BODY_CODING_NONE)
				return BODY_CODING_UNREADABLE;
			if (http_text_is(name, "gzip") || http_text_is(name, "x-gzip"))
				coding = BODY_CODING_GZIP;
			else if (http_text_is(name, "deflate"))
				coding = BODY_CODING_DEFLATE;
			else
				return BODY_CODING_UNREADABLE;
		}
	}
	return coding;
}

static int refuse(struct coded_filter *self, const char *why)
{
	secret_filter_refuse(self->secrets, SECRET_REFUSAL_CODED, why);
	return -EACCES;
}

static int search(struct coded_filter *self, const uint8_t *data, size_t length, bool is_last)
{
	int error = self->secrets->feed(self->secrets, data, length, is_last, &self->unread);

	byte_buffer_consume(&self->unread, byte_buffer_length(&self->unread));
	return error;
}

static bool expands_too_far(const struct coded_filter *self)
{
	return self->given > CODED_FREE_MAX && self->given / CODED_EXPANSION_MAX > self->taken;
}

/* One member's end; another may follow. */
static int end_member(struct coded_filter *self)
{
	self->is_begun = false;
	if (self->coding == BODY_CODING_GZIP)
		return inflateReset(&self->stream) == Z_OK ? 0 : refuse(self, "it is damaged");
	return self->stream.avail_in == 0 ? 0 : refuse(self, "something follows its end");
}

static int read_piece(struct coded_filter *self)
{
	uint8_t piece[PIECE_MAX];
	uInt before = self->stream.avail_in;
	size_t length;
	int result;
	int error;

	if (!self->is_begun && self->coding == BODY_CODING_DEFLATE && self->taken > 0)
		return refuse(self, "something follows its end");
	self->is_begun = true;
	self->stream.next_out = piece;
	self->stream.avail_out = sizeof(piece);
	result = inflate(&self->stream, Z_NO_FLUSH);
	length = sizeof(piece) - self->stream.avail_out;
	self->taken += before - self->stream.avail_in;
	self->given += length;
	if (result == Z_MEM_ERROR)
		return -ENOMEM;
	/* With Z_BUF_ERROR there was nothing to do. */
	if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
		return refuse(self, "it is damaged");
	if (expands_too_far(self))
		return refuse(self, "it unpacks to too much");
	error = search(self, piece, length, false);
	explicit_bzero(piece, length);
	if (!error && result == Z_STREAM_END)
		error = end_member(self);
	return error;
}

/* Reads all of the data. */
static int read_coded(struct coded_filter *self, const uint8_t *data, size_t length)
{
	int error = 0;

	/* It is not written to. */
	self->stream.next_in = (Bytef *)(uintptr_t)data;
	self->stream.avail_in = (uInt)length;
	do {
		if (self->stream.avail_in == 0 && !self->is_begun)
			return 0;
		error = read_piece(self);
		/* A piece that is full may have more behind it. */
	} while (!error && (self->stream.avail_in > 0 || self->stream.avail_out == 0));
	return error;
}

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	struct coded_filter *self = (struct coded_filter *)filter;
	int error;

	/* All or nothing is consumed. */
	if (byte_buffer_room(out) < length || length > UINT32_MAX)
		return -ENOBUFS;
	error = length > 0 ? read_coded(self, data, length) : 0;
	if (!error && is_last)
		error = self->is_begun ? refuse(self, "it ends too early")
				       : search(self, NULL, 0, true);
	return error ? error : byte_buffer_append(out, data, length);
}

static void free_filter(struct body_filter *filter)
{
	struct coded_filter *self = (struct coded_filter *)filter;

	inflateEnd(&self->stream);
	byte_buffer_release(&self->unread);
	self->secrets->free(self->secrets);
	free(self);
}

struct body_filter *coded_filter_new(struct body_filter *secrets, enum body_coding coding)
{
	struct coded_filter *self = calloc(1, sizeof(*self));
	/* zlib: 16 more is gzip's form. */
	int bits = coding == BODY_CODING_GZIP ? MAX_WBITS + 16 : MAX_WBITS;

	if (self && inflateInit2(&self->stream, bits) != Z_OK) {
		free(self);
		self = NULL;
	}
	if (!self) {
		secrets->free(secrets);
		return NULL;
	}
	self->filter = (struct body_filter){ .feed = feed, .free = free_filter };
	self->secrets = secrets;
	self->coding = coding;
	byte_buffer_init(&self->unread, 131072);
	secret_filter_look_only(secrets);
	return &self->filter;
}
