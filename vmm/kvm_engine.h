/*
 * The KVM engine: a machine whose vCPUs run in this process, with virtio-mmio devices that this
 * process serves.
 *
 * Theory of operation. kvm_engine_open() opens every file, makes the machine and its memory and
 * brings kernel and initrd there; devices are added; kvm_engine_complete() makes what depends on
 * their number (ACPI tables) and the vCPUs. Then the process is locked, and kvm_engine_start()
 * starts a thread for each vCPU, each of which locks itself further. From then on there are two
 * kinds of threads:
 *
 *   the device thread, which called all of these: runs the event loop and the devices, tells the
 *     observer, and makes no ioctl;
 *   vCPU threads: run guest code, the virtio-mmio registers (virtio_mmio.h has the rules), the
 *     serial port and the power ports; KVM alone passes queue notifications and interrupts
 *     (ioeventfd, irqfd), so that no vCPU runs a device.
 *
 * A vCPU that ends, whatever ended it, notes the first reason and wakes the device thread.
 */
#ifndef VMM_KVM_ENGINE_H
#define VMM_KVM_ENGINE_H

#include "base/event_loop.h"
#include "jail/jail.h"
#include "vmm/engine.h"
#include "vmm/virtio_device.h"

#include <stdbool.h>
#include <stddef.h>

enum kvm_engine_end {
	KVM_ENGINE_POWERED_OFF,
	KVM_ENGINE_RESET, /* how Linux ends after a panic, too */
	KVM_ENGINE_TRIPLE_FAULT,
	KVM_ENGINE_GUEST_PANIC,
	KVM_ENGINE_INTERNAL_ERROR,
};

/* On the device thread, from the event loop. */
struct kvm_engine_observer {
	/* The guest ended, once; the engine is still to be stopped. */
	void (*ended)(void *observer, enum kvm_engine_end end, const char *details);
	void (*paused)(void *observer);
	/* The guest was stored, or could not be (a negative errno and at what), and is about to go
	 * on. Once at most. */
	void (*stored)(void *observer, int error, const char *step);
	/* The guest broke a device's protocol; both texts are static. May come at any rate. */
	void (*violation)(void *observer, const char *device, const char *what);
	void *observer;
};

struct kvm_machine;

/* Whether a snapshot could be told from those of other machines; without that there are none. */
bool kvm_engine_can_store(const struct engine_config *config);
/* Returns 0, or a negative errno with an explanation. The observer is copied. */
int kvm_engine_open(const struct engine_config *config, const struct kvm_engine_observer *observer,
		    struct kvm_machine **ret_engine, char *why, size_t size);
/* After kvm_engine_stop(), if it was started. */
void kvm_engine_free(struct kvm_machine *engine);

/* The reading end of the guest's serial console; becomes the caller's. */
int kvm_engine_take_console(struct kvm_machine *engine);

/* Puts a device behind the next virtio-mmio window. It is borrowed and must outlive the engine.
 * Returns 0, -ENOSPC, or another negative errno. */
int kvm_engine_add_device(struct kvm_machine *engine,
			  const struct virtio_device_operations *operations, void *device);

/* No more devices: makes the rest of the machine. Returns 0, or a negative errno with an
 * explanation. */
int kvm_engine_complete(struct kvm_machine *engine, char *why, size_t size);

/* Starts the threads, which lock themselves by the filter and rest until kvm_engine_resume().
 * Returns 0, or a negative errno. */
int kvm_engine_start(struct kvm_machine *engine, struct event_loop *loop,
		     const struct jail_filter *filter);
/* After each round of the event loop: 1 when a device has more to do at once, else 0. */
int kvm_engine_run_devices(struct kvm_machine *engine);
/* The guest is not to be stored any more. Returns whether it still could have been; if not, the
 * observer is told of it or was. */
bool kvm_engine_forbid_storing(struct kvm_machine *engine);
/* The observer is told when all vCPUs rest. Resuming what runs does nothing. */
void kvm_engine_pause(struct kvm_machine *engine);
void kvm_engine_resume(struct kvm_machine *engine);
/* Ends all vCPU threads. 0, or -ETIMEDOUT: one is stuck in KVM, and the engine cannot be freed. */
int kvm_engine_stop(struct kvm_machine *engine);

#endif
