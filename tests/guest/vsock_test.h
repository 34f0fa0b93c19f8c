/* What the two sides of the vsock test agree on: ports and the bulk pattern. */
#ifndef TESTS_GUEST_VSOCK_TEST_H
#define TESTS_GUEST_VSOCK_TEST_H

#include <stddef.h>
#include <stdint.h>

enum test_port {
	PORT_REPORT = 1, /* the guest's results, a line each */
	PORT_ECHO = 2,
	PORT_SINK = 3,	 /* reads to the end, answers with struct bulk_answer */
	PORT_SOURCE = 4, /* sends BULK_LENGTH, half-closes, expects "bye" */
	PORT_DEAF = 5,	 /* accepts and never reads */
	PORT_CLOSER = 6, /* accepts and closes */
	PORT_NOBODY = 7,
	PORT_GUEST = 5000, /* the guest listens and echoes */
};

/* What is echoed may be more: ECHO_VARIABLE=MIB in the kernel's command line. */
#define BULK_LENGTH (UINT64_C(64) << 20)
#define ECHO_VARIABLE "vsock_echo"
#define BULK_BLOCK 65536
#define STREAMS 1000

struct bulk_answer {
	uint64_t length;
	uint64_t sum; /* of the little-endian 64-bit words */
};

/* The block which begins at byte `at` of the stream. */
static inline void pattern_fill(uint64_t block[BULK_BLOCK / 8], uint64_t at)
{
	for (size_t i = 0; i < BULK_BLOCK / 8; i++)
		block[i] = (at + i) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline uint64_t pattern_sum(const uint64_t block[BULK_BLOCK / 8])
{
	uint64_t sum = 0;

	for (size_t i = 0; i < BULK_BLOCK / 8; i++)
		sum += block[i];
	return sum;
}

#endif
