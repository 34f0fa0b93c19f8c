/*
 * A scratch tree with an undo store beside it, operations on it as the file server carries them
 * out, and a snapshot of everything that a roll-back must restore. Shared by the undo tests.
 */
#ifndef TESTS_UNIT_UNDO_WORLD_H
#define TESTS_UNIT_UNDO_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fsserver/undo.h"
#include "fsserver/undo_file.h"

#define WORLD_HANDLES 4
#define WORLD_PATH 512

struct world_handle {
	int fd; /* -1: free */
	bool wrote;
};

struct world {
	char base[128];
	int base_fd;
	int root_fd;
	int store_fd;
	struct undo *undo;
	struct world_handle handles[WORLD_HANDLES];
	uint64_t random;
};

static inline uint32_t world_random(struct world *world, uint32_t limit)
{
	world->random ^= world->random << 13;
	world->random ^= world->random >> 7;
	world->random ^= world->random << 17;
	return (uint32_t)((world->random >> 16) % limit);
}

static inline void world_die(const char *what, const char *path)
{
	fprintf(stderr, "undo world: %s %s: %s\n", what, path, strerror(errno));
	abort();
}

static inline void world_make(struct world *world, const char *where, uint64_t seed)
{
	memset(world, 0, sizeof(*world));
	snprintf(world->base, sizeof(world->base), "%s/undo-XXXXXX", where);
	if (!mkdtemp(world->base))
		world_die("mkdtemp", world->base);
	world->base_fd = open(world->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mkdirat(world->base_fd, "root", 0755) || mkdirat(world->base_fd, "store", 0700))
		world_die("mkdir", world->base);
	world->root_fd = openat(world->base_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	world->store_fd = openat(world->base_fd, "store", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < WORLD_HANDLES; i++)
		world->handles[i].fd = -1;
	world->random = seed * 2654435761u + 88172645463325252u;
}

static inline void world_close_handles(struct world *world)
{
	for (int i = 0; i < WORLD_HANDLES; i++) {
		struct world_handle *handle = &world->handles[i];
		struct stat stat;

		if (handle->fd >= 0 && handle->wrote && world->undo && !fstat(handle->fd, &stat))
			undo_did_change(world->undo,
					(struct undo_inode){ stat.st_dev, stat.st_ino }, &stat);
		if (handle->fd >= 0)
			close(handle->fd);
		handle->fd = -1;
	}
}

static inline void world_remove(struct world *world)
{
	char path[256];

	world_close_handles(world);
	undo_discard(world->base_fd);
	close(world->root_fd);
	close(world->store_fd);
	close(world->base_fd);
	snprintf(path, sizeof(path), "%s", world->base);
	rmdir(path);
}

/* ---- operations
 * ---------------------------------------------------------------------------------- */

struct world_place {
	int parent_fd;
	char parent[WORLD_PATH];
	char name[WORLD_PATH];
	int fd; /* O_PATH of what stands there, or -1 */
	struct stat stat;
};

static inline bool world_find(struct world *world, const char *path, struct world_place *place)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	memcpy(place->parent, path, length);
	place->parent[length] = '\0';
	snprintf(place->name, sizeof(place->name), "%s", slash ? slash + 1 : path);
	place->fd = -1;
	place->parent_fd =
		undo_open_beneath(world->root_fd, place->parent, O_PATH | O_DIRECTORY, 0);
	if (place->parent_fd < 0)
		return false;
	place->fd = undo_open_beneath(place->parent_fd, place->name, O_PATH, 0);
	if (place->fd >= 0 && fstat(place->fd, &place->stat))
		world_die("fstat", path);
	return true;
}

static inline void world_leave(struct world_place *place)
{
	if (place->fd >= 0)
		close(place->fd);
	if (place->parent_fd >= 0)
		close(place->parent_fd);
}

static inline struct undo_inode world_inode(const struct stat *stat)
{
	return (struct undo_inode){ stat->st_dev, stat->st_ino };
}

/* What a guest's handle is called now; NULL without a name in the tree. */
static inline const char *world_path_of(struct world *world, int fd, char *buffer)
{
	char link[40];
	char root[WORLD_PATH];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, buffer, WORLD_PATH - 1);
	if (length < 0)
		return NULL;
	buffer[length] = '\0';
	snprintf(root, sizeof(root), "%s/root/", world->base);
	if (strncmp(buffer, root, strlen(root)) != 0 || strstr(buffer, " (deleted)"))
		return NULL;
	return buffer + strlen(root);
}

static inline int world_make_name(struct world *world, const char *path, mode_t type,
				  const char *target)
{
	struct world_place place;
	int result = -ENOENT;
	struct stat made;

	if (world_find(world, path, &place)) {
		result = undo_will_create(world->undo, place.parent_fd, place.parent, place.name,
					  type);
		if (result == 0) {
			if (type == S_IFDIR)
				result = mkdirat(place.parent_fd, place.name, 0755);
			else if (type == S_IFLNK)
				result = symlinkat(target, place.parent_fd, place.name);
			else
				result = mknodat(place.parent_fd, place.name, type | 0644, 0);
			result = result ? -errno : 0;
			if (result == 0 &&
			    fstatat(place.parent_fd, place.name, &made, AT_SYMLINK_NOFOLLOW) == 0)
				undo_did_create(world->undo, &made);
			else
				undo_did_not_create(world->undo);
		}
	}
	world_leave(&place);
	return result;
}

static inline int world_link(struct world *world, const char *from, const char *to)
{
	struct world_place source;
	struct world_place target = { .fd = -1, .parent_fd = -1 };
	int result = -ENOENT;

	if (world_find(world, from, &source) && source.fd >= 0 && !S_ISDIR(source.stat.st_mode) &&
	    world_find(world, to, &target)) {
		result = undo_will_link(world->undo, target.parent_fd, target.parent, target.name,
					source.fd, world_inode(&source.stat));
		if (result == 0) {
			result = linkat(source.parent_fd, source.name, target.parent_fd,
					target.name, 0);
			result = result ? -errno : 0;
			if (result == 0)
				undo_did_create(world->undo, &source.stat);
			else
				undo_did_not_create(world->undo);
		}
	}
	world_leave(&source);
	world_leave(&target);
	return result;
}

static inline int world_unlink(struct world *world, const char *path)
{
	struct world_place place;
	int result = -ENOENT;

	if (world_find(world, path, &place) && place.fd >= 0)
		result = undo_remove(world->undo, place.parent_fd, place.parent, place.name,
				     place.fd, world_inode(&place.stat),
				     S_ISDIR(place.stat.st_mode));
	world_leave(&place);
	return result;
}

static inline int world_rename(struct world *world, const char *from, const char *to,
			       unsigned flags)
{
	struct world_place source;
	struct world_place target = { .fd = -1, .parent_fd = -1 };
	int result = -ENOENT;

	if (world_find(world, from, &source) && source.fd >= 0 && world_find(world, to, &target)) {
		struct undo_rename rename = {
			.old_parent_fd = source.parent_fd,
			.old_parent_path = source.parent,
			.old_name = source.name,
			.new_parent_fd = target.parent_fd,
			.new_parent_path = target.parent,
			.new_name = target.name,
			.source_fd = source.fd,
			.source = world_inode(&source.stat),
			.target_fd = target.fd,
			.flags = flags,
		};

		if (target.fd >= 0)
			rename.target = world_inode(&target.stat);
		result = undo_rename(world->undo, &rename);
	}
	world_leave(&source);
	world_leave(&target);
	return result;
}

static inline int world_write_fd(struct world *world, int fd, uint64_t offset, size_t length,
				 char fill)
{
	char buffer[WORLD_PATH];
	struct stat stat;
	char *data;
	int result;

	if (fstat(fd, &stat))
		return -errno;
	result = undo_will_write(world->undo, fd, world_inode(&stat),
				 world_path_of(world, fd, buffer), offset, length);
	if (result < 0)
		return result;
	data = malloc(length + 1);
	memset(data, fill, length);
	if (pwrite(fd, data, length, (off_t)offset) != (ssize_t)length)
		result = -ENOSPC;
	free(data);
	return result;
}

static inline int world_truncate_fd(struct world *world, int fd, uint64_t size)
{
	char buffer[WORLD_PATH];
	struct stat stat;
	int result;

	if (fstat(fd, &stat))
		return -errno;
	result = undo_will_write(world->undo, fd, world_inode(&stat),
				 world_path_of(world, fd, buffer), size, UINT64_MAX);
	if (result < 0)
		return result;
	return ftruncate(fd, (off_t)size) ? -errno : 0;
}

static inline int world_open(struct world *world, const char *path)
{
	return undo_open_beneath(world->root_fd, path, O_RDWR | O_NONBLOCK, 0);
}

static inline void world_did_change(struct world *world, int fd)
{
	struct stat stat;

	if (fstat(fd, &stat) == 0)
		undo_did_change(world->undo, world_inode(&stat), &stat);
}

static inline int world_write(struct world *world, const char *path, uint64_t offset, size_t length,
			      char fill)
{
	int fd = world_open(world, path);
	int result;

	if (fd < 0)
		return fd;
	result = world_write_fd(world, fd, offset, length, fill);
	world_did_change(world, fd);
	close(fd);
	return result;
}

static inline int world_truncate(struct world *world, const char *path, uint64_t size)
{
	int fd = world_open(world, path);
	int result;

	if (fd < 0)
		return fd;
	result = world_truncate_fd(world, fd, size);
	world_did_change(world, fd);
	close(fd);
	return result;
}

enum world_attribute { WORLD_MODE, WORLD_OWNER, WORLD_TIMES, WORLD_XATTR, WORLD_NO_XATTR };

static inline int world_attribute(struct world *world, const char *path,
				  enum world_attribute attribute, uint32_t value)
{
	struct timespec times[2] = { { value, 12345 }, { value + 1, 67891 } };
	struct world_place place;
	char proc[64];
	int result = -ENOENT;

	if (world_find(world, path, &place) && place.fd >= 0 && !S_ISLNK(place.stat.st_mode)) {
		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", place.fd);
		result = undo_will_set_attributes(world->undo, place.fd, world_inode(&place.stat),
						  path);
		if (result == 0) {
			if (attribute == WORLD_MODE)
				result = chmod(proc, value);
			else if (attribute == WORLD_OWNER)
				result = chown(proc, value, value);
			else if (attribute == WORLD_TIMES)
				result = utimensat(AT_FDCWD, proc, times, 0);
			else if (attribute == WORLD_XATTR)
				result = setxattr(proc, "user.one", &value, sizeof(value), 0);
			else
				result = removexattr(proc, "user.one");
			result = result ? -errno : 0;
			world_did_change(world, place.fd);
		}
	}
	world_leave(&place);
	return result;
}

/* ---- snapshots
 * ----------------------------------------------------------------------------------- */

static inline uint64_t world_hash(uint64_t hash, const void *data, size_t length)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * 1099511628211u;
	return hash;
}

static inline void world_snap_file(FILE *out, int directory, const char *name, bool holes)
{
	static char buffer[65536];
	int fd = openat(directory, name, O_RDONLY | O_NOATIME | O_NONBLOCK | O_CLOEXEC);
	uint64_t hash = 14695981039346656037u;
	ssize_t count;
	off_t at = 0;

	if (fd < 0)
		world_die("open", name);
	while ((count = read(fd, buffer, sizeof(buffer))) > 0)
		hash = world_hash(hash, buffer, (size_t)count);
	fprintf(out, " %016llx", (unsigned long long)hash);
	while (holes && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(fd, at, SEEK_HOLE);

		fprintf(out, " [%lld-%lld]", (long long)at, (long long)end);
		at = end;
	}
	close(fd);
}

static inline void world_snap_xattrs(FILE *out, const char *path)
{
	char list[4096];
	char value[4096];
	ssize_t length = llistxattr(path, list, sizeof(list));

	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1) {
		ssize_t size = lgetxattr(path, list + at, value, sizeof(value));

		if (strncmp(list + at, "user.", 5) == 0 && size >= 0)
			fprintf(out, " %s=%016llx", list + at,
				(unsigned long long)world_hash(1, value, (size_t)size));
	}
}

static inline void world_snap_object(FILE *out, int directory, const char *name, const char *path,
				     bool holes)
{
	struct stat stat;
	char full[1024];
	char target[256];
	ssize_t length;

	if (fstatat(directory, name, &stat, AT_SYMLINK_NOFOLLOW))
		world_die("stat", path);
	fprintf(out, "%s ino=%llu mode=%o nlink=%u uid=%u gid=%u mtime=%lld.%09ld", path,
		(unsigned long long)stat.st_ino, stat.st_mode, (unsigned)stat.st_nlink, stat.st_uid,
		stat.st_gid, (long long)stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec);
	if (!S_ISLNK(stat.st_mode))
		fprintf(out, " atime=%lld.%09ld", (long long)stat.st_atim.tv_sec,
			stat.st_atim.tv_nsec);
	if (S_ISREG(stat.st_mode)) {
		fprintf(out, " size=%lld", (long long)stat.st_size);
		world_snap_file(out, directory, name, holes);
	}
	if (S_ISLNK(stat.st_mode)) {
		length = readlinkat(directory, name, target, sizeof(target));
		fprintf(out, " -> %.*s", (int)length, target);
	}
	snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", directory, name);
	world_snap_xattrs(out, full);
	fputc('\n', out);
}

static inline void world_snap_directory(FILE *out, int directory, const char *path, bool holes)
{
	/* scandir would move the access time. */
	int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_NOATIME | O_CLOEXEC);
	DIR *stream = fdopendir(copy);
	char names[64][64];
	char child[1024];
	struct dirent *item;
	int count = 0;

	while ((item = readdir(stream)) && count < 64) {
		if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
			snprintf(names[count++], sizeof(names[0]), "%.63s", item->d_name);
	}
	closedir(stream);
	qsort(names, (size_t)count, sizeof(names[0]), (int (*)(const void *, const void *))strcmp);
	for (int i = 0; i < count; i++) {
		int fd;

		snprintf(child, sizeof(child), "%.900s%s%.63s", path, path[0] ? "/" : "", names[i]);
		world_snap_object(out, directory, names[i], child, holes);
		fd = openat(directory, names[i],
			    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
		if (fd >= 0) {
			world_snap_directory(out, fd, child, holes);
			close(fd);
		}
	}
}

/* One line per object; the caller frees it. `holes`: where SEEK_DATA is exact. */
static inline char *world_snapshot(struct world *world, bool holes)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	world_snap_object(out, world->root_fd, ".", ".", holes);
	world_snap_directory(out, world->root_fd, "", holes);
	fclose(out);
	return text;
}

static inline void world_print_difference(const char *before, const char *after)
{
	FILE *a = fopen("/tmp/undo-before.txt", "w");
	FILE *b = fopen("/tmp/undo-after.txt", "w");

	fputs(before, a);
	fputs(after, b);
	fclose(a);
	fclose(b);
	while (*before && *after) {
		size_t left = strcspn(before, "\n");
		size_t right = strcspn(after, "\n");

		if (left != right || memcmp(before, after, left) != 0) {
			fprintf(stderr, "before: %.*s\nafter:  %.*s\n", (int)left, before,
				(int)right, after);
			return;
		}
		before += left + 1;
		after += right + 1;
	}
	fprintf(stderr, "before: %.200s\nafter: %.200s\n", before, after);
}

/* ---- a random session
 * ---------------------------------------------------------------------------- */

static inline void world_random_path(struct world *world, char *path)
{
	static const char *const directories[] = { "a", "b", "c" };
	static const char *const names[] = { "a", "b", "c", "f", "g", "h" };
	size_t used = 0;

	for (uint32_t depth = world_random(world, 4); depth > 0; depth--)
		used += (size_t)snprintf(path + used, WORLD_PATH - used, "%s/",
					 directories[world_random(world, 3)]);
	snprintf(path + used, WORLD_PATH - used, "%s", names[world_random(world, 6)]);
}

static inline size_t world_random_length(struct world *world)
{
	static const size_t lengths[] = { 0, 1, 100, 4096, 5000, 40000, 65536, 200000 };

	return lengths[world_random(world, 8)];
}

/* The tree before the session, made without the undo log. */
static inline void world_populate(struct world *world)
{
	char path[WORLD_PATH];
	char other[WORLD_PATH];

	for (int i = 0; i < 120; i++) {
		uint32_t kind = world_random(world, 10);
		int fd;

		world_random_path(world, path);
		if (kind < 3) {
			mkdirat(world->root_fd, path, 0755);
		} else if (kind < 8) {
			fd = openat(world->root_fd, path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC,
				    0644);
			if (fd < 0)
				continue;
			for (int j = 0; j < 3; j++) {
				char data[8192];

				memset(data, 'a' + (int)world_random(world, 26), sizeof(data));
				(void)!pwrite(fd, data, world_random(world, 8192),
					      (off_t)world_random_length(world));
			}
			if (kind == 3)
				fsetxattr(fd, "user.one", path, strlen(path), 0);
			close(fd);
		} else if (kind == 8) {
			(void)!symlinkat("../a/f", world->root_fd, path);
		} else {
			world_random_path(world, other);
			(void)!linkat(world->root_fd, other, world->root_fd, path, 0);
		}
	}
}

static inline void world_handle_step(struct world *world, const char *path)
{
	struct world_handle *handle = &world->handles[world_random(world, WORLD_HANDLES)];
	struct stat stat;

	if (handle->fd < 0) {
		handle->fd = world_open(world, path);
		handle->wrote = false;
		if (handle->fd >= 0 && (fstat(handle->fd, &stat) || !S_ISREG(stat.st_mode))) {
			close(handle->fd);
			handle->fd = -1;
		}
	} else if (world_random(world, 3) == 0) {
		if (handle->wrote)
			world_did_change(world, handle->fd);
		close(handle->fd);
		handle->fd = -1;
	} else if (world_random(world, 2)) {
		if (world_write_fd(world, handle->fd, world_random_length(world),
				   1 + world_random(world, 9000), 'W') == 0)
			handle->wrote = true;
	} else if (world_truncate_fd(world, handle->fd, world_random_length(world)) == 0) {
		handle->wrote = true;
	}
}

static inline int world_temporary(struct world *world, const char *path)
{
	struct world_place place;
	int result = -ENOENT;

	if (world_find(world, path, &place) && place.fd < 0) {
		int fd = openat(place.parent_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		char proc[40];
		struct stat stat;

		if (fd >= 0 && fstat(fd, &stat) == 0) {
			undo_did_create_unnamed(world->undo, &stat);
			world_write_fd(world, fd, 0, 3000, 'T');
			result = undo_will_link(world->undo, place.parent_fd, place.parent,
						place.name, fd, world_inode(&stat));
			snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
			if (result == 0 && linkat(AT_FDCWD, proc, place.parent_fd, place.name,
						  AT_SYMLINK_FOLLOW) == 0)
				undo_did_create(world->undo, &stat);
			else
				undo_did_not_create(world->undo);
			world_did_change(world, fd);
		}
		if (fd >= 0)
			close(fd);
	}
	world_leave(&place);
	return result;
}

/* One operation of a session; its result does not matter. */
static inline int world_step(struct world *world)
{
	char path[WORLD_PATH];
	char other[WORLD_PATH];
	uint32_t kind = world_random(world, 20);
	int result;

	world_random_path(world, path);
	world_random_path(world, other);
	switch (kind) {
	case 0:
		return world_make_name(world, path, S_IFDIR, NULL);
	case 1:
		return world_make_name(world, path, S_IFLNK, "target");
	case 2:
	case 3:
		result = world_make_name(world, path, S_IFREG, NULL);
		if (result == 0)
			result = world_write(world, path, 0, world_random_length(world), 'N');
		return result;
	case 4:
		return world_temporary(world, path);
	case 5:
		return world_link(world, path, other);
	case 6:
	case 7:
		return world_unlink(world, path);
	case 8:
	case 9:
	case 10:
		return world_rename(world, path, other, 0);
	case 11:
		return world_rename(world, path, other, RENAME_EXCHANGE);
	case 12:
		return world_attribute(world, path, WORLD_MODE,
				       world_random(world, 2) ? 0700 : 0444);
	case 13:
		return world_attribute(world, path, WORLD_TIMES, world_random(world, 1000000));
	case 14:
		return world_attribute(world, path,
				       world_random(world, 3) ? WORLD_XATTR : WORLD_NO_XATTR,
				       world_random(world, 1000));
	case 15:
		return world_truncate(world, path, world_random_length(world));
	case 16:
		return world_write(world, path, world_random_length(world),
				   1 + world_random(world, 70000), 'x');
	default:
		world_handle_step(world, path);
		return 0;
	}
}

#endif
