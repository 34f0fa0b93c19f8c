/*
 * Theory of operation
 *
 * The log does not say what to do backwards; it says how things were. Each record states one fact
 * from before the session: an object's identity and where it was (OBJECT), its attributes (TOUCH),
 * its content (PRE, BLOCKS), what stood at a name (CLAIM, INTENT), and which objects are the
 * session's own (BORN). A fact is written before the first change that would make it unknowable;
 * later changes of the same thing write nothing. Rolling back compares the facts with the tree and
 * moves the tree until they agree, so it does not matter where a crash fell, how often the
 * roll-back was started, or in which order things happened.
 *
 * An object is an inode number plus a birth time. In memory it is found by inode number; where a
 * wrong guess would do harm (the first change after a stamp) the birth time is compared, because
 * the host may have removed the file and the number may belong to another by now.
 *
 * Between two stamps an object is dirty: this session changes it. A stamp (size, mtime) taken when
 * a writing handle is released tells a later edit of the host's apart. One system call and one
 * record per such period; none per write.
 */
#include "fsserver/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_session.h"

#define PATH_BYTES 4096u

int session_append(struct undo *undo, enum undo_record_type type, uint32_t object)
{
	struct undo_record record = { .type = type, .object = object };

	return undo_log_append(&undo->log, &record);
}

int session_pay_debts(struct undo *undo)
{
	while (undo->late_count > 0) {
		int result = undo_log_append(&undo->log, &undo->late[0]);

		if (result < 0)
			return result;
		undo->late[0] = undo->late[1];
		undo->late_count--;
	}
	return 0;
}

int session_begin(struct undo *undo)
{
	int result = session_pay_debts(undo);

	if (result < 0)
		return result;
	result = session_charge(undo, 0, 0);
	return result < 0 ? result : undo_log_reserve(&undo->log);
}

int session_charge(struct undo *undo, uint64_t bytes, uint64_t files)
{
	uint64_t total;

	if (!checked_add_u64(undo->stored_bytes, bytes, &total) ||
	    !checked_add_u64(total, undo->log.end, &total))
		return -EDQUOT;
	if (undo->options.store_bytes_max && total > undo->options.store_bytes_max)
		return -EDQUOT;
	if (undo->options.files_max && undo->stored_files + files > undo->options.files_max)
		return -EDQUOT;
	undo->stored_bytes += bytes;
	undo->stored_files += files;
	return 0;
}

/* ---- objects --------------------------------------------------------------------------------- */

struct session_object *session_find(const struct undo *undo, uint64_t ino)
{
	uint32_t hash = undo_slots_hash_number(&undo->object_slots, ino);
	uint32_t cursor = hash;
	uint32_t index;

	while ((index = undo_slots_next(&undo->object_slots, hash, &cursor)) != UINT32_MAX) {
		if (undo->objects[index].identity.ino == ino)
			return &undo->objects[index];
	}
	return NULL;
}

static int reserve_object(struct undo *undo)
{
	int result = undo_slots_reserve(&undo->object_slots);

	if (result < 0)
		return result;
	if (undo->next_number == UINT32_MAX)
		return -EDQUOT;
	return undo_grow((void **)&undo->objects, undo->object_count, &undo->object_capacity,
			 sizeof(*undo->objects));
}

/* After reserve_object. An object with the same inode number is dead, and gives up its place.
 * Numbers follow one another without gaps, in the order of the records. */
static struct session_object *place_object(struct undo *undo, const struct undo_identity *identity,
					   uint32_t number)
{
	struct session_object *object = session_find(undo, identity->ino);

	if (!object) {
		object = &undo->objects[undo->object_count];
		object->bitmap = NULL;
		undo_slots_insert(&undo->object_slots,
				  undo_slots_hash_number(&undo->object_slots, identity->ino),
				  undo->object_count++);
	}
	free(object->bitmap);
	*object = (struct session_object){ .identity = *identity, .number = number };
	return object;
}

/* The known object behind `stat`, or NULL. */
static struct session_object *find_identity(struct undo *undo, const struct statx *stat)
{
	struct session_object *object = session_find(undo, stat->stx_ino);
	struct undo_identity identity;

	if (!object)
		return NULL;
	undo_identity_from_statx(stat, &identity);
	if (!undo_identity_equal(&object->identity, &identity))
		return NULL;
	object->identity = identity; /* a birth time that was not known yet */
	return object;
}

static int record_born(struct undo *undo, struct session_object *object, const struct statx *stat)
{
	struct undo_record record = {
		.type = UNDO_RECORD_BORN,
		.object = undo->next_number,
		.identity = object->identity,
	};
	int result;

	undo_attributes_from_statx(stat, &record.attributes);
	result = undo_log_append(&undo->log, &record);
	if (result < 0)
		return result;
	object->number = undo->next_number++;
	object->flags &= ~(uint32_t)SESSION_UNRECORDED;
	return 0;
}

int session_object(struct undo *undo, const struct statx *stat, uint32_t directory,
		   const char *name, struct session_object **ret_object)
{
	struct session_object *object = find_identity(undo, stat);
	struct undo_record record = {
		.type = UNDO_RECORD_OBJECT,
		.object = undo->next_number,
		.directory = directory,
		.name = name,
		.name_length = strlen(name),
	};
	int result;

	if (object) {
		if (object->flags & SESSION_UNRECORDED) {
			result = record_born(undo, object, stat);
			if (result < 0)
				return result;
		}
		*ret_object = object;
		return 0;
	}
	result = reserve_object(undo);
	if (result < 0)
		return result;
	undo_identity_from_statx(stat, &record.identity);
	undo_attributes_from_statx(stat, &record.attributes);
	result = undo_log_append(&undo->log, &record);
	if (result < 0)
		return result;
	*ret_object = place_object(undo, &record.identity, undo->next_number++);
	if (name[0])
		(*ret_object)->flags |= SESSION_NAMED;
	return 0;
}

int session_touch(struct undo *undo, struct session_object *object, const struct statx *stat,
		  uint32_t flags)
{
	struct undo_record record = {
		.type = UNDO_RECORD_TOUCH,
		.object = object->number,
		.flags = flags,
	};
	int result;

	if ((object->flags & flags) == flags)
		return 0;
	if (!(object->flags & SESSION_BORN)) {
		undo_attributes_from_statx(stat, &record.attributes);
		if ((object->flags & (SESSION_STAMPED | SESSION_DIRTY)) == SESSION_STAMPED &&
		    !timespec_equal(&object->stamp_modification, &record.attributes.modification))
			record.flags |= UNDO_TOUCH_HOST_TIMES;
		result = undo_log_append(&undo->log, &record);
		if (result < 0)
			return result;
	}
	object->flags |= flags;
	return 0;
}

int session_dirty(struct undo *undo, struct session_object *object, const struct statx *stat)
{
	struct undo_attributes now;
	int result;

	if (object->flags & SESSION_DIRTY)
		return 0;
	if (object->flags & SESSION_STAMPED) {
		undo_attributes_from_statx(stat, &now);
		if (S_ISREG(stat->stx_mode) &&
		    (now.size != object->stamp_size ||
		     !timespec_equal(&now.modification, &object->stamp_modification))) {
			result = session_append(undo, UNDO_RECORD_HOST_EDIT, object->number);
			if (result < 0)
				return result;
		}
		result = session_append(undo, UNDO_RECORD_DIRTY, object->number);
		if (result < 0)
			return result;
	}
	object->flags |= SESSION_DIRTY;
	return 0;
}

/* ---- directories ----------------------------------------------------------------------------- */

/* Makes the directories of `path` known, from the root down to the one that `fd` refers to. */
static int know_ancestors(struct undo *undo, const char *path, uint32_t *ret_number)
{
	char component[UNDO_NAME_MAX + 1];
	uint32_t number = UNDO_ROOT;
	cleanup_fd int held = -1;

	while (*path) {
		size_t length = strcspn(path, "/");
		struct session_object *object;
		struct statx stat;
		int next;
		int result;

		if (!undo_name_valid(path, length))
			return -EINVAL;
		memcpy(component, path, length);
		component[length] = '\0';
		path += length + (path[length] == '/');
		next = undo_open_beneath(held < 0 ? undo->root_fd : held, component,
					 O_PATH | O_DIRECTORY, 0);
		if (next < 0)
			return -ESTALE;
		if (held >= 0)
			close(held);
		held = next;
		result = undo_statx(held, "", &stat);
		if (result < 0)
			return result;
		result = session_object(undo, &stat, number, component, &object);
		if (result < 0)
			return result;
		number = object->number;
	}
	*ret_number = number;
	return 0;
}

int session_directory(struct undo *undo, int fd, const char *path, uint32_t *ret_number)
{
	struct session_object *object;
	struct statx stat;
	uint32_t number;
	int result = undo_statx(fd, "", &stat);

	if (result < 0)
		return result;
	object = find_identity(undo, &stat);
	if (!object) {
		result = know_ancestors(undo, path, &number);
		if (result < 0)
			return result;
		object = find_identity(undo, &stat);
		if (!object || object->number != number)
			return -ESTALE;
	}
	result = session_touch(undo, object, &stat, SESSION_ENTRIES);
	if (result == 0)
		*ret_number = object->number;
	return result;
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct session_entry *find_entry(struct undo *undo, uint32_t directory, const char *name,
					uint32_t hash)
{
	uint32_t cursor = hash;
	uint32_t index;

	while ((index = undo_slots_next(&undo->entry_slots, hash, &cursor)) != UINT32_MAX) {
		struct session_entry *entry = &undo->entries[index];

		if (entry->directory == directory &&
		    strcmp(undo->names.bytes + entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

/* Room for one more entry with this name, so that adding it after its record cannot fail. */
static int reserve_entry(struct undo *undo, const char *name, uint32_t *ret_name)
{
	int result = undo_slots_reserve(&undo->entry_slots);

	if (result < 0)
		return result;
	result = undo_grow((void **)&undo->entries, undo->entry_count, &undo->entry_capacity,
			   sizeof(*undo->entries));
	return result < 0 ? result : undo_names_add(&undo->names, name, strlen(name), ret_name);
}

static struct session_entry *add_entry(struct undo *undo, uint32_t directory, uint32_t name,
				       uint32_t hash)
{
	struct session_entry *entry = &undo->entries[undo->entry_count];

	*entry = (struct session_entry){ .directory = directory, .name = name };
	undo_slots_insert(&undo->entry_slots, hash, undo->entry_count++);
	return entry;
}

int session_claim(struct undo *undo, uint32_t directory, const char *name,
		  const struct session_object *object, struct session_entry **ret_entry)
{
	uint32_t hash = undo_slots_hash_name(&undo->entry_slots, directory, name, strlen(name));
	struct session_entry *entry = find_entry(undo, directory, name, hash);
	/* What the session made was not there before it, wherever the host moved it. */
	bool born = object && (object->flags & SESSION_BORN);
	struct undo_record record = {
		.type = UNDO_RECORD_CLAIM,
		.object = object && !born ? object->number : 0,
		.directory = directory,
		.name = name,
		.name_length = strlen(name),
	};
	uint32_t at = 0;
	int result = 0;

	if (entry && (entry->current == (object ? object->number : 0) || record.object == 0)) {
		entry->current = object ? object->number : 0;
		*ret_entry = entry;
		return 0;
	}
	if (!entry)
		result = reserve_entry(undo, name, &at);
	if (result == 0)
		result = undo_log_append(&undo->log, &record);
	if (result < 0)
		return result;
	if (!entry)
		entry = add_entry(undo, directory, at, hash);
	entry->current = object ? object->number : 0;
	entry->claimed = record.object;
	*ret_entry = entry;
	return 0;
}

/* ---- content and attributes ------------------------------------------------------------------ */

/* Splits `path`, makes its directories known, and checks that `stat` is what stands there. */
static int find_by_path(struct undo *undo, const struct statx *stat, const char *path,
			uint32_t *ret_directory, const char **ret_name)
{
	char parent[PATH_BYTES];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;
	cleanup_fd int fd = -1;
	struct statx named;
	int result;

	if (length >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, length);
	parent[length] = '\0';
	path = slash ? slash + 1 : path;
	if (!undo_name_valid(path, strlen(path)))
		return -EINVAL;
	result = know_ancestors(undo, parent, ret_directory);
	if (result < 0)
		return result;
	fd = undo_open_beneath(undo->root_fd, parent, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 || undo_statx(fd, path, &named) < 0 || named.stx_ino != stat->stx_ino)
		return -ESTALE;
	*ret_name = path;
	return 0;
}

/* What the kernel calls `fd`, below the root; NULL when it has no name there. */
static const char *path_of_fd(struct undo *undo, int fd, char path[PATH_BYTES])
{
	char root[PATH_BYTES];
	ssize_t length = readlinkat(undo->proc_fd, undo_number_name((uint64_t)fd).text, path,
				    PATH_BYTES - 1);
	ssize_t root_length =
		readlinkat(undo->proc_fd, undo_number_name((uint64_t)undo->root_fd).text, root,
			   PATH_BYTES - 1);

	if (length < 0 || root_length < 0)
		return NULL;
	path[length] = '\0';
	if (root_length == 1) /* "/" */
		root_length = 0;
	if (length <= root_length + 1 || memcmp(path, root, (size_t)root_length) != 0 ||
	    path[root_length] != '/')
		return NULL;
	return path + root_length + 1;
}

/* The object behind `fd`, made known. Without a name (the host removed it meanwhile) it is
 * recorded without one, and a name learnt later is recorded as a claim. */
static int meet(struct undo *undo, int fd, struct undo_inode inode, const char *path,
		struct statx *ret_stat, struct session_object **ret_object)
{
	struct session_entry *entry;
	char buffer[PATH_BYTES];
	const char *name = "";
	uint32_t directory = 0;
	uint32_t number;
	int result;

	if (inode.device != undo->device)
		return -EXDEV;
	result = session_begin(undo);
	if (result < 0)
		return result;
	result = undo_statx(fd, "", ret_stat);
	if (result < 0)
		return result;
	if (ret_stat->stx_ino != inode.ino)
		return -ESTALE;
	*ret_object = find_identity(undo, ret_stat);
	if (*ret_object && (!path || ((*ret_object)->flags & (SESSION_BORN | SESSION_NAMED))))
		return 0;
	if (*ret_object) {
		number = (*ret_object)->number;
		result = find_by_path(undo, ret_stat, path, &directory, &name);
		*ret_object = find_identity(undo, ret_stat);
		if (result < 0 || !*ret_object || (*ret_object)->number != number)
			return result < 0 ? result : -ESTALE;
		result = session_claim(undo, directory, name, *ret_object, &entry);
		if (result == 0 && entry->claimed == number)
			(*ret_object)->flags |= SESSION_NAMED;
	} else {
		const char *known = path ? path : path_of_fd(undo, fd, buffer);

		if (known)
			result = find_by_path(undo, ret_stat, known, &directory, &name);
		if (result < 0 && !path) { /* a guess that did not hold */
			directory = 0;
			name = "";
			result = 0;
		}
		if (result == 0)
			result = session_object(undo, ret_stat, directory, name, ret_object);
	}
	return result;
}

int undo_will_write(struct undo *undo, int fd, struct undo_inode inode, const char *path,
		    uint64_t offset, uint64_t length)
{
	struct session_object *object = session_find(undo, inode.ino);
	const uint32_t done = SESSION_BORN | SESSION_COVERED;
	struct statx stat = { 0 };
	int result;

	if (inode.device == undo->device && object && (object->flags & SESSION_DIRTY) &&
	    (object->flags & done))
		return 0;
	if (inode.device == undo->device && object && (object->flags & SESSION_DIRTY) &&
	    (object->flags & SESSION_CONTENT))
		return session_save_content(undo, object, fd, offset, length);
	result = meet(undo, fd, inode, path, &stat, &object);
	if (result < 0)
		return result;
	if (!S_ISREG(stat.stx_mode))
		return -EINVAL;
	if (!(object->flags & SESSION_BORN)) {
		if (!(object->flags & SESSION_CONTENT))
			object->size_before = stat.stx_size;
		result = session_save_content(undo, object, fd, offset, length);
		if (result == 0)
			result = session_touch(undo, object, &stat, SESSION_CONTENT);
	}
	return result < 0 ? result : session_dirty(undo, object, &stat);
}

int undo_will_set_attributes(struct undo *undo, int fd, struct undo_inode inode, const char *path)
{
	struct session_object *object = session_find(undo, inode.ino);
	const uint32_t touched = SESSION_ATTRIBUTES | SESSION_XATTRS;
	struct statx stat = { 0 };
	int result;

	if (inode.device == undo->device && object && (object->flags & SESSION_DIRTY) &&
	    ((object->flags & SESSION_BORN) || (object->flags & touched) == touched))
		return 0;
	if (path && path[0] == '\0') {
		result = session_begin(undo);
		if (result == 0)
			result = undo_statx(undo->root_fd, "", &stat);
		if (result < 0)
			return result;
		object = session_find(undo, stat.stx_ino);
		if (!object || stat.stx_ino != inode.ino)
			return -ESTALE;
	} else {
		result = meet(undo, fd, inode, path, &stat, &object);
		if (result < 0)
			return result;
	}
	if (!(object->flags & SESSION_BORN)) {
		if (!(object->flags & SESSION_XATTRS))
			result = session_save_xattrs(undo, object, fd);
		if (result == 0)
			result = session_touch(undo, object, &stat, SESSION_ATTRIBUTES);
	}
	return result < 0 ? result : session_dirty(undo, object, &stat);
}

void undo_did_change(struct undo *undo, struct undo_inode inode, const struct stat *now)
{
	struct session_object *object = session_find(undo, inode.ino);
	struct undo_record record = { .type = UNDO_RECORD_STAMP };

	if (inode.device != undo->device || !object || !(object->flags & SESSION_DIRTY) ||
	    (object->flags & SESSION_UNRECORDED))
		return;
	record.object = object->number;
	undo_attributes_from_stat(now, &record.attributes);
	/* Without a stamp the object stays dirty, which a roll-back treats with more care. */
	if (session_pay_debts(undo) < 0 || undo_log_append(&undo->log, &record) < 0)
		return;
	object->flags &= ~(uint32_t)SESSION_DIRTY;
	object->flags |= SESSION_STAMPED;
	object->stamp_size = record.attributes.size;
	object->stamp_modification = record.attributes.modification;
}

/* ---- making names ---------------------------------------------------------------------------- */

static int will_name(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		     mode_t type, uint32_t linked)
{
	struct undo_record record = {
		.type = UNDO_RECORD_INTENT,
		.flags = type & S_IFMT,
		.name = name,
		.name_length = strlen(name),
	};
	struct session_entry *entry;
	struct statx stat;
	uint32_t directory;
	uint32_t at = 0;
	uint32_t hash;
	int result = session_directory(undo, parent_fd, parent_path, &directory);

	if (result == 0)
		result = reserve_object(undo);
	if (result < 0)
		return result;
	/* The record says that nothing was there; what is there must not be taken for ours. */
	result = undo_statx(parent_fd, name, &stat);
	if (result != -ENOENT)
		return result < 0 ? result : -EEXIST;
	hash = undo_slots_hash_name(&undo->entry_slots, directory, name, record.name_length);
	entry = find_entry(undo, directory, name, hash);
	if (!entry) {
		result = reserve_entry(undo, name, &at);
		if (result < 0)
			return result;
	}
	record.directory = directory;
	clock_gettime(CLOCK_REALTIME_COARSE, &record.time);
	result = undo_log_append(&undo->log, &record);
	if (result < 0)
		return result;
	if (!entry)
		entry = add_entry(undo, directory, at, hash);
	undo->pending.active = true;
	undo->pending.entry = (uint32_t)(entry - undo->entries);
	undo->pending.parent_fd = parent_fd;
	undo->pending.linked = linked;
	return 0;
}

int undo_will_create(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		     mode_t type)
{
	int result;

	if (!undo_name_valid(name, strlen(name)))
		return -EINVAL;
	result = session_begin(undo);
	return result < 0 ? result : will_name(undo, parent_fd, parent_path, name, type, 0);
}

int undo_will_link(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		   int existing_fd, struct undo_inode existing)
{
	struct session_object *object;
	struct statx stat;
	int result;

	if (!undo_name_valid(name, strlen(name)))
		return -EINVAL;
	result = meet(undo, existing_fd, existing, NULL, &stat, &object);
	if (result == 0 && (object->flags & SESSION_UNRECORDED))
		result = record_born(undo, object, &stat);
	if (result < 0)
		return result;
	return will_name(undo, parent_fd, parent_path, name, stat.stx_mode, object->number);
}

/* The new object keeps its place in the log even when the disk is full: the record is owed. */
static void owe(struct undo *undo, const struct undo_record *record)
{
	if (session_pay_debts(undo) == 0 && undo_log_append(&undo->log, record) == 0)
		return;
	if (undo->late_count < ARRAY_LENGTH(undo->late))
		undo->late[undo->late_count++] = *record;
}

static struct session_object *born(struct undo *undo, const struct undo_identity *identity,
				   uint32_t number)
{
	struct session_object *object = place_object(undo, identity, number);

	object->flags = SESSION_BORN | SESSION_DIRTY;
	return object;
}

void undo_did_create(struct undo *undo, const struct stat *made)
{
	struct undo_record record = { .type = UNDO_RECORD_BORN };
	struct session_object *object;
	struct session_entry *entry;
	struct statx stat;

	if (!undo->pending.active)
		return;
	undo->pending.active = false;
	entry = &undo->entries[undo->pending.entry];
	if (undo->pending.linked) {
		entry->current = undo->pending.linked;
		return;
	}
	undo_attributes_from_stat(made, &record.attributes);
	record.identity.ino = made->st_ino;
	if (undo_statx(undo->pending.parent_fd, undo->names.bytes + entry->name, &stat) == 0 &&
	    stat.stx_ino == made->st_ino)
		undo_identity_from_statx(&stat, &record.identity);
	object = born(undo, &record.identity, undo->next_number++);
	record.object = object->number;
	entry->current = object->number;
	owe(undo, &record);
}

void undo_did_not_create(struct undo *undo)
{
	struct undo_record record = { .type = UNDO_RECORD_ABORT };

	if (!undo->pending.active)
		return;
	undo->pending.active = false;
	owe(undo, &record);
}

void undo_did_create_unnamed(struct undo *undo, const struct stat *made)
{
	struct undo_identity identity = { .ino = made->st_ino };

	/* Without memory the file is taken for the host's when it gains a name: kept, not lost. */
	if (reserve_object(undo) < 0)
		return;
	born(undo, &identity, 0)->flags |= SESSION_UNRECORDED;
}
