#include "fsserver/policy_glob.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"

/*
 * Theory of operation
 *
 * A pattern is a row of parts, one for each component. Reading a path is running the automaton
 * whose state p means "parts before p have matched"; the set of states is one 64-bit word, so a
 * "**" that may take any number of components costs a bit that stays set, not a search.
 *
 * Within a component, tokens are matched with the one-star method: on a mismatch only the last
 * star need be widened, because any match that widens an earlier one exists with the last widened
 * too.
 */

/* Tokens: 0..255 a byte, then these, then TOKEN_CLASS + index into the glob's classes. */
enum {
	TOKEN_ANY = 256,
	TOKEN_STAR = 257,
	TOKEN_CLASS = 258,
};

enum part_kind {
	PART_LITERAL,
	PART_TOKENS,
	PART_STAR,	  /* "*" alone: any one component */
	PART_DOUBLE_STAR, /* any number of components */
};

struct character_class {
	uint64_t bits[2]; /* ASCII; nothing else is ever in a class */
	bool negated;
};

struct part {
	enum part_kind kind;
	size_t offset; /* into `text` (literal) or `tokens` */
	size_t length;
};

struct policy_glob {
	bool anchored;
	bool exact;
	bool below_only; /* ended in "/ **" */
	size_t part_count;
	struct part parts[POLICY_GLOB_PARTS_MAX];
	size_t text_length;
	size_t token_count;
	size_t class_count;
	char *text;
	uint16_t *tokens;
	struct character_class *classes;
};

/* ---- compiling ---------------------------------------------------------------------------------
 */

struct compiler {
	struct policy_glob *glob;
	const char *pattern; /* one component */
	size_t length;
	size_t at;
	const char *problem;
	/* Literal bytes since the last wildcard; folded together, because folding may look at
	 * more than one byte. */
	char *run;
	size_t run_length;
	char *folded;
	bool has_wildcard;
};

static void flush_run(struct compiler *compiler)
{
	struct policy_glob *glob = compiler->glob;
	const char *bytes = compiler->run;
	size_t length = compiler->run_length;

	if (!glob->exact) {
		length = policy_fold(compiler->run, compiler->run_length, compiler->folded);
		bytes = compiler->folded;
	}
	for (size_t i = 0; i < length; i++)
		glob->tokens[glob->token_count++] = (uint8_t)bytes[i];
	compiler->run_length = 0;
}

static void class_add(struct character_class *class, char character, bool exact)
{
	uint8_t byte = (uint8_t)character;

	if (!exact && byte >= 'A' && byte <= 'Z')
		byte = (uint8_t)(byte + 'a' - 'A');
	class->bits[byte / 64] |= 1ull << (byte % 64);
}

/* One character of a class at `at`; false at its end or on a character that cannot be there. */
static bool class_character(struct compiler *compiler, char *ret_character)
{
	if (compiler->at < compiler->length && compiler->pattern[compiler->at] == '\\')
		compiler->at++;
	if (compiler->at >= compiler->length) {
		compiler->problem = "a '[' has no ']'";
		return false;
	}
	*ret_character = compiler->pattern[compiler->at++];
	if ((uint8_t)*ret_character >= 0x80) {
		compiler->problem = "only ASCII characters can stand in [..]";
		return false;
	}
	return true;
}

static bool compile_class(struct compiler *compiler)
{
	struct policy_glob *glob = compiler->glob;
	struct character_class *class = &glob->classes[glob->class_count];
	bool first = true;

	memset(class, 0, sizeof(*class));
	compiler->at++;
	if (compiler->at < compiler->length &&
	    (compiler->pattern[compiler->at] == '!' || compiler->pattern[compiler->at] == '^')) {
		class->negated = true;
		compiler->at++;
	}
	while (first || compiler->at >= compiler->length ||
	       compiler->pattern[compiler->at] != ']') {
		char low;
		char high;

		first = false;
		if (!class_character(compiler, &low))
			return false;
		high = low;
		if (compiler->at + 1 < compiler->length && compiler->pattern[compiler->at] == '-' &&
		    compiler->pattern[compiler->at + 1] != ']') {
			compiler->at++;
			if (!class_character(compiler, &high))
				return false;
		}
		if (high < low) {
			compiler->problem = "a range in [..] runs backwards";
			return false;
		}
		for (int character = (uint8_t)low; character <= (uint8_t)high; character++)
			class_add(class, (char)character, glob->exact);
	}
	compiler->at++;
	flush_run(compiler);
	glob->tokens[glob->token_count++] = (uint16_t)(TOKEN_CLASS + glob->class_count++);
	return true;
}

static bool compile_character(struct compiler *compiler)
{
	struct policy_glob *glob = compiler->glob;
	char character = compiler->pattern[compiler->at];

	switch (character) {
	case '[':
		compiler->has_wildcard = true;
		return compile_class(compiler);
	case '*':
		flush_run(compiler);
		compiler->has_wildcard = true;
		if (glob->token_count == 0 || glob->tokens[glob->token_count - 1] != TOKEN_STAR ||
		    glob->token_count == glob->parts[glob->part_count].offset)
			glob->tokens[glob->token_count++] = TOKEN_STAR;
		break;
	case '?':
		flush_run(compiler);
		compiler->has_wildcard = true;
		glob->tokens[glob->token_count++] = TOKEN_ANY;
		break;
	case '{':
	case '}':
		compiler->problem = "braces are not expanded: write one rule for each, or \\{ for "
				    "the character itself";
		return false;
	case '\\':
		if (++compiler->at >= compiler->length) {
			compiler->problem = "ends in a backslash";
			return false;
		}
		compiler->run[compiler->run_length++] = compiler->pattern[compiler->at];
		break;
	default:
		compiler->run[compiler->run_length++] = character;
		break;
	}
	compiler->at++;
	return true;
}

/* A part without wildcards is kept as text, for comparing in one go. */
static void finish_part(struct compiler *compiler)
{
	struct policy_glob *glob = compiler->glob;
	struct part *part = &glob->parts[glob->part_count++];

	flush_run(compiler);
	part->length = glob->token_count - part->offset;
	if (compiler->has_wildcard) {
		bool star = part->length == 1 && glob->tokens[part->offset] == TOKEN_STAR;

		part->kind = star ? PART_STAR : PART_TOKENS;
		return;
	}
	part->kind = PART_LITERAL;
	for (size_t i = 0; i < part->length; i++)
		glob->text[glob->text_length + i] = (char)glob->tokens[part->offset + i];
	glob->token_count = part->offset;
	part->offset = glob->text_length;
	glob->text_length += part->length;
}

static bool compile_part(struct compiler *compiler, const char *pattern, size_t length)
{
	struct policy_glob *glob = compiler->glob;
	struct part *part;

	if (glob->part_count == POLICY_GLOB_PARTS_MAX) {
		compiler->problem = "has more than 63 components";
		return false;
	}
	part = &glob->parts[glob->part_count];
	if (length == 2 && memcmp(pattern, "**", 2) == 0) {
		/* Two in a row say no more than one. */
		if (glob->part_count == 0 || part[-1].kind != PART_DOUBLE_STAR) {
			part->kind = PART_DOUBLE_STAR;
			glob->part_count++;
		}
		return true;
	}
	if ((length == 1 && pattern[0] == '.') || (length == 2 && memcmp(pattern, "..", 2) == 0)) {
		compiler->problem = "'.' and '..' name nothing in a rule";
		return false;
	}
	part->offset = glob->token_count;
	compiler->pattern = pattern;
	compiler->length = length;
	compiler->at = 0;
	compiler->has_wildcard = false;
	compiler->run_length = 0;
	while (compiler->at < length)
		if (!compile_character(compiler))
			return false;
	finish_part(compiler);
	return true;
}

/* Leading "**" mean "not anchored"; trailing ones "below". */
static void trim_double_stars(struct policy_glob *glob)
{
	while (glob->part_count > 0 && glob->parts[0].kind == PART_DOUBLE_STAR &&
	       glob->part_count > 1) {
		glob->anchored = false;
		glob->part_count--;
		memmove(glob->parts, glob->parts + 1, glob->part_count * sizeof(glob->parts[0]));
	}
	if (glob->part_count > 0 && glob->parts[glob->part_count - 1].kind == PART_DOUBLE_STAR) {
		glob->below_only = true;
		glob->part_count--;
	}
	if (glob->part_count == 0)
		glob->anchored = true;
}

static struct policy_glob *allocate(size_t length)
{
	struct policy_glob *glob = calloc(1, sizeof(*glob));

	if (glob == NULL)
		return NULL;
	/* Folding may grow the literals; a class takes at least three characters. */
	glob->text = malloc(length * POLICY_FOLD_GROWTH + 1);
	glob->tokens = malloc((length * POLICY_FOLD_GROWTH + 1) * sizeof(uint16_t));
	glob->classes = malloc((length / 3 + 1) * sizeof(struct character_class));
	if (glob->text == NULL || glob->tokens == NULL || glob->classes == NULL) {
		policy_glob_free(glob);
		return NULL;
	}
	return glob;
}

static const char *check_whole(const char *pattern, size_t length)
{
	if (length == 0 || strcmp(pattern, "/") == 0)
		return "is empty: name something, or write ** for everything";
	if (pattern[0] == '!')
		return "begins with '!': rules are not negated here; list the exception under "
		       "allow, or write \\! for the character itself";
	if (strstr(pattern, "//") != NULL)
		return "holds an empty component (//)";
	if (strncmp(pattern, "~/", 2) == 0)
		return "begins with ~: rules are relative to the export, not to a home";
	for (size_t i = 0; i < length; i++)
		if ((uint8_t)pattern[i] < 0x20 || pattern[i] == 0x7f)
			return "holds a control character";
	return NULL;
}

static bool compile_parts(struct compiler *compiler, const char *pattern, size_t length,
			  unsigned flags)
{
	struct policy_glob *glob = compiler->glob;
	glob->exact = (flags & POLICY_GLOB_EXACT) != 0;
	if (length > 0 && pattern[0] == '/') {
		glob->anchored = true;
		pattern++;
		length--;
	}
	/* A trailing slash says "a directory", which covers what is below it anyway. */
	if (length > 0 && pattern[length - 1] == '/')
		length--;
	if (memchr(pattern, '/', length) != NULL && !(flags & POLICY_GLOB_ANY_DEPTH))
		glob->anchored = true;
	for (size_t start = 0; start < length;) {
		size_t end = start;

		while (end < length && pattern[end] != '/')
			end++;
		if (!compile_part(compiler, pattern + start, end - start))
			return false;
		start = end + 1;
	}
	trim_double_stars(glob);
	return true;
}

int policy_glob_compile(const char *pattern, unsigned flags, struct policy_glob **ret_glob,
			const char **ret_problem)
{
	size_t length = strlen(pattern);
	struct compiler compiler = { .problem = check_whole(pattern, length) };
	cleanup_free char *run = NULL;
	cleanup_free char *folded = NULL;

	if (compiler.problem != NULL) {
		*ret_problem = compiler.problem;
		return -EINVAL;
	}
	run = malloc(length + 1);
	folded = malloc(length * POLICY_FOLD_GROWTH + 1);
	compiler.glob = allocate(length);
	compiler.run = run;
	compiler.folded = folded;
	if (compiler.glob == NULL || run == NULL || folded == NULL) {
		policy_glob_free(compiler.glob);
		return -ENOMEM;
	}
	if (!compile_parts(&compiler, pattern, length, flags)) {
		policy_glob_free(compiler.glob);
		*ret_problem = compiler.problem;
		return -EINVAL;
	}
	*ret_glob = compiler.glob;
	return 0;
}

void policy_glob_free(struct policy_glob *glob)
{
	if (glob == NULL)
		return;
	free(glob->text);
	free(glob->tokens);
	free(glob->classes);
	free(glob);
}

/* ---- matching ----------------------------------------------------------------------------------
 */

/* Bytes of `text` that `token` takes at `at`, 0 when it does not match there. */
static size_t token_takes(const struct policy_glob *glob, uint16_t token, const char *text,
			  size_t length, size_t at)
{
	uint32_t code;
	size_t step;

	if (at >= length)
		return 0;
	if (token < TOKEN_ANY)
		return (uint8_t)text[at] == token;
	step = utf8_decode(text + at, length - at, &code);
	if (step == 0) {
		step = 1;
		code = 0x80;
	}
	if (token == TOKEN_ANY)
		return step;
	const struct character_class *class = &glob->classes[token - TOKEN_CLASS];
	bool member = code < 0x80 && (class->bits[code / 64] >> (code % 64) & 1) != 0;

	return member != class->negated ? step : 0;
}

static bool tokens_match(const struct policy_glob *glob, const struct part *part, const char *text,
			 size_t length)
{
	const uint16_t *tokens = glob->tokens + part->offset;
	size_t token = 0;
	size_t at = 0;
	size_t star_token = SIZE_MAX;
	size_t star_at = 0;

	while (at < length || token < part->length) {
		size_t taken;

		if (token < part->length && tokens[token] == TOKEN_STAR) {
			star_token = ++token;
			star_at = at;
			continue;
		}
		taken = token < part->length ? token_takes(glob, tokens[token], text, length, at)
					     : 0;
		if (taken > 0) {
			token++;
			at += taken;
			continue;
		}
		if (star_token == SIZE_MAX || star_at >= length)
			return false;
		at = ++star_at;
		token = star_token;
	}
	return true;
}

static bool part_matches(const struct policy_glob *glob, const struct part *part,
			 const struct policy_name *name)
{
	const char *text = glob->exact ? name->raw : name->text;
	size_t length = glob->exact ? name->raw_length : name->full_length;

	if (part->kind == PART_STAR)
		return true;
	if (part->kind == PART_LITERAL) {
		const char *literal = glob->text + part->offset;

		if (glob->exact)
			return length == part->length && memcmp(text, literal, length) == 0;
		return policy_name_is(name, literal, part->length);
	}
	if (tokens_match(glob, part, text, length))
		return true;
	return !glob->exact && name->length != name->full_length &&
	       tokens_match(glob, part, name->text, name->length);
}

/* Adds to a set of states those reached by letting "**" take nothing. */
static uint64_t close_states(const struct policy_glob *glob, uint64_t states)
{
	for (size_t p = 0; p < glob->part_count; p++)
		if ((states >> p & 1) != 0 && glob->parts[p].kind == PART_DOUBLE_STAR)
			states |= 1ull << (p + 1);
	return states;
}

/* One component further. `ret_named`: the states reached through names alone. */
static uint64_t step_states(const struct policy_glob *glob, uint64_t states,
			    const struct policy_name *name, uint64_t named, uint64_t *ret_named)
{
	uint64_t next = 0;
	uint64_t next_named = 0;

	for (size_t p = 0; p < glob->part_count; p++) {
		if ((states >> p & 1) == 0)
			continue;
		if (glob->parts[p].kind == PART_DOUBLE_STAR) {
			next |= 1ull << p;
		} else if (part_matches(glob, &glob->parts[p], name)) {
			next |= 1ull << (p + 1);
			if (glob->parts[p].kind != PART_STAR)
				next_named |= (named >> p & 1) << (p + 1);
		}
	}
	*ret_named = next_named;
	return close_states(glob, next);
}

enum policy_glob_match policy_glob_match_at(const struct policy_glob *glob,
					    const struct policy_path *path, size_t start)
{
	uint64_t accept = 1ull << glob->part_count;
	uint64_t states = close_states(glob, 1);
	uint64_t named = 1;

	if (glob->anchored && start != 0)
		return POLICY_GLOB_NONE;
	for (size_t i = start; i < path->count; i++) {
		if ((states & accept) != 0 && (i > start || glob->below_only))
			return POLICY_GLOB_COVERED;
		states = step_states(glob, states, &path->names[i], named, &named);
		if (states == 0)
			return POLICY_GLOB_NONE;
	}
	if ((states & accept) != 0 && !glob->below_only)
		return POLICY_GLOB_COVERED;
	if (start >= path->count && !glob->anchored)
		return POLICY_GLOB_NONE;
	return named != 0 ? POLICY_GLOB_ABOVE : POLICY_GLOB_ABOVE_ANY;
}

enum policy_glob_match policy_glob_match(const struct policy_glob *glob,
					 const struct policy_path *path)
{
	enum policy_glob_match best = policy_glob_match_at(glob, path, 0);

	if (glob->anchored)
		return best;
	for (size_t start = 1; start < path->count && best != POLICY_GLOB_COVERED; start++) {
		enum policy_glob_match match = policy_glob_match_at(glob, path, start);

		best = MAX_OF(best, match);
	}
	return best;
}

bool policy_glob_is_anchored(const struct policy_glob *glob)
{
	return glob->anchored;
}

void policy_glob_key(const struct policy_glob *glob, struct policy_glob_key *ret_key)
{
	const struct part *part = &glob->parts[0];
	const uint16_t *tokens = glob->tokens + part->offset;

	memset(ret_key, 0, sizeof(*ret_key));
	ret_key->kind = POLICY_GLOB_KEY_NONE;
	if (glob->part_count == 0)
		return;
	if (part->kind == PART_LITERAL) {
		ret_key->kind = POLICY_GLOB_KEY_LITERAL;
		ret_key->text = glob->text + part->offset;
		ret_key->length = part->length;
	} else if (part->kind == PART_TOKENS && tokens[0] < TOKEN_ANY) {
		ret_key->kind = POLICY_GLOB_KEY_FIRST_BYTE;
		ret_key->byte = (uint8_t)tokens[0];
	} else if (part->kind == PART_TOKENS && tokens[part->length - 1] < TOKEN_ANY) {
		ret_key->kind = POLICY_GLOB_KEY_LAST_BYTE;
		ret_key->byte = (uint8_t)tokens[part->length - 1];
	}
}

bool policy_glob_quote(const char *path, char *output, size_t capacity)
{
	size_t used = 0;

	if (capacity < 2)
		return false;
	output[used++] = '/';
	for (; *path != '\0'; path++) {
		if (used + 3 > capacity)
			return false;
		if (strchr("*?[]{}\\", *path) != NULL)
			output[used++] = '\\';
		output[used++] = *path;
	}
	output[used] = '\0';
	return true;
}
