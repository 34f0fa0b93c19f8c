/*
 * What the broker has run out of, in words for a person: which limit it was, and how it is raised.
 */
#ifndef PROXY_SHORTAGE_H
#define PROXY_SHORTAGE_H

#include <stdbool.h>
#include <stdint.h>

#define SHORTAGE_TEXT_MAX 200u

/* Whether it is files that are short: the process' own (-EMFILE) or the host's (-ENFILE). Nothing
 * that wants a new one will do better, whatever it is for. */
bool shortage_is_of_files(int error);

/* `error` is a negative errno of what could not be made; `files_max` is how many files the process
 * may have open. Always terminated, and printable. */
void shortage_text(int error, uint64_t files_max, char text[SHORTAGE_TEXT_MAX]);

#endif
