/*
 * WebSocket frames of either direction, through the filters of secrets. What comes out is frames
 * that are well-formed and hold as many bytes of messages as went in, does not depend on how the
 * input was cut, and holds no value that the server said, neither in a message nor in several.
 *
 * Input: one byte of choice (bit 0 the direction, bit 1 frames as they are), one for the cuts, then
 * frames: as they are, or each as opcode and FIN, length, and payload, to which a valid header is
 * made. In a payload the byte 1 stands for the secret, and 2 for the one of another host.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/secret_filter.h"
#include "proxy/websocket_frames.h"
#include "tests/unit/secret_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VALUE "sk-Ab/C012+def345Ghi"
#define WIRE_MAX 16384u
#define OUT_MAX (1u << 18)

static const struct fixture_secret secrets[] = {
	{ .name = "KEY", .value = VALUE, .host = "a.test", .flags = SECRET_FLAG_BODY },
	{ .name = "OTHER", .value = "abababababab12", .host = "b.test" },
};

static struct secret_store *store;
static struct secret_set bound;
static bool is_client;

static void require(int condition)
{
	if (!condition)
		abort();
}

static struct body_filter *make_filter(void)
{
	struct body_filter *filter = is_client ? secret_request_filter_new(store, &bound, true)
					       : secret_response_filter_new(store);

	require(filter != NULL);
	secret_filter_take_messages(filter);
	return filter;
}

/* ---- input ---------------------------------------------------------------------------------- */

static size_t put_payload(const uint8_t *data, size_t size, uint8_t *payload)
{
	size_t used = 0;

	for (size_t i = 0; i < size; i++) {
		const struct secret *secret = secret_store_get(store, data[i] == 2);

		if (data[i] != 1 && data[i] != 2) {
			payload[used++] = data[i];
			continue;
		}
		memcpy(payload + used, is_client ? secret->placeholder : secret->value,
		       secret->length);
		used += secret->length;
	}
	return used;
}

static size_t put_frame(uint8_t first, const uint8_t *payload, size_t length, uint8_t *wire)
{
	static const uint8_t mask[4] = { 0x5a, 0x01, 0xfe, 0x80 };
	size_t used = 2;

	wire[0] = first;
	wire[1] = (uint8_t)((is_client ? 0x80 : 0) | (length < 126 ? length : 126));
	if (length >= 126) {
		wire[used++] = (uint8_t)(length >> 8);
		wire[used++] = (uint8_t)length;
	}
	if (is_client) {
		memcpy(wire + used, mask, 4);
		used += 4;
	}
	for (size_t i = 0; i < length; i++)
		wire[used + i] = payload[i] ^ (is_client ? mask[i % 4] : 0);
	return used + length;
}

static size_t make_wire(const uint8_t *data, size_t size, uint8_t *wire)
{
	static uint8_t payload[256 * 32];
	size_t used = 0;

	while (size >= 2 && used + sizeof(payload) + 16 < WIRE_MAX) {
		size_t taken = MIN_OF((size_t)data[1], size - 2);
		size_t length = put_payload(data + 2, taken, payload);

		used += put_frame(data[0], payload, length, wire + used);
		data += 2 + taken;
		size -= 2 + taken;
	}
	return used;
}

/* ---- output --------------------------------------------------------------------------------- */

/* What came out, in a form that does not depend on fragments and masks, nor on where a control
 * frame stands in a message. */
struct reading {
	uint8_t messages[OUT_MAX];
	size_t length;
	uint8_t controls[OUT_MAX];
	size_t controls_length;
	/* Without what is between them. */
	uint8_t texts[OUT_MAX];
	size_t texts_length;
};

static void search(const uint8_t *text, size_t length)
{
	require(!memmem(text, length, &secrets[0].value[3], strlen(VALUE) - 3));
}

static void put_control(struct reading *reading, const uint8_t *header, const uint8_t *payload,
			size_t length)
{
	require(header[0] & 0x80 && length <= 125 && (header[0] & 0x0f) <= 0xa);
	reading->controls[reading->controls_length++] = header[0];
	memcpy(reading->controls + reading->controls_length, payload, length);
	reading->controls_length += length;
	if (!is_client)
		search(payload, length);
}

static void read_frames(const struct byte_buffer *out, struct reading *reading)
{
	static uint8_t plain[OUT_MAX];
	const uint8_t *at = byte_buffer_front(out);
	size_t left = byte_buffer_length(out);
	bool in_message = false;

	reading->length = 0;
	reading->controls_length = 0;
	reading->texts_length = 0;
	while (left > 0) {
		size_t length, size = 2;

		require(left >= 2 && (at[0] & 0x70) == 0 && at[1] >> 7 == is_client);
		length = at[1] & 0x7f;
		if (length >= 126) {
			size += length == 126 ? 2 : 8;
			require(left >= size);
			length = 0;
			for (size_t i = 2; i < size; i++)
				length = length << 8 | at[i];
			require(length >= (size == 4 ? 126 : 65536));
		}
		size += is_client ? 4 : 0;
		require(left >= size && left - size >= length);
		for (size_t i = 0; i < length; i++)
			plain[i] = at[size + i] ^ (is_client ? at[size - 4 + i % 4] : 0);
		if (at[0] & 0x08) {
			put_control(reading, at, plain, length);
		} else {
			require((at[0] & 0x0f) <= 2 && ((at[0] & 0x0f) == 0) == in_message);
			if (!in_message)
				reading->messages[reading->length++] = at[0] & 0x0f;
			memcpy(reading->messages + reading->length, plain, length);
			reading->length += length;
			memcpy(reading->texts + reading->texts_length, plain, length);
			reading->texts_length += length;
			in_message = !(at[0] & 0x80);
			if (!in_message)
				reading->messages[reading->length++] = 0xff;
		}
		at += size + length;
		left -= size + length;
	}
	if (!is_client)
		search(reading->texts, reading->texts_length);
}

static int run(const uint8_t *wire, size_t length, size_t piece, struct byte_buffer *out)
{
	const struct websocket_frames_options options = { is_client, make_filter(), make_filter() };
	struct websocket_frames *frames = websocket_frames_new(&options);
	int result = 0;

	require(frames != NULL);
	for (size_t at = 0; at < length && result == 0;) {
		size_t step = piece == 0 ? length : MIN_OF(piece, length - at);
		uint8_t *copy = malloc(step);

		require(copy != NULL);
		memcpy(copy, wire + at, step);
		result = websocket_frames_feed(frames, copy, step, out);
		free(copy);
		at += step;
	}
	require(result == 0 || websocket_frames_problem(frames));
	websocket_frames_close(frames, WEBSOCKET_CLOSE_POLICY, "end", out);
	websocket_frames_free(frames);
	options.messages->free(options.messages);
	options.controls->free(options.controls);
	return result;
}

static void make_store(void)
{
	struct host_name host;

	secret_store_free(store);
	store = fixture_store(secrets, ARRAY_LENGTH(secrets));
	require(store && host_name_parse("a.test", 6, &host) == 0);
	secret_store_bound(store, &host, 443, &bound);
}

/* The same, whole and in pieces. What went on before a refusal does depend on the cuts. */
static void compare(const uint8_t *wire, size_t length, size_t piece)
{
	static struct reading whole;
	static struct reading parts;
	struct byte_buffer out;
	int result;

	byte_buffer_init(&out, OUT_MAX);
	result = run(wire, length, 0, &out);
	read_frames(&out, &whole);
	byte_buffer_release(&out);
	/* Pieces that end inside a value are counted, and then the result is another. */
	if (run(wire, length, piece, &out) != result) {
		require(!is_client && secret_store_is_probed(store));
		result = -EACCES;
	}
	read_frames(&out, &parts);
	byte_buffer_release(&out);
	if (result != 0)
		return;
	require(whole.length == parts.length &&
		memcmp(whole.messages, parts.messages, whole.length) == 0);
	require(whole.controls_length == parts.controls_length &&
		memcmp(whole.controls, parts.controls, whole.controls_length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t wire[WIRE_MAX];
	size_t length;

	if (!store || secret_store_is_probed(store))
		make_store();
	if (size < 2 || size - 2 > WIRE_MAX)
		return 0;
	is_client = data[0] & 1;
	if (data[0] & 2) {
		length = size - 2;
		memcpy(wire, data + 2, length);
	} else {
		length = make_wire(data + 2, size - 2, wire);
	}
	compare(wire, length, 1U + data[1] % 40);
	return 0;
}
