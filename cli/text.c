#include "cli/text.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define SUGGEST_WORD_MAX 64

static void *require(void *block)
{
	static const char message[] = "matchlock: out of memory\n";

	if (!block) {
		if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0)
			_exit(STATUS_SANDBOX);
		_exit(STATUS_SANDBOX);
	}
	return block;
}

void problem_write(struct problem *problem, int status, const char *format, ...)
{
	va_list arguments;

	problem->status = status;
	va_start(arguments, format);
	vsnprintf(problem->text, sizeof(problem->text), format, arguments);
	va_end(arguments);
}

char *text_printf(const char *format, ...)
{
	va_list arguments;
	char *text = NULL;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	return require(text);
}

char *text_copy(const char *text)
{
	return require(strdup(text));
}

void *allocate(size_t count, size_t size)
{
	return require(calloc(count ? count : 1, size));
}

void text_list_take(struct text_list *list, char *text)
{
	list->items = require(reallocarray(list->items, list->count + 2, sizeof(*list->items)));
	list->items[list->count++] = text;
	list->items[list->count] = NULL;
}

void text_list_add(struct text_list *list, const char *text)
{
	text_list_take(list, text_copy(text));
}

void text_list_free(struct text_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct text_list){ 0 };
}

/* Reads digits; *ret_rest is what follows them. */
static bool leading_number(const char *text, uint64_t *ret_value, const char **ret_rest)
{
	uint64_t value = 0;

	if (!isdigit((unsigned char)*text))
		return false;
	for (; isdigit((unsigned char)*text); text++) {
		if (value > (UINT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	*ret_value = value;
	*ret_rest = text;
	return true;
}

bool parse_unsigned(const char *text, uint64_t maximum, uint64_t *ret_value)
{
	const char *rest;
	uint64_t value;

	if (!leading_number(text, &value, &rest) || *rest != '\0' || value > maximum)
		return false;
	*ret_value = value;
	return true;
}

bool parse_duration(const char *text, uint64_t bare_ms, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 }
	};
	const uint64_t year = UINT64_C(366) * 86400000;
	uint64_t factor = 0;
	uint64_t value;
	const char *rest;

	if (!leading_number(text, &value, &rest))
		return false;
	if (*rest == '\0')
		factor = bare_ms;
	for (size_t i = 0; i < ARRAY_LENGTH(units); i++) {
		if (strcmp(rest, units[i].unit) == 0)
			factor = units[i].ms;
	}
	if (factor == 0 || value == 0 || value > year / factor)
		return false;
	*ret_ms = value * factor;
	return true;
}

bool parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char letters[] = "kmgt";
	const char *rest;
	const char *letter;
	uint64_t value;
	unsigned shift;

	if (!leading_number(text, &value, &rest) || *rest == '\0')
		return false;
	letter = strchr(letters, tolower((unsigned char)*rest));
	if (!letter || *letter == '\0')
		return false;
	rest++;
	if (strcasecmp(rest, "") != 0 && strcasecmp(rest, "b") != 0 && strcasecmp(rest, "ib") != 0)
		return false;
	shift = (unsigned)(letter - letters + 1) * 10;
	if (value > UINT64_MAX >> shift)
		return false;
	*ret_bytes = value << shift;
	return true;
}

char *format_size(uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_LENGTH(units)) {
		value /= 1024;
		unit++;
	}
	if (unit == 0 || value >= 100)
		return text_printf("%.0f %s", value, units[unit]);
	return text_printf("%.1f %s", value, units[unit]);
}

char *format_age(time_t now, time_t then)
{
	static const struct {
		const char *name;
		time_t seconds;
	} units[] = { { "day", 86400 }, { "hour", 3600 }, { "minute", 60 }, { "second", 1 } };
	time_t age = now > then ? now - then : 0;

	for (size_t i = 0; i < ARRAY_LENGTH(units); i++) {
		long count = (long)(age / units[i].seconds);

		if (count > 0)
			return text_printf("%ld %s%s ago", count, units[i].name,
					   count == 1 ? "" : "s");
	}
	return text_copy("just now");
}

char *format_duration(uint64_t milliseconds)
{
	uint64_t seconds = milliseconds / 1000;

	if (milliseconds < 60000)
		return text_printf("%.1f s", (double)milliseconds / 1000.0);
	if (seconds < 3600)
		return text_printf("%u min %u s", (unsigned)(seconds / 60),
				   (unsigned)(seconds % 60));
	return text_printf("%u h %u min", (unsigned)(seconds / 3600),
			   (unsigned)(seconds / 60 % 60));
}

char *escape_copy(const char *text)
{
	size_t length = strlen(text);
	char *escaped = allocate(length * 4 + 1, 1);

	escape_text(text, length, escaped, length * 4 + 1);
	return escaped;
}

char *quote_word(const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "@%+=:,./_-~^";
	cleanup_free char *escaped = escape_copy(word);
	cleanup_free char *quoted = NULL;
	size_t length = 0;

	if (*word != '\0' && word[strspn(word, plain)] == '\0')
		return text_copy(word);
	/* What had to be escaped is only readable in $'...', which takes the same escapes. */
	if (strcmp(escaped, word) != 0)
		return text_printf("$'%s'", escaped);
	quoted = allocate(strlen(word) * 4 + 3, 1);
	quoted[length++] = '\'';
	for (const char *at = word; *at; at++) {
		if (*at == '\'') {
			for (const char *mark = "'\\''"; *mark; mark++)
				quoted[length++] = *mark;
		} else {
			quoted[length++] = *at;
		}
	}
	quoted[length++] = '\'';
	return steal_pointer(&quoted);
}

char *quote_command(char *const *words)
{
	char *line = text_copy("");

	for (size_t i = 0; words[i]; i++) {
		cleanup_free char *word = quote_word(words[i]);
		cleanup_free char *before = line;

		line = text_printf("%s%s%s", before, i ? " " : "", word);
	}
	return line;
}

/* Levenshtein's distance with one row; both words are at most SUGGEST_WORD_MAX long. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[SUGGEST_WORD_MAX + 1];
	size_t length = strlen(b);

	for (size_t j = 0; j <= length; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= length; j++) {
			size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
			size_t shifted = MIN_OF(row[j], row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = MIN_OF(replaced, shifted);
		}
	}
	return row[length];
}

const char *suggest(const char *word, const char *const *candidates, size_t count)
{
	size_t limit = MAX_OF(strlen(word) / 3, (size_t)2);
	size_t best_distance = SIZE_MAX;
	const char *best = NULL;

	if (strlen(word) > SUGGEST_WORD_MAX)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		size_t distance;

		if (strlen(candidates[i]) > SUGGEST_WORD_MAX)
			continue;
		distance = edit_distance(word, candidates[i]);
		if (distance < best_distance) {
			best_distance = distance;
			best = candidates[i];
		}
	}
	return best_distance <= limit ? best : NULL;
}
