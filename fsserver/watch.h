/*
 * Changes that the host makes to what the guest has cached, by inotify on the directories that
 * the guest has looked into.
 *
 * The kernel reports our own changes as well. Each report is therefore held against what the
 * guest was last told (node->told): only news are passed on. Names that the guest itself removed
 * are expected, and their reports swallowed.
 *
 * Notifications are queued as encoded operations; the session takes them from here. A lost event,
 * or more than WATCH_QUEUE_MAX bytes unsent, becomes one FS_NOTIFY_EVERYTHING.
 */
#ifndef FSSERVER_WATCH_H
#define FSSERVER_WATCH_H

#include "fsserver/node_table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WATCH_QUEUE_MAX (1024u * 1024u)

struct watch;
struct export;

int watch_new(struct export *export, struct watch **ret_watch);
/* Takes all watches back. */
void watch_free(struct watch *watch);

/* Watches a directory that the guest is about to look into. False when that is not possible. */
bool watch_directory(struct watch *watch, struct node *directory);
bool watch_covers(const struct watch *watch, const struct node *directory);
void watch_forget(struct watch *watch, struct node *node);
/* The guest itself is about to remove, or has replaced, this name. */
void watch_expect_gone(struct watch *watch, const struct node *directory, const char *name);

/* To be polled. */
int watch_fd(const struct watch *watch);
/* Reads what the kernel has; call when watch_fd is readable. */
void watch_read(struct watch *watch);
/* Takes up to `capacity` bytes of whole operations and tells their number; 0 when none wait. */
size_t watch_take(struct watch *watch, uint8_t *data, size_t capacity, unsigned operations_max,
		  unsigned *ret_operations);
bool watch_has_news(const struct watch *watch);

#endif
