#include "cli/guest_kernel.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_DIGITS 32 /* of the SHA-256, in the initrd's name */
#define SCRIPT_OUTPUT_MAX 8192
#define VERSION_MAX 256
#define GUEST_KERNEL_VARIABLE "MATCHLOCK_KERNEL"

void guest_kernel_free(struct guest_kernel *kernel)
{
	free(kernel->vmlinux);
	free(kernel->initrd);
	free(kernel->version);
	*kernel = (struct guest_kernel){ 0 };
}

/* First HASH_DIGITS hexadecimal digits of the file's SHA-256. */
static int hash_file(const char *path, char digits[HASH_DIGITS + 1])
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char digest[SHA256_DIGEST_LENGTH];
	struct stat status;
	void *data;

	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size == 0)
		return -ENODATA;
	data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	/* A digest needs nothing of openssl.cnf, and is faster than reading it. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	SHA256(data, (size_t)status.st_size, digest);
	munmap(data, (size_t)status.st_size);
	for (size_t i = 0; i < HASH_DIGITS / 2; i++)
		snprintf(digits + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static int run_script(const struct paths *paths, const char *initramfs, struct problem *problem)
{
	cleanup_free char *script = find_program(paths, "guest-kernel.sh", problem);
	cleanup_free char *output = NULL;
	char *arguments[] = { script, (char[]){ "--initrd" }, text_copy(initramfs), NULL };
	int status = 0;
	int error;

	if (!script) {
		free(arguments[2]);
		return -1;
	}
	if (isatty(STDERR_FILENO))
		log_warning("preparing the guest's kernel; this happens once");
	error = run_helper(script, arguments, SCRIPT_OUTPUT_MAX, &output, NULL, &status, problem);
	free(arguments[2]);
	if (error < 0)
		return -1;
	if (status != 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "there is no guest kernel, and %s could not fetch one (exit "
				   "status %d; its message is above)",
				   script, status);
	return 0;
}

static bool is_file(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
}

/* Whether the environment and the cache say trimmed. guest-kernel.sh decides by the same rule. */
static int choose(const struct paths *paths, bool *ret_trimmed, struct problem *problem)
{
	cleanup_free char *vmlinux = text_printf("%s/kernel/trimmed/vmlinux", paths->cache);
	const char *choice = getenv(GUEST_KERNEL_VARIABLE);
	bool there = is_file(vmlinux);

	if (!choice || *choice == '\0') {
		*ret_trimmed = there;
	} else if (strcmp(choice, "debian") == 0) {
		*ret_trimmed = false;
	} else if (strcmp(choice, "trimmed") == 0) {
		if (!there)
			return problem_set(problem, STATUS_USAGE,
					   GUEST_KERNEL_VARIABLE
					   " is \"trimmed\", and there is no such kernel in "
					   "%s/kernel: run `make guest-kernel` in the source tree",
					   paths->cache);
		*ret_trimmed = true;
	} else {
		return problem_set(problem, STATUS_USAGE,
				   GUEST_KERNEL_VARIABLE
				   " is \"%s\"; it can be \"debian\" or \"trimmed\"",
				   choice);
	}
	return 0;
}

static char *read_version(const char *directory)
{
	cleanup_free char *path = text_printf("%s/version", directory);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;

	if (fd < 0 || read_file(fd, VERSION_MAX, &text, NULL) < 0)
		return text_copy("of an unknown version");
	text[strcspn(text, "\n")] = '\0';
	return text;
}

/* True when the kernel was there and, unless that does not matter, the initrd too. */
static bool take_from(const char *link, const char *digits, bool need_initrd,
		      struct guest_kernel *kernel)
{
	/* Resolved now, so that an update while the VM starts cannot mix two versions. */
	cleanup_free char *directory = realpath(link, NULL);
	cleanup_free char *vmlinux = NULL;
	cleanup_free char *initrd = NULL;
	bool joined;

	if (!directory)
		return false;
	vmlinux = text_printf("%s/vmlinux", directory);
	initrd = text_printf("%s/initrd-%s.cpio", directory, digits);
	joined = is_file(initrd);
	if (!is_file(vmlinux) || (need_initrd && !joined))
		return false;
	kernel->vmlinux = steal_pointer(&vmlinux);
	kernel->initrd = joined ? steal_pointer(&initrd) : NULL;
	kernel->version = read_version(directory);
	return true;
}

int guest_kernel_find(const struct paths *paths, bool fetch, struct guest_kernel *ret_kernel,
		      struct problem *problem)
{
	cleanup_free char *initramfs = find_initramfs(paths, problem);
	cleanup_free char *link = NULL;
	char digits[HASH_DIGITS + 1];
	bool trimmed = false;
	int error;

	if (!initramfs)
		return -1;
	error = hash_file(initramfs, digits);
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot read %s: %s", initramfs,
				   strerror(-error));
	if (choose(paths, &trimmed, problem) < 0)
		return -1;
	link = text_printf("%s/kernel/%s", paths->cache, trimmed ? "trimmed" : "current");
	for (int attempt = 0; attempt < 2; attempt++) {
		if (take_from(link, digits, fetch, ret_kernel)) {
			ret_kernel->trimmed = trimmed;
			return 0;
		}
		if (!fetch)
			return problem_set(
				problem, STATUS_SANDBOX,
				"no guest kernel in %s/kernel yet; the first run fetches "
				"it",
				paths->cache);
		if (attempt == 0 && run_script(paths, initramfs, problem) < 0)
			return -1;
	}
	return problem_set(
		problem, STATUS_SANDBOX,
		"guest-kernel.sh ran, but %s is still incomplete: remove %s/kernel and try "
		"again",
		link, paths->cache);
}
