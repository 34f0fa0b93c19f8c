/*
 * The system calls of this daemon's threads once it is locked, beside what its modules declare in
 * their own headers.
 *
 * With vCPUs in this process there are three lists: the process's, which is in force from the lock
 * on and has room for starting threads; and two that threads add for themselves before the first
 * instruction of the guest, a vCPU's and the device thread's.
 */
#ifndef VMM_DAEMON_CALLS_H
#define VMM_DAEMON_CALLS_H

#include "jail/jail.h"

/* What every form does, beside jail_calls_process and the vsock muxer. */
extern const struct jail_syscall_set daemon_calls;

/* Of a process with vCPUs, beside those; a NULL ends each list. */
extern const struct jail_syscall_set *const in_process_calls[];
/* Complete. */
extern const struct jail_syscall_set *const device_thread_calls[];
extern const struct jail_syscall_set *const vcpu_thread_calls[];

size_t daemon_calls_count(const struct jail_syscall_set *const *list);

#endif
