/*
 * Folding, globs, and what mounts and images hide.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "fsserver/policy.h"
#include "fsserver/policy_glob.h"
#include "fsserver/policy_names.h"

/* ---- folding -----------------------------------------------------------------------------------
 */

static const struct {
	const char *name;
	const char *folded;
} folds[] = {
	{ "AbC", "abc" },
	{ "\xc5\xbf", "s" },				/* long s */
	{ "\xe2\x84\xaa", "k" },			/* Kelvin */
	{ "\xc4\xb1", "i" },				/* dotless i */
	{ "\xc4\xb0", "i" },				/* dotted I */
	{ "\xc3\x9f", "ss" },				/* sharp s */
	{ "\xe1\xba\x9e", "ss" },			/* capital sharp s */
	{ "\xef\xac\x81", "fi" },			/* ligature */
	{ "\xef\xbc\xa7\xef\xbd\x89", "gi" },		/* fullwidth */
	{ "\xf0\x9d\x93\x96", "g" },			/* mathematical script G */
	{ "\xe2\x80\xa4", "." },			/* one dot leader */
	{ "\xd0\xb0\xd0\xb5\xd0\xbe\xd1\x81", "aeoc" }, /* Cyrillic */
	{ "\xd0\x90\xd0\x95\xd0\x9e\xd0\xa1", "aeoc" },
	{ "\xce\x91", "a" },  /* Greek Alpha */
	{ "\xce\xbf", "o" },  /* omicron */
	{ "\xc3\xa9", "e" },  /* e acute, composed */
	{ "e\xcc\x81", "e" }, /* and not */
	{ "\xc2\xad"
	  "a\xe2\x80\x8b"
	  "b\xef\xbb\xbf",
	  "ab" },
	{ "\xcf\x83", "o" },					    /* sigma is drawn like o */
	{ "\xce\xa3", "o" },					    /* its capital */
	{ "\xcf\x82", "o" },					    /* and its final form */
	{ "\xce\x9b", "\xce\xbb" },				    /* Lambda */
	{ "\xd0\x96", "\xd0\xb6" },				    /* Zhe */
	{ "\xea\xb0\x81", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8" }, /* Hangul */
	{ "\xff"
	  "A\xc3",
	  "\xff"
	  "a\xc3" },			    /* not UTF-8 */
	{ "\xed\xa0\x80", "\xed\xa0\x80" }, /* a surrogate is not UTF-8 */
};

START_TEST(names_fold)
{
	char output[256];
	size_t length = policy_fold(folds[_i].name, strlen(folds[_i].name), output);

	ck_assert_uint_eq(length, strlen(folds[_i].folded));
	ck_assert_mem_eq(output, folds[_i].folded, length);
}
END_TEST

START_TEST(folding_is_stable_and_bounded)
{
	for (uint32_t code = 1; code < 0x110000; code++) {
		char text[4];
		char once[64];
		char twice[256];
		size_t length = 0;
		size_t first;
		size_t second;

		if (code < 0x80) {
			text[length++] = (char)code;
		} else if (code < 0x800) {
			text[length++] = (char)(0xc0 | (code >> 6));
			text[length++] = (char)(0x80 | (code & 0x3f));
		} else if (code < 0x10000) {
			text[length++] = (char)(0xe0 | (code >> 12));
			text[length++] = (char)(0x80 | ((code >> 6) & 0x3f));
			text[length++] = (char)(0x80 | (code & 0x3f));
		} else {
			text[length++] = (char)(0xf0 | (code >> 18));
			text[length++] = (char)(0x80 | ((code >> 12) & 0x3f));
			text[length++] = (char)(0x80 | ((code >> 6) & 0x3f));
			text[length++] = (char)(0x80 | (code & 0x3f));
		}
		first = policy_fold(text, length, once);
		ck_assert_uint_le(first, length * POLICY_FOLD_GROWTH);
		second = policy_fold(once, first, twice);
		ck_assert_msg(first == second && memcmp(once, twice, first) == 0, "U+%04X", code);
	}
}
END_TEST

/* ---- globs -------------------------------------------------------------------------------------
 */

static const struct {
	const char *pattern;
	const char *path;
	enum policy_glob_match match;
} globs[] = {
	{ "a", "a", POLICY_GLOB_COVERED },
	{ "a", "x/a/y", POLICY_GLOB_COVERED },
	{ "a", "b", POLICY_GLOB_NONE },
	{ "a/", "x/a", POLICY_GLOB_COVERED },
	{ "/a", "x/a", POLICY_GLOB_NONE },
	{ "/a", "a/x", POLICY_GLOB_COVERED },
	{ "a/b", "a/b", POLICY_GLOB_COVERED },
	{ "a/b", "x/a/b", POLICY_GLOB_NONE },
	{ "a/b", "a", POLICY_GLOB_ABOVE },
	{ "**/a/b", "x/y/a/b/c", POLICY_GLOB_COVERED },
	{ "**/a/b", "x/y", POLICY_GLOB_NONE },
	{ "**/a/b", "x/a", POLICY_GLOB_ABOVE },
	{ "a/**", "a", POLICY_GLOB_ABOVE },
	{ "a/**", "a/b/c", POLICY_GLOB_COVERED },
	{ "a/**/b", "a/b", POLICY_GLOB_COVERED },
	{ "a/**/b", "a/x/y/b", POLICY_GLOB_COVERED },
	{ "a/**/b", "a/x/y", POLICY_GLOB_ABOVE_ANY },
	{ "a/**/b/**", "a/x/b", POLICY_GLOB_ABOVE_ANY },
	{ "a/**/b/**", "a/x/b/y", POLICY_GLOB_COVERED },
	{ "a/*/b", "a/x/b", POLICY_GLOB_COVERED },
	{ "a/*/b", "a/x/y/b", POLICY_GLOB_NONE },
	{ "a/*/b", "a/x", POLICY_GLOB_ABOVE_ANY },
	{ "**", "x/y", POLICY_GLOB_COVERED },
	{ "*.c", "x/main.C", POLICY_GLOB_COVERED },
	{ "*.c", "main.cc", POLICY_GLOB_NONE },
	{ "*a*b*c", "xaxbxc", POLICY_GLOB_COVERED },
	{ "*a*b*c", "xaxbx", POLICY_GLOB_NONE },
	{ "?.x", "\xd0\xb6.x", POLICY_GLOB_COVERED },
	{ "?.x", ".x", POLICY_GLOB_NONE },
	{ "[a-c]x", "Bx", POLICY_GLOB_COVERED },
	{ "[!a-c]x", "bx", POLICY_GLOB_NONE },
	{ "[!a-c]x", "\xd0\xb6x", POLICY_GLOB_COVERED },
	{ "[]]x", "]x", POLICY_GLOB_COVERED },
	{ "\\*", "*", POLICY_GLOB_COVERED },
	{ "\\*", "a", POLICY_GLOB_NONE },
	{ "\\!a", "!a", POLICY_GLOB_COVERED },
	{ "caf\xc3\xa9", "CAFE\xcc\x81", POLICY_GLOB_COVERED },
	{ "a:b", "a:b", POLICY_GLOB_COVERED },
	{ "a.", "a.", POLICY_GLOB_COVERED },
	{ "*.pem", "key.pem:x", POLICY_GLOB_COVERED },
	{ ".aider*", ".aider.conf.yml", POLICY_GLOB_COVERED },
};

START_TEST(globs_match)
{
	struct policy_path path;
	struct policy_glob *glob = NULL;
	const char *problem = "";
	enum policy_glob_match match;

	ck_assert_msg(policy_glob_compile(globs[_i].pattern, 0, &glob, &problem) == 0, "%s: %s",
		      globs[_i].pattern, problem);
	ck_assert_int_eq(policy_path_init(&path, globs[_i].path), 0);
	match = policy_glob_match(glob, &path);
	ck_assert_msg(match == globs[_i].match, "%s %s: %d", globs[_i].pattern, globs[_i].path,
		      (int)match);
	policy_path_release(&path);
	policy_glob_free(glob);
}
END_TEST

START_TEST(hostile_patterns_take_bounded_time)
{
	char pattern[1025];
	char name[4001];
	struct policy_path path;
	struct policy_glob *glob = NULL;
	const char *problem;

	for (size_t i = 0; i < 1024; i += 2)
		memcpy(pattern + i, "*a", 2);
	pattern[1022] = 'b';
	pattern[1023] = '\0';
	memset(name, 'a', 4000);
	name[4000] = '\0';
	ck_assert_int_eq(policy_glob_compile(pattern, 0, &glob, &problem), 0);
	ck_assert_int_eq(policy_path_init(&path, name), 0);
	ck_assert_int_eq(policy_glob_match(glob, &path), POLICY_GLOB_NONE);
	policy_path_release(&path);
	policy_glob_free(glob);
	/* "**" by turns with names, over a path of the same name. */
	for (size_t i = 0; i < 30; i++)
		memcpy(pattern + 5 * i, "a/**/", 5);
	memcpy(pattern + 150, "b", 2);
	for (size_t i = 0; i < 4000; i += 2)
		memcpy(name + i, "a/", 2);
	ck_assert_int_eq(policy_glob_compile(pattern, 0, &glob, &problem), 0);
	ck_assert_int_eq(policy_path_init(&path, name), 0);
	ck_assert_int_eq(policy_glob_match(glob, &path), POLICY_GLOB_ABOVE_ANY);
	policy_path_release(&path);
	policy_glob_free(glob);
}
END_TEST

/* ---- what is hidden ----------------------------------------------------------------------------
 */

static const char *const homes[] = { "/srv/people/ann", "/data/[x]" };

static struct policy *load_export(enum policy_profile profile, const char *export_path,
				  const char *allow)
{
	struct policy_options options = { .profile = profile,
					  .policy_fd = -1,
					  .export_path = export_path,
					  .homes = homes,
					  .home_count = ARRAY_LENGTH(homes),
					  .extra_allow = &allow,
					  .extra_allow_count = allow != NULL };
	struct policy *policy = NULL;
	char error[256];

	ck_assert_msg(policy_load(&options, &policy, error, sizeof(error)) == 0, "%s", error);
	return policy;
}

static const struct {
	enum policy_profile profile;
	const char *export_path;
	const char *path;
	bool hidden;
} reads[] = {
	{ POLICY_PROFILE_IMAGE, "/", "usr/bin/gcc", false },
	{ POLICY_PROFILE_IMAGE, "/", "etc/passwd", false },
	{ POLICY_PROFILE_IMAGE, "/", "etc/shadow", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/shadow-", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/gshadow", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/sudoers", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/sudoers.d/x", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/ssh/ssh_host_rsa_key", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/ssh/ssh_host_rsa_key.pub", false },
	{ POLICY_PROFILE_IMAGE, "/", "etc/ssh/ssh_config", false },
	{ POLICY_PROFILE_IMAGE, "/", "etc/ssl/private/x.key", true },
	{ POLICY_PROFILE_IMAGE, "/", "etc/ssl/certs/ca.pem", false },
	{ POLICY_PROFILE_IMAGE, "/", "home", false },
	{ POLICY_PROFILE_IMAGE, "/", "home/ann", true },
	{ POLICY_PROFILE_IMAGE, "/", "root", false },
	{ POLICY_PROFILE_IMAGE, "/", "root/.bashrc", true },
	{ POLICY_PROFILE_IMAGE, "/", "var/lib", false },
	{ POLICY_PROFILE_IMAGE, "/", "var/lib/dpkg/status", true },
	{ POLICY_PROFILE_IMAGE, "/", "var/cache", false },
	{ POLICY_PROFILE_IMAGE, "/", "run", false },
	{ POLICY_PROFILE_IMAGE, "/", "run/user/1000", true },
	{ POLICY_PROFILE_IMAGE, "/", "proc/1/environ", true },
	{ POLICY_PROFILE_IMAGE, "/", "sys/kernel", true },
	{ POLICY_PROFILE_IMAGE, "/", "dev/sda", true },
	{ POLICY_PROFILE_IMAGE, "/", "tmp", false },
	{ POLICY_PROFILE_IMAGE, "/", "tmp/x", true },
	{ POLICY_PROFILE_IMAGE, "/", "srv/people/ann/.ssh/id_rsa", true },
	{ POLICY_PROFILE_IMAGE, "/", "srv/people/ann/src", false },
	{ POLICY_PROFILE_IMAGE, "/", "srv/people/bob/.ssh/id_rsa", false },
	{ POLICY_PROFILE_IMAGE, "/", "data/[x]/.aws/credentials", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".ssh/id_rsa", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".SSH/id_rsa", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".ssh", true },
	{ POLICY_PROFILE_MOUNT, "/home/x/", ".gnupg", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", "src/.ssh/x", false },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".config", false },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".config/gh/hosts.yml", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".config/google-chrome-beta/Cookies", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".mozilla/firefox", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".bash_history", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".python_history", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".local/share/keyrings/login", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".npmrc", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".claude/x", true },
	{ POLICY_PROFILE_MOUNT, "/home/x", ".nvm/nvm.sh", false },
	{ POLICY_PROFILE_MOUNT, "/home/x/.config", "op/config", true },
	{ POLICY_PROFILE_MOUNT, "/home/x/.config", "nvim/init.lua", false },
	{ POLICY_PROFILE_MOUNT, "/home", "x/.kube/config", true },
	{ POLICY_PROFILE_MOUNT, "/home", "x/src", false },
	{ POLICY_PROFILE_MOUNT, "/root", ".docker/config.json", true },
	{ POLICY_PROFILE_MOUNT, "/home/x/.nvm", "versions/node", false },
	{ POLICY_PROFILE_MOUNT, "/home/x/.ssh", "id_rsa", false },
	{ POLICY_PROFILE_MOUNT, "/srv/people/ann", ".aws/credentials", true },
	{ POLICY_PROFILE_MOUNT, "/data/[x]", ".aws/credentials", true },
	{ POLICY_PROFILE_MOUNT, "/etc", "shadow", true },
	{ POLICY_PROFILE_MOUNT, "/etc/ssl", "private/x", true },
	{ POLICY_PROFILE_MOUNT, "/var/lib/app", "data", false },
	{ POLICY_PROFILE_MOUNT, "/tmp/x", "y", false },
	{ POLICY_PROFILE_WORKSPACE, "/home/x", ".ssh/id_rsa", false },
};

START_TEST(credentials_and_state_are_hidden)
{
	struct policy *policy = load_export(reads[_i].profile, reads[_i].export_path, NULL);
	struct policy_verdict verdict;

	policy_judge(policy, POLICY_READ, reads[_i].path, 0, &verdict);
	ck_assert_msg(verdict.hidden == reads[_i].hidden, "%s %s: %s", reads[_i].export_path,
		      reads[_i].path, verdict.rule != NULL ? verdict.rule : "seen");
	ck_assert(verdict.allowed == !verdict.hidden);
	policy_free(policy);
}
END_TEST

START_TEST(a_listing_is_judged_where_something_may_hide)
{
	struct policy *policy = load_export(POLICY_PROFILE_IMAGE, "/", NULL);

	ck_assert(policy_may_hide_below(policy, ""));
	ck_assert(policy_may_hide_below(policy, "etc"));
	ck_assert(policy_may_hide_below(policy, "home"));
	ck_assert(policy_may_hide_below(policy, "var"));
	ck_assert(policy_may_hide_below(policy, "srv/people"));
	ck_assert(!policy_may_hide_below(policy, "usr"));
	ck_assert(!policy_may_hide_below(policy, "etc/alternatives"));
	policy_free(policy);
	policy = load_export(POLICY_PROFILE_WORKSPACE, "/w", NULL);
	ck_assert(!policy_may_hide_below(policy, ""));
	policy_free(policy);
}
END_TEST

START_TEST(an_image_is_read_only_and_a_mount_protected)
{
	struct policy *image = load_export(POLICY_PROFILE_IMAGE, "/", NULL);
	struct policy *mount = load_export(POLICY_PROFILE_MOUNT, "/home/x/project", NULL);
	struct policy_verdict verdict;

	policy_judge(image, POLICY_WRITE, "usr/bin/x", 0, &verdict);
	ck_assert(!verdict.allowed && !verdict.hidden);
	policy_judge(mount, POLICY_WRITE, "src/x", 0, &verdict);
	ck_assert(verdict.allowed);
	policy_judge(mount, POLICY_WRITE, ".git/config", 0, &verdict);
	ck_assert(!verdict.allowed && !verdict.hidden);
	policy_free(image);
	policy_free(mount);
}
END_TEST

START_TEST(an_allow_opens_what_is_hidden_and_the_way_there)
{
	struct policy *policy =
		load_export(POLICY_PROFILE_MOUNT, "/home/x", "/.config/gh/hosts.yml");
	struct policy_verdict verdict;

	policy_judge(policy, POLICY_READ, ".config/gh/hosts.yml", 0, &verdict);
	ck_assert(verdict.allowed);
	ck_assert_str_eq(verdict.rule, "command line allow /.config/gh/hosts.yml");
	policy_judge(policy, POLICY_READ, ".config/gh", 0, &verdict);
	ck_assert(verdict.allowed);
	policy_judge(policy, POLICY_READ, ".config/gh/config.yml", 0, &verdict);
	ck_assert(verdict.hidden);
	policy_judge(policy, POLICY_READ, ".ssh", 0, &verdict);
	ck_assert(verdict.hidden);
	policy_free(policy);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("policy_names");
	TCase *tcase = tcase_create("names");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, names_fold, 0, (int)ARRAY_LENGTH(folds));
	tcase_add_test(tcase, folding_is_stable_and_bounded);
	tcase_add_loop_test(tcase, globs_match, 0, (int)ARRAY_LENGTH(globs));
	tcase_add_test(tcase, hostile_patterns_take_bounded_time);
	tcase_add_loop_test(tcase, credentials_and_state_are_hidden, 0, (int)ARRAY_LENGTH(reads));
	tcase_add_test(tcase, a_listing_is_judged_where_something_may_hide);
	tcase_add_test(tcase, an_image_is_read_only_and_a_mount_protected);
	tcase_add_test(tcase, an_allow_opens_what_is_hidden_and_the_way_there);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
