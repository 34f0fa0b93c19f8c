/*
 * The command line of matchlock-vmm, which `matchlock` writes:
 *
 *     matchlock-vmm --engine auto|qemu|kvm --kernel FILE --initrd FILE [--append TEXT]
 *                   --cpus N --memory MIB [--huge-pages] [--memory-fd N] [--window ADDRESS:SIZE]
 *                   [--doorbell-fd N] [--snapshot FD] [--new-snapshot FD]
 *                   [--disk FD[:ro][:serial=TEXT]]...
 *                   --cid N --socket-base PATH
 *                   --audit-fd N --control-fd N --console-fd N [-q|-v|--debug]
 *
 * `--disk` is for the KVM engine: a regular file, open for reading and writing or, with `ro`, for
 * reading at least; its size in whole sectors of 512 bytes is the disk's. They appear in the guest
 * in their order, as /dev/vda and on; TEXT is what the guest finds as the serial. Whoever gives one
 * file to two guests, one of which writes, has to live with what they make of it.
 *
 * `matchlock-vmm --probe-kvm` only says whether KVM can run Linux here: exit status 0 or 1.
 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "base/log.h"
#include "vmm/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMM_DISKS_MAX 8
#define VMM_DISK_SERIAL_MAX 20 /* bytes: letters, digits and ._- */

struct vmm_disk {
	int fd; /* of no other disk or purpose */
	bool read_only;
	const char *serial; /* borrowed from the command line; empty: none */
};

struct vmm_options {
	struct engine_config machine;
	const char *engine;
	const char *socket_base;
	uint64_t cid;
	int audit_fd;	/* -1: none */
	int control_fd; /* -1: none */
	int console_fd; /* -1: none */
	enum log_level level;
	struct vmm_disk disks[VMM_DISKS_MAX];
	unsigned disk_count;
	bool probe_kvm; /* and nothing else */
};

/* Returns 0; 1 when help or version was asked for and printed; or -EINVAL with what is wrong in
 * `why`. */
int vmm_options_parse(int argc, char **argv, struct vmm_options *ret_options, char *why,
		      size_t size);

#endif
