/*
 * The formats of wire/egress.h and wire/proxy_control.h. The first byte chooses; what decodes must
 * encode again to the same bytes.
 */
#include "wire/egress.h"
#include "wire/proxy_control.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void try_hello(const uint8_t *data)
{
	uint8_t back[EGRESS_HELLO_SIZE];
	struct egress_target target;

	if (egress_decode_hello(data, &target) < 0)
		return;
	egress_encode_hello(back, &target);
	must(memcmp(back, data, sizeof(back)) == 0);
}

static void try_control(const uint8_t *data, size_t size)
{
	struct proxy_control message;
	uint8_t *back = malloc(size + 1);

	must(back != NULL);
	if (proxy_control_decode(data, size, &message) == 0) {
		must(proxy_control_encode(back, size, &message) == size);
		must(memcmp(back, data, size) == 0);
	}
	free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (size < 2)
		return 0;
	/* A block of the exact size, so that one byte too many is noticed. */
	copy = malloc(size - 1);
	must(copy != NULL);
	memcpy(copy, data + 1, size - 1);
	if (data[0] == 0 && size - 1 == EGRESS_HELLO_SIZE)
		try_hello(copy);
	else if (data[0] != 0)
		try_control(copy, size - 1);
	free(copy);
	return 0;
}
