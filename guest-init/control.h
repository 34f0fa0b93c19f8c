/*
 * The guest's end of the control connection: frames in and out (wire/agent.h).
 *
 * The socket may be blocking or not. control_receive() waits for one whole frame;
 * control_read() and control_next() are for a poll loop. Sending never waits: what the socket
 * does not take stays in a bounded buffer, flushed by control_flush(). A host that reads nothing
 * until that buffer is full loses the connection (-ENOBUFS).
 */
#ifndef GUEST_INIT_CONTROL_H
#define GUEST_INIT_CONTROL_H

#include "wire/agent.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTROL_OUTPUT_MAX 65536

struct control {
	int fd; /* owned */
	uint8_t *input;
	size_t input_capacity;
	size_t input_length;
	size_t frame_length; /* of the frame that control_next() handed out; 0: none */
	size_t output_length;
	uint8_t output[CONTROL_OUTPUT_MAX];
};

/* Takes over `fd` and makes it non-blocking. */
int control_init(struct control *control, int fd);
void control_release(struct control *control);

/* Queues one encoded frame and tries to send. 0 or a negative errno. */
int control_send(struct control *control, const void *frame, size_t length);
int control_flush(struct control *control);
bool control_wants_output(const struct control *control);

/* Reads what is there. 0, -ECONNRESET at the end of the stream, or another negative errno. */
int control_read(struct control *control);
/* The next whole frame: 1 with the results set, 0 when there is none yet, -EBADMSG. The payload
 * is valid until the next call. */
int control_next(struct control *control, struct agent_header *ret_header,
		 const uint8_t **ret_payload);
/* Waits for one frame. 0 or a negative errno. */
int control_receive(struct control *control, struct agent_header *ret_header,
		    const uint8_t **ret_payload);

#endif
