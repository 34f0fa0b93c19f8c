/*
 * Tokens that a server hands out, kept from the guest: a body filter for JSON answers such as those
 * of OAuth's token endpoint (RFC 6749 section 5.1).
 *
 * The string that belongs to one of the known keys ("access_token", "refresh_token" and the like),
 * at any depth, becomes a secret of the store with the hosts and places of the one that the request
 * carried, and the guest reads its placeholder, in the same length. All else goes through at once,
 * searched for the values of every secret, captured ones included.
 *
 * A token is held until its closing quotation mark. One that cannot be kept (longer than a secret
 * may be, too short to be safe, or the store is full) ends the body with -EACCES rather than reach
 * the guest.
 */
#ifndef PROXY_TOKEN_CAPTURE_H
#define PROXY_TOKEN_CAPTURE_H

#include "proxy/body_filter.h"
#include "proxy/secret_store.h"
#include "proxy/secret_verdict.h"

/* The filter borrows the store and adds to it. NULL without memory. */
struct body_filter *token_capture_new(struct secret_store *store, size_t parent);

/* Of a filter made here, after -EACCES: writes the refusal into *verdict. */
void token_capture_report(const struct body_filter *filter, struct secret_verdict *verdict);

#endif
