#include "vmm/boot_image.h"

#include "base/bytes.h"
#include "base/checked.h"

#include <elf.h>
#include <errno.h>
#include <lz4.h>
#include <stdbool.h>
#include <string.h>

/* Offsets in a bzImage: boot.rst, "The Real-Mode Kernel Header". */
#define BZIMAGE_SETUP_SECTORS 0x1f1
#define BZIMAGE_MAGIC_OFFSET 0x202
#define BZIMAGE_VERSION 0x206
#define BZIMAGE_PAYLOAD_OFFSET 0x248
#define BZIMAGE_HEADER_END 0x250
#define BZIMAGE_MAGIC 0x53726448 /* "HdrS" */
#define BZIMAGE_VERSION_MIN 0x208
#define BZIMAGE_SECTOR 512
#define BZIMAGE_TRAILER 4

#define LZ4_LEGACY_MAGIC 0x184c2102
#define LZ4_LEGACY_BLOCK_MAX (8u << 20) /* unpacked */

enum boot_image_kind boot_image_identify(const uint8_t *head, size_t length)
{
	struct byte_reader reader;

	if (length >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
		return BOOT_IMAGE_ELF;
	byte_reader_init(&reader, head, length);
	(void)byte_reader_bytes(&reader, BZIMAGE_MAGIC_OFFSET);
	if (byte_reader_u32(&reader) == BZIMAGE_MAGIC)
		return BOOT_IMAGE_BZIMAGE;
	return BOOT_IMAGE_UNKNOWN;
}

static int bad(const char **ret_what, const char *what)
{
	*ret_what = what;
	return -ENOEXEC;
}

/* ---- ELF ---------------------------------------------------------------------------------------
 */

struct elf_header {
	uint64_t entry;
	uint64_t program_headers; /* offset */
	uint16_t program_header_size;
	uint16_t program_header_count;
};

static int read_elf_header(struct byte_reader *reader, struct elf_header *ret_header,
			   const char **ret_what)
{
	struct elf_header header;
	uint8_t identity[EI_NIDENT];
	uint16_t type, machine;

	byte_reader_copy(reader, identity, sizeof(identity));
	type = byte_reader_u16(reader);
	machine = byte_reader_u16(reader);
	(void)byte_reader_u32(reader); /* version */
	header.entry = byte_reader_u64(reader);
	header.program_headers = byte_reader_u64(reader);
	(void)byte_reader_u64(reader); /* sections */
	(void)byte_reader_u32(reader); /* flags */
	(void)byte_reader_u16(reader); /* size of this header */
	header.program_header_size = byte_reader_u16(reader);
	header.program_header_count = byte_reader_u16(reader);
	if (!byte_reader_ok(reader))
		return bad(ret_what, "the ELF header is cut short");
	if (memcmp(identity, ELFMAG, SELFMAG) != 0 || identity[EI_CLASS] != ELFCLASS64 ||
	    identity[EI_DATA] != ELFDATA2LSB || machine != EM_X86_64 || type != ET_EXEC)
		return bad(ret_what, "not an ELF executable for x86-64");
	if (header.program_header_size != sizeof(Elf64_Phdr))
		return bad(ret_what, "program headers of an odd size");
	*ret_header = header;
	return 0;
}

/* Adds a segment behind those before it. Segments must ascend, which linkers see to, so that
 * none can overwrite another. */
static int add_segment(struct boot_image *image, const struct boot_segment *segment,
		       uint64_t file_length, const char **ret_what)
{
	uint64_t file_end, memory_end;

	if (segment->memory_length == 0)
		return 0;
	if (image->segment_count == BOOT_IMAGE_SEGMENTS_MAX)
		return bad(ret_what, "too many loadable segments");
	if (segment->file_length > segment->memory_length)
		return bad(ret_what, "a segment has more bytes in the file than in memory");
	if (!checked_add_u64(segment->file_offset, segment->file_length, &file_end) ||
	    file_end > file_length)
		return bad(ret_what, "a segment lies beyond the end of the file");
	if (!checked_add_u64(segment->guest_address, segment->memory_length, &memory_end) ||
	    segment->guest_address < BOOT_IMAGE_ADDRESS_MIN || memory_end > BOOT_IMAGE_ADDRESS_MAX)
		return bad(ret_what, "a segment lies outside 1 MiB to 1 GiB");
	if (segment->guest_address < image->end)
		return bad(ret_what, "segments overlap or do not ascend");
	image->segments[image->segment_count++] = *segment;
	image->end = memory_end;
	return 0;
}

static bool has_entry(const struct boot_image *image)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct boot_segment *segment = &image->segments[i];

		if (image->entry >= segment->guest_address &&
		    image->entry - segment->guest_address < segment->file_length)
			return true;
	}
	return false;
}

int boot_image_parse_elf(const uint8_t *head, size_t length, uint64_t file_length,
			 struct boot_image *ret_image, const char **ret_what)
{
	struct boot_image image = { 0 };
	struct elf_header header;
	struct byte_reader reader;
	int r;

	byte_reader_init(&reader, head, length);
	r = read_elf_header(&reader, &header, ret_what);
	if (r < 0)
		return r;
	image.entry = header.entry;
	byte_reader_init(&reader, head, length);
	if (header.program_headers > length)
		return bad(ret_what, "the program headers are too far from the file's beginning");
	(void)byte_reader_bytes(&reader, (size_t)header.program_headers);
	for (unsigned i = 0; i < header.program_header_count; i++) {
		struct boot_segment segment;
		uint32_t type = byte_reader_u32(&reader);

		(void)byte_reader_u32(&reader); /* flags: the guest sets its own page tables up */
		segment.file_offset = byte_reader_u64(&reader);
		(void)byte_reader_u64(&reader); /* virtual address */
		segment.guest_address = byte_reader_u64(&reader);
		segment.file_length = byte_reader_u64(&reader);
		segment.memory_length = byte_reader_u64(&reader);
		(void)byte_reader_u64(&reader); /* alignment */
		if (!byte_reader_ok(&reader))
			return bad(ret_what, "the program headers are cut short");
		if (type != PT_LOAD)
			continue;
		r = add_segment(&image, &segment, file_length, ret_what);
		if (r < 0)
			return r;
	}
	if (!has_entry(&image))
		return bad(ret_what, "the entry point lies in no segment");
	*ret_image = image;
	return 0;
}

/* ---- bzImage -----------------------------------------------------------------------------------
 */

int boot_image_parse_bzimage(const uint8_t *head, size_t length, uint64_t file_length,
			     struct boot_payload *ret_payload, const char **ret_what)
{
	struct boot_payload payload = { 0 };
	struct byte_reader reader;
	uint64_t sectors, start, end;
	uint32_t payload_offset, payload_length;
	uint16_t version;

	if (boot_image_identify(head, length) != BOOT_IMAGE_BZIMAGE || length < BZIMAGE_HEADER_END)
		return bad(ret_what, "no bzImage header");
	byte_reader_init(&reader, head, length);
	(void)byte_reader_bytes(&reader, BZIMAGE_SETUP_SECTORS);
	sectors = byte_reader_u8(&reader);
	(void)byte_reader_bytes(&reader, BZIMAGE_VERSION - BZIMAGE_SETUP_SECTORS - 1);
	version = byte_reader_u16(&reader);
	(void)byte_reader_bytes(&reader, BZIMAGE_PAYLOAD_OFFSET - BZIMAGE_VERSION - 2);
	payload_offset = byte_reader_u32(&reader);
	payload_length = byte_reader_u32(&reader);
	if (version < BZIMAGE_VERSION_MIN)
		return bad(ret_what,
			   "a boot protocol before 2.08 does not say where the kernel is");
	if (sectors == 0)
		sectors = 4;
	start = (sectors + 1) * BZIMAGE_SECTOR + payload_offset;
	end = start + payload_length;
	if (payload_length <= BZIMAGE_TRAILER || payload_length > BOOT_IMAGE_UNPACKED_MAX ||
	    end > file_length)
		return bad(ret_what, "the compressed kernel lies beyond the end of the file");
	payload.offset = start;
	payload.length = payload_length - BZIMAGE_TRAILER;
	*ret_payload = payload;
	return 0;
}

int boot_image_unpacked_length(const uint8_t trailer[4], size_t *ret_length, const char **ret_what)
{
	struct byte_reader reader;
	size_t length;

	byte_reader_init(&reader, trailer, 4);
	length = byte_reader_u32(&reader);
	if (length == 0)
		return bad(ret_what, "the compressed kernel is empty");
	if (length > BOOT_IMAGE_UNPACKED_MAX) {
		*ret_what = "the compressed kernel claims to be larger than 256 MiB";
		return -EFBIG;
	}
	*ret_length = length;
	return 0;
}

/* The text for a payload that is not LZ4, by its first bytes. */
static const char *other_compression(const uint8_t *payload, size_t length)
{
	static const struct {
		uint8_t magic[4];
		size_t length;
		const char *text;
	} known[] = {
		{ { 0x1f, 0x8b }, 2, "the kernel is compressed with gzip; only LZ4 is understood" },
		{ { 0x28, 0xb5, 0x2f, 0xfd },
		  4,
		  "the kernel is compressed with zstd; only LZ4 is understood" },
		{ { 0xfd, '7', 'z', 'X' },
		  4,
		  "the kernel is compressed with xz; only LZ4 is understood" },
		{ { 'B', 'Z', 'h' },
		  3,
		  "the kernel is compressed with bzip2; only LZ4 is understood" },
		{ { 0x5d, 0, 0 }, 3, "the kernel is compressed with LZMA; only LZ4 is understood" },
		{ { 0x89, 'L', 'Z', 'O' },
		  4,
		  "the kernel is compressed with LZO; only LZ4 is understood" },
	};

	for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
		if (length >= known[i].length &&
		    memcmp(payload, known[i].magic, known[i].length) == 0)
			return known[i].text;
	}
	return "the kernel is compressed in a way that is not known; only LZ4 is understood";
}

int boot_image_unpack(const uint8_t *payload, size_t length, uint8_t *output, size_t output_length,
		      const char **ret_what)
{
	struct byte_reader reader;
	size_t done = 0;

	byte_reader_init(&reader, payload, length);
	if (byte_reader_u32(&reader) != LZ4_LEGACY_MAGIC) {
		*ret_what = other_compression(payload, length);
		return -EOPNOTSUPP;
	}
	*ret_what = "the compressed kernel is damaged";
	while (byte_reader_remaining(&reader) > 0) {
		uint32_t block = byte_reader_u32(&reader);
		const uint8_t *bytes = byte_reader_bytes(&reader, block);
		size_t room = MIN_OF(output_length - done, (size_t)LZ4_LEGACY_BLOCK_MAX);
		int unpacked;

		if (!byte_reader_ok(&reader) || block == 0 || block > INT32_MAX)
			return -EBADMSG;
		unpacked = LZ4_decompress_safe((const char *)bytes, (char *)output + done,
					       (int)block, (int)room);
		if (unpacked <= 0)
			return -EBADMSG;
		done += (size_t)unpacked;
	}
	return done == output_length ? 0 : -EBADMSG;
}
