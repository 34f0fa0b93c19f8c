/*
 * Heads of HTTP/1 messages, parsed line by line as they arrive. Source: RFC 9112.
 *
 * Strict where the RFC leaves a choice, because what two parsers read differently is how requests
 * are smuggled: a line ends with CR LF and neither occurs elsewhere; no control characters; no
 * folded fields; no space before a colon; single spaces in the first line; one Host;
 * Transfer-Encoding is "chunked" once, in HTTP/1.1, and never beside Content-Length;
 * Content-Lengths are digits and agree.
 */
#ifndef PROXY_HTTP1_PARSER_H
#define PROXY_HTTP1_PARSER_H

#include "proxy/http_head.h"
#include "proxy/http_syntax.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HTTP1_METHOD_MAX 32u
#define HTTP1_TARGET_MAX 16384u
/* Bytes of a whole head on the wire. */
#define HTTP1_HEAD_MAX HTTP_HEAD_SIZE_MAX

enum http1_kind {
	HTTP1_REQUEST,
	HTTP1_RESPONSE,
	HTTP1_TRAILERS, /* field lines and the empty line alone */
};

/* What a head says beside its fields. */
struct http1_message {
	unsigned minor_version; /* 0 or 1 */
	struct http_framing framing;
	bool keeps_alive;
	bool is_absolute; /* the target named scheme and authority */
};

struct http1_parser {
	enum http1_kind kind;
	bool has_first_line;
	size_t line_start; /* from the first byte of the head */
	size_t scanned;
	struct http1_message message;
};

void http1_parser_init(struct http1_parser *parser, enum http1_kind kind);

/* Reads on in a head whose bytes so far are `data`, always from its first byte on. Fields go into
 * `head`, which was clear at the first call; of a request, method, path and, if the target or a
 * Host field says so, scheme and authority; of a response, the status. Host stays a field.
 *
 * Returns the head's length when it is complete, with parser->message set; 0 when more is needed;
 * -EBADMSG, -E2BIG or -ENOMEM, with *ret_problem (static) saying what is wrong. Framing of a
 * response is that to a GET; http1_response_framing() knows the rest. */
ssize_t http1_parse(struct http1_parser *parser, const uint8_t *data, size_t length,
		    struct http_head *head, const char **ret_problem);

/* Framing of a response with `status` to a request with HEAD or not (RFC 9112 section 6.3). */
struct http_framing http1_response_framing(const struct http1_message *message, unsigned status,
					   bool to_head);

#endif
