/* wire/secret_bundle.h: entries come back as they were, and nothing else is taken for a bundle. */
#include "wire/secret_bundle.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(literal)                                                                              \
	(struct secret_text)                                                                       \
	{                                                                                          \
		(literal), sizeof(literal) - 1                                                     \
	}

static uint8_t block[SECRET_BUNDLE_MAX];

static struct secret_entry sample(void)
{
	return (struct secret_entry){
		.kind = SECRET_PLAIN,
		.flags = SECRET_FLAG_QUERY | SECRET_FLAG_CAPTURE,
		.prefix_length = 3,
		.host_count = 2,
		.slot_count = 1,
		.name = TEXT("API_KEY"),
		.value = TEXT("sk-0123456789"),
		.hosts = { { TEXT("api.example.com"), 443 },
			   { TEXT("*.example.org"), SECRET_PORT_ANY } },
		.slots = { TEXT("X-Key") },
	};
}

static size_t write_one(const struct secret_entry *entry)
{
	struct byte_writer writer;

	byte_writer_init(&writer, block, sizeof(block));
	secret_bundle_begin(&writer);
	secret_bundle_add(&writer, entry);
	ck_assert(byte_writer_ok(&writer));
	return writer.length;
}

/* 0 when the whole of it decodes. */
static int read_all(const void *data, size_t length, size_t *ret_count)
{
	struct secret_bundle_reader reader;
	struct secret_entry entry;
	int result = secret_bundle_open(&reader, data, length);

	*ret_count = 0;
	if (result < 0)
		return result;
	while ((result = secret_bundle_next(&reader, &entry)) > 0)
		++*ret_count;
	return result;
}

static void same_text(struct secret_text got, struct secret_text sent)
{
	ck_assert_uint_eq(got.length, sent.length);
	ck_assert_mem_eq(got.data, sent.data, sent.length);
}

START_TEST(an_entry_comes_back)
{
	struct secret_bundle_reader reader;
	struct secret_entry sent = sample();
	struct secret_entry got;
	size_t length = write_one(&sent);

	ck_assert_int_eq(secret_bundle_open(&reader, block, length), 0);
	ck_assert_int_eq(secret_bundle_next(&reader, &got), 1);
	ck_assert_int_eq(got.kind, sent.kind);
	ck_assert_uint_eq(got.flags, sent.flags);
	ck_assert_uint_eq(got.prefix_length, sent.prefix_length);
	same_text(got.name, sent.name);
	same_text(got.value, sent.value);
	ck_assert_uint_eq(got.host_count, 2);
	same_text(got.hosts[0].pattern, sent.hosts[0].pattern);
	ck_assert_uint_eq(got.hosts[0].port, 443);
	same_text(got.hosts[1].pattern, sent.hosts[1].pattern);
	ck_assert_uint_eq(got.hosts[1].port, SECRET_PORT_ANY);
	ck_assert_uint_eq(got.slot_count, 1);
	same_text(got.slots[0], sent.slots[0]);
	ck_assert_int_eq(secret_bundle_next(&reader, &got), 0);
}
END_TEST

START_TEST(an_empty_bundle_is_one)
{
	struct byte_writer writer;
	size_t count;

	byte_writer_init(&writer, block, sizeof(block));
	secret_bundle_begin(&writer);
	ck_assert_int_eq(read_all(block, writer.length, &count), 0);
	ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(every_cut_and_every_extra_byte_is_refused)
{
	struct secret_entry entry = sample();
	size_t length = write_one(&entry);
	size_t count;

	for (size_t cut = 0; cut < length; cut++)
		ck_assert_int_eq(read_all(block, cut, &count), -EBADMSG);
	ck_assert_int_eq(read_all(block, length, &count), 0);
	block[length] = 0;
	ck_assert_int_eq(read_all(block, length + 1, &count), -EBADMSG);
}
END_TEST

START_TEST(each_part_of_the_header_is_checked)
{
	static const struct {
		size_t offset;
		uint8_t value;
	} changes[] = {
		{ 0, 0 },    /* magic */
		{ 4, 2 },    /* version */
		{ 6, 0 },    /* fewer than there are */
		{ 6, 2 },    /* more */
		{ 7, 1 },    /* far more */
		{ 8, 0 },    /* kind 0 */
		{ 8, 6 },    /* a client certificate with hosts */
		{ 8, 7 },    /* unknown */
		{ 8, 5 },    /* a canary with hosts */
		{ 9, 16 },   /* unknown flag */
		{ 10, 13 },  /* prefix as long as the value */
		{ 11, 1 },   /* zero */
		{ 12, 0 },   /* name of no length */
		{ 13, 0 },   /* no host */
		{ 13, 17 },  /* too many hosts */
		{ 14, 17 },  /* too many slots */
		{ 15, 1 },   /* zero */
		{ 16, 7 },   /* value too short */
		{ 17, 17 },  /* too long */
		{ 18, 1 },   /* zero */
		{ 20, '9' }, /* a name that begins with a digit */
		{ 27, 31 },  /* a control character in the value */
		{ 39, 127 }, /* and another at its end */
		{ 43, 'A' }, /* an upper-case host */
	};
	struct secret_entry entry = sample();
	size_t length = write_one(&entry);
	size_t count;

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		uint8_t before = block[changes[i].offset];

		block[changes[i].offset] = changes[i].value;
		ck_assert_msg(read_all(block, length, &count) == -EBADMSG, "change %zu", i);
		block[changes[i].offset] = before;
	}
	ck_assert_int_eq(read_all(block, length, &count), 0);
}
END_TEST

/* What is wrong with the sample when one text of it is another. */
static const char *fault_with_value(const char *value)
{
	struct secret_entry entry = sample();

	entry.prefix_length = 0;
	entry.value = (struct secret_text){ value, strlen(value) };
	return secret_entry_fault(&entry);
}

static const char *fault_with_host(const char *host)
{
	struct secret_entry entry = sample();

	entry.hosts[1].pattern = (struct secret_text){ host, strlen(host) };
	return secret_entry_fault(&entry);
}

START_TEST(faults_are_said)
{
	ck_assert_ptr_null(fault_with_value("12345678"));
	ck_assert_ptr_nonnull(strstr(fault_with_value("1234567"), "too short"));
	ck_assert_ptr_nonnull(strstr(fault_with_value("12345678\n"), "printable ASCII"));
	ck_assert_ptr_nonnull(strstr(fault_with_value("1234567\xc3\xa9"), "printable ASCII"));
	ck_assert_ptr_nonnull(strstr(fault_with_value(" 12345678"), "space"));
	ck_assert_ptr_nonnull(strstr(fault_with_value("12345678 "), "space"));
	ck_assert_ptr_null(fault_with_value("1234 5678"));
	ck_assert_ptr_null(fault_with_host("*.example.com"));
	ck_assert_ptr_null(fault_with_host("localhost"));
	ck_assert_ptr_nonnull(fault_with_host(""));
	ck_assert_ptr_nonnull(fault_with_host("*."));
	ck_assert_ptr_nonnull(fault_with_host("*"));
	ck_assert_ptr_nonnull(fault_with_host("a..b"));
	ck_assert_ptr_nonnull(fault_with_host(".a"));
	ck_assert_ptr_nonnull(fault_with_host("a."));
	ck_assert_ptr_nonnull(fault_with_host("a.*.b"));
	ck_assert_ptr_nonnull(fault_with_host("a:443"));
	ck_assert_ptr_nonnull(fault_with_host("a b"));
}
END_TEST

START_TEST(no_more_than_the_limits_are_written)
{
	struct secret_entry entry = sample();
	struct byte_writer writer;

	byte_writer_init(&writer, block, sizeof(block));
	secret_bundle_begin(&writer);
	for (int i = 0; i < SECRET_COUNT_MAX; i++)
		secret_bundle_add(&writer, &entry);
	ck_assert(byte_writer_ok(&writer));
	secret_bundle_add(&writer, &entry);
	ck_assert(!byte_writer_ok(&writer));

	byte_writer_init(&writer, block, sizeof(block));
	secret_bundle_begin(&writer);
	entry.value.length = 7;
	secret_bundle_add(&writer, &entry);
	ck_assert(!byte_writer_ok(&writer));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("wire_secret_bundle");
	TCase *t = tcase_create("bundle");

	tcase_add_test(t, an_entry_comes_back);
	tcase_add_test(t, an_empty_bundle_is_one);
	tcase_add_test(t, every_cut_and_every_extra_byte_is_refused);
	tcase_add_test(t, each_part_of_the_header_is_checked);
	tcase_add_test(t, faults_are_said);
	tcase_add_test(t, no_more_than_the_limits_are_written);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
