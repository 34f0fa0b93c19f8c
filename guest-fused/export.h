/*
 * One export: its mount, its cache, and the threads that serve it.
 *
 * Each worker reads requests from its own clone of the FUSE device, answers from the cache or
 * asks the server over a stream that is its own for this request, and writes the reply. The stream
 * that was given back last is taken first, and one is opened when all are in use: so there are as
 * many as there were requests at a time. One more thread takes notifications from the server and
 * gives back to it what the kernel forgot.
 */
#ifndef GUEST_FUSED_EXPORT_H
#define GUEST_FUSED_EXPORT_H

#include "guest-fused/cache.h"
#include "guest-fused/options.h"
#include "guest-fused/stream.h"

#include <pthread.h>
#include <stdatomic.h>

#include <linux/fuse.h>

#define FUSED_OUT_SIZE 65536u /* a composed reply: a directory's page, a small file */
#define FUSED_OPCODES 64u

struct fused_export;

struct fused_worker {
	struct fused_export *export;
	pthread_t thread;
	int fuse_fd;		     /* owned */
	struct fused_stream *stream; /* of the request in work; NULL until it asks the server */
	uint8_t *in;		     /* FUSED_IN_SIZE bytes; owned */
	uint8_t *out;		     /* FUSED_OUT_SIZE and room for a header; owned */
	/* Odd while a reply is being composed from what is known here. */
	_Atomic uint32_t cycle;
	uint32_t opcode;			  /* FUSE's, of the request in work */
	_Atomic uint64_t requests[FUSED_OPCODES]; /* from the kernel, by opcode */
	_Atomic uint64_t asked[FUSED_OPCODES];	  /* round trips that they took */
	struct fused_frame frame;
	struct fused_reply reply;
};

struct fused_export {
	uint32_t id;
	bool read_only;
	const char *mountpoint;
	struct fused_endpoint endpoint;
	struct fs_hello_reply hello;
	uint32_t minor;	   /* of the kernel's FUSE protocol */
	bool pushed;	   /* the server notifies: validity is unlimited */
	bool unattributed; /* no extended attributes here: asking is answered once for all */
	struct fused_cache cache;

	struct fused_worker *workers;
	uint32_t worker_count;

	pthread_mutex_t idle_lock;
	struct fused_stream *streams; /* as many as workers */
	struct fused_stream **idle;   /* those of no worker; the last is taken first */
	uint32_t idle_count;

	pthread_t keeper;
	int keeper_fd; /* eventfd that wakes the keeper */
	_Atomic bool keeper_awake;
	_Atomic uint32_t waiting; /* workers that wait for the server to have room */
	struct fused_stream notifications;
	struct fused_stream posts;
	struct fused_frame post_frame;

	_Atomic int lost;   /* negative errno: the server has gone, or sent what it must not */
	_Atomic bool ended; /* unmounted */
};

#define FUSED_IN_SIZE (FS_DATA_MAX + 65536u)

/* Connects, mounts, answers the kernel's INIT, starts the threads. The export is usable when this
 * returns 0; *ret_stage says what failed otherwise. */
int fused_export_start(struct fused_export *export, const struct fused_export_option *option,
		       const struct fused_endpoint *endpoint, uint32_t workers,
		       const char **ret_stage);

/* The server is gone: every request fails from now on. Wakes the main thread (SIGUSR2). */
void fused_export_lose(struct fused_export *export, int error);
void fused_export_end(struct fused_export *export);
/* Returns when every reply that is being composed at this moment has been written. */
void fused_export_wait_for_replies(struct fused_export *export);
/* There is something to give back to the server: the keeper will, some time from now. */
void fused_export_wake_keeper(struct fused_export *export);
/* There is something to tell the kernel: at once. */
void fused_export_hurry_keeper(struct fused_export *export);
/* Adds up counters of all threads and writes one line of text. */
void fused_export_statistics(struct fused_export *export, char *text, size_t capacity);

/* The keeper's thread. */
void *fused_keeper_run(void *export);

#endif
