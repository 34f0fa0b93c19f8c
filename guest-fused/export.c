#include "guest-fused/export.h"

#include "base/checked.h"
#include "guest-fused/mount.h"
#include "guest-fused/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_BACKGROUND 128u
#define READ_AHEAD_KIB 1024u
#define FUSE_MINOR_LEAST 31u /* kernel 5.4 */

/* ---- INIT --------------------------------------------------------------------------------- */

static const uint32_t wanted_flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
				     FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
				     FUSE_CACHE_SYMLINKS | FUSE_NO_OPEN_SUPPORT |
				     FUSE_NO_OPENDIR_SUPPORT | FUSE_HANDLE_KILLPRIV_V2;

/* What the kernel is to read or write by one request: whole pages, in a power of two. */
static uint32_t transfer_max(const struct fused_export *export)
{
	uint32_t most = FS_DATA_MAX;

	while (most > export->hello.data_max)
		most /= 2;
	return most;
}

/*
 * Answers the kernel's first request.
 *
 * Not taken: WRITEBACK_CACHE (policy's refusals must reach the writer), ATOMIC_O_TRUNC (there is
 * no OPEN to carry it), POSIX and BSD locks (the guest's kernel keeps them), POSIX_ACL, splicing
 * (the data comes from and goes to a socket). Where the server notifies, the kernel's pages stay
 * until told otherwise; else each change of a file's time drops them.
 */
static int answer_init(struct fused_export *export, struct fused_worker *worker)
{
	const struct fuse_in_header *header = (const void *)worker->in;
	const struct fuse_init_in *in = (const void *)(worker->in + sizeof(*header));
	struct fused_request request = { .header = header, .body = in };
	struct fuse_init_out out = { 0 };
	uint32_t flags = wanted_flags;
	ssize_t length;

	do {
		length = read(worker->fuse_fd, worker->in, FUSED_IN_SIZE);
	} while (length < 0 && errno == EINTR);
	if (length < 0)
		return -errno;
	/* Kernels before 7.36 send a shorter one. */
	if ((size_t)length < sizeof(*header) + 16 || header->opcode != FUSE_INIT)
		return -EPROTO;
	if (in->major != FUSE_KERNEL_VERSION || in->minor < FUSE_MINOR_LEAST) {
		fused_answer_error(worker, &request, -EPROTO);
		return -EPROTONOSUPPORT;
	}
	export->minor = MIN_OF(in->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION);
	flags |= export->pushed ? FUSE_EXPLICIT_INVAL_DATA : FUSE_AUTO_INVAL_DATA;
	out.major = FUSE_KERNEL_VERSION;
	out.minor = FUSE_KERNEL_MINOR_VERSION;
	out.max_readahead = READ_AHEAD_KIB * 1024;
	out.flags = flags & in->flags;
	out.max_background = MAX_BACKGROUND;
	out.congestion_threshold = MAX_BACKGROUND * 3 / 4;
	out.max_write = transfer_max(export);
	out.time_gran = 1;
	out.max_pages = (uint16_t)(out.max_write / 4096);
	fused_answer(worker, &request, &out, sizeof(out));
	return 0;
}

/* ---- starting ----------------------------------------------------------------------------- */

static int map_buffer(size_t size, uint8_t **ret_block)
{
	void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (block == MAP_FAILED)
		return -errno;
	*ret_block = block;
	return 0;
}

static int make_workers(struct fused_export *export)
{
	int result = 0;

	export->workers = calloc(export->worker_count, sizeof(*export->workers));
	if (export->workers == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < export->worker_count && result == 0; i++) {
		struct fused_worker *worker = &export->workers[i];

		worker->export = export;
		worker->fuse_fd = -1;
		result = map_buffer(FUSED_IN_SIZE, &worker->in);
		if (result == 0)
			result = map_buffer(FUSED_OUT_SIZE + 4096, &worker->out);
	}
	return result;
}

static int make_streams(struct fused_export *export)
{
	uint32_t count = export->worker_count;

	export->streams = calloc(count, sizeof(*export->streams));
	export->idle = calloc(count, sizeof(struct fused_stream *));
	if (export->streams == NULL || export->idle == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		fused_stream_init(&export->streams[i]);
		export->streams[i].wants_channel = true;
		export->idle[count - 1 - i] = &export->streams[i];
	}
	export->idle_count = count;
	return -pthread_mutex_init(&export->idle_lock, NULL);
}

/* The root's attributes tell whether the server notifies of changes. */
static int learn_root(struct fused_export *export)
{
	struct fused_worker *worker = &export->workers[0];
	struct fused_cache *cache = &export->cache;
	uint64_t since = fused_cache_now(cache);
	struct fs_attr_reply attr;
	struct fused_node *root;
	int result;

	fused_frame_node(fused_ask(worker), FS_GETATTR, FS_NODE_ROOT, FS_HANDLE_NONE);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_fixed(&worker->reply, 0, &attr, sizeof(attr));
	fused_ask_end(worker);
	if (result != 0)
		return atomic_load(&export->lost) != 0 ? atomic_load(&export->lost) : result;
	export->pushed = attr.attr_valid_ms == UINT32_MAX;
	fused_cache_lock(cache);
	root = fused_node_get(cache, FS_NODE_ROOT);
	if (root != NULL) {
		root->kernel_lookups = 1;
		fused_node_set_attr(cache, root, &attr.attr, attr.attr_valid_ms, since);
	}
	fused_cache_unlock(cache);
	return root != NULL ? 0 : -ENOMEM;
}

static int connect_streams(struct fused_export *export)
{
	struct fs_hello_reply hello;
	int result = fused_stream_open(&export->streams[0], &export->endpoint, export->id,
				       FS_STREAM_REQUESTS, &export->hello);

	if (result != 0)
		return result;
	/* Nothing ever changes of what is immutable. */
	if ((export->hello.flags & FS_EXPORT_IMMUTABLE) != 0)
		return learn_root(export);
	/* Before anything is cached: from here on the server tells what changes. A server that
	 * has nothing to tell may refuse; then validity is short. */
	result = fused_stream_open(&export->notifications, &export->endpoint, export->id,
				   FS_STREAM_NOTIFICATIONS, &hello);
	if (result != 0 && result != -EOPNOTSUPP && result != -EINVAL)
		return result;
	return learn_root(export);
}

static int start_threads(struct fused_export *export)
{
	int result = 0;

	for (uint32_t i = 1; i < export->worker_count && result == 0; i++)
		result = fused_mount_clone(export->workers[0].fuse_fd, &export->workers[i].fuse_fd);
	for (uint32_t i = 0; i < export->worker_count && result == 0; i++)
		result = -pthread_create(&export->workers[i].thread, NULL, fused_worker_run,
					 &export->workers[i]);
	if (result == 0)
		result = -pthread_create(&export->keeper, NULL, fused_keeper_run, export);
	return result;
}

int fused_export_start(struct fused_export *export, const struct fused_export_option *option,
		       const struct fused_endpoint *endpoint, uint32_t workers,
		       const char **ret_stage)
{
	int result;

	memset(export, 0, sizeof(*export));
	export->id = option->id;
	export->read_only = option->read_only;
	export->mountpoint = option->mountpoint;
	export->endpoint = *endpoint;
	export->worker_count = workers;
	fused_stream_init(&export->notifications);
	fused_stream_init(&export->posts);
	*ret_stage = "prepare";
	export->keeper_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (export->keeper_fd < 0)
		return -errno;
	result = fused_cache_init(&export->cache);
	if (result == 0)
		result = make_workers(export);
	if (result == 0)
		result = make_streams(export);
	if (result != 0)
		return result;
	*ret_stage = "reach the file server";
	result = connect_streams(export);
	if (result != 0)
		return result;
	/* What an image has of extended attributes means nothing here, and overlayfs asks. */
	export->unattributed = (export->hello.flags & FS_EXPORT_IMMUTABLE) != 0;
	*ret_stage = "mount";
	result = fused_mount(export->mountpoint, export->hello.root.mode, transfer_max(export),
			     export->read_only || (export->hello.flags & FS_EXPORT_READ_ONLY),
			     &export->workers[0].fuse_fd);
	if (result != 0)
		return result;
	*ret_stage = "set up FUSE";
	result = answer_init(export, &export->workers[0]);
	if (result == 0)
		result = start_threads(export);
	/* An image is read as programs, of which a fault wants little; the kernel's 128 KiB do. */
	if (result == 0 && (export->hello.flags & FS_EXPORT_IMMUTABLE) == 0)
		fused_mount_read_ahead(export->mountpoint, READ_AHEAD_KIB);
	return result;
}

/* ---- life --------------------------------------------------------------------------------- */

void fused_export_lose(struct fused_export *export, int error)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&export->lost, &none, error))
		kill(getpid(), SIGUSR2);
}

void fused_export_end(struct fused_export *export)
{
	if (!atomic_exchange(&export->ended, true))
		kill(getpid(), SIGUSR2);
}

void fused_export_wait_for_replies(struct fused_export *export)
{
	const struct timespec moment = { .tv_nsec = 20000 };

	for (uint32_t i = 0; i < export->worker_count; i++) {
		uint32_t cycle = atomic_load(&export->workers[i].cycle);

		while ((cycle & 1) != 0 && atomic_load(&export->workers[i].cycle) == cycle)
			nanosleep(&moment, NULL);
	}
}

void fused_export_hurry_keeper(struct fused_export *export)
{
	uint64_t one = 1;

	atomic_store(&export->keeper_awake, true);
	while (write(export->keeper_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		continue;
}

void fused_export_wake_keeper(struct fused_export *export)
{
	/* Awake already, it looks at the queues before it sleeps again. */
	if (!atomic_load(&export->keeper_awake))
		fused_export_hurry_keeper(export);
}

void fused_export_statistics(struct fused_export *export, char *text, size_t capacity)
{
	uint64_t requests = 0;
	uint64_t round_trips = 0;
	uint64_t sent = 0;
	uint64_t received = 0;
	uint64_t rings = 0;
	uint64_t sleeps = 0;
	size_t length;

	for (uint32_t i = 0; i < export->worker_count; i++) {
		struct fused_worker *worker = &export->workers[i];

		for (unsigned opcode = 0; opcode < FUSED_OPCODES; opcode++)
			requests += worker->requests[opcode];
		round_trips += export->streams[i].round_trips;
		sent += export->streams[i].bytes_sent;
		received += export->streams[i].bytes_received;
		rings += export->streams[i].rings;
		sleeps += export->streams[i].sleeps;
	}
	fused_cache_lock(&export->cache);
	length = (size_t)snprintf(
		text, capacity,
		"export=%u requests=%llu round_trips=%llu posts=%llu sent=%llu "
		"received=%llu rings=%llu sleeps=%llu nodes=%zu entries=%u handles=%u content=%zu "
		"by_opcode=",
		export->id, (unsigned long long)requests, (unsigned long long)round_trips,
		(unsigned long long)export->posts.posts, (unsigned long long)sent,
		(unsigned long long)received, (unsigned long long)rings, (unsigned long long)sleeps,
		export->cache.node_count, export->cache.entry_total, export->cache.handle_count,
		export->cache.content_total);
	fused_cache_unlock(&export->cache);
	for (unsigned opcode = 0; opcode < FUSED_OPCODES && length < capacity; opcode++) {
		uint64_t count = 0;
		uint64_t asked = 0;

		for (uint32_t i = 0; i < export->worker_count; i++) {
			count += export->workers[i].requests[opcode];
			asked += export->workers[i].asked[opcode];
		}
		if (count > 0)
			length += (size_t)snprintf(
				text + length, capacity - length, "%u:%llu/%llu,", opcode,
				(unsigned long long)asked, (unsigned long long)count);
	}
}
