/*
 * What the parts of matchlock-vmm's main program share: the one struct of this daemon, and the two
 * forms in which an engine runs a guest.
 *
 *   child_form.c       QEMU: a confined child process, which our vsock device serves by vhost-user
 *   in_process_form.c  KVM: vCPU threads of this process, with virtio-mmio devices
 *
 * main.c calls a form in this order: prepare, then the lock, begin, serve after each round of
 * events, end, release. The last two also after a failure of any other.
 */
#ifndef VMM_DAEMON_H
#define VMM_DAEMON_H

#include "base/event_loop.h"
#include "jail/jail.h"
#include "vmm/audit_channel.h"
#include "vmm/balloon_device.h"
#include "vmm/block_device.h"
#include "vmm/engine.h"
#include "vmm/entropy_device.h"
#include "vmm/filters.h"
#include "vmm/kvm_engine.h"
#include "vmm/line_relay.h"
#include "vmm/options.h"
#include "vmm/vhost_user.h"
#include "vmm/virtio_vsock.h"
#include "vmm/vsock_device.h"
#include "vmm/vsock_muxer.h"

#include <stdbool.h>
#include <stddef.h>

#define DAEMON_COMPONENT "vsock-device"
#define DAEMON_TEXT_MAX 512

/* Why the guest is no more; docs/protocol-vsock.md has their names. */
enum ending {
	RUNNING,
	POWERED_OFF,
	STOPPED,
	ENGINE_FAILED,
	GUEST_PANIC,
	TRIPLE_FAULT,
	KVM_INTERNAL_ERROR,
	VIOLATION,
	ASLEEP, /* to be woken from what was stored of it */
};

struct vmm;

struct vmm_form {
	/* The engine's machine, up to where this process can be locked. */
	int (*prepare)(struct vmm *vmm);
	int (*begin)(struct vmm *vmm);
	/* 1 when a device has more to do at once, else 0. */
	int (*serve)(struct vmm *vmm);
	/* A message on the control socket beyond "stop"; false if it is not known. May be NULL. */
	bool (*control)(struct vmm *vmm, const char *text);
	/* Makes sure that no guest runs any more, and sets the ending if it is not known yet. */
	void (*end)(struct vmm *vmm);
	/* Not called when a thread could not be ended. */
	void (*release)(struct vmm *vmm);
	enum vmm_filter filter;		/* the process's */
	enum vmm_filter storing_filter; /* the same where the guest is to be stored */
	uint64_t scope_allowed;		/* JAIL_SCOPE_... */
};

extern const struct vmm_form child_form;
extern const struct vmm_form in_process_form;

struct vmm {
	struct vmm_options options;
	const struct engine *engine;
	const struct vmm_form *form; /* NULL until an engine is selected */
	struct event_loop loop;
	struct event_source control;
	struct line_relay console;
	struct audit_channel audit;
	struct vsock_muxer *muxer;
	size_t connections_max;
	enum ending ending;
	char details[DAEMON_TEXT_MAX];
	bool panicked; /* by its console; the text is in `details` */
	bool told_started;
	bool stuck; /* a thread cannot be ended */

	/* child_form.c */
	struct engine_process process;
	struct event_source process_end;
	struct line_relay diagnostics;
	struct vhost_user_backend *backend;
	struct vsock_device *device;
	char last_diagnostic[LINE_RELAY_LINE_MAX + 1];
	unsigned diagnostic_lines;
	bool process_ended;

	/* in_process_form.c */
	struct kvm_machine *machine;
	struct virtio_vsock *vsock;
	struct entropy_device *entropy;
	struct balloon_device *balloon;
	struct block_device *disks[VMM_DISKS_MAX];
};

/* A descriptor of the command line that has served its purpose; -1 from then on. */
void daemon_close(int *fd);
/* The first reason counts; what follows from it is no reason of its own. */
void daemon_end(struct vmm *vmm, enum ending ending, const char *details);
void daemon_tell_control(struct vmm *vmm, const char *text);
/* The guest's driver is at work. */
void daemon_tell_started(struct vmm *vmm);
/* `device` is a device's name, such as "vsock". */
void daemon_report_violation(struct vmm *vmm, const char *device, const char *what);
/* Follows the guest's console, whose descriptor becomes the relay's. */
int daemon_follow_console(struct vmm *vmm, int fd);
/* What a vsock device needs of this daemon; the transport is still to be filled in. */
struct vsock_device_setup daemon_vsock_setup(struct vmm *vmm);

#endif
