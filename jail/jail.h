/*
 * The jail: one call by which a host daemon gives up, for good, everything it does not need.
 *
 * A daemon opens what it needs first (directories, sockets, /dev/kvm), then calls jail_enter()
 * while it still has a single thread, then reads the first byte that a guest had a hand in. The
 * stages, in this order, each of them irreversible:
 *
 *	descriptors     all but the listed ones (and 0, 1, 2) are closed
 *	namespaces      the wanted ones, where the host allows it
 *	empty-root      the root becomes an empty, read-only tmpfs (needs the mount namespace)
 *	rlimits         soft = hard = the given value, or the present hard limit if that is lower
 *	no-new-privs    exec can no longer add privileges
 *	landlock        no path but the given hierarchies; no TCP; no abstract sockets or signals
 *	                of others
 *	capabilities    none but the kept ones, in every set, also in the bounding set
 *	dumpable        no core file, no ptrace by other processes of the user
 *	seccomp         a system call that is not listed kills the whole process (SIGSYS)
 *
 * Landlock, namespaces and the empty root depend on the host: what is absent is left out and the
 *report says so, unless the spec names it as required. Every other stage either holds or
 *jail_enter() fails. After a failure the process is half locked: report->failed_stage says where,
 *and exiting is the only sensible thing left.
 *
 * Sources: landlock(7), seccomp(2), user_namespaces(7), capabilities(7), close_range(2).
 */
#ifndef JAIL_JAIL_H
#define JAIL_JAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>

/* ---- system calls -------------------------------------------------------------------------- */

#define JAIL_CONDITIONS_MAX 3

enum jail_compare {
	JAIL_EQUAL,	   /* argument == value */
	JAIL_NOT_EQUAL,	   /* argument != value */
	JAIL_AT_MOST,	   /* argument <= value, unsigned */
	JAIL_MASKED_EQUAL, /* (argument & mask) == value */
};

/* A condition on the argument with index 0..5, compared as 64 bits. A 32-bit argument may carry
 * anything in its upper half: compare such ones with JAIL_ARGUMENT_EQUAL32 and the like. */
struct jail_condition {
	uint8_t argument;
	enum jail_compare compare;
	uint64_t value;
	uint64_t mask; /* JAIL_MASKED_EQUAL only */
};

/*
 * One permitted call. All conditions of an entry must hold; several entries of the same number
 * are alternatives, and one without conditions permits every use. With `refuse_errno` the call
 * is not made but answers with that error, for calls that a library tries and can do without.
 *
 * A module declares the calls it makes beside its own code:
 *
 *	static const struct jail_syscall calls[] = {
 *		JAIL_CALL(SYS_epoll_wait),
 *		JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_UNIX)),
 *		JAIL_REFUSE(SYS_clone3, ENOSYS),
 *	};
 *	const struct jail_syscall_set reader_calls = JAIL_SET(calls);
 */
struct jail_syscall {
	int number;
	int refuse_errno;
	uint8_t condition_count;
	struct jail_condition conditions[JAIL_CONDITIONS_MAX];
};

struct jail_syscall_set {
	const struct jail_syscall *calls;
	size_t count;
};

#define JAIL_CALL(call_number)                                                                     \
	{                                                                                          \
		.number = (int)(call_number)                                                       \
	}
#define JAIL_CALL_IF(call_number, ...)                                                             \
	{                                                                                          \
		.number = (int)(call_number),                                                      \
		.condition_count = sizeof((const struct jail_condition[]){ __VA_ARGS__ }) /        \
				   sizeof(struct jail_condition),                                  \
		.conditions = {                                                                    \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}
#define JAIL_REFUSE(call_number, error)                                                            \
	{                                                                                          \
		.number = (int)(call_number), .refuse_errno = (error)                              \
	}
#define JAIL_SET(array)                                                                            \
	{                                                                                          \
		.calls = (array), .count = sizeof(array) / sizeof((array)[0])                      \
	}

/* One condition each, for the last arguments of JAIL_CALL_IF. */
#define JAIL_ARGUMENT_EQUAL(index, wanted)                                                         \
	{                                                                                          \
		.argument = (index), .compare = JAIL_EQUAL, .value = (uint64_t)(wanted)            \
	}
#define JAIL_ARGUMENT_EQUAL32(index, wanted)                                                       \
	{                                                                                          \
		.argument = (index), .compare = JAIL_MASKED_EQUAL, .value = (uint32_t)(wanted),    \
		.mask = UINT32_MAX                                                                 \
	}
/* None of the given bits may be set. */
#define JAIL_ARGUMENT_WITHOUT(index, bits)                                                         \
	{                                                                                          \
		.argument = (index), .compare = JAIL_MASKED_EQUAL, .value = 0,                     \
		.mask = (uint64_t)(bits)                                                           \
	}
/* The bits under `bits_mask` are exactly `wanted`. */
#define JAIL_ARGUMENT_MASKED(index, bits_mask, wanted)                                             \
	{                                                                                          \
		.argument = (index), .compare = JAIL_MASKED_EQUAL, .value = (uint64_t)(wanted),    \
		.mask = (uint64_t)(bits_mask)                                                      \
	}

/* What libc needs in any process that is up: read and write, memory without PROT_EXEC, clocks,
 * signals to itself, futex, exit. No path, socket, exec or new process. */
extern const struct jail_syscall_set jail_calls_process;
/* Threads by pthread_create() and pthread_join(); clone() only with CLONE_THREAD. clone3 is
 * refused with ENOSYS, because a filter cannot look into its struct. pthread_cancel() and
 * pthread_exit() load libgcc_s at run time: not available inside. */
extern const struct jail_syscall_set jail_calls_threads;

/* ---- filters ------------------------------------------------------------------------------- */

struct sock_filter; /* linux/filter.h */

/* System call sets, compiled for the kernel: what is not in them kills the process. jail_enter()
 * compiles by itself; a filter that was compiled before, when the program was built, say, spares a
 * start that, and a thread can add one for itself alone: a call must then pass both. */
struct jail_filter {
	const struct sock_filter *instructions;
	unsigned count;
	unsigned calls; /* distinct call numbers permitted */
};

/* Returns 0 with a filter for free(), -EINVAL for an entry with a bad condition, or another
 * negative errno. */
int jail_filter_compile(const struct jail_syscall_set *const *sets, size_t count,
			struct jail_filter **ret_filter);

/* Locks the calling thread for good; after jail_enter() (which sets no-new-privs). Takes neither
 * memory nor descriptors. Returns 0 or a negative errno. */
int jail_filter_enter_thread(const struct jail_filter *filter);

/* What that needs of the process's filter; the thread's own need not have it. */
extern const struct jail_syscall_set jail_calls_thread_filter;

/* ---- Landlock ------------------------------------------------------------------------------ */

/* Kernel bits (linux/landlock.h); those newer than Debian 12's header are given here. */
#define JAIL_FS_EXECUTE (UINT64_C(1) << 0)
#define JAIL_FS_WRITE_FILE (UINT64_C(1) << 1)
#define JAIL_FS_READ_FILE (UINT64_C(1) << 2)
#define JAIL_FS_READ_DIR (UINT64_C(1) << 3)
#define JAIL_FS_REMOVE_DIR (UINT64_C(1) << 4)
#define JAIL_FS_REMOVE_FILE (UINT64_C(1) << 5)
#define JAIL_FS_MAKE_CHAR (UINT64_C(1) << 6)
#define JAIL_FS_MAKE_DIR (UINT64_C(1) << 7)
#define JAIL_FS_MAKE_REG (UINT64_C(1) << 8)
#define JAIL_FS_MAKE_SOCK (UINT64_C(1) << 9)
#define JAIL_FS_MAKE_FIFO (UINT64_C(1) << 10)
#define JAIL_FS_MAKE_BLOCK (UINT64_C(1) << 11)
#define JAIL_FS_MAKE_SYM (UINT64_C(1) << 12)
#define JAIL_FS_REFER (UINT64_C(1) << 13)     /* ABI 2: rename and link between directories */
#define JAIL_FS_TRUNCATE (UINT64_C(1) << 14)  /* ABI 3 */
#define JAIL_FS_IOCTL_DEV (UINT64_C(1) << 15) /* ABI 5 */

/* List and read. */
#define JAIL_FS_READ (JAIL_FS_READ_FILE | JAIL_FS_READ_DIR)
/* What the owner of a tree of ordinary files does in it, renames to another such tree included;
 * no exec, no device nodes. */
#define JAIL_FS_READ_WRITE                                                                         \
	(JAIL_FS_READ | JAIL_FS_WRITE_FILE | JAIL_FS_TRUNCATE | JAIL_FS_REMOVE_DIR |               \
	 JAIL_FS_REMOVE_FILE | JAIL_FS_MAKE_DIR | JAIL_FS_MAKE_REG | JAIL_FS_MAKE_SYM |            \
	 JAIL_FS_MAKE_FIFO | JAIL_FS_MAKE_SOCK | JAIL_FS_REFER)

/* Access to everything beneath `fd` (a directory, O_PATH will do) or to the file `fd` itself,
 * where rights that only directories have are dropped. A rule's descriptor needs not be among
 * keep_fds; unless it is, jail_enter() closes it once the rule is in place. What was opened for
 * reading or writing before the jail keeps the rights of its open, device ioctls included; what
 * is opened relative to an old descriptor is judged by the rules. */
struct jail_path_rule {
	int fd;
	uint64_t access;
};

/* For `network_allowed`: otherwise denied from ABI 4 on. */
#define JAIL_NET_BIND_TCP (UINT64_C(1) << 0)
#define JAIL_NET_CONNECT_TCP (UINT64_C(1) << 1)
/* For `scope_allowed`: otherwise denied from ABI 6 on, unless to a process of the same jail. */
#define JAIL_SCOPE_ABSTRACT_UNIX_SOCKET (UINT64_C(1) << 0)
#define JAIL_SCOPE_SIGNAL (UINT64_C(1) << 1)

/* Newest ABI whose rights are handled here. */
#define JAIL_LANDLOCK_ABI_KNOWN 7

/* ---- the spec ------------------------------------------------------------------------------ */

struct jail_rlimit {
	int resource; /* RLIMIT_... */
	rlim_t value;
};

/* Zero-initialised is the tightest jail: nothing but jail_enter()'s own return is possible. All
 * memory stays the caller's and is not used after jail_enter() returns, except `component`. */
struct jail_spec {
	const char *component; /* "fsserver": for the report; static storage */

	/* Joined; the order does not matter, duplicates are fine. */
	const struct jail_syscall_set *const *syscall_sets;
	size_t syscall_set_count;
	/* Compiled already: the sets are not looked at. May be NULL. */
	const struct jail_filter *filter;

	const struct jail_path_rule *path_rules;
	size_t path_rule_count;
	uint64_t network_allowed;
	uint64_t scope_allowed;
	/* Below this ABI Landlock is left out and reported: ABI 1 refuses every rename between
	 * directories (EXDEV), so that a file server sets 2 here. 0 takes any. */
	int landlock_minimum_abi;
	bool landlock_required;

	const struct jail_rlimit *rlimits;
	size_t rlimit_count;

	/* CLONE_NEW... bits. With CAP_SYS_ADMIN they are taken directly and CLONE_NEWUSER is not
	 * used (the ids of others would turn into 65534); without, CLONE_NEWUSER is what makes
	 * the rest possible, and the process keeps its own uid and gid in it, alone. Leave
	 * CLONE_NEWUSER out where the process must see files of other users. */
	unsigned namespaces;
	unsigned namespaces_required; /* subset that must be had, or jail_enter() fails */
	/* With CLONE_NEWNS: nothing can be opened by an absolute path any more. Descriptors that
	 * were opened before keep working, relative opens included. To reopen an O_PATH descriptor
	 * inside, open /proc/self/fd (O_PATH) before and openat() the number in it. */
	bool empty_root;

	/* The process becomes another program by exec, one that is not ours and whose system
	 * calls nobody here knows: no seccomp filter (syscall_sets is not looked at), and dumpable
	 * stays as exec sets it. All else holds in that program too. */
	bool for_exec;

	uint64_t keep_capabilities; /* bits 1 << CAP_...; those not held are ignored */
	bool keep_dumpable;

	const int *keep_fds; /* beyond 0, 1 and 2; any order; negative entries are skipped */
	size_t keep_fd_count;
	bool keep_all_fds; /* leave all descriptors open; keep_fds is not looked at */
};

/* What is in force after jail_enter(). */
struct jail_report {
	const char *component;
	const char *failed_stage; /* NULL on success */
	bool descriptors_closed;
	unsigned namespaces;	     /* taken */
	unsigned namespaces_missing; /* wanted, not had */
	int namespaces_errno;	     /* why, positive */
	bool empty_root;
	int empty_root_errno; /* why not, positive */
	unsigned rlimits;
	bool no_new_privs;
	int landlock_abi;   /* in force; 0 when not */
	int landlock_errno; /* why not, positive */
	size_t landlock_rules;
	bool capabilities_dropped;
	uint64_t capabilities_kept;
	bool not_dumpable;
	unsigned seccomp_calls; /* distinct call numbers permitted; 0: not in force */
	bool sanitizer;		/* a sanitizer build, with its wider allowlist */
};

/* Room that jail_report_text() never exceeds. */
#define JAIL_REPORT_TEXT_MAX 512

/* Locks the process. Returns 0, or a negative errno with report->failed_stage set: -EINVAL for a
 * spec that makes no sense, -EPERM for a required namespace or Landlock that the host refuses.
 * `report` is always filled in. Call with one thread. */
int jail_enter(const struct jail_spec *spec, struct jail_report *report);

/* One line such as
 *	no-new-privs seccomp(63 calls) landlock(abi 7, 2 rules) rlimits(4)
 *	namespaces(user,mount,net) empty-root capabilities(none) not-dumpable
 * with " missing: ..." at the end for what the host lacks. NUL-terminated, cut to fit. Returns
 * the length without the NUL. */
size_t jail_report_text(const struct jail_report *report, char *text, size_t size);

/* ---- separate helpers ---------------------------------------------------------------------- */

/* SIGKILL for the caller when its parent thread ends. Returns -ESRCH when the parent is no
 * longer `expected_parent`, i.e. it was already gone. Take the pid before fork(). */
int jail_die_with_parent(pid_t expected_parent);

/* Landlock ABI of the running kernel: >= 1, 0 when absent or disabled. */
int jail_landlock_abi(void);

/* Tries in a child process whether an ordinary user gets a user namespace with capabilities in
 * it (some distributions grant the first without the second). 0, or a negative errno. */
int jail_user_namespaces_allowed(void);

#endif
