/*
 * All processes that came from one command, so that they can be killed together.
 *
 * In a guest each command has its own cgroup (v2) below `root`, and cgroup.kill ends the tree in
 * one write, forks in flight included. Without cgroups the tree is what /proc shows: the first
 * process' session and all its descendants, killed over and over until none is left to find.
 * Processes that a command's root user moved into another cgroup escape this; they end with the
 * guest.
 */
#ifndef GUEST_INIT_PROCESS_TREE_H
#define GUEST_INIT_PROCESS_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process_tree {
	int directory; /* the cgroup's, or -1 */
	pid_t leader;
	char name[32];
};

/* `cgroup_root` is an open directory of a cgroup2 mount, or -1. A cgroup that cannot be made
 * leaves the other way. */
void process_tree_create(struct process_tree *tree, int cgroup_root, uint32_t id);
/* fork(), but the child begins in the cgroup. There it sets *ret_result, 0 or a negative errno:
 * without the cgroup it must not go on. Only for a process of one thread. */
pid_t process_tree_fork(const struct process_tree *tree, int *ret_result);
void process_tree_kill(const struct process_tree *tree);
/* After the first process has ended: true when no process of the tree is left, and the cgroup
 * removed. Otherwise what is left has been killed; call again when more children were reaped. */
bool process_tree_finish(struct process_tree *tree, int cgroup_root);

#endif
