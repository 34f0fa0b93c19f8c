/* guest-init's trust stores, in a tree of the test's own. */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "guest-init/java_store.h"
#include "guest-init/trust_store.h"

#include <check.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CERTIFICATE "-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"
#define OTHERS "-----BEGIN CERTIFICATE-----\ntheirs\n-----END CERTIFICATE-----\n"
#define HASH 0x00ab12cdU

static char root[] = "/tmp/matchlock-trust-XXXXXX";
static int root_fd;

static void make(const char *path, const char *text)
{
	cleanup_fd int fd = -1;
	char buffer[128];

	snprintf(buffer, sizeof(buffer), "%s", path);
	for (char *slash = buffer; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdirat(root_fd, buffer, 0755);
		*slash = '/';
	}
	fd = openat(root_fd, path, O_WRONLY | O_CREAT | O_EXCL, 0644);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write_full(fd, text, strlen(text)), 0);
}

static void expect(const char *path, const char *text)
{
	cleanup_fd int fd = openat(root_fd, path, O_RDONLY);
	cleanup_free char *found = NULL;

	ck_assert_msg(fd >= 0, "%s is not there", path);
	ck_assert_int_eq(read_file(fd, 65536, &found, NULL), 0);
	ck_assert_str_eq(found, text);
}

static bool exists(const char *path)
{
	return faccessat(root_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void set_up(void)
{
	snprintf(root, sizeof(root), "/tmp/matchlock-trust-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	root_fd = open(root, O_PATH | O_DIRECTORY);
	ck_assert_int_ge(root_fd, 0);
	ck_assert_int_eq(mkdirat(root_fd, "run", 0755), 0);
}

static void tear_down(void)
{
	close(root_fd);
	if (fork() == 0)
		execlp("rm", "rm", "-rf", root, NULL);
	wait(NULL);
}

static void add(void)
{
	struct failure failure = { 0 };
	int error = trust_store_add_at(root_fd, CERTIFICATE, HASH, &failure);

	ck_assert_msg(error == 0, "%s: %d", failure.text, failure.error);
}

START_TEST(a_debian_image_trusts_it_everywhere)
{
	make("etc/ssl/certs/ca-certificates.crt", OTHERS);
	make("etc/ssl/certs/00ab12cd.0", "another of that hash\n");
	make("usr/local/share/ca-certificates/x", "");
	add();
	expect("etc/ssl/certs/ca-certificates.crt", OTHERS CERTIFICATE);
	expect("etc/ssl/certs/00ab12cd.0", "another of that hash\n");
	expect("etc/ssl/certs/00ab12cd.1", CERTIFICATE);
	expect("usr/local/share/ca-certificates/matchlock.crt", CERTIFICATE);
	expect("run/matchlock/ca.pem", CERTIFICATE);
	expect("run/matchlock/ca-bundle.pem", CERTIFICATE OTHERS);
	ck_assert(!exists("etc/pki"));
	ck_assert(!exists("etc/ssl/cert.pem"));
}
END_TEST

static const char *const bundles[] = {
	"etc/ssl/certs/ca-certificates.crt",
	"etc/ssl/cert.pem",
	"etc/pki/tls/certs/ca-bundle.crt",
	"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"etc/ssl/ca-bundle.pem",
	"var/lib/ca-certificates/ca-bundle.pem",
};

START_TEST(each_distributions_bundle_gets_it)
{
	make(bundles[_i], OTHERS);
	add();
	for (int i = 0; i < (int)ARRAY_LENGTH(bundles); i++) {
		if (i != _i)
			ck_assert_msg(!exists(bundles[i]), "%s was made", bundles[i]);
	}
	expect(bundles[_i], OTHERS CERTIFICATE);
	/* Programs that are given a bundle trust whom the image trusts. */
	expect("run/matchlock/ca-bundle.pem", CERTIFICATE OTHERS);
}
END_TEST

static const char *const sources[] = {
	"usr/local/share/ca-certificates",
	"etc/pki/ca-trust/source/anchors",
	"etc/pki/trust/anchors",
};

START_TEST(each_distributions_update_finds_it)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/theirs.crt", sources[_i]);
	make(path, OTHERS);
	add();
	for (int i = 0; i < (int)ARRAY_LENGTH(sources); i++) {
		snprintf(path, sizeof(path), "%s/matchlock.crt", sources[i]);
		if (i == _i)
			expect(path, CERTIFICATE);
		else
			ck_assert_msg(!exists(sources[i]), "%s was made", sources[i]);
	}
	snprintf(path, sizeof(path), "%s/theirs.crt", sources[_i]);
	expect(path, OTHERS);
}
END_TEST

/* There one bundle is a link to the other. */
START_TEST(a_suse_image_trusts_it_once)
{
	make("var/lib/ca-certificates/ca-bundle.pem", OTHERS);
	make("etc/ssl/x", "");
	make("etc/pki/trust/anchors/x", "");
	ck_assert_int_eq(symlinkat("../../var/lib/ca-certificates/ca-bundle.pem", root_fd,
				   "etc/ssl/ca-bundle.pem"),
			 0);
	add();
	expect("var/lib/ca-certificates/ca-bundle.pem", OTHERS CERTIFICATE);
	expect("etc/ssl/ca-bundle.pem", OTHERS CERTIFICATE);
	expect("etc/pki/trust/anchors/matchlock.crt", CERTIFICATE);
	expect("run/matchlock/ca-bundle.pem", CERTIFICATE OTHERS);
}
END_TEST

START_TEST(bundles_that_are_links_get_it_once)
{
	make("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "no newline at the end");
	make("etc/pki/tls/certs/x", "");
	ck_assert_int_eq(symlinkat("../../ca-trust/extracted/pem/tls-ca-bundle.pem", root_fd,
				   "etc/pki/tls/certs/ca-bundle.crt"),
			 0);
	add();
	expect("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	       "no newline at the end\n" CERTIFICATE);
}
END_TEST

START_TEST(an_image_without_any_has_ours)
{
	add();
	expect("run/matchlock/ca-bundle.pem", CERTIFICATE);
	ck_assert(!exists("etc"));
	/* A second time, the places that variables name are taken. */
	ck_assert_int_lt(trust_store_add_at(root_fd, CERTIFICATE, HASH, &(struct failure){ 0 }), 0);
}
END_TEST

START_TEST(dangling_links_and_directories_are_left_alone)
{
	make("etc/ssl/cert.pem/x", "");
	make("etc/pki/tls/certs/x", "");
	ck_assert_int_eq(symlinkat("nowhere", root_fd, "etc/pki/tls/certs/ca-bundle.crt"), 0);
	add();
	ck_assert(!exists("etc/pki/tls/certs/nowhere"));
}
END_TEST

/* An empty store as keytool makes it, and what it becomes. */
START_TEST(browsers_are_told_by_policy)
{
	static const char *const names[] = { "chromium", "chromium-browser", "opt/chrome",
					     "opt/chrome_for_testing", "opt/edge" };
	char path[128];

	/* What the image says of its browsers stays, and is in nobody's way. */
	make("etc/firefox/policies/policies.json", "{}");
	make("etc/brave", "no directory");
	ck_assert_int_eq(symlinkat("nowhere", root_fd, "etc/chromium-browser"), 0);
	make("etc/chromium/policies/managed/theirs.json", "{}");
	add();
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		snprintf(path, sizeof(path), "etc/%s/policies/managed/matchlock.json", names[i]);
		if (strcmp(names[i], "chromium-browser") == 0)
			ck_assert(!exists(path));
		else
			expect(path, "{\"CACertificates\": [\"ours\"]}\n");
	}
	expect("etc/firefox/policies/policies.json", "{}");
	expect("etc/chromium/policies/managed/theirs.json", "{}");
	expect("etc/brave", "no directory");
}
END_TEST

START_TEST(firefox_is_told_by_policy)
{
	make("etc/hostname", "guest");
	add();
	expect("etc/firefox/policies/policies.json",
	       "{\"policies\": {\"Certificates\": {\"Install\": [\"/run/matchlock/ca.pem\"]}}}\n");
	expect("etc/brave/policies/managed/matchlock.json", "{\"CACertificates\": [\"ours\"]}\n");
}
END_TEST

START_TEST(a_java_store_gets_an_entry)
{
	static const uint8_t empty[] = { 0xfe, 0xed, 0xfe, 0xed, 0,    0,    0,	   0x02,
					 0,    0,    0,	   0,	 0xe2, 0x68, 0x6e, 0x45,
					 0xfb, 0x43, 0xdf, 0xa4, 0xd9, 0x92, 0xdd, 0x41,
					 0xce, 0xb6, 0xb2, 0x1c, 0x63, 0x30, 0xd7, 0x92 };
	static const uint8_t entry[] = "\0\0\0\2\0\11matchlock\0\0\0\0\0\0\0\0\0\5X.509\0\0\0\3abc";
	static const char pem[] = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
	static const char *const bad[] = {
		"",
		"-----BEGIN CERTIFICATE-----\nYWJj\n",
		"-----BEGIN CERTIFICATE-----\nY*Jj\n-----END CERTIFICATE-----\n",
	};
	cleanup_free uint8_t *grown = NULL;
	uint8_t *other = NULL;
	size_t length = 0;

	ck_assert_int_eq(java_store_add(empty, sizeof(empty), pem, &grown, &length), 0);
	ck_assert_uint_eq(length, sizeof(empty) + sizeof(entry) - 1);
	ck_assert_uint_eq(grown[11], 1);
	ck_assert_mem_eq(grown + 12, entry, sizeof(entry) - 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_lt(java_store_add(empty, sizeof(empty), bad[i], &other, &length), 0);
	ck_assert_int_lt(java_store_add(empty, sizeof(empty) - 1, pem, &other, &length), 0);
	ck_assert_int_lt(java_store_add(empty + 1, sizeof(empty) - 1, pem, &other, &length), 0);
}
END_TEST

/* What Java itself makes of it, where Debian's store is. */
START_TEST(keytool_reads_the_store)
{
	cleanup_fd int fd = open("/etc/ssl/certs/java/cacerts", O_RDONLY);
	cleanup_free char *store = NULL;
	cleanup_free char *pem = NULL;
	cleanup_free uint8_t *grown = NULL;
	cleanup_fd int output = -1;
	cleanup_fd int certificate = open("/etc/ssl/certs/ca-certificates.crt", O_RDONLY);
	char command[256];
	size_t length = 0;

	if (fd < 0 || certificate < 0 || access("/usr/bin/keytool", X_OK) < 0)
		return;
	ck_assert_int_eq(read_file(fd, JAVA_STORE_MAX, &store, &length), 0);
	ck_assert_int_eq(read_file(certificate, 1u << 22, &pem, NULL), 0);
	ck_assert_int_eq(java_store_add((uint8_t *)store, length, pem, &grown, &length), 0);
	output = openat(root_fd, "cacerts", O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(write_full(output, grown, length), 0);
	snprintf(command, sizeof(command), "%s/cacerts", root);
	if (fork() == 0) {
		dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		execl("/usr/bin/keytool", "keytool", "-list", "-alias", "matchlock", "-keystore",
		      command, "-storepass", "changeit", NULL);
		_exit(127);
	}
	{
		int status;

		ck_assert_int_ge(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("trust_store");
	TCase *tests = tcase_create("trust_store");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_debian_image_trusts_it_everywhere);
	tcase_add_loop_test(tests, each_distributions_bundle_gets_it, 0, ARRAY_LENGTH(bundles));
	tcase_add_loop_test(tests, each_distributions_update_finds_it, 0, ARRAY_LENGTH(sources));
	tcase_add_test(tests, a_suse_image_trusts_it_once);
	tcase_add_test(tests, bundles_that_are_links_get_it_once);
	tcase_add_test(tests, an_image_without_any_has_ours);
	tcase_add_test(tests, browsers_are_told_by_policy);
	tcase_add_test(tests, firefox_is_told_by_policy);
	tcase_add_test(tests, a_java_store_gets_an_entry);
	tcase_add_test(tests, keytool_reads_the_store);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, dangling_links_and_directories_are_left_alone);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
