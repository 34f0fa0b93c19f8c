/*
 * Whether /dev/kvm can run Linux here, which is more than being able to open it: some hosts offer
 * a KVM that emulates instruction by instruction, and stops at those that a kernel needs.
 */
#ifndef CLI_KVM_PROBE_H
#define CLI_KVM_PROBE_H

#include <stdbool.h>
#include <stddef.h>

/* Runs a loop in long mode in a throw-away VM (a child process with a time limit does it). False
 * with the reason in `why`; true with how long it took. */
bool kvm_probe(char *why, size_t size);

#endif
