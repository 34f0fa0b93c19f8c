#include "jail/calls.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

static const struct jail_syscall process_calls[] = {
	JAIL_CALL(SYS_read),
	JAIL_CALL(SYS_write),
	JAIL_CALL(SYS_close),
	JAIL_CALL(SYS_lseek),
	JAIL_CALL(SYS_fstat),
	/* fstat() of newer C libraries: an empty path with AT_EMPTY_PATH. The path cannot be
	 * looked at here; Landlock does not govern stat, so a stat of a path stays possible
	 * unless the root is empty. */
	JAIL_CALL(SYS_newfstatat),
	JAIL_CALL(SYS_brk),
	JAIL_CALL_IF(SYS_mmap, JAIL_ARGUMENT_WITHOUT(2, PROT_EXEC)),
	JAIL_CALL_IF(SYS_mprotect, JAIL_ARGUMENT_WITHOUT(2, PROT_EXEC)),
	JAIL_CALL(SYS_munmap),
	JAIL_CALL(SYS_mremap),
	JAIL_CALL(SYS_madvise),
	JAIL_CALL(SYS_futex),
	JAIL_CALL(SYS_sched_yield),
	JAIL_CALL(SYS_clock_gettime),
	JAIL_CALL(SYS_clock_nanosleep),
	JAIL_CALL(SYS_gettimeofday),
	JAIL_CALL(SYS_time),
	JAIL_CALL(SYS_getrandom),
	JAIL_CALL(SYS_rt_sigaction),
	JAIL_CALL(SYS_rt_sigprocmask),
	JAIL_CALL(SYS_rt_sigreturn),
	JAIL_CALL(SYS_sigaltstack),
	JAIL_CALL(SYS_restart_syscall),
	JAIL_CALL(SYS_getpid),
	JAIL_CALL(SYS_gettid),
	/* abort(): the target is checked by the kernel's own rules and by Landlock's scope. */
	JAIL_CALL(SYS_tgkill),
	JAIL_CALL(SYS_exit),
	JAIL_CALL(SYS_exit_group),
};
const struct jail_syscall_set jail_calls_process = JAIL_SET(process_calls);

static const struct jail_syscall thread_calls[] = {
	JAIL_CALL_IF(SYS_clone, JAIL_ARGUMENT_MASKED(0, CLONE_THREAD, CLONE_THREAD)),
	JAIL_REFUSE(SYS_clone3, ENOSYS),
	JAIL_CALL(SYS_set_robust_list),
	JAIL_CALL(SYS_rseq),
	JAIL_CALL(SYS_sched_getaffinity),
};
const struct jail_syscall_set jail_calls_threads = JAIL_SET(thread_calls);

#if JAIL_SANITIZER
static const struct jail_syscall sanitizer_calls[] = {
	/* Shadow memory, and the maps file for error reports. */
	JAIL_CALL(SYS_mmap),
	JAIL_CALL(SYS_mprotect),
	JAIL_CALL(SYS_open),
	JAIL_CALL(SYS_openat),
	JAIL_CALL(SYS_readlink),
	JAIL_CALL(SYS_readlinkat),
	JAIL_CALL(SYS_stat),
	JAIL_CALL(SYS_lstat),
	JAIL_CALL(SYS_getcwd),
	JAIL_CALL(SYS_access),
	JAIL_CALL(SYS_getdents64),
	JAIL_CALL(SYS_ioctl),
	JAIL_CALL(SYS_prlimit64),
	JAIL_CALL(SYS_getrlimit),
	JAIL_CALL(SYS_setrlimit),
	JAIL_CALL(SYS_getrusage),
	JAIL_CALL(SYS_sysinfo),
	JAIL_CALL(SYS_uname),
	JAIL_CALL(SYS_nanosleep),
	JAIL_CALL(SYS_sched_getaffinity),
	JAIL_CALL(SYS_set_robust_list),
	JAIL_CALL(SYS_rseq),
	JAIL_CALL(SYS_prctl),
	JAIL_CALL(SYS_arch_prctl),
	/* The end of a thread. */
	JAIL_CALL(SYS_munmap),
	JAIL_CALL(SYS_sigaltstack),
	/* The symbolizer, a child process. */
	JAIL_CALL(SYS_clone),
	JAIL_CALL(SYS_fork),
	JAIL_CALL(SYS_execve),
	JAIL_CALL(SYS_pipe),
	JAIL_CALL(SYS_pipe2),
	JAIL_CALL(SYS_dup),
	JAIL_CALL(SYS_dup2),
	JAIL_CALL(SYS_wait4),
	JAIL_CALL(SYS_kill),
	JAIL_CALL(SYS_getppid),
};
const struct jail_syscall_set jail_calls_sanitizer = JAIL_SET(sanitizer_calls);
#endif
