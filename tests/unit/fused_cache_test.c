/* What guest-fused knows without asking: nodes, directories, contents; frames; options. */
#include "guest-fused/cache.h"
#include "guest-fused/directory.h"
#include "guest-fused/frame.h"
#include "guest-fused/options.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct fused_cache cache;

static void set_up(void)
{
	ck_assert_int_eq(fused_cache_init(&cache), 0);
	fused_node_get(&cache, FS_NODE_ROOT)->kernel_lookups = 1;
}

static void tear_down(void)
{
	fused_cache_destroy(&cache);
}

static struct fused_node *root(void)
{
	return fused_node_find(&cache, FS_NODE_ROOT);
}

static struct fs_entry entry_of(uint64_t nodeid, uint32_t valid_ms)
{
	return (struct fs_entry){
		.nodeid = nodeid,
		.attr = { .ino = nodeid, .mode = S_IFREG | 0644, .size = 5 },
		.entry_valid_ms = valid_ms,
		.attr_valid_ms = valid_ms,
	};
}

/* Appends a listed entry to `body`. */
static size_t put_listed(uint8_t *body, size_t at, const char *name, uint64_t nodeid, uint64_t next)
{
	struct fs_entry entry = entry_of(nodeid, UINT32_MAX);
	struct fs_dirent dirent = {
		.next = next,
		.ino = nodeid,
		.type = 8,
		.name_length = (uint16_t)strlen(name),
		.has_entry = 1,
	};

	memcpy(body + at, &dirent, sizeof(dirent));
	at += sizeof(dirent);
	memcpy(body + at, &entry, sizeof(entry));
	at += sizeof(entry);
	memcpy(body + at, name, strlen(name));
	return at + strlen(name);
}

/* A directory of two: a (10) and b (11). */
static struct fused_directory *listed_root(void)
{
	struct fused_directory *directory = fused_directory_get(&cache, root());
	uint8_t body[1024];
	size_t length = put_listed(body, 0, "a", 10, 100);

	length = put_listed(body, length, "b", 11, 200);
	fused_directory_begin(&cache, directory, fused_cache_now(&cache), 0);
	ck_assert_int_eq(fused_directory_absorb(&cache, directory, fused_cache_now(&cache), body,
						length, 65536, UINT32_MAX),
			 0);
	return directory;
}

START_TEST(forgets_when_nobody_refers)
{
	struct fs_entry entry = entry_of(7, UINT32_MAX);
	struct fused_node *node = fused_node_adopt(&cache, &entry, fused_cache_now(&cache));

	fused_node_adopt(&cache, &entry, fused_cache_now(&cache));
	node->kernel_lookups = 3;
	fused_node_forget(&cache, 7, 2);
	ck_assert_ptr_nonnull(fused_node_find(&cache, 7));
	ck_assert_uint_eq(cache.forget_count, 0);
	fused_node_forget(&cache, 7, 1);
	ck_assert_ptr_null(fused_node_find(&cache, 7));
	ck_assert_uint_eq(cache.forget_count, 1);
	ck_assert_uint_eq(cache.forgets[0].nodeid, 7);
	ck_assert_uint_eq(cache.forgets[0].lookups, 2);
	/* More than it had, and of what is not known. */
	fused_node_forget(&cache, 7, 5);
	fused_node_forget(&cache, FS_NODE_ROOT, 1000);
	ck_assert_ptr_nonnull(root());
}
END_TEST

START_TEST(refuses_insane_nodes)
{
	struct fs_entry entry = entry_of(FS_NODE_ROOT, 0);

	ck_assert_ptr_null(fused_node_adopt(&cache, &entry, 0));
	entry.nodeid = FS_NODE_PREVIOUS;
	ck_assert_ptr_null(fused_node_adopt(&cache, &entry, 0));
}
END_TEST

START_TEST(overtaken_attributes_expire)
{
	struct fs_entry entry = entry_of(7, UINT32_MAX);
	uint64_t since = fused_cache_now(&cache);
	struct fused_node *node = fused_node_adopt(&cache, &entry, since);

	ck_assert_uint_eq(node->attr_expires, FUSED_FOREVER);
	fused_node_touch(&cache, node);
	ck_assert_uint_eq(node->attr_expires, 0);
	ck_assert(!fused_node_set_attr(&cache, node, &entry.attr, UINT32_MAX, since));
	ck_assert_uint_eq(node->attr_expires, 0);
	ck_assert(fused_node_set_attr(&cache, node, &entry.attr, UINT32_MAX,
				      fused_cache_now(&cache)));
	ck_assert_uint_eq(node->attr_expires, FUSED_FOREVER);
}
END_TEST

START_TEST(a_notice_of_an_unknown_node_counts)
{
	struct fs_entry entry = entry_of(9, UINT32_MAX);
	uint64_t since = fused_cache_now(&cache);

	fused_nodeid_touch(&cache, 9);
	ck_assert_uint_eq(fused_node_adopt(&cache, &entry, since)->attr_expires, 0);
}
END_TEST

START_TEST(foreign_changes_make_content_stale)
{
	struct fs_entry entry = entry_of(7, 1000);
	struct fused_node *node = fused_node_adopt(&cache, &entry, fused_cache_now(&cache));

	node->kernel_lookups = 1;
	fused_node_set_attr(&cache, node, &entry.attr, 1000, fused_cache_now(&cache));
	ck_assert_uint_eq(cache.stale_count, 0);
	entry.attr.mtime_nsec = 1;
	fused_node_set_attr(&cache, node, &entry.attr, 1000, fused_cache_now(&cache));
	ck_assert_uint_eq(cache.stale_count, 1);
	ck_assert_uint_eq(cache.stale[0], 7);
}
END_TEST

START_TEST(listed_directories_answer)
{
	struct fused_directory *directory = listed_root();
	struct fused_entry *entry;

	ck_assert(directory->complete);
	ck_assert_int_eq(fused_directory_lookup(directory, "a", 1, &entry), FUSED_PRESENT);
	ck_assert_uint_eq(entry->node->nodeid, 10);
	ck_assert_int_eq(fused_directory_lookup(directory, "c", 1, &entry), FUSED_ABSENT);
	ck_assert_int_eq(fused_directory_position(directory, 0), 0);
	ck_assert_int_eq(fused_directory_position(directory, 100), 1);
	ck_assert_int_eq(fused_directory_position(directory, 200), 2);
	ck_assert_int_eq(fused_directory_position(directory, 300), -1);
}
END_TEST

START_TEST(own_changes_are_followed)
{
	struct fused_directory *directory = listed_root();
	struct fs_entry made = entry_of(12, UINT32_MAX);
	struct fused_node *node = fused_node_adopt(&cache, &made, fused_cache_now(&cache));
	struct fused_entry *entry;

	fused_directory_add(&cache, directory, "c", 1, node, FUSED_FOREVER);
	ck_assert_int_eq(fused_directory_lookup(directory, "c", 1, &entry), FUSED_PRESENT);
	ck_assert(directory->list_stale);
	fused_directory_remove(&cache, directory, "a", 1);
	ck_assert_int_eq(fused_directory_lookup(directory, "a", 1, &entry), FUSED_ABSENT);
	ck_assert_ptr_null(fused_node_find(&cache, 10));
	/* A reader that stands after the removed one finds its place. */
	ck_assert_int_eq(fused_directory_position(directory, 100), 1);
	/* Replacing. */
	fused_directory_add(&cache, directory, "b", 1, node, FUSED_FOREVER);
	ck_assert_ptr_null(fused_node_find(&cache, 11));
	ck_assert_ptr_eq(fused_directory_child(directory, "b", 1), node);
}
END_TEST

START_TEST(a_changed_name_is_asked_for)
{
	struct fused_directory *directory = listed_root();
	struct fused_entry *entry;

	fused_directory_name_changed(&cache, directory, "a", 1);
	ck_assert_int_eq(fused_directory_lookup(directory, "a", 1, &entry), FUSED_UNKNOWN);
	ck_assert_int_eq(fused_directory_lookup(directory, "z", 1, &entry), FUSED_UNKNOWN);
	ck_assert_int_eq(fused_directory_lookup(directory, "b", 1, &entry), FUSED_PRESENT);
	fused_directory_distrust(directory);
	ck_assert_int_eq(fused_directory_lookup(directory, "b", 1, &entry), FUSED_UNKNOWN);
}
END_TEST

START_TEST(an_overtaken_listing_is_not_complete)
{
	struct fused_directory *directory = fused_directory_get(&cache, root());
	uint64_t since = fused_cache_now(&cache);
	struct fused_entry *entry;
	uint8_t body[256];
	size_t length = put_listed(body, 0, "a", 10, 100);

	fused_node_touch(&cache, root());
	fused_directory_begin(&cache, directory, since, 0);
	ck_assert_int_eq(
		fused_directory_absorb(&cache, directory, since, body, length, 65536, UINT32_MAX),
		0);
	ck_assert(!directory->complete);
	ck_assert_int_eq(fused_directory_lookup(directory, "a", 1, &entry), FUSED_UNKNOWN);
	ck_assert_int_eq(fused_directory_lookup(directory, "z", 1, &entry), FUSED_UNKNOWN);
}
END_TEST

START_TEST(malformed_listings_are_refused)
{
	struct fused_directory *directory = fused_directory_get(&cache, root());
	uint8_t body[256];
	size_t length = put_listed(body, 0, "a", 10, 100);

	for (size_t cut = 1; cut < length; cut++) {
		fused_directory_begin(&cache, directory, 0, 0);
		ck_assert_int_eq(fused_directory_absorb(&cache, directory, 0, body, cut, 65536, 0),
				 -EBADMSG);
	}
	body[length - 1] = '/';
	ck_assert_int_eq(fused_directory_absorb(&cache, directory, 0, body, length, 65536, 0),
			 -EBADMSG);
	ck_assert_uint_eq(directory->list_count, 0);
}
END_TEST

START_TEST(contents_are_bounded)
{
	static uint8_t data[FUSED_CONTENT_FILE_MAX];
	struct fused_node *first = NULL;

	for (uint64_t id = 10; id < 10 + FUSED_CONTENT_MAX / sizeof(data) + 5; id++) {
		struct fs_entry entry = entry_of(id, UINT32_MAX);
		struct fused_node *node;

		entry.attr.size = sizeof(data);
		node = fused_node_adopt(&cache, &entry, fused_cache_now(&cache));
		node->kernel_lookups = 1;
		fused_content_set(&cache, node, data, sizeof(data) - 1);
		ck_assert_ptr_null(node->content);
		fused_content_set(&cache, node, data, sizeof(data));
		ck_assert_ptr_nonnull(node->content);
		ck_assert_uint_le(cache.content_total, FUSED_CONTENT_MAX);
		if (first == NULL)
			first = node;
	}
	ck_assert_ptr_null(first->content);
}
END_TEST

START_TEST(handles_are_given_back)
{
	struct fs_entry entry = entry_of(7, UINT32_MAX);
	struct fused_node *node = fused_node_adopt(&cache, &entry, fused_cache_now(&cache));

	node->kernel_lookups = 1;
	fused_handle_adopt(&cache, 7, 70, FS_O_WRITE);
	ck_assert_uint_eq(fused_handle_take(&cache, 7, FS_O_READ), FS_HANDLE_NONE);
	ck_assert_uint_eq(fused_handle_take(&cache, 7, FS_O_WRITE), 70);
	ck_assert_uint_eq(fused_handle_expire(&cache, UINT64_MAX), 1);
	fused_handle_put(&cache, 7);
	/* A second one is closed at once. */
	fused_handle_adopt(&cache, 7, 71, FS_O_WRITE);
	ck_assert_uint_eq(cache.forget_count, 1);
	ck_assert_uint_eq(cache.forgets[0].handle, 71);
	/* One that could not be opened again stays. */
	node->attr.mode = S_IFREG | 0444;
	ck_assert_uint_eq(fused_handle_expire(&cache, UINT64_MAX), 0);
	ck_assert_uint_eq(node->handle, 70);
	node->attr.mode = S_IFREG | 0644;
	fused_handle_expire(&cache, UINT64_MAX);
	ck_assert_uint_eq(node->handle, FS_HANDLE_NONE);
	ck_assert_uint_eq(cache.forgets[1].handle, 70);
}
END_TEST

START_TEST(frames_are_as_the_protocol_says)
{
	struct fused_frame *frame = malloc(sizeof(*frame));
	struct fs_frame header;
	struct byte_reader reader;
	struct fs_request *request = malloc(sizeof(*request));
	struct fs_io *io;
	uint8_t wire[512];

	fused_frame_begin(frame);
	fused_frame_parent(frame, FS_LOOKUP, 5, "name", 4);
	io = fused_frame_op(frame, FS_WRITE, sizeof(*io));
	io->nodeid = 6;
	io->size = 3;
	fused_frame_external(frame, "xyz", 3);
	fused_frame_node(frame, FS_GETATTR, 6, FS_HANDLE_NONE);
	fused_frame_finish(frame, 77, 0);
	memcpy(wire, frame->bytes, frame->external_at);
	memcpy(wire + frame->external_at, "xyz", 3);
	memcpy(wire + frame->external_at + 3, frame->bytes + frame->external_at,
	       frame->length - frame->external_at);
	memcpy(&header, wire, sizeof(header));
	ck_assert_int_eq(fs_frame_check(&header), 0);
	ck_assert_uint_eq(header.length, frame->length + 3);
	ck_assert_uint_eq(header.tag, 77);
	byte_reader_init(&reader, wire + sizeof(header), header.length - sizeof(header));
	ck_assert_int_eq(fs_request_decode(&reader, request), 0);
	ck_assert_str_eq(request->name, "name");
	ck_assert_int_eq(fs_request_decode(&reader, request), 0);
	ck_assert_mem_eq(request->data, "xyz", 3);
	ck_assert_int_eq(fs_request_decode(&reader, request), 0);
	ck_assert_int_eq(request->opcode, FS_GETATTR);
	ck_assert(byte_reader_done(&reader));
	free(request);
	free(frame);
}
END_TEST

START_TEST(replies_are_checked)
{
	struct fused_frame *frame = malloc(sizeof(*frame));
	struct fused_reply *reply = malloc(sizeof(*reply));
	struct fs_frame header = { .length = 40, .op_count = 2, .tag = 9 };
	struct fs_op_reply first = { .opcode = FS_READ, .length = 8 };
	struct fs_op_reply second = { .opcode = FS_GETATTR, .error = ENOSYS };
	uint8_t wire[40] = { 0 };

	fused_frame_begin(frame);
	fused_frame_op(frame, FS_READ, sizeof(struct fs_io));
	fused_frame_node(frame, FS_GETATTR, 1, 0);
	fused_frame_node(frame, FS_GETATTR, 1, 0);
	memcpy(wire, &header, sizeof(header));
	memcpy(wire + 16, &first, sizeof(first));
	memcpy(wire + 32, &second, sizeof(second));
	ck_assert_int_eq(fused_reply_parse(frame, 9, wire, 40, reply), 0);
	ck_assert_int_eq(fused_reply_error(reply, 0), 0);
	/* ENOSYS would have the kernel never ask again. */
	ck_assert_int_eq(fused_reply_error(reply, 1), -EOPNOTSUPP);
	ck_assert_int_eq(fused_reply_error(reply, 2), -EOPNOTSUPP);
	ck_assert_int_eq(fused_reply_parse(frame, 8, wire, 40, reply), -EBADMSG);
	ck_assert_int_eq(fused_reply_parse(frame, 9, wire, 39, reply), -EBADMSG);
	second.error = 0; /* then the third is missing */
	memcpy(wire + 32, &second, sizeof(second));
	ck_assert_int_eq(fused_reply_parse(frame, 9, wire, 40, reply), -EBADMSG);
	free(reply);
	free(frame);
}
END_TEST

START_TEST(options_are_strict)
{
	static const char *const bad[][6] = {
		{ "guest-fused", "--unix-socket", "/s" },
		{ "guest-fused", "--export", "1:/m:rw" },
		{ "guest-fused", "--unix-socket", "/s", "--export", "0:/m:rw" },
		{ "guest-fused", "--unix-socket", "/s", "--export", "64:/m:rw" },
		{ "guest-fused", "--unix-socket", "/s", "--export", "1:m:rw" },
		{ "guest-fused", "--unix-socket", "/s", "--export", "1:/m:rx" },
		{ "guest-fused", "--unix-socket", "/s", "--export", "1:/m" },
		{ "guest-fused", "--unix-socket", "/s", "--nonsense", "1" },
		{ "guest-fused", "--vsock-port", "x1", "--export", "1:/m:rw" },
	};
	static const char *const good[] = { "guest-fused", "--vsock-port", "1026", "--export",
					    "3:/a:b:ro",   "--ready-fd",   "5",	   "-f" };
	struct fused_options *options = malloc(sizeof(*options));
	char error[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char *arguments[6];
		int count = 0;

		while (count < 6 && bad[i][count] != NULL) {
			arguments[count] = strdup(bad[i][count]);
			count++;
		}
		ck_assert_int_eq(
			fused_options_parse(count, arguments, options, error, sizeof(error)),
			-EINVAL);
		while (count > 0)
			free(arguments[--count]);
	}
	char *arguments[8];
	for (int i = 0; i < 8; i++)
		arguments[i] = strdup(good[i]);
	ck_assert_int_eq(fused_options_parse(8, arguments, options, error, sizeof(error)), 0);
	ck_assert_int_eq(options->vsock_port, 1026);
	ck_assert_int_eq(options->ready_fd, 5);
	ck_assert_uint_eq(options->exports[0].id, 3);
	ck_assert_str_eq(options->exports[0].mountpoint, "/a:b");
	ck_assert(options->exports[0].read_only);
	for (int i = 0; i < 8; i++)
		free(arguments[i]);
	free(options);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fused_cache");
	TCase *known = tcase_create("cache");
	TCase *plain = tcase_create("plain");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(known, set_up, tear_down);
	tcase_add_test(known, forgets_when_nobody_refers);
	tcase_add_test(known, refuses_insane_nodes);
	tcase_add_test(known, overtaken_attributes_expire);
	tcase_add_test(known, a_notice_of_an_unknown_node_counts);
	tcase_add_test(known, foreign_changes_make_content_stale);
	tcase_add_test(known, listed_directories_answer);
	tcase_add_test(known, own_changes_are_followed);
	tcase_add_test(known, a_changed_name_is_asked_for);
	tcase_add_test(known, an_overtaken_listing_is_not_complete);
	tcase_add_test(known, malformed_listings_are_refused);
	tcase_add_test(known, contents_are_bounded);
	tcase_add_test(known, handles_are_given_back);
	tcase_add_test(plain, frames_are_as_the_protocol_says);
	tcase_add_test(plain, replies_are_checked);
	tcase_add_test(plain, options_are_strict);
	suite_add_tcase(suite, known);
	suite_add_tcase(suite, plain);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
