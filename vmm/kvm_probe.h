/*
 * Whether /dev/kvm can run Linux here, which is more than being able to open it: some hosts offer a
 * KVM that emulates instruction by instruction, is far too slow, and stops at instructions that a
 * kernel needs.
 *
 * The verdict is kept for as long as the host is up, in $XDG_RUNTIME_DIR/matchlock/kvm-probe (else
 * below $XDG_CACHE_HOME or ~/.cache), with the host's boot id in it. Whether /dev/kvm can be opened
 * is asked each time.
 */
#ifndef VMM_KVM_PROBE_H
#define VMM_KVM_PROBE_H

#include <stddef.h>

/* What a tiny guest in a machine of the engine's own parts came to. */
struct kvm_probe_outcome {
	int error;	   /* 0, or an errno of `step` */
	int exit_reason;   /* KVM's last, 0 before the first */
	int runs;	   /* completed: the instructions that Linux needs, then loops */
	long microseconds; /* of the fastest loop */
	char step[48];
};

/* The verdict on it: 0 or a negative errno, and why. */
int kvm_probe_judge(const struct kvm_probe_outcome *outcome, char *why, size_t size);

/* Returns 0, or a negative errno: -EOPNOTSUPP for a KVM that opens and cannot run Linux. `why` says
 * what was found in each case. Call with one thread. */
int kvm_probe_cached(char *why, size_t size);
/* The same, without looking at what was kept or keeping it. */
int kvm_probe_run(char *why, size_t size);

#endif
