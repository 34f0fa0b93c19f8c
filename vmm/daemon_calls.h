/*
 * The system calls of this daemon's threads once it is locked, beside what its modules declare in
 * their own headers.
 *
 * With vCPUs in this process there are three lists: the process's, which is in force from the lock
 * on and has room for starting threads; and two that threads add for themselves before the first
 * instruction of the guest, a vCPU's and the device thread's. filters.h has them compiled. Where
 * the guest is to be stored as it starts, the process's list has that as well, and the device
 * thread adds its own list when that is done, before the guest has spoken to anybody.
 */
#ifndef VMM_DAEMON_CALLS_H
#define VMM_DAEMON_CALLS_H

#include "jail/jail.h"

/* A NULL ends each list. */
extern const struct jail_syscall_set *const child_calls[]; /* the engine is a child process */
extern const struct jail_syscall_set *const storing_child_calls[];
extern const struct jail_syscall_set *const in_process_calls[];
extern const struct jail_syscall_set *const storing_calls[];
extern const struct jail_syscall_set *const device_thread_calls[];
extern const struct jail_syscall_set *const vcpu_thread_calls[];

#endif
