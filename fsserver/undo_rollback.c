/*
 * Theory of operation
 *
 * The plan stands (undo_plan.c); now the tree is moved towards it. Each step looks at what is and
 * does nothing where that already agrees, so the whole may be killed and started again:
 *     1  names that hold what the session put there are cleared: its own files are unlinked, what
 *        is in the way is moved to stage/
 *     2  what belongs somewhere is moved there, by one rename each, from wherever it is; places
 *        nearest to the root first, so that no directory is ever moved below itself
 *     3  content and attributes of files are put back
 *     4  what is left over is removed: further names of linked files, by which step 3 may have had
 *        to find them, and the session's directories
 *     5  attributes of directories, whose times the steps before have changed
 *     6  everything is on disk before `progress` says done
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_restore.h"
#include "fsserver/undo_rollback.h"

#define SUFFIX_HOST ".matchlock-host"
#define PROGRESS_EVERY 256u

static void step(struct rollback *rollback)
{
	rollback->done++;
	if (rollback->callbacks && rollback->callbacks->on_progress &&
	    rollback->done % PROGRESS_EVERY == 0)
		rollback->callbacks->on_progress(rollback->done, rollback->total,
						 rollback->callbacks->context);
}

static void entry_path(struct rollback *rollback, uint32_t index, char path[MODEL_PATH_MAX])
{
	struct undo_model *model = &rollback->model;
	const struct model_entry *entry = &model->entries[index];
	const char *name = undo_model_name(model, entry->name);

	if (!undo_model_path_before(model, entry->directory, name, path))
		snprintf(path, MODEL_PATH_MAX, ".../%s", name);
}

static void fail_entry(struct rollback *rollback, uint32_t index, int error)
{
	char path[MODEL_PATH_MAX];

	entry_path(rollback, index, path);
	rollback_failed(rollback, path, error);
}

static void store_name(const struct rollback *rollback, const char *directory, const char *name,
		       char path[MODEL_PATH_MAX])
{
	snprintf(path, MODEL_PATH_MAX, "%.3500s/%s/%.255s", rollback->store_path, directory, name);
}

/* A directory that its owner may not write cannot be moved to another parent: it is opened up for
 * that moment. */
static int move_object(int from, const char *name, int to, const char *new_name)
{
	cleanup_fd int fd = -1;
	struct statx stat;
	int result;

	if (renameat2(from, name, to, new_name, RENAME_NOREPLACE) == 0)
		return 0;
	result = -errno;
	if (result != -EACCES)
		return result;
	fd = undo_open_beneath(from, name, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 || undo_statx(fd, "", &stat) < 0 ||
	    undo_chmod(-1, fd, (stat.stx_mode & 07777) | S_IRWXU) < 0)
		return result;
	result = renameat2(from, name, to, new_name, RENAME_NOREPLACE) ? -errno : 0;
	(void)undo_chmod(-1, fd, stat.stx_mode & 07777);
	return result;
}

/* ---- 1: clear -------------------------------------------------------------------------------- */

static int stage(struct rollback *rollback, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	struct model_entry *entry = &model->entries[index];
	int fd = undo_model_directory(model, entry->directory);
	struct undo_number_name name;
	uint32_t at;
	int result;

	if (fd < 0)
		return fd;
	do {
		name = undo_number_name(rollback->next_stage++);
		result = move_object(fd, undo_model_name(model, entry->name), model->stage_fd,
				     name.text);
	} while (result == -EEXIST);
	if (result < 0)
		return result;
	result = undo_names_add(&model->names, name.text, strlen(name.text), &at);
	if (result == 0)
		result = undo_model_add_instance(model, entry->now, MODEL_STAGE, at);
	if (result < 0)
		return result;
	undo_model_place(model, entry->now, MODEL_STAGE, at, NULL);
	entry->now = MODEL_NONE;
	return 0;
}

/* A file of the session that was being written at a crash: nobody can tell whether the host had a
 * hand in it, so it is moved aside rather than deleted. */
static int set_aside(struct rollback *rollback, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	const struct model_entry *entry = &model->entries[index];
	struct undo_number_name name = undo_number_name(entry->now);
	int fd = undo_model_directory(model, entry->directory);
	char path[MODEL_PATH_MAX];
	char kept[MODEL_PATH_MAX];

	if (fd < 0)
		return fd;
	if (renameat2(fd, undo_model_name(model, entry->name), rollback->kept_fd, name.text,
		      RENAME_NOREPLACE)) {
		if (errno != EEXIST)
			return -errno;
		/* Another name of the same file. */
		return unlinkat(fd, undo_model_name(model, entry->name), 0) ? -errno : 0;
	}
	entry_path(rollback, index, path);
	store_name(rollback, "kept", name.text, kept);
	rollback_kept(rollback, path, kept);
	return 0;
}

static int clear_born(struct rollback *rollback, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	struct model_entry *entry = &model->entries[index];
	struct model_object *object = undo_model_object(model, entry->now);
	char path[MODEL_PATH_MAX];
	int fd;

	if (S_ISDIR(object->mode)) /* removed when it is empty */
		return entry->wanted ? stage(rollback, index) : 0;
	if (entry->left)
		return 0;
	if (object->decision & ROLLBACK_KEEP_CONTENT) {
		entry->left = true;
		entry_path(rollback, index, path);
		rollback_kept(rollback, path, path);
		return 0;
	}
	if (object->decision & ROLLBACK_COPY_FIRST) {
		int result = set_aside(rollback, index);

		if (result == 0)
			entry->now = MODEL_NONE;
		return result;
	}
	fd = undo_model_directory(model, entry->directory);
	if (fd < 0)
		return fd;
	if (unlinkat(fd, undo_model_name(model, entry->name), 0) && errno != ENOENT)
		return -errno;
	rollback->report.removed++;
	entry->now = MODEL_NONE;
	return 0;
}

static int clear_entry(struct rollback *rollback, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	struct model_entry *entry = &model->entries[index];
	struct model_object *object;
	char path[MODEL_PATH_MAX];

	if (!entry->seen || entry->now == entry->wanted || entry->now == MODEL_NONE)
		return 0;
	if (entry->now == MODEL_FOREIGN) {
		if (!entry->wanted && !entry->left) {
			entry_path(rollback, index, path);
			rollback_kept(rollback, path, path);
		}
		entry->left = true;
		return 0;
	}
	object = undo_model_object(model, entry->now);
	if (object->born)
		return clear_born(rollback, index);
	if (entry->left)
		return 0;
	if (entry->wanted)
		return stage(rollback, index);
	return undo_model_add_instance(model, entry->now, entry->directory, entry->name);
}

/* Unlinks a file of the session's where nothing needs to be decided or kept. */
static void clear_new_file(struct rollback *rollback, uint32_t index)
{
	const struct model_entry *entry = &rollback->model.entries[index];
	const struct model_object *object;

	if (!entry->seen || entry->now == entry->wanted || entry->now == MODEL_NONE ||
	    entry->now == MODEL_FOREIGN)
		return;
	object = undo_model_object(&rollback->model, entry->now);
	if (!object->born || S_ISDIR(object->mode) || object->decision)
		return;
	/* A failure is met again, and told, where all names are cleared. */
	(void)clear_born(rollback, index);
}

/* ---- 2: place -------------------------------------------------------------------------------- */

static int compare_instances(const void *a, const void *b)
{
	const struct model_instance *left = a;
	const struct model_instance *right = b;

	if (left->object != right->object)
		return left->object < right->object ? -1 : 1;
	/* What is in the store comes first: what is left over in the tree can be told by name. */
	if (left->directory != right->directory)
		return left->directory > right->directory ? -1 : 1;
	return left->name < right->name ? -1 : left->name > right->name;
}

static struct model_instance *find_instance(struct rollback *rollback, uint32_t object)
{
	struct model_instance *instances = rollback->model.instances;
	uint32_t low = 0;
	uint32_t high = rollback->model.instance_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (instances[middle].object < object)
			low = middle + 1;
		else
			high = middle;
	}
	while (low < rollback->model.instance_count && instances[low].object == object) {
		if (!instances[low].used)
			return &instances[low];
		low++;
	}
	return NULL;
}

static int move_instance(struct rollback *rollback, const struct model_instance *instance,
			 uint32_t index)
{
	struct undo_model *model = &rollback->model;
	const struct model_entry *entry = &model->entries[index];
	int from = undo_model_directory(model, instance->directory);
	int to = undo_model_directory(model, entry->directory);

	if (from < 0 || to < 0)
		return from < 0 ? from : to;
	return move_object(from, undo_model_name(model, instance->name), to,
			   undo_model_name(model, entry->name));
}

/* Names both versions where an object was put beside its own place. */
static void report_redirect(struct rollback *rollback, uint32_t index)
{
	uint32_t origin = rollback->model.entries[index].origin;
	char path[MODEL_PATH_MAX];
	char kept[MODEL_PATH_MAX];

	if (!origin)
		return;
	entry_path(rollback, origin - 1, path);
	entry_path(rollback, index, kept);
	rollback_kept(rollback, path, kept);
}

/* The directory where it belongs is gone: the host removed it. */
static bool homeless(struct rollback *rollback, struct model_instance *instance, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	const char *name = undo_model_name(model, instance->name);
	char path[MODEL_PATH_MAX];
	char kept[MODEL_PATH_MAX];

	if (undo_model_directory(model, model->entries[index].directory) != -ENOENT)
		return false;
	if (instance->directory >= MODEL_STAGE)
		store_name(rollback, instance->directory == MODEL_GRAVE ? "grave" : "stage", name,
			   kept);
	else if (!undo_model_path_now(model, instance->directory, name, kept))
		return false;
	entry_path(rollback, index, path);
	rollback_kept(rollback, path, kept);
	instance->used = true;
	return true;
}

static void place_entry(struct rollback *rollback, uint32_t index)
{
	struct undo_model *model = &rollback->model;
	uint32_t wanted = model->entries[index].wanted;
	struct model_instance *instance = find_instance(rollback, wanted);
	int result;

	if (!instance)
		return; /* the host removed it, or moved it elsewhere */
	result = move_instance(rollback, instance, index);
	if (result == -EEXIST) {
		result = rollback_redirect(rollback, index, wanted, SUFFIX_BEFORE, &index);
		if (result == 0)
			result = move_instance(rollback, instance, index);
	}
	if (result < 0) {
		if (!homeless(rollback, instance, index))
			fail_entry(rollback, index, result);
		return;
	}
	instance->used = true;
	model->entries[index].now = wanted;
	undo_model_place(model, wanted, model->entries[index].directory, model->entries[index].name,
			 NULL);
	rollback->report.restored++;
	report_redirect(rollback, index);
}

/* How far from the root a directory was. */
static uint32_t depth_before(struct undo_model *model, uint32_t number)
{
	uint32_t depth = 1;

	while (number != UNDO_ROOT && number < model->object_count && depth < MODEL_DEPTH_MAX) {
		const struct model_object *object = undo_model_object(model, number);

		if (object->first_claim != MODEL_NO_ENTRY)
			number = model->entries[object->first_claim].directory;
		else if (object->parent)
			number = object->parent;
		else
			break;
		depth++;
	}
	return depth;
}

static uint32_t depth_now(struct undo_model *model, uint32_t number)
{
	uint32_t depth = 0;

	while (number > UNDO_ROOT && number < model->object_count && depth < MODEL_DEPTH_MAX &&
	       undo_model_locate(model, number)) {
		number = undo_model_object(model, number)->now_directory;
		depth++;
	}
	return depth;
}

struct ranked {
	uint32_t depth;
	uint32_t index;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *left = a;
	const struct ranked *right = b;

	if (left->depth != right->depth)
		return left->depth < right->depth ? -1 : 1;
	return left->index < right->index ? -1 : left->index > right->index;
}

static int place_all(struct rollback *rollback)
{
	struct undo_model *model = &rollback->model;
	cleanup_free struct ranked *ranked =
		calloc((size_t)model->entry_count + 1, sizeof(*ranked));
	uint32_t count = 0;

	if (!ranked)
		return -ENOMEM;
	for (uint32_t i = 0; i < model->entry_count; i++) {
		const struct model_entry *entry = &model->entries[i];

		if (!entry->wanted)
			continue;
		if (entry->now == entry->wanted) {
			report_redirect(rollback, i);
			continue;
		}
		ranked[count].index = i;
		ranked[count++].depth = depth_before(model, entry->directory);
	}
	qsort(ranked, count, sizeof(*ranked), compare_ranked);
	if (model->instance_count > 1)
		qsort(model->instances, model->instance_count, sizeof(*model->instances),
		      compare_instances);
	for (uint32_t i = 0; i < count; i++)
		place_entry(rollback, ranked[i].index);
	return 0;
}

/* ---- 3: what is left over -------------------------------------------------------------------- */

/* A further name of a linked file goes; a last one never does. */
static void drop_instance(struct rollback *rollback, const struct model_instance *instance)
{
	struct undo_model *model = &rollback->model;
	const struct model_object *object = undo_model_object(model, instance->object);
	const char *name = undo_model_name(model, instance->name);
	int fd = undo_model_directory(model, instance->directory);
	char path[MODEL_PATH_MAX];
	struct statx stat;

	if (fd < 0 || object->born || undo_statx(fd, name, &stat) < 0 ||
	    undo_model_identify(model, &stat) != instance->object)
		return;
	if (!S_ISDIR(stat.stx_mode) && stat.stx_nlink > 1 &&
	    (instance->directory != MODEL_GRAVE || object->now_directory < MODEL_STAGE)) {
		if (unlinkat(fd, name, 0) == 0)
			rollback->report.removed++;
		return;
	}
	if (instance->directory == MODEL_GRAVE)
		return; /* reported when it could not be placed */
	if (instance->directory == MODEL_STAGE)
		store_name(rollback, "stage", name, path);
	else if (!undo_model_path_now(model, instance->directory, name, path))
		snprintf(path, sizeof(path), ".../%s", name);
	rollback_kept(rollback, path, path);
}

/* The host put something into a directory of the session's: the directory stays for it. */
static void keep_directory(struct rollback *rollback, uint32_t number)
{
	struct undo_model *model = &rollback->model;
	const struct model_object *object = undo_model_object(model, number);
	char path[MODEL_PATH_MAX];
	char name[64];

	if (object->now_directory == MODEL_STAGE) {
		snprintf(name, sizeof(name), "directory-%u%s", number, SUFFIX_HOST);
		if (renameat2(model->stage_fd, undo_model_name(model, object->now_name),
			      model->root_fd, name, RENAME_NOREPLACE) == 0) {
			rollback_kept(rollback, name, name);
			return;
		}
	}
	undo_model_describe(model, number, path);
	rollback_kept(rollback, path, path);
}

static int remove_directories(struct rollback *rollback)
{
	struct undo_model *model = &rollback->model;
	cleanup_free struct ranked *ranked =
		calloc((size_t)model->object_count + 1, sizeof(*ranked));
	uint32_t count = 0;

	if (!ranked)
		return -ENOMEM;
	for (uint32_t i = UNDO_ROOT; i < model->object_count; i++) {
		const struct model_object *object = undo_model_object(model, i);

		if (!object->born || object->dead || !object->located || !S_ISDIR(object->mode))
			continue;
		ranked[count].index = i;
		ranked[count++].depth = UINT32_MAX - depth_now(model, i);
	}
	qsort(ranked, count, sizeof(*ranked), compare_ranked);
	for (uint32_t i = 0; i < count; i++) {
		const struct model_object *object = undo_model_object(model, ranked[i].index);
		int fd = undo_model_directory(model, object->now_directory);

		if (fd >= 0 &&
		    unlinkat(fd, undo_model_name(model, object->now_name), AT_REMOVEDIR) == 0)
			rollback->report.removed++;
		else if (fd >= 0 && (errno == ENOTEMPTY || errno == EEXIST))
			keep_directory(rollback, ranked[i].index);
		else if (fd >= 0 && errno != ENOENT)
			rollback_failed(rollback, undo_model_name(model, object->now_name), -errno);
	}
	return 0;
}

/* ---- 4: content and attributes --------------------------------------------------------------- */

static int copy_to_kept(struct rollback *rollback, uint32_t number)
{
	struct undo_model *model = &rollback->model;
	struct undo_number_name name = undo_number_name(number);
	cleanup_fd int source = undo_model_open(model, number, O_RDONLY);
	cleanup_fd int target = -1;
	char path[MODEL_PATH_MAX];
	char kept[MODEL_PATH_MAX];
	struct statx stat;
	uint64_t copied;
	int result;

	if (source < 0)
		return source;
	if (undo_statx(rollback->kept_fd, name.text, &stat) == 0)
		return 0;
	result = undo_statx(source, "", &stat);
	if (result < 0)
		return result;
	target = undo_open_beneath(rollback->kept_fd, "copying", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (target < 0)
		return target;
	if (ftruncate(target, (off_t)stat.stx_size))
		return -errno;
	result = undo_copy_sparse(source, target, 0, stat.stx_size, &copied);
	if (result < 0) {
		(void)!unlinkat(rollback->kept_fd, "copying", 0);
		return result;
	}
	if (renameat2(rollback->kept_fd, "copying", rollback->kept_fd, name.text, 0))
		return -errno;
	undo_model_describe(model, number, path);
	store_name(rollback, "kept", name.text, kept);
	rollback_kept(rollback, path, kept);
	return 0;
}

static int make_beside(struct rollback *rollback, const struct rollback_beside *beside)
{
	struct undo_model *model = &rollback->model;
	const struct model_object *object = undo_model_object(model, beside->object);
	const char *name = undo_model_name(model, beside->name);
	int directory = undo_model_directory(model, beside->directory);
	cleanup_fd int target = -1;
	char path[MODEL_PATH_MAX];
	char kept[MODEL_PATH_MAX];
	struct statx stat;
	int result;

	if (directory < 0)
		return directory;
	if (undo_statx(directory, name, &stat) < 0) {
		target = undo_open_beneath(model->stage_fd, "building", O_RDWR | O_CREAT | O_TRUNC,
					   0600);
		if (target < 0)
			return target;
		result = undo_build_before(model, beside->object, target);
		if (result == 0)
			result = undo_chmod(-1, target, object->before.mode & 0777);
		if (result == 0)
			result = undo_set_times(target, &object->before);
		if (result < 0)
			return result;
		if (renameat2(model->stage_fd, "building", directory, name, RENAME_NOREPLACE))
			return -errno;
	}
	undo_model_describe(model, beside->object, path);
	if (!undo_model_path_now(model, beside->directory, name, kept))
		snprintf(kept, sizeof(kept), ".../%s", name);
	rollback_kept(rollback, path, kept);
	return 0;
}

static void restore_object(struct rollback *rollback, uint32_t number)
{
	struct undo_model *model = &rollback->model;
	struct model_object *object = undo_model_object(model, number);
	char path[MODEL_PATH_MAX];
	int result = 0;

	if ((object->touched & UNDO_TOUCH_CONTENT) && !(object->decision & ROLLBACK_KEEP_CONTENT)) {
		if (object->decision & ROLLBACK_COPY_FIRST)
			result = copy_to_kept(rollback, number);
		if (result == 0)
			result = undo_restore_content(model, number);
		if (result == 0)
			rollback->report.restored++;
	}
	if (result == 0)
		result = undo_restore_attributes(model, number, object->decision);
	if (result == 0)
		return;
	undo_model_describe(model, number, path);
	rollback_failed(rollback, path, result);
}

static void restore_objects(struct rollback *rollback, bool directories)
{
	const uint32_t touches = UNDO_TOUCH_CONTENT | UNDO_TOUCH_ATTRIBUTES | UNDO_TOUCH_ENTRIES;
	struct undo_model *model = &rollback->model;

	for (uint32_t i = UNDO_ROOT; i < model->object_count; i++) {
		const struct model_object *object = undo_model_object(model, i);

		if (S_ISDIR(object->mode) != directories)
			continue;
		step(rollback);
		if (!object->born && !object->dead && (object->touched & touches) &&
		    (i == UNDO_ROOT || undo_model_locate(model, i)))
			restore_object(rollback, i);
	}
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int carry_out(struct rollback *rollback)
{
	struct undo_model *model = &rollback->model;
	char path[MODEL_PATH_MAX];
	int result;

	/* First what only takes room, since the disk may be full. */
	for (uint32_t i = 0; i < model->entry_count; i++)
		clear_new_file(rollback, i);
	for (uint32_t i = 0, count = model->entry_count; i < count; i++) {
		result = clear_entry(rollback, i);
		if (result < 0)
			fail_entry(rollback, i, result);
		step(rollback);
	}
	result = place_all(rollback);
	if (result < 0)
		return result;
	restore_objects(rollback, false);
	for (uint32_t i = 0; i < model->instance_count; i++) {
		if (!model->instances[i].used)
			drop_instance(rollback, &model->instances[i]);
	}
	result = remove_directories(rollback);
	if (result < 0)
		return result;
	for (uint32_t i = 0; i < rollback->beside_count; i++) {
		result = make_beside(rollback, &rollback->besides[i]);
		if (result < 0) {
			undo_model_describe(model, rollback->besides[i].object, path);
			rollback_failed(rollback, path, result);
		}
	}
	restore_objects(rollback, true);
	return 0;
}

static int make_room(int store_fd, const char *name)
{
	if (mkdirat(store_fd, name, 0700) && errno != EEXIST)
		return -errno;
	return undo_open_beneath(store_fd, name, O_RDONLY | O_DIRECTORY, 0);
}

static int finish(struct rollback *rollback)
{
	struct undo_record done = { .type = UNDO_RECORD_DONE };
	int result;

	if (rollback->report.failed > 0)
		return 0;
	if (syncfs(rollback->model.store_fd))
		return -errno;
	result = undo_log_append(&rollback->progress, &done);
	if (result == 0 && fdatasync(rollback->progress.fd))
		result = -errno;
	return result;
}

static int run(struct rollback *rollback)
{
	struct undo_model *model = &rollback->model;
	bool done;
	int result;

	if (flock(model->log_fd, LOCK_EX | LOCK_NB))
		return -EBUSY;
	result = rollback_open_progress(rollback, &done);
	if (result < 0)
		return result;
	if (done) {
		rollback->report.already_done = true;
		return 0;
	}
	rollback->kept_fd = make_room(model->store_fd, "kept");
	if (model->stage_fd < 0)
		model->stage_fd = make_room(model->store_fd, "stage");
	if (rollback->kept_fd < 0 || model->stage_fd < 0)
		return rollback->kept_fd < 0 ? rollback->kept_fd : model->stage_fd;
	model->repair = true;
	result = undo_model_scan(model);
	if (result == 0)
		result = rollback_plan(rollback);
	if (result < 0)
		return result;
	rollback->total = (uint64_t)model->entry_count + model->object_count;
	result = carry_out(rollback);
	return result < 0 ? result : finish(rollback);
}

int undo_roll_back(int store_fd, int root_fd, const struct undo_callbacks *callbacks,
		   struct undo_report *ret_report)
{
	cleanup_free struct rollback *rollback = calloc(1, sizeof(*rollback));
	char link[40];
	int result;

	if (!rollback)
		return -ENOMEM;
	rollback->callbacks = callbacks;
	rollback->progress.fd = -1;
	rollback->kept_fd = -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", store_fd);
	if (readlink(link, rollback->store_path, sizeof(rollback->store_path) - 1) < 0)
		snprintf(rollback->store_path, sizeof(rollback->store_path), "<undo store>");
	result = undo_model_load(&rollback->model, store_fd, root_fd);
	if (result < 0)
		return result;
	result = run(rollback);
	if (result == 0)
		*ret_report = rollback->report;
	undo_log_finish(&rollback->progress);
	undo_model_free(&rollback->model);
	free(rollback->besides);
	if (rollback->kept_fd >= 0)
		close(rollback->kept_fd);
	return result;
}

/* ---- discard --------------------------------------------------------------------------------- */

static int empty_directory(int fd, unsigned depth);

static int discard_name(int fd, const char *name, unsigned depth)
{
	cleanup_fd int child = -1;
	int result;

	if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	child = undo_open_beneath(fd, name, O_RDONLY | O_DIRECTORY, 0);
	if (child < 0)
		return child;
	(void)fchmod(child, 0700);
	result = empty_directory(child, depth + 1);
	if (result == 0 && unlinkat(fd, name, AT_REMOVEDIR))
		result = -errno;
	return result;
}

static int empty_directory(int fd, unsigned depth)
{
	char(*names)[UNDO_NAME_MAX + 1] = NULL;
	uint32_t capacity = 0;
	uint32_t count = 0;
	struct dirent *item;
	DIR *stream;
	int copy;
	int result = 0;

	if (depth > MODEL_DEPTH_MAX)
		return -ELOOP;
	copy = undo_open_beneath(fd, "", O_RDONLY | O_DIRECTORY, 0);
	if (copy < 0)
		return copy;
	stream = fdopendir(copy);
	if (!stream) {
		close(copy);
		return -ENOMEM;
	}
	while (result == 0 && (item = readdir(stream))) {
		if (!undo_name_valid(item->d_name, strlen(item->d_name)))
			continue;
		result = undo_grow((void **)&names, count, &capacity, sizeof(*names));
		if (result == 0)
			snprintf(names[count++], sizeof(*names), "%s", item->d_name);
	}
	closedir(stream);
	for (uint32_t i = 0; result == 0 && i < count; i++)
		result = discard_name(fd, names[i], depth);
	free(names);
	return result;
}

int undo_discard(int store_fd)
{
	return empty_directory(store_fd, 0);
}
