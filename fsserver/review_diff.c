#include "fsserver/review_diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"

#define CONTEXT 3u

struct line {
	const char *bytes;
	size_t length; /* with its newline, if it has one */
};

struct lines {
	struct line *list;
	uint32_t count;
};

void review_put_line(const char *text, size_t length, FILE *output)
{
	char piece[32];
	size_t i = 0;

	while (i < length) {
		uint32_t code_point = 0;
		size_t count = utf8_decode(text + i, length - i, &code_point);

		if (count > 0 && (code_point == '\t' || !escape_is_unsafe(code_point))) {
			fwrite(text + i, 1, count, output);
			i += count;
			continue;
		}
		count = count ? count : 1;
		escape_text(text + i, count, piece, sizeof(piece));
		fputs(piece, output);
		i += count;
	}
}

static int split(struct review_text text, struct lines *ret_lines)
{
	struct lines lines = { 0 };
	const char *end = text.bytes + text.length;
	const char *at = text.bytes;
	size_t count = 0;

	for (size_t i = 0; i < text.length; i++)
		count += text.bytes[i] == '\n' || i + 1 == text.length;
	if (count > REVIEW_LINES_MAX)
		return -E2BIG;
	lines.list = calloc(count + 1, sizeof(*lines.list));
	if (!lines.list)
		return -ENOMEM;
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *next = newline ? newline + 1 : end;

		lines.list[lines.count++] =
			(struct line){ .bytes = at, .length = (size_t)(next - at) };
		at = next;
	}
	*ret_lines = lines;
	return 0;
}

static bool same(const struct line *a, const struct line *b)
{
	return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

/* ---- the search ------------------------------------------------------------------------------ */

struct search {
	const struct line *a;
	const struct line *b;
	int32_t n;
	int32_t m;
	int32_t **rows; /* rows[d][i]: furthest x on diagonal 2i - d */
	uint32_t row_count;
};

/* The furthest x on diagonal k with d edits, before following the snake. */
static int32_t reach(const struct search *search, int32_t d, int32_t k)
{
	const int32_t *row = search->rows[d - 1];
	int32_t i = (k + d) / 2; /* index in a row of d; k - 1 is i - 1 and k + 1 is i there */
	bool down = k == -d || (k != d && row[i - 1] < row[i]);

	return down ? row[i] : row[i - 1] + 1;
}

static int find_path(struct search *search, uint32_t edits_max)
{
	for (int32_t d = 0; d <= (int32_t)edits_max; d++) {
		int32_t *row = calloc((size_t)d + 1, sizeof(*row));

		if (!row)
			return -ENOMEM;
		search->rows[d] = row;
		search->row_count++;
		for (int32_t k = -d; k <= d; k += 2) {
			int32_t x = d == 0 ? 0 : reach(search, d, k);
			int32_t y = x - k;

			while (x >= 0 && y >= 0 && x < search->n && y < search->m &&
			       same(&search->a[x], &search->b[y])) {
				x++;
				y++;
			}
			row[(k + d) / 2] = x;
			if (x >= search->n && y >= search->m)
				return 0;
		}
	}
	return -E2BIG;
}

/* Walks the trace backwards and marks which lines go and which come. */
static void mark(const struct search *search, uint8_t *gone, uint8_t *come)
{
	int32_t x = search->n;
	int32_t y = search->m;

	for (int32_t d = (int32_t)search->row_count - 1; d > 0; d--) {
		int32_t k = x - y;
		const int32_t *row = search->rows[d - 1];
		int32_t i = (k + d) / 2;
		bool down = k == -d || (k != d && row[i - 1] < row[i]);
		int32_t from = down ? row[i] : row[i - 1];

		if (down) {
			x = from;
			y = from - k - 1;
			come[y] = 1;
		} else {
			x = from;
			y = from - k + 1;
			gone[x] = 1;
		}
	}
}

static int compare(const struct lines *a, const struct lines *b, uint32_t edits_max, uint8_t *gone,
		   uint8_t *come)
{
	struct search search = { 0 };
	uint32_t head = 0;
	uint32_t tail = 0;
	int result = 0;

	while (head < a->count && head < b->count && same(&a->list[head], &b->list[head]))
		head++;
	while (tail < a->count - head && tail < b->count - head &&
	       same(&a->list[a->count - 1 - tail], &b->list[b->count - 1 - tail]))
		tail++;
	search.a = a->list + head;
	search.b = b->list + head;
	search.n = (int32_t)(a->count - head - tail);
	search.m = (int32_t)(b->count - head - tail);
	if (search.n == 0 || search.m == 0) {
		memset(gone + head, 1, (size_t)search.n);
		memset(come + head, 1, (size_t)search.m);
		return 0;
	}
	search.rows = calloc((size_t)edits_max + 1, sizeof(*search.rows));
	if (!search.rows)
		return -ENOMEM;
	result = find_path(&search, edits_max);
	if (result == 0)
		mark(&search, gone + head, come + head);
	for (uint32_t i = 0; i < search.row_count; i++)
		free(search.rows[i]);
	free(search.rows);
	return result;
}

/* ---- hunks ----------------------------------------------------------------------------------- */

struct cursor {
	const struct lines *a;
	const struct lines *b;
	const uint8_t *gone;
	const uint8_t *come;
	uint32_t x;
	uint32_t y;
};

static bool differs(const struct cursor *at)
{
	return (at->x < at->a->count && at->gone[at->x]) ||
	       (at->y < at->b->count && at->come[at->y]);
}

static void put(char sign, const struct line *line, FILE *output)
{
	bool newline = line->length > 0 && line->bytes[line->length - 1] == '\n';

	fputc(sign, output);
	review_put_line(line->bytes, line->length - newline, output);
	fputs(newline ? "\n" : "\n\\ No newline at end of file\n", output);
}

/* The end of the hunk that starts at `at`: six equal lines, or the end of both texts. */
static struct cursor hunk_end(struct cursor at)
{
	struct cursor end = at;
	uint32_t equal = 0;

	while (at.x < at.a->count || at.y < at.b->count) {
		if (differs(&at)) {
			while (at.x < at.a->count && at.gone[at.x])
				at.x++;
			while (at.y < at.b->count && at.come[at.y])
				at.y++;
			end = at;
			equal = 0;
			continue;
		}
		if (++equal > 2 * CONTEXT)
			break;
		at.x++;
		at.y++;
	}
	return end;
}

static void put_hunk(struct cursor at, struct cursor end, FILE *output)
{
	uint32_t before = MIN_OF(at.x, CONTEXT);
	uint32_t after = MIN_OF(end.a->count - end.x, CONTEXT);
	uint32_t a_count = end.x + after - (at.x - before);
	uint32_t b_count = end.y + after - (at.y - before);

	at.x -= before;
	at.y -= before;
	end.x += after;
	end.y += after;
	fprintf(output, "@@ -%u,%u +%u,%u @@\n", at.x + (a_count > 0), a_count,
		at.y + (b_count > 0), b_count);
	while (at.x < end.x || at.y < end.y) {
		if (at.x < end.x && at.gone[at.x])
			put('-', &at.a->list[at.x++], output);
		else if (at.y < end.y && at.come[at.y])
			put('+', &at.b->list[at.y++], output);
		else {
			put(' ', &at.a->list[at.x++], output);
			at.y++;
		}
	}
}

static int put_hunks(struct cursor at, FILE *output)
{
	int result = 0;

	while (at.x < at.a->count || at.y < at.b->count) {
		if (differs(&at)) {
			struct cursor end = hunk_end(at);

			put_hunk(at, end, output);
			at = end;
			result = 1;
		} else {
			at.x++;
			at.y++;
		}
	}
	return result;
}

int review_diff(struct review_text before, struct review_text after, uint32_t edits_max,
		FILE *output, uint32_t *ret_added, uint32_t *ret_removed)
{
	cleanup_free uint8_t *gone = NULL;
	cleanup_free uint8_t *come = NULL;
	struct lines a = { 0 };
	struct lines b = { 0 };
	uint32_t added = 0;
	uint32_t removed = 0;
	int result = split(before, &a);

	if (result == 0)
		result = split(after, &b);
	if (result == 0) {
		gone = calloc((size_t)a.count + 1, 1);
		come = calloc((size_t)b.count + 1, 1);
		result = gone && come ? compare(&a, &b, edits_max, gone, come) : -ENOMEM;
	}
	if (result == 0) {
		result = put_hunks((struct cursor){ .a = &a, .b = &b, .gone = gone, .come = come },
				   output);
		for (uint32_t i = 0; i < a.count; i++)
			removed += gone[i];
		for (uint32_t i = 0; i < b.count; i++)
			added += come[i];
		*ret_added = added;
		*ret_removed = removed;
	}
	free(a.list);
	free(b.list);
	return result;
}
