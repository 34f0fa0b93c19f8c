#include "vmm/boot_image.h"

#include <check.h>
#include <elf.h>
#include <errno.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LENGTH 0x10000

static uint8_t file[FILE_LENGTH];
static struct boot_image image;
static const char *what;

/* An ELF file of two segments, the second with memory beyond its bytes. */
static Elf64_Phdr *make_elf(void)
{
	Elf64_Ehdr header = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = 0x1000000,
		.e_phoff = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
	};
	const Elf64_Phdr segments[3] = {
		{ .p_type = PT_LOAD,
		  .p_offset = 0x1000,
		  .p_vaddr = UINT64_C(0xffffffff81000000),
		  .p_paddr = 0x1000000,
		  .p_filesz = 0x3000,
		  .p_memsz = 0x3000 },
		{ .p_type = PT_NOTE, .p_offset = 0x2000, .p_filesz = 0x10, .p_memsz = 0x10 },
		{ .p_type = PT_LOAD,
		  .p_offset = 0x4000,
		  .p_paddr = 0x1004000,
		  .p_filesz = 0x800,
		  .p_memsz = 0x5000 },
	};

	memset(file, 0, sizeof(file));
	memcpy(file, &header, sizeof(header));
	memcpy(file + sizeof(header), segments, sizeof(segments));
	what = NULL;
	return (Elf64_Phdr *)(void *)(file + sizeof(header));
}

static Elf64_Ehdr *elf_header(void)
{
	return (Elf64_Ehdr *)(void *)file;
}

static int parse(void)
{
	return boot_image_parse_elf(file, sizeof(file), sizeof(file), &image, &what);
}

START_TEST(elf)
{
	(void)make_elf();
	ck_assert_int_eq(boot_image_identify(file, sizeof(file)), BOOT_IMAGE_ELF);
	ck_assert_int_eq(parse(), 0);
	ck_assert_uint_eq(image.entry, 0x1000000);
	ck_assert_uint_eq(image.end, 0x1009000);
	ck_assert_uint_eq(image.segment_count, 2);
	ck_assert_uint_eq(image.segments[1].file_offset, 0x4000);
	ck_assert_uint_eq(image.segments[1].file_length, 0x800);
	ck_assert_uint_eq(image.segments[1].guest_address, 0x1004000);
	ck_assert_uint_eq(image.segments[1].memory_length, 0x5000);
}
END_TEST

/* Each breaks one thing. */
static void below_one_mib(Elf64_Phdr *headers)
{
	headers[0].p_paddr = 0x1000;
}
static void above_one_gib(Elf64_Phdr *headers)
{
	headers[2].p_memsz = 0x40000000;
}
static void wraps(Elf64_Phdr *headers)
{
	headers[2].p_memsz = UINT64_MAX;
}
static void beyond_the_file(Elf64_Phdr *headers)
{
	headers[0].p_offset = FILE_LENGTH - 0x2fff;
}
static void offset_wraps(Elf64_Phdr *headers)
{
	headers[0].p_offset = UINT64_MAX;
}
static void more_in_file(Elf64_Phdr *headers)
{
	headers[2].p_filesz = 0x5001;
}
static void overlap(Elf64_Phdr *headers)
{
	headers[2].p_paddr = 0x1002fff;
}
static void descending(Elf64_Phdr *headers)
{
	headers[2].p_paddr = 0x200000;
}
static void no_entry(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_entry = 0x1003000;
}
static void entry_in_zeros(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_entry = 0x1004800;
}
static void no_executable(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_type = ET_DYN;
}
static void other_machine(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_machine = EM_AARCH64;
}
static void other_class(Elf64_Phdr *headers)
{
	(void)headers;
	file[EI_CLASS] = ELFCLASS32;
}
static void odd_headers(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_phentsize = 32;
}
static void far_headers(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_phoff = FILE_LENGTH + 1;
}
static void many_headers(Elf64_Phdr *headers)
{
	(void)headers;
	elf_header()->e_phnum = UINT16_MAX;
}

static void (*const breaks[])(Elf64_Phdr *headers) = {
	below_one_mib, above_one_gib, wraps,	   beyond_the_file, offset_wraps,  more_in_file,
	overlap,       descending,    no_entry,	   entry_in_zeros,  no_executable, other_machine,
	other_class,   odd_headers,   far_headers, many_headers,
};

START_TEST(broken_elf)
{
	breaks[_i](make_elf());
	ck_assert_int_eq(parse(), -ENOEXEC);
	ck_assert_ptr_nonnull(what);
}
END_TEST

START_TEST(cut_elf)
{
	(void)make_elf();
	for (size_t length = 0; length < 64 + 3 * 56; length++)
		ck_assert_int_eq(boot_image_parse_elf(file, length, sizeof(file), &image, &what),
				 -ENOEXEC);
}
END_TEST

START_TEST(too_many_segments)
{
	Elf64_Phdr *headers = make_elf();

	for (unsigned i = 0; i < BOOT_IMAGE_SEGMENTS_MAX + 1; i++)
		headers[i] = (Elf64_Phdr){ .p_type = PT_LOAD,
					   .p_paddr = 0x1000000 + i * 0x1000,
					   .p_filesz = 16,
					   .p_memsz = 16 };
	elf_header()->e_phnum = BOOT_IMAGE_SEGMENTS_MAX;
	ck_assert_int_eq(parse(), 0);
	elf_header()->e_phnum = BOOT_IMAGE_SEGMENTS_MAX + 1;
	ck_assert_int_eq(parse(), -ENOEXEC);
}
END_TEST

/* ---- bzImage -----------------------------------------------------------------------------------
 */

#define PAYLOAD 0x800

static void put32(size_t offset, uint32_t value)
{
	memcpy(file + offset, &value, sizeof(value));
}

static void make_bzimage(uint32_t payload_length)
{
	memset(file, 0, sizeof(file));
	file[0x1f1] = 2; /* so that the kernel begins at 3 sectors */
	put32(0x202, 0x53726448);
	file[0x206] = 0x0f;
	file[0x207] = 0x02;
	put32(0x248, PAYLOAD - 3 * 512);
	put32(0x24c, payload_length);
}

START_TEST(bzimage)
{
	struct boot_payload payload;

	make_bzimage(0x1004);
	ck_assert_int_eq(boot_image_identify(file, sizeof(file)), BOOT_IMAGE_BZIMAGE);
	ck_assert_int_eq(
		boot_image_parse_bzimage(file, sizeof(file), sizeof(file), &payload, &what), 0);
	ck_assert_uint_eq(payload.offset, PAYLOAD);
	ck_assert_uint_eq(payload.length, 0x1000);

	make_bzimage(FILE_LENGTH - PAYLOAD + 1);
	ck_assert_int_eq(
		boot_image_parse_bzimage(file, sizeof(file), sizeof(file), &payload, &what),
		-ENOEXEC);
	make_bzimage(4);
	ck_assert_int_eq(
		boot_image_parse_bzimage(file, sizeof(file), sizeof(file), &payload, &what),
		-ENOEXEC);
	make_bzimage(UINT32_MAX);
	ck_assert_int_eq(
		boot_image_parse_bzimage(file, sizeof(file), UINT64_MAX / 2, &payload, &what),
		-ENOEXEC);
	make_bzimage(0x1004);
	file[0x206] = 0x07;
	ck_assert_int_eq(
		boot_image_parse_bzimage(file, sizeof(file), sizeof(file), &payload, &what),
		-ENOEXEC);
	make_bzimage(0x1004);
	for (size_t length = 0; length < 0x250; length++)
		ck_assert_int_eq(
			boot_image_parse_bzimage(file, length, sizeof(file), &payload, &what),
			-ENOEXEC);
}
END_TEST

/* Packs `length` bytes as the kernel's build does: magic, then blocks with their length. */
static size_t pack(const uint8_t *bytes, size_t length, uint8_t *output, size_t capacity)
{
	const uint32_t magic = 0x184c2102;
	size_t done = 4;

	memcpy(output, &magic, 4);
	while (length > 0) {
		int part = length < (8u << 20) ? (int)length : 8 << 20;
		int packed = LZ4_compress_default((const char *)bytes, (char *)output + done + 4,
						  part, (int)(capacity - done - 4));
		uint32_t count = (uint32_t)packed;

		ck_assert_int_gt(packed, 0);
		memcpy(output + done, &count, 4);
		done += 4 + count;
		bytes += part;
		length -= (size_t)part;
	}
	return done;
}

START_TEST(unpacking)
{
	const size_t length = (8u << 20) + 12345; /* two blocks */
	const size_t capacity = 9u << 20;
	uint8_t *bytes = malloc(length), *packed = malloc(capacity), *output = malloc(length);
	size_t packed_length;

	ck_assert(bytes && packed && output);
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(i * i >> 7);
	packed_length = pack(bytes, length, packed, capacity);
	ck_assert_int_eq(boot_image_unpack(packed, packed_length, output, length, &what), 0);
	ck_assert_mem_eq(bytes, output, length);
	/* Longer or shorter than it says. */
	ck_assert_int_eq(boot_image_unpack(packed, packed_length, output, length - 1, &what),
			 -EBADMSG);
	ck_assert_int_eq(boot_image_unpack(packed, packed_length - 1, output, length, &what),
			 -EBADMSG);
	ck_assert_int_eq(boot_image_unpack(packed, 4, output, length, &what), -EBADMSG);
	for (size_t i = 4; i < 64; i++) {
		packed[i] ^= 0xff;
		(void)boot_image_unpack(packed, packed_length, output, length, &what);
		packed[i] ^= 0xff;
	}
	free(bytes);
	free(packed);
	free(output);
}
END_TEST

START_TEST(other_compressions)
{
	static const struct {
		uint8_t bytes[6];
		const char *name;
	} cases[] = {
		{ { 0x1f, 0x8b, 8 }, "gzip" },	   { { 0x28, 0xb5, 0x2f, 0xfd }, "zstd" },
		{ { 0xfd, '7', 'z', 'X' }, "xz" }, { { 'B', 'Z', 'h' }, "bzip2" },
		{ { 0x5d, 0, 0 }, "LZMA" },	   { { 0x89, 'L', 'Z', 'O' }, "LZO" },
		{ { 1, 2, 3 }, "not known" },
	};
	uint8_t output[16];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_int_eq(
			boot_image_unpack(cases[i].bytes, 6, output, sizeof(output), &what),
			-EOPNOTSUPP);
		ck_assert_ptr_nonnull(strstr(what, cases[i].name));
	}
}
END_TEST

START_TEST(claimed_lengths)
{
	const uint8_t none[4] = { 0 }, most[4] = { 0, 0, 0, 0x10 }, more[4] = { 1, 0, 0, 0x10 };
	size_t length = 0;

	ck_assert_int_eq(boot_image_unpacked_length(none, &length, &what), -ENOEXEC);
	ck_assert_int_eq(boot_image_unpacked_length(more, &length, &what), -EFBIG);
	ck_assert_int_eq(boot_image_unpacked_length(most, &length, &what), 0);
	ck_assert_uint_eq(length, BOOT_IMAGE_UNPACKED_MAX);
}
END_TEST

START_TEST(unknown_images)
{
	memset(file, 0, sizeof(file));
	ck_assert_int_eq(boot_image_identify(file, sizeof(file)), BOOT_IMAGE_UNKNOWN);
	ck_assert_int_eq(boot_image_identify(file, 0), BOOT_IMAGE_UNKNOWN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("boot_image");
	TCase *tests = tcase_create("boot_image");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, elf);
	tcase_add_loop_test(tests, broken_elf, 0, (int)(sizeof(breaks) / sizeof(breaks[0])));
	tcase_add_test(tests, cut_elf);
	tcase_add_test(tests, too_many_segments);
	tcase_add_test(tests, bzimage);
	tcase_add_test(tests, unpacking);
	tcase_add_test(tests, other_compressions);
	tcase_add_test(tests, claimed_lengths);
	tcase_add_test(tests, unknown_images);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
