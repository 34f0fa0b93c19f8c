/*
 * Text for the command line: formatted strings, lists of strings, durations and sizes as people
 * write them, and the one form in which a problem travels up to main().
 *
 * Memory that runs out ends the process with status 125: the CLI has no better answer, and every
 * daemon it started ends with it.
 */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define STATUS_USAGE 2	   /* the command line makes no sense */
#define STATUS_TIMEOUT 124 /* --timeout ran out */
#define STATUS_SANDBOX 125 /* the sandbox failed, not the command */

/* What went wrong, for a person: what, where, why, and what to do. */
struct problem {
	int status; /* exit status: STATUS_USAGE or STATUS_SANDBOX */
	char text[2048];
};

void problem_write(struct problem *problem, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static inline int problem_result(void)
{
	return -1;
}
/* Fills in *problem and is -1, so that callers write `return problem_set(...)`. */
#define problem_set(problem, status, ...)                                                          \
	(problem_write(problem, status, __VA_ARGS__), problem_result())

/* Never NULL; the caller frees. */
char *text_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *text_copy(const char *text);
/* calloc that never returns NULL. */
void *allocate(size_t count, size_t size);

/* A growing, always NULL-terminated list of owned strings. Zero-initialise. */
struct text_list {
	char **items;
	size_t count;
};
void text_list_add(struct text_list *list, const char *text);
/* Takes over `text`. */
void text_list_take(struct text_list *list, char *text);
void text_list_free(struct text_list *list);
#define cleanup_list __attribute__((cleanup(text_list_free)))

/* "90", "90s", "5m", "2h", "7d", "250ms" to milliseconds; a bare number counts `bare_ms` each.
 * False for anything else, zero, and more than a year. */
bool parse_duration(const char *text, uint64_t bare_ms, uint64_t *ret_ms);
/* "512m", "2g", "2GiB" to bytes; a bare number is refused, because tools differ on its unit. */
bool parse_size(const char *text, uint64_t *ret_bytes);
bool parse_unsigned(const char *text, uint64_t maximum, uint64_t *ret_value);

/* "2.5 GiB", "17 B" */
char *format_size(uint64_t bytes);
/* "3 minutes ago" */
char *format_age(time_t now, time_t then);
/* "1.4 s", "2 min 3 s" */
char *format_duration(uint64_t milliseconds);

/* One shell word: quoted when it must be. Control characters are escaped as in base/escape.h, so
 * that the result is safe to print. */
char *quote_word(const char *word);
/* All words, joined by spaces. */
char *quote_command(char *const *words);
/* base/escape.h on a whole string. */
char *escape_copy(const char *text);

/* The candidate nearest to `word`, or NULL when none is near (an edit distance over two, or over a
 * third of its length). */
const char *suggest(const char *word, const char *const *candidates, size_t count);

#endif
