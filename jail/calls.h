/*
 * The jail's own list of system calls: what a sanitizer's run time needs beside the program. Joined
 * by jail_enter() in builds with a sanitizer and in no other: it opens the filter so wide (fork and
 * exec for the symbolizer) that such a build is for testing, never for guarding anything.
 */
#ifndef JAIL_CALLS_H
#define JAIL_CALLS_H

#include "jail/jail.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define JAIL_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define JAIL_SANITIZER 1
#endif
#endif
#ifndef JAIL_SANITIZER
#define JAIL_SANITIZER 0
#endif

#if JAIL_SANITIZER
extern const struct jail_syscall_set jail_calls_sanitizer;
#endif

#endif
