/*
 * Listings. The kernel asks for a page at a time; the server is asked for much at once, with the
 * attributes of everything, and the pages are composed here. While a tree is being walked, the
 * listings of the directories next in turn come along in the same frame.
 */
#include "guest-fused/worker.h"

#include "base/checked.h"
#include "guest-fused/directory.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define LISTING_SIZE (256u * 1024u)
#define LISTING_SIZE_NEXT (768u * 1024u) /* of a directory that proved to be large */
#define SIBLING_SIZE (24u * 1024u)
#define SIBLINGS_MAX 16u
#define OPS_PER_LISTING 2u
/* Offsets after "." and "..", which the server knows nothing of; no file system's own are like
 * these (ext4's end is INT64_MAX). */
#define AFTER_DOT UINT64_C(0x7fffffffabad0001)
#define AFTER_DOT_DOT UINT64_C(0x7fffffffabad0002)
/* A listing can be overtaken by another reader's; not for ever. */
#define ATTEMPTS 16

struct page {
	uint8_t *bytes;
	size_t capacity;
	size_t length;
	bool plus;
};

/* ---- composing ---------------------------------------------------------------------------- */

static uint8_t *reserve(struct page *page, size_t name_length)
{
	size_t size = page->plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	uint8_t *place = page->bytes + page->length;

	size = FUSE_DIRENT_ALIGN(size + name_length);
	if (size > page->capacity - page->length)
		return NULL;
	memset(place, 0, size);
	page->length += size;
	return place;
}

static void fill_dirent(uint8_t *place, uint64_t ino, uint64_t next, uint32_t type,
			const char *name, size_t name_length)
{
	struct fuse_dirent dirent = {
		.ino = ino,
		.off = next,
		.namelen = (uint32_t)name_length,
		.type = type,
	};

	memcpy(place, &dirent, FUSE_NAME_OFFSET);
	memcpy(place + FUSE_NAME_OFFSET, name, name_length);
}

static bool add_dot(struct page *page, uint64_t ino, uint64_t next, const char *name)
{
	uint8_t *place = reserve(page, strlen(name));

	if (place == NULL)
		return false;
	/* Without a node: the kernel has these two already. */
	if (page->plus)
		place += sizeof(struct fuse_entry_out);
	fill_dirent(place, ino, next, DT_DIR, name, strlen(name));
	return true;
}

static bool add_entry(struct page *page, struct fused_entry *entry)
{
	uint8_t *place = reserve(page, entry->name_length);

	if (place == NULL)
		return false;
	if (page->plus) {
		struct fuse_entry_out out = { 0 };

		if (entry->node != NULL && entry->node->attr_expires != 0)
			fused_kernel_entry(entry->node, entry->expires, &out);
		memcpy(place, &out, sizeof(out));
		place += sizeof(out);
	}
	fill_dirent(place, entry->ino, entry->next, entry->type, entry->name, entry->name_length);
	return true;
}

/* Fills the page from list position `position` on. Returns whether the list came to its end
 * with room left. */
static bool compose(struct fused_directory *directory, uint32_t position, struct page *page)
{
	while (position < directory->list_count) {
		struct fused_entry *entry = directory->list[position];

		if (!entry->removed && !add_entry(page, entry))
			return false;
		directory->hint = ++position;
	}
	return true;
}

/* ---- asking ------------------------------------------------------------------------------- */

struct sibling {
	uint64_t nodeid;
};

/* With the lock held: directories after this one in its parent, to be listed along with it once
 * the kernel lists its second there. */
static unsigned choose_siblings(struct fused_node *node, struct sibling *siblings)
{
	struct fused_entry *entry = node->entry;
	struct fused_directory *parent;
	unsigned count = 0;
	unsigned wanted;

	if (entry == NULL || entry->position == UINT32_MAX)
		return 0;
	parent = entry->directory;
	parent->listed_children++;
	if (parent->listed_children < 2)
		return 0;
	wanted = MIN_OF(parent->listed_children * 2, SIBLINGS_MAX);
	for (uint32_t i = entry->position + 1; i < parent->list_count && count < wanted; i++) {
		struct fused_entry *other = parent->list[i];

		if (other->removed || other->node == NULL || !S_ISDIR(other->node->attr.mode))
			continue;
		if (other->node->directory == NULL || other->node->directory->list_stale)
			siblings[count++].nodeid = other->node->nodeid;
	}
	return count;
}

/* Takes the listing in operation `first`, and GETATTR in the next, into the directory, which is
 * begun anew when `offset` is where a listing starts; drops it if the directory moved on meanwhile.
 */
static int absorb(struct fused_worker *worker, uint64_t nodeid, unsigned first, uint64_t since,
		  uint64_t offset, bool begin, uint32_t size)
{
	struct fused_cache *cache = &worker->export->cache;
	const struct fused_reply_op *op = &worker->reply.ops[first];
	struct fused_directory *directory = NULL;
	struct fs_attr_reply attr;
	struct fused_node *node = fused_node_find(cache, nodeid);

	if (node != NULL)
		directory = fused_directory_get(cache, node);
	if (directory == NULL || (!begin && directory->list_offset != offset)) {
		fused_listing_discard(cache, op->body, op->length);
		return 0;
	}
	attr.attr_valid_ms = 0;
	if (fused_reply_attr(worker, first + 1, &attr) != NULL)
		fused_node_set_attr(cache, node, &attr.attr, attr.attr_valid_ms, since);
	if (begin)
		fused_directory_begin(cache, directory, since, offset);
	return fused_directory_absorb(cache, directory, since, op->body, op->length, size,
				      attr.attr_valid_ms);
}

/* Asks the server for the directory from `offset` on. */
static int fetch(struct fused_worker *worker, uint64_t nodeid, uint64_t offset, bool begin)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t since = fused_cache_now(cache);
	uint32_t size = offset == 0 ? LISTING_SIZE : LISTING_SIZE_NEXT;
	struct sibling siblings[SIBLINGS_MAX];
	struct fused_frame *frame = fused_ask(worker);
	struct fused_node *node;
	unsigned count = 0;
	bool plus;
	int result;

	size = MIN_OF(size, worker->export->hello.data_max);
	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	plus = fused_cache_has_room(cache);
	if (node != NULL && plus && begin && offset == 0 &&
	    LISTING_SIZE + SIBLINGS_MAX * SIBLING_SIZE <= worker->export->hello.data_max &&
	    (1 + SIBLINGS_MAX) * OPS_PER_LISTING <= worker->export->hello.ops_max + OPS_PER_LISTING)
		count = choose_siblings(node, siblings);
	fused_cache_unlock(cache);
	if (count > SIBLINGS_MAX - 1)
		count = SIBLINGS_MAX - 1;
	fused_frame_list(frame, nodeid, offset, size, plus);
	for (unsigned i = 0; i < count; i++)
		fused_frame_list(frame, siblings[i].nodeid, 0, SIBLING_SIZE, true);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	if (result != 0)
		return result;
	fused_cache_lock(cache);
	result = absorb(worker, nodeid, 0, since, offset, begin, size);
	for (unsigned i = 0; i < count && result == 0; i++) {
		unsigned first = (i + 1) * OPS_PER_LISTING;

		if (fused_reply_error(&worker->reply, first) != 0)
			break;
		result = absorb(worker, siblings[i].nodeid, first, since, 0, true, SIBLING_SIZE);
	}
	fused_cache_unlock(cache);
	if (result == -EBADMSG) {
		fused_malformed(worker);
		result = -EIO;
	}
	return result;
}

/* ---- answering ---------------------------------------------------------------------------- */

/* Composes a page from what is known. Returns 1 when it is done, or 0 when the server must be
 * asked for *ret_offset on, anew if *ret_begin. */
static int compose_known(struct fused_cache *cache, uint64_t nodeid, uint64_t offset,
			 struct page *page, uint64_t *ret_offset, bool *ret_begin, bool fresh)
{
	struct fused_node *node = fused_node_find(cache, nodeid);
	struct fused_directory *directory = node != NULL ? fused_directory_get(cache, node) : NULL;
	int64_t position;

	*ret_begin = true;
	*ret_offset = offset;
	if (directory == NULL)
		return 0;
	if (offset == 0 && !fresh && (directory->list_stale || !fused_valid(directory->expires)))
		return 0;
	position = fused_directory_position(directory, offset);
	if (position < 0)
		return 0;
	*ret_begin = false;
	*ret_offset = directory->list_offset;
	if (position == directory->list_count && !directory->list_ended)
		return 0;
	/* What fits is an answer; an empty one would mean the end. */
	if (!compose(directory, (uint32_t)position, page) || page->length > 0)
		return 1;
	/* The kernel keeps listings until told otherwise: here there is nobody who would. */
	if (directory->list_ended && directory->expires != FUSED_FOREVER)
		fused_node_stale(cache, node);
	return directory->list_ended ? 1 : 0;
}

static void list(struct fused_worker *worker, const struct fused_request *request, bool plus)
{
	const struct fuse_read_in *in = request->body;
	struct fused_cache *cache = &worker->export->cache;
	uint64_t nodeid = request->header->nodeid;
	struct page page = {
		.bytes = worker->out + sizeof(struct fuse_out_header),
		.capacity = MIN_OF(in->size, FUSED_OUT_SIZE),
		.plus = plus,
	};
	uint64_t offset = in->offset;
	bool dots = offset == AFTER_DOT || offset == AFTER_DOT_DOT;
	bool fresh = false;
	bool done = false;
	int result = 0;

	for (int attempt = 0; attempt < ATTEMPTS && !done && result == 0; attempt++) {
		uint64_t fetch_offset;
		bool begin;

		page.length = 0;
		if (offset == 0)
			add_dot(&page, nodeid, AFTER_DOT, ".");
		if (offset == 0 || offset == AFTER_DOT)
			add_dot(&page, nodeid, AFTER_DOT_DOT, "..");
		fused_cache_lock(cache);
		done = compose_known(cache, nodeid, dots ? 0 : offset, &page, &fetch_offset, &begin,
				     fresh) == 1;
		fused_cache_unlock(cache);
		if (!done) {
			result = fetch(worker, nodeid, fetch_offset, begin);
			fresh = true;
		}
	}
	if (result == 0 && !done)
		result = -EIO;
	if (result != 0)
		fused_answer_error(worker, request, result);
	else
		fused_answer_in_place(worker, request, page.bytes, page.length);
}

void fused_readdir(struct fused_worker *worker, const struct fused_request *request)
{
	list(worker, request, false);
}

void fused_readdirplus(struct fused_worker *worker, const struct fused_request *request)
{
	list(worker, request, true);
}
