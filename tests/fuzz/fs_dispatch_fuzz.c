/*
 * A whole session of requests against a scratch tree, with policy and undo log, as a guest could
 * send it. The input is a sequence of frames: u16 length of the operations, u8 their number, and
 * the operations as on the wire. Replies must be well-formed, everything must be given back at the
 * end, and a file outside the tree must stay as it was.
 */
#include "fsserver/export.h"
#include "fsserver/operations.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define FILE_MAX (8 * 1024 * 1024)

static char base[64];
static char tree[96];
static char store[96];
static char outside[96];
/* Where the fuzzer was started: it names its inputs from there. */
static int start = -1;

static void must(bool condition)
{
	if (!condition)
		abort();
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	(void)stat;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_base(void)
{
	remove_tree(base);
}

static void put(const char *folder, const char *name, const char *content)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	must(file && fputs(content, file) >= 0);
	fclose(file);
}

static void make(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	must(mkdir(path, 0755) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rlimit limit = { .rlim_cur = FILE_MAX, .rlim_max = FILE_MAX };

	(void)argc;
	(void)argv;
	snprintf(base, sizeof(base), "/dev/shm/fs-dispatch-XXXXXX");
	start = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(start >= 0 && mkdtemp(base) != NULL);
	atexit(remove_base);
	snprintf(tree, sizeof(tree), "%s/tree", base);
	snprintf(store, sizeof(store), "%s/store", base);
	snprintf(outside, sizeof(outside), "%s/outside", base);
	must(mkdir(outside, 0755) == 0);
	put(outside, "secret", "secret");
	/* Nothing that is written may fill the machine's memory. */
	setrlimit(RLIMIT_FSIZE, &limit);
	umask(0);
	return 0;
}

static void make_tree(void)
{
	char path[256];

	must(mkdir(tree, 0755) == 0 && mkdir(store, 0700) == 0);
	make("d");
	make("d/e");
	make(".git");
	make(".git/hooks");
	put(tree, "f", "content of f");
	put(tree, "d/g", "content of g");
	put(tree, ".git/config", "config");
	snprintf(path, sizeof(path), "%s/s", tree);
	must(symlink("../outside/secret", path) == 0);
	snprintf(path, sizeof(path), "%s/p", tree);
	must(mkfifo(path, 0666) == 0);
}

static void check_outside(void)
{
	char path[256];
	char content[16] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/secret", outside);
	file = fopen(path, "r");
	must(file && fgets(content, sizeof(content), file) && strcmp(content, "secret") == 0);
	fclose(file);
	snprintf(path, sizeof(path), "%s/.git/config", tree);
	file = fopen(path, "r");
	must(file && fgets(content, sizeof(content), file) && strcmp(content, "config") == 0);
	fclose(file);
}

static void check_reply(const struct job *job)
{
	struct byte_reader reader;
	struct fs_frame frame;

	must(job->reply->length >= sizeof(frame) && job->reply->length <= FS_FRAME_MAX);
	memcpy(&frame, job->reply->data, sizeof(frame));
	must(frame.length == job->reply->length && frame.op_count >= 1);
	byte_reader_init(&reader, job->reply->data + sizeof(frame), frame.length - sizeof(frame));
	for (unsigned i = 0; i < frame.op_count; i++) {
		struct fs_op_reply reply;

		byte_reader_copy(&reader, &reply, sizeof(reply));
		must(reply.error == 0 || (reply.length == 0 && i + 1 == frame.op_count));
		must(reply.error < 4096);
		byte_reader_bytes(&reader, reply.length);
	}
	must(byte_reader_done(&reader));
}

/* False when the stream would end. */
static bool run_frame(struct export *export, const uint8_t *body, size_t length, unsigned count)
{
	struct fs_frame frame = {
		.length = (uint32_t)(sizeof(frame) + length),
		.op_count = (uint16_t)count,
		.tag = 1,
	};
	uint8_t *copy = malloc(length ? length : 1);
	struct job job;
	enum job_state state;

	must(copy != NULL);
	memcpy(copy, body, length);
	must(fs_frame_check(&frame) == 0 || length < sizeof(struct fs_op));
	must(job_begin(&job, export, &frame, copy, FS_DATA_MAX) == 0);
	state = job_run(&job);
	while (state == JOB_WAITS)
		state = job_continue(&job, job_do_pending(&job));
	if (state == JOB_DONE)
		check_reply(&job);
	job_end(&job);
	free(copy);
	return state == JOB_DONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config config = {
		.session = "fuzz",
		.uid = getuid(),
		.gid = getgid(),
		.store_bytes_max = 1 << 20,
	};
	struct config_export exported = {
		.id = 1,
		.name = "fuzz",
		.path = tree,
		.profile = POLICY_PROFILE_WORKSPACE,
		.undo_store = store,
	};
	struct server server = {
		.config = &config,
		.nodes = { .max = 64 },
		.descriptors = { .max = 24 },
		.handles = { .max = 16 },
	};
	char error[EXPORT_ERROR_MAX];
	struct export *export;

	/* The fuzzer takes the signal for an error once it has started. */
	signal(SIGXFSZ, SIG_IGN);
	must(report_new(-1, &server.report) == 0);
	make_tree();
	must(export_open(&server, &exported, &export, error) == 0);
	must(fchdir(export->scope.proc_fd) == 0);
	while (size >= 3) {
		size_t length = (size_t)data[0] | (size_t)data[1] << 8;
		unsigned count = data[2] % FS_OPS_MAX + 1;

		data += 3;
		size -= 3;
		if (length > size)
			length = size;
		if (!run_frame(export, data, length, count))
			break;
		data += length;
		size -= length;
	}
	operations_guest_gone(export);
	must(server.handles.used == 0 && node_table_count(export->nodes) == 1);
	must(fchdir(start) == 0);
	export_close(export);
	must(server.nodes.used == 0);
	report_free(server.report);
	check_outside();
	remove_tree(tree);
	remove_tree(store);
	return 0;
}
