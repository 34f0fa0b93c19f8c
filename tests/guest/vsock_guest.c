/*
 * PID 1 of the vsock test: loads the drivers, plays against tests/e2e/vsock_host.c over vsock and
 * reports each result as a line on port 1. What to play is in the kernel's command line:
 * vsock_test=all|bench|panic|hang..., and vsock_echo=MIB, how much is echoed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/vsock_test.h"

static int report_fd = -1;

static void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void report(const char *format, ...)
{
	char line[256];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length > 0 && write(report_fd, line, (size_t)length) != length)
		_exit(1);
}

static void result(bool good, const char *text)
{
	report("%s %s\n", good ? "ok" : "not ok", text);
}

static uint64_t now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int dial(unsigned port)
{
	const struct timeval limit = { .tv_sec = 60 }; /* as the product's own programs have it */
	struct sockaddr_vm address = { .svm_family = AF_VSOCK,
				       .svm_port = port,
				       .svm_cid = VMADDR_CID_HOST };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit)) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

static bool send_all(int fd, const void *data, size_t length)
{
	while (length > 0) {
		ssize_t count = send(fd, data, length, MSG_NOSIGNAL);

		if (count <= 0)
			return false;
		data = (const char *)data + count;
		length -= (size_t)count;
	}
	return true;
}

static bool receive_all(int fd, void *data, size_t length)
{
	while (length > 0) {
		ssize_t count = recv(fd, data, length, 0);

		if (count <= 0)
			return false;
		data = (char *)data + count;
		length -= (size_t)count;
	}
	return true;
}

/* The value of NAME=VALUE in the kernel's command line; "" without it. Valid until the next call.
 */
static const char *variable(const char *name)
{
	static char line[4096];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t count = read(fd, line, sizeof(line) - 1);
	size_t length = strlen(name);
	char *rest = line, *word;

	close(fd);
	if (count < 0)
		return "";
	line[count] = '\0';
	while ((word = strsep(&rest, " \n"))) {
		if (strncmp(word, name, length) == 0 && word[length] == '=')
			return word + length + 1;
	}
	return "";
}

static uint64_t echo_length(void)
{
	uint64_t mib = strtoull(variable(ECHO_VARIABLE), NULL, 10);

	return mib ? mib << 20 : BULK_LENGTH;
}

/* ---- the plays ---------------------------------------------------------------------------------
 */

static bool echo_once(int fd, size_t length)
{
	static uint8_t out[65536], in[65536];

	for (size_t i = 0; i < length; i++)
		out[i] = (uint8_t)(i * 7 + length);
	memset(in, 0, length);
	return send_all(fd, out, length) && receive_all(fd, in, length) &&
	       memcmp(in, out, length) == 0;
}

static void play_round_trips(void)
{
	enum { ROUNDS = 2000 };
	int fd = dial(PORT_ECHO);
	bool good = fd >= 0;
	uint64_t start = now_us();

	for (int i = 0; good && i < ROUNDS; i++)
		good = echo_once(fd, 64);
	report("# round trip of 64 bytes: %llu ns\n",
	       (unsigned long long)((now_us() - start) * 1000 / ROUNDS));
	start = now_us();
	for (int i = 0; good && i < ROUNDS / 4; i++)
		good = echo_once(fd, 16384);
	report("# round trip of 16 KiB: %llu ns\n",
	       (unsigned long long)((now_us() - start) * 1000 / (ROUNDS / 4)));
	result(good, "2,500 round trips of 64 bytes and of 16 KiB");
	close(fd);
}

static void play_echo_bulk(void)
{
	static uint64_t block[BULK_BLOCK / 8], back[BULK_BLOCK / 8];
	uint64_t start = now_us(), length = echo_length();
	int fd = dial(PORT_ECHO), status = 0;
	bool good = true;
	char text[128];
	pid_t child;

	child = fork();
	if (child == 0) {
		for (uint64_t at = 0; at < length; at += BULK_BLOCK) {
			pattern_fill(block, at);
			if (!send_all(fd, block, BULK_BLOCK))
				_exit(1);
		}
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	for (uint64_t at = 0; good && at < length; at += BULK_BLOCK) {
		pattern_fill(block, at);
		good = receive_all(fd, back, BULK_BLOCK) && memcmp(back, block, BULK_BLOCK) == 0;
	}
	good = good && recv(fd, back, 1, 0) == 0;
	good = waitpid(child, &status, 0) == child && status == 0 && good;
	report("# echo of %llu MiB: %llu ms\n", (unsigned long long)length >> 20,
	       (unsigned long long)(now_us() - start) / 1000);
	(void)snprintf(text, sizeof(text),
		       "%llu MiB echoed both ways at once, unchanged, with both half-closes",
		       (unsigned long long)length >> 20);
	result(good, text);
	close(fd);
}

static void play_upload(void)
{
	static uint64_t block[BULK_BLOCK / 8];
	struct bulk_answer answer = { 0 };
	int fd = dial(PORT_SINK);
	uint64_t sum = 0, start;
	bool good = fd >= 0;

	pattern_fill(block, 0);
	start = now_us();
	for (uint64_t at = 0; good && at < BULK_LENGTH; at += BULK_BLOCK)
		good = send_all(fd, block, BULK_BLOCK);
	shutdown(fd, SHUT_WR);
	good = good && receive_all(fd, &answer, sizeof(answer));
	report("# upload of 64 MiB: %llu ms\n", (unsigned long long)(now_us() - start) / 1000);
	for (uint64_t at = 0; at < BULK_LENGTH; at += BULK_BLOCK)
		sum += pattern_sum(block);
	result(good && answer.length == BULK_LENGTH && answer.sum == sum,
	       "64 MiB to the host; its answer after our half-close");
	close(fd);
}

static void play_download(void)
{
	static uint64_t block[BULK_BLOCK / 8], back[BULK_BLOCK / 8];
	int fd = dial(PORT_SOURCE);
	uint64_t start = now_us();
	bool good = fd >= 0;

	pattern_fill(block, 0);
	for (uint64_t at = 0; good && at < BULK_LENGTH; at += BULK_BLOCK)
		good = receive_all(fd, back, BULK_BLOCK);
	report("# download of 64 MiB: %llu ms\n", (unsigned long long)(now_us() - start) / 1000);
	good = good && memcmp(back, block, BULK_BLOCK) == 0 && recv(fd, back, 1, 0) == 0;
	/* The other half is still open. */
	good = good && send_all(fd, "bye", 3);
	shutdown(fd, SHUT_WR);
	result(good, "64 MiB from the host; our bytes after its half-close");
	close(fd);
}

static void play_many(void)
{
	static int fds[STREAMS];
	bool good = true;
	int echo;

	for (int i = 0; i < STREAMS; i++) {
		fds[i] = dial(PORT_ECHO);
		if (fds[i] < 0)
			report("# stream %d: %s\n", i, strerror(-fds[i]));
		good = good && fds[i] >= 0;
	}
	for (int i = 0; good && i < STREAMS; i++) {
		uint8_t data[512];

		memset(data, i, sizeof(data));
		good = send_all(fds[i], data, sizeof(data));
	}
	for (int i = 0; good && i < STREAMS; i++) {
		uint8_t data[512], expected[512];

		memset(expected, i, sizeof(expected));
		good = receive_all(fds[i], data, sizeof(data)) &&
		       memcmp(data, expected, sizeof(data)) == 0;
	}
	for (int i = 0; i < STREAMS; i++)
		close(fds[i]);
	echo = dial(PORT_ECHO);
	good = good && echo >= 0 && echo_once(echo, 1000);
	close(echo);
	result(good, "1,000 streams at once, each with its own bytes");
}

static void play_refused(void)
{
	int fd = dial(PORT_NOBODY);

	result(fd == -ECONNRESET, "a port where nobody listens refuses");
	fd = dial(PORT_CLOSER);
	if (fd >= 0) {
		char byte;

		result(recv(fd, &byte, 1, 0) <= 0, "a host that hangs up at once is an end");
		close(fd);
	}
}

static void play_host_never_reads(void)
{
	static char block[65536];
	int deaf = dial(PORT_DEAF), echo = dial(PORT_ECHO);
	size_t taken = 0;
	bool good = deaf >= 0 && echo >= 0;

	(void)fcntl(deaf, F_SETFL, O_NONBLOCK);
	for (;;) {
		struct pollfd wait = { .fd = deaf, .events = POLLOUT };
		ssize_t count;

		if (poll(&wait, 1, 500) <= 0)
			break;
		count = send(deaf, block, sizeof(block), MSG_NOSIGNAL);
		if (count < 0 && errno != EAGAIN)
			break;
		taken += count > 0 ? (size_t)count : 0;
		if (taken > 16 << 20)
			break;
	}
	good = good && taken > 0 && taken < 4 << 20 && echo_once(echo, 5000);
	report("# a host program that never reads: %zu bytes accepted\n", taken);
	result(good, "a host program that never reads stops its own stream alone");
	close(deaf);
	close(echo);
}

static void play_guest_never_reads(void)
{
	int deaf = dial(PORT_SOURCE), echo = dial(PORT_ECHO);
	bool good = deaf >= 0 && echo >= 0;

	for (int i = 0; good && i < 200; i++)
		good = echo_once(echo, 5000);
	result(good, "a guest program that never reads stops its own stream alone");
	close(deaf);
	close(echo);
}

static void play_listen(void)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK,
				       .svm_port = PORT_GUEST,
				       .svm_cid = VMADDR_CID_ANY };
	int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	static char data[4096];
	ssize_t count;

	if (bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 8) < 0) {
		result(false, "listening in the guest");
		return;
	}
	report("listening\n");
	fd = accept(listener, NULL, NULL);
	while ((count = recv(fd, data, sizeof(data), 0)) > 0) {
		if (!send_all(fd, data, (size_t)count))
			break;
	}
	result(count == 0, "a stream from the host into the guest, to its end");
	close(fd);
	close(listener);
}

/* ---- PID 1 -------------------------------------------------------------------------------------
 */

static int is_module(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return length > 3 && strcmp(entry->d_name + length - 3, ".ko") == 0;
}

/* Loads /modules/NN-name.ko in the order of their numbers, up to the driver that is tested. */
static void load_modules(void)
{
	struct dirent **entries;
	int count = scandir("/modules", &entries, is_module, alphasort);

	for (int i = 0; i < count; i++) {
		char path[300];
		int fd;

		(void)snprintf(path, sizeof(path), "/modules/%s", entries[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		(void)syscall(SYS_finit_module, fd, "", 0);
		close(fd);
		if (strstr(entries[i]->d_name, "vmw_vsock_virtio_transport.ko"))
			return;
	}
}

static bool asked_for(const char *what)
{
	return strncmp(variable("vsock_test"), what, strlen(what)) == 0;
}

int main(void)
{
	const struct rlimit files = { 4096, 4096 };

	(void)mkdir("/proc", 0755);
	(void)mount("proc", "/proc", "proc", 0, NULL);
	(void)setrlimit(RLIMIT_NOFILE, &files);
	load_modules();
	report_fd = dial(PORT_REPORT);
	if (report_fd < 0 || asked_for("panic"))
		return 1;
	if (asked_for("hang")) {
		report("hanging\n");
		for (;;)
			(void)pause();
	}
	play_round_trips();
	play_upload();
	play_download();
	if (!asked_for("bench")) {
		play_echo_bulk();
		play_refused();
		play_many();
		play_host_never_reads();
		play_guest_never_reads();
		play_listen();
	}
	report("done\n");
	(void)shutdown(report_fd, SHUT_WR);
	(void)recv(report_fd, &(char){ 0 }, 1, 0);
	(void)reboot(RB_POWER_OFF);
	return 0;
}
