/*
 * The processes of a running session and the guest behind them.
 *
 * Theory of operation. The VMM is the slowest to come up, so it starts first, as soon as the
 * sockets listen; stores, configuration, the audit process and the file server follow while the
 * guest's kernel boots. The guest's file daemon connects only after the agent got its
 * configuration, which is sent when all of them run.
 *
 *     CLI --- audit socket ----------------------> matchlock-audit <-- fsserver, vmm (theirs)
 *      |  \-- control: end of file = finish -----> matchlock-fsserver <- RUNTIME/v_1026
 *      |  \-- control: "started", "end REASON" <-- matchlock-vmm (-> the engine)
 *      |  \-- control: READY, ALLOW_... ---------> matchlock-proxy <- RUNTIME/v_1027, v_1028
 *      \----- RUNTIME/v_1024, v_1025 <------------ guest-init through the VMM
 *
 * KVM may fail at what its probe did not try. If that happens with `--engine auto` before the guest
 * is ready, the same session starts once more in software. A guest that went on from a snapshot and
 * ends before it is ready, or is not heard of within 20 s, is started once more, too, and boots.
 *
 * The broker, matchlock-proxy, is there only when a network was asked for.
 *
 * Any of them ending while the command runs ends the session: without the VMM there is no guest,
 * without the file server no files, without the broker no network that was promised, and without
 * the log nothing may happen.
 */
#ifndef CLI_SESSION_VM_H
#define CLI_SESSION_VM_H

#include "cli/agent_client.h"
#include "cli/guest_kernel.h"
#include "cli/launch.h"
#include "cli/memory_window.h"
#include "cli/options.h"
#include "cli/paths.h"
#include "cli/plan.h"
#include "cli/proxy_daemon.h"
#include "cli/session_files.h"
#include "cli/session_record.h"
#include "cli/start_snapshot.h"
#include "wire/audit.h"

#include <stdbool.h>

struct session_vm {
	struct session_files files;
	struct child vmm;
	struct child fsserver;
	struct child audit;
	struct proxy_daemon proxy; /* with a network */
	int secrets_fd;		   /* until the broker has them */
	struct child forwarder;	   /* with -p; cli/port_forward.h */
	int forwarder_end;	   /* its closing ends that */
	int vmm_control;	   /* SOCK_SEQPACKET */
	int fsserver_control;	   /* stream */
	int audit_socket;	   /* our own sending end */
	int watch_fd;		   /* epoll: readable when a daemon ended or a signal came */
	int signal_fd;		   /* SIGINT, SIGTERM, SIGHUP, SIGQUIT while the guest boots */
	int signal_number;	   /* the one that came, or 0 */
	struct agent_client *client;
	struct memory_window memory; /* until the guest is ready, as what the VMM and ... */
	int vmm_audit;		     /* ... the client were given: to start another engine ... */
	int spare_control_listen;    /* ... when KVM turns out not to run this guest */
	int spare_stream_listen;
	struct start_snapshot snapshot;
	bool restored;	   /* the VMM goes on from it */
	bool stored;	   /* the VMM has written another */
	char engine[16];   /* which one the VMM took; "" while unknown */
	char vmm_end[512]; /* why the VMM says that it ended; "" while it runs */
	struct audit_event event;
};

/* Starts everything and waits until the guest is configured. `record` gains the processes and is
 * saved before the guest can change anything. On failure the caller still calls
 * session_vm_stop() and session_vm_release(). */
int session_vm_start(struct session_vm *vm, const struct plan *plan,
		     const struct run_options *options, const struct paths *paths,
		     struct session_record *record, struct problem *problem);

/* Powers the guest off, lets the file server finish its undo log, and leaves the audit process
 * running for what remains to be told. `orderly` false: does not wait for the guest. Returns -1
 * when the file server did not end well. */
int session_vm_stop(struct session_vm *vm, bool orderly, struct problem *problem);

/* Closes the log and waits for it. Returns -1 when the log may be incomplete. */
int session_vm_end_audit(struct session_vm *vm, struct problem *problem);

void session_vm_release(struct session_vm *vm);

/* The engine that runs the guest; "" before it does. Belongs to `vm`. */
const char *session_vm_engine(struct session_vm *vm);

/* Which daemon ended before its time, and how; NULL when all run. The caller frees. */
char *session_vm_casualty(struct session_vm *vm);

/* Sends the event that was built in vm->event. */
void session_vm_tell(struct session_vm *vm);
/* The same for an event that another process made. */
void session_vm_pass_on(struct session_vm *vm, const void *event, size_t length);

#endif
