#include "base/io.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t read_full(int fd, void *buffer, size_t length)
{
	char *target = buffer;
	size_t done = 0;

	while (done < length) {
		ssize_t count = read(fd, target + done, length - done);

		if (count == 0)
			break;
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		done += (size_t)count;
	}
	return (ssize_t)done;
}

int pread_full(int fd, void *buffer, size_t length, uint64_t offset)
{
	char *target = buffer;

	while (length > 0) {
		ssize_t count = pread(fd, target, length, (off_t)offset);

		if (count == 0)
			return -ENODATA;
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		target += count;
		offset += (uint64_t)count;
		length -= (size_t)count;
	}
	return 0;
}

int write_full(int fd, const void *buffer, size_t length)
{
	const char *source = buffer;
	size_t done = 0;

	while (done < length) {
		ssize_t count = write(fd, source + done, length - done);

		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		done += (size_t)count;
	}
	return 0;
}

int read_file(int fd, size_t limit, char **ret_text, size_t *ret_length)
{
	cleanup_free char *text = NULL;
	size_t capacity = 0;
	size_t length = 0;

	for (;;) {
		ssize_t count;

		if (capacity - length < 2) {
			size_t wanted = capacity == 0 ? 4096 : capacity * 2;
			char *grown;

			if (length > limit)
				return -EFBIG;
			grown = realloc(text, wanted);
			if (!grown)
				return -ENOMEM;
			text = grown;
			capacity = wanted;
		}
		count = read_full(fd, text + length, capacity - length - 1);
		if (count < 0)
			return (int)count;
		if (count == 0)
			break;
		length += (size_t)count;
	}
	if (length > limit)
		return -EFBIG;
	text[length] = '\0';
	*ret_text = steal_pointer(&text);
	if (ret_length)
		*ret_length = length;
	return 0;
}

static int change_flags(int fd, int get, int set, int bit, bool enabled)
{
	int flags = fcntl(fd, get);

	if (flags < 0)
		return -errno;
	flags = enabled ? flags | bit : flags & ~bit;
	return fcntl(fd, set, flags) < 0 ? -errno : 0;
}

int set_nonblocking(int fd, bool enabled)
{
	return change_flags(fd, F_GETFL, F_SETFL, O_NONBLOCK, enabled);
}

int set_close_on_exec(int fd, bool enabled)
{
	return change_flags(fd, F_GETFD, F_SETFD, FD_CLOEXEC, enabled);
}

int inherited_descriptor(const char *text)
{
	char *end;
	long number;
	int error;

	errno = 0;
	number = strtol(text, &end, 10);
	if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || number <= STDERR_FILENO ||
	    number > INT_MAX)
		error = -EINVAL;
	else
		error = set_close_on_exec((int)number, true);
	if (error)
		log_error("not an open descriptor above 2: %s", text);
	return error ? error : (int)number;
}

ssize_t send_with_fds(int socket, const void *buffer, size_t length, const int *fds,
		      size_t fd_count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * FD_MESSAGE_MAX)];
	} control = { 0 };
	struct iovec vector = { .iov_base = (void *)(uintptr_t)buffer, .iov_len = length };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	ssize_t count;

	if (fd_count > FD_MESSAGE_MAX)
		return -EINVAL;
	if (fd_count > 0) {
		struct cmsghdr *header;

		message.msg_control = control.space;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
	}
	do {
		count = sendmsg(socket, &message, MSG_NOSIGNAL);
	} while (count < 0 && errno == EINTR);
	return count < 0 ? -errno : count;
}

/* Keeps at most `fd_capacity` descriptors of one control message; closes the rest. Returns false
 * when some had to be closed. */
static bool take_fds(struct cmsghdr *header, int *fds, size_t fd_capacity, size_t *fd_count)
{
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	bool all_kept = true;

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
		if (*fd_count < fd_capacity) {
			fds[(*fd_count)++] = fd;
		} else {
			close(fd);
			all_kept = false;
		}
	}
	return all_kept;
}

ssize_t receive_with_fds(int socket, void *buffer, size_t length, int *fds, size_t fd_capacity,
			 size_t *ret_fd_count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * FD_MESSAGE_MAX)];
	} control;
	struct iovec vector = { .iov_base = buffer, .iov_len = length };
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	size_t fd_count = 0;
	bool all_kept = true;
	ssize_t count;

	do {
		count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
	     header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
			all_kept = take_fds(header, fds, fd_capacity, &fd_count) && all_kept;
	}
	if (!all_kept || (message.msg_flags & MSG_CTRUNC)) {
		for (size_t i = 0; i < fd_count; i++)
			close(fds[i]);
		return -EPROTO;
	}
	*ret_fd_count = fd_count;
	return count;
}
