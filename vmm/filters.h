/*
 * The filters of system calls that matchlock-vmm locks itself by, compiled when it is built:
 * compile_filters/main.c writes filters.c into the build from the lists of daemon_calls.h. Each
 * start is spared the compiling, and what is in force can be read beforehand.
 */
#ifndef VMM_FILTERS_H
#define VMM_FILTERS_H

#include "jail/jail.h"

enum vmm_filter {
	VMM_FILTER_CHILD,	  /* the process, when the engine is a child */
	VMM_FILTER_STORING_CHILD, /* the same, when the guest is to be stored */
	VMM_FILTER_IN_PROCESS,	  /* the process, when vCPUs are its threads */
	VMM_FILTER_STORING,	  /* the same, until the guest has been stored */
	VMM_FILTER_DEVICE_THREAD,
	VMM_FILTER_VCPU_THREAD,
	VMM_FILTERS,
};

extern const struct jail_filter vmm_filters[VMM_FILTERS];

#endif
