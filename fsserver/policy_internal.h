/*
 * The struct behind fsserver/policy.h, for the files that make it (policy_load.c) and judge by it
 * (policy.c) alone.
 */
#ifndef FSSERVER_POLICY_INTERNAL_H
#define FSSERVER_POLICY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "fsserver/policy.h"
#include "fsserver/policy_born.h"
#include "fsserver/policy_set.h"

struct policy {
	char *name;
	char hash[65];
	bool read_only;
	bool image;
	/* Some rule that refuses reads is not anchored: anything may be refused anywhere. */
	bool refuses_anywhere;
	bool refuses_reads;	  /* some rule does at all */
	struct policy_set *rules; /* all but allow, on folded names */
	struct policy_set *allow; /* on raw names */
	struct policy_roots *roots;
};

#endif
