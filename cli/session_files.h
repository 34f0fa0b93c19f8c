/*
 * What a session has on the host while it runs and afterwards: its directory, its sockets, its
 * undo stores, and the file server's configuration.
 */
#ifndef CLI_SESSION_FILES_H
#define CLI_SESSION_FILES_H

#include "cli/paths.h"
#include "cli/plan.h"
#include "cli/session_record.h"
#include "cli/text.h"

struct session_files {
	char *directory;    /* sessions/ID */
	char *runtime;	    /* runtime directory of this session */
	char *socket_base;  /* RUNTIME/v */
	char *config;	    /* exports.json */
	char *policy;	    /* the policy as applied; NULL without one */
	int lock_fd;	    /* the session's directory, locked */
	int control_listen; /* AGENT_CONTROL_PORT */
	int stream_listen;  /* AGENT_STREAM_PORT */
	int files_listen;   /* AGENT_FILES_PORT */
	int egress_listen;  /* EGRESS_STREAM_PORT, with a network; else -1 */
	int dns_listen;	    /* EGRESS_DNS_PORT, the same */
};

#define SESSION_FILES_INIT                                                                         \
	{                                                                                          \
		.lock_fd = -1, .control_listen = -1, .stream_listen = -1, .files_listen = -1,      \
		.egress_listen = -1, .dns_listen = -1                                              \
	}

/* First what the VMM needs: the directories, the listening sockets (mode 0600). `files` was
 * initialised with SESSION_FILES_INIT. */
int session_files_begin(struct session_files *files, const struct paths *paths,
			const struct plan *plan, struct problem *problem);
/* Then, while the VM boots, the rest: stores, policy copy, exports.json. */
int session_files_complete(struct session_files *files, const struct plan *plan,
			   const struct run_options *options, const struct paths *paths,
			   struct problem *problem);
/* Removes the sockets, closes what is open. The session's directory stays. */
void session_files_release(struct session_files *files);

/* Removes everything a session left: stores, runtime directory, its directory. */
int session_files_remove(const struct paths *paths, const struct session_record *record,
			 struct problem *problem);

#endif
