/*
 * Bytes of the host as guest-fused takes them: a reply frame to a request of 64 operations, and
 * the listing that each successful READDIR in it carries.
 */
#include "guest-fused/cache.h"
#include "guest-fused/directory.h"
#include "guest-fused/frame.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void absorb(const struct fused_reply *reply)
{
	struct fused_cache cache;
	struct fused_directory *directory;

	if (fused_cache_init(&cache) != 0)
		return;
	fused_node_get(&cache, FS_NODE_ROOT)->kernel_lookups = 1;
	directory = fused_directory_get(&cache, fused_node_find(&cache, FS_NODE_ROOT));
	fused_directory_begin(&cache, directory, 0, 0);
	for (unsigned i = 0; i < reply->count; i++) {
		const struct fused_reply_op *op = &reply->ops[i];

		if (fused_reply_error(reply, i) != 0)
			continue;
		fused_directory_absorb(&cache, directory, fused_cache_now(&cache), op->body,
				       op->length, FS_DATA_MAX, UINT32_MAX);
		fused_listing_discard(&cache, op->body, op->length);
	}
	fused_cache_destroy(&cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fused_frame frame;
	static struct fused_reply reply;
	uint8_t *copy = malloc(size + 1);

	if (copy == NULL)
		return 0;
	fused_frame_begin(&frame);
	for (unsigned i = 0; i < FS_OPS_MAX; i++)
		fused_frame_op(&frame, FS_READDIR, sizeof(struct fs_readdir));
	memcpy(copy, data, size);
	if (fused_reply_parse(&frame, 1, copy, size, &reply) == 0)
		absorb(&reply);
	free(copy);
	return 0;
}
