/*
 * The agent protocol in both directions. The input is a sequence of frames as on the wire; each
 * payload is copied into a block of its exact size, decoded by its type, and everything decoded
 * is looked at. What decodes must encode again to the same bytes. Type 0x100 is a stream's hello.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "wire/agent.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TYPE_HELLO 0x100

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void check_same(const uint8_t *payload, size_t length, const uint8_t *frame,
		       size_t frame_length)
{
	must(frame_length == length + AGENT_HEADER_SIZE);
	must(length == 0 || memcmp(frame + AGENT_HEADER_SIZE, payload, length) == 0);
}

static const char **list(const struct agent_strings *strings)
{
	const char **array = calloc((size_t)strings->count + 1, sizeof(*array));
	uint32_t position = 0;
	uint32_t count = 0;
	const char *string;

	must(array != NULL);
	while ((string = agent_strings_next(strings, &position)) != NULL) {
		must(count < strings->count);
		array[count++] = string;
	}
	must(count == strings->count);
	return array;
}

static size_t again_exec(const uint8_t *payload, size_t length, uint8_t *frame, size_t capacity)
{
	static struct agent_exec exec;
	cleanup_free const char **arguments = NULL;
	cleanup_free const char **environment = NULL;

	if (agent_decode_exec(payload, length, &exec) < 0)
		return 0;
	arguments = list(&exec.arguments);
	environment = list(&exec.environment);
	return agent_encode_exec(frame, capacity, &exec, arguments, environment);
}

static size_t again_config(const uint8_t *payload, size_t length, uint8_t *frame, size_t capacity)
{
	static struct agent_config config;

	if (agent_decode_config(payload, length, &config) < 0)
		return 0;
	return agent_encode_config(frame, capacity, &config);
}

#define AGAIN(name)                                                                                \
	static size_t again_##name(const uint8_t *payload, size_t length, uint8_t *frame,          \
				   size_t capacity)                                                \
	{                                                                                          \
		struct agent_##name message;                                                       \
                                                                                                   \
		if (agent_decode_##name(payload, length, &message) < 0)                            \
			return 0;                                                                  \
		return agent_encode_##name(frame, capacity, &message);                             \
	}

AGAIN(ready)
AGAIN(configured)
AGAIN(failed)
AGAIN(started)
AGAIN(exec_failed)
AGAIN(exited)
AGAIN(notice)
AGAIN(resize)
AGAIN(signal)

static size_t again_kill(const uint8_t *payload, size_t length, uint8_t *frame, size_t capacity)
{
	uint32_t id;

	if (agent_decode_kill(payload, length, &id) < 0)
		return 0;
	return agent_encode_kill(frame, capacity, id);
}

static size_t again_shutdown(const uint8_t *payload, size_t length, uint8_t *frame, size_t capacity)
{
	if (agent_decode_shutdown(payload, length) < 0)
		return 0;
	return agent_encode_shutdown(frame, capacity);
}

static const struct {
	uint16_t type;
	size_t (*again)(const uint8_t *payload, size_t length, uint8_t *frame, size_t capacity);
} messages[] = {
	{ AGENT_READY, again_ready },
	{ AGENT_CONFIGURED, again_configured },
	{ AGENT_FAILED, again_failed },
	{ AGENT_STARTED, again_started },
	{ AGENT_EXEC_FAILED, again_exec_failed },
	{ AGENT_EXITED, again_exited },
	{ AGENT_NOTICE, again_notice },
	{ AGENT_CONFIG, again_config },
	{ AGENT_EXEC, again_exec },
	{ AGENT_RESIZE, again_resize },
	{ AGENT_SIGNAL, again_signal },
	{ AGENT_KILL, again_kill },
	{ AGENT_SHUTDOWN, again_shutdown },
};

static void try_hello(const uint8_t *payload, size_t length)
{
	uint8_t back[sizeof(struct agent_hello)];
	struct agent_hello hello;

	if (length != sizeof(hello) || agent_decode_hello(payload, &hello) < 0)
		return;
	agent_encode_hello(back, hello.exec_id, (enum agent_stream)hello.stream);
	must(memcmp(back, payload, sizeof(back)) == 0);
}

static void try_frame(uint16_t type, const uint8_t *payload, size_t length)
{
	size_t capacity = length + AGENT_HEADER_SIZE;
	cleanup_free uint8_t *frame = malloc(capacity);

	must(frame != NULL);
	if (type == TYPE_HELLO) {
		try_hello(payload, length);
		return;
	}
	for (size_t i = 0; i < ARRAY_LENGTH(messages); i++) {
		size_t again;

		if (messages[i].type != type)
			continue;
		again = messages[i].again(payload, length, frame, capacity);
		if (again > 0)
			check_same(payload, length, frame, again);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	while (size >= AGENT_HEADER_SIZE) {
		struct agent_header header;
		cleanup_free uint8_t *payload = NULL;

		if (agent_decode_header(data, AGENT_TO_GUEST_MAX, &header) < 0)
			return 0;
		data += AGENT_HEADER_SIZE;
		size -= AGENT_HEADER_SIZE;
		if (header.length > size)
			return 0;
		payload = malloc(header.length);
		if (header.length > 0) {
			must(payload != NULL);
			memcpy(payload, data, header.length);
		}
		try_frame(header.type, payload, header.length);
		data += header.length;
		size -= header.length;
	}
	return 0;
}
