/*
 * The messages of a gRPC body, searched for secrets: a flag of one byte, a length of four
 * (big-endian), then the message. Source: gRPC over HTTP2, "Length-Prefixed-Message"
 * (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).
 *
 * A filter of secrets keeps back what may become one. In a body of messages that would stop a
 * conversation: one side waits for the last byte of a message, the other for an answer before it
 * says more. So what is kept back goes out at a message's end, as with a WebSocket's
 * (secret_filter_take_messages()); the texts of all messages are searched as one.
 *
 * A body that is cut within a message is one until there. Lengths are only counted, so that any is
 * possible.
 */
#ifndef PROXY_GRPC_FILTER_H
#define PROXY_GRPC_FILTER_H

#include "proxy/body_filter.h"
#include "proxy/http_head.h"

#include <stdbool.h>

#define GRPC_PREFIX_SIZE 5u

/* By the head's Content-Type. */
bool grpc_has_messages(const struct http_head *head);
/* Takes over `secrets`, a filter of secret_filter.h, which is asked for its findings as ever. With
 * `refuses_compressed` a message whose flag says so is refused (SECRET_REFUSAL_CODED), else it is
 * searched as it is. NULL without memory, and then the filter is freed. */
struct body_filter *grpc_filter_new(struct body_filter *secrets, bool refuses_compressed);

#endif
