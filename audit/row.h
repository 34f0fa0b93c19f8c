/*
 * One record as one row of the table: aligned columns, then what else the record says.
 */
#ifndef AUDIT_ROW_H
#define AUDIT_ROW_H

#include "audit/record.h"

#include <stdbool.h>
#include <stdio.h>

struct row_buffers;

struct row_buffers *row_buffers_new(void);
void row_buffers_free(struct row_buffers *buffers);

void row_print_header(FILE *output, bool colour);
void row_print(struct row_buffers *buffers, const struct record *record, bool colour, FILE *output);

/* The NUL-terminated bytes of a field, in a buffer that the next call overwrites; text with a
 * NUL inside comes in the form of base/escape.h. NULL when it is no text. */
const char *row_field_text(struct row_buffers *buffers, const struct record_field *field);

#endif
