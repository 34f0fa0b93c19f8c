/*
 * proxy/secret_heap.h and who uses it: nothing of a private key lies in memory that may be swapped
 * or dumped, after it was read and after it was used.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/io.h"
#include "proxy/client_identity.h"
#include "proxy/secret_heap.h"
#include "proxy/secret_memory.h"
#include "proxy/session_ca.h"

#define PEM_MAX 16384u
#define NUMBERS_MAX 4u
#define NUMBER_SIZE 32u /* that many bytes are found nowhere by chance */
#define MAPPING_MAX (UINT64_C(1) << 30)

/* A key made elsewhere, and what must not be found here: the beginnings of its numbers as the
 * library keeps them, last byte first, and of a line of its text. */
struct sample {
	char pem[PEM_MAX];
	size_t length;
	uint8_t numbers[NUMBERS_MAX][NUMBER_SIZE];
	size_t count;
};

/* ---- a key of another process's ------------------------------------------------------------- */

static void add_number(struct sample *sample, EVP_PKEY *key, const char *name)
{
	uint8_t bytes[1024];
	BIGNUM *number = NULL;

	if (EVP_PKEY_get_bn_param(key, name, &number) != 1)
		return;
	ck_assert_int_gt(BN_bn2lebinpad(number, bytes, sizeof(bytes)), 0);
	memcpy(sample->numbers[sample->count++], bytes, NUMBER_SIZE);
	BN_free(number);
}

static void make_sample(struct sample *sample, bool is_rsa)
{
	EVP_PKEY *key = is_rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	BIO *text = BIO_new(BIO_s_mem());
	const char *line;

	ck_assert(key && certificate && text);
	ck_assert_int_eq(X509_set_pubkey(certificate, key), 1);
	ck_assert_ptr_nonnull(X509_gmtime_adj(X509_getm_notBefore(certificate), 0));
	ck_assert_ptr_nonnull(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
	ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
	ck_assert_int_eq(PEM_write_bio_X509(text, certificate), 1);
	ck_assert_int_eq(PEM_write_bio_PrivateKey(text, key, NULL, NULL, 0, NULL, NULL), 1);
	sample->length = (size_t)BIO_read(text, sample->pem, PEM_MAX - 1);
	add_number(sample, key, OSSL_PKEY_PARAM_PRIV_KEY);
	add_number(sample, key, OSSL_PKEY_PARAM_RSA_D);
	add_number(sample, key, OSSL_PKEY_PARAM_RSA_FACTOR1);
	/* Of the first lines of RSA's, the certificate has some, too. */
	line = strstr(sample->pem, "PRIVATE KEY-----\n");
	ck_assert_ptr_nonnull(line);
	memcpy(sample->numbers[sample->count++], line + 17 + (is_rsa ? 14 : 1) * 65, NUMBER_SIZE);
}

/* In memory that is locked itself. */
static struct sample *get_sample(bool is_rsa)
{
	static struct sample made;
	void *block;
	int ends[2];
	pid_t child;
	int status;

	ck_assert_int_eq(secret_memory_new(sizeof(struct sample), &block), 0);
	ck_assert_int_eq(pipe(ends), 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		make_sample(&made, is_rsa);
		_exit(write_full(ends[1], &made, sizeof(made)) == 0 ? 0 : 1);
	}
	close(ends[1]);
	ck_assert_int_eq(read_full(ends[0], block, sizeof(struct sample)), sizeof(struct sample));
	close(ends[0]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	return block;
}

/* ---- what is in this process's memory ------------------------------------------------------- */

struct places {
	unsigned locked; /* that no core dump has, either */
	unsigned other;
};

static void count_in(int memory, uint64_t start, uint64_t end, const void *wanted, unsigned *count)
{
	size_t length = (size_t)(end - start);
	uint8_t *copy;
	ssize_t got;

	/* What a sanitizer sets aside is larger. */
	if (end - start > MAPPING_MAX)
		return;
	copy = malloc(length);
	ck_assert_ptr_nonnull(copy);
	got = pread(memory, copy, length, (off_t)start);
	for (ssize_t at = 0; at + (ssize_t)NUMBER_SIZE <= got; at++)
		*count += memcmp(copy + at, wanted, NUMBER_SIZE) == 0;
	explicit_bzero(copy, length);
	free(copy);
}

/* The stack is left out: it is not locked, and a sanitizer keeps old frames. */
static struct places find(const void *wanted)
{
	struct places places = { 0, 0 };
	FILE *maps = fopen("/proc/self/smaps", "re");
	int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	uint64_t start = 0;
	uint64_t end = 0;
	bool is_searched = false;
	char line[4096];

	ck_assert(maps && memory >= 0);
	while (fgets(line, sizeof(line), maps)) {
		char *rest;
		uint64_t number = strtoull(line, &rest, 16);

		if (*rest == '-') {
			start = number;
			end = strtoull(rest + 1, &rest, 16);
			is_searched = rest[1] == 'r' && !strstr(rest, "[stack]");
		} else if (strncmp(line, "VmFlags:", 8) == 0 && is_searched) {
			bool is_locked = strstr(line, " lo") && strstr(line, " dd");

			count_in(memory, start, end, wanted,
				 is_locked ? &places.locked : &places.other);
		}
	}
	close(memory);
	fclose(maps);
	return places;
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void add_identity(struct client_identities *identities, const char *name,
			 const struct sample *sample)
{
	const char *problem = NULL;
	int result = client_identities_add(identities, name, sample->pem, sample->length, &problem);

	ck_assert_msg(result == 0, "%d: %s", result, problem ? problem : "");
}

START_TEST(the_key_of_a_certificate_is_in_locked_memory_alone)
{
	struct sample *sample = get_sample(_i);
	struct client_identities identities = { NULL };

	ck_assert_int_eq(secret_heap_init(), 0);
	ck_assert(secret_heap_is_locked());
	add_identity(&identities, "A", sample);
	for (size_t i = 0; i < sample->count; i++) {
		struct places places = find(sample->numbers[i]);

		ck_assert_msg(places.other == 0, "number %zu is in %u places", i, places.other);
		/* The sample's own is one, its text another. */
		ck_assert_uint_ge(places.locked, 2);
	}
	client_identities_release(&identities);
	for (size_t i = 0; i < sample->count; i++)
		ck_assert_uint_le(find(sample->numbers[i]).locked, 2);
	secret_memory_free(sample);
}
END_TEST

START_TEST(so_is_the_key_of_leaves)
{
	struct session_ca *ca;
	struct host_name name;
	uint8_t *wanted;
	void *block;
	EVP_PKEY *key;
	X509 *leaf;
	BIGNUM *private_number = NULL;

	ck_assert_int_eq(secret_heap_init(), 0);
	ck_assert_int_eq(secret_memory_new(NUMBER_SIZE, &block), 0);
	wanted = block;
	ck_assert_int_eq(session_ca_new("test", &ca), 0);
	ck_assert_int_eq(host_name_parse("a.test", 6, &name), 0);
	ck_assert_int_eq(session_ca_leaf(ca, &name, &leaf, &key), 0);
	secret_heap_enter();
	ck_assert_int_eq(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &private_number), 1);
	ck_assert_int_gt(BN_bn2lebinpad(private_number, wanted, NUMBER_SIZE), 0);
	BN_clear_free(private_number);
	ck_assert(secret_heap_leave());
	ck_assert_uint_ge(find(wanted).locked, 2);
	ck_assert_uint_eq(find(wanted).other, 0);
	session_ca_free(ca);
	ck_assert_uint_eq(find(wanted).locked, 1);
	secret_memory_free(block);
}
END_TEST

START_TEST(it_has_room_for_all_certificates_of_a_session)
{
	struct sample *sample = get_sample(true);
	struct client_identities identities = { NULL };
	char name[16];

	ck_assert_int_eq(secret_heap_init(), 0);
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "CERTIFICATE_%d", i);
		add_identity(&identities, name, sample);
	}
	/* Half of it is left for handshakes. */
	ck_assert_uint_lt(CRYPTO_secure_used(), SECRET_HEAP_SIZE / 2);
	client_identities_release(&identities);
	secret_memory_free(sample);
}
END_TEST

START_TEST(blocks_stay_in_their_heap)
{
	char *ordinary;
	char *secret;

	ck_assert_int_eq(secret_heap_init(), 0);
	ordinary = OPENSSL_strdup("ordinary");
	secret_heap_enter();
	secret = OPENSSL_strdup("secret");
	ordinary = OPENSSL_realloc(ordinary, 1000);
	ck_assert_ptr_nonnull(ordinary);
	ck_assert(!CRYPTO_secure_allocated(ordinary) && CRYPTO_secure_allocated(secret));
	ck_assert(secret_heap_leave());
	secret = OPENSSL_realloc(secret, 5000);
	ck_assert_ptr_nonnull(secret);
	ck_assert(CRYPTO_secure_allocated(secret));
	ck_assert_str_eq(ordinary, "ordinary");
	ck_assert_str_eq(secret, "secret");
	secret = OPENSSL_realloc(secret, 7);
	ck_assert_str_eq(secret, "secret");
	OPENSSL_free(ordinary);
	ck_assert_ptr_null(OPENSSL_realloc(secret, 0));
	ck_assert_uint_eq(CRYPTO_secure_used(), 0);
}
END_TEST

START_TEST(that_it_was_full_is_told)
{
	struct sample *sample = get_sample(false);
	struct client_identities identities = { NULL };
	const char *problem;
	void *all[64];
	size_t count = 0;

	ck_assert_int_eq(secret_heap_init(), 0);
	secret_heap_enter();
	for (size_t size = SECRET_HEAP_SIZE; size >= 32; size /= 2) {
		while (count < ARRAY_LENGTH(all) && (all[count] = OPENSSL_malloc(size)))
			count++;
	}
	ck_assert(!secret_heap_leave());
	ck_assert_int_eq(
		client_identities_add(&identities, "A", sample->pem, sample->length, &problem),
		-ENOMEM);
	while (count > 0)
		OPENSSL_free(all[--count]);
	secret_memory_free(sample);
}
END_TEST

START_TEST(without_the_right_to_lock_keys_are_there_all_the_same)
{
	struct rlimit none = { 0, 0 };
	struct session_ca *ca;

	/* The superuser may lock whatever the limit is. */
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &none), 0);
	ck_assert(geteuid() != 0 || setresuid(65534, 65534, 65534) == 0);
	ck_assert_int_eq(secret_heap_init(), -EPERM);
	ck_assert(!secret_heap_is_locked());
	ck_assert_int_eq(session_ca_new("test", &ca), 0);
	session_ca_free(ca);
}
END_TEST

START_TEST(without_it_keys_are_in_ordinary_memory)
{
	void *early = OPENSSL_malloc(1);
	struct session_ca *ca;

	/* Too late. */
	ck_assert_int_eq(secret_heap_init(), -ENOMEM);
	ck_assert_int_eq(session_ca_new("test", &ca), 0);
	session_ca_free(ca);
	OPENSSL_free(early);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_heap");
	TCase *tests = tcase_create("secret_heap");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, the_key_of_a_certificate_is_in_locked_memory_alone, 0, 2);
	tcase_add_test(tests, so_is_the_key_of_leaves);
	tcase_add_test(tests, it_has_room_for_all_certificates_of_a_session);
	tcase_add_test(tests, blocks_stay_in_their_heap);
	tcase_add_test(tests, that_it_was_full_is_told);
	tcase_add_test(tests, without_the_right_to_lock_keys_are_there_all_the_same);
	tcase_add_test(tests, without_it_keys_are_in_ordinary_memory);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
