/*
 * A path as policy compares it: split into components, each folded so that every spelling which
 * some file system takes for the same name, or which looks the same, comes out equal.
 *
 * Folded: case (full case folding), compatibility forms (NFKD), combining marks and ignorable code
 * points (those that HFS+ ignores among them) removed, look-alikes of ASCII replaced by ASCII.
 * Bytes that are not UTF-8 stand for themselves. Sources: docs/policy.md, policy_fold_table.h.
 *
 * Each component has two lengths: `full_length` of the folded text, and `length` without what NTFS
 * and FAT drop: a stream suffix (from the first ':'), trailing dots and spaces. A rule that
 * matches either matches. Components that may be an 8.3 short name ("git~1") are marked.
 */
#ifndef FSSERVER_POLICY_NAMES_H
#define FSSERVER_POLICY_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_PATH_TEXT_MAX 65536u /* bytes; longer paths are refused */
#define POLICY_FOLD_GROWTH 12u	    /* most bytes that one byte of a name can become */

struct policy_name {
	const char *text; /* folded; not NUL-terminated */
	const char *raw;  /* as given, in the caller's string */
	uint32_t length;
	uint32_t full_length;
	uint32_t raw_length;
	uint32_t hash; /* of text[0..length) */
	bool short_form;
	bool odd; /* short_form, or length != full_length: the hash does not tell everything */
};

#define POLICY_PATH_INLINE_NAMES 40
#define POLICY_PATH_INLINE_BYTES 1024

struct policy_path {
	const char *text;
	struct policy_name *names;
	size_t count;
	void *heap; /* holds names and bytes of a long path, or NULL */
	struct policy_name inline_names[POLICY_PATH_INLINE_NAMES];
	char inline_bytes[POLICY_PATH_INLINE_BYTES];
};

/* Large, and judged millions of times: not to be zeroed for each path. */
#define policy_path_variable __attribute__((uninitialized, cleanup(policy_path_release)))

/* Prepares `text`, which must outlive the path. Empty components are skipped. -ENAMETOOLONG or
 * -ENOMEM; the path may be released in any case. */
int policy_path_init(struct policy_path *path, const char *text);
void policy_path_release(struct policy_path *path);

/* Folds text[0..length) into `output` of at least length * POLICY_FOLD_GROWTH bytes; returns the
 * folded length. Nothing is stripped. */
size_t policy_fold(const char *text, size_t length, char *output);

uint32_t policy_hash_bytes(const char *text, size_t length);

/* Whether a component is `literal` (folded) in any spelling, its 8.3 short names included. */
bool policy_name_is(const struct policy_name *name, const char *literal, size_t literal_length);

/* Whether a component, byte for byte as given, is `literal`. */
bool policy_name_is_exactly(const struct policy_name *name, const char *literal);

#endif
