#include "vmm/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_code {
	OPTION_ENGINE = 256,
	OPTION_KERNEL,
	OPTION_INITRD,
	OPTION_APPEND,
	OPTION_CPUS,
	OPTION_MEMORY,
	OPTION_MEMORY_FD,
	OPTION_HUGE_PAGES,
	OPTION_WINDOW,
	OPTION_DOORBELL_FD,
	OPTION_SNAPSHOT,
	OPTION_NEW_SNAPSHOT,
	OPTION_DISK,
	OPTION_CID,
	OPTION_SOCKET_BASE,
	OPTION_AUDIT_FD,
	OPTION_CONTROL_FD,
	OPTION_CONSOLE_FD,
	OPTION_PROBE_KVM,
	OPTION_DEBUG,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{ "engine", required_argument, NULL, OPTION_ENGINE },
	{ "kernel", required_argument, NULL, OPTION_KERNEL },
	{ "initrd", required_argument, NULL, OPTION_INITRD },
	{ "append", required_argument, NULL, OPTION_APPEND },
	{ "cpus", required_argument, NULL, OPTION_CPUS },
	{ "memory", required_argument, NULL, OPTION_MEMORY },
	{ "huge-pages", no_argument, NULL, OPTION_HUGE_PAGES },
	{ "memory-fd", required_argument, NULL, OPTION_MEMORY_FD },
	{ "window", required_argument, NULL, OPTION_WINDOW },
	{ "doorbell-fd", required_argument, NULL, OPTION_DOORBELL_FD },
	{ "snapshot", required_argument, NULL, OPTION_SNAPSHOT },
	{ "new-snapshot", required_argument, NULL, OPTION_NEW_SNAPSHOT },
	{ "disk", required_argument, NULL, OPTION_DISK },
	{ "cid", required_argument, NULL, OPTION_CID },
	{ "socket-base", required_argument, NULL, OPTION_SOCKET_BASE },
	{ "audit-fd", required_argument, NULL, OPTION_AUDIT_FD },
	{ "control-fd", required_argument, NULL, OPTION_CONTROL_FD },
	{ "console-fd", required_argument, NULL, OPTION_CONSOLE_FD },
	{ "probe-kvm", no_argument, NULL, OPTION_PROBE_KVM },
	{ "quiet", no_argument, NULL, 'q' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "debug", no_argument, NULL, OPTION_DEBUG },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ 0 },
};

static const char usage[] =
	"Usage: matchlock-vmm --kernel FILE --initrd FILE --cid N --socket-base PATH [OPTION]...\n"
	"Runs one guest; `matchlock run` starts it. Vsock ports are Unix sockets PATH_<port>.\n"
	"\n"
	"  --engine auto|qemu|kvm  what runs the guest (default auto); qemu-kvm for comparisons\n"
	"  --kernel FILE           uncompressed kernel (vmlinux)\n"
	"  --initrd FILE           initramfs\n"
	"  --append TEXT           added to the kernel's command line\n"
	"  --cpus N                virtual CPUs (default 1)\n"
	"  --memory MIB            guest memory (default 512)\n"
	"  --huge-pages            with KVM: memory in reserved huge pages of 2 MiB, but for a\n"
	"                          window of --memory-fd\n"
	"  --memory-fd N           the memory file (default: memory of the engine's own); with\n"
	"                          KVM, for the window alone\n"
	"  --window ADDRESS:SIZE   part of it below 3 GiB that the guest's kernel leaves alone\n"
	"  --doorbell-fd N         stream socket that takes what the guest writes to port 0xe9\n"
	"  --snapshot FD           a file to go on from, if it was written by this program for "
	"the\n"
	"                          same machine since the host was started; if not, boot\n"
	"  --new-snapshot FD       empty file for such a snapshot of a guest that boots, taken "
	"when\n"
	"                          the guest writes to port 0xea (KVM) or suspends to RAM (QEMU)\n"
	"  --disk FD[:ro][:serial=TEXT]\n"
	"                          with KVM: a disk, which is the raw file FD; up to 8 times. The\n"
	"                          serial has at most 20 letters, digits and ._-\n"
	"  --cid N                 the guest's vsock address, 3 or more\n"
	"  --socket-base PATH      see docs/protocol-vsock.md\n"
	"  --audit-fd N            SOCK_SEQPACKET towards the audit process\n"
	"  --control-fd N          SOCK_SEQPACKET towards the caller; its end stops the guest\n"
	"  --console-fd N          file that takes the guest's console\n"
	"  --probe-kvm             say whether KVM can run Linux here, and run nothing\n"
	"  -q, -v, --debug         say less, more, most\n"
	"  -h, --help, --version\n";

static bool parse_number(const char *text, uint64_t minimum, uint64_t maximum, uint64_t *ret_value)
{
	unsigned long long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || value < minimum || value > maximum)
		return false;
	*ret_value = value;
	return true;
}

/* ADDRESS:SIZE, in bytes. */
static bool take_window(const char *text, struct engine_config *machine)
{
	unsigned long long address;
	unsigned long long size;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	address = strtoull(text, &end, 0);
	if (*end != ':' || end[1] < '0' || end[1] > '9')
		return false;
	size = strtoull(end + 1, &end, 0);
	if (errno != 0 || *end != '\0' || size == 0 || size % ENGINE_PAGE_SIZE != 0 ||
	    address % ENGINE_PAGE_SIZE != 0 || address >= ENGINE_WINDOW_END_MAX ||
	    size > ENGINE_WINDOW_END_MAX - address)
		return false;
	machine->window_address = address;
	machine->window_size = size;
	return true;
}

static bool is_serial(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	size_t length = strlen(text);

	return length > 0 && length <= VMM_DISK_SERIAL_MAX && strspn(text, allowed) == length;
}

/* FD[:ro][:serial=TEXT]. The text stays the caller's. */
static bool take_disk(const char *text, struct vmm_options *options)
{
	struct vmm_disk disk = { .serial = "" };
	unsigned long fd;
	char *end;

	if (options->disk_count == VMM_DISKS_MAX || *text < '0' || *text > '9')
		return false;
	errno = 0;
	fd = strtoul(text, &end, 10);
	if (errno != 0 || fd < 3 || fd > INT_MAX)
		return false;
	disk.fd = (int)fd;
	if (strncmp(end, ":ro", 3) == 0 && (end[3] == ':' || end[3] == '\0')) {
		disk.read_only = true;
		end += 3;
	}
	if (strncmp(end, ":serial=", 8) == 0) {
		disk.serial = end + 8;
		if (!is_serial(disk.serial))
			return false;
	} else if (*end != '\0') {
		return false;
	}
	options->disks[options->disk_count++] = disk;
	return true;
}

/* Each disk's descriptor is closed once the disk is open, so it can be nothing else. */
static bool disks_stand_alone(const struct vmm_options *options)
{
	const int others[] = { options->audit_fd,
			       options->control_fd,
			       options->console_fd,
			       options->machine.memory_fd,
			       options->machine.doorbell_fd,
			       options->machine.snapshot_fd,
			       options->machine.new_snapshot_fd };

	for (unsigned i = 0; i < options->disk_count; i++) {
		for (size_t j = 0; j < sizeof(others) / sizeof(others[0]); j++) {
			if (options->disks[i].fd == others[j])
				return false;
		}
		for (unsigned j = 0; j < i; j++) {
			if (options->disks[i].fd == options->disks[j].fd)
				return false;
		}
	}
	return true;
}

/* Stores a numeric option. False when it is out of range. */
static bool take_number(int code, const char *text, struct vmm_options *options)
{
	uint64_t value;

	switch (code) {
	case OPTION_WINDOW:
		return take_window(text, &options->machine);
	case OPTION_DISK:
		return take_disk(text, options);
	case OPTION_CPUS:
		if (!parse_number(text, 1, ENGINE_CPUS_MAX, &value))
			return false;
		options->machine.cpus = (unsigned)value;
		return true;
	case OPTION_MEMORY:
		if (!parse_number(text, ENGINE_MEMORY_MIN_MIB, ENGINE_MEMORY_MAX_MIB, &value))
			return false;
		options->machine.memory_mib = (unsigned)value;
		return true;
	case OPTION_CID:
		/* 0 to 2 and the all-ones addresses are reserved (virtio 1.2, 5.10.4). */
		return parse_number(text, 3, UINT32_MAX - 1, &options->cid);
	default:
		if (!parse_number(text, 3, INT_MAX, &value))
			return false;
		if (code == OPTION_AUDIT_FD)
			options->audit_fd = (int)value;
		else if (code == OPTION_MEMORY_FD)
			options->machine.memory_fd = (int)value;
		else if (code == OPTION_DOORBELL_FD)
			options->machine.doorbell_fd = (int)value;
		else if (code == OPTION_SNAPSHOT)
			options->machine.snapshot_fd = (int)value;
		else if (code == OPTION_NEW_SNAPSHOT)
			options->machine.new_snapshot_fd = (int)value;
		else if (code == OPTION_CONTROL_FD)
			options->control_fd = (int)value;
		else
			options->console_fd = (int)value;
		return true;
	}
}

static const char *missing_option(const struct vmm_options *options)
{
	if (!options->machine.kernel)
		return "--kernel";
	if (!options->machine.initrd)
		return "--initrd";
	if (!options->socket_base)
		return "--socket-base";
	if (options->machine.window_size > 0 &&
	    options->machine.window_address + options->machine.window_size >
		    (uint64_t)options->machine.memory_mib * 1024 * 1024)
		return "--memory for the whole --window";
	if (options->machine.huge_pages &&
	    (options->machine.snapshot_fd >= 0 || options->machine.new_snapshot_fd >= 0))
		return "memory that can be stored, which --huge-pages is not,";
	if (!disks_stand_alone(options))
		return "a descriptor of its own for each --disk";
	return options->cid == 0 ? "--cid" : NULL;
}

/* Returns false when the code is none of the texts. */
static bool take_text(int code, const char *text, struct vmm_options *options)
{
	switch (code) {
	case OPTION_ENGINE:
		options->engine = text;
		return true;
	case OPTION_KERNEL:
		options->machine.kernel = text;
		return true;
	case OPTION_INITRD:
		options->machine.initrd = text;
		return true;
	case OPTION_APPEND:
		options->machine.append = text;
		return true;
	case OPTION_SOCKET_BASE:
		options->socket_base = text;
		return true;
	default:
		return false;
	}
}

/* Returns true for an option that takes no value; 'h' and --version are answered here. */
static bool take_flag(int code, struct vmm_options *options, bool *ret_answered)
{
	switch (code) {
	case 'q':
		options->level = LOG_LEVEL_ERROR;
		return true;
	case 'v':
		options->level = LOG_LEVEL_INFO;
		return true;
	case OPTION_DEBUG:
		options->level = LOG_LEVEL_DEBUG;
		return true;
	case OPTION_PROBE_KVM:
		options->probe_kvm = true;
		return true;
	case OPTION_HUGE_PAGES:
		options->machine.huge_pages = true;
		return true;
	case 'h':
		(void)fputs(usage, stdout);
		*ret_answered = true;
		return true;
	case OPTION_VERSION:
		(void)puts("matchlock-vmm " MATCHLOCK_VERSION);
		*ret_answered = true;
		return true;
	default:
		return false;
	}
}

int vmm_options_parse(int argc, char **argv, struct vmm_options *ret_options, char *why,
		      size_t size)
{
	struct vmm_options options = {
		.machine = { .cpus = 1,
			     .memory_mib = 512,
			     .memory_fd = -1,
			     .doorbell_fd = -1,
			     .snapshot_fd = -1,
			     .new_snapshot_fd = -1 },
		.engine = "auto",
		.audit_fd = -1,
		.control_fd = -1,
		.console_fd = -1,
		.level = LOG_LEVEL_WARNING,
	};
	bool answered = false;
	int code, index = -1;
	const char *missing;

	opterr = 0;
	while ((code = getopt_long(argc, argv, "qvh", long_options, &index)) != -1) {
		if (code == '?') {
			(void)snprintf(why, size, "unknown or incomplete option %s; see --help",
				       argv[optind - 1]);
			return -EINVAL;
		}
		if (take_flag(code, &options, &answered)) {
			if (answered)
				return 1;
		} else if (!take_text(code, optarg, &options) &&
			   !take_number(code, optarg, &options)) {
			(void)snprintf(why, size, "--%s: %s is not what it takes; see --help",
				       long_options[index].name, optarg);
			return -EINVAL;
		}
	}
	missing = options.probe_kvm ? NULL : missing_option(&options);
	if (optind < argc || missing) {
		(void)snprintf(why, size, "%s %s; see --help", missing ? missing : argv[optind],
			       missing ? "is missing" : "is no option");
		return -EINVAL;
	}
	*ret_options = options;
	return 0;
}
