#include "cli/kvm_probe.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * Theory of operation. The guest has 2 MiB: page tables at 0x1000..0x3fff that map it once with a
 * large page, code at 0x10000. The code executes cmpxchg16b, which emulating KVMs lack, then a
 * loop of 100,000 turns, which takes 0.1 ms on real hardware and over 5 ms when emulated.
 */
#define MEMORY_SIZE (2u << 20)
#define CODE_ADDRESS 0x10000
#define DATA_ADDRESS 0x20000
#define LOOP_LIMIT_US 5000
#define PROBE_TIMEOUT_MS 2000

static const uint8_t guest_code[] = {
	0xbe, 0x00, 0x00, 0x02, 0x00, /* mov $DATA_ADDRESS, %esi */
	0xf0, 0x48, 0x0f, 0xc7, 0x0e, /* lock cmpxchg16b (%rsi) */
	0xb9, 0xa0, 0x86, 0x01, 0x00, /* mov $100000, %ecx */
	0xff, 0xc9,		      /* 1: dec %ecx */
	0x75, 0xfc,		      /* jnz 1b */
	0xf4,			      /* hlt */
};

struct outcome {
	int error; /* 0, or an errno */
	int exit_reason;
	long microseconds;
	char stage[32];
};

static int failed(struct outcome *outcome, const char *stage)
{
	outcome->error = errno ? errno : EIO;
	snprintf(outcome->stage, sizeof(outcome->stage), "%s", stage);
	return -1;
}

static int set_registers(int vcpu, struct outcome *outcome)
{
	struct kvm_sregs special;
	struct kvm_regs general = { .rip = CODE_ADDRESS, .rflags = 2, .rsp = 0x80000 };

	if (ioctl(vcpu, KVM_GET_SREGS, &special) < 0)
		return failed(outcome, "KVM_GET_SREGS");
	special.cr3 = 0x1000;
	special.cr4 = 1u << 5;		       /* PAE */
	special.cr0 = 0x80000001u;	       /* PG, PE */
	special.efer = (1u << 8) | (1u << 10); /* LME, LMA */
	special.cs = (struct kvm_segment){
		.selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1, .limit = 0xffffffff
	};
	special.ds = (struct kvm_segment){ .selector = 16,
					   .type = 3,
					   .present = 1,
					   .s = 1,
					   .db = 1,
					   .g = 1,
					   .limit = 0xffffffff };
	special.es = special.fs = special.gs = special.ss = special.ds;
	if (ioctl(vcpu, KVM_SET_SREGS, &special) < 0)
		return failed(outcome, "KVM_SET_SREGS");
	if (ioctl(vcpu, KVM_SET_REGS, &general) < 0)
		return failed(outcome, "KVM_SET_REGS");
	return 0;
}

static int set_cpuid(int kvm, int vcpu, struct outcome *outcome)
{
	union {
		struct kvm_cpuid2 list;
		uint8_t space[sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)];
	} cpuid = { .list = { .nent = 256 } };

	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0)
		return failed(outcome, "KVM_GET_SUPPORTED_CPUID");
	if (ioctl(vcpu, KVM_SET_CPUID2, &cpuid) < 0)
		return failed(outcome, "KVM_SET_CPUID2");
	return 0;
}

static int make_memory(int vm, struct outcome *outcome)
{
	uint8_t *memory =
		mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };
	const uint64_t tables[3] = { 0x2003, 0x3003, 0x83 };

	if (memory == MAP_FAILED)
		return failed(outcome, "mmap");
	for (size_t i = 0; i < 3; i++)
		memcpy(memory + 0x1000 * (i + 1), &tables[i], sizeof(tables[i]));
	memcpy(memory + CODE_ADDRESS, guest_code, sizeof(guest_code));
	region.userspace_addr = (uintptr_t)memory;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed(outcome, "KVM_SET_USER_MEMORY_REGION");
	return 0;
}

static int run_once(int vcpu, const struct kvm_run *state, struct outcome *outcome)
{
	struct timespec before;
	struct timespec after;

	clock_gettime(CLOCK_MONOTONIC, &before);
	if (ioctl(vcpu, KVM_RUN, 0) < 0)
		return failed(outcome, "KVM_RUN");
	clock_gettime(CLOCK_MONOTONIC, &after);
	outcome->exit_reason = (int)state->exit_reason;
	outcome->microseconds =
		(after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
	return 0;
}

static void probe(struct outcome *outcome)
{
	cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	cleanup_fd int vm = -1;
	cleanup_fd int vcpu = -1;
	struct kvm_run *state;
	int size;

	if (kvm < 0) {
		failed(outcome, "open");
		return;
	}
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		failed(outcome, "KVM_GET_API_VERSION");
		return;
	}
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm < 0 || vcpu < 0 || size < (int)sizeof(*state)) {
		failed(outcome, "KVM_CREATE_VM");
		return;
	}
	state = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED) {
		failed(outcome, "mmap");
		return;
	}
	if (make_memory(vm, outcome) == 0 && set_cpuid(kvm, vcpu, outcome) == 0 &&
	    set_registers(vcpu, outcome) == 0)
		run_once(vcpu, state, outcome);
}

static bool judge(const struct outcome *outcome, char *why, size_t size)
{
	if (outcome->error == ENOENT) {
		snprintf(why, size, "there is no /dev/kvm");
		return false;
	}
	if (outcome->error) {
		snprintf(why, size, "%s: %s", outcome->stage, strerror(outcome->error));
		return false;
	}
	if (outcome->exit_reason != KVM_EXIT_HLT) {
		snprintf(why, size,
			 "it opens, but cannot run what Linux needs (exit reason %d at "
			 "cmpxchg16b): an emulating KVM",
			 outcome->exit_reason);
		return false;
	}
	if (outcome->microseconds > LOOP_LIMIT_US) {
		snprintf(why, size,
			 "it opens, but is far too slow (%ld us for a loop of 100,000): an "
			 "emulating KVM",
			 outcome->microseconds);
		return false;
	}
	snprintf(why, size, "runs code at full speed (loop of 100,000 in %ld us)",
		 outcome->microseconds);
	return true;
}

bool kvm_probe(char *why, size_t size)
{
	struct outcome outcome = { 0 };
	struct pollfd reader = { .events = POLLIN };
	bool answered;
	int pipe_fds[2];
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
		snprintf(why, size, "cannot make a pipe: %s", strerror(errno));
		return false;
	}
	pid = fork();
	if (pid == 0) {
		probe(&outcome);
		_exit(write(pipe_fds[1], &outcome, sizeof(outcome)) == sizeof(outcome) ? 0 : 1);
	}
	close(pipe_fds[1]);
	reader.fd = pipe_fds[0];
	answered = pid > 0 && poll(&reader, 1, PROBE_TIMEOUT_MS) == 1 &&
		   read(pipe_fds[0], &outcome, sizeof(outcome)) == sizeof(outcome);
	close(pipe_fds[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	if (!answered) {
		snprintf(why, size, "it opens, but a tiny guest did not end within %d ms",
			 PROBE_TIMEOUT_MS);
		return false;
	}
	return judge(&outcome, why, size);
}
