#include "fsserver/policy_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/escape.h"
#include "fsserver/policy_fold_table.h"

/*
 * Theory of operation
 *
 * Judging happens for every create and for every lookup in an image, so plain ASCII takes one pass
 * over the bytes which folds, hashes, splits and notices the few bytes (':', '~', a final '.' or
 * ' ', anything above 0x7f) that need a second look. Only such components go through the tables.
 *
 * Removing combining marks instead of ordering them makes "é" equal to "e" whichever way it is
 * written. For rules that refuse, too much equality is the safe side; rules that open compare
 * the raw bytes instead.
 */

#define HASH_SEED 2166136261u
#define HASH_PRIME 16777619u

static const uint8_t ascii_lower[128] = {
	0,   1,	  2,   3,   4,	 5,   6,   7,	 8,   9,   10,	11,  12,   13,	14,  15,
	16,  17,  18,  19,  20,	 21,  22,  23,	 24,  25,  26,	27,  28,   29,	30,  31,
	' ', '!', '"', '#', '$', '%', '&', '\'', '(', ')', '*', '+', ',',  '-', '.', '/',
	'0', '1', '2', '3', '4', '5', '6', '7',	 '8', '9', ':', ';', '<',  '=', '>', '?',
	'@', 'a', 'b', 'c', 'd', 'e', 'f', 'g',	 'h', 'i', 'j', 'k', 'l',  'm', 'n', 'o',
	'p', 'q', 'r', 's', 't', 'u', 'v', 'w',	 'x', 'y', 'z', '[', '\\', ']', '^', '_',
	'`', 'a', 'b', 'c', 'd', 'e', 'f', 'g',	 'h', 'i', 'j', 'k', 'l',  'm', 'n', 'o',
	'p', 'q', 'r', 's', 't', 'u', 'v', 'w',	 'x', 'y', 'z', '{', '|',  '}', '~', 127,
};

uint32_t policy_hash_bytes(const char *text, size_t length)
{
	uint32_t hash = HASH_SEED;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (uint8_t)text[i]) * HASH_PRIME;
	return hash;
}

/* ---- folding one code point --------------------------------------------------------------------
 */

static size_t encode_utf8(uint32_t code, char *output)
{
	if (code < 0x80) {
		output[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		output[0] = (char)(0xc0 | (code >> 6));
		output[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		output[0] = (char)(0xe0 | (code >> 12));
		output[1] = (char)(0x80 | ((code >> 6) & 0x3f));
		output[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	output[0] = (char)(0xf0 | (code >> 18));
	output[1] = (char)(0x80 | ((code >> 12) & 0x3f));
	output[2] = (char)(0x80 | ((code >> 6) & 0x3f));
	output[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

static bool is_removed(uint32_t code)
{
	size_t low = 0;
	size_t high = policy_fold_removed_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (code < policy_fold_removed[middle].first)
			high = middle;
		else if (code > policy_fold_removed[middle].last)
			low = middle + 1;
		else
			return true;
	}
	return false;
}

static bool find_shift(uint32_t code, uint32_t *ret_code)
{
	size_t low = 0;
	size_t high = policy_fold_shifted_count;

	/* Ranges of step 2 (capital and small letters by turns) may interleave with a neighbour:
	 * the last range that begins at or below the code is the only one that can hold it, because
	 * the table's writer closes a range before it opens the next. */
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (policy_fold_shifted[middle].first <= code)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return false;
	const struct policy_fold_shift *shift = &policy_fold_shifted[low - 1];

	if (code > shift->last || (code - shift->first) % (uint32_t)shift->step != 0)
		return false;
	*ret_code = (uint32_t)((int32_t)code + shift->delta);
	return true;
}

static const struct policy_fold_text *find_text(uint32_t code)
{
	size_t low = 0;
	size_t high = policy_fold_texts_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (code < policy_fold_texts[middle].code)
			high = middle;
		else if (code > policy_fold_texts[middle].code)
			low = middle + 1;
		else
			return &policy_fold_texts[middle];
	}
	return NULL;
}

/* Unicode 15, section 3.12. */
static size_t decompose_hangul(uint32_t code, char *output)
{
	uint32_t index = code - 0xac00;
	size_t length = encode_utf8(0x1100 + index / 588, output);

	length += encode_utf8(0x1161 + (index % 588) / 28, output + length);
	if (index % 28 != 0)
		length += encode_utf8(0x11a7 + index % 28, output + length);
	return length;
}

static size_t fold_code(uint32_t code, char *output)
{
	const struct policy_fold_text *text;
	uint32_t shifted;

	if (code < 0x80) {
		output[0] = (char)ascii_lower[code];
		return 1;
	}
	if (code >= 0xac00 && code <= 0xd7a3)
		return decompose_hangul(code, output);
	if (is_removed(code))
		return 0;
	if (find_shift(code, &shifted))
		return encode_utf8(shifted, output);
	text = find_text(code);
	if (text != NULL) {
		memcpy(output, policy_fold_pool + text->offset, text->length);
		return text->length;
	}
	return encode_utf8(code, output);
}

size_t policy_fold(const char *text, size_t length, char *output)
{
	size_t used = 0;

	for (size_t i = 0; i < length;) {
		uint32_t code;
		size_t step = utf8_decode(text + i, length - i, &code);

		if (step == 0) {
			output[used++] = text[i++];
			continue;
		}
		used += fold_code(code, output + used);
		i += step;
	}
	return used;
}

/* ---- short names and suffixes ------------------------------------------------------------------
 */

/* "xxxxxx~1" or "xxxxxx~1.ext": up to six characters, a tilde, digits, an extension up to three. */
static bool looks_short(const char *text, size_t length)
{
	const char *tilde = memchr(text, '~', length);
	size_t i;

	if (tilde == NULL || tilde == text || tilde - text > 6)
		return false;
	i = (size_t)(tilde - text) + 1;
	if (i >= length || text[i] < '0' || text[i] > '9')
		return false;
	while (i < length && text[i] >= '0' && text[i] <= '9')
		i++;
	return i == length || (text[i] == '.' && length - i <= 4);
}

static void strip_suffixes(struct policy_name *name)
{
	size_t length = name->full_length;
	const char *colon = length > 1 ? memchr(name->text + 1, ':', length - 1) : NULL;

	if (colon != NULL)
		length = (size_t)(colon - name->text);
	while (length > 0 && (name->text[length - 1] == '.' || name->text[length - 1] == ' '))
		length--;
	if (length == 0)
		length = name->full_length;
	name->length = (uint32_t)length;
	name->short_form = looks_short(name->text, length);
	name->odd = name->short_form || length != name->full_length;
}

/* Whether `digits`, the text from the tilde on, ends as a short name of extension `extension`. */
static bool short_tail_matches(const char *tail, size_t tail_length, const char *extension,
			       size_t extension_length)
{
	size_t i = 1;

	while (i < tail_length && tail[i] >= '0' && tail[i] <= '9')
		i++;
	if (i == tail_length)
		return extension_length == 0;
	i++;
	extension_length = MIN_OF(extension_length, (size_t)3);
	return tail_length - i == extension_length &&
	       memcmp(tail + i, extension, extension_length) == 0;
}

/* The short name that FAT and NTFS give a long one: leading dots, spaces and inner dots dropped,
 * six characters, "~N", three of the extension; from the fifth collision on two characters and
 * four hex digits of an undocumented hash, of which the ones git knows are listed. */
static bool short_form_of(const struct policy_name *name, const char *literal, size_t length)
{
	static const struct {
		const char *literal;
		const char *base;
	} hashed[] = { { ".gitmodules", "gi7eba" }, { ".gitattributes", "gi7d29" } };
	const char *tilde = memchr(name->text, '~', name->length);
	char base[6];
	size_t base_length = 0;
	size_t start = 0;
	size_t dot;

	if (tilde == NULL)
		return false;
	size_t given = (size_t)(tilde - name->text);
	size_t tail = name->length - given;

	while (start < length && literal[start] == '.')
		start++;
	dot = length;
	for (size_t i = start + 1; i < length; i++)
		if (literal[i] == '.')
			dot = i;
	for (size_t i = start; i < dot && base_length < sizeof(base); i++)
		if (literal[i] != '.' && literal[i] != ' ')
			base[base_length++] = literal[i];
	const char *extension = dot < length ? literal + dot + 1 : "";
	size_t extension_length = dot < length ? length - dot - 1 : 0;

	if (!short_tail_matches(tilde, tail, extension, extension_length))
		return false;
	if (given == base_length && memcmp(name->text, base, given) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_LENGTH(hashed); i++)
		if (given == 6 && memcmp(name->text, hashed[i].base, 6) == 0 &&
		    length == strlen(hashed[i].literal) &&
		    memcmp(literal, hashed[i].literal, length) == 0)
			return true;
	return false;
}

bool policy_name_is(const struct policy_name *name, const char *literal, size_t literal_length)
{
	if (name->length == literal_length && memcmp(name->text, literal, literal_length) == 0)
		return true;
	if (!name->odd)
		return false;
	if (name->full_length == literal_length && memcmp(name->text, literal, literal_length) == 0)
		return true;
	return name->short_form && short_form_of(name, literal, literal_length);
}

bool policy_name_is_exactly(const struct policy_name *name, const char *literal)
{
	return name->raw_length == strlen(literal) &&
	       memcmp(name->raw, literal, name->raw_length) == 0;
}

/* ---- splitting ---------------------------------------------------------------------------------
 */

/* Gives `path` room for its components and their folded bytes; *ret_bytes is that room. */
static int reserve(struct policy_path *path, size_t length, size_t names, bool ascii,
		   char **ret_bytes)
{
	size_t bytes = ascii ? length : length * POLICY_FOLD_GROWTH;

	if (names <= POLICY_PATH_INLINE_NAMES && bytes <= POLICY_PATH_INLINE_BYTES) {
		path->names = path->inline_names;
		*ret_bytes = path->inline_bytes;
		return 0;
	}
	path->heap = malloc(names * sizeof(struct policy_name) + bytes);
	if (path->heap == NULL)
		return -ENOMEM;
	path->names = path->heap;
	*ret_bytes = (char *)(path->names + names);
	return 0;
}

/* Folds and hashes one ASCII component; tells whether it needs a second look. */
static bool fold_ascii(struct policy_name *name, char *output)
{
	uint32_t hash = HASH_SEED;
	bool special = false;
	uint8_t byte = 0;

	for (uint32_t i = 0; i < name->raw_length; i++) {
		byte = ascii_lower[(uint8_t)name->raw[i] & 0x7f];
		output[i] = (char)byte;
		hash = (hash ^ byte) * HASH_PRIME;
		special |= byte == ':' || byte == '~';
	}
	name->hash = hash;
	name->full_length = name->raw_length;
	return special || byte == '.' || byte == ' ';
}

static size_t prepare_name(struct policy_name *name, char *output, bool ascii)
{
	bool again = true;

	name->text = output;
	name->short_form = false;
	name->odd = false;
	if (ascii) {
		again = fold_ascii(name, output);
		name->length = name->full_length;
	} else {
		name->full_length = (uint32_t)policy_fold(name->raw, name->raw_length, output);
	}
	if (again) {
		strip_suffixes(name);
		name->hash = policy_hash_bytes(name->text, name->length);
	}
	return name->full_length;
}

int policy_path_init(struct policy_path *path, const char *text)
{
	size_t names = 1;
	uint8_t any = 0;
	size_t length = 0;
	char *output;
	int error;

	path->text = text;
	path->heap = NULL;
	path->count = 0;
	for (; text[length] != '\0'; length++) {
		names += text[length] == '/';
		any |= (uint8_t)text[length];
	}
	if (length > POLICY_PATH_TEXT_MAX)
		return -ENAMETOOLONG;
	error = reserve(path, length, names, any < 0x80, &output);
	if (error < 0)
		return error;
	for (size_t i = 0; i < length; i++) {
		size_t start = i;
		struct policy_name *name = &path->names[path->count];

		while (i < length && text[i] != '/')
			i++;
		if (i == start)
			continue;
		name->raw = text + start;
		name->raw_length = (uint32_t)(i - start);
		output += prepare_name(name, output, any < 0x80);
		path->count++;
	}
	return 0;
}

void policy_path_release(struct policy_path *path)
{
	free(path->heap);
	path->heap = NULL;
}
