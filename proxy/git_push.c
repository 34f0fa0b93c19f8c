#include "proxy/git_push.h"

#include "base/checked.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SERVICE "git-receive-pack"
#define PACKET_HEADER 4u
#define REPOSITORY_MAX 1024u

enum kind {
	KIND_OTHER,
	KIND_ANNOUNCEMENT,
	KIND_PUSH,
	KIND_UNCLEAR, /* perhaps a push */
};

struct git_push_filter {
	struct body_filter filter;
	const struct egress_rule *limits;
	char repository[REPOSITORY_MAX];
	bool is_judged;	 /* the list has ended, and all of it is allowed */
	size_t position; /* of the next packet in the list */
	size_t length;
	uint8_t list[GIT_PUSH_LIST_MAX];
	struct egress_verdict verdict;
};

/* ---- which requests -------------------------------------------------------------------------- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* A segment of a path, without the parameters that some servers take off. */
static bool segment_is(const char *segment, size_t length, const char *wanted)
{
	const char *parameters = length > 0 ? memchr(segment, ';', length) : NULL;

	if (parameters)
		length = (size_t)(parameters - segment);
	return length == strlen(wanted) && strncasecmp(segment, wanted, length) == 0;
}

static bool has_segment(const struct request_path *path, const char *wanted)
{
	size_t begin = 1;

	for (size_t i = 1; i <= path->length; i++) {
		if (i < path->length && path->text[i] != '/')
			continue;
		if (segment_is(path->text + begin, i - begin, wanted))
			return true;
		begin = i + 1;
	}
	return false;
}

static bool holds_fold(const char *text, size_t length, const char *wanted)
{
	size_t wanted_length = strlen(wanted);

	for (size_t i = 0; i + wanted_length <= length; i++) {
		if (strncasecmp(text + i, wanted, wanted_length) == 0)
			return true;
	}
	return false;
}

/* Decodes what is encoded and leaves the rest; returns the new length. */
static size_t decode_leniently(char *text, size_t length)
{
	size_t used = 0;

	for (size_t i = 0; i < length; i++) {
		int high = text[i] == '%' && length - i > 2 ? hex_value(text[i + 1]) : -1;
		int low = high >= 0 ? hex_value(text[i + 2]) : -1;

		text[used++] = low >= 0 ? (char)(high << 4 | low) : text[i];
		i += low >= 0 ? 2 : 0;
	}
	return used;
}

/* Whether some server may read the service's name in a target, encoded once or twice. */
static bool names_service(struct http_text target)
{
	char text[REQUEST_PATH_MAX];
	size_t length = target.length;

	if (length > sizeof(text))
		return true;
	memcpy(text, target.data, length);
	length = decode_leniently(text, length);
	length = decode_leniently(text, length);
	return holds_fold(text, length, "receive-pack");
}

/* The path up to `end`, without ".git". */
static int take_repository(const struct request_path *path, const char *end,
			   char repository[static REPOSITORY_MAX])
{
	size_t length = path->length - strlen(end);

	if (length > 4 && memcmp(path->text + length - 4, ".git", 4) == 0)
		length -= 4;
	if (length < 2 || length >= REPOSITORY_MAX || memchr(path->text, '\0', length))
		return -EINVAL;
	memcpy(repository, path->text, length);
	repository[length] = '\0';
	return 0;
}

static bool ends_with(const struct request_path *path, const char *end)
{
	size_t length = strlen(end);

	return path->length > length &&
	       memcmp(path->text + path->length - length, end, length) == 0;
}

/* What a push by WebDAV is made of. */
static bool is_webdav(struct http_text method, struct http_text target)
{
	static const char *const methods[] = { "PROPFIND", "PROPPATCH", "MKCOL", "LOCK",
					       "UNLOCK",   "MOVE",	"COPY" };

	for (size_t i = 0; i < ARRAY_LENGTH(methods); i++) {
		if (http_text_is(method, methods[i]))
			return true;
	}
	return (http_text_is(method, "PUT") || http_text_is(method, "DELETE")) &&
	       holds_fold(target.data, target.length, ".git/");
}

static bool has_push_type(const struct http_head *head)
{
	for (ssize_t i = http_head_find(head, "content-type", 0); i >= 0;
	     i = http_head_find(head, "content-type", (size_t)i + 1)) {
		struct http_text value = http_head_field(head, (size_t)i).value;

		if (holds_fold(value.data, value.length, "x-" SERVICE))
			return true;
	}
	return false;
}

static enum kind recognise(const struct http_head *head, char repository[static REPOSITORY_MAX])
{
	struct http_text target = http_head_path(head);
	struct request_path path;

	if (is_webdav(http_head_method(head), target))
		return KIND_UNCLEAR;
	if (request_path_parse(target, &path) < 0)
		return has_push_type(head) || names_service(target) ? KIND_UNCLEAR : KIND_OTHER;
	if (ends_with(&path, "/" SERVICE))
		return take_repository(&path, "/" SERVICE, repository) < 0 ? KIND_UNCLEAR
									   : KIND_PUSH;
	if (has_segment(&path, SERVICE) || has_push_type(head))
		return KIND_UNCLEAR;
	if (!ends_with(&path, "/info/refs") || !names_service(target))
		return KIND_OTHER;
	return take_repository(&path, "/info/refs", repository) < 0 ? KIND_UNCLEAR
								    : KIND_ANNOUNCEMENT;
}

static void refuse(struct egress_verdict *verdict, const struct egress_rule *limits,
		   const char *why)
{
	verdict->allowed = false;
	verdict->reason = "push_not_allowed";
	snprintf(verdict->hint, sizeof(verdict->hint), "%.100s limits git push: %s", limits->where,
		 why);
}

/* ---- the list of refs ------------------------------------------------------------------------ */

/* The length of a packet, its header included; negative for what is none. */
static int packet_length(const uint8_t *header)
{
	int length = 0;

	for (unsigned i = 0; i < PACKET_HEADER; i++) {
		int digit = hex_value((char)header[i]);

		if (digit < 0)
			return -EBADMSG;
		length = length << 4 | digit;
	}
	return length;
}

/* The length of the object id at the beginning: SHA-1 or SHA-256, and a space behind. */
static size_t object_length(const uint8_t *text, size_t length)
{
	size_t digits = 0;

	while (digits < length && hex_value((char)text[digits]) >= 0)
		digits++;
	return (digits == 40 || digits == 64) && digits < length && text[digits] == ' ' ? digits
											: 0;
}

/* As git-check-ref-format has it, as far as another reading of the name could come of it. */
static bool is_ref(const uint8_t *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (text[i] <= ' ' || text[i] == 0x7f || strchr("~^:?*[\\", text[i]))
			return false;
		if (i > 0 && text[i - 1] == text[i] && (text[i] == '.' || text[i] == '/'))
			return false;
	}
	return length > 5 && memcmp(text, "refs/", 5) == 0 && text[length - 1] != '/';
}

/* One packet: "OLD NEW REF", capabilities behind a NUL in the first, perhaps a line feed. */
static int judge_command(struct git_push_filter *push, const uint8_t *text, size_t length)
{
	const uint8_t *nul = memchr(text, '\0', length);
	size_t end = nul ? (size_t)(nul - text) : length;
	char ref[GIT_PUSH_LIST_MAX];
	size_t object;

	if (end > 0 && text[end - 1] == '\n')
		end--;
	if (end > 8 && memcmp(text, "shallow ", 8) == 0)
		return 0;
	object = object_length(text, end);
	if (object == 0 || object_length(text + object + 1, end - object - 1) != object) {
		refuse(&push->verdict, push->limits, "this one is not of the known form");
		return -EACCES;
	}
	text += 2 * (object + 1);
	end -= 2 * (object + 1);
	if (!is_ref(text, end)) {
		refuse(&push->verdict, push->limits, "a ref's name is malformed");
		return -EACCES;
	}
	memcpy(ref, text, end);
	ref[end] = '\0';
	egress_rule_judge_push(push->limits, push->repository, ref, &push->verdict);
	return push->verdict.allowed ? 0 : -EACCES;
}

/* Judges what is there of the list. 0 also when it has not ended yet. */
static int judge_list(struct git_push_filter *push)
{
	while (push->length - push->position >= PACKET_HEADER) {
		const uint8_t *packet = push->list + push->position;
		int length = packet_length(packet);
		int error;

		if (length == 0) {
			push->is_judged = true;
			return 0;
		}
		if (length <= (int)PACKET_HEADER) {
			refuse(&push->verdict, push->limits, "this one is not of the known form");
			return -EACCES;
		}
		if ((size_t)length > push->length - push->position)
			return 0;
		error = judge_command(push, packet + PACKET_HEADER, (size_t)length - PACKET_HEADER);
		if (error)
			return error;
		push->position += (size_t)length;
	}
	return 0;
}

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	struct git_push_filter *push = (struct git_push_filter *)filter;
	size_t taken = MIN_OF(length, sizeof(push->list) - push->length);
	int error;

	if (push->is_judged)
		return byte_buffer_append(out, data, length);
	if (!push->verdict.allowed)
		return -EACCES;
	if (byte_buffer_room(out) < push->length + length)
		return -ENOBUFS;
	if (taken > 0)
		memcpy(push->list + push->length, data, taken);
	push->length += taken;
	error = judge_list(push);
	if (error)
		return error;
	if (!push->is_judged && (is_last || push->length == sizeof(push->list))) {
		refuse(&push->verdict, push->limits,
		       is_last ? "this one ends too early" : "this one changes too many refs");
		return -EACCES;
	}
	if (!push->is_judged)
		return 0;
	error = byte_buffer_append(out, push->list, push->length);
	return error ? error : byte_buffer_append(out, data + taken, length - taken);
}

static void free_filter(struct body_filter *filter)
{
	free(filter);
}

static int new_filter(const struct egress_rule *limits, const char *repository,
		      struct body_filter **ret_filter)
{
	struct git_push_filter *push = calloc(1, sizeof(*push));

	static_assert(offsetof(struct git_push_filter, filter) == 0, "a filter is its push");
	if (!push)
		return -ENOMEM;
	push->filter = (struct body_filter){ .feed = feed, .free = free_filter };
	push->limits = limits;
	memcpy(push->repository, repository, strlen(repository) + 1);
	egress_rule_judge_push(limits, repository, NULL, &push->verdict);
	*ret_filter = &push->filter;
	return 0;
}

int git_push_prepare(const struct egress_rule *limits, const struct http_head *head,
		     struct body_filter **ret_filter, struct egress_verdict *ret_verdict)
{
	char repository[REPOSITORY_MAX];
	enum kind kind;

	*ret_filter = NULL;
	*ret_verdict = (struct egress_verdict){ .allowed = true, .limits = limits };
	if (!limits || !limits->limits_pushes)
		return 0;
	kind = recognise(head, repository);
	if (kind == KIND_OTHER)
		return 0;
	/* For the rule's name in the verdict; no repository has this one. */
	egress_rule_judge_push(limits, kind == KIND_UNCLEAR ? "" : repository, NULL, ret_verdict);
	if (kind == KIND_UNCLEAR)
		refuse(ret_verdict, limits, "this request may be one, and is of no known form");
	else if (kind == KIND_PUSH && http_head_find(head, "content-encoding", 0) >= 0)
		refuse(ret_verdict, limits, "one with a content coding cannot be read");
	if (!ret_verdict->allowed)
		return -EACCES;
	return kind == KIND_PUSH ? new_filter(limits, repository, ret_filter) : 0;
}

const struct egress_verdict *git_push_verdict(const struct body_filter *filter)
{
	return &((const struct git_push_filter *)filter)->verdict;
}
