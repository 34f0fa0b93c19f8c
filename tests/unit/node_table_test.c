#include "fsserver/handle_table.h"
#include "fsserver/node_table.h"

#include "wire/fs.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static struct quota quota;
static struct node_table *table;
static struct node *root;

static int some_fd(void)
{
	int fd = open("/", O_PATH | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static struct node *add(uint64_t ino)
{
	struct node_key key = { .mount = 1, .device = 2, .ino = ino };
	struct node *node;

	ck_assert_int_eq(node_table_add(table, &key, S_IFREG, some_fd(), &node), 0);
	return node;
}

static void set_up(void)
{
	quota = (struct quota){ .max = 1000 };
	ck_assert_int_eq(node_table_new(&quota, NULL, NULL, &table), 0);
	root = add(1);
}

static void tear_down(void)
{
	node_table_free(table);
	ck_assert_uint_eq(quota.used, 0);
}

START_TEST(the_first_node_is_the_root)
{
	ck_assert_uint_eq(root->id, FS_NODE_ROOT);
	node_forget(table, root, UINT64_MAX);
	ck_assert_ptr_eq(node_table_get(table, FS_NODE_ROOT), root);
}
END_TEST

START_TEST(ids_are_not_issued_twice)
{
	uint64_t seen[200];

	for (unsigned i = 0; i < 200; i++) {
		struct node *node = add(7);

		seen[i] = node->id;
		for (unsigned j = 0; j < i; j++)
			ck_assert_uint_ne(seen[j], seen[i]);
		node_remember(node);
		ck_assert(node_forget(table, node, 1));
		ck_assert_ptr_null(node_table_get(table, seen[i]));
	}
}
END_TEST

START_TEST(forged_forgets_free_nothing_in_use)
{
	struct node *node = add(7);
	uint64_t id = node->id;

	node_remember(node);
	node_reference(node);
	ck_assert(!node_forget(table, node, UINT64_MAX));
	ck_assert_ptr_eq(node_table_get(table, id), node);
	ck_assert(!node_forget(table, node, 1));
	node_unreference(table, node);
	ck_assert_ptr_null(node_table_get(table, id));
}
END_TEST

START_TEST(one_inode_is_one_node)
{
	struct node *nodes[500];

	for (unsigned i = 0; i < 500; i++) {
		nodes[i] = add(100 + i);
		node_remember(nodes[i]);
	}
	for (unsigned i = 0; i < 500; i++) {
		struct node_key key = nodes[i]->key;

		ck_assert_ptr_eq(node_table_find(table, &key), nodes[i]);
		key.mount++;
		ck_assert_ptr_null(node_table_find(table, &key));
	}
	node_table_forget_all(table);
	ck_assert_uint_eq(node_table_count(table), 1);
}
END_TEST

START_TEST(the_quota_holds)
{
	struct node_key key = { .ino = 9 };
	struct node *node;

	quota.max = quota.used + 1;
	add(8);
	ck_assert(!node_table_has_room(table, 1));
	ck_assert_int_eq(node_table_add(table, &key, S_IFREG, some_fd(), &node), -ENFILE);
}
END_TEST

START_TEST(handles_keep_their_nodes)
{
	struct quota handle_quota = { .max = 1 };
	struct handle_table handles;
	struct handle *handle;
	struct handle *second;
	struct node *node = add(7);
	uint64_t node_id = node->id;
	uint64_t id;

	handle_table_init(&handles, &handle_quota);
	ck_assert_int_eq(handle_table_add(&handles, node, some_fd(), &handle), 0);
	ck_assert_int_eq(handle_table_add(&handles, node, some_fd(), &second), -ENFILE);
	id = handle->id;
	ck_assert_uint_ne(id, FS_HANDLE_NONE);
	ck_assert_ptr_eq(handle_table_get(&handles, id), handle);
	node_remember(node);
	node_forget(table, node, 1);
	ck_assert_ptr_eq(node_table_get(table, node_id), node);
	/* In use by an operation while the guest releases it. */
	handle_reference(handle);
	handle_table_remove(&handles, handle);
	ck_assert_ptr_null(handle_table_get(&handles, id));
	handle_unreference(&handles, table, handle);
	ck_assert_uint_eq(handle_quota.used, 1);
	handle_unreference(&handles, table, handle);
	ck_assert_uint_eq(handle_quota.used, 0);
	ck_assert_ptr_null(node_table_get(table, node_id));
	handle_table_free(&handles);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("node_table");
	TCase *tests = tcase_create("tables");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, the_first_node_is_the_root);
	tcase_add_test(tests, ids_are_not_issued_twice);
	tcase_add_test(tests, forged_forgets_free_nothing_in_use);
	tcase_add_test(tests, one_inode_is_one_node);
	tcase_add_test(tests, the_quota_holds);
	tcase_add_test(tests, handles_keep_their_nodes);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
