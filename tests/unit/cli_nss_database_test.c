/* cli/nss_database.h: what is in the two databases. That NSS believes them, browser_trust.sh shows.
 */
#include "cli/nss_database.h"

#include <check.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char pem[4096];
static uint8_t der[2048];
static int der_size;
static struct nss_database database;

/* A certificate of its own, signed by its own key. */
static void make_certificate(void)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_NAME *name = X509_NAME_new();
	BIO *bio = BIO_new(BIO_s_mem());
	uint8_t *end = der;

	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"ours", -1, -1, 0);
	X509_set_subject_name(certificate, name);
	X509_set_issuer_name(certificate, name);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 4711);
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_set_pubkey(certificate, key);
	ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
	PEM_write_bio_X509(bio, certificate);
	ck_assert_int_gt(BIO_read(bio, pem, sizeof(pem) - 1), 0);
	der_size = i2d_X509(certificate, &end);
	BIO_free(bio);
	X509_NAME_free(name);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static void set_up(void)
{
	make_certificate();
	ck_assert_int_eq(nss_database_make(pem, &database), 0);
}

static void tear_down(void)
{
	nss_database_free(&database);
	ck_assert_ptr_null(database.certificates);
	ck_assert_ptr_null(database.keys);
}

static sqlite3 *open_image(uint8_t *image, size_t size)
{
	sqlite3 *opened = NULL;

	ck_assert_int_eq(sqlite3_open(":memory:", &opened), SQLITE_OK);
	ck_assert_int_eq(sqlite3_deserialize(opened, "main", image, (sqlite3_int64)size,
					     (sqlite3_int64)size, SQLITE_DESERIALIZE_READONLY),
			 SQLITE_OK);
	return opened;
}

/* The only row's columns, in hex and with commas between them. */
static void expect(sqlite3 *opened, const char *sql, const char *wanted)
{
	sqlite3_stmt *statement = NULL;
	char got[8192] = "";
	size_t length = 0;

	ck_assert_int_eq(sqlite3_prepare_v2(opened, sql, -1, &statement, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
	for (int i = 0; i < sqlite3_column_count(statement); i++)
		length += (size_t)snprintf(got + length, sizeof(got) - length, "%s%s",
					   i > 0 ? "," : "", sqlite3_column_text(statement, i));
	ck_assert_str_eq(got, wanted);
	ck_assert_int_eq(sqlite3_step(statement), SQLITE_DONE);
	sqlite3_finalize(statement);
}

START_TEST(the_certificate_is_an_object_with_its_names)
{
	sqlite3 *opened = open_image(database.certificates, database.certificates_size);
	sqlite3_stmt *statement = NULL;

	expect(opened, "PRAGMA integrity_check", "ok");
	expect(opened, "SELECT count(*) FROM nssPublic", "2");
	expect(opened, "SELECT a3, hex(a80), hex(a82) FROM nssPublic WHERE a0 = x'00000001'",
	       "matchlock,00000000,02021267");
	expect(opened, "SELECT hex(a81), hex(a101) FROM nssPublic WHERE a0 = x'00000001'",
	       "300F310D300B06035504030C046F757273,300F310D300B06035504030C046F757273");
	ck_assert_int_eq(sqlite3_prepare_v2(opened, "SELECT a11 FROM nssPublic WHERE a11 NOT NULL",
					    -1, &statement, NULL),
			 SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
	ck_assert_int_eq(sqlite3_column_bytes(statement, 0), der_size);
	ck_assert_mem_eq(sqlite3_column_blob(statement, 0), der, (size_t)der_size);
	sqlite3_finalize(statement);
	sqlite3_close(opened);
}
END_TEST

/* A delegator for servers; everything else has to be verified as without us. */
START_TEST(it_is_trusted_for_servers_alone)
{
	sqlite3 *opened = open_image(database.certificates, database.certificates_size);

	expect(opened,
	       "SELECT hex(ace536358), hex(ace536359), hex(ace53635a), hex(ace53635b), "
	       "hex(ace536360), hex(a82) FROM nssPublic WHERE a0 = x'ce534353'",
	       "CE534352,CE534353,CE534353,CE534353,00,02021267");
	sqlite3_close(opened);
}
END_TEST

START_TEST(there_are_no_keys_and_each_word_of_trust_is_signed)
{
	sqlite3 *opened = open_image(database.keys, database.keys_size);

	expect(opened, "PRAGMA integrity_check", "ok");
	expect(opened, "SELECT count(*) FROM nssPrivate", "0");
	expect(opened,
	       "SELECT group_concat(id) FROM (SELECT id FROM metaData WHERE item2 IS NULL "
	       "ORDER BY id)",
	       "sig_cert_00000002_ce536358,sig_cert_00000002_ce536359,sig_cert_00000002_ce53635a,"
	       "sig_cert_00000002_ce53635b,sig_cert_00000002_ce536360,sig_cert_00000002_ce5363b4");
	expect(opened,
	       "SELECT count(DISTINCT item1), max(length(item1)) FROM metaData "
	       "WHERE item2 IS NULL",
	       "6,131");
	expect(opened, "SELECT length(item1), length(item2) FROM metaData WHERE id = 'password'",
	       "20,132");
	sqlite3_close(opened);
}
END_TEST

START_TEST(what_is_no_certificate_is_refused)
{
	struct nss_database untouched = { .certificates_size = 1 };
	static const char *const texts[] = {
		"", "matchlock", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ck_assert_int_eq(nss_database_make(texts[i], &untouched), -EBADMSG);
	ck_assert_uint_eq(untouched.certificates_size, 1);
	ck_assert_ptr_null(untouched.certificates);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nss_database");
	TCase *tests = tcase_create("nss_database");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, the_certificate_is_an_object_with_its_names);
	tcase_add_test(tests, it_is_trusted_for_servers_alone);
	tcase_add_test(tests, there_are_no_keys_and_each_word_of_trust_is_signed);
	tcase_add_test(tests, what_is_no_certificate_is_refused);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
