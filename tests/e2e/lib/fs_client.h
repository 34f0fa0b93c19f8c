/*
 * A client of the file protocol that keeps no rule but those it is told to keep, and starts the
 * real file server to play against. For tests: failures of the set-up end the program.
 */
#ifndef TESTS_E2E_LIB_FS_CLIENT_H
#define TESTS_E2E_LIB_FS_CLIENT_H

#include "wire/channel.h"
#include "wire/fs.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- the server ----------------------------------------------------------------------------- */

/* An audit event as it came. */
struct fs_event {
	struct fs_event *next;
	size_t length;
	uint8_t data[];
};

struct fs_server {
	pid_t pid;
	int control; /* closing it ends the session */
	int audit;   /* receiving end of the audit events, read by a thread: the server waits for it
		      */
	pthread_t auditor;
	pthread_mutex_t lock;
	struct fs_event *events;
	char socket[108];
	char config[256];
	uint8_t *window; /* that it shares with its guest: FS_WINDOW_CHANNELS channels */
};

#define FS_WINDOW_CHANNELS 4u

/* Starts `program serve` with the configuration; its socket and configuration go into `folder`,
 * under `name`. */
void fs_server_start(struct fs_server *server, const char *program, const char *folder,
		     const char *name, const char *configuration);
/* Lets the servers that are started from here on have so many descriptors and raise that by no
 * privilege; 0: as many as we have. */
void fs_server_limit_files(unsigned files);
/* Ends it by the control socket, or with SIGKILL; returns the wait status. */
int fs_server_stop(struct fs_server *server);
void fs_server_kill(struct fs_server *server);
bool fs_server_alive(const struct fs_server *server);
/* Counts the audit events of a kind so far whose fields contain `text`. */
unsigned fs_server_events(struct fs_server *server, unsigned kind, const char *text);
/* Whether there are more than `count` of them; waits for ten seconds at most. */
bool fs_server_tells(struct fs_server *server, unsigned kind, const char *text, unsigned count);

/* ---- a stream ------------------------------------------------------------------------------- */

struct fs_reply {
	uint16_t opcode;
	uint16_t error;
	const uint8_t *body; /* in the client's buffer, until the next call */
	uint32_t length;
};

struct fs_client {
	int fd;
	uint64_t tag;
	uint8_t *request;
	size_t request_length;
	unsigned operations;
	uint8_t *answer;
	struct fs_reply replies[FS_OPS_MAX];
	unsigned reply_count;
	bool ended; /* the server closed the stream or said goodbye */
	bool over_channel;
	struct channel channel;
};

/* Connects without a greeting. */
void fs_connect(struct fs_client *client, const char *socket);
/* Connects and says HELLO; the errno of its answer. */
int fs_join(struct fs_client *client, const char *socket, uint32_t export_id, uint32_t kind);
/* The same, and takes up a channel of the server's window. */
int fs_join_channel(struct fs_client *client, const struct fs_server *server, uint32_t export_id,
		    uint32_t number);
bool fs_ring(struct fs_client *client);
void fs_leave(struct fs_client *client);

/* Appends an operation: its fixed part, then up to two variable parts. */
void fs_add(struct fs_client *client, enum fs_opcode opcode, const void *fixed, size_t fixed_length,
	    const void *first, size_t first_length, const void *second, size_t second_length);
/* Sends the frame; with `wait` takes the answer. Returns the last reply's errno, 0, or -1 when the
 * stream ended. */
int fs_send(struct fs_client *client);
int fs_receive(struct fs_client *client);
int fs_call(struct fs_client *client);
/* Raw bytes, whatever they are. */
bool fs_send_raw(struct fs_client *client, const void *data, size_t length);
/* The frame header as it would be sent. */
void fs_begin(struct fs_client *client);

/* ---- whole operations; each returns the errno ------------------------------------------------ */

int fs_lookup(struct fs_client *client, uint64_t parent, const char *name, uint64_t *ret_node);
int fs_forget(struct fs_client *client, uint64_t node, uint64_t lookups);
int fs_getattr(struct fs_client *client, uint64_t node, struct fs_attr *ret_attr);
int fs_setattr(struct fs_client *client, const struct fs_setattr *set);
int fs_make(struct fs_client *client, enum fs_opcode opcode, uint64_t parent, const char *name,
	    uint32_t mode, const char *target, uint64_t *ret_node);
int fs_create(struct fs_client *client, uint64_t parent, const char *name, uint32_t mode,
	      uint32_t flags, uint64_t *ret_node, uint64_t *ret_handle);
int fs_remove(struct fs_client *client, enum fs_opcode opcode, uint64_t parent, const char *name);
int fs_rename(struct fs_client *client, uint64_t parent, const char *name, uint64_t new_parent,
	      const char *new_name, uint32_t flags);
int fs_link(struct fs_client *client, uint64_t node, uint64_t parent, const char *name);
int fs_open(struct fs_client *client, uint64_t node, uint32_t flags, uint64_t *ret_handle);
int fs_release(struct fs_client *client, uint64_t node, uint64_t handle);
int fs_write(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset,
	     const void *data, size_t length);
int fs_read(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset,
	    uint32_t size);
int fs_setxattr(struct fs_client *client, uint64_t node, const char *name, const void *value,
		size_t length);

#endif
