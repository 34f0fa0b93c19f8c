/*
 * Reads kernel images: ELF64 (vmlinux) and bzImage. Pure functions over blocks that the caller
 * copied from the file; nothing here opens, maps or allocates.
 *
 * Sources: System V ABI, chapter 4 and 5 (ELF-64 object file format); the kernel's
 * Documentation/arch/x86/boot.rst (setup header, payload); LZ4 "legacy frame" of
 * lz4_Frame_format.md, which is what the kernel's build writes.
 *
 * Limits: BOOT_IMAGE_SEGMENTS_MAX loadable segments, all below BOOT_IMAGE_ADDRESS_MAX; an unpacked
 * kernel of at most BOOT_IMAGE_UNPACKED_MAX bytes. Every error comes with a static text that says
 * what is wrong with the image.
 */
#ifndef VMM_BOOT_IMAGE_H
#define VMM_BOOT_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define BOOT_IMAGE_SEGMENTS_MAX 16
#define BOOT_IMAGE_ADDRESS_MIN UINT64_C(0x100000)   /* what lies below is the layout's */
#define BOOT_IMAGE_ADDRESS_MAX UINT64_C(0x40000000) /* mapped by the first page tables */
#define BOOT_IMAGE_UNPACKED_MAX (256u << 20)
/* How much of a file's beginning the parsers want to see; less only when the file is shorter. */
#define BOOT_IMAGE_HEAD 65536

enum boot_image_kind {
	BOOT_IMAGE_UNKNOWN,
	BOOT_IMAGE_ELF,
	BOOT_IMAGE_BZIMAGE,
};

struct boot_segment {
	uint64_t file_offset;
	uint64_t file_length;	/* bytes from the file, at most memory_length */
	uint64_t guest_address; /* physical */
	uint64_t memory_length; /* what is beyond file_length is zero */
};

struct boot_image {
	uint64_t entry; /* physical; inside a segment */
	uint64_t end;	/* first address behind all segments */
	size_t segment_count;
	struct boot_segment segments[BOOT_IMAGE_SEGMENTS_MAX]; /* ascending, not overlapping */
};

/* The compressed kernel inside a bzImage. */
struct boot_payload {
	uint64_t offset; /* in the file */
	size_t length;	 /* without the appended size */
	size_t unpacked_length;
};

enum boot_image_kind boot_image_identify(const uint8_t *head, size_t length);

/* The loadable segments of an ELF file of `file_length` bytes that begins with `head`. Returns 0,
 * or -ENOEXEC with what is wrong. */
int boot_image_parse_elf(const uint8_t *head, size_t length, uint64_t file_length,
			 struct boot_image *ret_image, const char **ret_what);

/* Where the payload of a bzImage lies; all but its unpacked length, which stands in the four bytes
 * behind the payload. Returns 0, or -ENOEXEC with what is wrong. */
int boot_image_parse_bzimage(const uint8_t *head, size_t length, uint64_t file_length,
			     struct boot_payload *ret_payload, const char **ret_what);

/* The length that the payload claims to unpack to, from the four bytes behind it. 0, or -EFBIG
 * above BOOT_IMAGE_UNPACKED_MAX and -ENOEXEC for none. */
int boot_image_unpacked_length(const uint8_t trailer[4], size_t *ret_length, const char **ret_what);

/* Unpacks a payload into exactly `output_length` bytes. Returns 0, -EOPNOTSUPP for a compression
 * other than LZ4, whose name is in the text, or -EBADMSG for a damaged one. */
int boot_image_unpack(const uint8_t *payload, size_t length, uint8_t *output, size_t output_length,
		      const char **ret_what);

#endif
