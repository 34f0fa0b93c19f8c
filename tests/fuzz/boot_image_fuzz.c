/*
 * A kernel image as the loader treats it: what it is, where its parts lie, and then every byte that
 * the parsers promised is there, read out of a block of exactly the input's size.
 */
#include "base/checked.h"
#include "vmm/boot_image.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define UNPACKED_MAX (1u << 20) /* larger ones would cost time and nothing else */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* So that reading is not optimized away. */
static volatile uint8_t sum;

static void load_elf(const uint8_t *file, size_t size)
{
	struct boot_image image;
	const char *what = NULL;
	uint64_t end = BOOT_IMAGE_ADDRESS_MIN;

	if (boot_image_parse_elf(file, MIN_OF(size, (size_t)BOOT_IMAGE_HEAD), size, &image, &what) <
	    0) {
		if (!what)
			abort();
		return;
	}
	for (size_t i = 0; i < image.segment_count; i++) {
		const struct boot_segment *segment = &image.segments[i];

		if (segment->guest_address < end || segment->file_length > segment->memory_length ||
		    segment->memory_length > BOOT_IMAGE_ADDRESS_MAX - segment->guest_address)
			abort();
		end = segment->guest_address + segment->memory_length;
		for (uint64_t offset = 0; offset < segment->file_length; offset++)
			sum = (uint8_t)(sum + file[segment->file_offset + offset]);
	}
	if (end != image.end)
		abort();
}

static void load_bzimage(const uint8_t *file, size_t size)
{
	struct boot_payload payload;
	const char *what = NULL;
	uint8_t *output;

	if (boot_image_parse_bzimage(file, MIN_OF(size, (size_t)BOOT_IMAGE_HEAD), size, &payload,
				     &what) < 0 ||
	    boot_image_unpacked_length(file + payload.offset + payload.length,
				       &payload.unpacked_length, &what) < 0) {
		if (!what)
			abort();
		return;
	}
	if (payload.unpacked_length > UNPACKED_MAX)
		return;
	output = malloc(payload.unpacked_length);
	if (!output)
		abort();
	if (boot_image_unpack(file + payload.offset, payload.length, output,
			      payload.unpacked_length, &what) == 0)
		load_elf(output, payload.unpacked_length);
	free(output);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *file = malloc(size ? size : 1);

	if (!file)
		abort();
	memcpy(file, data, size);
	switch (boot_image_identify(file, size)) {
	case BOOT_IMAGE_ELF:
		load_elf(file, size);
		break;
	case BOOT_IMAGE_BZIMAGE:
		load_bzimage(file, size);
		break;
	case BOOT_IMAGE_UNKNOWN:
		break;
	}
	free(file);
	return 0;
}
