/*
 * The virtio memory balloon (virtio 1.2, section 5.5) with free page reporting: memory that the
 * guest does not use goes back to the host.
 *
 * Pages are given back only where guest_memory_allow_discard() said so; what else a guest reports
 * or puts into the balloon stays as it is. VIRTIO_BALLOON_F_PAGE_POISON is not offered, so that a
 * guest which poisons free pages, and would miss the poison, does not report them.
 *
 * Queues, by the order of Linux and others, which leave no gaps for what was not negotiated: 0
 * inflate, 1 deflate, 2 reporting.
 *
 * Limits: BALLOON_PAGES_MAX page numbers in one buffer; BALLOON_BUDGET buffers for each run.
 */
#ifndef VMM_BALLOON_DEVICE_H
#define VMM_BALLOON_DEVICE_H

#include "jail/jail.h"
#include "vmm/virtio_device.h"

#define BALLOON_PAGES_MAX 4096
#define BALLOON_BUDGET 4
#define BALLOON_PAGE_SIZE 4096u /* whatever the guest's page size is */

struct balloon_device;

/* The `device` of these is a struct balloon_device. */
extern const struct virtio_device_operations balloon_device_operations;
/* What it calls, beside jail_calls_process. */
extern const struct jail_syscall_set balloon_device_calls;

/* Returns 0 with what balloon_device_free() releases, or -ENOMEM. */
int balloon_device_new(struct balloon_device **ret_device);
void balloon_device_free(struct balloon_device *device);

/* Asks the guest to put so many pages into the balloon. On the device thread. */
void balloon_device_set_target(struct balloon_device *device, uint32_t pages);
/* How many the guest says are in it. Any thread. */
uint32_t balloon_device_actual(const struct balloon_device *device);
/* Bytes given back to the host since the start, by both ways, again and again where the guest did
 * so. Any thread. */
uint64_t balloon_device_discarded(const struct balloon_device *device);

#endif
