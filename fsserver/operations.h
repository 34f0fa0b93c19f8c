/*
 * The file protocol's operations, carried out on one export.
 *
 * A job is one frame being executed. job_run() runs its operations in order and builds the reply
 * as it goes. An operation that would wait for the disk (bulk reads, large writes, fsync) returns
 * JOB_WAITS with job->pending filled in; the session has it done by its ring, then calls
 * job_continue() with the result. No other state is kept between operations than the job's.
 *
 * Theory of operation, for every change: find the object and where it really is (the kernel's
 * name of the descriptor, not what the guest said), judge that (guard.h), save what the change
 * replaces (undo.h), make the change on the same descriptors with one validated component, tell
 * the undo log and the audit log. Nothing else touches the tree in between but the host itself.
 */
#ifndef FSSERVER_OPERATIONS_H
#define FSSERVER_OPERATIONS_H

#include "fsserver/export.h"
#include "wire/fs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows to FS_FRAME_MAX and no further. */
struct buffer {
	struct buffer *next;
	size_t capacity;
	size_t length;
	size_t sent;
	uint8_t *data;
};
struct buffer *buffer_new(size_t capacity);
int buffer_grow(struct buffer *buffer, size_t capacity);
void buffer_free(struct buffer *buffer);

#define BUFFER_SMALL 16384u

enum job_state {
	JOB_DONE = 0,	  /* the reply is complete */
	JOB_WAITS = 1,	  /* pending says for what */
	JOB_VIOLATED = 2, /* not the protocol: end the stream */
};

enum pending_kind {
	PENDING_READ,
	PENDING_WRITE,
	PENDING_FSYNC,
};

struct job {
	struct job *next;
	void *stream; /* the session's; not looked at here */
	struct export *export;
	uint64_t tag;
	bool no_reply;
	struct byte_reader body;
	unsigned operations_left;
	uint32_t data_max;  /* of the stream */
	uint32_t data_left; /* of the frame */
	struct buffer *reply;
	unsigned replies;
	/* Request bytes, when the job outlives the stream's buffer; owned. */
	struct buffer *request;

	struct node *previous_node; /* referenced */
	bool previous_missing;	    /* the latest LOOKUP found nothing */
	uint64_t previous_handle;

	struct {
		enum pending_kind kind;
		enum fs_opcode opcode;
		int fd;
		void *data;
		size_t length;
		uint64_t offset;
		int flags;	       /* RWF_..., or IORING_FSYNC_DATASYNC */
		int close_fd;	       /* -1, or a descriptor of this operation alone */
		struct handle *handle; /* referenced, or NULL */
		struct node *node;     /* referenced */
		size_t reply_offset;   /* of the fs_op_reply */
		struct node_stamp before;
		bool before_known;
	} pending;
};

/* Begins a job on a checked frame header; `body` is what follows it and must stay until the job
 * is done or job_own_request() was called. The reply buffer is made. -ENOMEM. */
int job_begin(struct job *job, struct export *export, const struct fs_frame *frame,
	      const uint8_t *body, uint32_t data_max);
enum job_state job_run(struct job *job);
/* `result`: bytes, 0, or a negative errno. */
enum job_state job_continue(struct job *job, int64_t result);
/* Does what is pending here and now; for callers without a ring. */
int64_t job_do_pending(struct job *job);
/* Gives back all references; the reply and request buffers too unless taken. */
void job_end(struct job *job);

/* Tells the undo log how the files stand that are being written, so that after a crash a roll-back
 * takes only the latest changes for possible edits by the host. Cheap when there are none. */
void operations_stamp(struct export *export);

/* Ends every handle (audit and undo are told), and all lookups: the guest is gone. */
void operations_guest_gone(struct export *export);

/* The attributes as the protocol has them. */
void operations_attributes(const struct export *export, const struct statx *stat,
			   struct fs_attr *ret_attr);

#endif
