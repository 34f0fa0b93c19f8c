#include "fsserver/handle_table.h"
#include "fsserver/node_table.h"

#include "wire/fs.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct quota quota;
static struct descriptor_budget budget;
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
	budget = (struct descriptor_budget){ .max = 1000 };
	ck_assert_int_eq(node_table_new(&quota, &budget, &(struct node_table_owner){ 0 }, &table),
			 0);
	root = add(1);
}

static void tear_down(void)
{
	node_table_free(table);
	ck_assert_uint_eq(quota.used, 0);
	ck_assert_uint_eq(budget.used, 0);
	ck_assert_ptr_null(budget.tables);
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
	ck_assert(!node_table_has_room(table));
	ck_assert_int_eq(node_table_add(table, &key, S_IFREG, some_fd(), &node), -ENFILE);
}
END_TEST

/* Cools whatever it is asked about, except what refuse_ino says. */
static uint64_t refuse_ino;
static unsigned cooled;

static bool cool(struct node *node, void *context, struct node_cold *ret_cold)
{
	char path[32];

	(void)context;
	if (node->key.ino == refuse_ino)
		return false;
	snprintf(path, sizeof(path), "d/%llu", (unsigned long long)node->key.ino);
	*ret_cold = (struct node_cold){ .path = strdup(path), .birth = 42 };
	cooled++;
	return true;
}

static struct node_table *cooling_table(uint64_t descriptors)
{
	struct node_table *made;

	budget.max = budget.used + descriptors;
	refuse_ino = 0;
	cooled = 0;
	ck_assert_int_eq(
		node_table_new(&quota, &budget, &(struct node_table_owner){ .cool = cool }, &made),
		0);
	return made;
}

static struct node *add_to(struct node_table *to, uint64_t ino)
{
	struct node_key key = { .mount = 1, .device = 2, .ino = ino };
	struct node *node = NULL;

	if (node_table_add(to, &key, S_IFREG, some_fd(), &node))
		return NULL;
	node_remember(node);
	return node;
}

START_TEST(nodes_beyond_the_descriptors_become_cold)
{
	struct node_table *many = cooling_table(10);
	struct node *nodes[500];

	for (unsigned i = 0; i < 500; i++) {
		nodes[i] = add_to(many, 100 + i);
		ck_assert_ptr_nonnull(nodes[i]);
	}
	ck_assert_uint_eq(node_table_count(many), 500);
	ck_assert_uint_eq(node_table_warm_count(many), 10);
	ck_assert_uint_eq(budget.used, budget.max);
	/* The root stays, and beside it the newest. */
	ck_assert_int_ge(nodes[0]->fd, 0);
	for (unsigned i = 491; i < 500; i++)
		ck_assert_int_ge(nodes[i]->fd, 0);
	ck_assert_int_eq(nodes[1]->fd, -1);
	ck_assert_str_eq(nodes[1]->place.cold.path, "d/101");
	ck_assert_int_eq(node_table_warm(many, nodes[1], some_fd()), 0);
	ck_assert_int_ge(nodes[1]->fd, 0);
	ck_assert_uint_eq(node_table_warm_count(many), 10);
	node_table_free(many);
}
END_TEST

START_TEST(what_is_in_use_stays_warm)
{
	struct node_table *many = cooling_table(6);
	struct node *first = add_to(many, 100);
	struct node *referenced = add_to(many, 101);
	struct node *refused = add_to(many, 102);
	struct node *operated = add_to(many, 103);
	struct node *used = add_to(many, 104);
	struct node *idle = add_to(many, 105);

	refuse_ino = 102;
	node_reference(referenced);
	node_table_used(many, used);
	node_table_begin(many);
	node_table_used(many, operated);
	ck_assert_ptr_nonnull(add_to(many, 106));
	ck_assert_int_eq(idle->fd, -1);
	ck_assert_ptr_nonnull(add_to(many, 107));
	ck_assert_ptr_nonnull(add_to(many, 108));
	/* A chance more, but no more than that. */
	ck_assert_int_eq(used->fd, -1);
	ck_assert_int_ge(first->fd, 0);
	ck_assert_int_ge(referenced->fd, 0);
	ck_assert_int_ge(refused->fd, 0);
	ck_assert_int_ge(operated->fd, 0);
	node_unreference(many, referenced);
	node_table_free(many);
}
END_TEST

START_TEST(no_descriptor_to_be_had_is_said)
{
	struct node_table *many = cooling_table(3);
	struct node_key key = { .ino = 200 };
	struct node *node;

	for (unsigned i = 0; i < 3; i++)
		node_reference(add_to(many, 100 + i));
	ck_assert(!node_table_has_room(many));
	ck_assert_int_eq(node_table_add(many, &key, S_IFREG, some_fd(), &node), -ENFILE);
	node_table_free(many);
}
END_TEST

START_TEST(the_table_with_most_gives_first)
{
	struct node_table *large = cooling_table(20);
	struct node_table *small = cooling_table(20);

	for (unsigned i = 0; i < 17; i++)
		add_to(large, 100 + i);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_ptr_nonnull(add_to(small, 100 + i));
	ck_assert_uint_eq(node_table_warm_count(small), 8);
	ck_assert_uint_eq(node_table_warm_count(large), 12);
	node_table_free(small);
	node_table_free(large);
}
END_TEST

START_TEST(a_cold_node_is_that_of_its_birth)
{
	struct node_table *many = cooling_table(3);
	struct statx stat = { .stx_ino = 101,
			      .stx_mnt_id = 1,
			      .stx_dev_minor = 2,
			      .stx_mode = S_IFREG,
			      .stx_mask = STATX_BTIME,
			      .stx_btime = { .tv_nsec = 42 } };
	struct node *old;

	add_to(many, 100);
	old = add_to(many, 101);
	ck_assert_ptr_eq(node_table_find_inode(many, &stat), old);
	add_to(many, 102);
	add_to(many, 103);
	ck_assert_int_eq(old->fd, -1);
	ck_assert_ptr_null(node_table_find(many, &old->key));
	ck_assert_ptr_eq(node_table_find_inode(many, &stat), old);
	stat.stx_btime.tv_nsec = 43;
	ck_assert_ptr_null(node_table_find_inode(many, &stat));
	node_table_free(many);
}
END_TEST

START_TEST(cold_nodes_follow_what_the_guest_moves)
{
	struct node_table *many = cooling_table(3);
	struct node *node;

	add_to(many, 100);
	node = add_to(many, 1);
	for (unsigned i = 0; i < 3; i++)
		add_to(many, 101 + i);
	ck_assert_str_eq(node->place.cold.path, "d/1");
	node_table_moved(many, "d/", "x", false);
	node_table_moved(many, "d/10", "x", false);
	node_table_moved(many, "e", "x", false);
	ck_assert_str_eq(node->place.cold.path, "d/1");
	node_table_moved(many, "d", "e/long/name", false);
	ck_assert_str_eq(node->place.cold.path, "e/long/name/1");
	node_table_moved(many, "other", "e", true);
	ck_assert_str_eq(node->place.cold.path, "other/long/name/1");
	node_table_moved(many, "other/long/name/1", "f", false);
	ck_assert_str_eq(node->place.cold.path, "f");
	node_table_free(many);
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
	tcase_add_test(tests, nodes_beyond_the_descriptors_become_cold);
	tcase_add_test(tests, what_is_in_use_stays_warm);
	tcase_add_test(tests, no_descriptor_to_be_had_is_said);
	tcase_add_test(tests, the_table_with_most_gives_first);
	tcase_add_test(tests, a_cold_node_is_that_of_its_birth);
	tcase_add_test(tests, cold_nodes_follow_what_the_guest_moves);
	tcase_add_test(tests, handles_keep_their_nodes);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
