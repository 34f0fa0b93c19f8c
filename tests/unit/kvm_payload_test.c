/*
 * Small programs without an operating system on this machine's own /dev/kvm: accesses to ports and
 * registers, the ways in which a guest ends, pausing, stored state, and the lock of vCPU threads.
 */
#include "base/checked.h"
#include "jail/calls.h"
#include "jail/jail.h"
#include "vmm/boot_layout.h"
#include "vmm/filters.h"
#include "vmm/guest_ram.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/kvm_vcpu.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CODE UINT64_C(0x100000)
#define COUNTER UINT64_C(0x200000)  /* that a payload counts up */
#define DEVICE UINT64_C(0x30000000) /* registers; inside the page tables, outside memory */
#define DEVICE_LENGTH 0x1000
#define DONE_PORT 0x50 /* a write there is a payload's last act */
#define RECORD_PORT 0x60
#define RECORDS_MAX 64
#define WAIT_SECONDS 20
#define TASK_STATE_BUSY 2 /* of a segment's type */

#define PAYLOAD(name, code)                                                                        \
	extern const uint8_t payload_##name[], payload_##name##_end[];                             \
	__asm__(".pushsection .rodata\n"                                                           \
		"payload_" #name ":\n" code "\n"                                                   \
		"payload_" #name "_end:\n"                                                         \
		".popsection\n")

/* ---- the world ---------------------------------------------------------------------------------
 */

struct record {
	char kind; /* r or w */
	uint64_t offset;
	uint64_t value;
	size_t length;
};

static struct world {
	struct kvm_vm vm;
	struct guest_ram_layout ram;
	struct guest_memory memory;
	struct io_bus ports;
	struct io_bus registers;
	struct kvm_vcpus *vcpus;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct record records[RECORDS_MAX];
	size_t record_count;
	uint64_t answer; /* to reads */
	bool done;
	bool has_ended;
	bool is_paused;
	enum kvm_vcpu_end end;
	char details[256];
} world;

static void note(char kind, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)pthread_mutex_lock(&world.lock);
	if (world.record_count < RECORDS_MAX) {
		struct record *record = &world.records[world.record_count++];

		*record = (struct record){ .kind = kind, .offset = offset, .length = length };
		memcpy(&record->value, data, length);
	}
	(void)pthread_mutex_unlock(&world.lock);
}

static void answer(void *owner, uint64_t offset, uint8_t *data, size_t length)
{
	(void)owner;
	memcpy(data, &world.answer, length);
	note('r', offset, data, length);
}

static void take(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)owner;
	note('w', offset, data, length);
}

static void finish(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)owner;
	(void)offset;
	(void)data;
	(void)length;
	(void)pthread_mutex_lock(&world.lock);
	world.done = true;
	(void)pthread_cond_broadcast(&world.changed);
	(void)pthread_mutex_unlock(&world.lock);
}

static void on_end(void *observer, enum kvm_vcpu_end end, const char *details)
{
	(void)observer;
	(void)pthread_mutex_lock(&world.lock);
	if (!world.has_ended) {
		world.has_ended = true;
		world.end = end;
		(void)snprintf(world.details, sizeof(world.details), "%s", details);
	}
	(void)pthread_cond_broadcast(&world.changed);
	(void)pthread_mutex_unlock(&world.lock);
}

static void on_pause(void *observer)
{
	(void)observer;
	(void)pthread_mutex_lock(&world.lock);
	world.is_paused = true;
	(void)pthread_cond_broadcast(&world.changed);
	(void)pthread_mutex_unlock(&world.lock);
}

/* Waits until a flag is set; fails the test when it is not in time. */
static void await(const bool *flag)
{
	struct timespec deadline;
	bool set;

	(void)clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += WAIT_SECONDS;
	(void)pthread_mutex_lock(&world.lock);
	while (!*flag &&
	       pthread_cond_timedwait(&world.changed, &world.lock, &deadline) != ETIMEDOUT)
		;
	set = *flag;
	(void)pthread_mutex_unlock(&world.lock);
	ck_assert(set);
}

static void make_memory(void)
{
	const struct boot_layout layout = { .ram = &world.ram, .command_line = "" };

	ck_assert_int_eq(guest_ram_layout(GUEST_RAM_MIN, 0, 0, &world.ram), 0);
	ck_assert_int_eq(guest_ram_map(&world.ram, -1, &world.memory), 0);
	ck_assert_int_eq(boot_layout_write(&layout, &world.memory), 0);
}

static void make_vcpus(unsigned count)
{
	const struct kvm_vcpus_setup setup = {
		.vm = &world.vm,
		.ports = &world.ports,
		.registers = &world.registers,
		.count = count,
		.entry = CODE,
		.ended = on_end,
		.paused = on_pause,
	};
	const char *step = "";
	int r = kvm_vcpus_new(&setup, &world.vcpus, &step);

	ck_assert_msg(r == 0, "%s: %s", step, strerror(-r));
}

static void add_range(struct io_bus *bus, uint64_t base, uint64_t length,
		      void (*read)(void *, uint64_t, uint8_t *, size_t),
		      void (*write)(void *, uint64_t, const uint8_t *, size_t))
{
	const struct io_range range = { base, length, read, write, NULL };

	ck_assert_int_eq(io_bus_add(bus, &range), 0);
}

static void open_machine(void)
{
	const char *step = "";
	int r = kvm_vm_open(&world.vm, &step);

	ck_assert_msg(r == 0, "%s: %s", step, strerror(-r));
	ck_assert_int_eq(kvm_vm_add_memory(&world.vm, &world.memory), 0);
}

static void set_up(void)
{
	memset(&world, 0, sizeof(world));
	(void)pthread_mutex_init(&world.lock, NULL);
	(void)pthread_cond_init(&world.changed, NULL);
	world.vm.kvm = world.vm.fd = -1;
	make_memory();
	open_machine();
	add_range(&world.ports, DONE_PORT, 1, answer, finish);
	add_range(&world.ports, RECORD_PORT, 8, answer, take);
	add_range(&world.registers, DEVICE, DEVICE_LENGTH, answer, take);
}

static void close_machine(void)
{
	if (world.vcpus)
		ck_assert_int_eq(kvm_vcpus_stop(world.vcpus), 0);
	kvm_vcpus_free(world.vcpus);
	world.vcpus = NULL;
	kvm_vm_release(&world.vm);
}

static void tear_down(void)
{
	close_machine();
	guest_memory_release(&world.memory);
}

static void load(const uint8_t *start, const uint8_t *end)
{
	memcpy(gpa_range(&world.memory, CODE, (uint64_t)(end - start)), start,
	       (size_t)(end - start));
}

static void run(void)
{
	ck_assert_int_eq(kvm_vcpus_start(world.vcpus, NULL), 0);
	kvm_vcpus_run(world.vcpus);
}

#define LOAD(name) load(payload_##name, payload_##name##_end)

static void expect(size_t index, char kind, uint64_t offset, size_t length, uint64_t value)
{
	const struct record *record = &world.records[index];

	ck_assert_uint_lt(index, world.record_count);
	ck_assert_int_eq(record->kind, kind);
	ck_assert_uint_eq(record->offset, offset);
	ck_assert_uint_eq(record->length, length);
	ck_assert_uint_eq(record->value, value);
}

static uint64_t counter(void)
{
	return __atomic_load_n((uint64_t *)gpa_range(&world.memory, COUNTER, 8), __ATOMIC_ACQUIRE);
}

static void nap(void)
{
	(void)nanosleep(&(const struct timespec){ .tv_nsec = 20000000 }, NULL);
}

/* ---- accesses ----------------------------------------------------------------------------------
 */

PAYLOAD(ports, "mov $0x60, %edx\n"
	       "mov $0x11, %al\n out %al, %dx\n"
	       "mov $0x2233, %ax\n out %ax, %dx\n"
	       "mov $0x44556677, %eax\n out %eax, %dx\n"
	       "add $3, %edx\n out %eax, %dx\n" /* not aligned */
	       "xor %eax, %eax\n in %dx, %al\n mov %eax, 0x200000\n"
	       "sub $3, %edx\n in %dx, %eax\n mov %eax, 0x200004\n"
	       "mov $0x70, %edx\n in %dx, %eax\n mov %eax, 0x200008\n" /* nobody's */
	       "out %eax, %dx\n"
	       "mov $0x67, %edx\n in %dx, %ax\n" /* half of it nobody's */
	       "mov %eax, 0x20000c\n"
	       "out %al, $0x50\n"
	       "1: hlt\n jmp 1b");

START_TEST(ports)
{
	const uint32_t *stored = gpa_range(&world.memory, COUNTER, 16);

	LOAD(ports);
	world.answer = 0xa1b2c3d4;
	make_vcpus(1);
	run();
	await(&world.done);
	expect(0, 'w', 0, 1, 0x11);
	expect(1, 'w', 0, 2, 0x2233);
	expect(2, 'w', 0, 4, 0x44556677);
	expect(3, 'w', 3, 4, 0x44556677);
	expect(4, 'r', 3, 1, 0xd4);
	expect(5, 'r', 0, 4, 0xa1b2c3d4);
	ck_assert_uint_eq(world.record_count, 6);
	ck_assert_uint_eq(stored[0], 0xd4);
	ck_assert_uint_eq(stored[1], 0xa1b2c3d4);
	ck_assert_uint_eq(stored[2], 0xffffffff);
	ck_assert_uint_eq(stored[3] & 0xffff, 0xffff);
}
END_TEST

PAYLOAD(strings, "lea text(%rip), %rsi\n"
		 "mov $0x60, %edx\n mov $5, %ecx\n cld\n rep outsb\n"
		 "mov $0x200000, %edi\n mov $3, %ecx\n rep insw\n"
		 "out %al, $0x50\n"
		 "1: hlt\n jmp 1b\n"
		 "text: .ascii \"hello\"");

START_TEST(string_instructions)
{
	const uint16_t *stored = gpa_range(&world.memory, COUNTER, 8);

	LOAD(strings);
	world.answer = 0x7788;
	make_vcpus(1);
	run();
	await(&world.done);
	for (size_t i = 0; i < 5; i++)
		expect(i, 'w', 0, 1, (uint64_t)(unsigned char)"hello"[i]);
	ck_assert_uint_ge(world.record_count, 8);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(stored[i], 0x7788);
}
END_TEST

PAYLOAD(registers, "mov $0x30000000, %ebx\n"
		   "movb $0x11, (%rbx)\n"
		   "movw $0x2233, 2(%rbx)\n"
		   "movl $0x44556677, 4(%rbx)\n"
		   "mov $0x1122334455667788, %rax\n mov %rax, 8(%rbx)\n"
		   "movl $0x01020304, 0x51(%rbx)\n" /* not aligned */
		   "mov 0x100(%rbx), %eax\n mov %eax, 0x200000\n"
		   "movb 0xfff(%rbx), %al\n"
		   "movl $5, 0x1000(%rbx)\n" /* nobody's */
		   "mov 0x2000(%rbx), %eax\n mov %eax, 0x200004\n"
		   "out %al, $0x50\n"
		   "1: hlt\n jmp 1b");

START_TEST(registers)
{
	const uint32_t *stored = gpa_range(&world.memory, COUNTER, 8);

	LOAD(registers);
	world.answer = 0xcafef00d;
	make_vcpus(1);
	run();
	await(&world.done);
	expect(0, 'w', 0, 1, 0x11);
	expect(1, 'w', 2, 2, 0x2233);
	expect(2, 'w', 4, 4, 0x44556677);
	expect(3, 'w', 8, 8, 0x1122334455667788);
	expect(4, 'w', 0x51, 4, 0x01020304);
	expect(5, 'r', 0x100, 4, 0xcafef00d);
	expect(6, 'r', 0xfff, 1, 0x0d);
	ck_assert_uint_eq(world.record_count, 7);
	ck_assert_uint_eq(stored[0], 0xcafef00d);
	ck_assert_uint_eq(stored[1], 0xffffffff);
}
END_TEST

PAYLOAD(real_mode, ".code16\n"
		   "mov $0x1234, %ax\n mov $0x60, %dx\n out %ax, %dx\n"
		   "out %al, $0x50\n"
		   "1: hlt\n jmp 1b\n"
		   ".code64");

START_TEST(real_mode)
{
	struct kvm_sregs special;
	struct kvm_regs general = { .rip = 0, .rflags = 2 };
	int vcpu;

	LOAD(real_mode);
	make_vcpus(1);
	vcpu = kvm_vcpus_descriptor(world.vcpus, 0);
	ck_assert_int_eq(ioctl(vcpu, KVM_GET_SREGS, &special), 0);
	special.cr0 = 0x10;
	special.cr4 = special.efer = special.cr3 = 0;
	special.cs = (struct kvm_segment){ .base = CODE,
					   .selector = CODE >> 4 & 0xffff,
					   .limit = 0xffff,
					   .type = 11,
					   .present = 1,
					   .s = 1 };
	special.ds = (struct kvm_segment){ .limit = 0xffff, .type = 3, .present = 1, .s = 1 };
	special.es = special.fs = special.gs = special.ss = special.ds;
	ck_assert_int_eq(ioctl(vcpu, KVM_SET_SREGS, &special), 0);
	ck_assert_int_eq(ioctl(vcpu, KVM_SET_REGS, &general), 0);
	run();
	await(&world.done);
	expect(0, 'w', 0, 2, 0x1234);
}
END_TEST

/* ---- endings -----------------------------------------------------------------------------------
 */

PAYLOAD(triple_fault, "sub $16, %rsp\n"
		      "movq $0, (%rsp)\n movq $0, 8(%rsp)\n"
		      "lidt (%rsp)\n"
		      "ud2");

START_TEST(triple_fault)
{
	LOAD(triple_fault);
	make_vcpus(1);
	run();
	await(&world.has_ended);
	ck_assert_int_eq(world.end, KVM_VCPU_TRIPLE_FAULT);
}
END_TEST

/* KVM cannot emulate an instruction that it would have to fetch from a device. */
PAYLOAD(code_in_device, "mov $0x30000000, %eax\n jmp *%rax");

START_TEST(internal_error)
{
	LOAD(code_in_device);
	make_vcpus(1);
	run();
	await(&world.has_ended);
	ck_assert_int_eq(world.end, KVM_VCPU_INTERNAL_ERROR);
	ck_assert_ptr_nonnull(strstr(world.details, "processor 0"));
}
END_TEST

PAYLOAD(halt, "out %al, $0x50\n"
	      "1: hlt\n jmp 1b");

/* Neither a halted processor nor ones that were never started keep us. */
START_TEST(stop_while_halted)
{
	LOAD(halt);
	make_vcpus(4);
	run();
	await(&world.done);
	ck_assert_int_eq(kvm_vcpus_stop(world.vcpus), 0);
	ck_assert(!world.has_ended);
}
END_TEST

PAYLOAD(count, "out %al, $0x50\n"
	       "1: lock incq 0x200000\n jmp 1b");

START_TEST(pause_and_resume)
{
	uint64_t before;

	LOAD(count);
	make_vcpus(2);
	run();
	await(&world.done);
	for (int i = 0; i < 5; i++) {
		world.is_paused = false;
		kvm_vcpus_pause(world.vcpus);
		await(&world.is_paused);
		before = counter();
		nap();
		ck_assert_uint_eq(counter(), before);
		kvm_vcpus_run(world.vcpus);
		while (counter() == before)
			nap();
		kvm_vcpus_tell_clock(world.vcpus);
	}
	/* Paused at the end. */
	world.is_paused = false;
	kvm_vcpus_pause(world.vcpus);
	await(&world.is_paused);
	ck_assert_int_eq(kvm_vcpus_stop(world.vcpus), 0);
}
END_TEST

/* ---- state -------------------------------------------------------------------------------------
 */

PAYLOAD(registers_count, "mov $0x1234567890, %r12\n"
			 "out %al, $0x50\n"
			 "1: inc %r12\n mov %r12, 0x200000\n jmp 1b");

START_TEST(state_moves_to_another_machine)
{
	static struct kvm_cpu_state state, again;
	const char *step = "";
	uint64_t before;

	LOAD(registers_count);
	make_vcpus(1);
	run();
	await(&world.done);
	while (counter() < 0x1234567890)
		nap();
	kvm_vcpus_pause(world.vcpus);
	await(&world.is_paused);
	ck_assert_msg(kvm_cpu_save(kvm_vcpus_descriptor(world.vcpus, 0), &state, &step) == 0, "%s",
		      step);
	before = counter();
	ck_assert_uint_ge(state.general.r12, before);
	ck_assert_uint_le(state.general.r12, before + 1);
	close_machine();

	open_machine();
	make_vcpus(1);
	ck_assert_msg(kvm_cpu_restore(kvm_vcpus_descriptor(world.vcpus, 0), &state, &step) == 0,
		      "%s", step);
	ck_assert_int_eq(kvm_cpu_save(kvm_vcpus_descriptor(world.vcpus, 0), &again, &step), 0);
	ck_assert_mem_eq(&again.general, &state.general, sizeof(state.general));
	/* On AMD's processors it is restored without the busy flag. Linux's KVM says it with the
	 * flag all the same; one that only looks like it need not. */
	again.special.tr.type |= TASK_STATE_BUSY;
	ck_assert_mem_eq(&again.special, &state.special, sizeof(state.special));
	run();
	while (counter() < before + 2)
		nap();
}
END_TEST

START_TEST(machine_state_moves_to_another_machine)
{
	static struct kvm_vm_state state, again;
	const char *step = "";

	LOAD(registers_count);
	make_vcpus(1);
	ck_assert_msg(kvm_vm_save(&world.vm, &state, &step) == 0, "%s", step);
	/* A line that is masked, an interrupt mask, and a clock that an hour has passed on. */
	state.controllers[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[5].bits = 0x10035;
	state.controllers[KVM_IRQCHIP_PIC_SLAVE].chip.pic.imr = 0x5a;
	state.clock.clock += UINT64_C(3600000000000);
	close_machine();

	open_machine();
	make_vcpus(1);
	ck_assert_msg(kvm_vm_restore(&world.vm, &state, &step) == 0, "%s", step);
	ck_assert_msg(kvm_vm_save(&world.vm, &again, &step) == 0, "%s", step);
	ck_assert_mem_eq(again.controllers, state.controllers, sizeof(state.controllers));
	ck_assert_uint_ge(again.clock.clock, state.clock.clock);
	ck_assert_uint_lt(again.clock.clock, state.clock.clock + UINT64_C(60000000000));
}
END_TEST

static uint64_t msr_of(int vcpu, uint32_t index)
{
	/* struct kvm_msrs, with room for one. */
	struct {
		uint32_t count, padding;
		struct kvm_msr_entry entry;
	} list = { .count = 1, .entry.index = index };

	ck_assert_int_eq(ioctl(vcpu, KVM_GET_MSRS, &list), 1);
	return list.entry.data;
}

static uint32_t local_apic_of(int vcpu, size_t offset)
{
	struct kvm_lapic_state state;
	uint32_t value;

	ck_assert_int_eq(ioctl(vcpu, KVM_GET_LAPIC, &state), 0);
	memcpy(&value, state.regs + offset, sizeof(value));
	return value;
}

/* What each processor has before its first instruction, as KVM itself has it. The second
 * one waits to be called. */
START_TEST(start_state)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} msrs[] = {
		{ 0x1a0, 1 },	  /* IA32_MISC_ENABLE: fast strings */
		{ 0x2ff, 0x806 }, /* IA32_MTRR_DEF_TYPE: enabled, write-back */
		{ 0x174, 0 },	  /* SYSENTER_CS, _ESP, _EIP */
		{ 0x175, 0 },	   { 0x176, 0 },
		{ 0xc0000081, 0 }, /* STAR, LSTAR, CSTAR, SYSCALL_MASK */
		{ 0xc0000082, 0 }, { 0xc0000083, 0 },
		{ 0xc0000084, 0 }, { 0xc0000102, 0 }, /* KERNEL_GS_BASE */
	};
	static struct kvm_xsave extended;
	struct kvm_mp_state activity;
	struct kvm_sregs special;
	struct kvm_regs general;
	struct kvm_fpu fpu;
	int vcpu;

	make_vcpus(2);
	vcpu = kvm_vcpus_descriptor(world.vcpus, (unsigned)_i);
	for (size_t i = 0; i < ARRAY_LENGTH(msrs); i++)
		ck_assert_msg(msr_of(vcpu, msrs[i].index) == msrs[i].value, "MSR %#x is %#llx",
			      msrs[i].index, (unsigned long long)msr_of(vcpu, msrs[i].index));
	ck_assert_uint_eq(local_apic_of(vcpu, 0x350), 0x700); /* LINT0: external interrupts */
	ck_assert_uint_eq(local_apic_of(vcpu, 0x360), 0x400); /* LINT1: NMI */
	ck_assert_int_eq(ioctl(vcpu, KVM_GET_FPU, &fpu), 0);
	ck_assert_uint_eq(fpu.fcw, 0x37f);
	/* KVM_GET_FPU says nothing of MXCSR. */
	ck_assert_int_eq(ioctl(vcpu, KVM_GET_XSAVE, &extended), 0);
	ck_assert_uint_eq(extended.region[6], 0x1f80);
	ck_assert_int_eq(ioctl(vcpu, KVM_GET_MP_STATE, &activity), 0);
	ck_assert_uint_eq(activity.mp_state,
			  _i == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED);
	ck_assert_int_eq(ioctl(vcpu, KVM_GET_SREGS, &special), 0);
	ck_assert_int_eq(ioctl(vcpu, KVM_GET_REGS, &general), 0);
	if (_i == 0) {
		ck_assert_uint_eq(special.efer & 0x500, 0x500);
		ck_assert_uint_eq(general.rip, CODE);
		ck_assert_uint_eq(general.rsi, BOOT_PARAMS_ADDRESS);
	} else {
		ck_assert_uint_eq(special.efer, 0);
		ck_assert_uint_eq(special.cr0 & 1, 0);
	}
}
END_TEST

/* ---- the lock ----------------------------------------------------------------------------------
 */

static long call_open(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY);
}

static long call_socket(void)
{
	return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}

static long call_ptrace(void)
{
	return syscall(SYS_ptrace, 0, 0, 0, 0);
}

static long call_fork(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static long call_thread(void)
{
	return syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, 0, 0, 0, 0);
}

static long call_create_vm(void)
{
	return ioctl(world.vm.kvm, KVM_CREATE_VM, 0);
}

static long call_map_memory(void)
{
	struct kvm_userspace_memory_region region = { .slot = 7 };

	return ioctl(world.vm.fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static long call_another_filter(void)
{
	return syscall(SYS_seccomp, 1, 0, NULL);
}

static long call_run(void)
{
	return ioctl(kvm_vcpus_descriptor(world.vcpus, 0), KVM_RUN, 0);
}

static long call_write(void)
{
	return write(STDOUT_FILENO, "", 0);
}

static const struct forbidden {
	long (*call)(void);
	bool sanitizers_need_it;
	bool only_device_thread; /* a vCPU thread may */
} forbidden[] = {
	{ call_socket, false, false },
	{ call_ptrace, false, false },
	{ call_another_filter, false, false },
	{ call_open, true, false },
	{ call_fork, true, false },
	{ call_thread, true, false },
	{ call_create_vm, true, false },
	{ call_map_memory, true, false },
	{ call_run, true, true },
};

static long (*planned_call)(void);

static void make_planned_call(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)owner;
	(void)offset;
	(void)data;
	(void)length;
	(void)planned_call();
	finish(NULL, 0, NULL, 0);
}

PAYLOAD(poke, "out %al, $0x51\n"
	      "1: hlt\n jmp 1b");

/* Locks a process as matchlock-vmm does, and starts the vCPU threads in it. */
static void lock_process(void)
{
	struct jail_report report;
	struct jail_spec spec = { .component = "test",
				  .filter = &vmm_filters[VMM_FILTER_IN_PROCESS],
				  .keep_all_fds = true };

	if (jail_enter(&spec, &report) < 0 ||
	    kvm_vcpus_start(world.vcpus, &vmm_filters[VMM_FILTER_VCPU_THREAD]) < 0)
		_exit(101);
}

/* What becomes of a process one of whose threads makes a call. */
static int fate(bool on_vcpu, long (*call)(void))
{
	pid_t child;
	int status;

	planned_call = call;
	LOAD(poke);
	add_range(&world.ports, 0x51, 1, answer, make_planned_call);
	make_vcpus(1);
	child = fork();
	if (child == 0) {
		/* A machine belongs to the process that made it. */
		kvm_vcpus_free(world.vcpus);
		kvm_vm_release(&world.vm);
		open_machine();
		make_vcpus(1);
		lock_process();
		if (on_vcpu) {
			kvm_vcpus_run(world.vcpus);
			await(&world.done);
		} else {
			if (jail_filter_enter_thread(&vmm_filters[VMM_FILTER_DEVICE_THREAD]) < 0)
				_exit(102);
			(void)call();
		}
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

START_TEST(vcpu_thread_is_locked)
{
	if (forbidden[_i].only_device_thread ||
	    (JAIL_SANITIZER && forbidden[_i].sanitizers_need_it))
		return;
	ck_assert_int_eq(fate(true, forbidden[_i].call), 1000 + SIGSYS);
}
END_TEST

START_TEST(device_thread_is_locked)
{
	if (JAIL_SANITIZER && forbidden[_i].sanitizers_need_it)
		return;
	ck_assert_int_eq(fate(false, forbidden[_i].call), 1000 + SIGSYS);
}
END_TEST

START_TEST(permitted_calls_pass)
{
	ck_assert_int_eq(fate(_i == 0, call_write), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kvm_payload");
	TCase *tests = tcase_create("kvm_payload");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, ports);
	tcase_add_test(tests, string_instructions);
	tcase_add_test(tests, registers);
	tcase_add_test(tests, real_mode);
	tcase_add_test(tests, triple_fault);
	tcase_add_test(tests, internal_error);
	tcase_add_test(tests, stop_while_halted);
	tcase_add_test(tests, pause_and_resume);
	tcase_add_test(tests, state_moves_to_another_machine);
	tcase_add_test(tests, machine_state_moves_to_another_machine);
	tcase_add_loop_test(tests, start_state, 0, 2);
	tcase_add_loop_test(tests, vcpu_thread_is_locked, 0, (int)ARRAY_LENGTH(forbidden));
	tcase_add_loop_test(tests, device_thread_is_locked, 0, (int)ARRAY_LENGTH(forbidden));
	tcase_add_loop_test(tests, permitted_calls_pass, 0, 2);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
