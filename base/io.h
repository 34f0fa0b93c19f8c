/*
 * Whole reads and writes, and descriptors over Unix sockets. Nothing here retries on EAGAIN:
 * these are for blocking descriptors; EINTR is retried.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads until `length` bytes or end of file. Returns the count, or a negative errno. */
ssize_t read_full(int fd, void *buffer, size_t length);
/* Reads all of `length` bytes at `offset`. Returns 0, -ENODATA when the file ends before, or
 * another negative errno. */
int pread_full(int fd, void *buffer, size_t length, uint64_t offset);
/* Writes all of `buffer`. Returns 0 or a negative errno. */
int write_full(int fd, const void *buffer, size_t length);
/* Reads a whole file of at most `limit` bytes into a fresh NUL-terminated block that the caller
 * frees. Returns 0, -EFBIG over the limit, or another negative errno. */
int read_file(int fd, size_t limit, char **ret_text, size_t *ret_length);

int set_nonblocking(int fd, bool enabled);
int set_close_on_exec(int fd, bool enabled);
/* The descriptor above 2 that `text` names in decimal and that is open, from now on close-on-exec;
 * or -EINVAL, -EBADF, with a message. */
int inherited_descriptor(const char *text);

/* Most descriptors one message can carry. */
#define FD_MESSAGE_MAX 16

/* Sends one message with `fd_count` descriptors (0..FD_MESSAGE_MAX). Returns bytes sent or a
 * negative errno. Never raises SIGPIPE. */
ssize_t send_with_fds(int socket, const void *buffer, size_t length, const int *fds,
		      size_t fd_count);
/* Receives one message. Descriptors arrive close-on-exec in `fds`; *ret_fd_count is set; the
 * caller owns them. More descriptors than `fd_capacity` are closed and give -EPROTO. Returns
 * bytes received, 0 at end of stream, or a negative errno. */
ssize_t receive_with_fds(int socket, void *buffer, size_t length, int *fds, size_t fd_capacity,
			 size_t *ret_fd_count);

#endif
