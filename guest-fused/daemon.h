/*
 * guest-fused's process: mounts what its command line names (options.h), tells on the ready
 * descriptor, and serves until all is unmounted, a signal says so or a server is gone. Has its
 * process for itself: signals, threads, standard error and the end.
 */
#ifndef GUEST_FUSED_DAEMON_H
#define GUEST_FUSED_DAEMON_H

/* What a process is called whose program is to do this. */
#define FUSED_NAME "guest-fused"

/* Returns an exit status, or exits. */
int fused_main(int argc, char **argv);

#endif
