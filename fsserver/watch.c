#include "fsserver/watch.h"

#include "base/checked.h"
#include "fsserver/export.h"
#include "wire/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
/* The default one falls through its cases, which clang takes for a mistake. */
#define HASH_FUNCTION HASH_FNV
#include <uthash.h>

/* Beyond reports of what the guest removed, so many may be outstanding before all are forgotten. */
#define EXPECTED_MAX 65536u
#define EVENTS_SIZE 65536

#define WATCHED                                                                                    \
	(IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO |             \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)

/* Which directory a watch descriptor stands for. */
struct watched {
	int descriptor;
	uint64_t node;
	UT_hash_handle hh;
};

/* A name that the guest itself removes: `count` reports of that are no news. */
struct expected_key {
	uint64_t node;
	uint64_t name_hash;
};
struct expected {
	struct expected_key key;
	unsigned count;
	UT_hash_handle hh;
};

struct watch {
	struct export *export;
	int fd;
	struct watched *table;
	struct expected *expected;
	bool everything; /* the queue was lost: say so, and nothing else */
	uint8_t *queue;
	size_t length;
	size_t taken;
	size_t capacity;
	uint64_t last_node; /* of the latest queued INODE, to leave out repetitions */
};

int watch_new(struct export *export, struct watch **ret_watch)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return -ENOMEM;
	watch->export = export;
	watch->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (watch->fd < 0) {
		free(watch);
		return -errno;
	}
	*ret_watch = watch;
	return 0;
}

static void forget_expected(struct watch *watch)
{
	struct expected *expected;
	struct expected *next;

	HASH_ITER(hh, watch->expected, expected, next)
	{
		HASH_DEL(watch->expected, expected);
		free(expected);
	}
}

void watch_free(struct watch *watch)
{
	struct watched *watched;
	struct watched *next;

	if (!watch)
		return;
	HASH_ITER(hh, watch->table, watched, next)
	{
		struct node *node = node_table_get(watch->export->nodes, watched->node);

		if (node)
			node->watch = -1;
		HASH_DEL(watch->table, watched);
		free(watched);
	}
	forget_expected(watch);
	close(watch->fd);
	free(watch->queue);
	free(watch);
}

int watch_fd(const struct watch *watch)
{
	return watch->fd;
}

bool watch_covers(const struct watch *watch, const struct node *directory)
{
	(void)watch;
	return directory->watch >= 0;
}

bool watch_directory(struct watch *watch, struct node *directory)
{
	struct watched *watched;
	char name[HOST_FD_NAME_MAX];
	int descriptor;

	if (directory->watch >= 0)
		return true;
	if (watch->export->config->immutable)
		return false;
	/* By its name in /proc/self/fd, the working directory of a serving process. */
	descriptor = inotify_add_watch(watch->fd, host_fd_name(directory->fd, name), WATCHED);
	if (descriptor < 0)
		return false;
	HASH_FIND_INT(watch->table, &descriptor, watched);
	if (!watched) {
		watched = calloc(1, sizeof(*watched));
		if (!watched) {
			inotify_rm_watch(watch->fd, descriptor);
			return false;
		}
		watched->descriptor = descriptor;
		HASH_ADD_INT(watch->table, descriptor, watched);
	}
	watched->node = directory->id;
	directory->watch = descriptor;
	return true;
}

static void drop(struct watch *watch, int descriptor)
{
	struct watched *watched;

	HASH_FIND_INT(watch->table, &descriptor, watched);
	if (!watched)
		return;
	HASH_DEL(watch->table, watched);
	free(watched);
}

void watch_forget(struct watch *watch, struct node *node)
{
	if (node->watch < 0)
		return;
	inotify_rm_watch(watch->fd, node->watch);
	drop(watch, node->watch);
	node->watch = -1;
}

/* ---- what is expected ----------------------------------------------------------------------- */

static struct expected_key expected_key(uint64_t node, const char *name)
{
	struct expected_key key = { .node = node, .name_hash = UINT64_C(14695981039346656037) };

	for (; *name; name++)
		key.name_hash = (key.name_hash ^ (uint8_t)*name) * UINT64_C(1099511628211);
	return key;
}

void watch_expect_gone(struct watch *watch, const struct node *directory, const char *name)
{
	struct expected_key key = expected_key(directory->id, name);
	struct expected *expected;

	if (directory->watch < 0)
		return;
	HASH_FIND(hh, watch->expected, &key, sizeof(key), expected);
	if (!expected) {
		if (HASH_COUNT(watch->expected) >= EXPECTED_MAX)
			forget_expected(watch);
		expected = calloc(1, sizeof(*expected));
		/* Without it the guest hears of its own removal, which harms nobody. */
		if (!expected)
			return;
		expected->key = key;
		HASH_ADD(hh, watch->expected, key, sizeof(key), expected);
	}
	expected->count++;
}

static bool was_expected(struct watch *watch, const struct node *directory, const char *name)
{
	struct expected_key key = expected_key(directory->id, name);
	struct expected *expected;

	/* The analyzer loses track of a structure that is hashed byte by byte. */
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
	HASH_FIND(hh, watch->expected, &key, sizeof(key), expected);
	if (!expected)
		return false;
	if (--expected->count == 0) {
		HASH_DEL(watch->expected, expected);
		free(expected);
	}
	return true;
}

/* ---- the queue ------------------------------------------------------------------------------ */

static void lose_track(struct watch *watch)
{
	watch->everything = true;
	watch->length = 0;
	watch->taken = 0;
	watch->last_node = 0;
	forget_expected(watch);
}

static void queue(struct watch *watch, enum fs_notify_what what, uint64_t node, const char *name)
{
	size_t name_length = strlen(name);
	struct fs_notify notify = {
		.what = what,
		.name_length = (uint16_t)name_length,
		.nodeid = node,
	};
	struct fs_op op = {
		.opcode = FS_NOTIFY,
		.length = (uint32_t)(sizeof(notify) + name_length),
	};
	size_t length = sizeof(op) + op.length;
	uint8_t *place;

	if (watch->everything || (what == FS_NOTIFY_INODE && watch->last_node == node))
		return;
	if (watch->length + length > watch->capacity) {
		size_t capacity = MAX_OF(watch->capacity * 2, (size_t)4096);
		uint8_t *grown = NULL;

		if (capacity <= WATCH_QUEUE_MAX)
			grown = realloc(watch->queue, capacity);
		if (!grown) {
			lose_track(watch);
			return;
		}
		watch->queue = grown;
		watch->capacity = capacity;
	}
	place = watch->queue + watch->length;
	memcpy(place, &op, sizeof(op));
	memcpy(place + sizeof(op), &notify, sizeof(notify));
	memcpy(place + sizeof(op) + sizeof(notify), name, name_length);
	watch->length += length;
	watch->last_node = what == FS_NOTIFY_INODE ? node : 0;
}

bool watch_has_news(const struct watch *watch)
{
	return watch->everything || watch->taken < watch->length;
}

size_t watch_take(struct watch *watch, uint8_t *data, size_t capacity, unsigned operations_max,
		  unsigned *ret_operations)
{
	size_t written = 0;

	*ret_operations = 0;
	if (watch->everything) {
		watch->everything = false;
		queue(watch, FS_NOTIFY_EVERYTHING, 0, "");
	}
	while (watch->taken < watch->length && *ret_operations < operations_max) {
		struct fs_op op;
		size_t length;

		memcpy(&op, watch->queue + watch->taken, sizeof(op));
		length = sizeof(op) + op.length;
		if (written + length > capacity)
			break;
		memcpy(data + written, watch->queue + watch->taken, length);
		written += length;
		watch->taken += length;
		++*ret_operations;
	}
	if (watch->taken == watch->length) {
		watch->taken = 0;
		watch->length = 0;
		watch->last_node = 0;
	}
	return written;
}

/* ---- events --------------------------------------------------------------------------------- */

/* Notes that the node is not what the guest was told. */
static void check_node(struct watch *watch, struct node *node)
{
	struct statx stat;
	struct node_stamp now;

	/* A cold node that cannot be found again is surely not what it was. */
	if (export_use(watch->export, node) || host_stat(node->fd, &stat)) {
		queue(watch, FS_NOTIFY_INODE, node->id, "");
		return;
	}
	now = node_stamp_of(&stat);
	if (node_stamp_equal(&now, &node->told))
		return;
	node->told = now;
	node->content_known = false;
	queue(watch, FS_NOTIFY_INODE, node->id, "");
}

/* The directory's own times moved with what happened in it; the guest's kernel knows that of its
 * own changes and must be told of the host's. */
static void name_changed(struct watch *watch, struct node *directory, const char *name)
{
	queue(watch, FS_NOTIFY_ENTRY, directory->id, name);
	check_node(watch, directory);
}

static void name_event(struct watch *watch, struct node *directory,
		       const struct inotify_event *event)
{
	struct export *export = watch->export;
	struct node *node;
	struct statx stat;
	int fd;

	if (event->mask & (IN_DELETE | IN_MOVED_FROM)) {
		if (!was_expected(watch, directory, event->name))
			name_changed(watch, directory, event->name);
		return;
	}
	if (export_use(export, directory) ||
	    export_open_child(export, directory->fd, event->name, &fd, &stat)) {
		/* Gone again: the event of that says the rest. */
		if (event->mask & (IN_CREATE | IN_MOVED_TO))
			name_changed(watch, directory, event->name);
		return;
	}
	close(fd);
	node = export_known_node(export, &stat);
	if (!node) {
		/* What the guest does not know it cannot have cached but as missing. */
		if (event->mask & (IN_CREATE | IN_MOVED_TO))
			name_changed(watch, directory, event->name);
		return;
	}
	if (event->mask & (IN_CREATE | IN_MOVED_TO)) {
		struct node_stamp now = node_stamp_of(&stat);

		if (!node_stamp_equal(&now, &node->told) || node->parent != directory->id)
			name_changed(watch, directory, event->name);
	}
	check_node(watch, node);
}

static void handle_event(struct watch *watch, const struct inotify_event *event)
{
	struct watched *watched;
	struct node *directory;

	if (event->mask & IN_Q_OVERFLOW) {
		lose_track(watch);
		return;
	}
	HASH_FIND_INT(watch->table, &event->wd, watched);
	if (!watched)
		return;
	directory = node_table_get(watch->export->nodes, watched->node);
	node_table_begin(watch->export->nodes);
	if (event->mask & IN_IGNORED) {
		if (directory)
			directory->watch = -1;
		drop(watch, event->wd);
		return;
	}
	if (!directory)
		return;
	if (event->len > 0)
		name_event(watch, directory, event);
	else
		check_node(watch, directory);
}

void watch_read(struct watch *watch)
{
	static _Alignas(struct inotify_event) char events[EVENTS_SIZE];
	ssize_t length;

	while ((length = read(watch->fd, events, sizeof(events))) > 0) {
		for (ssize_t at = 0; at < length;) {
			const struct inotify_event *event =
				(const struct inotify_event *)(const void *)(events + at);

			handle_event(watch, event);
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
}
