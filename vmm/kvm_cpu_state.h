/*
 * What a vCPU is: the CPUID that it shows, the registers with which it starts, and everything that
 * the guest can change in it, as one struct that can be stored.
 *
 * Source: the kernel's Documentation/virt/kvm/api.rst and x86/cpuid.rst; Intel SDM volume 2, CPUID,
 * and volume 3, 10.5 (local APIC); AMD APM volume 3, appendix E.
 */
#ifndef VMM_KVM_CPU_STATE_H
#define VMM_KVM_CPU_STATE_H

#include "jail/jail.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#define KVM_CPUID_ENTRIES_MAX 256
#define KVM_CPU_MSRS_MAX 32

/* ---- CPUID -------------------------------------------------------------------------------------
 */

/* The layout of struct kvm_cpuid2, with room. */
struct kvm_cpuid_table {
	uint32_t count;
	uint32_t padding;
	struct kvm_cpuid_entry2 entries[KVM_CPUID_ENTRIES_MAX];
};
_Static_assert(offsetof(struct kvm_cpuid_table, entries) == sizeof(struct kvm_cpuid2),
	       "the kernel's layout");

/* What the processor and KVM offer (KVM_GET_SUPPORTED_CPUID). 0 or a negative errno. */
int kvm_cpuid_supported(int kvm, struct kvm_cpuid_table *ret_table);

/* Makes the table that of processor `index` of `count`: APIC id and topology (one package, one
 * thread a core), HYPERVISOR, TSC_DEADLINE and X2APIC; without performance counters, energy
 * hints and nested virtualization. Returns 0, or -ENOSPC when the entries do not fit. */
int kvm_cpuid_patch(struct kvm_cpuid_table *table, unsigned index, unsigned count);

/* The entry for a leaf, or NULL. */
struct kvm_cpuid_entry2 *kvm_cpuid_find(struct kvm_cpuid_table *table, uint32_t leaf,
					uint32_t subleaf);

/* Bits of a physical address (leaf 0x80000008); 36 where the table does not say. */
unsigned kvm_cpuid_address_bits(const struct kvm_cpuid_table *table);

/* ---- registers ---------------------------------------------------------------------------------
 */

/* Puts a fresh vCPU into the state in which the 64-bit boot protocol wants it, by the addresses
 * of boot_layout.h: CPUID first, since KVM judges the other registers by it. Only the first
 * processor gets an entry point; the others wait for its signal. Returns 0, or a negative errno
 * with the step that failed. */
int kvm_cpu_start_state(int vcpu, const struct kvm_cpuid_table *table, unsigned index,
			uint64_t entry, const char **ret_step);

/* All of a vCPU's state but CPUID. Each part has the kernel's own fixed layout. */
struct kvm_cpu_state {
	struct kvm_regs general;
	struct kvm_sregs special;
	uint32_t extended[1024]; /* struct kvm_xsave: FPU, SSE, AVX ... */
	struct kvm_xcrs extended_control;
	struct kvm_debugregs debug;
	struct kvm_lapic_state local_apic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state activity;
	uint32_t msr_count;
	uint32_t reserved;
	struct kvm_msr_entry msrs[KVM_CPU_MSRS_MAX];
};
_Static_assert(sizeof(struct kvm_cpu_state) ==
		       144 + 312 + 4096 + 392 + 128 + 1024 + 64 + 4 + 8 + 4 + 16 * KVM_CPU_MSRS_MAX,
	       "stored layout");

/* Reads or sets it all, while the vCPU does not run. CPUID must have been set. Returns 0, or a
 * negative errno with the step that failed. */
int kvm_cpu_save(int vcpu, struct kvm_cpu_state *ret_state, const char **ret_step);
int kvm_cpu_restore(int vcpu, const struct kvm_cpu_state *state, const char **ret_step);

/* What kvm_cpu_save() calls. */
extern const struct jail_syscall_set kvm_cpu_save_calls;

#endif
