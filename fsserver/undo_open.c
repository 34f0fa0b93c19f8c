/* Opening, syncing and closing the undo store of a session. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_session.h"

/* Set aside for `progress`: room for the decisions about 1,500 files that the host edited. */
#define PROGRESS_BYTES 65536u

static int check_mounts(struct undo *undo)
{
	struct statx root;
	struct statx store;
	unsigned mask = STATX_BASIC_STATS | STATX_MNT_ID;

	if (statx(undo->root_fd, "", AT_EMPTY_PATH, mask, &root) ||
	    statx(undo->store_fd, "", AT_EMPTY_PATH, mask, &store))
		return -errno;
	if (root.stx_dev_major != store.stx_dev_major || root.stx_dev_minor != store.stx_dev_minor)
		return -EXDEV;
	if ((root.stx_mask & store.stx_mask & STATX_MNT_ID) && root.stx_mnt_id != store.stx_mnt_id)
		return -EXDEV;
	return 0;
}

/* Overwriting by rename is atomic only where two names can be exchanged. */
static int check_exchange(struct undo *undo)
{
	static const char *const names[] = { "exchange-a", "exchange-b" };
	int result = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		cleanup_fd int fd = openat(undo->store_fd, names[i],
					   O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);

		if (fd < 0)
			return -errno;
	}
	if (renameat2(undo->store_fd, names[0], undo->store_fd, names[1], RENAME_EXCHANGE))
		result = errno == EINVAL || errno == ENOSYS ? -EOPNOTSUPP : -errno;
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		(void)!unlinkat(undo->store_fd, names[i], 0);
	return result;
}

static int make_directory(int store_fd, const char *name, int *ret_fd)
{
	int fd;

	if (mkdirat(store_fd, name, 0700) && errno != EEXIST)
		return -errno;
	fd = undo_open_beneath(store_fd, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

static int open_log(struct undo *undo)
{
	struct stat stat;
	int fd = undo_open_beneath(undo->store_fd, "log", O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		close(fd);
		return -EBUSY;
	}
	if (fstat(fd, &stat) || stat.st_size > 0) {
		close(fd);
		return -EEXIST;
	}
	return undo_log_create(&undo->log, fd);
}

/* What a roll-back would have to make it finds made, so that it can begin on a full disk. */
static int prepare_roll_back(struct undo *undo)
{
	static const char *const directories[] = { "stage", "kept" };
	int flags = FS_NOCOW_FL;
	cleanup_fd int fd = -1;

	for (size_t i = 0; i < ARRAY_LENGTH(directories); i++) {
		if (mkdirat(undo->store_fd, directories[i], 0700) && errno != EEXIST)
			return -errno;
	}
	fd = undo_open_beneath(undo->store_fd, "progress", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return fd;
	/* For btrfs, where overwriting takes room too; others refuse it or need it not. */
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	return undo_log_set_aside(fd, PROGRESS_BYTES);
}

static int record_root(struct undo *undo)
{
	struct session_object *object;
	struct statx stat;
	struct stat plain;
	int result = undo_statx(undo->root_fd, "", &stat);

	if (result < 0 || fstat(undo->root_fd, &plain))
		return result < 0 ? result : -errno;
	undo->device = plain.st_dev;
	undo->next_number = UNDO_ROOT;
	return session_object(undo, &stat, 0, "", &object);
}

static void undo_free(struct undo *undo)
{
	const int fds[] = { undo->pre_fd, undo->grave_fd, undo->proc_fd };

	for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	undo_log_finish(&undo->log);
	for (uint32_t i = 0; i < undo->object_count; i++)
		free(undo->objects[i].bitmap);
	free(undo->objects);
	free(undo->entries);
	free(undo->names.bytes);
	free(undo->unsynced);
	undo_slots_finish(&undo->object_slots);
	undo_slots_finish(&undo->entry_slots);
	free(undo);
}

static int open_parts(struct undo *undo)
{
	int result = check_mounts(undo);

	if (result == 0)
		result = open_log(undo);
	if (result == 0)
		result = check_exchange(undo);
	if (result == 0)
		result = make_directory(undo->store_fd, "pre", &undo->pre_fd);
	if (result == 0)
		result = make_directory(undo->store_fd, "grave", &undo->grave_fd);
	if (result == 0)
		result = prepare_roll_back(undo);
	if (result < 0)
		return result;
	undo->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (undo->proc_fd < 0)
		return -errno;
	result = undo_slots_init(&undo->object_slots);
	if (result == 0)
		result = undo_slots_init(&undo->entry_slots);
	return result < 0 ? result : record_root(undo);
}

int undo_open(int store_fd, int root_fd, const struct undo_options *options, struct undo **ret_undo)
{
	struct undo *undo = calloc(1, sizeof(*undo));
	int result;

	if (!undo)
		return -ENOMEM;
	*undo = (struct undo){
		.store_fd = store_fd,
		.root_fd = root_fd,
		.pre_fd = -1,
		.grave_fd = -1,
		.proc_fd = -1,
		.log = { .fd = -1 },
	};
	if (options)
		undo->options = *options;
	result = open_parts(undo);
	if (result < 0) {
		undo_free(undo);
		return result;
	}
	*ret_undo = undo;
	return 0;
}

int undo_close(struct undo *undo)
{
	int result;

	if (!undo)
		return 0;
	result = session_pay_debts(undo);
	if (result == 0)
		result = session_append(undo, UNDO_RECORD_CLOSED, 0);
	if (result == 0)
		result = undo_sync(undo);
	undo_free(undo);
	return result;
}

int undo_sync(struct undo *undo)
{
	int result = session_pay_debts(undo);

	if (result < 0)
		return result;
	if (undo->sync_all && syncfs(undo->store_fd))
		return -errno;
	for (uint32_t i = 0; i < undo->unsynced_count && !undo->sync_all; i++) {
		cleanup_fd int fd = undo_open_beneath(
			undo->pre_fd, undo_number_name(undo->unsynced[i]).text, O_RDONLY, 0);

		if (fd < 0)
			return fd;
		if (fdatasync(fd))
			return -errno;
	}
	if (undo->unsynced_count > 0 && fsync(undo->pre_fd))
		return -errno;
	if (fdatasync(undo->log.fd))
		return -errno;
	undo->unsynced_count = 0;
	undo->sync_all = false;
	return 0;
}

void undo_usage(const struct undo *undo, uint64_t *ret_bytes, uint64_t *ret_entries)
{
	*ret_bytes = undo->stored_bytes + undo->log.end;
	*ret_entries = undo->stored_files;
}
