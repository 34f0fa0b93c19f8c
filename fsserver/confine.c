#include "fsserver/confine.h"

#include "base/checked.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Resolved by component, for the paths that are opened from here. Nothing takes a path of the
 * guest's; Landlock bounds what any of them could reach. */
static const struct jail_syscall server_calls[] = {
	/* The ring and the sockets. */
	JAIL_CALL(SYS_io_uring_enter),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_shutdown),
	JAIL_CALL(SYS_poll),
	/* Finding and describing. */
	JAIL_CALL(SYS_openat2),
	JAIL_CALL(SYS_openat),
	JAIL_CALL(SYS_statx),
	JAIL_CALL(SYS_readlinkat),
	JAIL_CALL(SYS_fstatfs),
	JAIL_CALL(SYS_getdents64),
	JAIL_CALL(SYS_fcntl),
	JAIL_CALL(SYS_dup),
	/* Content. */
	JAIL_CALL(SYS_pread64),
	JAIL_CALL(SYS_pwrite64),
	JAIL_CALL(SYS_preadv),
	JAIL_CALL(SYS_pwritev),
	JAIL_CALL(SYS_preadv2),
	JAIL_CALL(SYS_pwritev2),
	JAIL_CALL(SYS_readv),
	JAIL_CALL(SYS_writev),
	JAIL_CALL(SYS_ftruncate),
	JAIL_CALL(SYS_fallocate),
	JAIL_CALL(SYS_copy_file_range),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, FICLONE)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, FICLONERANGE)),
	JAIL_CALL(SYS_fsync),
	JAIL_CALL(SYS_fdatasync),
	JAIL_CALL(SYS_sync_file_range),
	JAIL_CALL(SYS_syncfs),
	JAIL_CALL(SYS_msync),
	JAIL_CALL(SYS_fadvise64),
	JAIL_CALL(SYS_flock),
	/* Names and attributes. */
	JAIL_CALL(SYS_mkdirat),
	JAIL_CALL_IF(SYS_mknodat, JAIL_ARGUMENT_MASKED(2, S_IFMT, S_IFREG)),
	JAIL_CALL_IF(SYS_mknodat, JAIL_ARGUMENT_MASKED(2, S_IFMT, S_IFIFO)),
	JAIL_CALL_IF(SYS_mknodat, JAIL_ARGUMENT_MASKED(2, S_IFMT, S_IFSOCK)),
	JAIL_CALL(SYS_symlinkat),
	JAIL_CALL(SYS_linkat),
	JAIL_CALL(SYS_unlinkat),
	JAIL_CALL(SYS_renameat),
	JAIL_CALL(SYS_renameat2),
	/* Never a mode with setuid or setgid. */
	JAIL_CALL_IF(SYS_fchmodat, JAIL_ARGUMENT_WITHOUT(2, S_ISUID | S_ISGID)),
	JAIL_CALL_IF(SYS_fchmod, JAIL_ARGUMENT_WITHOUT(1, S_ISUID | S_ISGID)),
	JAIL_CALL(SYS_fchownat),
	JAIL_CALL(SYS_fchown),
	JAIL_CALL(SYS_utimensat),
	JAIL_CALL(SYS_getxattr),
	JAIL_CALL(SYS_setxattr),
	JAIL_CALL(SYS_listxattr),
	JAIL_CALL(SYS_removexattr),
	JAIL_CALL(SYS_fgetxattr),
	JAIL_CALL(SYS_fsetxattr),
	JAIL_CALL(SYS_flistxattr),
	JAIL_CALL(SYS_fremovexattr),
	/* Changes by the host. */
	JAIL_CALL(SYS_inotify_init1),
	JAIL_CALL(SYS_inotify_add_watch),
	JAIL_CALL(SYS_inotify_rm_watch),
};
static const struct jail_syscall_set server_set = JAIL_SET(server_calls);

/* /proc/self/fd is only passed through: what is opened there counts as what it is. */

int confine_raise_files(uint64_t wanted, uint64_t *ret_limit)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	if (limit.rlim_max < wanted) {
		struct rlimit higher = { .rlim_cur = wanted, .rlim_max = wanted };

		/* Without the privilege it stays as it is. */
		if (setrlimit(RLIMIT_NOFILE, &higher) == 0) {
			*ret_limit = wanted;
			return 0;
		}
	}
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	*ret_limit = limit.rlim_cur;
	return 0;
}

int confine(struct export *const *exports, size_t export_count, struct jail_report *ret_report)
{
	static const struct jail_syscall_set *const sets[] = { &jail_calls_process, &server_set };
	struct jail_path_rule rules[2 * CONFIG_EXPORTS_MAX];
	struct jail_spec spec = {
		.component = "fsserver",
		.syscall_sets = sets,
		.syscall_set_count = ARRAY_LENGTH(sets),
		.path_rules = rules,
		.landlock_minimum_abi = 2,
		.keep_all_fds = true,
		/* Root's own sessions act on files as root does; for others there are none to keep.
		 */
		.keep_capabilities = UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER |
				     UINT64_C(1) << CAP_CHOWN,
	};

	for (size_t i = 0; i < export_count; i++) {
		rules[spec.path_rule_count++] = (struct jail_path_rule){
			.fd = exports[i]->root_fd,
			.access = exports[i]->config->read_only ? JAIL_FS_READ : JAIL_FS_READ_WRITE,
		};
		if (exports[i]->store_fd >= 0)
			rules[spec.path_rule_count++] = (struct jail_path_rule){
				.fd = exports[i]->store_fd,
				.access = JAIL_FS_READ_WRITE,
			};
	}
	if (fchdir(exports[0]->scope.proc_fd) < 0)
		return -errno;
	return jail_enter(&spec, ret_report);
}
