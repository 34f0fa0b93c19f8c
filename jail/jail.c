#include "jail/jail.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "jail/calls.h"
#include "jail/capabilities.h"
#include "jail/descriptors.h"
#include "jail/filter.h"
#include "jail/landlock.h"
#include "jail/namespaces.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/*
 * Theory of operation. The order of the stages is forced: namespaces and the empty root need
 * capabilities and /proc, so they come before these go; Landlock and seccomp need no_new_privs;
 * seccomp comes last because the stages before it make calls that no daemon needs later.
 * A namespace is taken before Landlock, because Landlock forbids mounting.
 */

#if JAIL_SANITIZER && defined(__SANITIZE_ADDRESS__)
#define JAIL_LEAK_CHECK 1
#elif JAIL_SANITIZER && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define JAIL_LEAK_CHECK 1
#endif
#endif

#ifdef JAIL_LEAK_CHECK
/* The leak checker attaches to its own process by ptrace and reads /proc at exit, which a jailed
 * process cannot do; it would report its own failure as an error of the program. */
static int leak_check_is_off;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return leak_check_is_off;
}
#endif

static bool is_kept(const struct jail_spec *spec, int fd)
{
	for (size_t i = 0; i < spec->keep_fd_count; i++) {
		if (spec->keep_fds[i] == fd)
			return true;
	}
	return fd < 3;
}

/* The descriptors of Landlock rules live until that stage. */
static int enter_descriptors(const struct jail_spec *spec, struct jail_report *report)
{
	cleanup_free int *kept = NULL;
	size_t count = spec->keep_fd_count;
	int error;

	if (spec->keep_all_fds)
		return 0;
	if (count > JAIL_KEEP_FDS_MAX || spec->path_rule_count > JAIL_KEEP_FDS_MAX)
		return -EINVAL;
	kept = calloc(count + spec->path_rule_count + 1, sizeof(*kept));
	if (!kept)
		return -ENOMEM;
	if (count > 0)
		memcpy(kept, spec->keep_fds, count * sizeof(*kept));
	for (size_t i = 0; i < spec->path_rule_count; i++)
		kept[count++] = spec->path_rules[i].fd;
	error = descriptors_close_others(kept, count);
	report->descriptors_closed = !error;
	return error;
}

static int enter_empty_root(const struct jail_spec *spec, struct jail_report *report)
{
	if (!spec->empty_root)
		return 0;
	report->empty_root_errno = report->namespaces & CLONE_NEWNS ? -empty_root_enter() : EPERM;
	report->empty_root = report->empty_root_errno == 0;
	return 0;
}

static int enter_rlimits(const struct jail_spec *spec, struct jail_report *report)
{
	for (size_t i = 0; i < spec->rlimit_count; i++) {
		struct rlimit limit;

		if (getrlimit((__rlimit_resource_t)spec->rlimits[i].resource, &limit) < 0)
			return -errno;
		limit.rlim_max = MIN_OF(limit.rlim_max, spec->rlimits[i].value);
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit((__rlimit_resource_t)spec->rlimits[i].resource, &limit) < 0)
			return -errno;
		report->rlimits++;
	}
	return 0;
}

static int enter_no_new_privs(const struct jail_spec *spec, struct jail_report *report)
{
	(void)spec;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	report->no_new_privs = true;
	return 0;
}

static int enter_landlock(const struct jail_spec *spec, struct jail_report *report)
{
	int error = landlock_enter(spec, &report->landlock_abi, &report->landlock_errno);

	if (error)
		return error;
	if (report->landlock_abi > 0)
		report->landlock_rules = spec->path_rule_count;
	for (size_t i = 0; !spec->keep_all_fds && i < spec->path_rule_count; i++) {
		/* The same descriptor in two rules is closed once; EBADF after that is fine. */
		if (!is_kept(spec, spec->path_rules[i].fd))
			close(spec->path_rules[i].fd);
	}
	return 0;
}

static int enter_capabilities(const struct jail_spec *spec, struct jail_report *report)
{
	int error = capabilities_drop(spec->keep_capabilities, &report->capabilities_kept);

	report->capabilities_dropped = !error;
	return error;
}

static int enter_dumpable(const struct jail_spec *spec, struct jail_report *report)
{
	if (spec->keep_dumpable || spec->for_exec)
		return 0;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	report->not_dumpable = true;
	return 0;
}

static int enter_seccomp(const struct jail_spec *spec, struct jail_report *report)
{
	return spec->for_exec ? 0 : filter_enter(spec, &report->seccomp_calls);
}

static const struct {
	const char *name;
	int (*enter)(const struct jail_spec *spec, struct jail_report *report);
} stages[] = {
	{ "descriptors", enter_descriptors },	{ "namespaces", namespaces_enter },
	{ "empty-root", enter_empty_root },	{ "rlimits", enter_rlimits },
	{ "no-new-privs", enter_no_new_privs }, { "landlock", enter_landlock },
	{ "capabilities", enter_capabilities }, { "dumpable", enter_dumpable },
	{ "seccomp", enter_seccomp },
};

int jail_enter(const struct jail_spec *spec, struct jail_report *report)
{
	*report = (struct jail_report){ .component = spec->component, .sanitizer = JAIL_SANITIZER };
	for (size_t i = 0; i < ARRAY_LENGTH(stages); i++) {
		int error = stages[i].enter(spec, report);

		if (error) {
			report->failed_stage = stages[i].name;
			return error;
		}
	}
#ifdef JAIL_LEAK_CHECK
	leak_check_is_off = 1;
#endif
	return 0;
}

int jail_die_with_parent(pid_t expected_parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	/* It may have died before the request was in place, and nobody would send the signal. */
	return getppid() == expected_parent ? 0 : -ESRCH;
}
