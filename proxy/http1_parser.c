#include "proxy/http1_parser.h"

#include <emmintrin.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

/* Every byte of a head passes once through next_line(), which ends lines and finds stray control
 * characters; a line is parsed when it is complete. */

struct parse {
	struct http1_parser *parser;
	struct http_head *head;
	const char *problem;
};

static int bad(struct parse *parse, const char *problem)
{
	parse->problem = problem;
	return -EBADMSG;
}

/* For results of http_head_*(). */
static int stored(struct parse *parse, int error)
{
	if (error == -E2BIG)
		parse->problem = "the head has too many fields or is too large";
	else if (error)
		parse->problem = "out of memory";
	return error;
}

void http1_parser_init(struct http1_parser *parser, enum http1_kind kind)
{
	*parser = (struct http1_parser){ .kind = kind, .has_first_line = kind == HTTP1_TRAILERS };
}

/* ---- lines ---------------------------------------------------------------------------------- */

static bool is_text(uint8_t byte)
{
	return byte >= 0x20 ? byte != 0x7f : byte == '\t';
}

/* How many of the bytes are text, up to the first that is not. */
static size_t text_length(const uint8_t *data, size_t length)
{
	const __m128i last_control = _mm_set1_epi8(0x1f);
	size_t at = 0;

	for (; at + sizeof(__m128i) <= length; at += sizeof(__m128i)) {
		__m128i bytes = _mm_loadu_si128((const __m128i_u *)(data + at));
		__m128i controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, last_control), bytes);
		__m128i tabs = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
		__m128i deletes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
		__m128i ends = _mm_or_si128(_mm_andnot_si128(tabs, controls), deletes);
		unsigned found = (unsigned)_mm_movemask_epi8(ends);

		if (found != 0)
			return at + (size_t)__builtin_ctz(found);
	}
	while (at < length && is_text(data[at]))
		at++;
	return at;
}

/* Returns 1 with the line (without CR LF), 0 when it is not complete, or -EBADMSG. */
static int next_line(struct parse *parse, const uint8_t *data, size_t length,
		     struct http_text *ret_line)
{
	struct http1_parser *parser = parse->parser;

	for (;;) {
		uint8_t byte;

		parser->scanned += text_length(data + parser->scanned, length - parser->scanned);
		if (parser->scanned == length)
			return 0;
		byte = data[parser->scanned];
		if (byte == '\r') {
			if (parser->scanned + 1 == length)
				return 0;
			if (data[parser->scanned + 1] != '\n')
				return bad(parse, "a CR without LF");
			*ret_line = (struct http_text){
				.data = (const char *)data + parser->line_start,
				.length = parser->scanned - parser->line_start,
			};
			parser->scanned += 2;
			parser->line_start = parser->scanned;
			return 1;
		}
		return bad(parse, byte == '\n' ? "a LF without CR" : "a control character");
	}
}

/* ---- the first line ------------------------------------------------------------------------- */

static int parse_version(struct parse *parse, const char *data, size_t length)
{
	if (length != 8 || memcmp(data, "HTTP/1.", 7) != 0 || (data[7] != '0' && data[7] != '1'))
		return bad(parse, "not HTTP/1.0 or HTTP/1.1");
	parse->parser->message.minor_version = (unsigned)(data[7] - '0');
	return 0;
}

/* What follows "scheme://". */
static int parse_absolute(struct parse *parse, const char *scheme, struct http_text rest)
{
	size_t authority = 0;
	bool is_options = http_text_is_exactly(http_head_method(parse->head), "OPTIONS");
	int error;

	while (authority < rest.length && rest.data[authority] != '/' &&
	       rest.data[authority] != '?')
		authority++;
	if (authority == 0)
		return bad(parse, "a target without a host");
	error = http_head_set_scheme(parse->head, scheme, strlen(scheme));
	if (!error)
		error = http_head_set_authority(parse->head, rest.data, authority);
	if (error)
		return stored(parse, error);
	parse->parser->message.is_absolute = true;
	rest.data += authority;
	rest.length -= authority;
	if (rest.length > 0 && rest.data[0] == '?')
		return bad(parse, "a target whose path is missing");
	if (rest.length == 0)
		rest = (struct http_text){ .data = is_options ? "*" : "/", .length = 1 };
	return stored(parse, http_head_set_path(parse->head, rest.data, rest.length));
}

static int parse_target(struct parse *parse, struct http_text target)
{
	static const char *const schemes[] = { "http", "https" };
	struct http_text method = http_head_method(parse->head);

	if (target.length > HTTP1_TARGET_MAX)
		return bad(parse, "a request target that is too long");
	if (!http_is_target(target.data, target.length))
		return bad(parse, "a request target with characters that must be encoded");
	if (http_text_is_exactly(method, "CONNECT"))
		return stored(parse,
			      http_head_set_authority(parse->head, target.data, target.length));
	if (target.data[0] == '/' ||
	    (http_text_is_exactly(target, "*") && http_text_is_exactly(method, "OPTIONS")))
		return stored(parse, http_head_set_path(parse->head, target.data, target.length));
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t length = strlen(schemes[i]);

		if (target.length > length + 3 &&
		    strncasecmp(target.data, schemes[i], length) == 0 &&
		    memcmp(target.data + length, "://", 3) == 0) {
			target.data += length + 3;
			target.length -= length + 3;
			return parse_absolute(parse, schemes[i], target);
		}
	}
	return bad(parse, "a request target of no known form");
}

static int parse_request_line(struct parse *parse, struct http_text line)
{
	const char *end = line.data + line.length;
	const char *first = memchr(line.data, ' ', line.length);
	const char *last = memrchr(line.data, ' ', line.length);
	size_t method_length = first ? (size_t)(first - line.data) : 0;
	int error;

	if (!first || first == last)
		return bad(parse, "a first line that is no request");
	if (method_length > HTTP1_METHOD_MAX || !http_is_token(line.data, method_length))
		return bad(parse, "a method that is no token");
	error = parse_version(parse, last + 1, (size_t)(end - last - 1));
	if (error)
		return error;
	error = stored(parse, http_head_set_method(parse->head, line.data, method_length));
	if (error)
		return error;
	return parse_target(parse, (struct http_text){ .data = first + 1,
						       .length = (size_t)(last - first - 1) });
}

static int parse_status_line(struct parse *parse, struct http_text line)
{
	unsigned status = 0;

	if (line.length < 12 || line.data[8] != ' ')
		return bad(parse, "a first line that is no response");
	if (parse_version(parse, line.data, 8) < 0)
		return -EBADMSG;
	for (size_t i = 9; i < 12; i++) {
		if (line.data[i] < '0' || line.data[i] > '9')
			return bad(parse, "a status that is no number");
		status = status * 10 + (unsigned)(line.data[i] - '0');
	}
	if (status < 100 || status > 599 || (line.length > 12 && line.data[12] != ' '))
		return bad(parse, "a status out of range");
	http_head_set_status(parse->head, status);
	return 0;
}

/* ---- fields --------------------------------------------------------------------------------- */

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

static int parse_field(struct parse *parse, struct http_text line)
{
	const char *colon = memchr(line.data, ':', line.length);
	const char *value;
	const char *end = line.data + line.length;
	size_t name_length;

	if (is_blank(line.data[0]))
		return bad(parse, "a folded field");
	if (!colon)
		return bad(parse, "a field without a colon");
	name_length = (size_t)(colon - line.data);
	if (!http_is_token(line.data, name_length))
		return bad(parse, "a field name that is no token");
	value = colon + 1;
	while (value < end && is_blank(*value))
		value++;
	while (end > value && is_blank(end[-1]))
		end--;
	return stored(parse, http_head_add(parse->head, line.data, name_length, value,
					   (size_t)(end - value)));
}

/* ---- the whole head ------------------------------------------------------------------------- */

static int find_framing(struct parse *parse)
{
	struct http1_message *message = &parse->parser->message;
	struct http_framing *framing = &message->framing;
	ssize_t coding = http_head_find(parse->head, "transfer-encoding", 0);

	if (http_head_length(parse->head, &framing->has_length, &framing->length) < 0)
		return bad(parse, "a Content-Length that is no number, or several that differ");
	if (coding >= 0) {
		if (framing->has_length)
			return bad(parse, "Content-Length and Transfer-Encoding together");
		if (message->minor_version == 0)
			return bad(parse, "Transfer-Encoding in HTTP/1.0");
		if (!http_text_is(http_head_field(parse->head, (size_t)coding).value, "chunked") ||
		    http_head_find(parse->head, "transfer-encoding", (size_t)coding + 1) >= 0)
			return bad(parse, "a Transfer-Encoding other than chunked");
		framing->kind = HTTP_FRAMING_CHUNKED;
	} else if (framing->has_length) {
		framing->kind = framing->length > 0 ? HTTP_FRAMING_LENGTH : HTTP_FRAMING_NONE;
	} else {
		framing->kind = parse->parser->kind == HTTP1_RESPONSE ? HTTP_FRAMING_UNTIL_CLOSE
								      : HTTP_FRAMING_NONE;
	}
	return 0;
}

/* RFC 9110 section 8.6 and RFC 9112 section 6.1: neither field is in such a response; a reader that
 * believes it takes the next response for a body. */
static int check_bodiless(struct parse *parse)
{
	const struct http_framing *framing = &parse->parser->message.framing;
	unsigned status = http_head_status(parse->head);

	if ((status < 200 || status == 204) &&
	    (framing->kind == HTTP_FRAMING_CHUNKED || framing->length > 0))
		return bad(parse, "a body announced where there is none");
	return 0;
}

static int find_host(struct parse *parse)
{
	ssize_t index = http_head_find(parse->head, "host", 0);
	struct http_text value;

	if (index < 0) {
		if (parse->parser->message.minor_version >= 1)
			return bad(parse, "no Host");
		return 0;
	}
	if (http_head_find(parse->head, "host", (size_t)index + 1) >= 0)
		return bad(parse, "more than one Host");
	value = http_head_field(parse->head, (size_t)index).value;
	if (http_head_authority(parse->head).length > 0)
		return 0;
	return stored(parse, http_head_set_authority(parse->head, value.data, value.length));
}

static int finish(struct parse *parse)
{
	struct http1_parser *parser = parse->parser;
	bool closes;
	int error = 0;

	if (parser->kind == HTTP1_TRAILERS)
		return 0;
	error = find_framing(parse);
	if (!error && parser->kind == HTTP1_REQUEST)
		error = find_host(parse);
	else if (!error)
		error = check_bodiless(parse);
	if (error)
		return error;
	closes = http_head_lists(parse->head, "connection", "close");
	parser->message.keeps_alive =
		!closes && (parser->message.minor_version >= 1 ||
			    http_head_lists(parse->head, "connection", "keep-alive"));
	return 0;
}

static int parse_line(struct parse *parse, struct http_text line)
{
	struct http1_parser *parser = parse->parser;

	if (parser->has_first_line)
		return parse_field(parse, line);
	parser->has_first_line = true;
	return parser->kind == HTTP1_REQUEST ? parse_request_line(parse, line)
					     : parse_status_line(parse, line);
}

ssize_t http1_parse(struct http1_parser *parser, const uint8_t *data, size_t length,
		    struct http_head *head, const char **ret_problem)
{
	struct parse parse = { .parser = parser, .head = head };
	size_t seen = length < HTTP1_HEAD_MAX ? length : HTTP1_HEAD_MAX;
	struct http_text line;
	int result;

	while ((result = next_line(&parse, data, seen, &line)) > 0) {
		if (line.length == 0 && parser->has_first_line) {
			result = finish(&parse);
			if (!result)
				return (ssize_t)parser->scanned;
		} else {
			result = parse_line(&parse, line);
		}
		if (result)
			break;
	}
	if (result == 0 && length >= HTTP1_HEAD_MAX) {
		parse.problem = "a head that is too long";
		result = -E2BIG;
	}
	if (result)
		*ret_problem = parse.problem;
	return result;
}

struct http_framing http1_response_framing(const struct http1_message *message, unsigned status,
					   bool to_head)
{
	struct http_framing framing = message->framing;

	if (status < 200 || status == 204) {
		framing = (struct http_framing){ .kind = HTTP_FRAMING_NONE };
	} else if (to_head || status == 304) {
		framing.kind = HTTP_FRAMING_NONE;
	}
	return framing;
}
