/* Names: looking them up, making, moving and removing them. */
#include "guest-fused/worker.h"

#include "guest-fused/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A lookup lists its directory from the second miss on, if one reply of this size holds it. */
#define LOOKUP_LISTING_SIZE 65536u
#define LOOKUP_MISSES 2u

struct name {
	const char *text;
	size_t length;
};

/* Takes the NUL-terminated string at `offset` of the request. Returns the offset after it, or 0
 * when it is no name that a server would take; *ret_error says why. */
static size_t take_name(const struct fused_request *request, size_t offset, struct name *ret_name,
			int *ret_error)
{
	const char *text = (const char *)request->body + offset;
	const char *end =
		offset < request->length ? memchr(text, '\0', request->length - offset) : NULL;

	if (end == NULL) {
		*ret_error = -EINVAL;
		return 0;
	}
	ret_name->text = text;
	ret_name->length = (size_t)(end - text);
	*ret_error = fs_name_check(text, ret_name->length);
	return *ret_error == 0 ? offset + ret_name->length + 1 : 0;
}

/* What is known of a name, as an error or an entry for the kernel. */
struct answer {
	bool known;
	int error;
	struct fuse_entry_out entry;
};

static void answer_absent(uint64_t expires, struct answer *answer)
{
	answer->known = true;
	if (expires == 0) {
		answer->error = -ENOENT;
		return;
	}
	/* Nodeid 0: the kernel remembers that there is nothing by that name. */
	answer->error = 0;
	memset(&answer->entry, 0, sizeof(answer->entry));
	fused_kernel_validity(expires, &answer->entry.entry_valid, &answer->entry.entry_valid_nsec);
}

static void send_answer(struct fused_worker *worker, const struct fused_request *request,
			const struct answer *answer)
{
	if (answer->error != 0)
		fused_answer_error(worker, request, answer->error);
	else
		fused_answer(worker, request, &answer->entry, sizeof(answer->entry));
}

/* ---- lookup ------------------------------------------------------------------------------- */

/* Answers from the cache; otherwise says whether the directory should be listed. */
static bool lookup_known(struct fused_cache *cache, uint64_t parent, const struct name *name,
			 struct answer *answer)
{
	struct fused_node *node;
	struct fused_directory *directory = NULL;
	struct fused_entry *entry;
	bool list = false;

	answer->known = false;
	fused_cache_lock(cache);
	node = fused_node_find(cache, parent);
	if (node != NULL)
		directory = fused_directory_get(cache, node);
	if (directory != NULL) {
		switch (fused_directory_lookup(directory, name->text, name->length, &entry)) {
		case FUSED_PRESENT:
			answer->known = true;
			answer->error = 0;
			fused_kernel_entry(entry->node, entry->expires, &answer->entry);
			break;
		case FUSED_ABSENT:
			answer_absent(directory->expires, answer);
			break;
		case FUSED_UNKNOWN:
			directory->misses++;
			list = directory->misses >= LOOKUP_MISSES && !directory->too_large &&
			       !directory->complete && fused_cache_has_room(cache);
			break;
		}
	}
	fused_cache_unlock(cache);
	return list;
}

/* Operation `first` of the reply is a listing, the next its directory's GETATTR. */
static int absorb_listing(struct fused_worker *worker, uint64_t nodeid, unsigned first,
			  uint64_t since)
{
	struct fused_cache *cache = &worker->export->cache;
	const struct fused_reply *reply = &worker->reply;
	struct fused_directory *directory = NULL;
	struct fused_node *node;
	struct fs_attr_reply attr;
	int result = 0;

	if (fused_reply_error(reply, first) != 0)
		return 0;
	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	if (node != NULL)
		directory = fused_directory_get(cache, node);
	if (directory == NULL || fused_reply_attr(worker, first + 1, &attr) == NULL) {
		fused_listing_discard(cache, reply->ops[first].body, reply->ops[first].length);
	} else {
		fused_node_set_attr(cache, node, &attr.attr, attr.attr_valid_ms, since);
		fused_directory_begin(cache, directory, since, 0);
		result = fused_directory_absorb(cache, directory, since, reply->ops[first].body,
						reply->ops[first].length, LOOKUP_LISTING_SIZE,
						attr.attr_valid_ms);
		directory->too_large = !directory->list_ended;
	}
	fused_cache_unlock(cache);
	return result == -EBADMSG ? result : 0;
}

static int adopt_lookup(struct fused_worker *worker, uint64_t parent, const struct fs_entry *entry,
			uint64_t since, struct answer *answer)
{
	struct fused_cache *cache = &worker->export->cache;
	struct fused_node *directory;
	struct fused_node *node;
	int result = 0;
	uint64_t expires = fused_expiry(entry->entry_valid_ms);

	fused_cache_lock(cache);
	directory = fused_node_find(cache, parent);
	if (directory == NULL || directory->changed > since)
		expires = 0;
	if (entry->nodeid == 0) {
		answer_absent(expires, answer);
	} else {
		node = fused_node_adopt(cache, entry, since);
		if (node == NULL) {
			result = -EBADMSG;
		} else {
			answer->error = 0;
			fused_kernel_entry(node, expires, &answer->entry);
		}
	}
	fused_cache_unlock(cache);
	return result;
}

void fused_lookup(struct fused_worker *worker, const struct fused_request *request)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t parent = request->header->nodeid;
	struct fused_frame *frame;
	struct answer answer;
	struct fs_entry entry;
	struct name name;
	uint64_t since;
	bool list;
	int result;

	if (take_name(request, 0, &name, &result) == 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	list = lookup_known(cache, parent, &name, &answer);
	if (answer.known) {
		send_answer(worker, request, &answer);
		return;
	}
	since = fused_cache_now(cache);
	frame = fused_ask(worker);
	fused_frame_parent(frame, FS_LOOKUP, parent, name.text, name.length);
	if (list) {
		fused_frame_list(frame, parent, 0, LOOKUP_LISTING_SIZE, true);
	}
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_fixed(&worker->reply, 0, &entry, sizeof(entry));
	/* The entry first: its lookup must be counted before the listing's can be forgotten. */
	if (result == 0)
		result = adopt_lookup(worker, parent, &entry, since, &answer);
	if (result == 0 && list)
		result = absorb_listing(worker, parent, 1, since);
	if (result == -EBADMSG) {
		fused_malformed(worker);
		result = -EIO;
	}
	if (result != 0)
		fused_answer_error(worker, request, result);
	else
		send_answer(worker, request, &answer);
}

void fused_forget(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_forget_in *forget = request->body;
	struct fused_cache *cache = &worker->export->cache;

	fused_cache_lock(cache);
	fused_node_forget(cache, request->header->nodeid, forget->nlookup);
	fused_cache_unlock(cache);
	fused_export_wake_keeper(worker->export);
}

void fused_batch_forget(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_batch_forget_in *batch = request->body;
	const struct fuse_forget_one *one = (const void *)(batch + 1);
	size_t count = (request->length - sizeof(*batch)) / sizeof(*one);
	struct fused_cache *cache = &worker->export->cache;

	if (batch->count < count)
		count = batch->count;
	fused_cache_lock(cache);
	for (size_t i = 0; i < count; i++)
		fused_node_forget(cache, one[i].nodeid, one[i].nlookup);
	fused_cache_unlock(cache);
	fused_export_wake_keeper(worker->export);
}

/* ---- making ------------------------------------------------------------------------------- */

/* After an error that tells that a name is there, or is not, what was believed of it is wrong. */
static void doubt_directory(struct fused_worker *worker, uint64_t nodeid, int error)
{
	struct fused_cache *cache = &worker->export->cache;
	struct fused_node *node;

	if (error != -EEXIST && error != -ENOENT && error != -ESTALE && error != -EIO &&
	    error != -ENOTDIR && error != -EISDIR)
		return;
	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	if (node != NULL)
		fused_directory_distrust(node->directory);
	fused_cache_unlock(cache);
}

/* Asks for what the kernel will want to know of the directory after the change before it lets
 * anybody use it again. */
static void ask_parent(struct fused_worker *worker, uint64_t parent)
{
	fused_frame_node(&worker->frame, FS_GETATTR, parent, FS_HANDLE_NONE);
}

/* With the lock held: a change to a directory, begun at `since`, is done; operation `index` of
 * the reply is its GETATTR. Returns whether nothing else happened to it. */
static bool directory_changed(struct fused_worker *worker, struct fused_node *directory,
			      uint64_t since, unsigned index)
{
	struct fused_cache *cache = &worker->export->cache;
	bool alone = directory->changed == since;
	uint64_t now = fused_node_touch(cache, directory);
	struct fs_attr_reply attr;

	if (alone && fused_reply_attr(worker, index, &attr) != NULL)
		fused_node_set_attr(cache, directory, &attr.attr, attr.attr_valid_ms, now);
	return alone;
}

/* Takes the new object's entry from operation 0, its directory's attributes from operation 1,
 * and composes the kernel's answer. */
static int adopt_made(struct fused_worker *worker, uint64_t parent, const struct name *name,
		      uint64_t since, const struct fs_entry *entry,
		      struct fuse_entry_out *ret_entry)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t expires = fused_expiry(entry->entry_valid_ms);
	struct fused_node *directory;
	struct fused_node *node;

	fused_cache_lock(cache);
	node = fused_node_adopt(cache, entry, fused_cache_now(cache));
	if (node == NULL) {
		fused_cache_unlock(cache);
		return -EBADMSG;
	}
	/* Nobody but the maker knew it, so only a notice can have changed it. */
	if (cache->unknown_changed > since)
		node->attr_expires = 0;
	directory = fused_node_find(cache, parent);
	if (directory == NULL || !directory_changed(worker, directory, since, 1))
		expires = 0;
	if (directory != NULL && name != NULL)
		fused_directory_add(cache, directory->directory, name->text, name->length, node,
				    expires);
	if (S_ISDIR(entry->attr.mode) && node->attr_expires != 0)
		fused_directory_made(cache, node, entry->attr_valid_ms);
	fused_kernel_entry(node, expires, ret_entry);
	fused_cache_unlock(cache);
	return 0;
}

static void make(struct fused_worker *worker, const struct fused_request *request,
		 enum fs_opcode opcode, const struct name *name, const struct name *target,
		 uint32_t mode)
{
	uint64_t parent = request->header->nodeid;
	uint64_t since = fused_mutating(worker, parent);
	struct fused_frame *frame = fused_ask(worker);
	struct fs_make *make = fused_frame_op(frame, opcode, sizeof(*make));
	struct fuse_entry_out out;
	struct fs_entry entry;
	int result;

	make->parent = parent;
	make->mode = mode;
	make->name_length = (uint16_t)name->length;
	make->target_length = target != NULL ? (uint16_t)target->length : 0;
	fused_frame_bytes(frame, name->text, name->length);
	if (target != NULL)
		fused_frame_bytes(frame, target->text, target->length);
	ask_parent(worker, parent);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_fixed(&worker->reply, 0, &entry, sizeof(entry));
	if (result == 0)
		result = adopt_made(worker, parent, name, since, &entry, &out);
	if (result == 0) {
		fused_answer(worker, request, &out, sizeof(out));
		return;
	}
	if (result == -EBADMSG) {
		fused_malformed(worker);
		result = -EIO;
	}
	fused_mutated(worker, parent, since, NULL);
	doubt_directory(worker, parent, result);
	fused_answer_error(worker, request, result);
}

void fused_mknod(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_mknod_in *in = request->body;
	struct name name;
	int error;

	if (take_name(request, sizeof(*in), &name, &error) == 0)
		fused_answer_error(worker, request, error);
	else if (S_ISCHR(in->mode) || S_ISBLK(in->mode))
		fused_answer_error(worker, request, -EPERM);
	else
		make(worker, request, FS_MKNOD, &name, NULL, in->mode);
}

void fused_mkdir(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_mkdir_in *in = request->body;
	struct name name;
	int error;

	if (take_name(request, sizeof(*in), &name, &error) == 0)
		fused_answer_error(worker, request, error);
	else
		make(worker, request, FS_MKDIR, &name, NULL, in->mode & 07777);
}

void fused_symlink(struct fused_worker *worker, const struct fused_request *request)
{
	struct name name;
	struct name target;
	int error;
	size_t offset = take_name(request, 0, &name, &error);

	if (offset == 0) {
		fused_answer_error(worker, request, error);
		return;
	}
	target.text = (const char *)request->body + offset;
	target.length = strnlen(target.text, request->length - offset);
	if (target.length == 0)
		fused_answer_error(worker, request, -ENOENT);
	else if (target.length > FS_TARGET_MAX)
		fused_answer_error(worker, request, -ENAMETOOLONG);
	else
		make(worker, request, FS_SYMLINK, &name, &target, 0777);
}

void fused_link(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_link_in *in = request->body;
	uint64_t parent = request->header->nodeid;
	struct fuse_entry_out out;
	struct fs_entry entry;
	struct fs_link *link;
	struct name name;
	uint64_t node_since;
	uint64_t since;
	int result;

	if (take_name(request, sizeof(*in), &name, &result) == 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	node_since = fused_mutating(worker, in->oldnodeid);
	since = fused_mutating(worker, parent);
	link = fused_frame_op(fused_ask(worker), FS_LINK, sizeof(*link));
	link->nodeid = in->oldnodeid;
	link->new_parent = parent;
	link->name_length = (uint16_t)name.length;
	fused_frame_bytes(&worker->frame, name.text, name.length);
	ask_parent(worker, parent);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_fixed(&worker->reply, 0, &entry, sizeof(entry));
	fused_mutated(worker, in->oldnodeid, node_since, NULL);
	if (result == 0)
		result = adopt_made(worker, parent, &name, since, &entry, &out);
	if (result == 0) {
		fused_answer(worker, request, &out, sizeof(out));
		return;
	}
	if (result == -EBADMSG) {
		fused_malformed(worker);
		result = -EIO;
	}
	fused_mutated(worker, parent, since, NULL);
	doubt_directory(worker, parent, result);
	fused_answer_error(worker, request, result);
}

/* ---- CREATE and TMPFILE ------------------------------------------------------------------- */

struct created {
	struct fs_entry entry;
	struct fs_open_reply open;
} __attribute__((packed));

static void create(struct fused_worker *worker, const struct fused_request *request,
		   enum fs_opcode opcode, const struct name *name)
{
	const struct fuse_create_in *in = request->body;
	struct fused_cache *cache = &worker->export->cache;
	uint64_t parent = request->header->nodeid;
	uint64_t since = fused_mutating(worker, parent);
	struct fs_make *make = fused_frame_op(fused_ask(worker), opcode, sizeof(*make));
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { 0 };
	struct created created;
	int result;

	make->parent = parent;
	make->mode = in->mode & 07777;
	make->flags = FS_O_READ | FS_O_WRITE;
	if (in->flags & O_EXCL)
		make->flags |= FS_O_EXCLUSIVE;
	if (in->flags & O_TRUNC)
		make->flags |= FS_O_TRUNCATE;
	if (name != NULL) {
		make->name_length = (uint16_t)name->length;
		fused_frame_bytes(&worker->frame, name->text, name->length);
	}
	ask_parent(worker, parent);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_fixed(&worker->reply, 0, &created, sizeof(created));
	if (result == 0)
		result = adopt_made(worker, parent, name, since, &created.entry, &out.entry);
	if (result == 0) {
		fused_cache_lock(cache);
		fused_handle_adopt(cache, created.entry.nodeid, created.open.handle,
				   FS_O_READ | FS_O_WRITE);
		fused_cache_unlock(cache);
		fused_export_wake_keeper(worker->export);
		/* Handles are ours alone; the kernel has none, as for files it opens. */
		out.open.open_flags = FOPEN_KEEP_CACHE;
		fused_answer(worker, request, &out, sizeof(out));
		return;
	}
	if (result == -EBADMSG) {
		fused_malformed(worker);
		result = -EIO;
	}
	fused_mutated(worker, parent, since, NULL);
	doubt_directory(worker, parent, result);
	fused_answer_error(worker, request, result);
}

void fused_create(struct fused_worker *worker, const struct fused_request *request)
{
	struct name name;
	int error;

	if (take_name(request, sizeof(struct fuse_create_in), &name, &error) == 0)
		fused_answer_error(worker, request, error);
	else
		create(worker, request, FS_CREATE, &name);
}

void fused_tmpfile(struct fused_worker *worker, const struct fused_request *request)
{
	create(worker, request, FS_TMPFILE, NULL);
}

/* ---- removing and renaming ---------------------------------------------------------------- */

/* The node that a name is known to stand for; 0 when it is not known. */
static uint64_t known_child(struct fused_worker *worker, uint64_t parent, const struct name *name)
{
	struct fused_cache *cache = &worker->export->cache;
	struct fused_node *node;
	struct fused_node *child = NULL;
	uint64_t nodeid;

	fused_cache_lock(cache);
	node = fused_node_find(cache, parent);
	if (node != NULL)
		child = fused_directory_child(node->directory, name->text, name->length);
	if (child != NULL)
		fused_node_touch(cache, child);
	nodeid = child != NULL ? child->nodeid : 0;
	fused_cache_unlock(cache);
	return nodeid;
}

static void remove_name(struct fused_worker *worker, const struct fused_request *request,
			enum fs_opcode opcode)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t parent = request->header->nodeid;
	struct fused_node *node;
	struct name name;
	uint64_t child;
	uint64_t since;
	int result;

	if (take_name(request, 0, &name, &result) == 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	child = known_child(worker, parent, &name);
	since = fused_mutating(worker, parent);
	fused_frame_parent(fused_ask(worker), opcode, parent, name.text, name.length);
	ask_parent(worker, parent);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	else
		worker->reply.count = 0;
	fused_cache_lock(cache);
	node = fused_node_find(cache, parent);
	if (node != NULL) {
		directory_changed(worker, node, since, 1);
		if (result == 0)
			fused_directory_remove(cache, node->directory, name.text, name.length);
	}
	if (child != 0)
		fused_nodeid_touch(cache, child);
	fused_cache_unlock(cache);
	doubt_directory(worker, parent, result);
	fused_answer_error(worker, request, result);
}

void fused_unlink(struct fused_worker *worker, const struct fused_request *request)
{
	remove_name(worker, request, FS_UNLINK);
}

void fused_rmdir(struct fused_worker *worker, const struct fused_request *request)
{
	remove_name(worker, request, FS_RMDIR);
}

/* Moves what is known along. `moved` and `replaced` are 0 when not known. */
static void rename_known(struct fused_cache *cache, uint64_t old_parent,
			 const struct name *old_name, uint64_t new_parent,
			 const struct name *new_name, uint64_t moved, uint64_t replaced,
			 bool exchange)
{
	struct fused_node *from = fused_node_find(cache, old_parent);
	struct fused_node *to = fused_node_find(cache, new_parent);
	struct fused_node *node = moved != 0 ? fused_node_find(cache, moved) : NULL;
	struct fused_node *other = replaced != 0 ? fused_node_find(cache, replaced) : NULL;
	uint64_t expires = FUSED_FOREVER;

	if (from == NULL || to == NULL || node == NULL || (exchange && other == NULL)) {
		if (from != NULL)
			fused_directory_distrust(from->directory);
		if (to != NULL)
			fused_directory_distrust(to->directory);
		return;
	}
	if (from->directory != NULL && from->directory->expires < expires)
		expires = from->directory->expires;
	if (to->directory != NULL && to->directory->expires < expires)
		expires = to->directory->expires;
	/* Both are kept alive while they have no name. */
	node->entry_count++;
	if (other != NULL)
		other->entry_count++;
	fused_directory_remove(cache, from->directory, old_name->text, old_name->length);
	fused_directory_remove(cache, to->directory, new_name->text, new_name->length);
	fused_directory_add(cache, to->directory, new_name->text, new_name->length, node, expires);
	if (exchange)
		fused_directory_add(cache, from->directory, old_name->text, old_name->length, other,
				    expires);
	node->entry_count--;
	fused_node_unreferenced(cache, node);
	if (other != NULL) {
		other->entry_count--;
		fused_node_unreferenced(cache, other);
	}
}

static void rename_to(struct fused_worker *worker, const struct fused_request *request,
		      uint64_t new_parent, size_t names_at, uint32_t flags)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t old_parent = request->header->nodeid;
	struct fs_rename *rename;
	struct fs_attr_reply attr;
	struct name old_name;
	struct name new_name;
	struct fused_node *node;
	uint64_t moved;
	uint64_t replaced;
	uint64_t since = 0;
	uint64_t from_since;
	uint64_t to_since;
	size_t offset;
	int result;

	offset = take_name(request, names_at, &old_name, &result);
	if (offset != 0)
		offset = take_name(request, offset, &new_name, &result);
	if (offset == 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	moved = known_child(worker, old_parent, &old_name);
	replaced = known_child(worker, new_parent, &new_name);
	if (moved != 0)
		since = fused_mutating(worker, moved);
	from_since = fused_mutating(worker, old_parent);
	to_since = new_parent == old_parent ? from_since : fused_mutating(worker, new_parent);
	rename = fused_frame_op(fused_ask(worker), FS_RENAME, sizeof(*rename));
	rename->parent = old_parent;
	rename->new_parent = new_parent;
	rename->flags = flags;
	rename->name_length = (uint16_t)old_name.length;
	rename->new_name_length = (uint16_t)new_name.length;
	fused_frame_bytes(&worker->frame, old_name.text, old_name.length);
	fused_frame_bytes(&worker->frame, new_name.text, new_name.length);
	ask_parent(worker, old_parent);
	ask_parent(worker, new_parent);
	if (moved != 0)
		fused_frame_node(&worker->frame, FS_GETATTR, moved, FS_HANDLE_NONE);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	else
		worker->reply.count = 0;
	fused_cache_lock(cache);
	node = fused_node_find(cache, old_parent);
	if (node != NULL)
		directory_changed(worker, node, from_since, 1);
	node = new_parent != old_parent ? fused_node_find(cache, new_parent) : NULL;
	if (node != NULL)
		directory_changed(worker, node, to_since, 2);
	if (replaced != 0)
		fused_nodeid_touch(cache, replaced);
	if (result == 0)
		rename_known(cache, old_parent, &old_name, new_parent, &new_name, moved, replaced,
			     (flags & FS_RENAME_EXCHANGE) != 0);
	fused_cache_unlock(cache);
	if (moved != 0)
		fused_mutated(worker, moved, since,
			      result == 0 ? fused_reply_attr(worker, 3, &attr) : NULL);
	doubt_directory(worker, old_parent, result);
	doubt_directory(worker, new_parent, result);
	fused_answer_error(worker, request, result);
}

void fused_rename(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_rename_in *in = request->body;

	rename_to(worker, request, in->newdir, sizeof(*in), 0);
}

void fused_rename2(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_rename2_in *in = request->body;
	uint32_t flags = 0;

	if ((in->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) {
		fused_answer_error(worker, request, -EINVAL);
		return;
	}
	if (in->flags & RENAME_NOREPLACE)
		flags |= FS_RENAME_NOREPLACE;
	if (in->flags & RENAME_EXCHANGE)
		flags |= FS_RENAME_EXCHANGE;
	rename_to(worker, request, in->newdir, sizeof(*in), flags);
}
