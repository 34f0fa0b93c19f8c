#include "jail/namespaces.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "jail/capabilities.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* Order matters: the user namespace makes the others possible. */
static const unsigned known_namespaces[] = {
	CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWNET,    CLONE_NEWIPC,
	CLONE_NEWUTS,  CLONE_NEWPID, CLONE_NEWCGROUP, CLONE_NEWTIME,
};

static int write_proc(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write_full(fd, text, strlen(text));
}

/* A process may map just its own effective ids, and the gid only after giving up setgroups(). */
static int map_own_ids(uid_t uid, gid_t gid)
{
	char line[64];
	int error = write_proc("/proc/self/setgroups", "deny");

	/* Kernels before 3.19 have no such file and need none. */
	if (error && error != -ENOENT)
		return error;
	snprintf(line, sizeof(line), "%u %u 1\n", uid, uid);
	error = write_proc("/proc/self/uid_map", line);
	if (error)
		return error;
	snprintf(line, sizeof(line), "%u %u 1\n", gid, gid);
	return write_proc("/proc/self/gid_map", line);
}

static int take_user_namespace(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (unshare(CLONE_NEWUSER) < 0)
		return -errno;
	return map_own_ids(uid, gid);
}

/* In a child of jail_user_namespaces_allowed(): 0 or a positive errno. */
static int try_user_namespace(void)
{
	int error = take_user_namespace();

	if (error)
		return -error;
	return unshare(CLONE_NEWNET) < 0 ? errno : 0;
}

int jail_user_namespaces_allowed(void)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (child == 0)
		_exit(try_user_namespace());
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (!WIFEXITED(status))
		return -EPERM;
	return -WEXITSTATUS(status);
}

static void note_missing(struct jail_report *report, unsigned namespaces, int error)
{
	report->namespaces_missing |= namespaces;
	report->namespaces_errno = -error;
}

int namespaces_enter(const struct jail_spec *spec, struct jail_report *report)
{
	unsigned wanted = spec->namespaces;
	int error = 0;

	if (capability_held(CAP_SYS_ADMIN)) {
		wanted &= ~(unsigned)CLONE_NEWUSER;
	} else if (wanted & CLONE_NEWUSER) {
		error = jail_user_namespaces_allowed();
		if (!error) {
			error = take_user_namespace();
			if (error)
				return error;
			report->namespaces |= CLONE_NEWUSER;
		}
	} else if (wanted) {
		error = -EPERM;
	}
	if (error) {
		note_missing(report, wanted, error);
	} else {
		for (size_t i = 1; i < ARRAY_LENGTH(known_namespaces); i++) {
			unsigned one = wanted & known_namespaces[i];

			if (one && unshare((int)one) < 0)
				note_missing(report, one, -errno);
			else
				report->namespaces |= one;
		}
	}
	if (report->namespaces_missing & spec->namespaces_required)
		return -report->namespaces_errno;
	return 0;
}

/* pivot_root(".", "."): the old root ends up mounted over the new one, where it is detached. So
 * no directory for it is needed in the new root. */
static int swap_root(void)
{
	if (chdir("/tmp") < 0 && chdir("/proc") < 0)
		return -errno;
	if (mount("matchlock-jail", ".", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=4k,nr_inodes=2,mode=0555") < 0)
		return -errno;
	/* Again by name, to step from the directory beneath into the new mount. */
	if (chdir("/tmp") < 0 && chdir("/proc") < 0)
		return -errno;
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return -errno;
	if (umount2(".", MNT_DETACH) < 0)
		return -errno;
	return chdir("/") < 0 ? -errno : 0;
}

int empty_root_enter(void)
{
	int error;

	/* Nothing of this may travel back to the host's mount namespace. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	error = swap_root();
	if (error)
		return error;
	if (mount(NULL, "/", NULL,
		  MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return -errno;
	return 0;
}
