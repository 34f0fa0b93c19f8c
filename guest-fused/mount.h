/*
 * Mounting a FUSE file system: by mount(2) where that is allowed (the guest, or root), else
 * through fusermount3, which hands the descriptor over (tests on the host).
 */
#ifndef GUEST_FUSED_MOUNT_H
#define GUEST_FUSED_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

/* `root_mode` is the type of the export's root, as in stat(2): the mount point must be of the
 * same. Returns 0 and the FUSE device's descriptor, or a negative errno. */
int fused_mount(const char *mountpoint, uint32_t root_mode, uint32_t read_max, bool read_only,
		int *ret_fd);
/* Best effort; what is in use goes when its last user does. */
void fused_unmount(const char *mountpoint);
/* Lets the kernel read this far ahead. Best effort. */
void fused_mount_read_ahead(const char *mountpoint, unsigned kibibytes);
/* The root of a file system of the kernel's own (proc, sysfs) that is mounted nowhere: this process
 * starts before anybody mounts one, and sees none that is mounted later. A descriptor, or a
 * negative errno. */
int fused_open_kernel_files(const char *type);
/* One more descriptor for the same mount, with a queue of its own for requests in work. */
int fused_mount_clone(int fuse_fd, int *ret_fd);

#endif
