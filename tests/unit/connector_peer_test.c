/*
 * What the connector says of a connection that was made and is none that anybody asked for: one
 * that a program of the host's leads elsewhere, and one that leads back to its own socket. In a
 * network of this test's own. Needs root, whose BPF programs the kernel takes; without, the test is
 * skipped.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "proxy/connector.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT 40000
#define ELSEWHERE 40001

static char root[] = "/tmp/matchlock-cgroup-XXXXXX"; /* cgroups are mounted there */
static struct event_loop loop;
static struct host_table *pinned;
static struct resolver *resolver;
static struct connector *connector;
static struct connect_result result;
static bool is_done;

/* ---- a network, and a group of processes whose connections are led elsewhere ---------------- */

static void write_text(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void make_network(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	cleanup_fd int fd = -1;

	ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0);
}

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

/* As balancers of load within a host do it. */
static int load_program(void)
{
	const struct bpf_insn program[] = {
		{ .code = BPF_ST | BPF_MEM | BPF_W,
		  .dst_reg = BPF_REG_1,
		  .off = offsetof(struct bpf_sock_addr, user_port),
		  .imm = htons(ELSEWHERE) },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attributes = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
		.insn_cnt = ARRAY_LENGTH(program),
		.insns = (uint64_t)(uintptr_t)program,
		.license = (uint64_t)(uintptr_t) "",
		.expected_attach_type = BPF_CGROUP_INET4_CONNECT,
	};

	return bpf(BPF_PROG_LOAD, &attributes);
}

static void group_path(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/matchlock-test-%d%s", root, (int)getpid(), name);
}

static void enter_group(void)
{
	char path[128];

	group_path(path, sizeof(path), "");
	ck_assert_msg(mkdir(path, 0700) == 0, "%s: %s", path, strerror(errno));
	group_path(path, sizeof(path), "/cgroup.procs");
	write_text(path, "0");
}

static void leave_group(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.procs", root);
	write_text(path, "0");
	group_path(path, sizeof(path), "");
	ck_assert_msg(rmdir(path) == 0, "%s: %s", path, strerror(errno));
}

static int attach(int program)
{
	char path[128];
	cleanup_fd int group = -1;
	union bpf_attr attributes = {
		.link_create.prog_fd = (uint32_t)program,
		.link_create.attach_type = BPF_CGROUP_INET4_CONNECT,
	};

	group_path(path, sizeof(path), "");
	group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(group, 0);
	attributes.link_create.target_fd = (uint32_t)group;
	return bpf(BPF_LINK_CREATE, &attributes);
}

/* ---- the connector --------------------------------------------------------------------------- */

static void set_up(void)
{
	struct host_name name;
	struct ip_address address;
	struct resolver_options names = { .loop = &loop, .hosts_path = "/nonexistent" };
	struct connector_options options = { .loop = &loop, .files_max = 100 };

	make_network();
	ck_assert_int_eq(event_loop_init(&loop), 0);
	pinned = host_table_new();
	ck_assert_int_eq(host_name_parse("own.test", 8, &name), 0);
	ck_assert_int_eq(ip_address_parse("127.0.0.1", &address), 0);
	ck_assert_int_eq(host_table_add(pinned, &name, &address), 0);
	names.pinned = pinned;
	ck_assert_int_eq(resolver_new(&names, &resolver), 0);
	options.resolver = resolver;
	ck_assert_int_eq(connector_new(&options, &connector), 0);
}

static void tear_down(void)
{
	connector_free(connector);
	resolver_free(resolver);
	host_table_free(pinned);
	event_loop_release(&loop);
}

static void on_done(void *context, struct connect_result *done)
{
	(void)context;
	is_done = true;
	result = *done;
}

static void connect_to_own(void)
{
	struct host_name name;
	struct connector_attempt *attempt;

	ck_assert_int_eq(host_name_parse("own.test", 8, &name), 0);
	is_done = false;
	ck_assert_int_eq(connector_start(connector, &name, PORT, on_done, NULL, &attempt), 0);
	while (!is_done)
		ck_assert_int_ge(event_loop_run_once(&loop, 20000), 1);
}

static void expect_failure(const char *detail)
{
	ck_assert_int_eq(result.fd, -1);
	ck_assert_str_eq(result.reason, "connect_failed");
	ck_assert_msg(strstr(result.detail, detail), "%s", result.detail);
}

static int listen_at(uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET,
					     .sin_port = htons(port),
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	return fd;
}

START_TEST(one_that_is_led_elsewhere)
{
	cleanup_fd int wanted = listen_at(PORT);
	cleanup_fd int other = listen_at(ELSEWHERE);
	cleanup_fd int program = load_program();
	cleanup_fd int accepted = -1;
	int link;

	ck_assert_int_ge(wanted, 0);
	ck_assert_msg(program >= 0, "%s", strerror(errno));
	connect_to_own();
	ck_assert_msg(result.fd >= 0, "%s", result.detail);
	close(result.fd);
	enter_group();
	link = attach(program);
	ck_assert_msg(link >= 0, "%s", strerror(errno));
	connect_to_own();
	close(link);
	leave_group();
	expect_failure("leads elsewhere");
	/* It did arrive there, and nothing was sent. */
	accepted = accept4(other, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(accepted, 0);
	ck_assert_int_eq(read(accepted, &(char){ 0 }, 1), 0);
}
END_TEST

/* Nobody listens; a socket that gets the very port that it connects to is its own peer (RFC 9293,
 * section 3.5, simultaneous open). */
START_TEST(one_that_leads_back)
{
	write_text("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000");
	connect_to_own();
	expect_failure("leads back to itself");
}
END_TEST

/* Where groups of processes are to be found, for this process alone. */
static bool make_place(void)
{
	return mkdtemp(root) && unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("cgroup2", root, "cgroup2", 0, NULL) == 0;
}

int main(void)
{
	Suite *suite = suite_create("connector_peer");
	TCase *tests = tcase_create("connector_peer");
	SRunner *runner;
	int failed;

	if (geteuid() != 0 || !make_place()) {
		puts("1..0 # SKIP root, BPF programs and cgroup2 are not all to be had here");
		rmdir(root);
		return EXIT_SUCCESS;
	}
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, one_that_is_led_elsewhere);
	tcase_add_test(tests, one_that_leads_back);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	umount2(root, MNT_DETACH);
	rmdir(root);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
