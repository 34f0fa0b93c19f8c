/*
 * Theory of operation
 *
 * Whether the host edited a file can only be told before the roll-back changes anything. So all
 * decisions are taken first and written to `progress`; a roll-back that is started again reads
 * them there and does not judge its own work as the host's. Only exceptions are written: what the
 * plan does not mention is put back plainly.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_restore.h"
#include "fsserver/undo_rollback.h"

#define SUFFIX_TRIES 1000u

void rollback_kept(struct rollback *rollback, const char *path, const char *kept_path)
{
	rollback->report.kept++;
	if (rollback->callbacks && rollback->callbacks->on_kept)
		rollback->callbacks->on_kept(path, kept_path, rollback->callbacks->context);
}

void rollback_failed(struct rollback *rollback, const char *path, int error)
{
	rollback->report.failed++;
	if (rollback->callbacks && rollback->callbacks->on_failed)
		rollback->callbacks->on_failed(path, error, rollback->callbacks->context);
}

/* ---- the written plan ------------------------------------------------------------------------ */

/* Makes the entry directory/new_name that wants `object`; the old entry lets go of it. */
static int apply_redirect(struct rollback *rollback, uint32_t directory, const char *name,
			  size_t name_length, const char *new_name, size_t new_length,
			  uint32_t object, uint32_t *ret_entry)
{
	struct undo_model *model = &rollback->model;
	uint32_t old = 0;
	uint32_t fresh = 0;
	int result = undo_model_entry(model, directory, name, name_length, &old);

	if (result == 0)
		result = undo_model_entry(model, directory, new_name, new_length, &fresh);
	if (result < 0)
		return result;
	if (model->entries[old].wanted == object) {
		model->entries[old].wanted = MODEL_NONE;
		model->entries[old].left = true;
	}
	model->entries[fresh].wanted = object;
	model->entries[fresh].origin = old + 1;
	*ret_entry = fresh;
	return 0;
}

static int add_beside(struct rollback *rollback, uint32_t object, uint32_t directory,
		      const char *name, size_t length)
{
	struct rollback_beside beside = { .object = object, .directory = directory };
	int result = undo_names_add(&rollback->model.names, name, length, &beside.name);

	if (result == 0)
		result = undo_grow((void **)&rollback->besides, rollback->beside_count,
				   &rollback->beside_capacity, sizeof(*rollback->besides));
	if (result == 0)
		rollback->besides[rollback->beside_count++] = beside;
	return result;
}

static bool known(const struct rollback *rollback, uint32_t number)
{
	return number > 0 && number < rollback->model.object_count;
}

static int apply_record(struct rollback *rollback, const struct undo_record *record)
{
	uint32_t entry;

	switch ((unsigned)record->type) {
	case UNDO_RECORD_PLAN_KEEP:
		if (!known(rollback, record->object))
			return -EBADMSG;
		rollback->model.objects[record->object].decision = record->flags;
		return 0;
	case UNDO_RECORD_PLAN_REDIRECT:
		if (!known(rollback, record->object) || !known(rollback, record->directory) ||
		    !undo_name_valid((const char *)record->data, record->data_length))
			return -EBADMSG;
		return apply_redirect(rollback, record->directory, record->name,
				      record->name_length, (const char *)record->data,
				      record->data_length, record->object, &entry);
	case UNDO_RECORD_PLAN_BESIDE:
		if (!known(rollback, record->object) || !known(rollback, record->directory))
			return -EBADMSG;
		return add_beside(rollback, record->object, record->directory, record->name,
				  record->name_length);
	default:
		return 0;
	}
}

/* Reads `progress` once for its end, and once more, when a plan is complete, to apply it. */
static int read_progress(struct rollback *rollback, int fd, bool apply, bool *ret_done,
			 uint64_t *ret_end, uint64_t *ret_sequence)
{
	struct undo_log_reader reader;
	struct undo_record record;
	int result = undo_log_reader_init(&reader, fd);

	*ret_done = false;
	while (result >= 0 && (result = undo_log_reader_next(&reader, &record)) > 0) {
		if (record.type == UNDO_RECORD_DONE)
			*ret_done = true;
		if (record.type == UNDO_RECORD_PLAN_END)
			rollback->planned = true;
		if (apply)
			result = apply_record(rollback, &record);
	}
	*ret_end = reader.offset;
	*ret_sequence = reader.sequence;
	undo_log_reader_finish(&reader);
	return result;
}

int rollback_open_progress(struct rollback *rollback, bool *ret_done)
{
	cleanup_fd int fd =
		undo_open_beneath(rollback->model.store_fd, "progress", O_RDWR | O_CREAT, 0600);
	uint64_t sequence;
	uint64_t end;
	int result;

	if (fd < 0)
		return fd;
	result = read_progress(rollback, fd, false, ret_done, &end, &sequence);
	if (result == -EBADMSG || (result == 0 && !rollback->planned && !*ret_done)) {
		/* Nothing was done by it yet, or it holds nothing: plan afresh. Its room is kept,
		 * for the disk may be full. */
		result = undo_log_wipe(fd, 0);
		if (result < 0)
			return result;
		return undo_log_create(&rollback->progress, steal_fd(&fd));
	}
	if (result < 0)
		return result;
	return undo_log_continue(&rollback->progress, steal_fd(&fd), end, sequence);
}

static int free_name(struct rollback *rollback, uint32_t directory, const char *name,
		     const char *suffix, char fresh[UNDO_NAME_MAX + 1])
{
	int fd = undo_model_directory(&rollback->model, directory);
	struct statx stat;

	if (fd < 0)
		return fd;
	for (unsigned i = 1; i < SUFFIX_TRIES; i++) {
		char tail[40];
		size_t kept = strlen(name);
		uint32_t entry;
		int result;

		if (i == 1)
			snprintf(tail, sizeof(tail), "%s", suffix);
		else
			snprintf(tail, sizeof(tail), "%s.%u", suffix, i);
		kept = MIN_OF(kept, UNDO_NAME_MAX - strlen(tail));
		snprintf(fresh, UNDO_NAME_MAX + 1, "%.*s%s", (int)kept, name, tail);
		result =
			undo_model_entry(&rollback->model, directory, fresh, strlen(fresh), &entry);
		if (result < 0)
			return result;
		if (rollback->model.entries[entry].wanted == MODEL_NONE &&
		    undo_statx(fd, fresh, &stat) == -ENOENT)
			return 0;
	}
	return -EEXIST;
}

int rollback_redirect(struct rollback *rollback, uint32_t entry, uint32_t object,
		      const char *suffix, uint32_t *ret_entry)
{
	char name[UNDO_NAME_MAX + 1];
	char fresh[UNDO_NAME_MAX + 1];
	uint32_t directory = rollback->model.entries[entry].directory;
	struct undo_record record = {
		.type = UNDO_RECORD_PLAN_REDIRECT,
		.object = object,
		.directory = directory,
		.name = name,
		.data = (const uint8_t *)fresh,
	};
	int result;

	snprintf(name, sizeof(name), "%s",
		 undo_model_name(&rollback->model, rollback->model.entries[entry].name));
	result = free_name(rollback, directory, name, suffix, fresh);
	if (result < 0)
		return result;
	record.name_length = strlen(name);
	record.data_length = strlen(fresh);
	result = undo_log_append(&rollback->progress, &record);
	if (result < 0)
		return result;
	return apply_redirect(rollback, directory, name, record.name_length, fresh,
			      record.data_length, object, ret_entry);
}

/* ---- deciding -------------------------------------------------------------------------------- */

static uint32_t decide_born(const struct model_object *object)
{
	bool edited = object->now.size != object->stamp.size ||
		      !timespec_equal(&object->now.modification, &object->stamp.modification);

	if (!S_ISREG(object->mode))
		return 0;
	if (object->host_edit)
		return ROLLBACK_KEEP_CONTENT;
	if (!edited || object->now.size == 0)
		return 0;
	return object->dirty ? ROLLBACK_COPY_FIRST : ROLLBACK_KEEP_CONTENT;
}

static uint32_t decide_old(const struct model_object *object)
{
	const struct undo_attributes *now = &object->now;
	const struct undo_attributes *stamp = &object->stamp;
	bool content = object->touched & UNDO_TOUCH_CONTENT;
	uint32_t decision = 0;

	if (object->host_edit && content)
		decision |= ROLLBACK_KEEP_CONTENT;
	if (object->dirty || !object->stamped)
		return decision ? decision : content ? ROLLBACK_COPY_FIRST : 0;
	/* A roll-back that was killed may have opened directories up. */
	if (S_ISDIR(object->mode) ? (now->mode | S_IRWXU) != (stamp->mode | S_IRWXU)
				  : now->mode != stamp->mode)
		decision |= ROLLBACK_KEEP_MODE;
	if (now->uid != stamp->uid || now->gid != stamp->gid)
		decision |= ROLLBACK_KEEP_MODE;
	if (S_ISDIR(object->mode))
		return decision;
	if (now->size != stamp->size || !timespec_equal(&now->modification, &stamp->modification))
		decision |= content ? ROLLBACK_KEEP_CONTENT : ROLLBACK_KEEP_TIMES;
	return decision;
}

static int plan_beside(struct rollback *rollback, uint32_t number)
{
	struct undo_model *model = &rollback->model;
	const struct model_object *object = undo_model_object(model, number);
	char name[UNDO_NAME_MAX + 1];
	char fresh[UNDO_NAME_MAX + 1];
	uint32_t directory = object->parent;
	uint32_t named = object->name;
	struct undo_record record = {
		.type = UNDO_RECORD_PLAN_BESIDE,
		.object = number,
		.name = fresh,
	};
	int result;

	if (object->first_claim != MODEL_NO_ENTRY) {
		directory = model->entries[object->first_claim].directory;
		named = model->entries[object->first_claim].name;
	}
	if (!directory)
		return -ENOENT;
	snprintf(name, sizeof(name), "%s", undo_model_name(model, named));
	result = free_name(rollback, directory, name, SUFFIX_BEFORE, fresh);
	if (result < 0)
		return result;
	record.directory = directory;
	record.name_length = strlen(fresh);
	result = undo_log_append(&rollback->progress, &record);
	return result < 0 ? result
			  : add_beside(rollback, number, directory, fresh, record.name_length);
}

static int plan_object(struct rollback *rollback, uint32_t number)
{
	struct undo_model *model = &rollback->model;
	struct model_object *object = undo_model_object(model, number);
	struct undo_record record = { .type = UNDO_RECORD_PLAN_KEEP, .object = number };
	char path[MODEL_PATH_MAX];
	bool content = !object->born && (object->touched & UNDO_TOUCH_CONTENT);
	int result = 0;

	if (!object->born && !object->touched)
		return 0;
	if (object->dead || !undo_model_locate(model, number)) {
		/* The host removed it, or saved another file over it: what it held before would
		 * be lost with the store. */
		if (content && undo_has_before(model, number))
			result = plan_beside(rollback, number);
		return result == -ENOENT ? 0 : result;
	}
	record.flags = object->born ? decide_born(object) : decide_old(object);
	if (!record.flags)
		return 0;
	object->decision = record.flags;
	result = undo_log_append(&rollback->progress, &record);
	if (result == 0 && content && (record.flags & ROLLBACK_KEEP_CONTENT)) {
		result = plan_beside(rollback, number);
		if (result < 0 && result != -ENOSPC && result != -EDQUOT) {
			undo_model_describe(model, number, path);
			rollback_failed(rollback, path, result);
			result = 0;
		}
	}
	return result;
}

/* A name that the host took while the session's object was away, or that it holds now. */
static int plan_entry(struct rollback *rollback, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	const struct model_entry *entry = &model->entries[index];
	bool foreign = entry->now == MODEL_FOREIGN;
	uint32_t fresh;
	int result;

	if (entry->seen && entry->now != MODEL_NONE && !foreign && entry->now != entry->wanted) {
		const struct model_object *object = undo_model_object(model, entry->now);

		foreign = object->born && (object->decision & ROLLBACK_KEEP_CONTENT);
	}
	if (!entry->seen || !foreign || entry->wanted == MODEL_NONE ||
	    !undo_model_object(model, entry->wanted)->located)
		return 0;
	result = rollback_redirect(rollback, index, entry->wanted, SUFFIX_BEFORE, &fresh);
	return result == -EEXIST || result == -ENOENT ? 0 : result;
}

static int make_plan(struct rollback *rollback)
{
	struct undo_model *model = &rollback->model;
	uint32_t entries = model->entry_count;
	struct undo_record end = { .type = UNDO_RECORD_PLAN_END };
	uint32_t fresh;
	int result = 0;

	for (uint32_t i = UNDO_ROOT; result == 0 && i < model->object_count; i++)
		result = plan_object(rollback, i);
	for (uint32_t i = 0; result == 0 && i < model->displaced_count; i++) {
		const struct model_displaced *displaced = &model->displaced[i];

		if (undo_model_object(model, displaced->object)->located)
			result = rollback_redirect(rollback, displaced->entry, displaced->object,
						   SUFFIX_BEFORE, &fresh);
	}
	for (uint32_t i = 0; result == 0 && i < entries; i++)
		result = plan_entry(rollback, i);
	if (result == 0)
		result = undo_log_append(&rollback->progress, &end);
	if (result == 0 && fdatasync(rollback->progress.fd))
		result = -errno;
	return result;
}

/* The names that the plan added must be looked at, too. */
static int scan_added(struct rollback *rollback)
{
	struct undo_model *model = &rollback->model;

	for (uint32_t i = 0; i < model->entry_count; i++) {
		struct model_entry *entry = &model->entries[i];
		struct statx stat;
		int fd;

		if (entry->seen)
			continue;
		fd = undo_model_directory(model, entry->directory);
		if (fd < 0)
			continue;
		entry->seen = true;
		if (undo_statx(fd, undo_model_name(model, entry->name), &stat) < 0)
			continue;
		entry->now = undo_model_identify(model, &stat);
		entry->now_mode = stat.stx_mode;
		if (entry->now != MODEL_FOREIGN && entry->now == entry->wanted)
			undo_model_place(model, entry->now, entry->directory, entry->name, &stat);
	}
	return 0;
}

int rollback_plan(struct rollback *rollback)
{
	uint64_t sequence;
	uint64_t end;
	bool done;
	int result;

	if (rollback->planned)
		result = read_progress(rollback, rollback->progress.fd, true, &done, &end,
				       &sequence);
	else
		result = make_plan(rollback);
	return result < 0 ? result : scan_added(rollback);
}
