/* Listing directories. */
#include "fsserver/operations_internal.h"

#include "base/cleanup.h"
#include "fsserver/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LISTING_SIZE 65536

int operation_opendir(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	struct handle *handle;
	struct node *node;
	int fd;
	int error = job_directory(job, request->node.nodeid, &node);

	if (!error && !handle_table_has_room(&export->handles))
		error = -ENFILE;
	if (!error)
		error = host_reopen(&export->scope, node->fd, O_RDONLY, &fd);
	if (!error)
		error = handle_table_add(&export->handles, node, fd, &handle);
	if (error)
		return error;
	handle->directory = true;
	handle->readable = true;
	return operations_reply_open(job, handle, false);
}

/* One listing being written into the reply. */
struct listing {
	struct job *job;
	struct node *directory;
	int fd;
	bool plus;
	bool hides; /* some names may be hidden: `path` is where the directory is */
	char path[PATH_MAX];
	size_t size_left;
	unsigned entries;
};

/* The node of a listed name. An inode that is known by number needs no opening: its descriptor
 * answers for it. */
static int listed_node(struct listing *listing, const struct dirent64 *entry, struct statx *stat,
		       struct node **ret_node)
{
	struct export *export = listing->job->export;
	struct node_key key = listing->directory->key;
	struct node *node;
	int fd;
	int error;

	key.ino = entry->d_ino;
	node = node_table_find(export->nodes, &key);
	if (node && node->type != S_IFDIR) {
		*ret_node = node;
		return host_stat(node->fd, stat);
	}
	error = export_open_child(export, listing->directory->fd, entry->d_name, &fd, stat);
	return error ? error : export_node(export, stat, fd, ret_node);
}

static bool hidden(const struct listing *listing, const struct dirent64 *entry)
{
	const struct export *export = listing->job->export;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return true;
	for (unsigned i = 0; i < export->store_key_count; i++) {
		if (entry->d_ino == export->store_keys[i].ino &&
		    listing->directory->key.device == export->store_keys[i].device)
			return true;
	}
	return listing->hides && guard_hides(export, listing->path, entry->d_name);
}

/* Writes one entry; false when it does not fit any more. */
static bool put_entry(struct listing *listing, const struct dirent64 *entry)
{
	struct job *job = listing->job;
	size_t name_length = strnlen(entry->d_name, FS_NAME_MAX + 1);
	size_t length = sizeof(struct fs_dirent) + name_length +
			(listing->plus ? sizeof(struct fs_entry) : 0);
	struct fs_dirent header = {
		.next = (uint64_t)entry->d_off,
		.ino = entry->d_ino,
		.type = entry->d_type,
		.name_length = (uint16_t)name_length,
	};
	struct fs_entry with = { 0 };
	struct node *node;
	struct statx stat;
	uint8_t *place;

	if (length > listing->size_left)
		return false;
	if (listing->plus && listed_node(listing, entry, &stat, &node) == 0) {
		struct fs_attr attr;

		operations_attributes(job->export, &stat, &attr);
		header.has_entry = 1;
		header.ino = attr.ino;
		header.type = IFTODT(stat.stx_mode);
	} else {
		length = sizeof(header) + name_length;
	}
	place = job_reply(job, length);
	if (!place) {
		if (header.has_entry)
			node_table_settle(job->export->nodes, node);
		return false;
	}
	if (header.has_entry)
		job_fill_entry(job, listing->directory, node, &stat, &with);
	memcpy(place, &header, sizeof(header));
	place += sizeof(header);
	if (header.has_entry) {
		memcpy(place, &with, sizeof(with));
		place += sizeof(with);
	}
	memcpy(place, entry->d_name, name_length);
	listing->size_left -= length;
	listing->entries++;
	return true;
}

/* Fills the reply from the descriptor's position on. */
static int list(struct listing *listing)
{
	cleanup_free char *entries = malloc(LISTING_SIZE);

	if (!entries)
		return -ENOMEM;
	for (;;) {
		/* No more than about what still fits: the rest would be read again. */
		size_t wanted =
			listing->size_left < LISTING_SIZE ? listing->size_left + 512 : LISTING_SIZE;
		ssize_t length = getdents64(listing->fd, entries,
					    wanted < LISTING_SIZE ? wanted : LISTING_SIZE);

		if (length < 0)
			return -errno;
		if (length == 0)
			return 0;
		for (ssize_t at = 0; at < length;) {
			const struct dirent64 *entry =
				(const struct dirent64 *)(const void *)(entries + at);

			at += entry->d_reclen;
			if (!hidden(listing, entry) && !put_entry(listing, entry))
				return listing->entries ? 0 : -EINVAL;
		}
	}
}

int operation_readdir(struct job *job, const struct fs_request *request)
{
	const struct fs_readdir *readdir = &request->readdir;
	struct export *export = job->export;
	struct listing listing = { .job = job,
				   .plus = readdir->flags & FS_READDIR_PLUS,
				   .size_left = readdir->size,
				   .hides = export->may_hide };
	struct handle *handle;
	struct stat stat;
	int error = job_directory(job, readdir->nodeid, &listing.directory);

	if (!error)
		error = job_handle(job, readdir->handle, listing.directory, &handle);
	if (!error)
		error = job_budget(job, readdir->size);
	if (error)
		return error;
	if (handle)
		listing.fd = handle->fd;
	else
		error = export_read_fd(export, listing.directory, &listing.fd);
	if (!error && listing.hides) {
		if (fstat(listing.fd, &stat) < 0)
			return -errno;
		error = export_path_of(export, listing.fd, (uint32_t)stat.st_nlink, listing.path);
	}
	if (error)
		return error;
	if (export->watch)
		watch_directory(export->watch, listing.directory);
	if (lseek(listing.fd, (off_t)readdir->offset, SEEK_SET) < 0)
		return -errno;
	/* The directory must survive what listing it evicts. */
	node_reference(listing.directory);
	error = list(&listing);
	node_unreference(export->nodes, listing.directory);
	return error;
}
