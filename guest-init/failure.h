/*
 * Why the guest could not be set up, as the host will tell it: FAILED of wire/agent.h.
 */
#ifndef GUEST_INIT_FAILURE_H
#define GUEST_INIT_FAILURE_H

struct failure {
	const char *stage; /* static */
	int error;	   /* errno, or 0 */
	char text[512];
};

/* Fills *failure (the first one wins) and returns -error, or -EIO when `error` is 0. */
int failure_set(struct failure *failure, const char *stage, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
