/*
 * The virtio entropy device (virtio 1.2, section 5.4): random bytes of the host's kernel.
 *
 * Limits: ENTROPY_REQUEST_MAX bytes for each buffer; the rest of a longer one stays unused, as the
 * standard allows. ENTROPY_BUDGET buffers for each run.
 */
#ifndef VMM_ENTROPY_DEVICE_H
#define VMM_ENTROPY_DEVICE_H

#include "jail/jail.h"
#include "vmm/virtio_device.h"

#define ENTROPY_REQUEST_MAX 4096
#define ENTROPY_BUDGET 16

struct entropy_device;

/* The `device` of these is a struct entropy_device. */
extern const struct virtio_device_operations entropy_device_operations;
/* What it calls, beside jail_calls_process. */
extern const struct jail_syscall_set entropy_device_calls;

/* Returns 0 with what entropy_device_free() releases, or -ENOMEM. */
int entropy_device_new(struct entropy_device **ret_device);
void entropy_device_free(struct entropy_device *device);

#endif
