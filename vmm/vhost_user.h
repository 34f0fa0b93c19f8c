/*
 * The vhost-user back end: reaches our vsock device from a virtual machine monitor that runs the
 * guest in another process (QEMU's vhost-user-vsock-device), over one Unix stream socket.
 *
 * Source: QEMU docs/interop/vhost-user.rst, the subset which docs/protocol-vsock.md lists. The
 * front end is not trusted either: it runs guest code by emulation. Each message is read whole into
 * a bounded block, with its descriptors, then judged; anything out of order, of the wrong size or
 * with the wrong number of descriptors ends the session. The memory table and the registers of a
 * ring are frozen while it runs.
 *
 * The back end owns the socket, the guest memory and the descriptors it was passed. The device
 * and the loop are borrowed.
 */
#ifndef VMM_VHOST_USER_H
#define VMM_VHOST_USER_H

#include "jail/jail.h"

#include "base/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/vsock_device.h"

#define VHOST_USER_PAYLOAD_MAX 512
#define VHOST_USER_FDS_MAX GUEST_MEMORY_REGIONS_MAX

/* The system calls it makes. */
extern const struct jail_syscall_set vhost_user_calls;

struct vhost_user_backend;

struct vhost_user_observer {
	/* A queue was started: the guest's driver is at work. */
	void (*started)(void *observer);
	/* The session is over: error 0 when the front end closed it, else a negative errno and a
	 * static text about what it did. The back end may not be freed in here. */
	void (*ended)(void *observer, int error, const char *what);
	void *observer;
};

/* The device must have been set up with vhost_user_interrupt and this back end as its transport:
 * hence two steps. Returns 0 or a negative errno. */
int vhost_user_new(struct event_loop *loop, const struct vhost_user_observer *observer,
		   struct vhost_user_backend **ret_backend);
/* `socket` becomes the back end's, whatever is returned. */
int vhost_user_start(struct vhost_user_backend *backend, struct vsock_device *device, int socket);
/* Stops the queues first; the device must still exist. */
void vhost_user_free(struct vhost_user_backend *backend);

void vhost_user_interrupt(void *backend, enum vsock_queue queue);

#endif
