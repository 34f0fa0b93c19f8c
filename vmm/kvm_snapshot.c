#include "vmm/kvm_snapshot.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define THIS_PROGRAM "/proc/self/exe"

/* ---- identity ----------------------------------------------------------------------------------
 */

struct text {
	char *start;
	size_t length;
	int error; /* of anything so far */
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *text, const char *format, ...)
{
	const size_t room = SNAPSHOT_IDENTITY_MAX - text->length;
	va_list arguments;
	int count;

	va_start(arguments, format);
	count = vsnprintf(text->start + text->length, room, format, arguments);
	va_end(arguments);
	if (count < 0 || (size_t)count >= room)
		text->error = -E2BIG;
	else
		text->length += (size_t)count;
}

/* A file that was replaced or written to is another one. */
static void add_file(struct text *text, const char *what, const char *path)
{
	struct stat status;

	if (stat(path, &status) < 0) {
		text->error = -errno;
		return;
	}
	add(text, "%s %llu:%llu %llu %lld.%09ld %lld.%09ld\n", what,
	    (unsigned long long)status.st_dev, (unsigned long long)status.st_ino,
	    (unsigned long long)status.st_size, (long long)status.st_mtim.tv_sec,
	    status.st_mtim.tv_nsec, (long long)status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
}

static void add_boot_id(struct text *text)
{
	cleanup_fd int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	char id[64] = "";
	ssize_t count = fd < 0 ? -1 : read(fd, id, sizeof(id) - 1);

	if (count <= 0)
		text->error = fd < 0 || count < 0 ? -errno : -ENODATA;
	else
		add(text, "boot %s", id);
}

int kvm_snapshot_identity(const struct engine_config *config, const char *command_line,
			  char identity[SNAPSHOT_IDENTITY_MAX])
{
	struct text text = { .start = identity };

	memset(identity, 0, SNAPSHOT_IDENTITY_MAX);
	add_boot_id(&text);
	add_file(&text, "program", THIS_PROGRAM);
	add_file(&text, "kernel", config->kernel);
	add_file(&text, "initrd", config->initrd);
	add(&text, "memory %u huge %d file %d\nprocessors %u\ncommand line %s\n",
	    config->memory_mib, config->huge_pages, config->memory_fd >= 0, config->cpus,
	    command_line);
	return text.error;
}

bool kvm_snapshot_fits(const struct snapshot_state *state, const char *identity,
		       const struct guest_ram_layout *ram, unsigned cpus)
{
	return strcmp(state->identity, identity) == 0 && state->cpus == cpus &&
	       memcmp(&state->ram, ram, sizeof(*ram)) == 0;
}

/* ---- state -------------------------------------------------------------------------------------
 */

/* What the first processor shows. */
static int read_cpuid(const struct kvm_snapshot_parts *parts, struct kvm_cpuid_table *ret_table)
{
	int r;

	memset(ret_table, 0, sizeof(*ret_table));
	r = kvm_cpuid_supported(parts->vm->kvm, ret_table);
	return r < 0 ? r : kvm_cpuid_patch(ret_table, 0, parts->cpus);
}

int kvm_snapshot_prepare(struct snapshot_state *state, const struct kvm_snapshot_parts *parts)
{
	return read_cpuid(parts, &state->cpuid);
}

static int save_transports(struct snapshot_state *state, const struct kvm_snapshot_parts *parts)
{
	int r = 0;

	state->devices = parts->transport_count;
	for (unsigned i = 0; r == 0 && i < parts->transport_count; i++)
		r = virtio_mmio_save(parts->transports[i], &state->transports[i]);
	return r;
}

int kvm_snapshot_take(int fd, struct snapshot_state *state, const struct kvm_snapshot_parts *parts,
		      const char **ret_step)
{
	int r;

	*ret_step = "devices";
	r = save_transports(state, parts);
	if (r < 0)
		return r;
	state->ram = *parts->ram;
	state->cpus = parts->cpus;
	state->serial = serial_port_save(parts->serial);
	for (unsigned i = 0; r == 0 && i < parts->cpus; i++)
		r = kvm_cpu_save(kvm_vcpus_descriptor(parts->vcpus, i), &state->processors[i],
				 ret_step);
	if (r == 0)
		r = kvm_vm_save(parts->vm, &state->vm, ret_step);
	if (r < 0)
		return r;
	*ret_step = "writing the file";
	return snapshot_write(fd, state, parts->memory);
}

static int check_cpuid(const struct snapshot_state *state, const struct kvm_snapshot_parts *parts)
{
	cleanup_free struct kvm_cpuid_table *table = malloc(sizeof(*table));
	int r = table ? read_cpuid(parts, table) : -ENOMEM;

	if (r < 0)
		return r;
	return memcmp(table, &state->cpuid, sizeof(*table)) == 0 ? 0 : -EINVAL;
}

int kvm_snapshot_apply(const struct snapshot_state *state, const struct kvm_snapshot_parts *parts,
		       const char **ret_step)
{
	int r;

	*ret_step = "CPUID";
	r = check_cpuid(state, parts);
	for (unsigned i = 0; r == 0 && i < parts->cpus; i++)
		r = kvm_cpu_restore(kvm_vcpus_descriptor(parts->vcpus, i), &state->processors[i],
				    ret_step);
	if (r == 0)
		r = kvm_vm_restore(parts->vm, &state->vm, ret_step);
	if (r < 0)
		return r;
	serial_port_restore(parts->serial, &state->serial);
	*ret_step = "devices";
	if (state->devices != parts->transport_count)
		return -EINVAL;
	/* Last, for they may interrupt. */
	for (unsigned i = 0; r == 0 && i < parts->transport_count; i++)
		r = virtio_mmio_restore(parts->transports[i], &state->transports[i]);
	return r;
}
