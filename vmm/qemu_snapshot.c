#include "vmm/qemu_snapshot.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "vmm/acpi_tables.h"
#include "vmm/snapshot.h"
#include "vmm/snapshot_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRMWARE_SIZE 65536
#define RESET_VECTOR 0xfff0 /* 16 bytes below the end, which lies at 4 GiB */
#define CODE_START 0xffc0
#define VECTOR_AT (ACPI_FACS_OFFSET + ACPI_FACS_WAKING_VECTOR)
/* Four bytes of the tables' area that no table reaches. */
#define SCRATCH_AT (ACPI_MICROVM_MAX - 8)

#define LOW_BYTE(value) ((uint8_t)((value)&0xff))

struct qemu_snapshot {
	struct snapshot_state state;
	struct guest_memory memory; /* at its offsets in the file */
	char identity[SNAPSHOT_IDENTITY_MAX];
};

/* ---- memory ------------------------------------------------------------------------------------
 */

static int map_part(struct guest_memory *memory, int fd, uint64_t start, uint64_t end)
{
	uint8_t *host;

	if (start == end)
		return 0;
	host = mmap(NULL, (size_t)(end - start), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    (off_t)start);
	if (host == MAP_FAILED)
		return -errno;
	return guest_memory_add_private(memory, host, start, end - start);
}

static int map_memory(const struct engine_config *config, int fd, struct guest_memory *memory)
{
	const uint64_t size = (uint64_t)config->memory_mib << 20;
	const uint64_t window = config->window_size > 0 ? config->window_address : size;
	int r = map_part(memory, fd, 0, window);

	return r < 0 ? r : map_part(memory, fd, window + config->window_size, size);
}

int qemu_snapshot_new(const struct engine_config *config, const char *program,
		      const char *command_line, int memory_fd, struct qemu_snapshot **ret_snapshot)
{
	struct qemu_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	int r = -ENOMEM;

	if (snapshot)
		r = snapshot_identity(config, program, command_line, snapshot->identity);
	if (r == 0)
		r = map_memory(config, memory_fd, &snapshot->memory);
	if (r < 0)
		qemu_snapshot_free(snapshot);
	else
		*ret_snapshot = snapshot;
	return r;
}

void qemu_snapshot_free(struct qemu_snapshot *snapshot)
{
	if (!snapshot)
		return;
	guest_memory_release(&snapshot->memory);
	free(snapshot);
}

/* ---- the file ----------------------------------------------------------------------------------
 */

bool qemu_snapshot_fits(struct qemu_snapshot *snapshot, int fd, const char **ret_why)
{
	int r = snapshot_read_state(fd, &snapshot->state);

	*ret_why = r == -ENODATA ? "there is none"
		   : r < 0	 ? "it cannot be read"
				 : "it is of another machine";
	return r == 0 && strcmp(snapshot->state.identity, snapshot->identity) == 0;
}

int qemu_snapshot_read(const struct qemu_snapshot *snapshot, int fd)
{
	return snapshot_read_memory(fd, &snapshot->state, &snapshot->memory);
}

bool qemu_snapshot_is_asleep(const struct qemu_snapshot *snapshot)
{
	const uint8_t *vector = gpa_range(&snapshot->memory, ACPI_MICROVM_ADDRESS + VECTOR_AT, 4);

	return vector && (vector[0] || vector[1] || vector[2] || vector[3]);
}

int qemu_snapshot_write(struct qemu_snapshot *snapshot, int fd)
{
	memset(&snapshot->state, 0, sizeof(snapshot->state));
	/* What a processor knows lies in memory. */
	snapshot->state.cpus = 1;
	memcpy(snapshot->state.identity, snapshot->identity, sizeof(snapshot->identity));
	return snapshot_write(fd, &snapshot->state, &snapshot->memory);
}

/* ---- the firmware ------------------------------------------------------------------------------
 */

/* In real mode: the address, below 1 MiB, as segment and offset, and off. */
static const uint8_t code[] = {
	0xb8,
	LOW_BYTE(ACPI_MICROVM_ADDRESS >> 4),
	LOW_BYTE(ACPI_MICROVM_ADDRESS >> 12), /* mov */
	0x8e,
	0xd8, /* mov %ax, %ds */
	0x66,
	0xa1,
	LOW_BYTE(VECTOR_AT),
	LOW_BYTE(VECTOR_AT >> 8), /* mov VECTOR_AT, %eax */
	0x89,
	0xc3, /* mov %ax, %bx */
	0x83,
	0xe3,
	0x0f, /* and $15, %bx */
	0x66,
	0xc1,
	0xe8,
	0x04, /* shr $4, %eax */
	0x89,
	0x1e,
	LOW_BYTE(SCRATCH_AT),
	LOW_BYTE(SCRATCH_AT >> 8), /* mov %bx, ... */
	0xa3,
	LOW_BYTE(SCRATCH_AT + 2),
	LOW_BYTE((SCRATCH_AT + 2) >> 8), /* mov %ax, ... */
	0xff,
	0x2e,
	LOW_BYTE(SCRATCH_AT),
	LOW_BYTE(SCRATCH_AT >> 8), /* ljmp *... */
};
_Static_assert(CODE_START + sizeof(code) <= RESET_VECTOR, "the code ends before the vector");

int qemu_snapshot_firmware(void)
{
	const uint16_t back = (uint16_t)(CODE_START - (RESET_VECTOR + 3));
	const uint8_t jump[] = { 0xe9, LOW_BYTE(back), LOW_BYTE(back >> 8) };
	cleanup_fd int fd = memfd_create("firmware", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, FIRMWARE_SIZE) < 0)
		return -errno;
	if (pwrite(fd, code, sizeof(code), CODE_START) != (ssize_t)sizeof(code) ||
	    pwrite(fd, jump, sizeof(jump), RESET_VECTOR) != (ssize_t)sizeof(jump))
		return -EIO;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	return steal_fd(&fd);
}
