/*
 * This daemon's events for the audit process (wire/audit.h), sent without waiting for it. A guest
 * can violate the vsock protocol at any rate, so that violations are limited to a burst of
 * AUDIT_CHANNEL_BURST and then one a second; what was left out is counted in the next one.
 */
#ifndef VMM_AUDIT_CHANNEL_H
#define VMM_AUDIT_CHANNEL_H

#include "wire/audit.h"

#include <stdint.h>

#define AUDIT_CHANNEL_BURST 8

struct audit_channel {
	int socket; /* borrowed; -1: nowhere */
	uint64_t tokens;
	uint64_t refilled_second;
	uint64_t suppressed;
	struct audit_event event;
};

void audit_channel_init(struct audit_channel *channel, int socket);
void audit_channel_jail(struct audit_channel *channel, const char *component, const char *detail);
void audit_channel_notice(struct audit_channel *channel, const char *component, const char *detail);
/* Returns whether it was within the limit (and so worth a message of our own). */
bool audit_channel_violation(struct audit_channel *channel, const char *component,
			     const char *detail);
/* Tells of violations that are still only counted. */
void audit_channel_flush(struct audit_channel *channel, const char *component);

#endif
