/*
 * Theory of operation
 *
 * QEMU's microvm machine, with nothing but a serial port and our vsock device: in software (TCG),
 * or on KVM, which is there for benchmarks to compare with.
 *
 * The guest finds it by ACPI tables of ours, put into its memory before QEMU starts, instead of by
 * QEMU's. These describe reduced hardware, on which Linux knows no timer but the local APIC's. It
 * calibrates that one against the time stamp counter, by a loop that a stall of its vCPU's thread
 * upsets: on a busy host the guest's timers ran at a quarter or at twice their speed, and where the
 * stall came at the worst moment, the timer was "too slow", off, and the boot stood still. By our
 * tables it also has the 8254, whose speed is known. With one vCPU that is the only timer in use
 * (nolapic_timer). Several vCPUs need one each: there Linux compares what it calibrated with the
 * 8254, and takes the 8254 for all of them if the two disagree.
 *
 * QEMU before 8.1 translates guest code without keeping its page from being written meanwhile: what
 * one vCPU patches while another translates it may stay in use as it was. Linux patches itself with
 * a breakpoint instruction in between, so a stale one is met again and again, by all vCPUs and for
 * good; one boot in some 300 with two of them stood still so. Nearly all of that patching is done
 * when the guest is up. So the kernel starts with one vCPU (maxcpus=1), and guest-init starts the
 * others last.
 *
 * A guest that is to be stored has its tables' registers of sleep: QEMU ends as it writes there,
 * and qemu_snapshot.h has the rest. One that is woken has neither kernel nor initrd, but firmware.
 *
 * The parent makes three channels (vhost-user, serial console, stderr) and forks. The child ties
 * its life to the parent's, confines itself, reports over a pipe what is in force, and executes
 * QEMU, which adds its own seccomp filter (-sandbox). The guest's first instruction runs only after
 * QEMU has had its answers on the vhost-user socket, thus after our own device is locked.
 *
 * An exec keeps namespaces, Landlock, rlimits and the lack of capabilities, but not
 * "not dumpable"; QEMU's allowlist of system calls is its own, since it changes by version.
 */
#include "vmm/engine.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "jail/capabilities.h"
#include "jail/descriptors.h"
#include "jail/jail.h"
#include "jail/landlock.h"
#include "jail/namespaces.h"
#include "vmm/acpi_tables.h"
#include "vmm/qemu_snapshot.h"
#include "vmm/tsc.h"
#include "wire/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QEMU_PROGRAM "qemu-system-x86_64"
#define ARGUMENTS_MAX 64

#define TEXT(number) TEXT_OF(number)
#define TEXT_OF(number) #number
#define POWER_PORT TEXT(ACPI_POWER_PORT)
#define SLEEP_PORT TEXT(ACPI_SLEEP_PORT)
/* isa-debug-exit's, of which an exit status keeps a byte. */
#define EXIT_STATUS(byte) ((((byte) << 1) | 1) & 0xff)
/* What Linux writes to sleep has ones in its lower byte, as the first control register reads, but
 * for GBL_RLS, which is never kept. */
#define SLEEP_BYTE 0xfb

/* Where the child finds its channels. */
enum child_fd {
	CHILD_VHOST_USER = 3,
	CHILD_CONSOLE = 4,
	CHILD_STATUS = 5,
	CHILD_MEMORY = 6,
	CHILD_DOORBELL = 7, /* if there is one */
	CHILD_FIRMWARE = 8, /* of a machine that wakes */
	CHILD_FD_COUNT = 6,
};

/* How QEMU runs the guest's instructions. */
struct accelerator {
	const char *option;
	const char *cpu;
	const char *device; /* that QEMU opens, or NULL */
	bool is_emulator;
};

/* Translated code is kept up to so many MiB; QEMU's own limit is a GiB. "rep movsb", which ERMS
 * makes the kernel prefer, is emulated byte by byte: without it copies are three times as fast. */
static const struct accelerator emulator = {
	.option = "tcg,thread=multi,tb-size=256",
	.cpu = "max,erms=off",
	.is_emulator = true,
};

static const struct accelerator kvm = {
	.option = "kvm",
	.cpu = "host",
	.device = "/dev/kvm",
};

/* ---- the program -------------------------------------------------------------------------------
 */

static int find_qemu(char path[PATH_MAX])
{
	const char *search = getenv("PATH");

	if (!search || !*search)
		search = "/usr/local/bin:/usr/bin:/bin";
	while (*search) {
		size_t length = strcspn(search, ":");

		if (length > 0 && search[0] == '/' &&
		    (size_t)snprintf(path, PATH_MAX, "%.*s/" QEMU_PROGRAM, (int)length, search) <
			    PATH_MAX &&
		    access(path, X_OK) == 0)
			return 0;
		search += length;
		search += *search == ':';
	}
	return -ENOENT;
}

static int qemu_probe(char *why, size_t size)
{
	char path[PATH_MAX];
	int r = find_qemu(path);

	if (r < 0)
		(void)snprintf(why, size,
			       QEMU_PROGRAM " is not in PATH; install Debian's qemu-system-x86");
	else
		(void)snprintf(why, size, "emulation by %s", path);
	return r;
}

static int qemu_kvm_probe(char *why, size_t size)
{
	char path[PATH_MAX];

	if (access(kvm.device, R_OK | W_OK) < 0) {
		int error = errno;

		(void)snprintf(why, size, "%s: %s", kvm.device, strerror(error));
		return -error;
	}
	if (find_qemu(path) < 0)
		return qemu_probe(why, size);
	(void)snprintf(why, size, "%s with KVM", path);
	return 0;
}

/* ---- the command line --------------------------------------------------------------------------
 */

struct command {
	const char *program; /* borrowed; the first of the arguments */
	const char *arguments[ARGUMENTS_MAX + 1];
	size_t count;
	char *kernel_command_line;
	char *memory_object;
	char *append; /* the command line, and what does not count for snapshots */
	char *memory;
	char *cpus;
};

static void command_release(struct command *command)
{
	free(command->kernel_command_line);
	free(command->memory_object);
	free(command->append);
	free(command->memory);
	free(command->cpus);
}

static void add(struct command *command, const char *argument)
{
	if (command->count < ARGUMENTS_MAX)
		command->arguments[command->count++] = argument;
}

static void add_option(struct command *command, const char *option, const char *value)
{
	add(command, option);
	add(command, value);
}

/* The guest's clock is the host's counter, of known speed, by which its delay loops go too:
 * calibrating it by an emulated timer takes long and now and then fails. An emulated port needs
 * no time to recover between two writes, and a locked instruction costs one vCPU no more than
 * another, so that they need not be patched away. Mounts and the like wait for RCU's grace periods,
 * which on few processors are short when they are asked for. Self-tests and messages cost boot
 * time. What keeps speculation in check costs each of the guest kernel's calls a detour, and
 * nothing here speculates. A panic resets by triple fault, which -no-reboot turns into the end of
 * QEMU. */
static int format_command_line(const struct engine_config *config,
			       const struct accelerator *accelerator, char **ret_text)
{
	const char *timer = config->cpus == 1 ? "nolapic_timer " : "maxcpus=1 ";
	char window[192] = "";

	if (config->window_size > 0)
		(void)snprintf(window, sizeof(window),
			       "memmap=%#llx$%#llx " AGENT_WINDOW_VARIABLE "=%#llx:%#llx:%#x ",
			       (unsigned long long)config->window_size,
			       (unsigned long long)config->window_address,
			       (unsigned long long)config->window_address,
			       (unsigned long long)config->window_size,
			       config->doorbell_fd < 0 ? 0 : ENGINE_DOORBELL_PORT);
	return asprintf(ret_text,
			"%s%sacpi_rsdp=%#x io_delay=none no_timer_check noreplace-smp "
			"mitigations=off rcupdate.rcu_expedited=1 "
			"cryptomgr.notests quiet loglevel=1 panic=-1 reboot=t "
			"random.trust_cpu=on console=ttyS0 8250.nr_uarts=1 " AGENT_POWER_VARIABLE
			"=" POWER_PORT ":" TEXT(ACPI_POWER_OFF_BYTE) "%s%s",
			accelerator->is_emulator ? timer : "", window, ACPI_MICROVM_ADDRESS,
			config->append ? " " : "", config->append ? config->append : "") < 0
		       ? -ENOMEM
		       : 0;
}

/* A kernel to boot; one that is to be stored sleeps first. Its clock's speed, which is measured,
 * comes out a little differently each time: it is no part of what a snapshot fits. */
static int add_kernel(struct command *command, const struct engine_config *config,
		      const struct accelerator *accelerator, bool sleeps)
{
	uint32_t khz = accelerator->is_emulator ? tsc_frequency_khz() : 0;
	char clock[96] = "";

	if (khz > 0)
		(void)snprintf(clock, sizeof(clock), "tsc_early_khz=%u tsc=reliable ", khz);
	if (asprintf(&command->append, "%s%s%s", clock, command->kernel_command_line,
		     sleeps ? " " AGENT_SNAPSHOT_VARIABLE "=" AGENT_SNAPSHOT_SLEEP : "") < 0)
		return -ENOMEM;
	add_option(command, "-kernel", config->kernel);
	add_option(command, "-initrd", config->initrd);
	add_option(command, "-append", command->append);
	if (sleeps)
		add_option(command, "-device", "isa-debug-exit,iobase=" SLEEP_PORT ",iosize=2");
	return 0;
}

static int command_build(const struct engine_config *config, const struct accelerator *accelerator,
			 const char *program, const struct engine_process *process,
			 struct command *command)
{
	/* The path is of no file system, so Landlock has no say: the descriptor is what grants it.
	 */
	if (asprintf(&command->memory_object,
		     "memory-backend-file,id=memory,size=%uM,share=on,mem-path=/proc/self/fd/%d",
		     config->memory_mib, CHILD_MEMORY) < 0 ||
	    asprintf(&command->memory, "%uM", config->memory_mib) < 0 ||
	    asprintf(&command->cpus, "%u", config->cpus) < 0)
		return -ENOMEM;
	command->program = program;
	add(command, program);
	add(command, "-nodefaults");
	add(command, "-no-user-config");
	add(command, "-no-reboot");
	add_option(command, "-display", "none");
	add_option(command, "-sandbox",
		   "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add_option(command, "-M",
		   "microvm,acpi=off,auto-kernel-cmdline=off,pit=on,pic=on,rtc=on,usb=off,"
		   "memory-backend=memory");
	add_option(command, "-accel", accelerator->option);
	add_option(command, "-cpu", accelerator->cpu);
	add_option(command, "-smp", command->cpus);
	add_option(command, "-m", command->memory);
	add_option(command, "-object", command->memory_object);
	/* The same at each start: a kernel that wakes adds what its clock missed to its uptime. The
	 * time of day is guest-init's to set. */
	add_option(command, "-rtc", "base=2000-01-01T00:00:00");
	add_option(command, "-global", "virtio-mmio.force-legacy=false");
	add_option(command, "-chardev", "socket,id=console,fd=4");
	add_option(command, "-serial", "chardev:console");
	add_option(command, "-chardev", "socket,id=vsock,fd=3");
	add_option(command, "-device", "vhost-user-vsock-device,chardev=vsock");
	add_option(command, "-device", "isa-debug-exit,iobase=" POWER_PORT ",iosize=2");
	/* No driver knows of it: the guest's file daemon writes to it by itself. */
	if (config->doorbell_fd >= 0) {
		add_option(command, "-chardev", "socket,id=doorbell,fd=7");
		add_option(command, "-device", "isa-debugcon,chardev=doorbell,iobase=0xe9");
	}
	if (!process->restored)
		return add_kernel(command, config, accelerator, process->snapshot != NULL);
	add_option(command, "-bios", "/proc/self/fd/8");
	return 0;
}

/* ---- the guest's memory ------------------------------------------------------------------------
 */

/* Cannot shrink, which vhost_user.h asks for: an access to what is gone would end this process. */
static int new_memory(off_t size)
{
	cleanup_fd int memory = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (memory < 0 || ftruncate(memory, size) < 0 ||
	    fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return steal_fd(&memory);
}

/* What another guest may have left in the caller's. The window is the file server's as well. */
static int clear_memory(const struct engine_config *config, int memory)
{
	const off_t size = (off_t)config->memory_mib << 20;
	const off_t window = config->window_size > 0 ? (off_t)config->window_address : size;
	const off_t end = window + (off_t)config->window_size;
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	if (fallocate(memory, mode, 0, window) < 0 ||
	    (end < size && fallocate(memory, mode, end, size - end) < 0))
		return -errno;
	return 0;
}

/* Returns a duplicate of the caller's descriptor, or memory of our own. */
static int open_memory(const struct engine_config *config)
{
	int memory, r;

	if (config->memory_fd < 0)
		return new_memory((off_t)config->memory_mib << 20);
	memory = fcntl(config->memory_fd, F_DUPFD_CLOEXEC, 0);
	if (memory < 0)
		return -errno;
	r = clear_memory(config, memory);
	if (r < 0)
		close(memory);
	return r < 0 ? r : memory;
}

static int write_tables(const struct engine_config *config, int memory)
{
	const struct acpi_setup setup = {
		.machine = &acpi_microvm_machine,
		.cpus = config->cpus,
		.virtio_devices = 1,
	};
	uint8_t tables[ACPI_MICROVM_MAX];
	size_t length;
	int r = acpi_tables_build(&setup, ACPI_MICROVM_ADDRESS, tables, sizeof(tables), &length);

	if (r < 0)
		return r;
	return pwrite(memory, tables, length, ACPI_MICROVM_ADDRESS) == (ssize_t)length ? 0 : -EIO;
}

/* Sets whether it is restored; if not, and if it is to be stored, whose storing that will be. */
static int prepare_snapshot(const struct engine_config *config, const char *program,
			    const char *command_line, int memory, struct engine_process *process)
{
	const char *why;
	int r;

	if (config->snapshot_fd < 0 && config->new_snapshot_fd < 0)
		return 0;
	r = qemu_snapshot_new(config, program, command_line, memory, &process->snapshot);
	if (r < 0)
		return r;
	if (config->snapshot_fd >= 0) {
		process->restored =
			qemu_snapshot_fits(process->snapshot, config->snapshot_fd, &why);
		if (!process->restored)
			log_info("starting afresh: the snapshot: %s", why);
	}
	if (!process->restored && config->new_snapshot_fd < 0) {
		qemu_snapshot_free(process->snapshot);
		process->snapshot = NULL;
	}
	return 0;
}

/* ---- the child ---------------------------------------------------------------------------------
 */

/* Opens the paths that QEMU may read; what does not exist needs no rule. */
static size_t open_path_rules(const struct engine_config *config,
			      const struct accelerator *accelerator, const char *program,
			      struct jail_path_rule *rules, size_t capacity)
{
	const struct {
		const char *path;
		uint64_t access;
	} wanted[] = {
		{ "/usr", JAIL_FS_READ | JAIL_FS_EXECUTE },
		{ "/lib", JAIL_FS_READ | JAIL_FS_EXECUTE },
		{ "/lib64", JAIL_FS_READ | JAIL_FS_EXECUTE },
		{ program, JAIL_FS_READ | JAIL_FS_EXECUTE },
		{ "/etc/ld.so.cache", JAIL_FS_READ_FILE },
		{ "/etc/ld.so.preload", JAIL_FS_READ_FILE },
		{ "/dev/urandom", JAIL_FS_READ_FILE },
		{ "/dev/null", JAIL_FS_READ_FILE | JAIL_FS_WRITE_FILE },
		{ "/sys/devices/system/cpu", JAIL_FS_READ },
		{ config->kernel, JAIL_FS_READ_FILE },
		{ config->initrd, JAIL_FS_READ_FILE },
		{ accelerator->device ? accelerator->device : "",
		  JAIL_FS_READ_FILE | JAIL_FS_WRITE_FILE | JAIL_FS_IOCTL_DEV },
	};
	size_t count = 0;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]) && count < capacity; i++) {
		int fd = open(wanted[i].path, O_PATH | O_CLOEXEC);

		if (fd >= 0)
			rules[count++] = (struct jail_path_rule){ fd, wanted[i].access };
	}
	return count;
}

/* What jail_enter() does, but for the filter of system calls, which must let QEMU load first. */
static int confine(const struct engine_config *config, const struct accelerator *accelerator,
		   const char *program, struct jail_report *report)
{
	struct jail_path_rule rules[16];
	struct jail_spec spec = {
		.component = "qemu",
		.path_rules = rules,
		.path_rule_count = open_path_rules(config, accelerator, program, rules,
						   sizeof(rules) / sizeof(rules[0])),
		.namespaces = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
	};
	const struct rlimit no_core = { 0, 0 }, descriptors = { 1024, 1024 };
	int r;

	report->component = spec.component;
	r = namespaces_enter(&spec, report);
	if (r < 0)
		return r;
	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || setrlimit(RLIMIT_NOFILE, &descriptors) < 0)
		return -errno;
	report->rlimits = 2;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	report->no_new_privs = true;
	r = landlock_enter(&spec, &report->landlock_abi, &report->landlock_errno);
	if (r < 0)
		return r;
	report->landlock_rules = report->landlock_abi > 0 ? spec.path_rule_count : 0;
	r = capabilities_drop(0, &report->capabilities_kept);
	if (r < 0)
		return r;
	report->capabilities_dropped = true;
	return 0;
}

/* What the child keeps, in any order; negative where there is none. */
struct child_descriptors {
	int fds[CHILD_FD_COUNT];
	int places[CHILD_FD_COUNT];
};

/* Moves the channels to their places; above all of them first, so that none overwrites another. */
static int place_descriptors(int diagnostics, const struct child_descriptors *wanted)
{
	int fds[CHILD_FD_COUNT];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(diagnostics, STDERR_FILENO) < 0)
		return -errno;
	for (size_t i = 0; i < CHILD_FD_COUNT; i++) {
		fds[i] = wanted->fds[i] < 0 ? -1 : fcntl(wanted->fds[i], F_DUPFD_CLOEXEC, 16);
		if (wanted->fds[i] >= 0 && fds[i] < 0)
			return -errno;
	}
	for (size_t i = 0; i < CHILD_FD_COUNT; i++) {
		if (fds[i] >= 0 && dup2(fds[i], wanted->places[i]) < 0)
			return -errno;
	}
	if (set_close_on_exec(CHILD_STATUS, true) < 0)
		return -errno;
	return descriptors_close_others(wanted->places, CHILD_FD_COUNT);
}

static _Noreturn void child_fail(const char *stage, int error)
{
	char text[JAIL_REPORT_TEXT_MAX];
	int length = snprintf(text, sizeof(text), "!%s: %s", stage, strerror(-error));

	if (length > 0)
		(void)write_full(CHILD_STATUS, text, (size_t)length);
	_exit(127);
}

static _Noreturn void run_child(const struct engine_config *config,
				const struct accelerator *accelerator,
				const struct command *command,
				const int places[static CHILD_FD_COUNT], pid_t parent)
{
	static const char *const environment[] = { "LC_ALL=C", "MALLOC_ARENA_MAX=1", NULL };
	struct jail_report report = { 0 };
	char text[JAIL_REPORT_TEXT_MAX];
	size_t length;
	int r;

	/* The terminal's signals are not for QEMU, which would end on them. */
	(void)setsid();
	r = confine(config, accelerator, command->program, &report);
	if (r < 0)
		child_fail("confining QEMU", r);
	/* The descriptors of the path rules. */
	r = descriptors_close_others(places, CHILD_FD_COUNT);
	if (r < 0)
		child_fail("closing descriptors", r);
	/* A change of credentials, as by namespaces, clears this: so it comes last. */
	r = jail_die_with_parent(parent);
	if (r < 0)
		child_fail("following the parent", r);
	length = jail_report_text(&report, text, sizeof(text));
	(void)write_full(CHILD_STATUS, text, length);
	execve(command->program, (char *const *)(uintptr_t)command->arguments,
	       (char *const *)(uintptr_t)environment);
	child_fail("starting QEMU", -errno);
}

/* ---- the parent --------------------------------------------------------------------------------
 */

struct channels {
	int vhost_user[2];
	int console[2];
	int diagnostics[2];
	int status[2];
};

static void close_pair(int pair[2])
{
	for (int i = 0; i < 2; i++) {
		if (pair[i] >= 0)
			close(pair[i]);
	}
}

static void channels_release(struct channels *channels)
{
	close_pair(channels->vhost_user);
	close_pair(channels->console);
	close_pair(channels->diagnostics);
	close_pair(channels->status);
}

static int channels_open(struct channels *channels)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channels->vhost_user) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channels->console) < 0 ||
	    pipe2(channels->diagnostics, O_CLOEXEC) < 0 || pipe2(channels->status, O_CLOEXEC) < 0)
		return -errno;
	return 0;
}

/* Reads what the child says until its exec closes the pipe. */
static int await_exec(int status, char *confinement, char *why, size_t size)
{
	char text[JAIL_REPORT_TEXT_MAX + 1];
	char *failure;
	ssize_t count = read_full(status, text, sizeof(text) - 1);

	if (count < 0)
		return (int)count;
	text[count] = '\0';
	failure = memchr(text, '!', (size_t)count);
	if (failure || count == 0) {
		(void)snprintf(why, size, "%s", failure ? failure + 1 : "the child died early");
		return -ECHILD;
	}
	(void)snprintf(confinement, ENGINE_TEXT_MAX, "%s qemu-sandbox", text);
	return 0;
}

static int spawn(const struct engine_config *config, const struct accelerator *accelerator,
		 const struct command *command, int memory, int firmware, struct channels *channels,
		 struct engine_process *process, char *why, size_t size)
{
	pid_t parent = getpid();
	pid_t pid = fork();
	int r;

	if (pid < 0) {
		(void)snprintf(why, size, "cannot fork: %s", strerror(errno));
		return -errno;
	}
	if (pid == 0) {
		const struct child_descriptors descriptors = {
			.fds = { channels->vhost_user[1], channels->console[1], channels->status[1],
				 memory, config->doorbell_fd, firmware },
			.places = { CHILD_VHOST_USER, CHILD_CONSOLE, CHILD_STATUS, CHILD_MEMORY,
				    config->doorbell_fd < 0 ? -1 : CHILD_DOORBELL,
				    firmware < 0 ? -1 : CHILD_FIRMWARE },
		};

		if (place_descriptors(channels->diagnostics[1], &descriptors) < 0)
			_exit(127);
		run_child(config, accelerator, command, descriptors.places, parent);
	}
	close(steal_fd(&channels->status[1]));
	r = await_exec(channels->status[0], process->confinement, why, size);
	if (r == 0) {
		process->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (process->pid_fd < 0) {
			r = -errno;
			(void)snprintf(why, size, "cannot watch QEMU: %s", strerror(errno));
		}
	}
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		return r;
	}
	process->pid = pid;
	return 0;
}

/* What runs is written into the memory while QEMU starts: its guest waits for our device. */
static int fill_memory(const struct engine_config *config, int memory,
		       const struct engine_process *process)
{
	return process->restored ? qemu_snapshot_read(process->snapshot, config->snapshot_fd)
				 : write_tables(config, memory);
}

static int start(const struct engine_config *config, const struct accelerator *accelerator,
		 struct engine_process *ret_process, char *why, size_t size)
{
	struct channels channels = { { -1, -1 }, { -1, -1 }, { -1, -1 }, { -1, -1 } };
	struct command command = { 0 };
	char program[PATH_MAX];
	cleanup_fd int memory = -1;
	cleanup_fd int firmware = -1;
	int r;

	r = find_qemu(program);
	if (r >= 0)
		r = format_command_line(config, accelerator, &command.kernel_command_line);
	if (r >= 0)
		r = memory = open_memory(config);
	if (r >= 0 && accelerator->is_emulator)
		r = prepare_snapshot(config, program, command.kernel_command_line, memory,
				     ret_process);
	if (r >= 0 && ret_process->restored)
		r = firmware = qemu_snapshot_firmware();
	if (r >= 0)
		r = command_build(config, accelerator, program, ret_process, &command);
	if (r >= 0)
		r = channels_open(&channels);
	if (r < 0)
		(void)snprintf(why, size, "cannot prepare QEMU: %s", strerror(-r));
	else
		r = spawn(config, accelerator, &command, memory, firmware, &channels, ret_process,
			  why, size);
	if (r == 0) {
		r = fill_memory(config, memory, ret_process);
		if (r < 0)
			(void)snprintf(why, size, "cannot fill the guest's memory: %s",
				       strerror(-r));
		if (ret_process->restored) {
			qemu_snapshot_free(ret_process->snapshot);
			ret_process->snapshot = NULL;
		}
		ret_process->vhost_user = steal_fd(&channels.vhost_user[0]);
		ret_process->console = steal_fd(&channels.console[0]);
		ret_process->diagnostics = steal_fd(&channels.diagnostics[0]);
	}
	channels_release(&channels);
	command_release(&command);
	return r;
}

static int emulator_start(const struct engine_config *config, struct engine_process *ret_process,
			  char *why, size_t size)
{
	return start(config, &emulator, ret_process, why, size);
}

static int kvm_start(const struct engine_config *config, struct engine_process *ret_process,
		     char *why, size_t size)
{
	return start(config, &kvm, ret_process, why, size);
}

const struct engine qemu_engine = {
	.name = "qemu",
	.component = "qemu",
	.probe = qemu_probe,
	.start = emulator_start,
	.power_off_status = EXIT_STATUS(ACPI_POWER_OFF_BYTE),
	.sleep_status = EXIT_STATUS(SLEEP_BYTE),
};

const struct engine qemu_kvm_engine = {
	.name = "qemu-kvm",
	.component = "qemu",
	.probe = qemu_kvm_probe,
	.start = kvm_start,
	.power_off_status = EXIT_STATUS(ACPI_POWER_OFF_BYTE),
};
