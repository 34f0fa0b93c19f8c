/*
 * An engine that breaks the protocol of its vsock device, against the real matchlock-vmm:
 *
 *     vmm_violation VMM
 *
 * starts the VMM with this same program in the place of QEMU, once for each attack, and checks how
 * it ends. Prints TAP. It is the engine when its name is QEMU's; which attack to play is in the
 * guest's kernel command line, which QEMU is given in any case.
 */
#include "base/checked.h"
#include "tests/unit/vhost_user_client.h"
#include "wire/audit.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define ENGINE_NAME "qemu-system-x86_64"
#define ENGINE_VHOST_USER_FD 3

static unsigned tests;
static unsigned failures;

static void result(bool good, const char *attack, const char *text)
{
	tests++;
	failures += !good;
	printf("%s %u - %s: %s\n", good ? "ok" : "not ok", tests, attack, text);
	(void)fflush(stdout);
}

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	perror(what);
	exit(99);
}

/* ---- the engine -------------------------------------------------------------------------------
 */

static void send_ring(const struct driver *driver, uint32_t index, uint64_t descriptors, int kick)
{
	uint64_t base = DRIVER_USER_BASE + driver->queues[index].base;
	uint8_t bytes[40];
	int call = eventfd(0, EFD_CLOEXEC);

	client_send_state(ENGINE_VHOST_USER_FD, CLIENT_SET_VRING_NUM, index, DRIVER_QUEUE_SIZE);
	client_send_state(ENGINE_VHOST_USER_FD, CLIENT_SET_VRING_BASE, index, 0);
	(void)client_addresses(bytes, index, descriptors ? descriptors : base, base + 0x2000,
			       base + 0x1000);
	client_send(ENGINE_VHOST_USER_FD, CLIENT_SET_VRING_ADDR, bytes, sizeof(bytes), NULL, 0);
	client_send_u64(ENGINE_VHOST_USER_FD, CLIENT_SET_VRING_CALL, index, &call, 1);
	client_send_u64(ENGINE_VHOST_USER_FD, CLIENT_SET_VRING_KICK, index, &kick, 1);
	client_send_state(ENGINE_VHOST_USER_FD, CLIENT_SET_VRING_ENABLE, index, 1);
}

static void send_memory(int fd)
{
	uint8_t bytes[40];
	size_t length =
		client_region(bytes, 1, DRIVER_GUEST_BASE, DRIVER_MEMORY, DRIVER_USER_BASE, 0);

	client_send_u64(ENGINE_VHOST_USER_FD, CLIENT_SET_FEATURES, CLIENT_FEATURES, NULL, 0);
	client_send(ENGINE_VHOST_USER_FD, CLIENT_SET_MEM_TABLE, bytes, length, &fd, 1);
}

static void attack_header(void)
{
	uint8_t bytes[12];
	struct byte_writer writer;

	byte_writer_init(&writer, bytes, sizeof(bytes));
	byte_writer_u32(&writer, CLIENT_GET_FEATURES);
	byte_writer_u32(&writer, 1);
	byte_writer_u32(&writer, UINT32_MAX);
	(void)write_full(ENGINE_VHOST_USER_FD, bytes, sizeof(bytes));
}

static void attack_request(void)
{
	client_send(ENGINE_VHOST_USER_FD, 99, NULL, 0, NULL, 0);
}

/* Memory that could be cut off under the device. */
static void attack_memory(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && ftruncate(fd, DRIVER_MEMORY) == 0)
		send_memory(fd);
}

static void attack_address(void)
{
	struct driver driver;

	driver_init(&driver);
	send_memory(driver.fd);
	send_ring(&driver, 0, DRIVER_USER_BASE + DRIVER_MEMORY, eventfd(0, EFD_CLOEXEC));
}

/* Everything is in order but what the guest's driver writes into its ring. */
static void attack_ring(void)
{
	const uint64_t one = 1;
	struct driver driver;
	int kicks[2] = { eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			 eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };

	driver_init(&driver);
	send_memory(driver.fd);
	for (uint32_t i = 0; i < 2; i++)
		send_ring(&driver, i, 0, kicks[i]);
	driver.queues[1].available[1] = DRIVER_QUEUE_SIZE + 1;
	(void)write_full(kicks[1], &one, sizeof(one));
}

static const struct {
	const char *name;
	void (*play)(void);
} attacks[] = {
	{ "message that is too long", attack_header },
	{ "unknown request", attack_request },
	{ "memory that can shrink", attack_memory },
	{ "ring outside of memory", attack_address },
	{ "more descriptors than the ring has", attack_ring },
};

static _Noreturn void play_engine(int argc, char **argv)
{
	const char *mark = NULL;

	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "-append") == 0)
			mark = strstr(argv[i + 1], "attack=");
	}
	attacks[mark ? (size_t)(mark[7] - '0') % ARRAY_LENGTH(attacks) : 0].play();
	/* Stays, so that no end of ours can be taken for the reason. */
	for (;;)
		(void)pause();
}

/* ---- the caller of the VMM --------------------------------------------------------------------
 */

static pid_t start_vmm(const char *program, const char *folder, size_t attack, int control,
		       int audit)
{
	char base[128], append[16];
	pid_t pid;

	(void)snprintf(base, sizeof(base), "%s/v", folder);
	(void)snprintf(append, sizeof(append), "attack=%zu", attack);
	pid = fork();
	if (pid != 0)
		return pid;
	if (dup2(control, 50) < 0 || dup2(audit, 51) < 0)
		_exit(126);
	/* Neither image is ever read. */
	execl(program, program, "--engine", "qemu", "--kernel", "/dev/null", "--initrd",
	      "/dev/null", "--append", append, "--memory", "64", "--cid", "3", "--socket-base",
	      base, "--control-fd", "50", "--audit-fd", "51", "-q", (char *)NULL);
	_exit(126);
}

static bool has_violation(int audit)
{
	static uint8_t data[AUDIT_EVENT_MAX];
	static struct audit_event_view view;
	bool found = false;
	ssize_t count;

	while ((count = recv(audit, data, sizeof(data), MSG_DONTWAIT)) > 0)
		found |= audit_event_decode(data, (size_t)count, &view) == 0 &&
			 view.kind == AUDIT_VIOLATION;
	return found;
}

static void run_attack(const char *program, const char *folder, size_t attack)
{
	const char *name = attacks[attack].name;
	char text[1024] = "";
	char socket_path[128];
	int control[2], audit[2];
	int status = -1;
	pid_t vmm;

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0 &&
		     socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, audit) == 0,
	     "socketpair");
	vmm = start_vmm(program, folder, attack, control[1], audit[1]);
	close(control[1]);
	/* A ring may have started before it is found to be broken. */
	do {
		memset(text, 0, sizeof(text));
	} while (recv(control[0], text, sizeof(text) - 1, 0) > 0 && strncmp(text, "end ", 4) != 0);
	printf("# %s\n", text);
	result(strncmp(text, "end violation: ", 15) == 0, name, "the VMM ends and says why");
	result(waitpid(vmm, &status, 0) == vmm && WIFEXITED(status) && WEXITSTATUS(status) == 125,
	       name, "with status 125");
	result(has_violation(audit[0]), name, "the violation is in the audit log");
	/* Being the subreaper we would get the engine that is left. */
	result(waitpid(-1, NULL, 0) < 0 && errno == ECHILD, name, "and no engine is left");
	(void)snprintf(socket_path, sizeof(socket_path), "%s/v", folder);
	(void)unlink(socket_path);
	close(control[0]);
	close(audit[0]);
	close(audit[1]);
}

int main(int argc, char **argv)
{
	char folder[] = "/tmp/matchlock-violation-XXXXXX";
	char self[PATH_MAX], link[128];
	ssize_t length;

	if (argc > 0 && strcmp(basename(argv[0]), ENGINE_NAME) == 0)
		play_engine(argc, argv);
	if (argc != 2) {
		(void)fprintf(stderr, "usage: vmm_violation VMM\n");
		return 2;
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	must(length > 0 && mkdtemp(folder), "scratch folder");
	self[length] = '\0';
	(void)snprintf(link, sizeof(link), "%s/" ENGINE_NAME, folder);
	must(symlink(self, link) == 0 && setenv("PATH", folder, 1) == 0, link);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* A VMM that hangs must fail the test, not hold it up. */
	(void)alarm(60);
	for (size_t i = 0; i < ARRAY_LENGTH(attacks); i++)
		run_attack(argv[1], folder, i);
	(void)unlink(link);
	(void)rmdir(folder);
	printf("1..%u\n", tests);
	return failures ? 1 : 0;
}
