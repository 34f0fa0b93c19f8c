#include "fsserver/review.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"
#include "base/io.h"
#include "fsserver/policy.h"
#include "fsserver/review_diff.h"
#include "fsserver/review_repositories.h"
#include "fsserver/undo.h"
#include "fsserver/undo_index.h"

#define DIFF_TOTAL_MAX (64u << 20) /* bytes of all diffs together that are held in memory */
#define ESCAPED_MAX (4096u * 4u + 1u)

struct item {
	char *path;
	char *old_path;
	enum undo_change_kind kind;
	bool flagged;
	bool content_changed;
	struct stat before;
	struct stat after;
	char *diff;	  /* NULL: none was made */
	const char *note; /* why there is none */
	uint32_t added;
	uint32_t removed;
};

struct review {
	const struct review_options *options;
	struct item *items;
	uint32_t count;
	uint32_t capacity;
	uint32_t flagged;
	size_t diff_bytes;
	int root_fd;
	struct review_repositories repositories;
};

static const char *kind_name(enum undo_change_kind kind)
{
	switch (kind) {
	case UNDO_CREATED:
		return "created";
	case UNDO_CHANGED:
		return "changed";
	case UNDO_DELETED:
		return "deleted";
	case UNDO_RENAMED:
		return "renamed";
	case UNDO_ATTRIBUTES:
		return "mode";
	}
	return "changed";
}

/* ---- collecting ------------------------------------------------------------------------------ */

static bool below(const char *path, const char *filter)
{
	size_t length;

	while (filter[0] == '.' && filter[1] == '/') {
		filter += 2;
		filter += strspn(filter, "/");
	}
	length = strlen(filter);
	while (length > 0 && filter[length - 1] == '/')
		length--;
	if (length == 0 || (length == 1 && filter[0] == '.'))
		return true;
	return strncmp(path, filter, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static bool wanted(const struct review_options *options, const struct undo_change *change)
{
	for (size_t i = 0; i < options->path_count; i++) {
		if (below(change->path, options->paths[i]) ||
		    (change->old_path && below(change->old_path, options->paths[i])))
			return true;
	}
	return options->path_count == 0;
}

static bool is_flagged(const struct undo_change *change)
{
	mode_t mode = change->kind == UNDO_DELETED ? change->before.st_mode : change->after.st_mode;

	/* A directory is searched, and a deleted file not run: their x bits say nothing. */
	if (!S_ISREG(mode) || change->kind == UNDO_DELETED)
		mode &= S_IFMT;
	return policy_is_flagged(change->path, mode) ||
	       (change->old_path && policy_is_flagged(change->old_path, mode));
}

/* Reads a text; an absent file is an empty one. False when it is not to be shown. */
static bool read_text(int fd, bool present, const struct stat *stat, char **ret_bytes,
		      size_t *ret_length, const char **ret_note)
{
	*ret_bytes = NULL;
	*ret_length = 0;
	if (!present)
		return true;
	if (stat->st_size > (off_t)REVIEW_DIFF_MAX) {
		*ret_note = "too large to show";
		return false;
	}
	if (fd < 0 || read_file(fd, REVIEW_DIFF_MAX, ret_bytes, ret_length) < 0) {
		*ret_note = "cannot be read";
		return false;
	}
	if (memchr(*ret_bytes, '\0', *ret_length)) {
		*ret_note = "binary";
		return false;
	}
	return true;
}

static int make_diff(struct review *review, struct item *item, const struct undo_change *change)
{
	bool had = change->kind != UNDO_CREATED && S_ISREG(change->before.st_mode);
	bool has = change->kind != UNDO_DELETED && S_ISREG(change->after.st_mode);
	cleanup_free char *before = NULL;
	cleanup_free char *after = NULL;
	struct review_text old;
	struct review_text new;
	size_t size = 0;
	FILE *stream;
	int result;

	if ((!had && !has) || change->kind == UNDO_ATTRIBUTES ||
	    (change->kind == UNDO_RENAMED && !change->content_changed))
		return 0;
	if (review->diff_bytes > DIFF_TOTAL_MAX) {
		item->note = "not shown: too many changes";
		return 0;
	}
	if (!read_text(change->before_fd, had, &change->before, &before, &old.length,
		       &item->note) ||
	    !read_text(change->after_fd, has, &change->after, &after, &new.length, &item->note))
		return 0;
	old.bytes = before ? before : "";
	new.bytes = after ? after : "";
	stream = open_memstream(&item->diff, &size);
	if (!stream)
		return -ENOMEM;
	result = review_diff(old, new, REVIEW_EDITS_MAX, stream, &item->added, &item->removed);
	if (fclose(stream) && result >= 0)
		result = -ENOMEM;
	review->diff_bytes += size;
	if (result > 0)
		return 0;
	free(item->diff);
	item->diff = NULL;
	if (result == -E2BIG)
		item->note = "too many differences to show";
	return result == -E2BIG ? 0 : result;
}

static int collect(const struct undo_change *change, void *context)
{
	struct review *review = context;
	struct item *item;
	int result;

	if (!wanted(review->options, change))
		return 0;
	result = review_repositories_note(&review->repositories, review->root_fd, change);
	if (result < 0)
		return result;
	result = undo_grow((void **)&review->items, review->count, &review->capacity,
			   sizeof(*review->items));
	if (result < 0)
		return result;
	item = &review->items[review->count];
	*item = (struct item){
		.kind = change->kind,
		.content_changed = change->content_changed,
		.before = change->before,
		.after = change->after,
		.flagged = is_flagged(change),
		.path = strdup(change->path),
		.old_path = change->old_path ? strdup(change->old_path) : NULL,
	};
	review->count++;
	if (!item->path || (change->old_path && !item->old_path))
		return -ENOMEM;
	review->flagged += item->flagged;
	return review->options->name_only ? 0 : make_diff(review, item, change);
}

static int compare_items(const void *a, const void *b)
{
	const struct item *left = a;
	const struct item *right = b;
	int order;

	if (left->flagged != right->flagged)
		return left->flagged ? -1 : 1;
	order = strcmp(left->path, right->path);
	return order ? order : (int)left->kind - (int)right->kind;
}

/* ---- text ------------------------------------------------------------------------------------ */

struct paint {
	const char *flag;
	const char *head;
	const char *hunk;
	const char *added;
	const char *removed;
	const char *plain;
};

static const struct paint no_colour = { "", "", "", "", "", "" };
static const struct paint colours = { "\033[1;31m", "\033[1m",	"\033[36m",
				      "\033[32m",   "\033[31m", "\033[0m" };

static void put_path(const char *path, FILE *output)
{
	char escaped[ESCAPED_MAX];

	escape_text(path, strlen(path), escaped, sizeof(escaped));
	fputs(escaped, output);
}

static void put_summary(const struct item *item, const struct paint *paint, FILE *output)
{
	fprintf(output, "%s%c %-8s%s", item->flagged ? paint->flag : "", item->flagged ? '!' : ' ',
		kind_name(item->kind), item->flagged ? paint->plain : "");
	if (item->old_path) {
		put_path(item->old_path, output);
		fputs(" -> ", output);
	}
	put_path(item->path, output);
	if (S_ISDIR(item->after.st_mode | item->before.st_mode))
		fputc('/', output);
	if (item->before.st_mode && item->after.st_mode &&
	    (item->before.st_mode & 07777) != (item->after.st_mode & 07777))
		fprintf(output, "  (mode %04o -> %04o)", item->before.st_mode & 07777,
			item->after.st_mode & 07777);
	else if (item->kind == UNDO_ATTRIBUTES)
		fputs("  (owner or extended attributes)", output);
	else if (item->kind == UNDO_CREATED && S_ISREG(item->after.st_mode) &&
		 (item->after.st_mode & 0111))
		fputs("  (executable)", output);
	if (item->diff)
		fprintf(output, "  +%u -%u", item->added, item->removed);
	else if (item->note)
		fprintf(output, "  (%s: %lld -> %lld bytes)", item->note,
			(long long)item->before.st_size, (long long)item->after.st_size);
	fputc('\n', output);
}

static void put_diff(const struct item *item, const struct paint *paint, FILE *output)
{
	const char *line = item->diff;

	fprintf(output, "\n%s--- ", paint->head);
	if (item->kind == UNDO_CREATED)
		fputs("/dev/null", output);
	else
		put_path(item->old_path ? item->old_path : item->path, output);
	fputs("\n+++ ", output);
	if (item->kind == UNDO_DELETED)
		fputs("/dev/null", output);
	else
		put_path(item->path, output);
	fprintf(output, "%s\n", paint->plain);
	while (*line) {
		size_t length = strcspn(line, "\n");
		const char *colour = line[0] == '+'   ? paint->added
				     : line[0] == '-' ? paint->removed
				     : line[0] == '@' ? paint->hunk
						      : "";

		fprintf(output, "%s%.*s%s\n", colour, (int)length, line,
			colour[0] ? paint->plain : "");
		line += length + (line[length] == '\n');
	}
}

static void print_text(const struct review *review, FILE *output)
{
	const struct review_options *options = review->options;
	const struct paint *paint = options->colour ? &colours : &no_colour;

	for (uint32_t i = 0; i < review->repositories.count; i++) {
		fprintf(output, "%s! new repository%s ", paint->flag, paint->plain);
		put_path(review->repositories.paths[i], output);
		fputc('\n', output);
	}
	for (uint32_t i = 0; i < review->count; i++)
		put_summary(&review->items[i], paint, output);
	if (review->count == 0)
		fputs("No changes.\n", output);
	else
		fprintf(output,
			"%u changed, %u of them marked ! because the host may run or trust them\n",
			review->count, review->flagged);
	for (uint32_t i = 0; i < review->count; i++) {
		if (review->items[i].diff)
			put_diff(&review->items[i], paint, output);
	}
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_text(const char *text)
{
	char escaped[ESCAPED_MAX];
	size_t length = escape_text(text, strlen(text), escaped, sizeof(escaped));

	return json_stringn(escaped, length);
}

static json_t *json_item(const struct item *item)
{
	json_t *object = json_pack("{s:o, s:s, s:b, s:b}", "path", json_text(item->path), "kind",
				   kind_name(item->kind), "flagged", item->flagged,
				   "content_changed", item->content_changed);

	if (!object)
		return NULL;
	if (item->old_path)
		json_object_set_new(object, "old_path", json_text(item->old_path));
	if (item->before.st_mode) {
		json_object_set_new(object, "mode_before", json_integer(item->before.st_mode));
		json_object_set_new(object, "size_before", json_integer(item->before.st_size));
	}
	if (item->after.st_mode) {
		json_object_set_new(object, "mode_after", json_integer(item->after.st_mode));
		json_object_set_new(object, "size_after", json_integer(item->after.st_size));
	}
	if (item->diff)
		json_object_set_new(object, "diff", json_string(item->diff));
	if (item->note)
		json_object_set_new(object, "note", json_string(item->note));
	return object;
}

static int print_json(const struct review *review, FILE *output)
{
	json_t *changes = json_array();
	json_t *repositories = json_array();
	json_t *root =
		json_pack("{s:o, s:o, s:i, s:i}", "new_repositories", repositories, "changes",
			  changes, "flagged", (int)review->flagged, "total", (int)review->count);
	int result = root ? 0 : -ENOMEM;

	for (uint32_t i = 0; result == 0 && i < review->repositories.count; i++)
		result = json_array_append_new(repositories,
					       json_text(review->repositories.paths[i]));
	for (uint32_t i = 0; result == 0 && i < review->count; i++)
		result = json_array_append_new(changes, json_item(&review->items[i]));
	if (result == 0)
		result = json_dumpf(root, output, JSON_COMPACT);
	json_decref(root);
	fputc('\n', output);
	return result ? -ENOMEM : 0;
}

int review_print(int store_fd, int root_fd, const struct review_options *options, FILE *output)
{
	struct review review = { .options = options, .root_fd = root_fd };
	int result = undo_each_change(store_fd, root_fd, collect, &review);

	review_repositories_finish(&review.repositories);
	if (result == 0) {
		if (review.count > 1)
			qsort(review.items, review.count, sizeof(*review.items), compare_items);
		if (options->json)
			result = print_json(&review, output);
		else
			print_text(&review, output);
	}
	for (uint32_t i = 0; i < review.count; i++) {
		free(review.items[i].path);
		free(review.items[i].old_path);
		free(review.items[i].diff);
	}
	free(review.items);
	review_repositories_free(&review.repositories);
	if (result == 0 && (fflush(output) || ferror(output)))
		result = errno ? -errno : -EIO;
	return result;
}
