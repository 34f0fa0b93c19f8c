/* proxy/session_ca.h: what is minted verifies, for its name alone, and is kept. */
#include "proxy/session_ca.h"

#include <check.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct session_ca *ca;

static void set_up(void)
{
	ck_assert_int_eq(session_ca_new("test", &ca), 0);
}

static void tear_down(void)
{
	session_ca_free(ca);
}

static X509 *leaf_of(const char *text)
{
	struct host_name name;
	X509 *leaf;
	EVP_PKEY *key;

	ck_assert_int_eq(host_name_parse(text, strlen(text), &name), 0);
	ck_assert_int_eq(session_ca_leaf(ca, &name, &leaf, &key), 0);
	ck_assert_int_eq(X509_check_private_key(leaf, key), 1);
	return leaf;
}

static int verify(X509 *leaf, const char *name, int purpose)
{
	BIO *pem = BIO_new_mem_buf(session_ca_certificate(ca), -1);
	X509 *root = PEM_read_bio_X509(pem, NULL, NULL, NULL);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	int result;

	ck_assert_ptr_nonnull(root);
	ck_assert_int_eq(X509_STORE_add_cert(store, root), 1);
	ck_assert_int_eq(X509_STORE_CTX_init(context, store, leaf, NULL), 1);
	X509_STORE_CTX_set_purpose(context, purpose);
	X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context), X509_V_FLAG_X509_STRICT);
	ck_assert_int_eq(X509_VERIFY_PARAM_set1_host(X509_STORE_CTX_get0_param(context), name, 0),
			 1);
	ck_assert_int_ge(X509_verify_cert(context), 0);
	result = X509_STORE_CTX_get_error(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	X509_free(root);
	BIO_free(pem);
	return result;
}

START_TEST(a_leaf_verifies_strictly_for_its_name)
{
	X509 *leaf = leaf_of("a.example.test");

	ck_assert_int_eq(verify(leaf, "a.example.test", X509_PURPOSE_SSL_SERVER), X509_V_OK);
	ck_assert_int_eq(verify(leaf, "b.example.test", X509_PURPOSE_SSL_SERVER),
			 X509_V_ERR_HOSTNAME_MISMATCH);
	ck_assert_int_eq(verify(leaf, "x.a.example.test", X509_PURPOSE_SSL_SERVER),
			 X509_V_ERR_HOSTNAME_MISMATCH);
	ck_assert_int_ne(verify(leaf, "a.example.test", X509_PURPOSE_SSL_CLIENT), X509_V_OK);
}
END_TEST

START_TEST(the_longest_name_fits)
{
	char text[254];

	for (size_t i = 0; i < 253; i++)
		text[i] = i % 64 == 63 ? '.' : 'a';
	text[253] = '\0';
	ck_assert_int_eq(verify(leaf_of(text), text, X509_PURPOSE_SSL_SERVER), X509_V_OK);
}
END_TEST

START_TEST(a_leaf_is_no_authority_and_began_before_now)
{
	X509 *leaf = leaf_of("example.test");
	static const int critical[] = { NID_basic_constraints, NID_key_usage };

	for (size_t i = 0; i < 2; i++) {
		int at = X509_get_ext_by_NID(leaf, critical[i], -1);

		ck_assert_int_ge(at, 0);
		ck_assert_int_eq(X509_EXTENSION_get_critical(X509_get_ext(leaf, at)), 1);
	}
	ck_assert_int_eq(X509_check_ca(leaf), 0);
	ck_assert_uint_eq(X509_get_key_usage(leaf), KU_DIGITAL_SIGNATURE);
	ck_assert_ptr_nonnull(X509_get0_subject_key_id(leaf));
	ck_assert_ptr_nonnull(X509_get0_authority_key_id(leaf));
	ck_assert_int_lt(X509_cmp_current_time(X509_get0_notBefore(leaf)), 0);
	ck_assert_int_gt(X509_cmp_current_time(X509_get0_notAfter(leaf)), 0);
}
END_TEST

START_TEST(leaves_are_kept_and_the_oldest_goes)
{
	X509 *kept = leaf_of("kept.test");
	char text[32];

	ck_assert_ptr_eq(leaf_of("kept.test"), kept);
	X509_up_ref(kept);
	for (unsigned i = 0; i < SESSION_CA_LEAVES_MAX - 1; i++) {
		snprintf(text, sizeof(text), "n%u.test", i);
		(void)leaf_of(text);
	}
	ck_assert_ptr_eq(leaf_of("kept.test"), kept);
	(void)leaf_of("one-more.test");
	ck_assert_ptr_eq(leaf_of("kept.test"), kept);
	X509_free(kept);
}
END_TEST

START_TEST(two_sessions_do_not_trust_each_other)
{
	X509 *leaf = leaf_of("example.test");
	struct session_ca *first = ca;

	ck_assert_int_eq(session_ca_new("test", &ca), 0);
	ck_assert_int_ne(verify(leaf, "example.test", X509_PURPOSE_SSL_SERVER), X509_V_OK);
	session_ca_free(ca);
	ca = first;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("session_ca");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, a_leaf_verifies_strictly_for_its_name);
	tcase_add_test(tcase, the_longest_name_fits);
	tcase_add_test(tcase, a_leaf_is_no_authority_and_began_before_now);
	tcase_add_test(tcase, leaves_are_kept_and_the_oldest_goes);
	tcase_add_test(tcase, two_sessions_do_not_trust_each_other);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
