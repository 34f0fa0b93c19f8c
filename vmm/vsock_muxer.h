/*
 * The host side of vsock streams: Unix stream sockets in one directory, all starting with one name.
 *
 *     <name>_<port>   somebody listens there: the guest's connections to that port go to it
 *     <name>          the muxer listens: "CONNECT <port>\n" asks for a stream to a guest port and
 * is answered "OK <host port>\n" once the guest has accepted; if it does not accept, the socket is
 * closed. Bytes behind the newline belong to the stream.
 *
 * (Firecracker's convention.) The muxer connects by names relative to the process's working
 * directory, which the caller sets to the sockets' directory; this survives a jail that takes all
 * other paths away and is not bound by the 108 bytes of sun_path.
 *
 * Limits: a name of VSOCK_MUXER_NAME_MAX bytes; a CONNECT line of 32 bytes.
 */
#ifndef VMM_VSOCK_MUXER_H
#define VMM_VSOCK_MUXER_H

#include "base/event_loop.h"
#include "vmm/vsock_device.h"

#include "jail/jail.h"

#define VSOCK_MUXER_NAME_MAX 90

extern const struct vsock_stream_operations vsock_muxer_operations;
/* The system calls it makes. */
extern const struct jail_syscall_set vsock_muxer_calls;

struct vsock_muxer; /* the `provider` of its operations */

/* Returns a socket (0600, close-on-exec, non-blocking) listening on `name` in the working
 * directory, or a negative errno; -EADDRINUSE when the name exists. */
int vsock_muxer_listen(const char *name);

/* `loop` is borrowed, `listener` (from vsock_muxer_listen()) becomes the muxer's. Returns 0,
 * -ENAMETOOLONG, or another negative errno. */
int vsock_muxer_new(struct event_loop *loop, const char *name, int listener,
		    struct vsock_muxer **ret_muxer);
/* Starts listening for CONNECT; the device's streams must be this muxer's. */
int vsock_muxer_start(struct vsock_muxer *muxer, struct vsock_device *device);
/* Its listening socket, for who closes all others. */
int vsock_muxer_listener(const struct vsock_muxer *muxer);
/* After the device is gone. */
void vsock_muxer_free(struct vsock_muxer *muxer);

#endif
