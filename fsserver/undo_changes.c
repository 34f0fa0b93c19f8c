/*
 * The net changes of a session, from the store and the tree (undo_model.c): each name where an
 * object stood before and each name that the session made is looked at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_model.h"
#include "fsserver/undo_restore.h"

#define BUILD_MAX (16u << 20) /* bytes of a content before that is put together from blocks */
#define COMPARE_BYTES 65536u

struct change {
	enum undo_change_kind kind;
	bool content_changed;
	char *path;
	char *old_path;
	uint32_t before; /* the object before, MODEL_NONE for a created one */
	uint32_t after;	 /* the object now, MODEL_NONE for a deleted one */
};

struct changes {
	struct undo_model model;
	struct change *list;
	uint32_t count;
	uint32_t capacity;
};

static int add_change(struct changes *changes, enum undo_change_kind kind, const char *path,
		      const char *old_path, uint32_t before, uint32_t after)
{
	struct change change = { .kind = kind, .before = before, .after = after };
	int result = undo_grow((void **)&changes->list, changes->count, &changes->capacity,
			       sizeof(*changes->list));

	if (result < 0)
		return result;
	change.path = strdup(path);
	change.old_path = old_path ? strdup(old_path) : NULL;
	if (!change.path || (old_path && !change.old_path)) {
		free(change.path);
		free(change.old_path);
		return -ENOMEM;
	}
	changes->list[changes->count++] = change;
	return 0;
}

/* ---- content --------------------------------------------------------------------------------- */

/* What the object held before; -1 when that is too large to put together, or gone. */
static int open_before(struct undo_model *model, uint32_t number)
{
	const struct model_object *object = undo_model_object(model, number);
	cleanup_fd int fd = -1;

	if (!S_ISREG(object->mode))
		return -1;
	if (!(object->touched & UNDO_TOUCH_CONTENT)) {
		fd = undo_model_open(model, number, O_RDONLY);
		return fd < 0 ? -1 : steal_fd(&fd);
	}
	if (!undo_has_before(model, number))
		return -1;
	if (object->pre_kind == UNDO_PRE_WHOLE) {
		fd = undo_open_beneath(model->pre_fd, undo_number_name(object->pre_number).text,
				       O_RDONLY | O_NONBLOCK, 0);
		return fd < 0 ? -1 : steal_fd(&fd);
	}
	if (object->pre_size > BUILD_MAX)
		return -1;
	fd = memfd_create("before", MFD_CLOEXEC);
	if (fd < 0 || undo_build_before(model, number, fd) < 0)
		return -1;
	return steal_fd(&fd);
}

static bool same_range(int a, int b, uint64_t offset, uint64_t length)
{
	cleanup_free char *left = malloc(COMPARE_BYTES);
	cleanup_free char *right = malloc(COMPARE_BYTES);

	if (!left || !right)
		return false;
	while (length > 0) {
		size_t want = (size_t)MIN_OF(length, (uint64_t)COMPARE_BYTES);
		ssize_t count = pread(a, left, want, (off_t)offset);

		if (count <= 0 || pread(b, right, (size_t)count, (off_t)offset) != count ||
		    memcmp(left, right, (size_t)count) != 0)
			return false;
		offset += (uint64_t)count;
		length -= (uint64_t)count;
	}
	return true;
}

/* Whether the object's content differs from what it was; unreadable counts as different. */
static bool content_differs(struct undo_model *model, uint32_t number)
{
	const struct model_object *object = undo_model_object(model, number);
	cleanup_fd int now = -1;
	cleanup_fd int before = -1;

	if (!S_ISREG(object->mode) || !(object->touched & UNDO_TOUCH_CONTENT))
		return false;
	if (object->now.size != object->pre_size)
		return true;
	now = undo_model_open(model, number, O_RDONLY);
	if (now < 0)
		return true;
	if (object->pre_kind != UNDO_PRE_BLOCKS) {
		before = open_before(model, number);
		return before < 0 || !same_range(before, now, 0, object->pre_size);
	}
	before = undo_open_beneath(model->pre_fd, undo_number_name(object->pre_number).text,
				   O_RDONLY | O_NONBLOCK, 0);
	for (uint64_t block = 0; before >= 0 && block < object->blocks; block++) {
		uint64_t offset = block * UNDO_BLOCK_BYTES;

		if (undo_model_block_saved(object, block) &&
		    !same_range(before, now, offset,
				MIN_OF((uint64_t)UNDO_BLOCK_BYTES, object->pre_size - offset)))
			return true;
	}
	return before < 0;
}

static bool attributes_differ(struct undo_model *model, uint32_t number)
{
	const struct model_object *object = undo_model_object(model, number);

	if (!object->has_before || !(object->touched & UNDO_TOUCH_ATTRIBUTES))
		return false;
	return object->before.mode != object->now.mode || object->before.uid != object->now.uid ||
	       object->before.gid != object->now.gid || undo_xattrs_differ(model, number);
}

/* ---- collecting ------------------------------------------------------------------------------ */

/* What stands in the tree at the entry now: a known object, or MODEL_NONE. */
static uint32_t known_now(const struct model_entry *entry)
{
	return entry->seen && entry->now != MODEL_FOREIGN ? entry->now : MODEL_NONE;
}

/* An object that was at this entry, and no longer is. */
static int collect_gone(struct changes *changes, uint32_t index)
{
	struct undo_model *model = &changes->model;
	const struct model_entry *entry = &model->entries[index];
	const struct model_object *object = undo_model_object(model, entry->wanted);
	const char *name = undo_model_name(model, entry->name);
	char before[MODEL_PATH_MAX];
	char now[MODEL_PATH_MAX];
	uint32_t other = known_now(entry);

	if (!undo_model_path_before(model, entry->directory, name, before))
		return 0;
	if (object->first_claim == index && object->located &&
	    object->now_directory < MODEL_STAGE &&
	    undo_model_path_now(model, object->now_directory,
				undo_model_name(model, object->now_name), now))
		return add_change(changes, UNDO_RENAMED, now, before, entry->wanted, entry->wanted);
	/* Replaced under the same name, as editors and git do: one change. */
	if (other && undo_model_object(model, other)->born && S_ISREG(object->mode) &&
	    S_ISREG(undo_model_object(model, other)->mode) &&
	    undo_model_path_now(model, entry->directory, name, now) && strcmp(now, before) == 0)
		return add_change(changes, UNDO_CHANGED, now, NULL, entry->wanted, other);
	return add_change(changes, UNDO_DELETED, before, NULL, entry->wanted, MODEL_NONE);
}

/* What stands at a name that the session touched, and was not there before. */
static int collect_new(struct changes *changes, uint32_t index)
{
	struct undo_model *model = &changes->model;
	const struct model_entry *entry = &model->entries[index];
	const struct model_object *object = undo_model_object(model, entry->now);
	char before[MODEL_PATH_MAX];
	char now[MODEL_PATH_MAX];

	if (!undo_model_path_now(model, entry->directory, undo_model_name(model, entry->name), now))
		return 0;
	if (!object->born) {
		/* The target of a rename, listed with its old name; or a further link. */
		const struct model_entry *claim = NULL;

		if (object->first_claim != MODEL_NO_ENTRY)
			claim = &model->entries[object->first_claim];
		if (claim && claim->wanted == entry->now && claim->now != entry->now &&
		    object->now_directory == entry->directory && object->now_name == entry->name)
			return 0;
		return add_change(changes, UNDO_CREATED, now, NULL, MODEL_NONE, entry->now);
	}
	if (entry->wanted && S_ISREG(object->mode) &&
	    S_ISREG(undo_model_object(model, entry->wanted)->mode) &&
	    undo_model_path_before(model, entry->directory, undo_model_name(model, entry->name),
				   before) &&
	    strcmp(before, now) == 0) {
		const struct model_object *old = undo_model_object(model, entry->wanted);

		/* Told by collect_gone, unless the old object was renamed away. */
		if (old->first_claim != index || !old->located || old->now_directory >= MODEL_STAGE)
			return 0;
	}
	return add_change(changes, UNDO_CREATED, now, NULL, MODEL_NONE, entry->now);
}

/* Content or attributes of an object that stands where it stood. */
static int collect_in_place(struct changes *changes, uint32_t number)
{
	struct undo_model *model = &changes->model;
	const struct model_object *object = undo_model_object(model, number);
	const struct model_entry *claim = NULL;
	char path[MODEL_PATH_MAX];

	if (object->born || object->dead ||
	    !(object->touched & (UNDO_TOUCH_CONTENT | UNDO_TOUCH_ATTRIBUTES)))
		return 0;
	if (number != UNDO_ROOT && !undo_model_locate(model, number))
		return 0;
	if (object->first_claim != MODEL_NO_ENTRY)
		claim = &model->entries[object->first_claim];
	if (object->now_directory >= MODEL_STAGE || (claim && claim->now != number))
		return 0; /* deleted or renamed, and listed as that */
	undo_model_describe(model, number, path);
	if (content_differs(model, number))
		return add_change(changes, UNDO_CHANGED, path, NULL, number, number);
	if (attributes_differ(model, number))
		return add_change(changes, UNDO_ATTRIBUTES, path, NULL, number, number);
	return 0;
}

static int collect(struct changes *changes)
{
	struct undo_model *model = &changes->model;
	int result = 0;

	for (uint32_t i = 0; result == 0 && i < model->entry_count; i++) {
		const struct model_entry *entry = &model->entries[i];

		if (entry->wanted && entry->now != entry->wanted)
			result = collect_gone(changes, i);
		if (result == 0 && known_now(entry) && entry->now != entry->wanted)
			result = collect_new(changes, i);
	}
	for (uint32_t i = UNDO_ROOT; result == 0 && i < model->object_count; i++)
		result = collect_in_place(changes, i);
	return result;
}

/* ---- telling --------------------------------------------------------------------------------- */

static int compare_changes(const void *a, const void *b)
{
	const struct change *left = a;
	const struct change *right = b;
	int order = strcmp(left->path, right->path);

	return order ? order : (int)left->kind - (int)right->kind;
}

static void stat_from(const struct undo_attributes *attributes, uint64_t ino, struct stat *ret_stat)
{
	*ret_stat = (struct stat){
		.st_ino = ino,
		.st_mode = attributes->mode,
		.st_uid = attributes->uid,
		.st_gid = attributes->gid,
		.st_size = (off_t)attributes->size,
		.st_atim = attributes->access,
		.st_mtim = attributes->modification,
		.st_ctim = attributes->change,
	};
}

static int tell(struct changes *changes, const struct change *change,
		int (*callback)(const struct undo_change *change, void *context), void *context)
{
	struct undo_model *model = &changes->model;
	struct undo_change told = {
		.kind = change->kind,
		.path = change->path,
		.old_path = change->old_path,
		.before_fd = -1,
		.after_fd = -1,
	};
	int result;

	if (change->before) {
		const struct model_object *object = undo_model_object(model, change->before);

		stat_from(object->has_before ? &object->before : &object->now, object->identity.ino,
			  &told.before);
		if (object->touched & UNDO_TOUCH_CONTENT)
			told.before.st_size = (off_t)object->pre_size;
		told.before_fd = open_before(model, change->before);
	}
	if (change->after) {
		const struct model_object *object = undo_model_object(model, change->after);

		stat_from(&object->now, object->identity.ino, &told.after);
		if (S_ISREG(object->mode))
			told.after_fd = undo_model_open(model, change->after, O_RDONLY);
	}
	if (change->kind == UNDO_RENAMED)
		told.content_changed = content_differs(model, change->after);
	else
		told.content_changed = change->kind == UNDO_CHANGED;
	result = callback(&told, context);
	if (told.before_fd >= 0)
		close(told.before_fd);
	if (told.after_fd >= 0)
		close(told.after_fd);
	return result;
}

int undo_each_change(int store_fd, int root_fd,
		     int (*callback)(const struct undo_change *change, void *context),
		     void *context)
{
	struct changes changes = { 0 };
	int result = undo_model_load(&changes.model, store_fd, root_fd);

	if (result < 0)
		return result;
	result = undo_model_scan(&changes.model);
	if (result == 0)
		result = collect(&changes);
	if (changes.count > 1)
		qsort(changes.list, changes.count, sizeof(*changes.list), compare_changes);
	for (uint32_t i = 0; result == 0 && i < changes.count; i++)
		result = tell(&changes, &changes.list[i], callback, context);
	for (uint32_t i = 0; i < changes.count; i++) {
		free(changes.list[i].path);
		free(changes.list[i].old_path);
	}
	free(changes.list);
	undo_model_free(&changes.model);
	return result;
}
