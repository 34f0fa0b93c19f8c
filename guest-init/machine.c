#include "guest-init/machine.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

/* What services get from systemd on the host: programs that use select() see small numbers,
 * others may raise their limit. */
#define OPEN_FILES_SOFT 1024
#define OPEN_FILES_HARD 524288

/* Where nobody listens the host refuses at once; a host that is busy is waited for. The kernel's
 * own limit is two seconds. */
#define CONNECT_SECONDS 60

int machine_dial(unsigned port)
{
	const struct timeval limit = { .tv_sec = CONNECT_SECONDS };
	struct sockaddr_vm address = { .svm_family = AF_VSOCK,
				       .svm_cid = VMADDR_CID_HOST,
				       .svm_port = port };
	cleanup_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 ||
	    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit)) < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS)
		return -errno;
	return steal_fd(&fd);
}

int machine_dial_wait(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
	int error = 0;
	socklen_t length = sizeof(error);

	while (poll(&poll_fd, 1, -1) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		return -errno;
	return -error;
}

uint64_t machine_uptime_ns(void)
{
	return clock_now_ns();
}

static int add_entropy(const struct agent_config *config)
{
	/* struct rand_pool_info of linux/random.h: two ints, then the bytes. */
	struct {
		int entropy_bits;
		int size;
		uint8_t bytes[AGENT_ENTROPY_SIZE];
	} pool = { .entropy_bits = AGENT_ENTROPY_SIZE * 8, .size = AGENT_ENTROPY_SIZE };
	cleanup_fd int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	int result = 0;

	if (fd < 0)
		return -errno;
	memcpy(pool.bytes, config->entropy, sizeof(pool.bytes));
	/* At once, not when the kernel next does so by itself: a guest that was stored has the same
	 * state as others that go on from there. */
	if (ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		result = -errno;
	explicit_bzero(&pool, sizeof(pool));
	return result;
}

/* Any socket will do for this, and one of the Unix domain takes the shortest way to it. */
int machine_bring_up_loopback(struct failure *failure)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	cleanup_fd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return failure_set(failure, "network", errno, "cannot bring up loopback");
	return 0;
}

int machine_configure(const struct agent_config *config, struct failure *failure)
{
	struct timespec clock = { .tv_sec = config->clock_seconds,
				  .tv_nsec = config->clock_nanoseconds };
	struct rlimit files = { .rlim_cur = OPEN_FILES_SOFT, .rlim_max = OPEN_FILES_HARD };
	int result;

	if (clock_settime(CLOCK_REALTIME, &clock) < 0)
		return failure_set(failure, "clock", errno, "cannot set the clock");
	result = add_entropy(config);
	if (result < 0)
		return failure_set(failure, "entropy", -result, "cannot seed /dev/urandom");
	if (sethostname(config->hostname, strlen(config->hostname)) < 0)
		return failure_set(failure, "hostname", errno, "cannot set the host name");
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		return failure_set(failure, "limits", errno, "cannot set the limit of open files");
	return 0;
}

/* Their numbers have no gap; the first cannot be stopped, and has no such file. */
int machine_start_processors(struct failure *failure)
{
	for (unsigned number = 1;; number++) {
		char path[64], state = '1';
		cleanup_fd int fd = -1;

		(void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", number);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			return 0;
		if (fd < 0 || pread(fd, &state, 1, 0) != 1 ||
		    (state == '0' && pwrite(fd, "1", 1, 0) != 1))
			return failure_set(failure, "processors", errno,
					   "cannot start processor %u", number);
	}
}

/* A port of the kernel's command line; 0: none, or not for us to write to. */
static unsigned short allowed_port(const char *text, char **ret_end)
{
	unsigned long port = text ? strtoul(text, ret_end, 0) : 0;

	return port > 0 && port <= 0xffff && ioperm(port, 1, 1) == 0 ? (unsigned short)port : 0;
}

bool machine_may_be_stored(void)
{
	return getenv(AGENT_SNAPSHOT_VARIABLE) != NULL;
}

#define VSOCK_DRIVER "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"

static int write_text(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* The name of the vsock device, such as virtio0, as its driver has it. */
static int find_vsock_device(char *name, size_t size)
{
	DIR *directory = opendir(VSOCK_DRIVER);
	struct dirent *entry;
	int result = directory ? -ENODEV : -errno;

	while (directory && result < 0 && (entry = readdir(directory)) != NULL) {
		if (strncmp(entry->d_name, "virtio", 6) == 0)
			result = snprintf(name, size, "%s", entry->d_name) < (int)size ? 0 : -E2BIG;
	}
	if (directory)
		closedir(directory);
	return result;
}

/* The device is without its driver for as long: that of Linux 6.1, bound over a sleep, fills in no
 * receive buffers any more once it has used those that it had at first. */
static int suspend(void)
{
	char device[64];
	int result = find_vsock_device(device, sizeof(device));
	int bound;

	if (result == 0)
		result = write_text(VSOCK_DRIVER "/unbind", device);
	if (result < 0)
		return result;
	result = write_text("/sys/power/state", "mem");
	bound = write_text(VSOCK_DRIVER "/bind", device);
	return result < 0 ? result : bound;
}

/* Comes back when the machine was woken, or cannot sleep. */
static void sleep_now(void)
{
	int result;

	if ((mkdir("/sys", 0755) < 0 && errno != EEXIST) ||
	    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "") < 0)
		return;
	result = suspend();
	if (result < 0)
		fprintf(stderr, "guest-init: cannot sleep: %s\n", strerror(-result));
	umount2("/sys", MNT_DETACH);
}

static void store_by_port(const char *text)
{
	char *end = NULL;
	unsigned short port = allowed_port(text, &end);

	if (port == 0 || *end != '\0')
		return;
	outb(1, port);
	(void)ioperm(port, 1, 0);
}

void machine_store(void)
{
	const char *how = getenv(AGENT_SNAPSHOT_VARIABLE);

	if (!how)
		return;
	if (strcmp(how, AGENT_SNAPSHOT_SLEEP) == 0)
		sleep_now();
	else
		store_by_port(how);
	unsetenv(AGENT_SNAPSHOT_VARIABLE);
}

/* What the kernel does before it turns a machine off is for devices that outlive that, and under
 * emulation it is code like any other that is met for the first time. */
static void power_off_by_port(void)
{
	char *end = NULL;
	unsigned short port = allowed_port(getenv(AGENT_POWER_VARIABLE), &end);
	unsigned long byte = port > 0 && *end == ':' ? strtoul(end + 1, NULL, 0) : 0;

	if (byte > 0 && byte <= 0xff)
		outb((unsigned char)byte, port);
}

void machine_power_off(bool at_once)
{
	if (at_once)
		power_off_by_port();
	reboot(RB_POWER_OFF);
	/* Without a working power switch the kernel halts here; a reset ends a VM as well. */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
