#include "fsserver/policy_born.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "fsserver/policy_names.h"

/* uthash's own functions do not compile under our warnings. */
#define HASH_FUNCTION(key, length, hash) ((hash) = policy_hash_bytes((key), (length)))
#include <uthash.h>

/*
 * Theory of operation
 *
 * A git directory is born when the guest makes
 *     a directory or file called exactly ".git",
 *     a directory NAME in the worktrees/ or modules/ of a git directory, or
 *     a directory, and in it both objects/ and refs/: a bare repository. That it made the halves
 *     does not suffice: those of an old repository can be moved aside, until it is found to be one.
 * Everything below a directory that the guest made was made by the guest too, since what was there
 * before cannot be renamed into it when it is protected. So being below a born root is all that
 * an exemption needs to know.
 *
 * Only these few directories are remembered for good, not every one that the guest makes.
 */

enum {
	ROOT_BORN = 1 << 0,
	ROOT_FOUND = 1 << 1,   /* a bare repository from before */
	ROOT_OBJECTS = 1 << 2, /* the guest made objects/ in it */
	ROOT_REFS = 1 << 3,
	ROOT_MADE = 1 << 4, /* the guest made the directory itself, lately */
};

/* Directories remembered as made, in case they become bare repositories. `git init --bare` makes
 * the halves right after the whole, so the older ones may be forgotten. */
#define MADE_MAX 2048u

struct root {
	unsigned flags;
	size_t length;
	UT_hash_handle hh;
	char path[];
};

struct policy_roots {
	struct root *table;
	size_t outside; /* roots that policy_roots_outside has to look for */
	size_t made;	/* entries with ROOT_MADE alone */
};

int policy_roots_new(struct policy_roots **ret_roots)
{
	struct policy_roots *roots = calloc(1, sizeof(*roots));

	if (roots == NULL)
		return -ENOMEM;
	*ret_roots = roots;
	return 0;
}

void policy_roots_free(struct policy_roots *roots)
{
	struct root *root;
	struct root *next;

	if (roots == NULL)
		return;
	for (root = roots->table; root != NULL; root = next) {
		next = root->hh.next;
		HASH_DEL(roots->table, root);
		free(root);
	}
	free(roots);
}

static struct root *find(const struct policy_roots *roots, const char *path, size_t length)
{
	struct root *root = NULL;

	HASH_FIND(hh, roots->table, path, length, root);
	return root;
}

/* Whether a component of path[0..length) is exactly ".git". */
static bool has_dot_git(const char *path, size_t length)
{
	for (size_t start = 0; start < length;) {
		const char *slash = memchr(path + start, '/', length - start);
		size_t end = slash != NULL ? (size_t)(slash - path) : length;

		if (end - start == 4 && memcmp(path + start, ".git", 4) == 0)
			return true;
		start = end + 1;
	}
	return false;
}

static bool is_outside(const struct root *root)
{
	return (root->flags & (ROOT_BORN | ROOT_FOUND)) != 0 &&
	       !has_dot_git(root->path, root->length);
}

static bool is_made_alone(const struct root *root)
{
	return root->flags == ROOT_MADE;
}

static void drop(struct policy_roots *roots, struct root *root)
{
	roots->outside -= is_outside(root);
	roots->made -= is_made_alone(root);
	HASH_DEL(roots->table, root);
	free(root);
}

/* Forgets the older half of what is only remembered as made; the table runs oldest first. */
static void forget_made(struct policy_roots *roots)
{
	struct root *next;

	for (struct root *root = roots->table; root != NULL && roots->made > MADE_MAX / 2;
	     root = next) {
		next = root->hh.next;
		if (is_made_alone(root))
			drop(roots, root);
	}
}

static void set_flags(struct policy_roots *roots, const char *path, size_t length, unsigned flags)
{
	struct root *root = find(roots, path, length);

	if (root == NULL) {
		if (roots->made >= MADE_MAX)
			forget_made(roots);
		if (HASH_COUNT(roots->table) - roots->made >= POLICY_ROOTS_MAX)
			return;
		root = calloc(1, sizeof(*root) + length + 1);
		if (root == NULL)
			return;
		memcpy(root->path, path, length);
		root->length = length;
		HASH_ADD_KEYPTR(hh, roots->table, root->path, root->length, root);
	}
	roots->outside -= is_outside(root);
	roots->made -= is_made_alone(root);
	root->flags |= flags;
	if ((root->flags & ROOT_OBJECTS) && (root->flags & ROOT_REFS) &&
	    !(root->flags & ROOT_FOUND))
		root->flags |= ROOT_BORN;
	roots->outside += is_outside(root);
	roots->made += is_made_alone(root);
}

/* Start of the last component of path[0..length). */
static size_t last_start(const char *path, size_t length)
{
	while (length > 0 && path[length - 1] != '/')
		length--;
	return length;
}

static size_t parent_length(const char *path, size_t length)
{
	size_t start = last_start(path, length);

	return start > 0 ? start - 1 : 0;
}

static bool last_is(const char *path, size_t length, const char *name)
{
	size_t start = last_start(path, length);

	return length - start == strlen(name) && memcmp(path + start, name, length - start) == 0;
}

/* Whether path[0..length) is a git directory: .git, one of modules/ within, or a known one. */
static bool is_git_directory(const struct policy_roots *roots, const char *path, size_t length)
{
	for (;;) {
		struct root *root = find(roots, path, length);
		size_t parent = parent_length(path, length);

		if (root != NULL && (root->flags & (ROOT_BORN | ROOT_FOUND)) != 0)
			return true;
		if (last_is(path, length, ".git"))
			return true;
		if (!last_is(path, parent, "modules"))
			return false;
		length = parent_length(path, parent);
	}
}

static bool is_birth(const struct policy_roots *roots, const char *path, size_t length)
{
	size_t parent = parent_length(path, length);

	if (last_is(path, length, ".git"))
		return true;
	if (!last_is(path, parent, "worktrees") && !last_is(path, parent, "modules"))
		return false;
	return is_git_directory(roots, path, parent_length(path, parent));
}

void policy_roots_created(struct policy_roots *roots, const char *path)
{
	size_t length = strlen(path);
	size_t parent = parent_length(path, length);
	struct root *root;
	size_t born;

	if (policy_roots_born(roots, path, &born))
		return;
	if (is_birth(roots, path, length)) {
		set_flags(roots, path, length, ROOT_BORN);
		return;
	}
	if (has_dot_git(path, length))
		return;
	root = find(roots, path, parent);
	if (root != NULL && (root->flags & ROOT_MADE) != 0) {
		if (last_is(path, length, "objects"))
			set_flags(roots, path, parent, ROOT_OBJECTS);
		else if (last_is(path, length, "refs"))
			set_flags(roots, path, parent, ROOT_REFS);
	}
	set_flags(roots, path, length, ROOT_MADE);
}

static bool is_at_or_below(const struct root *root, const char *path, size_t length)
{
	return root->length >= length && memcmp(root->path, path, length) == 0 &&
	       (root->length == length || length == 0 || root->path[length] == '/');
}

void policy_roots_removed(struct policy_roots *roots, const char *path)
{
	size_t length = strlen(path);
	struct root *root;
	struct root *next;

	for (root = roots->table; root != NULL; root = next) {
		next = root->hh.next;
		if (is_at_or_below(root, path, length))
			drop(roots, root);
	}
	/* One half of a bare repository gone: it is not born by making the other twice. */
	root = find(roots, path, parent_length(path, length));
	if (root == NULL)
		return;
	roots->made -= is_made_alone(root);
	if (last_is(path, length, "objects"))
		root->flags &= ~(unsigned)ROOT_OBJECTS;
	if (last_is(path, length, "refs"))
		root->flags &= ~(unsigned)ROOT_REFS;
	roots->made += is_made_alone(root);
}

bool policy_roots_inside_dot_git(const char *path)
{
	policy_path_variable struct policy_path prepared;

	if (policy_path_init(&prepared, path) < 0)
		return true;
	for (size_t i = 0; i + 1 < prepared.count; i++)
		if (policy_name_is(&prepared.names[i], ".git", 4))
			return true;
	return false;
}

/* An exemption does not follow into a git directory that was there before, where "info" or
 * "objects" would then be open; only what would be a birth there is one. */
static bool may_land(const struct policy_roots *roots, const char *path)
{
	size_t length;
	bool born;

	if (policy_roots_born(roots, path, &length) || is_birth(roots, path, strlen(path)))
		return true;
	return !policy_roots_inside_dot_git(path) &&
	       !(policy_roots_outside(roots, path, &length, &born) && !born);
}

void policy_roots_renamed(struct policy_roots *roots, const char *old_path, const char *new_path)
{
	size_t old_length = strlen(old_path);
	size_t new_length = strlen(new_path);
	size_t born;
	struct root *moved = NULL;
	struct root *root;
	struct root *next;

	/* Two steps, because the new place may lie where entries are still to be read. */
	for (root = roots->table; root != NULL; root = next) {
		next = root->hh.next;
		if (!is_at_or_below(root, old_path, old_length))
			continue;
		roots->outside -= is_outside(root);
		roots->made -= is_made_alone(root);
		HASH_DEL(roots->table, root);
		root->hh.next = moved;
		moved = root;
	}
	policy_roots_removed(roots, new_path);
	while (moved != NULL) {
		size_t tail = moved->length - old_length;
		cleanup_free char *path = malloc(new_length + tail + 1);

		root = moved;
		moved = root->hh.next;
		if (path != NULL) {
			memcpy(path, new_path, new_length);
			memcpy(path + new_length, root->path + old_length, tail);
			path[new_length + tail] = '\0';
			if ((root->flags & ROOT_FOUND) != 0 || may_land(roots, path))
				set_flags(roots, path, new_length + tail, root->flags);
		}
		free(root);
	}
	/* A directory that becomes a .git is a birth; one that merely moved was not made now. */
	if (is_birth(roots, new_path, new_length) && !policy_roots_born(roots, new_path, &born))
		set_flags(roots, new_path, new_length, ROOT_BORN);
}

void policy_roots_bare_found(struct policy_roots *roots, const char *path)
{
	size_t born;

	if (!policy_roots_born(roots, path, &born))
		set_flags(roots, path, strlen(path), ROOT_FOUND);
}

/* The root at the next longer prefix of `path`, beginning with "" and ending with `path` itself;
 * *at starts as SIZE_MAX. */
static struct root *next_prefix(const struct policy_roots *roots, const char *path, size_t *at,
				bool *done)
{
	size_t length = *at;

	if (length == SIZE_MAX) {
		*at = 0;
		return find(roots, path, 0);
	}
	if (path[length] == '\0') {
		*done = true;
		return NULL;
	}
	length += path[length] == '/';
	while (path[length] != '\0' && path[length] != '/')
		length++;
	*at = length;
	return find(roots, path, length);
}

bool policy_roots_born(const struct policy_roots *roots, const char *path, size_t *ret_length)
{
	size_t at = SIZE_MAX;
	bool done = false;

	if (roots->table == NULL)
		return false;
	while (!done) {
		struct root *root = next_prefix(roots, path, &at, &done);

		if (root != NULL && (root->flags & ROOT_BORN)) {
			*ret_length = root->length;
			return true;
		}
	}
	return false;
}

bool policy_roots_outside(const struct policy_roots *roots, const char *path, size_t *ret_length,
			  bool *ret_born)
{
	size_t at = SIZE_MAX;
	bool done = false;
	bool found = false;

	if (roots->outside == 0)
		return false;
	while (!done) {
		struct root *root = next_prefix(roots, path, &at, &done);

		if (root == NULL || !is_outside(root))
			continue;
		*ret_length = root->length;
		*ret_born = (root->flags & ROOT_BORN) != 0;
		found = true;
	}
	return found;
}

bool policy_roots_found_below(const struct policy_roots *roots, const char *path)
{
	size_t length = strlen(path);
	struct root *root;
	struct root *next;

	if (roots->outside == 0)
		return false;
	for (root = roots->table; root != NULL; root = next) {
		next = root->hh.next;
		if ((root->flags & ROOT_FOUND) != 0 && root->length > length &&
		    is_at_or_below(root, path, length))
			return true;
	}
	return false;
}

void policy_roots_each_born(const struct policy_roots *roots,
			    void (*callback)(const char *path, void *context), void *context)
{
	struct root *root;
	struct root *next;

	for (root = roots->table; root != NULL; root = next) {
		next = root->hh.next;
		if (root->flags & ROOT_BORN)
			callback(root->path, context);
	}
}
