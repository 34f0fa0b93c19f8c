/* What the tests of proxy/secret_filter.h share: a store of one secret of each kind, and what is
 * bound to the host of two of them. */
#ifndef TESTS_UNIT_SECRET_FILTER_WORLD_H
#define TESTS_UNIT_SECRET_FILTER_WORLD_H

#include <check.h>

#include "tests/unit/secret_fixture.h"

#define PREFIX "sk-ant-api03-" /* which the placeholder shares */
#define VALUE PREFIX "Ab/C012+def345Ghi"

enum { KEY, OTHER, BODY, DECOY };

static const struct fixture_secret usual[] = {
	[KEY] = { .name = "KEY", .value = VALUE, .host = "api.test" },
	[OTHER] = { .name = "OTHER", .value = "another-secret-0123", .host = "other.test" },
	[BODY] = { .name = "BODY",
		   .value = "pa/ss\"word\\0123",
		   .host = "api.test",
		   .flags = SECRET_FLAG_BODY },
	[DECOY] = { .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
};

static struct secret_store *store;
static struct secret_set bound;

static inline void build(void)
{
	struct host_name host;

	store = fixture_store(usual, ARRAY_LENGTH(usual));
	ck_assert_ptr_nonnull(store);
	ck_assert_int_eq(host_name_parse("api.test", 8, &host), 0);
	secret_store_bound(store, &host, 443, &bound);
}

static inline void tear_down(void)
{
	secret_store_free(store);
}

static inline const char *placeholder(size_t index)
{
	return secret_store_get(store, index)->placeholder;
}

#endif
