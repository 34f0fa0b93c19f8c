/*
 * Storing a guest of QEMU that sleeps, and waking it in another QEMU (snapshot.h has the file).
 *
 * QEMU cannot store a machine that has a vhost-user-vsock device. But a kernel that suspends to RAM
 * (ACPI S3) puts all that it needs of processors and devices into memory itself. So memory is what
 * is stored, when the guest has written to ACPI_SLEEP_PORT and QEMU has ended. Another QEMU is
 * given that memory and, in place of a kernel, firmware of ours, which does what firmware does
 * after such a sleep: jump to the address that the kernel has left for it. The kernel finds devices
 * as they are after a reset, and sets them up anew.
 *
 * Source: ACPI 6.4, 5.2.10 (FACS) and 16.3.2 (BIOS initialization).
 */
#ifndef VMM_QEMU_SNAPSHOT_H
#define VMM_QEMU_SNAPSHOT_H

#include "vmm/engine.h"

#include <stdbool.h>

struct qemu_snapshot;

/* Of a machine whose memory is the file `memory_fd`, borrowed. The window is left out: it is the
 * file server's too, and fresh in each machine. Returns 0 or a negative errno. */
int qemu_snapshot_new(const struct engine_config *config, const char *program,
		      const char *command_line, int memory_fd, struct qemu_snapshot **ret_snapshot);
void qemu_snapshot_free(struct qemu_snapshot *snapshot);

/* Whether the file is a snapshot of this very machine; if not, a text says why. */
bool qemu_snapshot_fits(struct qemu_snapshot *snapshot, int fd, const char **ret_why);
/* Reads the memory of one that fits. Returns 0 or a negative errno. */
int qemu_snapshot_read(const struct qemu_snapshot *snapshot, int fd);

/* Whether the guest has left an address to wake it at: it sleeps, if QEMU has ended. */
bool qemu_snapshot_is_asleep(const struct qemu_snapshot *snapshot);
/* Writes a guest that sleeps to an empty regular file. Returns 0 or a negative errno. */
int qemu_snapshot_write(struct qemu_snapshot *snapshot, int fd);

/* A sealed memory file with the firmware, or a negative errno. */
int qemu_snapshot_firmware(void);

#endif
