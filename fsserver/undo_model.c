/*
 * Theory of operation
 *
 * Loading builds two arrays: the objects that the log names, by number, and the entries (directory
 * and name) that the session touched. Scanning then asks the tree what stands at each entry, and
 * recognises it by inode number and birth time. An object that moved is found because every place
 * that the session ever moved anything to is an entry; what left the tree is in the grave, which
 * is listed. A directory that holds entries is opened where it was found, or, when no entry led to
 * it, where it was met first; so directories are scanned in passes until nothing new is found.
 */
#include "fsserver/undo_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo_file.h"

#define FDS_MAX 512u
#define FDS_RECENT 16u

struct model_object *undo_model_object(struct undo_model *model, uint32_t number)
{
	return &model->objects[number];
}

const char *undo_model_name(const struct undo_model *model, uint32_t name)
{
	return model->names.bytes + name;
}

static bool known(const struct undo_model *model, uint32_t number)
{
	return number > 0 && number < model->object_count;
}

/* ---- loading --------------------------------------------------------------------------------- */

static int add_object(struct undo_model *model, const struct undo_record *record)
{
	bool born = record->type == UNDO_RECORD_BORN;
	struct model_object object = {
		.identity = record->identity,
		.mode = record->attributes.mode,
		.first_claim = MODEL_NO_ENTRY,
		.first_entry = MODEL_NO_ENTRY,
		.born = born,
		.stamped = born,
		.dirty = born,
		.stamp = record->attributes,
	};
	uint32_t hash = undo_slots_hash_number(&model->object_slots, record->identity.ino);
	uint32_t cursor = hash;
	uint32_t index;
	int result;

	/* Numbers follow one another; a directory is met before what it holds. */
	if (record->object != model->object_count)
		return -EBADMSG;
	if (!born && record->directory) {
		if (!known(model, record->directory) || record->name_length == 0)
			return -EBADMSG;
		object.parent = record->directory;
	}
	result = undo_names_add(&model->names, record->name, born ? 0 : record->name_length,
				&object.name);
	if (result == 0)
		result = undo_slots_reserve(&model->object_slots);
	if (result == 0)
		result = undo_grow((void **)&model->objects, model->object_count,
				   &model->object_capacity, sizeof(*model->objects));
	if (result < 0)
		return result;
	while ((index = undo_slots_next(&model->object_slots, hash, &cursor)) != UINT32_MAX) {
		if (model->objects[index].identity.ino == record->identity.ino)
			model->objects[index].dead = true;
	}
	undo_slots_insert(&model->object_slots, hash, model->object_count);
	model->objects[model->object_count++] = object;
	return 0;
}

int undo_model_entry(struct undo_model *model, uint32_t directory, const char *name, size_t length,
		     uint32_t *ret_entry)
{
	uint32_t hash = undo_slots_hash_name(&model->entry_slots, directory, name, length);
	uint32_t cursor = hash;
	struct model_entry entry = { .directory = directory };
	uint32_t index;
	int result;

	while ((index = undo_slots_next(&model->entry_slots, hash, &cursor)) != UINT32_MAX) {
		const char *other = undo_model_name(model, model->entries[index].name);

		if (model->entries[index].directory == directory && strlen(other) == length &&
		    memcmp(other, name, length) == 0) {
			*ret_entry = index;
			return 0;
		}
	}
	result = undo_names_add(&model->names, name, length, &entry.name);
	if (result == 0)
		result = undo_slots_reserve(&model->entry_slots);
	if (result == 0)
		result = undo_grow((void **)&model->entries, model->entry_count,
				   &model->entry_capacity, sizeof(*model->entries));
	if (result < 0)
		return result;
	entry.next = model->objects[directory].first_entry;
	model->objects[directory].first_entry = model->entry_count;
	undo_slots_insert(&model->entry_slots, hash, model->entry_count);
	*ret_entry = model->entry_count;
	model->entries[model->entry_count++] = entry;
	return 0;
}

static int load_claim(struct undo_model *model, const struct undo_record *record)
{
	struct model_entry *entry;
	uint32_t index;
	int result;

	if (!known(model, record->directory) || (record->object && !known(model, record->object)))
		return -EBADMSG;
	result = undo_model_entry(model, record->directory, record->name, record->name_length,
				  &index);
	if (result < 0 || record->object == MODEL_NONE)
		return result;
	entry = &model->entries[index];
	if (model->objects[record->object].first_claim == MODEL_NO_ENTRY)
		model->objects[record->object].first_claim = index;
	if (entry->wanted && entry->wanted != record->object) {
		result = undo_grow((void **)&model->displaced, model->displaced_count,
				   &model->displaced_capacity, sizeof(*model->displaced));
		if (result < 0)
			return result;
		model->displaced[model->displaced_count++] =
			(struct model_displaced){ .entry = index, .object = entry->wanted };
	}
	entry->wanted = record->object;
	return 0;
}

static int load_intent(struct undo_model *model, const struct undo_record *record)
{
	int result;

	if (!known(model, record->directory))
		return -EBADMSG;
	result = undo_model_entry(model, record->directory, record->name, record->name_length,
				  &model->pending_entry);
	model->pending_type = record->flags;
	model->pending_time = record->time;
	return result;
}

static void load_touch(struct model_object *object, const struct undo_record *record)
{
	object->touched |= record->flags;
	if (!object->has_before) {
		object->before = record->attributes;
		object->has_before = true;
	} else if (record->flags & UNDO_TOUCH_HOST_TIMES) {
		object->before.access = record->attributes.access;
		object->before.modification = record->attributes.modification;
	}
	if (record->flags & (UNDO_TOUCH_CONTENT | UNDO_TOUCH_ATTRIBUTES))
		object->dirty = true;
}

static int load_pre(struct model_object *object, const struct undo_record *record)
{
	uint64_t blocks = (record->count + UNDO_BLOCK_BYTES - 1) / UNDO_BLOCK_BYTES;

	if (record->flags < UNDO_PRE_INLINE || record->flags > UNDO_PRE_BLOCKS ||
	    record->count > INT64_MAX || object->pre_kind)
		return object->pre_kind ? 0 : -EBADMSG;
	if (record->flags == UNDO_PRE_INLINE && record->data_length != record->count)
		return -EBADMSG;
	if (record->flags == UNDO_PRE_BLOCKS) {
		if (blocks > UNDO_BLOCKS_MAX)
			return -EBADMSG;
		object->bitmap = calloc(1, (size_t)(blocks + 7) / 8 + 1);
		if (!object->bitmap)
			return -ENOMEM;
		object->blocks = blocks;
	}
	object->pre_kind = (uint8_t)record->flags;
	object->pre_number = record->value;
	object->pre_size = record->count;
	object->pre_data = record->data_offset;
	return 0;
}

static int load_blocks(struct model_object *object, const struct undo_record *record)
{
	uint64_t end;

	if (!object->bitmap || !checked_add_u64(record->value, record->count, &end) ||
	    end > object->blocks)
		return -EBADMSG;
	for (uint64_t i = record->value; i < end; i++)
		object->bitmap[i / 8] |= (uint8_t)(1u << (i % 8));
	return 0;
}

static int load_xattr(struct undo_model *model, struct model_object *object,
		      const struct undo_record *record)
{
	struct model_xattr xattr = {
		.next = object->first_xattr,
		.length = (uint32_t)record->data_length,
		.offset = record->data_offset,
	};
	int result = undo_names_add(&model->names, record->name, record->name_length, &xattr.name);

	/* Only what the server lets a guest change is put back. */
	if (strncmp(record->name, "user.", MIN_OF(record->name_length, (size_t)5)) != 0)
		return -EBADMSG;
	if (result == 0)
		result = undo_grow((void **)&model->xattrs, model->xattr_count,
				   &model->xattr_capacity, sizeof(*model->xattrs));
	if (result < 0)
		return result;
	model->xattrs[model->xattr_count++] = xattr;
	object->first_xattr = model->xattr_count;
	return 0;
}

static int load_about_object(struct undo_model *model, const struct undo_record *record)
{
	struct model_object *object;

	if (!known(model, record->object))
		return -EBADMSG;
	object = &model->objects[record->object];
	switch ((unsigned)record->type) {
	case UNDO_RECORD_TOUCH:
		load_touch(object, record);
		return 0;
	case UNDO_RECORD_XATTR:
		return load_xattr(model, object, record);
	case UNDO_RECORD_PRE:
		return load_pre(object, record);
	case UNDO_RECORD_BLOCKS:
		return load_blocks(object, record);
	case UNDO_RECORD_DIRTY:
		object->dirty = true;
		return 0;
	case UNDO_RECORD_STAMP:
		object->stamp = record->attributes;
		object->stamped = true;
		object->dirty = false;
		return 0;
	case UNDO_RECORD_HOST_EDIT:
		object->host_edit = true;
		return 0;
	default:
		return -EBADMSG;
	}
}

static int load_record(struct undo_model *model, const struct undo_record *record)
{
	model->closed = false;
	if (record->type != UNDO_RECORD_INTENT)
		model->pending_entry = MODEL_NO_ENTRY;
	switch ((unsigned)record->type) {
	case UNDO_RECORD_OBJECT:
	case UNDO_RECORD_BORN:
		return add_object(model, record);
	case UNDO_RECORD_CLAIM:
		return load_claim(model, record);
	case UNDO_RECORD_INTENT:
		return load_intent(model, record);
	case UNDO_RECORD_ABORT:
		return 0;
	case UNDO_RECORD_CLOSED:
		model->closed = true;
		return 0;
	default:
		return load_about_object(model, record);
	}
}

static int load_log(struct undo_model *model)
{
	struct undo_log_reader reader;
	struct undo_record record;
	struct stat stat;
	int result;

	if (fstat(model->log_fd, &stat))
		return -errno;
	if (stat.st_size < (off_t)UNDO_HEADER_BYTES)
		return 0; /* killed before it began */
	result = undo_log_reader_init(&reader, model->log_fd);
	while (result >= 0 && (result = undo_log_reader_next(&reader, &record)) > 0)
		result = load_record(model, &record);
	model->log_end = reader.offset;
	model->log_sequence = reader.sequence;
	undo_log_reader_finish(&reader);
	return result;
}

static int open_model(struct undo_model *model)
{
	int result;

	model->log_fd = undo_open_beneath(model->store_fd, "log", O_RDONLY, 0);
	if (model->log_fd < 0)
		return model->log_fd;
	model->pre_fd = undo_open_beneath(model->store_fd, "pre", O_RDONLY | O_DIRECTORY, 0);
	model->grave_fd = undo_open_beneath(model->store_fd, "grave", O_RDONLY | O_DIRECTORY, 0);
	model->stage_fd = undo_open_beneath(model->store_fd, "stage", O_RDONLY | O_DIRECTORY, 0);
	model->fds = calloc(FDS_MAX, sizeof(*model->fds));
	if (!model->fds)
		return -ENOMEM;
	result = undo_slots_init(&model->object_slots);
	if (result == 0)
		result = undo_slots_init(&model->entry_slots);
	if (result == 0)
		result = undo_grow((void **)&model->objects, 0, &model->object_capacity,
				   sizeof(*model->objects));
	if (result < 0)
		return result;
	model->objects[0] = (struct model_object){ .dead = true };
	model->object_count = 1;
	return load_log(model);
}

int undo_model_load(struct undo_model *model, int store_fd, int root_fd)
{
	int result;

	*model = (struct undo_model){
		.store_fd = store_fd,
		.root_fd = root_fd,
		.log_fd = -1,
		.pre_fd = -1,
		.grave_fd = -1,
		.stage_fd = -1,
		.pending_entry = MODEL_NO_ENTRY,
	};
	result = open_model(model);
	if (result < 0)
		undo_model_free(model);
	return result;
}

void undo_model_free(struct undo_model *model)
{
	const int fds[] = { model->log_fd, model->pre_fd, model->grave_fd, model->stage_fd };

	for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	for (uint32_t i = 0; i < model->fd_count; i++)
		close(model->fds[i].fd);
	for (uint32_t i = 0; i < model->object_count; i++)
		free(model->objects[i].bitmap);
	free(model->fds);
	free(model->objects);
	free(model->entries);
	free(model->names.bytes);
	free(model->displaced);
	free(model->xattrs);
	free(model->instances);
	undo_slots_finish(&model->object_slots);
	undo_slots_finish(&model->entry_slots);
	*model = (struct undo_model){ .log_fd = -1 };
}

bool undo_model_block_saved(const struct model_object *object, uint64_t block)
{
	return object->bitmap && (object->bitmap[block / 8] & (1u << (block % 8)));
}

/* ---- finding --------------------------------------------------------------------------------- */

uint32_t undo_model_identify(const struct undo_model *model, const struct statx *stat)
{
	uint32_t hash = undo_slots_hash_number(&model->object_slots, stat->stx_ino);
	uint32_t cursor = hash;
	struct undo_identity identity;
	uint32_t index;

	undo_identity_from_statx(stat, &identity);
	while ((index = undo_slots_next(&model->object_slots, hash, &cursor)) != UINT32_MAX) {
		const struct model_object *object = &model->objects[index];

		if (!object->dead && undo_identity_equal(&object->identity, &identity) &&
		    (object->mode & S_IFMT) == (stat->stx_mode & S_IFMT))
			return index;
	}
	return MODEL_FOREIGN;
}

void undo_model_place(struct undo_model *model, uint32_t number, uint32_t directory, uint32_t name,
		      const struct statx *stat)
{
	struct model_object *object = &model->objects[number];

	object->located = true;
	object->now_directory = directory;
	object->now_name = name;
	if (stat)
		undo_attributes_from_statx(stat, &object->now);
}

static int cache_fd(struct undo_model *model, uint32_t number, int fd)
{
	struct model_directory_fd *slot;

	if (model->fd_count < FDS_MAX) {
		slot = &model->fds[model->fd_count++];
	} else {
		do {
			slot = &model->fds[model->fd_hand++ % FDS_MAX];
		} while (model->fd_tick - slot->tick < FDS_RECENT);
		close(slot->fd);
	}
	*slot = (struct model_directory_fd){ .object = number, .tick = ++model->fd_tick, .fd = fd };
	return fd;
}

static int open_directory(struct undo_model *model, uint32_t number, unsigned depth);

/* Opens `number` as `name` in `parent`, if that is what stands there. */
static int open_known(struct undo_model *model, uint32_t number, uint32_t parent, uint32_t name,
		      unsigned depth)
{
	cleanup_fd int fd = -1;
	struct statx stat;
	int parent_fd = open_directory(model, parent, depth + 1);
	int result;

	if (parent_fd < 0)
		return parent_fd;
	fd = undo_open_beneath(parent_fd, undo_model_name(model, name), O_PATH | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	result = undo_statx(fd, "", &stat);
	if (result < 0)
		return result;
	if (undo_model_identify(model, &stat) != number)
		return -ENOENT;
	if (!model->objects[number].located)
		undo_model_place(model, number, parent, name, &stat);
	if (model->repair && (stat.stx_mode & S_IRWXU) != S_IRWXU &&
	    (model->objects[number].born ||
	     (model->objects[number].touched & UNDO_TOUCH_ATTRIBUTES)))
		(void)undo_chmod(-1, fd, (stat.stx_mode & 07777) | S_IRWXU);
	return cache_fd(model, number, steal_fd(&fd));
}

static int open_directory(struct undo_model *model, uint32_t number, unsigned depth)
{
	const struct model_object *object;

	if (number == UNDO_ROOT)
		return model->root_fd;
	if (number == MODEL_GRAVE)
		return model->grave_fd >= 0 ? model->grave_fd : -ENOENT;
	if (number == MODEL_STAGE)
		return model->stage_fd >= 0 ? model->stage_fd : -ENOENT;
	if (!known(model, number) || depth > MODEL_DEPTH_MAX)
		return -ELOOP;
	object = &model->objects[number];
	if (object->dead || !S_ISDIR(object->mode))
		return -ENOENT;
	for (uint32_t i = 0; i < model->fd_count; i++) {
		uint32_t at = (model->fd_count - 1 - i);

		if (model->fds[at].object == number) {
			model->fds[at].tick = ++model->fd_tick;
			return model->fds[at].fd;
		}
	}
	if (object->located)
		return open_known(model, number, object->now_directory, object->now_name, depth);
	if (object->parent)
		return open_known(model, number, object->parent, object->name, depth);
	return -ENOENT;
}

int undo_model_directory(struct undo_model *model, uint32_t number)
{
	return open_directory(model, number, 0);
}

int undo_model_add_instance(struct undo_model *model, uint32_t object, uint32_t directory,
			    uint32_t name)
{
	int result = undo_grow((void **)&model->instances, model->instance_count,
			       &model->instance_capacity, sizeof(*model->instances));

	if (result < 0)
		return result;
	model->instances[model->instance_count++] =
		(struct model_instance){ .object = object, .directory = directory, .name = name };
	return 0;
}

/* The grave and the stage: what the log knows there. */
static int scan_store(struct undo_model *model, uint32_t where, int directory_fd)
{
	struct dirent *item;
	DIR *stream;
	int result = 0;
	int fd;

	if (directory_fd < 0)
		return 0;
	fd = undo_open_beneath(directory_fd, "", O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	stream = fdopendir(fd);
	if (!stream) {
		close(fd);
		return -ENOMEM;
	}
	while (result == 0 && (item = readdir(stream))) {
		struct statx stat;
		uint64_t number;
		uint32_t object;
		uint32_t name;

		if (!undo_parse_number(item->d_name, &number) ||
		    undo_statx(fd, item->d_name, &stat) < 0)
			continue;
		object = undo_model_identify(model, &stat);
		if (object == MODEL_FOREIGN)
			continue;
		result = undo_names_add(&model->names, item->d_name, strlen(item->d_name), &name);
		if (result == 0)
			result = undo_model_add_instance(model, object, where, name);
		if (result == 0 && !model->objects[object].located)
			undo_model_place(model, object, where, name, &stat);
	}
	closedir(stream);
	return result;
}

static int scan_entry(struct undo_model *model, int directory_fd, uint32_t index)
{
	struct model_entry *entry = &model->entries[index];
	struct statx stat;
	struct model_object *object;
	int result = undo_statx(directory_fd, undo_model_name(model, entry->name), &stat);

	if (result < 0 && result != -ENOENT && result != -ENOTDIR)
		return result;
	entry->seen = true;
	entry->now = MODEL_NONE;
	if (result < 0)
		return 0;
	entry->now = undo_model_identify(model, &stat);
	entry->now_mode = stat.stx_mode;
	if (entry->now == MODEL_FOREIGN)
		return 0;
	object = &model->objects[entry->now];
	/* A place in the tree counts more than one in the store, the old place most. */
	if (!object->located || object->now_directory >= MODEL_STAGE || entry->wanted == entry->now)
		undo_model_place(model, entry->now, entry->directory, entry->name, &stat);
	return 0;
}

static int scan_directory(struct undo_model *model, uint32_t number, bool *ret_progress)
{
	int fd = undo_model_directory(model, number);

	if (fd < 0)
		return fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM ? fd : 0;
	for (uint32_t i = model->objects[number].first_entry; i != MODEL_NO_ENTRY;
	     i = model->entries[i].next) {
		int result = scan_entry(model, fd, i);

		if (result == -EACCES)
			break;
		if (result < 0)
			return result;
	}
	model->objects[number].scanned = true;
	*ret_progress = true;
	return 0;
}

/* A creation that the crash caught between doing and recording: what stands at the name is the
 * session's if it is new and still empty, since nothing was written to it before the record. */
static int adopt_pending(struct undo_model *model)
{
	struct undo_record record = { .type = UNDO_RECORD_BORN };
	struct model_entry *entry;
	struct timespec birth;
	struct statx stat;
	int fd;

	if (model->pending_entry == MODEL_NO_ENTRY)
		return 0;
	entry = &model->entries[model->pending_entry];
	if (!entry->seen || entry->now != MODEL_FOREIGN)
		return 0;
	fd = undo_model_directory(model, entry->directory);
	if (fd < 0 || undo_statx(fd, undo_model_name(model, entry->name), &stat) < 0 ||
	    (stat.stx_mode & S_IFMT) != model->pending_type)
		return 0;
	birth = (struct timespec){ .tv_sec = stat.stx_btime.tv_sec,
				   .tv_nsec = (long)stat.stx_btime.tv_nsec };
	if (!(stat.stx_mask & STATX_BTIME) || timespec_before(&birth, &model->pending_time) ||
	    (S_ISREG(stat.stx_mode) && stat.stx_size > 0))
		return 0;
	if (S_ISDIR(stat.stx_mode)) {
		cleanup_fd int child = undo_open_beneath(fd, undo_model_name(model, entry->name),
							 O_PATH | O_DIRECTORY, 0);

		if (child < 0 || undo_directory_empty(child) < 0)
			return 0;
	}
	record.object = model->object_count;
	undo_identity_from_statx(&stat, &record.identity);
	undo_attributes_from_statx(&stat, &record.attributes);
	entry->now = record.object;
	if (add_object(model, &record) < 0)
		return -ENOMEM;
	undo_model_place(model, record.object, entry->directory, entry->name, &stat);
	return 0;
}

int undo_model_scan(struct undo_model *model)
{
	struct statx stat;
	bool progress = true;
	int result = undo_statx(model->root_fd, "", &stat);

	if (result < 0)
		return result;
	if (model->object_count <= UNDO_ROOT)
		return 0; /* killed before it recorded the root: nothing was changed */
	/* Another tree than the one that the store belongs to is not touched. */
	if (undo_model_identify(model, &stat) != UNDO_ROOT)
		return -ESTALE;
	undo_model_place(model, UNDO_ROOT, 0, 0, &stat);
	result = scan_store(model, MODEL_GRAVE, model->grave_fd);
	if (result == 0)
		result = scan_store(model, MODEL_STAGE, model->stage_fd);
	while (result == 0 && progress) {
		progress = false;
		for (uint32_t i = UNDO_ROOT; result == 0 && i < model->object_count; i++) {
			if (!model->objects[i].scanned &&
			    model->objects[i].first_entry != MODEL_NO_ENTRY)
				result = scan_directory(model, i, &progress);
		}
	}
	return result < 0 ? result : adopt_pending(model);
}

bool undo_model_locate(struct undo_model *model, uint32_t number)
{
	struct model_object *object = &model->objects[number];
	struct statx stat;
	int fd;

	if (object->located || object->dead)
		return object->located;
	if (!object->parent)
		return false;
	fd = undo_model_directory(model, object->parent);
	if (fd < 0 || undo_statx(fd, undo_model_name(model, object->name), &stat) < 0 ||
	    undo_model_identify(model, &stat) != number)
		return false;
	undo_model_place(model, number, object->parent, object->name, &stat);
	return true;
}

int undo_model_open(struct undo_model *model, uint32_t number, int flags)
{
	const struct model_object *object = &model->objects[number];
	cleanup_fd int fd = -1;
	struct statx stat;
	int directory;

	if (number == UNDO_ROOT)
		return undo_open_beneath(model->root_fd, "", flags, 0);
	if (!undo_model_locate(model, number))
		return -ENOENT;
	directory = undo_model_directory(model, object->now_directory);
	if (directory < 0)
		return directory;
	fd = undo_open_beneath(directory, undo_model_name(model, object->now_name),
			       flags & O_PATH ? flags : flags | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return fd;
	if (undo_statx(fd, "", &stat) < 0 || undo_model_identify(model, &stat) != number)
		return -ESTALE;
	return steal_fd(&fd);
}

/* ---- paths ----------------------------------------------------------------------------------- */

/* Puts "name" or "name/" in front of the path that grows at the end of the buffer. */
static bool prepend(char *buffer, size_t *start, const char *name)
{
	size_t length = strlen(name);
	bool slash = *start < MODEL_PATH_MAX - 1;

	if (length + slash > *start)
		return false;
	if (slash)
		buffer[--*start] = '/';
	*start -= length;
	memcpy(buffer + *start, name, length);
	return true;
}

static bool build_path(struct undo_model *model, uint32_t directory, const char *name, bool before,
		       char path[MODEL_PATH_MAX])
{
	char buffer[MODEL_PATH_MAX];
	size_t start = sizeof(buffer) - 1;

	buffer[start] = '\0';
	if (!prepend(buffer, &start, name))
		return false;
	for (unsigned depth = 0; directory != UNDO_ROOT; depth++) {
		const struct model_object *object;

		if (depth > MODEL_DEPTH_MAX || !known(model, directory))
			return false;
		object = &model->objects[directory];
		if (before && object->first_claim != MODEL_NO_ENTRY) {
			name = undo_model_name(model, model->entries[object->first_claim].name);
			directory = model->entries[object->first_claim].directory;
		} else if (before && object->parent) {
			name = undo_model_name(model, object->name);
			directory = object->parent;
		} else if (undo_model_locate(model, directory)) {
			name = undo_model_name(model, object->now_name);
			directory = object->now_directory;
		} else {
			return false;
		}
		if (!prepend(buffer, &start, name))
			return false;
	}
	memcpy(path, buffer + start, sizeof(buffer) - start);
	return true;
}

bool undo_model_path_now(struct undo_model *model, uint32_t directory, const char *name,
			 char path[MODEL_PATH_MAX])
{
	return build_path(model, directory, name, false, path);
}

bool undo_model_path_before(struct undo_model *model, uint32_t directory, const char *name,
			    char path[MODEL_PATH_MAX])
{
	return build_path(model, directory, name, true, path);
}

void undo_model_describe(struct undo_model *model, uint32_t number, char path[MODEL_PATH_MAX])
{
	const struct model_object *object = &model->objects[number];
	uint32_t directory = object->parent;
	uint32_t name = object->name;

	if (number == UNDO_ROOT) {
		snprintf(path, MODEL_PATH_MAX, ".");
		return;
	}
	if (undo_model_locate(model, number) && object->now_directory < MODEL_STAGE &&
	    undo_model_path_now(model, object->now_directory,
				undo_model_name(model, object->now_name), path))
		return;
	if (object->first_claim != MODEL_NO_ENTRY) {
		directory = model->entries[object->first_claim].directory;
		name = model->entries[object->first_claim].name;
	}
	if (directory &&
	    undo_model_path_before(model, directory, undo_model_name(model, name), path))
		return;
	snprintf(path, MODEL_PATH_MAX, "(inode %llu)", (unsigned long long)object->identity.ino);
}
