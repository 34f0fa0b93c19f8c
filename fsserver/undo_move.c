/*
 * Theory of operation
 *
 * What goes out of the tree moves into grave/N, the very inode, by one rename; what this session
 * made itself is unlinked, since nothing is lost by that. Overwriting must show observers the old
 * or the new object and never nothing, so source and target are exchanged and the old target
 * leaves from the source's name. After a crash between the two steps the old target stands at the
 * source's name, where a roll-back finds it like any other object.
 *
 * Each rename is checked after the fact: when the host put something else under the name between
 * the check and the rename, the rename is taken back and the guest sees -ESTALE.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_session.h"

struct place {
	int fd;
	const char *path;
	const char *name;
	uint32_t directory;
	struct statx stat;
	struct session_object *object; /* NULL: nothing stands there */
	uint32_t number;
	bool born;
	bool moved;	  /* SESSION_MOVED */
	bool name_is_new; /* the log says that the object was not there before */
};

/* What stands at the place must be what the caller judged. */
static int look(struct undo *undo, struct place *place, const struct undo_inode *expected)
{
	int result;

	if (!undo_name_valid(place->name, strlen(place->name)))
		return -EINVAL;
	if (expected && expected->device != undo->device)
		return -EXDEV;
	result = session_directory(undo, place->fd, place->path, &place->directory);
	if (result < 0)
		return result;
	result = undo_statx(place->fd, place->name, &place->stat);
	if (!expected)
		return result == -ENOENT ? 0 : result < 0 ? result : -ESTALE;
	if (result < 0)
		return result == -ENOENT ? -ESTALE : result;
	if (place->stat.stx_ino != expected->ino)
		return -ESTALE;
	result = session_object(undo, &place->stat, place->directory, place->name, &place->object);
	if (result < 0)
		return result;
	place->number = place->object->number;
	place->born = place->object->flags & SESSION_BORN;
	place->moved = place->object->flags & SESSION_MOVED;
	/* Under a new parent its ".." changes, and with it, on XFS, its modification time. */
	if (S_ISDIR(place->stat.stx_mode))
		return session_touch(undo, place->object, &place->stat, SESSION_ENTRIES);
	return 0;
}

/* Objects may have moved in memory since: only numbers are kept across calls. */
static int claim(struct undo *undo, struct place *place)
{
	struct session_object *object = NULL;
	struct session_entry *entry;
	int result;

	if (place->number)
		object = session_find(undo, place->stat.stx_ino);
	result = session_claim(undo, place->directory, place->name, object, &entry);
	if (result == 0)
		place->name_is_new = entry->claimed != place->number;
	return result;
}

/* The place holds the object `number` now; what was there has left. */
static void leave(struct undo *undo, const struct place *place, uint32_t number)
{
	struct session_entry *entry;
	const struct session_object none = { .number = number, .flags = SESSION_BORN };

	/* The entry exists by now, so this records nothing and cannot fail. */
	(void)session_claim(undo, place->directory, place->name, number ? &none : NULL, &entry);
	if (place->number && !place->name_is_new)
		session_find(undo, place->stat.stx_ino)->flags |= SESSION_MOVED;
}

static bool stands_at(int fd, const char *name, const struct statx *expected)
{
	struct statx stat;

	return undo_statx(fd, name, &stat) == 0 && stat.stx_ino == expected->stx_ino;
}

/* A directory that the owner may not read or write can be removed but not moved, since its ".."
 * changes, nor looked into. Its mode is opened up; the log has the mode before. */
static int open_up(struct undo *undo, const struct place *place)
{
	cleanup_fd int fd = undo_open_beneath(place->fd, place->name, O_PATH | O_DIRECTORY, 0);
	mode_t mode = place->stat.stx_mode & 07777;
	int result;

	if (fd < 0)
		return fd;
	if ((mode & S_IRWXU) != S_IRWXU && !place->born) {
		result = session_touch(undo, session_find(undo, place->stat.stx_ino), &place->stat,
				       SESSION_ATTRIBUTES);
		if (result == 0)
			result = undo_chmod(undo->proc_fd, fd, mode | S_IRWXU);
		if (result < 0)
			return result;
	}
	result = undo_directory_empty(fd);
	if (result < 0 && (mode & S_IRWXU) != S_IRWXU && !place->born)
		(void)undo_chmod(undo->proc_fd, fd, mode);
	return result;
}

/* Moves what stands at `place` (verified as `stat`) into the grave. */
static int bury(struct undo *undo, const struct place *place)
{
	struct undo_number_name name = undo_number_name(undo->next_grave);
	bool directory = S_ISDIR(place->stat.stx_mode);
	uint64_t bytes = directory ? 0 : place->stat.stx_blocks * 512;
	int result = session_charge(undo, bytes, 1);

	if (result < 0)
		return result;
	if (renameat2(place->fd, place->name, undo->grave_fd, name.text, RENAME_NOREPLACE))
		result = -errno;
	if (result == 0 && !stands_at(undo->grave_fd, name.text, &place->stat))
		result = -ESTALE;
	if (result == 0 && directory) {
		cleanup_fd int fd =
			undo_open_beneath(undo->grave_fd, name.text, O_PATH | O_DIRECTORY, 0);

		/* The host may have filled it after the first look. */
		if (fd >= 0 && undo_directory_empty(fd) == -ENOTEMPTY)
			result = -ENOTEMPTY;
	}
	if (result == -ESTALE || result == -ENOTEMPTY)
		(void)!renameat2(undo->grave_fd, name.text, place->fd, place->name,
				 RENAME_NOREPLACE);
	if (result < 0) {
		undo->stored_bytes -= bytes;
		undo->stored_files--;
		return result;
	}
	undo->next_grave++;
	return 0;
}

/* What the session made is unlinked. So is a name that the session made of an object from before
 * it, while that object still stands where it was: its link count then shows what the guest did. */
static int take_away(struct undo *undo, const struct place *place)
{
	bool directory = S_ISDIR(place->stat.stx_mode);
	bool spare = place->name_is_new && !place->moved && !directory && place->stat.stx_nlink > 1;

	if (!place->born && !spare)
		return bury(undo, place);
	return unlinkat(place->fd, place->name, directory ? AT_REMOVEDIR : 0) ? -errno : 0;
}

int undo_remove(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		int child_fd, struct undo_inode child, bool directory)
{
	struct place place = { .fd = parent_fd, .path = parent_path, .name = name };
	int result = session_begin(undo);

	(void)child_fd; /* the inode number cannot be reused while the caller holds it open */
	if (result == 0)
		result = look(undo, &place, &child);
	if (result < 0)
		return result;
	if (directory != S_ISDIR(place.stat.stx_mode))
		return directory ? -ENOTDIR : -EISDIR;
	result = claim(undo, &place);
	if (result == 0 && directory && !place.born)
		result = open_up(undo, &place);
	if (result == 0)
		result = take_away(undo, &place);
	if (result == 0)
		leave(undo, &place, 0);
	return result;
}

/* POSIX: what may come to stand in whose place. */
static int check_types(struct undo *undo, const struct place *source, const struct place *target)
{
	bool from = S_ISDIR(source->stat.stx_mode);
	bool to = S_ISDIR(target->stat.stx_mode);

	if (from && !to)
		return -ENOTDIR;
	if (!from && to)
		return -EISDIR;
	return to ? open_up(undo, target) : 0;
}

static int exchange(const struct place *source, const struct place *target)
{
	if (renameat2(source->fd, source->name, target->fd, target->name, RENAME_EXCHANGE))
		return errno == ENOENT ? -ESTALE : -errno;
	if (stands_at(source->fd, source->name, &target->stat) &&
	    stands_at(target->fd, target->name, &source->stat))
		return 0;
	(void)!renameat2(source->fd, source->name, target->fd, target->name, RENAME_EXCHANGE);
	return -ESTALE;
}

static int replace(struct undo *undo, const struct place *source, const struct place *target)
{
	struct place old = *target;
	int result = exchange(source, target);

	if (result < 0)
		return result;
	old.fd = source->fd;
	old.name = source->name;
	result = take_away(undo, &old);
	if (result < 0)
		(void)!renameat2(source->fd, source->name, target->fd, target->name,
				 RENAME_EXCHANGE);
	return result;
}

static int move(const struct place *source, const struct place *target)
{
	if (renameat2(source->fd, source->name, target->fd, target->name, RENAME_NOREPLACE))
		return errno == EEXIST || errno == ENOENT ? -ESTALE : -errno;
	if (stands_at(target->fd, target->name, &source->stat))
		return 0;
	(void)!renameat2(target->fd, target->name, source->fd, source->name, RENAME_NOREPLACE);
	return -ESTALE;
}

int undo_rename(struct undo *undo, const struct undo_rename *rename)
{
	struct place source = { .fd = rename->old_parent_fd,
				.path = rename->old_parent_path,
				.name = rename->old_name };
	struct place target = { .fd = rename->new_parent_fd,
				.path = rename->new_parent_path,
				.name = rename->new_name };
	bool overwrites = rename->target_fd >= 0;
	bool swaps = rename->flags & RENAME_EXCHANGE;
	int result;

	if ((rename->flags & ~(unsigned)(RENAME_EXCHANGE | RENAME_NOREPLACE)) ||
	    rename->flags == (RENAME_EXCHANGE | RENAME_NOREPLACE))
		return -EINVAL;
	if (overwrites && (rename->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (!overwrites && swaps)
		return -ENOENT;
	result = session_begin(undo);
	if (result == 0)
		result = look(undo, &source, &rename->source);
	if (result == 0)
		result = look(undo, &target, overwrites ? &rename->target : NULL);
	if (result < 0)
		return result;
	if (overwrites && source.number == target.number)
		return 0; /* two names of one file: POSIX has nothing happen */
	result = claim(undo, &source);
	if (result == 0)
		result = claim(undo, &target);
	if (result == 0 && overwrites && !swaps)
		result = check_types(undo, &source, &target);
	if (result < 0)
		return result;
	if (swaps)
		result = exchange(&source, &target);
	else if (overwrites)
		result = replace(undo, &source, &target);
	else
		result = move(&source, &target);
	if (result < 0)
		return result;
	leave(undo, &source, swaps ? target.number : 0);
	leave(undo, &target, source.number);
	return 0;
}
