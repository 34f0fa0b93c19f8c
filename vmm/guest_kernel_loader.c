#include "vmm/guest_kernel_loader.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "vmm/boot_image.h"
#include "vmm/boot_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* A kernel file, opened, and its beginning. */
struct image_file {
	int fd;
	uint64_t length;
	uint8_t *head;
	size_t head_length;
};

static void image_file_release(struct image_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->head);
}

/* Reads so much as there is, at most `length` bytes. */
static int read_at(int fd, uint64_t offset, uint8_t *target, size_t length, size_t *ret_count)
{
	size_t done = 0;

	while (done < length) {
		ssize_t count = pread(fd, target + done, length - done, (off_t)(offset + done));

		if (count < 0 && errno != EINTR)
			return -errno;
		if (count == 0)
			break;
		if (count > 0)
			done += (size_t)count;
	}
	*ret_count = done;
	return 0;
}

/* Takes over `fd`. */
static int image_file_open(int fd, struct image_file *ret_file)
{
	struct image_file file = { .fd = fd };
	struct stat status;
	int r;

	file.head = malloc(BOOT_IMAGE_HEAD);
	r = file.head ? 0 : -ENOMEM;
	if (r == 0 && fstat(fd, &status) < 0)
		r = -errno;
	if (r == 0 && !S_ISREG(status.st_mode))
		r = -EINVAL;
	if (r == 0)
		r = read_at(fd, 0, file.head, BOOT_IMAGE_HEAD, &file.head_length);
	if (r < 0) {
		image_file_release(&file);
		return r;
	}
	file.length = (uint64_t)status.st_size;
	*ret_file = file;
	return 0;
}

static int unpack_into(const struct boot_payload *payload, const uint8_t *bytes, int target,
		       const char **ret_what)
{
	uint8_t *output;
	int r;

	if (ftruncate(target, (off_t)payload->unpacked_length) < 0)
		return -errno;
	output =
		mmap(NULL, payload->unpacked_length, PROT_READ | PROT_WRITE, MAP_SHARED, target, 0);
	if (output == MAP_FAILED)
		return -errno;
	r = boot_image_unpack(bytes, payload->length, output, payload->unpacked_length, ret_what);
	(void)munmap(output, payload->unpacked_length);
	return r;
}

/* Replaces a bzImage by a memory file with what is packed in it. */
static int unpack(struct image_file *file, const char **ret_what)
{
	cleanup_fd int target = memfd_create("kernel", MFD_CLOEXEC);
	cleanup_free uint8_t *bytes = NULL;
	struct image_file unpacked = { .fd = -1 };
	struct boot_payload payload;
	size_t length, count = 0;
	int r = boot_image_parse_bzimage(file->head, file->head_length, file->length, &payload,
					 ret_what);

	if (r < 0)
		return r;
	if (target < 0)
		return -errno;
	/* With the trailing length. What the file says of itself is bounded by its size. */
	length = payload.length + 4;
	bytes = malloc(length);
	if (!bytes)
		return -ENOMEM;
	r = read_at(file->fd, payload.offset, bytes, length, &count);
	if (r == 0 && count != length)
		r = -ENODATA;
	if (r == 0)
		r = boot_image_unpacked_length(bytes + payload.length, &payload.unpacked_length,
					       ret_what);
	if (r == 0)
		r = unpack_into(&payload, bytes, target, ret_what);
	if (r == 0)
		r = image_file_open(steal_fd(&target), &unpacked);
	if (r < 0)
		return r;
	image_file_release(file);
	*file = unpacked;
	return 0;
}

static int place_segments(const struct guest_memory *memory, const struct boot_image *image, int fd)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct boot_segment *segment = &image->segments[i];
		int r;

		/* What is beyond the file's bytes is zero: fresh memory is. */
		if (!gpa_range(memory, segment->guest_address, segment->memory_length))
			return -ENOSPC;
		r = guest_ram_place(memory, fd, segment->file_offset, segment->guest_address,
				    segment->file_length);
		if (r < 0)
			return r;
	}
	return 0;
}

static int load(const struct guest_memory *memory, struct image_file *file,
		struct loaded_kernel *ret, const char **ret_what)
{
	struct boot_image image;
	int r = 0;

	if (boot_image_identify(file->head, file->head_length) == BOOT_IMAGE_BZIMAGE)
		r = unpack(file, ret_what);
	if (r == 0)
		r = boot_image_parse_elf(file->head, file->head_length, file->length, &image,
					 ret_what);
	if (r == 0) {
		*ret_what = "it does not fit into the guest's memory";
		r = place_segments(memory, &image, file->fd);
	}
	if (r == 0)
		*ret = (struct loaded_kernel){ .entry = image.entry, .end = image.end };
	return r;
}

int load_kernel(const struct guest_memory *memory, const char *path, struct loaded_kernel *ret,
		char *why, size_t size)
{
	struct image_file file = { .fd = -1 };
	const char *what = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : image_file_open(fd, &file);

	if (r == 0) {
		r = load(memory, &file, ret, &what);
		image_file_release(&file);
	} else if (fd >= 0) {
		what = "it cannot be read";
	}
	if (r < 0)
		(void)snprintf(why, size, "cannot load the kernel %s: %s", path,
			       what ? what : strerror(-r));
	return r;
}

int load_initrd(const struct guest_memory *memory, const struct guest_ram_layout *ram,
		uint64_t kernel_end, const char *path, struct loaded_initrd *ret, char *why,
		size_t size)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct loaded_initrd initrd = { 0 };
	struct stat status;
	int r = 0;

	if (fd < 0 || fstat(fd, &status) < 0)
		r = -errno;
	else
		initrd.length = (uint64_t)status.st_size;
	if (r == 0)
		r = boot_layout_initrd(ram, kernel_end, initrd.length, &initrd.address);
	if (r == 0)
		r = guest_ram_place(memory, fd, 0, initrd.address, initrd.length);
	if (r < 0)
		(void)snprintf(why, size, "cannot load the initrd %s: %s", path,
			       r == -ENOSPC ? "it does not fit into the guest's memory"
					    : strerror(-r));
	else
		*ret = initrd;
	return r;
}
