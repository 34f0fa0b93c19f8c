#include "vmm/kvm_cpu_state.h"

#include "base/checked.h"
#include "vmm/boot_layout.h"

#include <cpuid.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

/* ---- CPUID -------------------------------------------------------------------------------------
 */

#define LEAF_FEATURES 0x1u
#define LEAF_CACHES 0x4u
#define LEAF_POWER 0x6u
#define LEAF_COUNTERS 0xau
#define LEAF_TOPOLOGY 0xbu
#define LEAF_TOPOLOGY_2 0x1fu
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_ADDRESS_SIZES 0x80000008u
#define LEAF_SVM 0x8000000au
#define LEAF_AMD_CACHES 0x8000001du
#define LEAF_AMD_TOPOLOGY 0x8000001eu
#define LEAF_AMD_ENCRYPTION 0x8000001fu
#define LEAF_AMD_COUNTERS 0x80000022u

#define FEATURE_VMX (1u << 5)		/* 1, ecx */
#define FEATURE_PDCM (1u << 15)		/* 1, ecx: performance capabilities */
#define FEATURE_X2APIC (1u << 21)	/* 1, ecx */
#define FEATURE_TSC_DEADLINE (1u << 24) /* 1, ecx */
#define FEATURE_HYPERVISOR (1u << 31)	/* 1, ecx */
#define FEATURE_HTT (1u << 28)		/* 1, edx: more than one processor in the package */
#define FEATURE_ENERGY_HINT (1u << 3)	/* 6, ecx */
#define FEATURE_SVM (1u << 2)		/* 0x80000001, ecx */
#define FEATURE_AMD_COUNTERS (1u << 23) /* 0x80000001, ecx */
#define FEATURE_AMD_NB_COUNTERS (1u << 24)
#define FEATURE_AMD_LLC_COUNTERS (1u << 28)

#define TOPOLOGY_THREAD 1u
#define TOPOLOGY_CORE 2u

int kvm_cpuid_supported(int kvm, struct kvm_cpuid_table *ret_table)
{
	ret_table->count = KVM_CPUID_ENTRIES_MAX;
	ret_table->padding = 0;
	return ioctl(kvm, KVM_GET_SUPPORTED_CPUID, ret_table) < 0 ? -errno : 0;
}

struct kvm_cpuid_entry2 *kvm_cpuid_find(struct kvm_cpuid_table *table, uint32_t leaf,
					uint32_t subleaf)
{
	for (uint32_t i = 0; i < table->count; i++) {
		struct kvm_cpuid_entry2 *entry = &table->entries[i];

		if (entry->function == leaf &&
		    (!(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || entry->index == subleaf))
			return entry;
	}
	return NULL;
}

unsigned kvm_cpuid_address_bits(const struct kvm_cpuid_table *table)
{
	for (uint32_t i = 0; i < table->count; i++) {
		if (table->entries[i].function == LEAF_ADDRESS_SIZES)
			return table->entries[i].eax & 0xff;
	}
	return 36;
}

/* Bits that hold `count` different numbers. */
static unsigned width_of(unsigned count)
{
	unsigned width = 0;

	while ((1u << width) < count)
		width++;
	return width;
}

static void patch_features(struct kvm_cpuid_entry2 *entry, unsigned index, unsigned count)
{
	entry->ebx = (entry->ebx & 0xffff) | count << 16 | index << 24;
	entry->ecx |= FEATURE_HYPERVISOR | FEATURE_TSC_DEADLINE | FEATURE_X2APIC;
	entry->ecx &= ~(FEATURE_VMX | FEATURE_PDCM);
	if (count > 1)
		entry->edx |= FEATURE_HTT;
	else
		entry->edx &= ~FEATURE_HTT;
}

/* A cache of the third level is the package's, others are a core's. */
static void patch_cache(struct kvm_cpuid_entry2 *entry, unsigned count, bool intel)
{
	unsigned level = entry->eax >> 5 & 0x7;

	if ((entry->eax & 0x1f) == 0)
		return;
	entry->eax &= intel ? ~0xffffc000u : ~0x03ffc000u;
	if (level >= 3)
		entry->eax |= (count - 1) << 14;
	if (intel)
		entry->eax |= (count - 1) << 26;
}

static void patch_entry(struct kvm_cpuid_entry2 *entry, unsigned index, unsigned count)
{
	switch (entry->function) {
	case LEAF_FEATURES:
		patch_features(entry, index, count);
		break;
	case LEAF_CACHES:
		patch_cache(entry, count, true);
		break;
	case LEAF_POWER:
		entry->ecx &= ~FEATURE_ENERGY_HINT;
		break;
	case LEAF_AMD_FEATURES:
		entry->ecx &= ~(FEATURE_SVM | FEATURE_AMD_COUNTERS | FEATURE_AMD_NB_COUNTERS |
				FEATURE_AMD_LLC_COUNTERS);
		break;
	case LEAF_ADDRESS_SIZES:
		entry->ecx = (entry->ecx & ~0xf0ffu) | (count - 1) | width_of(count) << 12;
		break;
	case LEAF_AMD_CACHES:
		patch_cache(entry, count, false);
		break;
	case LEAF_AMD_TOPOLOGY:
		entry->eax = index;
		entry->ebx = index; /* core id; one thread each */
		entry->ecx = 0;	    /* one node */
		break;
	case LEAF_COUNTERS:
	case LEAF_SVM:
	case LEAF_AMD_ENCRYPTION:
	case LEAF_AMD_COUNTERS:
		entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
		break;
	default:
		break;
	}
}

static void remove_leaf(struct kvm_cpuid_table *table, uint32_t leaf)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < table->count; i++) {
		if (table->entries[i].function != leaf)
			table->entries[kept++] = table->entries[i];
	}
	table->count = kept;
}

/* Leaf 0xb or 0x1f: threads of a core, cores of the package, end. */
static int add_topology(struct kvm_cpuid_table *table, uint32_t leaf, unsigned index,
			unsigned count)
{
	const struct kvm_cpuid_entry2 levels[] = {
		{ .eax = 0, .ebx = 1, .ecx = TOPOLOGY_THREAD << 8 },
		{ .eax = width_of(count), .ebx = count, .ecx = 1 | TOPOLOGY_CORE << 8 },
		{ .ecx = 2 },
	};

	if (!kvm_cpuid_find(table, leaf, 0))
		return 0;
	remove_leaf(table, leaf);
	if (table->count + ARRAY_LENGTH(levels) > KVM_CPUID_ENTRIES_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < ARRAY_LENGTH(levels); i++) {
		struct kvm_cpuid_entry2 *entry = &table->entries[table->count++];

		*entry = levels[i];
		entry->function = leaf;
		entry->index = i;
		entry->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		entry->edx = index;
	}
	return 0;
}

int kvm_cpuid_patch(struct kvm_cpuid_table *table, unsigned index, unsigned count)
{
	int r;

	if (table->count > KVM_CPUID_ENTRIES_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < table->count; i++)
		patch_entry(&table->entries[i], index, count);
	r = add_topology(table, LEAF_TOPOLOGY, index, count);
	return r < 0 ? r : add_topology(table, LEAF_TOPOLOGY_2, index, count);
}

/* ---- start -------------------------------------------------------------------------------------
 */

#define MSR_TSC 0x10u
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_PAT 0x277u
#define MSR_MTRR_DEFAULT 0x2ffu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_TSC_ADJUST 0x3bu
#define MSR_SPEC_CTRL 0x48u
#define MSR_UMWAIT_CONTROL 0xe1u
#define MSR_TSX_CTRL 0x122u
#define MSR_XSS 0xda0u
#define MSR_AMD_SYSCFG 0xc0010010u
#define MSR_AMD_HWCR 0xc0010015u
#define MSR_AMD_VIRT_SPEC_CTRL 0xc001011fu
#define MSR_AMD_DE_CFG 0xc0011029u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SYSCALL_MASK 0xc0000084u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_KVM_WALL_CLOCK 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME 0x4b564d01u
#define MSR_KVM_ASYNC_PF 0x4b564d02u
#define MSR_KVM_STEAL_TIME 0x4b564d03u
#define MSR_KVM_PV_EOI 0x4b564d04u
#define MSR_KVM_POLL_CONTROL 0x4b564d05u
#define MSR_KVM_ASYNC_PF_VECTOR 0x4b564d06u
#define MSR_KVM_MIGRATION_CONTROL 0x4b564d08u

#define MISC_ENABLE_FAST_STRING 1
#define MTRR_ENABLED_WRITE_BACK 0x806

#define CR0_PE (1u << 0)
#define CR0_ET (1u << 4)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)

#define SEGMENT_BUSY 2 /* of a task state segment's type */

#define LAPIC_LINT0 0x350
#define LAPIC_LINT1 0x360
#define LAPIC_MODE_EXTERNAL 0x700
#define LAPIC_MODE_NMI 0x400

#define FPU_CONTROL 0x37f
#define FPU_MXCSR 0x1f80

/* The kernel's struct kvm_msrs, with room. */
struct msr_list {
	uint32_t count;
	uint32_t padding;
	struct kvm_msr_entry entries[KVM_CPU_MSRS_MAX];
};
_Static_assert(offsetof(struct msr_list, entries) == sizeof(struct kvm_msrs),
	       "the kernel's layout");

static int step(int result, const char *name, const char **ret_step)
{
	if (result >= 0)
		return 0;
	*ret_step = name;
	return -errno;
}

static int set_msrs(int vcpu, const char **ret_step)
{
	struct msr_list list = {
		.count = 11,
		.entries = {
			{ .index = MSR_SYSENTER_CS },
			{ .index = MSR_SYSENTER_ESP },
			{ .index = MSR_SYSENTER_EIP },
			{ .index = MSR_STAR },
			{ .index = MSR_LSTAR },
			{ .index = MSR_CSTAR },
			{ .index = MSR_SYSCALL_MASK },
			{ .index = MSR_KERNEL_GS_BASE },
			{ .index = MSR_TSC },
			{ .index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING },
			{ .index = MSR_MTRR_DEFAULT, .data = MTRR_ENABLED_WRITE_BACK },
		},
	};
	int set = ioctl(vcpu, KVM_SET_MSRS, &list);

	if (set == (int)list.count)
		return 0;
	*ret_step = "KVM_SET_MSRS";
	return set < 0 ? -errno : -EINVAL;
}

static void put32(char *block, size_t offset, uint32_t value)
{
	memcpy(block + offset, &value, sizeof(value));
}

static int set_local_apic(int vcpu, const char **ret_step)
{
	struct kvm_lapic_state state;
	int r = step(ioctl(vcpu, KVM_GET_LAPIC, &state), "KVM_GET_LAPIC", ret_step);

	if (r < 0)
		return r;
	put32(state.regs, LAPIC_LINT0, LAPIC_MODE_EXTERNAL);
	put32(state.regs, LAPIC_LINT1, LAPIC_MODE_NMI);
	return step(ioctl(vcpu, KVM_SET_LAPIC, &state), "KVM_SET_LAPIC", ret_step);
}

static int set_registers(int vcpu, uint64_t entry, const char **ret_step)
{
	const struct kvm_segment data = { .limit = UINT32_MAX,
					  .selector = BOOT_DATA_SELECTOR,
					  .type = 3, /* read, write, accessed */
					  .present = 1,
					  .db = 1,
					  .s = 1,
					  .g = 1 };
	const struct kvm_regs general = {
		.rip = entry,
		.rsi = BOOT_PARAMS_ADDRESS,
		.rsp = BOOT_STACK_ADDRESS,
		.rbp = BOOT_STACK_ADDRESS,
		.rflags = 2,
	};
	struct kvm_sregs special;
	int r = step(ioctl(vcpu, KVM_GET_SREGS, &special), "KVM_GET_SREGS", ret_step);

	if (r < 0)
		return r;
	special.gdt =
		(struct kvm_dtable){ .base = BOOT_GDT_ADDRESS, .limit = 8 * BOOT_GDT_ENTRIES - 1 };
	special.idt = (struct kvm_dtable){ .base = BOOT_IDT_ADDRESS, .limit = 7 };
	special.cs = data;
	special.cs.selector = BOOT_CODE_SELECTOR;
	special.cs.type = 11; /* execute, read, accessed */
	special.cs.db = 0;
	special.cs.l = 1;
	special.ds = special.es = special.fs = special.gs = special.ss = data;
	special.tr = (struct kvm_segment){ .limit = 0xffff, .type = 11, .present = 1 };
	special.cr0 = CR0_PE | CR0_ET | CR0_PG;
	special.cr3 = BOOT_PAGE_TABLES_ADDRESS;
	special.cr4 = CR4_PAE;
	special.efer = EFER_LME | EFER_LMA;
	r = step(ioctl(vcpu, KVM_SET_SREGS, &special), "KVM_SET_SREGS", ret_step);
	return r < 0 ? r : step(ioctl(vcpu, KVM_SET_REGS, &general), "KVM_SET_REGS", ret_step);
}

int kvm_cpu_start_state(int vcpu, const struct kvm_cpuid_table *table, unsigned index,
			uint64_t entry, const char **ret_step)
{
	const struct kvm_fpu fpu = { .fcw = FPU_CONTROL, .mxcsr = FPU_MXCSR };
	int r = step(ioctl(vcpu, KVM_SET_CPUID2, table), "KVM_SET_CPUID2", ret_step);

	if (r == 0)
		r = set_msrs(vcpu, ret_step);
	if (r == 0)
		r = step(ioctl(vcpu, KVM_SET_FPU, &fpu), "KVM_SET_FPU", ret_step);
	if (r == 0)
		r = set_local_apic(vcpu, ret_step);
	if (r == 0 && index == 0)
		r = set_registers(vcpu, entry, ret_step);
	return r;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

/* What Linux writes as a guest. In the order in which they are restored: the deadline of the timer
 * needs the counter, asynchronous page faults their vector. */
static const uint32_t stored_msrs[] = {
	MSR_SYSENTER_CS,
	MSR_SYSENTER_ESP,
	MSR_SYSENTER_EIP,
	MSR_MISC_ENABLE,
	MSR_PAT,
	MSR_MTRR_DEFAULT,
	MSR_STAR,
	MSR_LSTAR,
	MSR_CSTAR,
	MSR_SYSCALL_MASK,
	MSR_KERNEL_GS_BASE,
	MSR_TSC_AUX,
	MSR_KVM_WALL_CLOCK,
	MSR_KVM_SYSTEM_TIME,
	MSR_KVM_ASYNC_PF_VECTOR,
	MSR_KVM_ASYNC_PF,
	MSR_KVM_STEAL_TIME,
	MSR_KVM_PV_EOI,
	MSR_KVM_POLL_CONTROL,
	MSR_KVM_MIGRATION_CONTROL,
	MSR_SPEC_CTRL,
	MSR_UMWAIT_CONTROL,
	MSR_TSX_CTRL,
	MSR_XSS,
	MSR_AMD_SYSCFG,
	MSR_AMD_HWCR,
	MSR_AMD_VIRT_SPEC_CTRL,
	MSR_AMD_DE_CFG,
	MSR_TSC_ADJUST,
	MSR_TSC,
	MSR_TSC_DEADLINE,
};
_Static_assert(ARRAY_LENGTH(stored_msrs) <= KVM_CPU_MSRS_MAX, "room for all");

/* One at a time: KVM stops at the first that this processor does not have. */
static void save_msrs(int vcpu, struct kvm_cpu_state *state)
{
	state->msr_count = 0;
	for (size_t i = 0; i < ARRAY_LENGTH(stored_msrs); i++) {
		struct msr_list list = { .count = 1, .entries = { { .index = stored_msrs[i] } } };

		if (ioctl(vcpu, KVM_GET_MSRS, &list) == 1)
			state->msrs[state->msr_count++] = list.entries[0];
	}
}

/* What cannot be set does not matter where it is so already: registers of the host's own, and such
 * as hold what they have after a reset. */
static int restore_msr(int vcpu, const struct kvm_msr_entry *msr)
{
	struct msr_list list = { .count = 1, .entries = { *msr } };

	if (ioctl(vcpu, KVM_SET_MSRS, &list) == 1)
		return 0;
	list.entries[0] = (struct kvm_msr_entry){ .index = msr->index };
	if (ioctl(vcpu, KVM_GET_MSRS, &list) == 1 && list.entries[0].data == msr->data)
		return 0;
	return -EINVAL;
}

static int restore_msrs(int vcpu, const struct kvm_cpu_state *state, const char **ret_step)
{
	int r = state->msr_count <= KVM_CPU_MSRS_MAX ? 0 : -EINVAL;

	*ret_step = "model-specific registers";
	for (uint32_t i = 0; r == 0 && i < state->msr_count; i++)
		r = restore_msr(vcpu, &state->msrs[i]);
	return r;
}

struct part {
	unsigned long get;
	unsigned long set;
	size_t offset; /* in struct kvm_cpu_state */
	const char *name;
};

/* In the order of restoring: activity first, as it resets pending interrupts; special registers
 * before general ones and the local APIC, whose base they hold; events last. */
static const struct part parts[] = {
	{ KVM_GET_MP_STATE, KVM_SET_MP_STATE, offsetof(struct kvm_cpu_state, activity),
	  "multiprocessing state" },
	{ KVM_GET_SREGS, KVM_SET_SREGS, offsetof(struct kvm_cpu_state, special),
	  "special registers" },
	{ KVM_GET_REGS, KVM_SET_REGS, offsetof(struct kvm_cpu_state, general),
	  "general registers" },
	{ KVM_GET_XCRS, KVM_SET_XCRS, offsetof(struct kvm_cpu_state, extended_control),
	  "extended control registers" },
	{ KVM_GET_XSAVE, KVM_SET_XSAVE, offsetof(struct kvm_cpu_state, extended),
	  "extended registers" },
	{ KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, offsetof(struct kvm_cpu_state, debug),
	  "debug registers" },
	{ KVM_GET_LAPIC, KVM_SET_LAPIC, offsetof(struct kvm_cpu_state, local_apic), "local APIC" },
};

int kvm_cpu_save(int vcpu, struct kvm_cpu_state *ret_state, const char **ret_step)
{
	memset(ret_state, 0, sizeof(*ret_state));
	for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
		int r = step(ioctl(vcpu, parts[i].get, (char *)ret_state + parts[i].offset),
			     parts[i].name, ret_step);

		if (r < 0)
			return r;
	}
	save_msrs(vcpu, ret_state);
	return step(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &ret_state->events), "pending events",
		    ret_step);
}

static bool is_amd(void)
{
	unsigned highest, name[3] = { 0 };

	return __get_cpuid(0, &highest, &name[0], &name[2], &name[1]) &&
	       (memcmp(name, "AuthenticAMD", sizeof(name)) == 0 ||
		memcmp(name, "HygonGenuine", sizeof(name)) == 0);
}

/* Processors with SVM keep the task register's type without the busy flag, which KVM adds for those
 * that want it (svm_get_segment()). With the flag QEMU's emulation of SVM denies the guest's
 * programs every port (helper_check_io(), which wants type 9). */
static void restore_own_form(struct kvm_cpu_state *state)
{
	if (is_amd())
		state->special.tr.type &= (uint8_t)~SEGMENT_BUSY;
}

int kvm_cpu_restore(int vcpu, const struct kvm_cpu_state *stored, const char **ret_step)
{
	struct kvm_cpu_state own = *stored;
	const struct kvm_cpu_state *state = &own;
	int r;

	restore_own_form(&own);
	for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
		r = step(ioctl(vcpu, parts[i].set, (const char *)state + parts[i].offset),
			 parts[i].name, ret_step);
		if (r < 0)
			return r;
	}
	r = restore_msrs(vcpu, state, ret_step);
	if (r < 0)
		return r;
	return step(ioctl(vcpu, KVM_SET_VCPU_EVENTS, &state->events), "pending events", ret_step);
}

static const struct jail_syscall calls[] = {
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_MP_STATE)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_SREGS)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_REGS)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_XCRS)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_XSAVE)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_DEBUGREGS)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_LAPIC)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_MSRS)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_VCPU_EVENTS)),
};
const struct jail_syscall_set kvm_cpu_save_calls = JAIL_SET(calls);
