#include "guest-init/control.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define INPUT_INITIAL 16384

int control_init(struct control *control, int fd)
{
	cleanup_fd int owned = fd;
	int result = set_nonblocking(owned, true);

	if (result < 0)
		return result;
	control->input = malloc(INPUT_INITIAL);
	if (!control->input)
		return -ENOMEM;
	control->input_capacity = INPUT_INITIAL;
	control->input_length = 0;
	control->frame_length = 0;
	control->output_length = 0;
	control->fd = steal_fd(&owned);
	return 0;
}

void control_release(struct control *control)
{
	free(control->input);
	control->input = NULL;
	if (control->fd >= 0)
		close(control->fd);
	control->fd = -1;
}

int control_flush(struct control *control)
{
	size_t sent = 0;
	int result = 0;

	while (sent < control->output_length) {
		ssize_t count = send(control->fd, control->output + sent,
				     control->output_length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (count < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				result = -errno;
			break;
		}
		sent += (size_t)count;
	}
	memmove(control->output, control->output + sent, control->output_length - sent);
	control->output_length -= sent;
	return result;
}

bool control_wants_output(const struct control *control)
{
	return control->output_length > 0;
}

int control_send(struct control *control, const void *frame, size_t length)
{
	if (length == 0)
		return -EMSGSIZE;
	if (length > CONTROL_OUTPUT_MAX - control->output_length)
		return -ENOBUFS;
	memcpy(control->output + control->output_length, frame, length);
	control->output_length += length;
	return control_flush(control);
}

/* Drops the frame that was handed out and returns the length of the one at the front, as far as
 * its header tells; AGENT_HEADER_SIZE when the header is not whole. */
static int front_length(struct control *control, struct agent_header *header, size_t *ret_length)
{
	int result;

	if (control->frame_length > 0) {
		control->input_length -= control->frame_length;
		memmove(control->input, control->input + control->frame_length,
			control->input_length);
		control->frame_length = 0;
	}
	if (control->input_length < AGENT_HEADER_SIZE) {
		*ret_length = AGENT_HEADER_SIZE;
		return 0;
	}
	result = agent_decode_header(control->input, AGENT_TO_GUEST_MAX, header);
	if (result < 0)
		return result;
	*ret_length = AGENT_HEADER_SIZE + (size_t)header->length;
	return 0;
}

int control_read(struct control *control)
{
	struct agent_header header;
	size_t wanted;
	ssize_t count;
	int result = front_length(control, &header, &wanted);

	if (result < 0)
		return result;
	if (wanted > control->input_capacity) {
		uint8_t *grown = realloc(control->input, wanted);

		if (!grown)
			return -ENOMEM;
		control->input = grown;
		control->input_capacity = wanted;
	}
	if (control->input_length == control->input_capacity)
		return 0;
	do {
		count = recv(control->fd, control->input + control->input_length,
			     control->input_capacity - control->input_length, MSG_DONTWAIT);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
	if (count == 0)
		return -ECONNRESET;
	control->input_length += (size_t)count;
	return 0;
}

int control_next(struct control *control, struct agent_header *ret_header,
		 const uint8_t **ret_payload)
{
	struct agent_header header;
	size_t length;
	int result = front_length(control, &header, &length);

	if (result < 0)
		return result;
	if (control->input_length < AGENT_HEADER_SIZE || control->input_length < length)
		return 0;
	control->frame_length = length;
	*ret_header = header;
	*ret_payload = control->input + AGENT_HEADER_SIZE;
	return 1;
}

int control_receive(struct control *control, struct agent_header *ret_header,
		    const uint8_t **ret_payload)
{
	for (;;) {
		struct pollfd poll_fd = { .fd = control->fd, .events = POLLIN };
		int result = control_next(control, ret_header, ret_payload);

		if (result != 0)
			return result < 0 ? result : 0;
		if (control_wants_output(control))
			poll_fd.events = POLLIN | POLLOUT;
		if (poll(&poll_fd, 1, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (poll_fd.revents & POLLOUT) {
			result = control_flush(control);
			if (result < 0)
				return result;
		}
		if (poll_fd.revents & (POLLIN | POLLHUP | POLLERR)) {
			result = control_read(control);
			if (result < 0)
				return result;
		}
	}
}
