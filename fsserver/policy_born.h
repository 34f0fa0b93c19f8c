/*
 * Git directories that policy knows beyond the name ".git": those that the session made, whose
 * config is open to it, and bare repositories that were there before, which are protected like a
 * .git. Paths are compared byte for byte: another spelling never inherits an exemption.
 */
#ifndef FSSERVER_POLICY_BORN_H
#define FSSERVER_POLICY_BORN_H

#include <stdbool.h>
#include <stddef.h>

/* What one session may make; beyond it nothing more is exempt, and nothing else breaks. */
#define POLICY_ROOTS_MAX 8192u

struct policy_roots;

int policy_roots_new(struct policy_roots **ret_roots);
void policy_roots_free(struct policy_roots *roots);

/* As policy_directory_created, .._renamed, .._removed, policy_bare_repository_found. */
void policy_roots_created(struct policy_roots *roots, const char *path);
void policy_roots_renamed(struct policy_roots *roots, const char *old_path, const char *new_path);
void policy_roots_removed(struct policy_roots *roots, const char *path);
void policy_roots_bare_found(struct policy_roots *roots, const char *path);

/* Whether `path` is a git directory (or .git file) that the session made, or is below one;
 * *ret_length is the length of that directory's path. */
bool policy_roots_born(const struct policy_roots *roots, const char *path, size_t *ret_length);

/* Whether `path` is, or is below, a git directory that is not called .git nor inside one; the
 * innermost. *ret_born tells the session's own from those found. */
bool policy_roots_outside(const struct policy_roots *roots, const char *path, size_t *ret_length,
			  bool *ret_born);

/* Whether `path` is strictly inside a directory that some file system takes for .git. */
bool policy_roots_inside_dot_git(const char *path);

/* Whether a bare repository that was found lies strictly below `path`. */
bool policy_roots_found_below(const struct policy_roots *roots, const char *path);

void policy_roots_each_born(const struct policy_roots *roots,
			    void (*callback)(const char *path, void *context), void *context);

#endif
