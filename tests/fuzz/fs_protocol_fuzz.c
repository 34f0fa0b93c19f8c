/*
 * The decoder of the file protocol. The input is one frame as on the wire, copied into a block of
 * its exact size; everything that decodes must keep what wire/fs.h promises.
 */
#include "wire/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

/* By other means than the decoder's own. */
static void check_name(const char *name, bool may_be_empty)
{
	size_t length = strlen(name);

	if (length == 0) {
		must(may_be_empty);
		return;
	}
	must(length <= FS_NAME_MAX);
	must(strcspn(name, "/") == length);
	must(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
}

static void look_at(const struct fs_request *request)
{
	volatile uint8_t sum = 0;
	bool names_xattr = request->opcode == FS_GETXATTR || request->opcode == FS_SETXATTR ||
			   request->opcode == FS_REMOVEXATTR;

	for (size_t i = 0; i < request->data_length; i++)
		sum = (uint8_t)(sum + request->data[i]);
	if (!names_xattr)
		check_name(request->name,
			   request->opcode != FS_LOOKUP && request->opcode != FS_CREATE &&
				   request->opcode != FS_UNLINK && request->opcode != FS_RENAME);
	check_name(request->new_name, request->opcode != FS_RENAME);
	must(strlen(request->target) <= FS_TARGET_MAX);
	if (request->opcode == FS_SYMLINK)
		must(request->target[0] != '\0');
	if (request->opcode == FS_WRITE)
		must(request->data_length == request->io.size && request->io.size <= FS_DATA_MAX);
	if (request->opcode == FS_READ)
		must(request->io.offset + request->io.size <= INT64_MAX);
	if (request->opcode == FS_FORGET)
		must(request->forget.count <= FS_FORGETS_MAX &&
		     request->data_length == request->forget.count * sizeof(struct fs_forget_one));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fs_request *request = malloc(sizeof(*request));
	uint8_t *body = NULL;
	struct byte_reader reader;
	struct fs_frame frame;

	must(request != NULL);
	if (size < sizeof(frame))
		goto out;
	memcpy(&frame, data, sizeof(frame));
	if (fs_frame_check(&frame) == 0)
		must(frame.op_count >= 1 && frame.op_count <= FS_OPS_MAX &&
		     frame.length <= FS_FRAME_MAX);
	size -= sizeof(frame);
	body = malloc(size ? size : 1);
	must(body != NULL);
	memcpy(body, data + sizeof(frame), size);
	byte_reader_init(&reader, body, size);
	for (unsigned i = 0; i < FS_OPS_MAX && byte_reader_remaining(&reader) > 0; i++) {
		int error = fs_request_decode(&reader, request);

		must(error <= 0);
		if (error == -EBADMSG)
			break;
		must(fs_opcode_name(request->opcode) != NULL);
		if (!error)
			look_at(request);
	}
out:
	free(body);
	free(request);
	return 0;
}
