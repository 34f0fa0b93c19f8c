/*
 * The control socket of a running session, RUNTIME/ID/control: how another `matchlock` command
 * reaches the process that runs it. One message of wire/proxy_control.h, an ALLOW_ one, and one
 * RESULT, each a datagram.
 *
 * A FORWARD is answered as well, and then the connection stays: the peer sends events of
 * wire/audit.h, a CONNECTION or a JAIL each, which go to the session's log, and ends when this side
 * does. Who does not read or write does not hold the session up.
 *
 * It answers only the user whose session it is: the directory is closed to others, and a peer of
 * another uid is hung up on. A peer that says nothing keeps a place of SESSION_CONTROL_PEERS.
 */
#ifndef CLI_SESSION_CONTROL_H
#define CLI_SESSION_CONTROL_H

#include "cli/paths.h"
#include "cli/session_record.h"
#include "cli/text.h"
#include "wire/proxy_control.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#define SESSION_CONTROL_PEERS 24
/* Of them those that stay. */
#define SESSION_CONTROL_FORWARDS_MAX 16
/* The listening socket, and its peers. */
#define SESSION_CONTROL_WATCHES (1 + SESSION_CONTROL_PEERS)

struct session_control {
	bool stays[SESSION_CONTROL_WATCHES];
	struct pollfd watches[SESSION_CONTROL_WATCHES]; /* for the caller's poll; fd -1: unused */
	/* Answers one question: an errno or 0, and a text that is freed afterwards. */
	int (*answer)(void *context, enum proxy_control_type type, const char *text,
		      char **ret_text);
	/* An event of a peer that stays, checked. */
	void (*tell)(void *context, const void *event, size_t length);
	void *context;
};

/* Before anything else; the socket is made by session_control_listen(). */
void session_control_init(struct session_control *control);
int session_control_listen(struct session_control *control, const char *runtime,
			   struct problem *problem);
/* After a poll in which any of the watches had revents. */
void session_control_turn(struct session_control *control);
/* Lets peers that stay say what they have to, for a moment. */
void session_control_finish(struct session_control *control);
void session_control_release(struct session_control *control);

/* The other side: asks the running session. The answer's text is the caller's to free. Returns its
 * errno or 0; -1 with *problem set. */
int session_control_ask(const struct paths *paths, const struct session_record *record,
			enum proxy_control_type type, const char *text, char **ret_text,
			struct problem *problem);
/* The same for FORWARD: *ret_fd is the connection that stays. */
int session_control_attach(const struct paths *paths, const struct session_record *record,
			   const char *text, int *ret_fd, char **ret_text, struct problem *problem);

#endif
