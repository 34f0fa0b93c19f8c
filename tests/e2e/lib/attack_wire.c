/* Names, forged ids, lengths. */
#include "tests/e2e/lib/attack.h"

#include "wire/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ---------------------------------------------------------------------------------- */

struct bad_name {
	const char *text;
	size_t length;
};

/* Each operation that takes a name, with this one; the errno of the worst answer: 0 if any was
 * granted. */
static int try_name(struct fs_client *client, uint64_t node, const struct bad_name *name)
{
	struct fs_parent parent = { .parent = 1, .name_length = (uint16_t)name->length };
	static const enum fs_opcode by_parent[] = { FS_LOOKUP, FS_UNLINK, FS_RMDIR };
	static const enum fs_opcode by_make[] = { FS_MKDIR, FS_MKNOD, FS_CREATE };
	struct fs_make make = { .parent = 1, .mode = 0644, .name_length = (uint16_t)name->length };
	struct fs_rename rename = { .parent = 1, .new_parent = 1 };
	struct fs_link link = { .nodeid = node,
				.new_parent = 1,
				.name_length = (uint16_t)name->length };
	int answers[10];
	int worst = EINVAL;
	unsigned count = 0;

	for (unsigned i = 0; i < 3; i++) {
		fs_add(client, by_parent[i], &parent, sizeof(parent), name->text, name->length,
		       NULL, 0);
		answers[count++] = fs_call(client);
	}
	for (unsigned i = 0; i < 3; i++) {
		fs_add(client, by_make[i], &make, sizeof(make), name->text, name->length, NULL, 0);
		answers[count++] = fs_call(client);
	}
	make.target_length = 1;
	fs_add(client, FS_SYMLINK, &make, sizeof(make), name->text, name->length, "t", 1);
	answers[count++] = fs_call(client);
	fs_add(client, FS_LINK, &link, sizeof(link), name->text, name->length, NULL, 0);
	answers[count++] = fs_call(client);
	rename.name_length = (uint16_t)name->length;
	rename.new_name_length = 4;
	fs_add(client, FS_RENAME, &rename, sizeof(rename), name->text, name->length, "good", 4);
	answers[count++] = fs_call(client);
	rename.name_length = 6;
	rename.new_name_length = (uint16_t)name->length;
	fs_add(client, FS_RENAME, &rename, sizeof(rename), "readme", 6, name->text, name->length);
	answers[count++] = fs_call(client);
	for (unsigned i = 0; i < count; i++) {
		if (answers[i] != EINVAL && answers[i] != ENAMETOOLONG)
			worst = answers[i];
	}
	return worst;
}

void attack_names(struct attack *attack)
{
	static char long_name[256];
	const struct bad_name names[] = {
		{ "", 0 },
		{ ".", 1 },
		{ "..", 2 },
		{ "../outside", 10 },
		{ "/etc/passwd", 11 },
		{ "src/main.c", 10 },
		{ "src/", 4 },
		{ "a\0b", 3 },
		{ "..\0", 3 },
		{ long_name, 256 },
	};
	struct fs_make make = { .parent = 1, .name_length = 1, .target_length = 3 };
	uint64_t node;

	memset(long_name, 'n', sizeof(long_name));
	start(attack, "", "");
	node = must_lookup(attack, FS_NODE_ROOT, "readme");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		refused(try_name(&attack->client, node, &names[i]), EINVAL, ENAMETOOLONG,
			"bad name %zu in every operation", i);
	fs_add(&attack->client, FS_SYMLINK, &make, sizeof(make), "s", 1, "a\0b", 3);
	refused(fs_call(&attack->client), EINVAL, EINVAL, "symlink target with NUL");
	make.target_length = 5000;
	{
		char *target = calloc(1, 5000);

		memset(target, 't', 5000);
		fs_add(&attack->client, FS_SYMLINK, &make, sizeof(make), "s", 1, target, 5000);
		refused(fs_call(&attack->client), ENAMETOOLONG, ENAMETOOLONG,
			"symlink target too long");
		free(target);
	}
	ok(file_is(in_tree(attack, "readme"), "readme") && !exists(in_tree(attack, "good")),
	   "the tree is as it was");
	stop(attack);
}

/* ---- ids ------------------------------------------------------------------------------------ */

void attack_ids(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	struct fs_client other;
	uint64_t node;
	uint64_t handle;
	uint64_t stale;
	unsigned granted = 0;

	start(attack, "", "");
	node = must_lookup(attack, FS_NODE_ROOT, "readme");
	for (uint64_t i = 0; i < 64; i++) {
		granted += fs_getattr(client, (i << 32) + 77, NULL) == 0;
		granted += fs_getattr(client, node + (i + 1) * 0x100000000u, NULL) == 0;
		granted += fs_getattr(client, UINT64_MAX - 1 - i, NULL) == 0;
		granted += fs_read(client, node, node + i + 1, 0, 10) == 0;
	}
	ok(granted == 0, "forged nodes and handles are refused (%u granted)", granted);
	ok(fs_open(client, node, FS_O_READ | FS_O_WRITE, &handle) == 0, "open a file");
	refused(fs_write(client, FS_NODE_ROOT, handle, 0, "x", 1), EBADF, EBADF,
		"a handle with another node");
	/* Forgetting what is in use, and far more often than it was looked up. */
	fs_forget(client, node, UINT64_MAX);
	fs_forget(client, node, UINT64_MAX);
	fs_forget(client, FS_NODE_ROOT, UINT64_MAX);
	ok(fs_write(client, node, handle, 0, "READ", 4) == 0,
	   "an open file outlives forged forgets");
	ok(fs_getattr(client, FS_NODE_ROOT, NULL) == 0, "the root outlives them too");
	ok(fs_release(client, node, handle) == 0, "release");
	refused(fs_getattr(client, node, NULL), ESTALE, ESTALE, "the forgotten node is gone");
	refused(fs_release(client, FS_NODE_ROOT, handle), EBADF, EBADF, "release twice");
	stale = node;
	node = must_lookup(attack, FS_NODE_ROOT, "readme");
	ok(node != stale, "an id is not issued again");
	ok(fs_server_tells(&attack->server, AUDIT_VIOLATION, "forgot", 0),
	   "the forged forgets are in the audit log");
	ok(fs_join(&other, attack->server.socket, 2, FS_STREAM_REQUESTS) == 0,
	   "join another export");
	{
		struct fs_attr mine = { 0 };
		struct fs_attr its = { 0 };
		int error = fs_getattr(&other, node, &its);

		fs_getattr(client, node, &mine);
		ok(error == ESTALE || its.ino != mine.ino,
		   "a node of one export means nothing in the other");
	}
	fs_leave(&other);
	refused(fs_join(&other, attack->server.socket, 9, FS_STREAM_REQUESTS), ENOENT, ENOENT,
		"an export that is not there");
	fs_leave(&other);
	stop(attack);
}

/* ---- lengths -------------------------------------------------------------------------------- */

/* Sends one frame of raw bytes on a fresh stream; whether the server ended it. */
static bool ends_stream(struct attack *attack, const void *data, size_t length, bool half_close)
{
	struct fs_client client;
	bool ended;

	if (fs_join(&client, attack->server.socket, 1, FS_STREAM_REQUESTS))
		return false;
	fs_send_raw(&client, data, length);
	if (half_close)
		shutdown(client.fd, SHUT_WR);
	ended = fs_receive(&client) == -1;
	fs_leave(&client);
	return ended;
}

static void attack_frame_lengths(struct attack *attack)
{
	static const uint32_t lengths[] = { 0, 1, 15, 23, FS_FRAME_MAX + 1, INT32_MAX, UINT32_MAX };
	uint8_t bytes[64] = { 0 };
	struct fs_frame *frame = (void *)bytes;
	struct fs_op op = { .opcode = FS_GETATTR, .length = 16 };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		*frame = (struct fs_frame){ .length = lengths[i], .op_count = 1, .tag = 1 };
		ok(ends_stream(attack, bytes, sizeof(bytes), false),
		   "frame of announced length %u ends the stream", lengths[i]);
	}
	*frame = (struct fs_frame){ .length = 40, .op_count = 0, .tag = 1 };
	ok(ends_stream(attack, bytes, 40, false), "no operations");
	*frame = (struct fs_frame){ .length = 40, .op_count = 65, .tag = 1 };
	ok(ends_stream(attack, bytes, 40, false), "too many operations");
	*frame = (struct fs_frame){ .length = 40, .op_count = 2, .tag = 1 };
	memcpy(bytes + 16, &op, sizeof(op));
	bytes[24] = 1;
	ok(ends_stream(attack, bytes, 40, false), "more operations announced than sent");
	frame->op_count = 1;
	op.length = UINT32_MAX;
	memcpy(bytes + 16, &op, sizeof(op));
	ok(ends_stream(attack, bytes, 40, false), "operation longer than its frame");
	op.length = 8;
	memcpy(bytes + 16, &op, sizeof(op));
	ok(ends_stream(attack, bytes, 40, false), "operation shorter than its struct");
	*frame = (struct fs_frame){ .length = 4096, .op_count = 1, .tag = 1 };
	ok(ends_stream(attack, bytes, sizeof(bytes), true), "more bytes promised than sent");
}

static void attack_sizes(struct attack *attack, uint64_t node, uint64_t handle)
{
	struct fs_client *client = &attack->client;
	struct fs_io io = { .nodeid = node, .handle = handle, .size = 1 };
	struct fs_setattr set = { .nodeid = node, .valid = FS_SET_SIZE, .size = UINT64_MAX };
	char *value = calloc(1, FS_XATTR_VALUE_MAX + 1);

	/* Not EMSGSIZE, with which the budget of the frame would refuse it. */
	refused(fs_read(client, node, handle, 0, UINT32_MAX), EINVAL, EINVAL, "READ of 4 GiB");
	refused(fs_read(client, node, handle, 0, FS_DATA_MAX + 1), EINVAL, EINVAL,
		"READ of a byte too many");
	refused(fs_read(client, node, handle, UINT64_MAX, 10), EINVAL, EINVAL,
		"READ at a negative offset");
	for (int i = 0; i < 2; i++)
		fs_add(client, FS_READ, &(struct fs_io){ .nodeid = node, .size = FS_DATA_MAX },
		       sizeof(struct fs_io), NULL, 0, NULL, 0);
	refused(fs_call(client), EMSGSIZE, EMSGSIZE, "two full READs in one frame");
	io.offset = INT64_MAX;
	fs_add(client, FS_WRITE, &io, sizeof(io), "x", 1, NULL, 0);
	refused(fs_call(client), EFBIG, EFBIG, "WRITE past the largest offset");
	refused(fs_setattr(client, &set), EFBIG, EFBIG, "truncate to a negative size");
	refused(fs_setxattr(client, node, "user.x", value, FS_XATTR_VALUE_MAX + 1), E2BIG, E2BIG,
		"xattr too large");
	free(value);
}

/* A stream that stops in the middle of a frame, and one that never reads its replies. */
static void attack_stuck_streams(struct attack *attack, uint64_t big)
{
	struct fs_client slow;
	struct fs_client deaf;
	struct fs_frame frame = { .length = FS_FRAME_MAX, .op_count = 1, .tag = 1 };
	struct pollfd writable;
	uint64_t node;
	unsigned sent = 0;

	fs_join(&slow, attack->server.socket, 1, FS_STREAM_REQUESTS);
	fs_send_raw(&slow, &frame, sizeof(frame) - 3);
	fs_join(&deaf, attack->server.socket, 1, FS_STREAM_REQUESTS);
	fcntl(deaf.fd, F_SETFL, O_NONBLOCK);
	writable = (struct pollfd){ .fd = deaf.fd, .events = POLLOUT };
	while (sent < 100000 && poll(&writable, 1, 100) == 1) {
		struct fs_io io = { .nodeid = big, .size = FS_DATA_MAX };

		fs_add(&deaf, FS_READ, &io, sizeof(io), NULL, 0, NULL, 0);
		if (fs_send(&deaf))
			break;
		sent++;
	}
	ok(sent < 100000, "a stream that reads no replies is held back (after %u requests)", sent);
	ok(fs_lookup(&attack->client, FS_NODE_ROOT, "src", &node) == 0,
	   "another stream of the session works beside both");
	fs_leave(&slow);
	fs_leave(&deaf);
}

void attack_lengths(struct attack *attack)
{
	uint64_t node;
	uint64_t handle;
	uint64_t big;
	int fd;

	fd = open(in_tree(attack, "big"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	ok(fd >= 0 && ftruncate(fd, FS_DATA_MAX) == 0, "a file of 1 MiB");
	close(fd);
	start(attack, "", "");
	attack_frame_lengths(attack);
	node = must_lookup(attack, FS_NODE_ROOT, "readme");
	big = must_lookup(attack, FS_NODE_ROOT, "big");
	ok(fs_open(&attack->client, node, FS_O_READ | FS_O_WRITE, &handle) == 0, "open a file");
	attack_sizes(attack, node, handle);
	attack_stuck_streams(attack, big);
	ok(fs_server_tells(&attack->server, AUDIT_VIOLATION, "", 5),
	   "the violations are in the audit log");
	stop(attack);
}
