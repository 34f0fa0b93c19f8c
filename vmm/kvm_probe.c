/*
 * Theory of operation
 *
 * A child process makes a machine of the engine's own parts and runs a small program in it: first
 * the instructions at which emulating KVMs stop (cmpxchg16b, xrstor, int3 through an interrupt
 * gate), then a loop of 100,000 turns, three times, since a host may be busy and an emulator
 * translates at the first time. Each step ends with an access to a port. The loop takes 0.1 ms on
 * hardware; the parent waits for all of it for no more than PROBE_TIMEOUT_MS.
 */
#include "vmm/kvm_probe.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "vmm/boot_layout.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/kvm_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define LOOP_LIMIT_US 5000
#define LOOP_RUNS 3
#define PROBE_TIMEOUT_MS 2000
#define CODE_ADDRESS UINT64_C(0x100000)
#define HANDLER_ADDRESS UINT64_C(0x100100)
#define DATA_ADDRESS UINT64_C(0x120000)
#define IDT_ADDRESS UINT64_C(0x121000)
#define IDT_LENGTH 4096
#define PORT_INSTRUCTIONS 0x10
#define PORT_LOOP 0x11
#define CR4_OSFXSR (1u << 9)
#define CR4_OSXSAVE (1u << 18)
#define CPUID_XSAVE (1u << 26) /* 1, ecx */
#define VERDICT_MAX 512
#define BOOT_ID_LENGTH 36

static const uint8_t guest_code[] = {
	0xbe, 0x00,
	0x00, 0x12,
	0x00, /* mov $DATA_ADDRESS, %esi */
	0xf0, 0x48,
	0x0f, 0xc7,
	0x0e,	    /* lock cmpxchg16b (%rsi) */
	0x31, 0xc0, /* xor %eax, %eax */
	0x31, 0xd2, /* xor %edx, %edx */
	0xff, 0xc0, /* inc %eax */
	0x48, 0x0f,
	0xae, 0x2e,		 /* xrstor64 (%rsi) */
	0xcc,			 /* int3 */
	0xe6, PORT_INSTRUCTIONS, /* out %al, $PORT_INSTRUCTIONS */
	0xb9, 0xa0,
	0x86, 0x01,
	0x00,		 /* 1: mov $100000, %ecx */
	0xff, 0xc9,	 /* 2: dec %ecx */
	0x75, 0xfc,	 /* jnz 2b */
	0xe6, PORT_LOOP, /* out %al, $PORT_LOOP */
	0xeb, 0xf3,	 /* jmp 1b */
};
#define XRSTOR_OFFSET 16
#define XRSTOR_LENGTH 4

static const uint8_t handler_code[] = { 0x48, 0xcf }; /* iretq */

/* ---- the child ---------------------------------------------------------------------------------
 */

struct probe {
	struct kvm_vm vm;
	struct guest_memory memory;
	struct kvm_cpuid_table table;
	struct kvm_run *run;
	int vcpu;
};

static int make_guest(struct probe *probe, bool has_xsave, const char **ret_step)
{
	struct guest_ram_layout ram;
	const struct boot_layout layout = { .ram = &ram, .command_line = "" };
	const uint64_t gate[2] = { (HANDLER_ADDRESS & 0xffff) | BOOT_CODE_SELECTOR << 16 |
					   UINT64_C(0x8e) << 40 |
					   (HANDLER_ADDRESS >> 16 & 0xffff) << 48,
				   0 };
	uint8_t *code;
	int r;

	*ret_step = "guest memory";
	r = guest_ram_layout(GUEST_RAM_MIN, 0, 0, &ram);
	if (r < 0)
		return r;
	r = guest_ram_map(&ram, -1, &probe->memory);
	if (r == 0)
		r = kvm_vm_add_memory(&probe->vm, &probe->memory);
	if (r == 0)
		r = boot_layout_write(&layout, &probe->memory);
	if (r < 0)
		return r;
	code = gpa_range(&probe->memory, CODE_ADDRESS, IDT_ADDRESS + IDT_LENGTH - CODE_ADDRESS);
	if (!code)
		return -EFAULT;
	memcpy(code, guest_code, sizeof(guest_code));
	if (!has_xsave)
		memset(code + XRSTOR_OFFSET, 0x90, XRSTOR_LENGTH);
	memcpy(code + (HANDLER_ADDRESS - CODE_ADDRESS), handler_code, sizeof(handler_code));
	memcpy(code + (IDT_ADDRESS - CODE_ADDRESS) + 3 * sizeof(gate), gate, sizeof(gate));
	return 0;
}

static int make_vcpu(struct probe *probe, bool has_xsave, const char **ret_step)
{
	struct kvm_sregs special;
	void *run;
	int r;

	*ret_step = "KVM_CREATE_VCPU";
	probe->vcpu = kvm_vm_create_vcpu(&probe->vm, 0);
	if (probe->vcpu < 0)
		return probe->vcpu;
	run = mmap(NULL, probe->vm.run_length, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu, 0);
	if (run == MAP_FAILED)
		return -errno;
	probe->run = run;
	*ret_step = "CPUID";
	r = kvm_cpuid_patch(&probe->table, 0, 1);
	if (r == 0)
		r = kvm_cpu_start_state(probe->vcpu, &probe->table, 0, CODE_ADDRESS, ret_step);
	if (r < 0)
		return r;
	*ret_step = "KVM_SET_SREGS";
	if (ioctl(probe->vcpu, KVM_GET_SREGS, &special) < 0)
		return -errno;
	special.idt = (struct kvm_dtable){ .base = IDT_ADDRESS, .limit = IDT_LENGTH - 1 };
	special.cr4 |= CR4_OSFXSR | (has_xsave ? CR4_OSXSAVE : 0);
	return ioctl(probe->vcpu, KVM_SET_SREGS, &special) < 0 ? -errno : 0;
}

static long now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Runs to the next port. */
static int run_once(const struct probe *probe, struct kvm_probe_outcome *outcome, long *ret_us)
{
	long before = now_us();

	if (ioctl(probe->vcpu, KVM_RUN, 0) < 0)
		return -errno;
	*ret_us = now_us() - before;
	outcome->exit_reason = (int)probe->run->exit_reason;
	return probe->run->exit_reason == KVM_EXIT_IO ? 0 : -EOPNOTSUPP;
}

static int run_guest(const struct probe *probe, struct kvm_probe_outcome *outcome,
		     const char **ret_step)
{
	*ret_step = "KVM_RUN";
	for (int i = 0; i <= LOOP_RUNS; i++) {
		long us = 0;
		int r = run_once(probe, outcome, &us);

		if (r < 0)
			return r;
		if (i > 0 && (i == 1 || us < outcome->microseconds))
			outcome->microseconds = us;
		outcome->runs = i + 1;
	}
	return 0;
}

static void run_child(struct kvm_probe_outcome *outcome)
{
	static struct probe probe; /* of the child's own; its exit releases everything */
	const struct kvm_cpuid_entry2 *features;
	const char *step = "";
	bool has_xsave;
	int r = kvm_vm_open(&probe.vm, &step);

	if (r == 0) {
		step = "KVM_GET_SUPPORTED_CPUID";
		r = kvm_cpuid_supported(probe.vm.kvm, &probe.table);
	}
	features = kvm_cpuid_find(&probe.table, 1, 0);
	has_xsave = features && (features->ecx & CPUID_XSAVE);
	if (r == 0)
		r = make_guest(&probe, has_xsave, &step);
	if (r == 0)
		r = make_vcpu(&probe, has_xsave, &step);
	if (r == 0)
		r = run_guest(&probe, outcome, &step);
	outcome->error = -r;
	(void)snprintf(outcome->step, sizeof(outcome->step), "%s", step);
}

/* ---- the parent --------------------------------------------------------------------------------
 */

int kvm_probe_judge(const struct kvm_probe_outcome *outcome, char *why, size_t size)
{
	if (outcome->error == EOPNOTSUPP && outcome->exit_reason != 0) {
		(void)snprintf(why, size,
			       "/dev/kvm opens, but cannot run what Linux needs (exit reason %d%s)",
			       outcome->exit_reason,
			       outcome->runs == 0 ? " at cmpxchg16b, xrstor or int3" : "");
		return -EOPNOTSUPP;
	}
	if (outcome->error) {
		(void)snprintf(why, size, "/dev/kvm: %s: %s", outcome->step,
			       strerror(outcome->error));
		return -outcome->error;
	}
	if (outcome->microseconds > LOOP_LIMIT_US) {
		(void)snprintf(why, size,
			       "/dev/kvm opens, but is far too slow (%ld us for a loop of "
			       "100,000): it emulates",
			       outcome->microseconds);
		return -EOPNOTSUPP;
	}
	(void)snprintf(why, size, "/dev/kvm runs code at full speed (loop of 100,000 in %ld us)",
		       outcome->microseconds);
	return 0;
}

int kvm_probe_run(char *why, size_t size)
{
	struct kvm_probe_outcome outcome = { 0 };
	struct pollfd reader = { .events = POLLIN };
	int channel[2];
	bool answered;
	pid_t child;

	if (pipe2(channel, O_CLOEXEC) < 0) {
		(void)snprintf(why, size, "cannot make a pipe: %s", strerror(errno));
		return -errno;
	}
	child = fork();
	if (child == 0) {
		run_child(&outcome);
		_exit(write_full(channel[1], &outcome, sizeof(outcome)) == 0 ? 0 : 1);
	}
	close(channel[1]);
	reader.fd = channel[0];
	answered = child > 0 && poll(&reader, 1, PROBE_TIMEOUT_MS) == 1 &&
		   read_full(channel[0], &outcome, sizeof(outcome)) == (ssize_t)sizeof(outcome);
	close(channel[0]);
	if (child > 0) {
		(void)kill(child, SIGKILL);
		(void)waitpid(child, NULL, 0);
	}
	if (answered)
		return kvm_probe_judge(&outcome, why, size);
	(void)snprintf(why, size, "/dev/kvm opens, but a tiny guest did not end within %d ms",
		       PROBE_TIMEOUT_MS);
	return -EOPNOTSUPP;
}

/* ---- keeping the verdict -----------------------------------------------------------------------
 */

static int read_boot_id(char id[BOOT_ID_LENGTH])
{
	cleanup_fd int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return read_full(fd, id, BOOT_ID_LENGTH) == BOOT_ID_LENGTH ? 0 : -EIO;
}

/* The directory of the kept verdict, made if need be. A descriptor, or a negative errno. */
static int open_directory(void)
{
	static const struct {
		const char *variable;
		const char *below;
	} places[] = { { "XDG_RUNTIME_DIR", "" }, { "XDG_CACHE_HOME", "" }, { "HOME", "/.cache" } };

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const char *base = getenv(places[i].variable);
		char path[4096];

		if (!base || base[0] != '/')
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s%s/matchlock", base, places[i].below) >=
		    sizeof(path))
			continue;
		if (mkdir(path, 0700) == 0 || errno == EEXIST) {
			int fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);

			if (fd >= 0)
				return fd;
		}
	}
	return -ENOENT;
}

/* The kept verdict is "ID ERROR TEXT", of this boot. */
static bool recall(int directory, const char *id, int *ret_verdict, char *why, size_t size)
{
	cleanup_fd int fd = openat(directory, "kvm-probe", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char text[VERDICT_MAX + 1];
	char *end;
	ssize_t length;
	long error;

	if (fd < 0)
		return false;
	length = read_full(fd, text, VERDICT_MAX);
	if (length <= BOOT_ID_LENGTH + 1 || memcmp(text, id, BOOT_ID_LENGTH) != 0)
		return false;
	text[length] = '\0';
	error = strtol(text + BOOT_ID_LENGTH + 1, &end, 10);
	if (*end != ' ' || error < 0 || error > 4095)
		return false;
	*ret_verdict = (int)-error;
	(void)snprintf(why, size, "%s", end + 1);
	return true;
}

/* A verdict that cannot be kept is found again the next time. */
static void keep(int directory, const char *id, int verdict, const char *why)
{
	char text[VERDICT_MAX];
	char name[40];
	int length = snprintf(text, sizeof(text), "%.*s %d %s", BOOT_ID_LENGTH, id, -verdict, why);
	cleanup_fd int fd = -1;

	(void)snprintf(name, sizeof(name), ".kvm-probe-%d", (int)getpid());
	fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (length <= 0 || (size_t)length >= sizeof(text) ||
	    write_full(fd, text, (size_t)length) < 0 ||
	    renameat(directory, name, directory, "kvm-probe") < 0)
		(void)unlinkat(directory, name, 0);
}

int kvm_probe_cached(char *why, size_t size)
{
	cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	cleanup_fd int directory = -1;
	char id[BOOT_ID_LENGTH];
	int verdict;

	if (kvm < 0) {
		verdict = -errno;
		(void)snprintf(why, size, "%s",
			       verdict == -ENOENT ? "there is no /dev/kvm"
						  : "/dev/kvm cannot be opened by this user");
		return verdict;
	}
	directory = open_directory();
	if (directory < 0 || read_boot_id(id) < 0)
		return kvm_probe_run(why, size);
	if (recall(directory, id, &verdict, why, size))
		return verdict;
	verdict = kvm_probe_run(why, size);
	keep(directory, id, verdict, why);
	return verdict;
}
