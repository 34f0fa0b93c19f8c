/* cli/client_certificates.h: what a policy may say of client certificates, and how they reach the
 * bundle. */
#include "cli/client_certificates.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "cli/egress_rules.h"
#include "wire/secret_bundle.h"

static char directory[] = "/tmp/client-certificates-XXXXXX";
static struct problem problem;
static uint8_t block[SECRET_BUNDLE_MAX];
static char text[8192];

static void write_file(const char *name, const char *contents)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "we");
	ck_assert_ptr_nonnull(file);
	fputs(contents, file);
	fclose(file);
}

static void set_up(void)
{
	ck_assert_ptr_nonnull(mkdtemp(directory));
	write_file("cert.pem", "CERT\n");
	write_file("key.pem", "KEY\n");
	write_file("binary", "\001\002");
	write_file("empty", "");
}

static void tear_down(void)
{
	static const char *const names[] = { "cert.pem", "key.pem", "binary", "empty", "large" };
	char path[128];

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		unlink(path);
	}
	rmdir(directory);
}

/* The rules of a policy in the directory, checked; NULL with a problem. */
static json_t *rules_of(const char *yaml)
{
	char policy[128];
	struct egress_section section;

	snprintf(policy, sizeof(policy), "%s/policy.yaml", directory);
	snprintf(text, sizeof(text), "version: 1\negress:\n%s", yaml);
	ck_assert_int_eq(egress_rules_parse(text, strlen(text), "policy.yaml", &section, &problem),
			 0);
	if (client_certificates_check(section.rules, policy, &problem) == 0)
		return section.rules;
	json_decref(section.rules);
	return NULL;
}

static const char *name_at(const json_t *rules, size_t index)
{
	return json_string_value(
		json_object_get(json_array_get(rules, index), "client_certificate"));
}

START_TEST(each_pair_is_in_the_bundle_once)
{
	json_t *rules = rules_of("  - {host: a, client_certificate: {certificate: 'file:cert.pem', "
				 "key: 'file:key.pem'}}\n"
				 "  - {host: b}\n"
				 "  - {host: c, client_certificate: {key: 'file:key.pem', "
				 "certificate: 'file:cert.pem'}}\n"
				 "  - {host: d, client_certificate: {key: 'file:key.pem', "
				 "certificate: 'file:key.pem'}}\n");
	struct secret_bundle_reader reader;
	struct secret_entry entry;
	struct byte_writer writer;
	char key[128];

	ck_assert_ptr_nonnull(rules);
	ck_assert(client_certificates_are_wanted(rules));
	snprintf(key, sizeof(key), "%s/key.pem", directory);
	ck_assert_str_eq(client_certificates_key(rules, 0), key);
	ck_assert_ptr_null(client_certificates_key(rules, 1));
	byte_writer_init(&writer, block, sizeof(block));
	secret_bundle_begin(&writer);
	ck_assert_int_eq(client_certificates_bundle(rules, &writer, &problem), 0);
	ck_assert_int_eq(secret_bundle_open(&reader, block, writer.length), 0);
	ck_assert_int_eq(secret_bundle_next(&reader, &entry), 1);
	ck_assert_int_eq(entry.kind, SECRET_CLIENT_CERTIFICATE);
	ck_assert_mem_eq(entry.name.data, "CLIENT_CERTIFICATE_1", entry.name.length);
	ck_assert_uint_eq(entry.value.length, 10);
	ck_assert_mem_eq(entry.value.data, "CERT\n\nKEY\n", 10);
	ck_assert_int_eq(secret_bundle_next(&reader, &entry), 1);
	ck_assert_mem_eq(entry.name.data, "CLIENT_CERTIFICATE_4", entry.name.length);
	ck_assert_mem_eq(entry.value.data, "KEY\n", entry.value.length);
	ck_assert_int_eq(secret_bundle_next(&reader, &entry), 0);
	client_certificates_name(rules);
	ck_assert_str_eq(name_at(rules, 0), "CLIENT_CERTIFICATE_1");
	ck_assert_ptr_null(name_at(rules, 1));
	ck_assert_str_eq(name_at(rules, 2), "CLIENT_CERTIFICATE_1");
	ck_assert_str_eq(name_at(rules, 3), "CLIENT_CERTIFICATE_4");
	json_decref(rules);
}
END_TEST

static const struct {
	const char *value;
	const char *says;
} mistakes[] = {
	{ "file:cert.pem", "write {certificate:" },
	{ "{certificate: 'file:cert.pem'}", "write {certificate:" },
	{ "{certificate: 'file:c', key: 'file:k', more: x}", "write {certificate:" },
	{ "{certificate: 'file:c', kay: 'file:k'}", "write {certificate:" },
	{ "{certificate: c, key: 'file:k'}", "certificate: write file:" },
	{ "{certificate: 'file:c', key: 'file:'}", "key: write file:" },
	{ "{certificate: 'file:c', key: 17}", "key: write file:" },
	{ "{certificate: 'file:c', key: 'env:KEY'}", "key: write file:" },
};

START_TEST(mistakes_are_explained)
{
	char yaml[256];

	snprintf(yaml, sizeof(yaml), "  - {host: a, client_certificate: %s}\n", mistakes[_i].value);
	ck_assert_ptr_null(rules_of(yaml));
	ck_assert_ptr_nonnull(strstr(problem.text, "policy.yaml:3: client_certificate: "));
	ck_assert_msg(strstr(problem.text, mistakes[_i].says) != NULL, "%s", problem.text);
}
END_TEST

static const struct {
	const char *certificate;
	const char *key;
	const char *says;
} files[] = {
	{ "missing", "key.pem", "certificate: " },
	{ "cert.pem", "missing", "/missing: No such file" },
	{ "cert.pem", "binary", "not PEM" },
	{ "cert.pem", "large", "48 KiB" },
	{ "large", "large", "48 KiB" },
	{ "cert.pem", "", "Is a directory" },
};

START_TEST(files_that_do_not_do)
{
	struct byte_writer writer;
	char yaml[256];
	json_t *rules;

	memset(text, 'x', sizeof(text) - 1);
	write_file("large", "");
	for (int i = 0; i < 7; i++) {
		char path[128];
		FILE *file;

		snprintf(path, sizeof(path), "%s/large", directory);
		file = fopen(path, "ae");
		fwrite(text, 1, sizeof(text), file);
		fclose(file);
	}
	snprintf(yaml, sizeof(yaml),
		 "  - {host: a, client_certificate: {certificate: 'file:%s', key: 'file:%s%s'}}\n",
		 files[_i].certificate, *files[_i].key ? "" : directory, files[_i].key);
	rules = rules_of(yaml);
	ck_assert_ptr_nonnull(rules);
	byte_writer_init(&writer, block, sizeof(block));
	secret_bundle_begin(&writer);
	ck_assert_int_eq(client_certificates_bundle(rules, &writer, &problem), -1);
	ck_assert_msg(strstr(problem.text, files[_i].says) != NULL, "%s", problem.text);
	ck_assert_ptr_nonnull(strstr(problem.text, "policy.yaml:3: client_certificate: "));
	json_decref(rules);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client_certificates");
	TCase *tests = tcase_create("client_certificates");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, each_pair_is_in_the_bundle_once);
	tcase_add_loop_test(tests, mistakes_are_explained, 0, (int)ARRAY_LENGTH(mistakes));
	tcase_add_loop_test(tests, files_that_do_not_do, 0, (int)ARRAY_LENGTH(files));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
