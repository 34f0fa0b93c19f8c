/*
 * The vCPUs of a machine: a thread each, which runs the guest until it exits to us, and all of
 * which can be paused and stopped together.
 *
 * Theory of operation. A thread locks itself (jail.h) and waits. While running is wanted, it calls
 * KVM_RUN over and over and passes accesses to ports and registers to the buses. Whoever wants it
 * to do something else says so in `wanted`, sets the shared block's immediate_exit and sends a
 * signal: either KVM_RUN is interrupted, or the next one returns at once, so that no request is
 * missed. Before a thread goes on after a pause it tells the guest's clock (KVM_KVMCLOCK_CTRL), so
 * that the guest's watchdogs forgive the time that passed; its clocks go on with the host's.
 *
 * kvm_vcpus_new() makes everything that needs ioctls, before the process is locked.
 */
#ifndef VMM_KVM_VCPU_H
#define VMM_KVM_VCPU_H

#include "jail/jail.h"
#include "vmm/io_bus.h"
#include "vmm/kvm_vm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Why the guest cannot go on, as a vCPU saw it. */
enum kvm_vcpu_end {
	KVM_VCPU_POWERED_OFF, /* or reset, by a means of KVM's own */
	KVM_VCPU_TRIPLE_FAULT,
	KVM_VCPU_GUEST_PANIC,
	KVM_VCPU_INTERNAL_ERROR, /* KVM cannot run what the guest wants */
};

struct kvm_vcpus;

struct kvm_vcpus_setup {
	const struct kvm_vm *vm;
	const struct io_bus *ports;
	const struct io_bus *registers; /* memory-mapped */
	unsigned count;			/* 1..PLATFORM_CPUS_MAX */
	uint64_t entry;			/* of the first; the others wait for its signal */
	/* On that vCPU's thread, which runs no more afterwards. More than one may come. */
	void (*ended)(void *observer, enum kvm_vcpu_end end, const char *details);
	/* On a vCPU's thread: all of them have come to rest after kvm_vcpus_pause(). */
	void (*paused)(void *observer);
	void *observer;
};

/* Makes the vCPUs and gives them their first state. The setup is copied, what it points to is
 * borrowed. Returns 0, or a negative errno with the step that failed. */
int kvm_vcpus_new(const struct kvm_vcpus_setup *setup, struct kvm_vcpus **ret_vcpus,
		  const char **ret_step);
/* The threads must have been stopped. */
void kvm_vcpus_free(struct kvm_vcpus *vcpus);
/* A vCPU's own descriptor, for kvm_cpu_save() while its thread rests or does not exist. */
int kvm_vcpus_descriptor(const struct kvm_vcpus *vcpus, unsigned index);

/* Starts the threads, which enter `filter` (NULL: none) and wait. Returns once all of them have, 0
 * or a negative errno. */
int kvm_vcpus_start(struct kvm_vcpus *vcpus, const struct jail_filter *filter);
/* None of these waits. */
void kvm_vcpus_run(struct kvm_vcpus *vcpus);
void kvm_vcpus_pause(struct kvm_vcpus *vcpus);
/* Lets the guest know that it was not running, after the process was stopped by a signal. */
void kvm_vcpus_tell_clock(struct kvm_vcpus *vcpus);
/* Asks all to rest, without a signal: from a vCPU's thread, by what it ran, which rests as soon as
 * that returns. kvm_vcpus_pause() gets the others. */
void kvm_vcpus_want_rest(struct kvm_vcpus *vcpus);
/* Asks all to end, without waiting and without a signal: from a vCPU's thread, by what it ran. */
void kvm_vcpus_want_end(struct kvm_vcpus *vcpus);
/* Ends the threads. Returns 0, or -ETIMEDOUT when one does not come out of KVM_RUN: the struct
 * cannot be freed then, and the process should end. */
int kvm_vcpus_stop(struct kvm_vcpus *vcpus);

/* What vCPU threads call, handlers of the buses apart. */
extern const struct jail_syscall_set kvm_vcpu_calls;

#endif
