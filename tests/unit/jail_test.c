/*
 * The jail, tried from inside: each case runs in a forked child that locks itself up and then
 * does something; the parent looks at how it ended.
 */
#include "jail/jail.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "jail/calls.h"
#include "jail/capabilities.h"
#include "tests/unit/child_outcome.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DENIED_EXIT 77
#define NOBODY 65534

static char scratch[64];

/* Calls of the children beyond jail_calls_process. */
static const struct jail_syscall file_calls[] = {
	JAIL_CALL(SYS_openat),	JAIL_CALL(SYS_open),	  JAIL_CALL(SYS_renameat),
	JAIL_CALL(SYS_rename),	JAIL_CALL(SYS_renameat2), JAIL_CALL(SYS_fcntl),
	JAIL_CALL(SYS_prctl),	JAIL_CALL(SYS_capget),	  JAIL_CALL(SYS_stat),
	JAIL_CALL(SYS_geteuid),
};
static const struct jail_syscall_set file_set = JAIL_SET(file_calls);
static const struct jail_syscall_set *const file_sets[] = { &jail_calls_process, &file_set };

static struct jail_spec basic_spec(void)
{
	return (struct jail_spec){
		.component = "test",
		.syscall_sets = file_sets,
		.syscall_set_count = ARRAY_LENGTH(file_sets),
		.keep_all_fds = true,
	};
}

static int enter(const struct jail_spec *spec, struct jail_report *report)
{
	int error = jail_enter(spec, report);

	if (error) {
		fprintf(stderr, "jail_enter: %s at %s\n", strerrorname_np(-error),
			report->failed_stage);
		_exit(99);
	}
	return 0;
}

static void create_file(const char *directory, const char *name)
{
	char path[256];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
	ck_assert_int_ge(fd, 0);
}

static void setup(void)
{
	char path[128];

	snprintf(scratch, sizeof(scratch), "/tmp/jail-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	chmod(scratch, 0777);
	for (const char *name = "abc"; *name; name++) {
		snprintf(path, sizeof(path), "%s/%c", scratch, *name);
		ck_assert_int_eq(mkdir(path, 0777), 0);
		chmod(path, 0777);
		create_file(path, "file");
	}
}

static void teardown(void)
{
	char path[128];

	for (const char *name = "abc"; *name; name++) {
		static const char *const files[] = { "file", "moved" };

		for (size_t i = 0; i < ARRAY_LENGTH(files); i++) {
			snprintf(path, sizeof(path), "%s/%c/%s", scratch, *name, files[i]);
			unlink(path);
		}
		snprintf(path, sizeof(path), "%s/%c", scratch, *name);
		rmdir(path);
	}
	rmdir(scratch);
}

static int directory(char name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%c", scratch, name);
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* ---- seccomp ------------------------------------------------------------------------------- */

static int call_unlisted(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	enter(&spec, &report);
	syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
	return 0;
}

static int call_listed(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	enter(&spec, &report);
	return getpid() > 0 && report.seccomp_calls > 10 ? 0 : 1;
}

static int call_unlisted_in_old_thread(void);

START_TEST(a_call_that_is_not_listed_kills)
{
	ck_assert_int_eq(outcome(call_unlisted), 1000 + SIGSYS);
	ck_assert_int_eq(outcome(call_listed), 0);
	ck_assert_int_eq(outcome(call_unlisted_in_old_thread), 1000 + SIGSYS);
}
END_TEST

static int pipe_to_thread[2];

static void *unlisted_after_byte(void *argument)
{
	char byte;

	if (read(pipe_to_thread[0], &byte, 1) == 1)
		syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
	return argument;
}

/* TSYNC: a thread that was there before is under the filter too. */
static int call_unlisted_in_old_thread(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	pthread_t thread;

	if (pipe(pipe_to_thread) < 0 || pthread_create(&thread, NULL, unlisted_after_byte, NULL))
		return 98;
	enter(&spec, &report);
	if (write(pipe_to_thread[1], "x", 1) != 1)
		return 97;
	pthread_join(thread, NULL);
	return 0;
}

static const struct jail_syscall socket_calls[] = {
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_UNIX),
		     JAIL_ARGUMENT_WITHOUT(1, SOCK_NONBLOCK)),
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL(0, AF_INET)),
	JAIL_REFUSE(SYS_clone3, ENOSYS),
	JAIL_CALL_IF(SYS_dup2, { .argument = 1, .compare = JAIL_AT_MOST, .value = 9 }),
	JAIL_CALL_IF(SYS_dup, { .argument = 0, .compare = JAIL_NOT_EQUAL, .value = 1 }),
};
static const struct jail_syscall_set socket_set = JAIL_SET(socket_calls);
static const struct jail_syscall_set *const socket_sets[] = {
	&jail_calls_process, &socket_set, &jail_calls_process, /* overlapping on purpose */
};
static struct {
	long number;
	long arguments[3];
} conditional_call;

static int call_conditional(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	long result;

	spec.syscall_sets = socket_sets;
	spec.syscall_set_count = ARRAY_LENGTH(socket_sets);
	enter(&spec, &report);
	result = syscall(conditional_call.number, conditional_call.arguments[0],
			 conditional_call.arguments[1], conditional_call.arguments[2]);
	if (result >= 0)
		return 0;
	return errno == ENOSYS ? 38 : 1;
}

static int conditional(long number, long a, long b)
{
	conditional_call.number = number;
	conditional_call.arguments[0] = a;
	conditional_call.arguments[1] = b;
	return outcome(call_conditional);
}

START_TEST(conditions_on_arguments_hold)
{
	ck_assert_int_eq(conditional(SYS_socket, AF_UNIX, SOCK_STREAM), 0);
	ck_assert_int_eq(conditional(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK), 0);
	ck_assert_int_eq(conditional(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK),
			 1000 + SIGSYS);
	ck_assert_int_eq(conditional(SYS_socket, AF_NETLINK, SOCK_RAW), 1000 + SIGSYS);
	ck_assert_int_eq(conditional(SYS_clone3, 0, 0), 38);
	if (!JAIL_SANITIZER) {
		ck_assert_int_eq(conditional(SYS_dup2, 2, 9), 0);
		ck_assert_int_eq(conditional(SYS_dup2, 2, 10), 1000 + SIGSYS);
		ck_assert_int_eq(conditional(SYS_dup, 2, 0), 0);
		ck_assert_int_eq(conditional(SYS_dup, 1, 0), 1000 + SIGSYS);
	}
}
END_TEST

static int map_executable(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	enter(&spec, &report);
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return 0;
}

static void *nothing(void *argument)
{
	return argument;
}

static int start_thread(void)
{
	static const struct jail_syscall_set *const sets[] = { &jail_calls_process,
							       &jail_calls_threads };
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	pthread_t thread;

	spec.syscall_sets = sets;
	spec.syscall_set_count = ARRAY_LENGTH(sets);
	enter(&spec, &report);
	if (pthread_create(&thread, NULL, nothing, NULL))
		return 1;
	return pthread_join(thread, NULL) ? 2 : 0;
}

static int start_process(void)
{
	static const struct jail_syscall_set *const sets[] = { &jail_calls_process,
							       &jail_calls_threads };
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	spec.syscall_sets = sets;
	spec.syscall_set_count = ARRAY_LENGTH(sets);
	enter(&spec, &report);
	if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0)
		_exit(0);
	return 0;
}

START_TEST(common_sets_give_threads_but_no_processes_or_code)
{
	ck_assert_int_eq(outcome(start_thread), 0);
	if (JAIL_SANITIZER)
		return;
	ck_assert_int_eq(outcome(map_executable), 1000 + SIGSYS);
	ck_assert_int_eq(outcome(start_process), 1000 + SIGSYS);
}
END_TEST

static int spec_with_bad_entry(void)
{
	static const struct jail_syscall bad[] = { JAIL_CALL_IF(SYS_dup, { .argument = 6 }) };
	static const struct jail_syscall_set set = JAIL_SET(bad);
	static const struct jail_syscall_set *const sets[] = { &set };
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	spec.syscall_sets = sets;
	spec.syscall_set_count = 1;
	return jail_enter(&spec, &report) == -EINVAL && report.failed_stage &&
			       strcmp(report.failed_stage, "seccomp") == 0
		       ? 0
		       : 1;
}

START_TEST(a_bad_entry_is_refused_with_its_stage)
{
	ck_assert_int_eq(outcome(spec_with_bad_entry), 0);
}
END_TEST

/* ---- Landlock ------------------------------------------------------------------------------ */

static struct jail_spec landlock_spec(struct jail_path_rule *rules)
{
	struct jail_spec spec = basic_spec();

	rules[0] = (struct jail_path_rule){ directory('a'), JAIL_FS_READ_WRITE };
	rules[1] = (struct jail_path_rule){ directory('b'), JAIL_FS_READ_WRITE };
	spec.path_rules = rules;
	spec.path_rule_count = 2;
	spec.landlock_minimum_abi = 2;
	return spec;
}

static int open_outside(void)
{
	struct jail_path_rule rules[2];
	struct jail_spec spec = landlock_spec(rules);
	struct jail_report report;
	int outside = directory('c');

	enter(&spec, &report);
	if (openat(rules[0].fd, "file", O_RDWR) < 0)
		return 1;
	if (openat(outside, "file", O_RDONLY) >= 0)
		return 2;
	return errno == EACCES ? DENIED_EXIT : 3;
}

static int rename_between(void)
{
	struct jail_path_rule rules[2];
	struct jail_spec spec = landlock_spec(rules);
	struct jail_report report;
	int outside = directory('c');

	enter(&spec, &report);
	if (renameat(rules[0].fd, "file", rules[1].fd, "moved") < 0)
		return 1;
	if (renameat(rules[1].fd, "moved", outside, "moved") == 0)
		return 2;
	return errno == EACCES || errno == EXDEV ? DENIED_EXIT : 3;
}

static int read_only_file_rule(void)
{
	int file = openat(directory('a'), "file", O_PATH | O_CLOEXEC);
	struct jail_path_rule rule = { file, JAIL_FS_READ };
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	int a = directory('a');

	spec.path_rules = &rule;
	spec.path_rule_count = 1;
	spec.landlock_required = true;
	enter(&spec, &report);
	if (openat(a, "file", O_RDONLY) < 0)
		return 1;
	return openat(a, "file", O_RDWR) < 0 && errno == EACCES ? DENIED_EXIT : 2;
}

START_TEST(landlock_bounds_paths)
{
	if (jail_landlock_abi() < 2)
		return;
	ck_assert_int_eq(outcome(open_outside), DENIED_EXIT);
	ck_assert_int_eq(outcome(read_only_file_rule), DENIED_EXIT);
	ck_assert_int_eq(outcome(rename_between), DENIED_EXIT);
}
END_TEST

static int connect_tcp(void)
{
	static const struct jail_syscall calls[] = {
		JAIL_CALL(SYS_socket), JAIL_CALL(SYS_connect), JAIL_CALL(SYS_bind),
		JAIL_CALL(SYS_kill),   JAIL_CALL(SYS_getppid),
	};
	static const struct jail_syscall_set set = JAIL_SET(calls);
	static const struct jail_syscall_set *const sets[] = { &jail_calls_process, &set };
	struct sockaddr address = { .sa_family = AF_INET };
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	int socket_fd;

	spec.syscall_sets = sets;
	spec.syscall_set_count = ARRAY_LENGTH(sets);
	enter(&spec, &report);
	socket_fd = socket(AF_INET, SOCK_STREAM, 0);
	if (socket_fd < 0)
		return 1;
	if (connect(socket_fd, &address, sizeof(address)) == 0 || errno != EACCES)
		return 2;
	if (bind(socket_fd, &address, sizeof(address)) == 0 || errno != EACCES)
		return 3;
	if (report.landlock_abi >= 6 && (kill(getppid(), 0) == 0 || errno != EPERM))
		return 4;
	return DENIED_EXIT;
}

START_TEST(landlock_denies_tcp_and_foreign_signals)
{
	if (jail_landlock_abi() >= 4)
		ck_assert_int_eq(outcome(connect_tcp), DENIED_EXIT);
}
END_TEST

/* Makes `number` answer ENOSYS, as on a kernel without it. */
static void take_away(int number)
{
	scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);

	if (!context || seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), number, 0) ||
	    seccomp_load(context))
		_exit(98);
	seccomp_release(context);
}

static int without_landlock(void)
{
	struct jail_path_rule rules[2];
	struct jail_spec spec = landlock_spec(rules);
	struct jail_report report;
	char text[JAIL_REPORT_TEXT_MAX];

	take_away(SYS_landlock_create_ruleset);
	if (jail_landlock_abi() != 0)
		return 1;
	enter(&spec, &report);
	jail_report_text(&report, text, sizeof(text));
	return report.landlock_abi == 0 && strstr(text, "missing: landlock(ENOSYS)") &&
			       report.seccomp_calls > 0
		       ? 0
		       : 2;
}

static int landlock_required_but_absent(void)
{
	struct jail_path_rule rules[2];
	struct jail_spec spec = landlock_spec(rules);
	struct jail_report report;

	take_away(SYS_landlock_create_ruleset);
	spec.landlock_required = true;
	return jail_enter(&spec, &report) == -EPERM && strcmp(report.failed_stage, "landlock") == 0
		       ? 0
		       : 1;
}

START_TEST(absent_landlock_is_reported_or_fatal_as_asked)
{
	ck_assert_int_eq(outcome(without_landlock), 0);
	ck_assert_int_eq(outcome(landlock_required_but_absent), 0);
}
END_TEST

/* ---- rlimits, capabilities, descriptors, the rest ------------------------------------------ */

static int open_too_many(void)
{
	static const struct jail_rlimit limits[] = { { RLIMIT_NOFILE, 20 }, { RLIMIT_CORE, 0 } };
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	spec.rlimits = limits;
	spec.rlimit_count = ARRAY_LENGTH(limits);
	enter(&spec, &report);
	for (int i = 0; i < 40; i++) {
		if (fcntl(0, F_DUPFD_CLOEXEC, 3) < 0)
			return errno == EMFILE && report.rlimits == 2 ? DENIED_EXIT : 1;
	}
	return 2;
}

START_TEST(rlimits_hold)
{
	ck_assert_int_eq(outcome(open_too_many), DENIED_EXIT);
}
END_TEST

static int look_at_capabilities(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	enter(&spec, &report);
	for (int i = 0; i <= CAP_LAST_CAP; i++) {
		if (capability_held(i))
			return 1;
		if (geteuid() == 0 && prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			return 2;
	}
	if (report.capabilities_kept || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return 3;
	return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : 4;
}

static int keep_one_capability(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	spec.keep_capabilities = UINT64_C(1) << CAP_FOWNER;
	enter(&spec, &report);
	return capability_held(CAP_FOWNER) && !capability_held(CAP_CHOWN) &&
			       report.capabilities_kept == spec.keep_capabilities
		       ? 0
		       : 1;
}

START_TEST(capabilities_go_except_those_kept)
{
	ck_assert_int_eq(outcome(look_at_capabilities), 0);
	if (capability_held(CAP_FOWNER))
		ck_assert_int_eq(outcome(keep_one_capability), 0);
}
END_TEST

static int rule_without_keeping(void)
{
	struct jail_path_rule rules[2];
	struct jail_spec spec = landlock_spec(rules);
	struct jail_report report;

	spec.keep_all_fds = false;
	spec.keep_fds = &rules[1].fd;
	spec.keep_fd_count = 1;
	enter(&spec, &report);
	if (fcntl(rules[0].fd, F_GETFD) >= 0 || errno != EBADF)
		return 1;
	return openat(rules[1].fd, "file", O_RDWR) >= 0 ? 0 : 2;
}

static bool take_close_range_away;

static int look_at_descriptors(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	int kept[3];
	int lost;

	if (take_close_range_away)
		take_away(SYS_close_range);
	kept[0] = fcntl(0, F_DUPFD, 40);
	kept[1] = -1;
	lost = fcntl(0, F_DUPFD, 30);
	kept[2] = fcntl(0, F_DUPFD, 20);
	spec.keep_all_fds = false;
	spec.keep_fds = kept;
	spec.keep_fd_count = ARRAY_LENGTH(kept);
	enter(&spec, &report);
	if (fcntl(kept[0], F_GETFD) < 0 || fcntl(kept[2], F_GETFD) < 0 || fcntl(2, F_GETFD) < 0)
		return 1;
	return fcntl(lost, F_GETFD) < 0 && errno == EBADF ? 0 : 2;
}

START_TEST(descriptors_go_except_those_kept)
{
	take_close_range_away = _i == 1;
	ck_assert_int_eq(outcome(look_at_descriptors), 0);
	ck_assert_int_eq(outcome(rule_without_keeping), 0);
}
END_TEST

static int die_with_parent_inner(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	int signal_number = 0;

	if (jail_die_with_parent(getppid()))
		return 1;
	if (jail_die_with_parent(getpid()) != -ESRCH)
		return 2;
	spec.namespaces = CLONE_NEWUSER | CLONE_NEWNET;
	enter(&spec, &report);
	/* No later stage may reset it. */
	if (prctl(PR_GET_PDEATHSIG, &signal_number, 0, 0, 0) < 0 || signal_number != SIGKILL)
		return 3;
	return 0;
}

static int as_nobody(int (*body)(void))
{
	if (geteuid() == 0 &&
	    (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return 96;
	/* A change of ids makes /proc/self root's, as it is not for a user's own process. */
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		return 95;
	return body();
}

static int die_with_parent_as_nobody(void)
{
	return as_nobody(die_with_parent_inner);
}

START_TEST(parent_death_signal_survives_the_jail)
{
	ck_assert_int_eq(outcome(die_with_parent_inner), 0);
	ck_assert_int_eq(outcome(die_with_parent_as_nobody), 0);
}
END_TEST

/* ---- namespaces ---------------------------------------------------------------------------- */

static bool user_namespaces_taken_away;

static int take_namespaces(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;
	int inside = directory('a');
	bool was_root = capability_held(CAP_SYS_ADMIN);
	uid_t uid = geteuid();
	struct stat status;

	if (user_namespaces_taken_away)
		take_away(SYS_unshare);
	spec.namespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	spec.empty_root = true;
	enter(&spec, &report);
	if (user_namespaces_taken_away)
		return report.namespaces == 0 &&
				       report.namespaces_missing & (CLONE_NEWNS | CLONE_NEWNET) &&
				       !report.empty_root
			       ? 0
			       : 1;
	if (was_root && report.namespaces & CLONE_NEWUSER)
		return 2;
	if (report.namespaces_missing)
		return was_root ? 3 : DENIED_EXIT;
	if (geteuid() != uid)
		return 4;
	if (!report.empty_root || stat("/etc", &status) == 0 || errno != ENOENT)
		return 5;
	if (open("/new", O_CREAT | O_WRONLY, 0600) >= 0)
		return 6;
	/* An empty root leaves held descriptors alone; Landlock without a rule does not. */
	if (report.landlock_abi == 0 && openat(inside, "file", O_RDONLY) < 0)
		return 7;
	return 0;
}

static int take_namespaces_as_nobody(void)
{
	return as_nobody(take_namespaces);
}

static int use_descriptor_after_empty_root(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_path_rule rule = { directory('a'), JAIL_FS_READ_WRITE };
	struct jail_report report;

	spec.path_rules = &rule;
	spec.path_rule_count = 1;
	spec.namespaces = CLONE_NEWUSER | CLONE_NEWNS;
	spec.empty_root = true;
	enter(&spec, &report);
	return openat(rule.fd, "file", O_RDONLY) >= 0 && openat(rule.fd, "../b/file", O_RDWR) < 0
		       ? 0
		       : 1;
}

/* The way to open an O_PATH descriptor for reading, in spite of the empty root, of not being
 * dumpable and of Landlock. */
static int reopen_by_proc(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_path_rule rule = { directory('a'), JAIL_FS_READ_WRITE };
	struct jail_report report;
	int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int file = openat(rule.fd, "file", O_PATH | O_CLOEXEC);
	int outside = openat(directory('c'), "file", O_PATH | O_CLOEXEC);
	char name[16];

	spec.path_rules = &rule;
	spec.path_rule_count = 1;
	spec.namespaces = CLONE_NEWUSER | CLONE_NEWNS;
	spec.empty_root = true;
	enter(&spec, &report);
	snprintf(name, sizeof(name), "%d", file);
	if (openat(proc, name, O_RDONLY) < 0)
		return 1;
	snprintf(name, sizeof(name), "%d", outside);
	return report.landlock_abi > 0 && openat(proc, name, O_RDONLY) >= 0 ? 2 : 0;
}

static int reopen_as_nobody(void)
{
	return as_nobody(reopen_by_proc);
}

static int use_descriptor_as_nobody(void)
{
	return as_nobody(use_descriptor_after_empty_root);
}

START_TEST(namespaces_are_taken_where_allowed)
{
	int result;

	user_namespaces_taken_away = false;
	if (capability_held(CAP_SYS_ADMIN))
		ck_assert_int_eq(outcome(take_namespaces), 0);
	result = outcome(take_namespaces_as_nobody);
	ck_assert_msg(result == 0 || result == DENIED_EXIT, "outcome %d", result);
	user_namespaces_taken_away = true;
	ck_assert_int_eq(outcome(take_namespaces), 0);
	ck_assert_int_eq(outcome(take_namespaces_as_nobody), 0);
	user_namespaces_taken_away = false;
}
END_TEST

START_TEST(held_descriptors_outlive_an_empty_root)
{
	ck_assert_int_eq(outcome(use_descriptor_after_empty_root), 0);
	ck_assert_int_eq(outcome(use_descriptor_as_nobody), 0);
	ck_assert_int_eq(outcome(reopen_by_proc), 0);
	ck_assert_int_eq(outcome(reopen_as_nobody), 0);
}
END_TEST

static int namespace_required(void)
{
	struct jail_spec spec = basic_spec();
	struct jail_report report;

	take_away(SYS_unshare);
	spec.namespaces = CLONE_NEWUSER | CLONE_NEWNET;
	spec.namespaces_required = CLONE_NEWNET;
	return jail_enter(&spec, &report) < 0 && strcmp(report.failed_stage, "namespaces") == 0 ? 0
												: 1;
}

START_TEST(a_required_namespace_is_fatal_when_absent)
{
	ck_assert_int_eq(outcome(namespace_required), 0);
	ck_assert_int_le(jail_user_namespaces_allowed(), 0);
}
END_TEST

/* test(1) sees a file inside the rules and cannot open one outside them. */
static int exec_shell(void)
{
	struct jail_path_rule rules[3] = {
		{ open("/usr", O_PATH | O_CLOEXEC), JAIL_FS_READ | JAIL_FS_EXECUTE },
		{ open("/lib64", O_PATH | O_CLOEXEC), JAIL_FS_READ | JAIL_FS_EXECUTE },
		{ directory('a'), JAIL_FS_READ },
	};
	struct jail_spec spec = { .component = "other", .for_exec = true };
	struct jail_report report;

	if (chdir(scratch) < 0)
		return 98;
	spec.path_rules = rules;
	spec.path_rule_count = ARRAY_LENGTH(rules);
	spec.landlock_required = true;
	enter(&spec, &report);
	if (report.seccomp_calls || report.not_dumpable || !report.no_new_privs)
		return 97;
	execl("/usr/bin/dash", "dash", "-c",
	      "exec 2>&-; read -r line <a/file || [ $? = 1 ] || exit 1; read -r line <b/file && "
	      "exit 2; exit "
	      "77",
	      (char *)NULL);
	return 96;
}

START_TEST(another_program_is_locked_up_by_exec)
{
	if (jail_landlock_abi() > 0)
		ck_assert_int_eq(outcome(exec_shell), DENIED_EXIT);
}
END_TEST

/* ---- the report ---------------------------------------------------------------------------- */

START_TEST(report_is_one_line)
{
	const struct jail_report report = {
		.component = "x",
		.no_new_privs = true,
		.seccomp_calls = 63,
		.landlock_abi = 7,
		.landlock_rules = 2,
		.rlimits = 4,
		.namespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET,
		.namespaces_missing = CLONE_NEWIPC,
		.namespaces_errno = EPERM,
		.capabilities_dropped = true,
		.not_dumpable = true,
	};
	char text[JAIL_REPORT_TEXT_MAX];
	char small[10];

	jail_report_text(&report, text, sizeof(text));
	ck_assert_str_eq(text, "no-new-privs seccomp(63 calls) landlock(abi 7, 2 rules) rlimits(4) "
			       "namespaces(user,mount,net) capabilities(none) not-dumpable "
			       "missing: namespaces(ipc)(EPERM)");
	ck_assert_uint_eq(jail_report_text(&report, small, sizeof(small)), 9);
	ck_assert_str_eq(small, "no-new-pr");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("jail");
	TCase *tests = tcase_create("jail");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_call_that_is_not_listed_kills);
	tcase_add_test(tests, conditions_on_arguments_hold);
	tcase_add_test(tests, common_sets_give_threads_but_no_processes_or_code);
	tcase_add_test(tests, a_bad_entry_is_refused_with_its_stage);
	tcase_add_test(tests, landlock_bounds_paths);
	tcase_add_test(tests, landlock_denies_tcp_and_foreign_signals);
	tcase_add_test(tests, absent_landlock_is_reported_or_fatal_as_asked);
	tcase_add_test(tests, rlimits_hold);
	tcase_add_test(tests, capabilities_go_except_those_kept);
	tcase_add_loop_test(tests, descriptors_go_except_those_kept, 0, 2);
	tcase_add_test(tests, parent_death_signal_survives_the_jail);
	tcase_add_test(tests, namespaces_are_taken_where_allowed);
	tcase_add_test(tests, held_descriptors_outlive_an_empty_root);
	tcase_add_test(tests, a_required_namespace_is_fatal_when_absent);
	tcase_add_test(tests, another_program_is_locked_up_by_exec);
	tcase_add_test(tests, report_is_one_line);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
