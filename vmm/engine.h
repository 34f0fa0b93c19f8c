/*
 * The seam between this program and what runs vCPUs.
 *
 * An engine either starts a guest in a confined child process that attaches to our vsock device by
 * vhost-user (start() is there), or runs vCPUs in this process, with devices behind virtio-mmio
 * (start() is NULL; kvm_engine.h). daemon.h has what the main program does with each.
 */
#ifndef VMM_ENGINE_H
#define VMM_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ENGINE_TEXT_MAX 640
#define ENGINE_CPUS_MAX 64
#define ENGINE_MEMORY_MIN_MIB 64
#define ENGINE_MEMORY_MAX_MIB (1024 * 1024)
#define ENGINE_PAGE_SIZE 4096u
#define ENGINE_DOORBELL_PORT 0xe9 /* of nothing else since ISA: emulators use it for debugging */
#define ENGINE_SNAPSHOT_PORT 0xea /* KVM: a byte written there stores the guest, once */
#define ENGINE_WINDOW_END_MAX (UINT64_C(3) << 30) /* where every engine's low memory goes to */

struct qemu_snapshot;

struct engine_config {
	const char *kernel; /* vmlinux */
	const char *initrd; /* cpio, compressed or not */
	const char *append; /* added to the kernel's command line, or NULL */
	unsigned cpus;
	unsigned memory_mib;
	bool huge_pages; /* KVM: what is its own is of reserved huge pages */
	/* memory_mib of memory; borrowed, and cannot shrink. KVM takes the window from it and has
	 * all else of its own (guest_ram.h). -1: the engine makes its own. */
	int memory_fd;
	/* Guest physical addresses that are memory, but not for the kernel to use: the window that
	 * the guest shares with the file server. Whole pages below 3 GiB, at the same offset of
	 * memory_fd. Size 0: none. */
	uint64_t window_address;
	uint64_t window_size;
	/* Stream socket, borrowed: each byte that the guest writes to ENGINE_DOORBELL_PORT goes
	 * there, or some of many. -1: none. */
	int doorbell_fd;
	/* A snapshot (snapshot.h) to go on from, and where to write one of a guest that was
	 * booted, an empty file. Both regular files, borrowed. -1: none. */
	int snapshot_fd;
	int new_snapshot_fd;
};

/* A started guest. All descriptors are the caller's, close-on-exec. */
struct engine_process {
	pid_t pid;
	int pid_fd;
	int vhost_user;	 /* stream socket */
	int console;	 /* stream socket: what the guest writes on its serial port */
	int diagnostics; /* pipe: what the engine itself says on stderr */
	char confinement[ENGINE_TEXT_MAX]; /* what is in force for the child */
	bool restored;			   /* the guest goes on from the snapshot */
	/* Of a guest that is to be stored when it sleeps; else NULL. */
	struct qemu_snapshot *snapshot;
};

struct engine {
	const char *name;
	const char *component; /* in the audit log */
	/* Whether it can run here: 0, or a negative errno with an explanation in `why`. */
	int (*probe)(char *why, size_t size);
	/* NULL for one that runs in this process. Starts the guest; the child ends with this
	 * process, whatever ends that. Returns 0, or a negative errno with an explanation in `why`.
	 * Call with one thread. */
	int (*start)(const struct engine_config *config, struct engine_process *ret_process,
		     char *why, size_t size);
	int power_off_status; /* the child's when the guest turns itself off; 0 when it resets */
	int sleep_status;     /* when it sleeps, to be stored; 0: it never does */
};

extern const struct engine qemu_engine;
extern const struct engine qemu_kvm_engine; /* the peer in benchmarks; never chosen by "auto" */
extern const struct engine kvm_engine;

/* Resolves --engine: "auto", "qemu", "qemu-kvm" or "kvm". Returns 0 with the engine, which was
 * probed, and in `why` how it was chosen; or a negative errno and why it cannot be had. */
int engine_select(const char *name, const struct engine **ret_engine, char *why, size_t size);

#endif
