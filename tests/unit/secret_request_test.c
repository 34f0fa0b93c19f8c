/*
 * proxy/secret_request.h: the guest plays every trick of ATTACKS "Network" 5 and 6 with the head of
 * a request; values go to their own hosts, over verified TLS, in their places, and nothing else
 * does.
 */
#include "proxy/secret_request.h"

#include <check.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>

#include "proxy/sigv4.h"
#include "tests/unit/secret_fixture.h"

#define VALUE "sk-ant-api03-AbC012def345Ghi"
#define AWS_KEY "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

enum { KEY, OTHER, QUERY, SLOT, LOOSE, DECOY, AWS_ID, AWS_SECRET, AWS_TOKEN, LONE_ID };

static const struct fixture_secret usual[] = {
	[KEY] = { .name = "KEY", .value = VALUE, .host = "api.test" },
	[OTHER] = { .name = "OTHER", .value = "another-secret-0123", .host = "other.test" },
	[QUERY] = { .name = "QUERY",
		    .value = "que/ry+secret=0123",
		    .host = "query.test",
		    .flags = SECRET_FLAG_QUERY },
	[SLOT] = { .name = "SLOT",
		   .value = "slot-secret-0123456",
		   .host = "slot.test",
		   .slot = "X-Mine" },
	[LOOSE] = { .name = "LOOSE",
		    .value = "loose-secret-0123456",
		    .host = "loose.test",
		    .flags = SECRET_FLAG_UNPINNED },
	[DECOY] = { .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
	[AWS_ID] = { .name = "AWS_ACCESS_KEY_ID",
		     .value = "AKIAIOSFODNN7EXAMPLE",
		     .host = "*.aws.test",
		     .kind = SECRET_AWS_ACCESS_KEY_ID },
	[AWS_SECRET] = { .name = "AWS_SECRET_ACCESS_KEY",
			 .value = AWS_KEY,
			 .host = "*.aws.test",
			 .kind = SECRET_AWS_SECRET_ACCESS_KEY },
	[AWS_TOKEN] = { .name = "AWS_SESSION_TOKEN",
			.value = "FwoGZXIvYXdzEBYaDExampleToken==",
			.host = "*.aws.test",
			.kind = SECRET_AWS_SESSION_TOKEN },
	[LONE_ID] = { .name = "LONE_AWS_ACCESS_KEY_ID",
		      .value = "AKIAIOSFODNN7EXAMPLF",
		      .host = "*.aws.test",
		      .kind = SECRET_AWS_ACCESS_KEY_ID },
};

static struct secret_store *store;
static struct http_head *head;
static struct secret_verdict verdict;
static struct secret_request request;

static void begin(const char *host)
{
	http_head_clear(head);
	http_head_set_method(head, "GET", 3);
	http_head_set_path(head, "/", 1);
	http_head_set_authority(head, host, strlen(host));
	request = (struct secret_request){ .port = 443, .is_verified = true };
	ck_assert_int_eq(host_name_parse(host, strlen(host), &request.host), 0);
}

static void build(void)
{
	store = fixture_store(usual, ARRAY_LENGTH(usual));
	head = http_head_new();
	ck_assert_ptr_nonnull(store);
	ck_assert_ptr_nonnull(head);
	begin("api.test");
}

static void tear_down(void)
{
	http_head_free(head);
	secret_store_free(store);
}

static const char *placeholder(size_t index)
{
	return secret_store_get(store, index)->placeholder;
}

/* Replaces each '@' of the frame by the text. */
static const char *frame(const char *form, const char *text)
{
	static char output[4][2048];
	static int turn;
	char *target = output[turn++ % 4];
	size_t used = 0;

	for (; *form; form++) {
		if (*form == '@')
			used += (size_t)snprintf(target + used, 1024, "%s", text);
		else
			target[used++] = *form;
	}
	target[used] = '\0';
	return target;
}

static void add(const char *name, const char *value)
{
	ck_assert_int_eq(http_head_add(head, name, strlen(name), value, strlen(value)), 0);
}

static const char *value_of(const char *name)
{
	static char text[4096];
	ssize_t index = http_head_find(head, name, 0);
	struct http_text value;

	if (index < 0)
		return "(none)";
	value = http_head_field(head, (size_t)index).value;
	snprintf(text, sizeof(text), "%.*s", (int)value.length, value.data);
	return text;
}

static enum secret_refusal prepare(void)
{
	ck_assert_int_eq(secrets_prepare_request(store, head, &request, &verdict), 0);
	ck_assert((verdict.refusal != SECRET_REFUSAL_NONE) == (verdict.hint[0] != '\0'));
	return verdict.refusal;
}

/* No text of the head has the value, whatever happened. */
static void expect_no_value(const char *value)
{
	for (size_t i = 0; i < http_head_field_count(head); i++) {
		struct http_text text = http_head_field(head, i).value;

		ck_assert_ptr_null(memmem(text.data, text.length, value, strlen(value)));
	}
	ck_assert_ptr_null(memmem(http_head_path(head).data, http_head_path(head).length, value,
				  strlen(value)));
}

/* ---- places ------------------------------------------------------------------------------------
 */

static const struct {
	const char *name;
	const char *form;
} good_places[] = {
	{ "Authorization", "Bearer @" },
	{ "authorization", "bearer  @" },
	{ "AUTHORIZATION", "token @" },
	{ "Authorization", "@" },
	{ "Authorization", "Token token=\"@\"" },
	{ "Authorization", "GoogleLogin auth=@" },
	{ "x-api-key", "@" },
	{ "X-Goog-Api-Key", "@" },
	{ "Api-Key", "@" },
	{ "PRIVATE-TOKEN", "@" },
};

START_TEST(a_placeholder_in_its_place_becomes_the_value)
{
	size_t index;

	add("Accept", "*/*");
	add(good_places[_i].name, frame(good_places[_i].form, placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of(good_places[_i].name), frame(good_places[_i].form, VALUE));
	ck_assert(secret_set_has(&verdict.used, KEY));
	ck_assert(verdict.is_injected);
	index = (size_t)http_head_find(head, good_places[_i].name, 0);
	ck_assert(http_head_field(head, index).is_sensitive);
}
END_TEST

static const char *basic(const char *credentials)
{
	static char text[2048];

	snprintf(text, sizeof(text), "Basic ");
	EVP_EncodeBlock((uint8_t *)text + 6, (const uint8_t *)credentials,
			(int)strlen(credentials));
	return text;
}

static const char *const good_basics[] = {
	"user:@", "@:", "@", "x-access-token:@", "@:x-oauth-basic", ":@",
};

START_TEST(basic_credentials_are_decoded_and_encoded)
{
	char wanted[4096];

	snprintf(wanted, sizeof(wanted), "%s", basic(frame(good_basics[_i], VALUE)));
	add("Authorization", basic(frame(good_basics[_i], placeholder(KEY))));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of("authorization"), wanted);
	/* Without padding too. */
	http_head_remove_all(head, "authorization");
	snprintf(wanted, sizeof(wanted), "%s", basic(frame(good_basics[_i], placeholder(KEY))));
	wanted[strcspn(wanted, "=")] = '\0';
	add("Authorization", wanted);
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	snprintf(wanted, sizeof(wanted), "%s", basic(frame(good_basics[_i], VALUE)));
	wanted[strcspn(wanted, "=")] = '\0';
	ck_assert_str_eq(value_of("authorization"), wanted);
}
END_TEST

START_TEST(a_slot_of_its_own_is_the_only_one)
{
	begin("slot.test");
	add("x-mine", placeholder(SLOT));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of("x-mine"), usual[SLOT].value);
	begin("slot.test");
	add("X-Other", placeholder(SLOT));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_OUTSIDE_SLOT);
	begin("slot.test");
	add("Authorization", placeholder(SLOT));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_OUTSIDE_SLOT);
	expect_no_value(usual[SLOT].value);
}
END_TEST

START_TEST(the_query_is_for_those_that_allow_it)
{
	begin("query.test");
	http_head_set_path(head, frame("/a?x=1&key=@&y", placeholder(QUERY)),
			   strlen(frame("/a?x=1&key=@&y", placeholder(QUERY))));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert(http_text_is_exactly(http_head_path(head),
				       frame("/a?x=1&key=@&y", usual[QUERY].value)));
	ck_assert(verdict.is_injected);
}
END_TEST

/* Each character of `text` that is no letter or digit, or all of them, as %XX. */
static const char *percent(const char *text, bool all)
{
	static char output[1024];
	size_t used = 0;

	for (; *text; text++)
		used += (size_t)snprintf(output + used, 8,
					 all || strchr("/+=", *text) ? "%%%02X" : "%c", *text);
	return output;
}

START_TEST(an_escaped_query_stays_escaped)
{
	for (int all = 0; all < 2; all++) {
		char sent[1024];
		const char *rest;

		snprintf(sent, sizeof(sent), "/?api_key=%s&z=1", percent(placeholder(QUERY), all));
		begin("query.test");
		http_head_set_path(head, sent, strlen(sent));
		ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
		snprintf(sent, sizeof(sent), "/?api_key=%s&z=1", percent(usual[QUERY].value, all));
		rest = sent;
		ck_assert_uint_eq(http_head_path(head).length, strlen(rest));
		for (size_t i = 0; rest[i]; i++)
			ck_assert_int_eq(rest[i] | 0x20, http_head_path(head).data[i] | 0x20);
	}
}
END_TEST

/* ---- wrong places and wrong hosts --------------------------------------------------------------
 */

static const struct {
	const char *name; /* of a header, or NULL for the path */
	const char *form;
} bad_places[] = {
	{ "User-Agent", "curl @" },
	{ "X-Anything", "@" },
	{ "Content-Type", "a/b; c=\"@\"" },
	{ NULL, "/@" },
	{ NULL, "/?q=@" },
	{ "Referer", "https://evil.test/?@" },
	{ "Accept-Language", "@" },
	{ "If-None-Match", "\"@\"" },
};

START_TEST(a_placeholder_in_another_place_is_refused)
{
	const char *text = frame(bad_places[_i].form, placeholder(KEY));

	if (bad_places[_i].name)
		add(bad_places[_i].name, text);
	else
		http_head_set_path(head, text, strlen(text));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_OUTSIDE_SLOT);
	ck_assert_ptr_nonnull(strstr(verdict.hint, "KEY"));
	expect_no_value(VALUE);
}
END_TEST

static const char *as_it_is(const char *text)
{
	return text;
}

static const char *percent_some(const char *text)
{
	return percent(text, false);
}

static const char *percent_all(const char *text)
{
	return percent(text, true);
}

static const char *json(const char *text)
{
	static char output[1024];
	size_t used = 0;

	for (; *text; text++)
		used += (size_t)snprintf(output + used, 8, "\\u%04x", *text);
	return output;
}

static const char *hex(const char *text)
{
	static char output[1024];
	size_t used = 0;

	for (; *text; text++)
		used += (size_t)snprintf(output + used, 8, "%02X", *text);
	return output;
}

static const char *base64(const char *text)
{
	static char output[1024];

	EVP_EncodeBlock((uint8_t *)output, (const uint8_t *)text, (int)strlen(text));
	return output;
}

static const char *base64_later(const char *text)
{
	static char output[1024];
	char whole[512];

	snprintf(whole, sizeof(whole), "xy%sz", text);
	EVP_EncodeBlock((uint8_t *)output, (const uint8_t *)whole, (int)strlen(whole));
	output[strcspn(output, "=")] = '\0';
	return output;
}

static const char *(*const writers[])(const char *) = {
	as_it_is, percent_some, percent_all, json, hex, base64, base64_later,
};

/* Placeholders of other hosts, and decoys, in every place and form, towards hosts with and without
 * secrets. */
START_TEST(a_placeholder_for_another_host_is_refused)
{
	static const char *const hosts[] = { "evil.test", "api.test", "loose.test" };
	static const char *const names[] = { "Authorization", "x-api-key", "User-Agent", "Cookie",
					     NULL };

	for (size_t h = 0; h < ARRAY_LENGTH(hosts); h++) {
		for (size_t n = 0; n < ARRAY_LENGTH(names); n++) {
			char text[2048];

			begin(hosts[h]);
			snprintf(text, sizeof(text), "%s%s",
				 names[n] ? "Bearer " : "/a?b=", writers[_i](placeholder(OTHER)));
			if (names[n])
				add(names[n], text);
			else
				http_head_set_path(head, text, strlen(text));
			ck_assert_int_ne(prepare(), SECRET_REFUSAL_NONE);
			if (h != 1)
				ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_WRONG_HOST);
			expect_no_value(usual[OTHER].value);
			begin(hosts[h]);
			add("X-Any", writers[_i](placeholder(DECOY)));
			ck_assert_int_eq(prepare(), SECRET_REFUSAL_CANARY);
		}
	}
}
END_TEST

START_TEST(basic_towards_another_host_is_refused)
{
	begin("evil.test");
	add("Authorization", basic(frame("user:@", placeholder(KEY))));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_WRONG_HOST);
	expect_no_value(VALUE);
}
END_TEST

START_TEST(the_name_of_a_field_and_the_method_are_searched)
{
	begin("evil.test");
	add(placeholder(KEY), "x");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_WRONG_HOST);
	begin("evil.test");
	http_head_set_method(head, placeholder(KEY), strlen(placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_WRONG_HOST);
	begin("evil.test");
	http_head_set_authority(head, placeholder(KEY), strlen(placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_WRONG_HOST);
}
END_TEST

START_TEST(neither_plain_text_nor_another_port_gets_a_value)
{
	begin("api.test");
	request.is_verified = false;
	add("Authorization", frame("Bearer @", placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NEEDS_TLS);
	expect_no_value(VALUE);
	begin("api.test");
	request.port = 80;
	request.is_verified = false;
	add("Authorization", frame("Bearer @", placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_WRONG_HOST);
	expect_no_value(VALUE);
	begin("api.test");
	request.port = 8443;
	add("Authorization", frame("Bearer @", placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_WRONG_HOST);
	expect_no_value(VALUE);
}
END_TEST

START_TEST(the_value_itself_means_nothing_here)
{
	begin("evil.test");
	add("X-Any", "nothing to see");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert(!verdict.is_injected);
	ck_assert_str_eq(value_of("accept-encoding"), "(none)");
}
END_TEST

START_TEST(trailers_are_searched)
{
	prepare();
	begin("api.test");
	add("X-Checksum", "0123456789");
	secrets_check_trailers(store, head, &verdict);
	ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_NONE);
	add("Authorization", placeholder(KEY));
	secrets_check_trailers(store, head, &verdict);
	ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_OUTSIDE_SLOT);
	expect_no_value(VALUE);
}
END_TEST

/* ---- pinning -----------------------------------------------------------------------------------
 */

static const struct {
	const char *name; /* NULL: in the path */
	const char *form;
} foreign[] = {
	{ "Authorization", "Bearer sk-ant-api03-attackersownkey0123" },
	{ "Authorization", "sk-ant-api03-attackersownkey0123, @" },
	{ "Authorization", "Bearer @, sk-attacker" },
	{ "Authorization", "Bearer @sk-attacker" },
	{ "Authorization", "Bearer sk-attacker @" },
	{ "Authorization", "Bearer attacker=@ " },
	{ "Authorization", "Digest username=\"a\", response=\"@\"" },
	{ "Authorization", "AWS4-HMAC-SHA256 Credential=AKIAATTACKER/20150830/r/s/aws4_request, "
			   "SignedHeaders=host, Signature=0123" },
	{ "authorization", "Basic dXNlcjpwYXNzd29yZA==" },
	{ "x-api-key", "attackersownkey" },
	{ "api-key", "attackersownkey" },
	{ "X-Goog-Api-Key", "attackersownkey" },
	{ "Proxy-Authorization", "Basic dXNlcjpwYXNzd29yZA==" },
	{ "Cookie", "session=attacker" },
	{ "Cookie", "a=@; session=attacker" },
	{ "X-Amz-Security-Token", "attacker" },
	{ NULL, "/?key=attackersownkey" },
	{ NULL, "/?a=b&KEY=attackersownkey" },
	{ NULL, "/?k%65y=attackersownkey" },
	{ NULL, "/?access_token=attackersownkey" },
	{ NULL, "/?X-Amz-Credential=AKIAATTACKER%2F20150830&X-Amz-Signature=00" },
};

START_TEST(another_credential_on_a_bound_host_is_refused)
{
	const char *text = frame(foreign[_i].form, placeholder(KEY));

	for (int port = 0; port < 2; port++) {
		begin("api.test");
		request.port = port == 0 ? 443 : 8080;
		if (foreign[_i].name)
			add(foreign[_i].name, text);
		else
			http_head_set_path(head, text, strlen(text));
		ck_assert_int_eq(prepare(), SECRET_REFUSAL_FOREIGN);
		ck_assert_ptr_null(strstr(verdict.hint, "attacker"));
		expect_no_value(VALUE);
	}
	/* The very same is no concern of hosts without a secret. */
	if (!strchr(foreign[_i].form, '@')) {
		begin("else.test");
		if (foreign[_i].name)
			add(foreign[_i].name, text);
		else
			http_head_set_path(head, text, strlen(text));
		ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
		begin("loose.test");
		if (foreign[_i].name)
			add(foreign[_i].name, text);
		else
			http_head_set_path(head, text, strlen(text));
		ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	}
}
END_TEST

static const char *const foreign_basics[] = {
	"@:sk_live_attackersownkey0123",
	"sk_live_attackersownkey0123:@",
	"@:a-password-of-17-c",
	"@@:",
	"a@:x",
	"user:@x",
	"user:x@",
	"user:@:x",
};

START_TEST(a_second_credential_in_basic_is_refused)
{
	add("Authorization", basic(frame(foreign_basics[_i], placeholder(KEY))));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_FOREIGN);
	expect_no_value(VALUE);
}
END_TEST

START_TEST(no_credential_at_all_is_fine)
{
	http_head_set_path(head, "/?q=1&page=2&key=", 17);
	add("Authorization", "");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert(!verdict.is_injected);
}
END_TEST

START_TEST(two_credentials_must_both_be_placeholders)
{
	add("Authorization", frame("Bearer @", placeholder(KEY)));
	add("Authorization", "Bearer attacker");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_FOREIGN);
}
END_TEST

START_TEST(answers_are_asked_for_plain)
{
	add("Accept-Encoding", "gzip, br");
	add("accept-encoding", "zstd");
	add("grpc-accept-encoding", "gzip");
	add("Sec-WebSocket-Extensions", "permessage-deflate");
	add("Authorization", frame("Bearer @", placeholder(KEY)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of("accept-encoding"), "identity");
	ck_assert_int_eq(http_head_find(head, "accept-encoding",
					(size_t)http_head_find(head, "accept-encoding", 0) + 1),
			 -ENOENT);
	ck_assert_str_eq(value_of("grpc-accept-encoding"), "identity");
	ck_assert_str_eq(value_of("sec-websocket-extensions"), "(none)");
	begin("evil.test");
	add("Accept-Encoding", "gzip, br");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of("accept-encoding"), "gzip, br");
}
END_TEST

START_TEST(a_probed_store_closes_its_hosts)
{
	for (unsigned i = 0; i <= SECRET_PROBES_MAX; i++)
		secret_store_note_probe(store);
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_PROBED);
	begin("else.test");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
}
END_TEST

/* ---- AWS ---------------------------------------------------------------------------------------
 */

#define SCOPE "20150830/us-east-1/service/aws4_request"
#define SIGNED "host;x-amz-date;x-amz-security-token"

/* Signs the head with that key, the way a client does. */
static void sign(const char *key_id, const char *key, const char *payload)
{
	static const char zeros[] =
		"0000000000000000000000000000000000000000000000000000000000000000";
	char value[512];
	char hex_text[SIGV4_SIGNATURE_LENGTH];
	struct sigv4 signature;
	struct sigv4_form form = { .escape_again = true,
				   .remove_dots = true,
				   .payload = { payload, strlen(payload) } };

	snprintf(value, sizeof(value),
		 "AWS4-HMAC-SHA256 Credential=%s/" SCOPE ", SignedHeaders=" SIGNED ", Signature=%s",
		 key_id, zeros);
	ck_assert_int_eq(sigv4_parse((struct http_text){ value, strlen(value) }, &signature), 0);
	ck_assert_int_eq(sigv4_sign(head, &signature, &form, key, strlen(key), hex_text), 0);
	memcpy(value + strlen(value) - sizeof(hex_text), hex_text, sizeof(hex_text));
	http_head_remove_all(head, "authorization");
	add("Authorization", value);
}

static void begin_aws(void)
{
	begin("s.aws.test");
	http_head_set_path(head, "/a/../b c?z=1&a=%20", 19);
	add("X-Amz-Date", "20150830T123600Z");
	add("X-Amz-Security-Token", placeholder(AWS_TOKEN));
}

START_TEST(a_request_to_aws_is_signed_anew)
{
	char wanted[4096];

	begin_aws();
	sign(placeholder(AWS_ID), placeholder(AWS_SECRET), sigv4_empty_payload);
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert(!verdict.needs_body_digest);
	ck_assert(secret_set_has(&verdict.used, AWS_SECRET));
	ck_assert(secret_set_has(&verdict.used, AWS_ID));
	ck_assert(secret_set_has(&verdict.used, AWS_TOKEN));
	ck_assert_str_eq(value_of("x-amz-security-token"), usual[AWS_TOKEN].value);
	snprintf(wanted, sizeof(wanted), "%s", value_of("authorization"));
	/* As who has the real keys would have signed it. */
	sign(usual[AWS_ID].value, AWS_KEY, sigv4_empty_payload);
	ck_assert_str_eq(value_of("authorization"), wanted);
}
END_TEST

START_TEST(a_signature_over_a_body_waits_for_it)
{
	char payload[65];
	uint8_t digest[SHA256_DIGEST_LENGTH];
	char before[4096];

	SHA256((const uint8_t *)"body", 4, digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(payload + 2 * i, 3, "%02x", digest[i]);
	begin_aws();
	sign(placeholder(AWS_ID), placeholder(AWS_SECRET), payload);
	snprintf(before, sizeof(before), "%s", value_of("authorization"));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert(verdict.needs_body_digest);
	ck_assert_str_eq(value_of("authorization"), before);
	ck_assert_str_eq(value_of("x-amz-security-token"), placeholder(AWS_TOKEN));
	request.body_digest = digest;
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
	ck_assert(!verdict.needs_body_digest);
	snprintf(before, sizeof(before), "%s", value_of("authorization"));
	sign(usual[AWS_ID].value, AWS_KEY, payload);
	ck_assert_str_eq(value_of("authorization"), before);
	/* Another body than the one that was signed. */
	begin_aws();
	sign(placeholder(AWS_ID), placeholder(AWS_SECRET), payload);
	digest[0] ^= 1;
	request.body_digest = digest;
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_SIGNATURE);
}
END_TEST

START_TEST(what_the_payload_is_said_to_be_is_taken)
{
	static const char *const words[] = { "UNSIGNED-PAYLOAD",
					     "STREAMING-UNSIGNED-PAYLOAD-TRAILER" };
	char wanted[4096];

	for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
		begin_aws();
		add("x-amz-content-sha256", words[i]);
		sign(placeholder(AWS_ID), placeholder(AWS_SECRET), words[i]);
		ck_assert_int_eq(prepare(), SECRET_REFUSAL_NONE);
		ck_assert(!verdict.needs_body_digest);
		snprintf(wanted, sizeof(wanted), "%s", value_of("authorization"));
		sign(usual[AWS_ID].value, AWS_KEY, words[i]);
		ck_assert_str_eq(value_of("authorization"), wanted);
	}
	begin_aws();
	add("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
	sign(placeholder(AWS_ID), placeholder(AWS_SECRET), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_SIGNATURE);
}
END_TEST

START_TEST(no_signature_is_made_for_who_has_none)
{
	uint8_t digest[32] = { 0 };

	begin_aws();
	sign(placeholder(AWS_ID), "not the placeholder of the key", sigv4_empty_payload);
	request.body_digest = digest;
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_SIGNATURE);
	begin_aws();
	sign(placeholder(LONE_ID), placeholder(AWS_SECRET), sigv4_empty_payload);
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_SIGNATURE);
	begin_aws();
	sign("AKIAATTACKERSKEY0000", AWS_KEY, sigv4_empty_payload);
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_FOREIGN);
	begin_aws();
	sign(placeholder(AWS_ID), placeholder(AWS_SECRET), sigv4_empty_payload);
	request.is_verified = false;
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_NEEDS_TLS);
	/* Changed after being signed. */
	begin_aws();
	sign(placeholder(AWS_ID), placeholder(AWS_SECRET), sigv4_empty_payload);
	request.body_digest = digest;
	http_head_set_method(head, "DELETE", 6);
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_SIGNATURE);
	expect_no_value(AWS_KEY);
}
END_TEST

START_TEST(a_secret_access_key_is_never_sent)
{
	begin("s.aws.test");
	add("x-api-key", placeholder(AWS_SECRET));
	ck_assert_int_ne(prepare(), SECRET_REFUSAL_NONE);
	expect_no_value(AWS_KEY);
	begin("s.aws.test");
	add("Authorization", frame("Bearer @", placeholder(AWS_SECRET)));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_OUTSIDE_SLOT);
	expect_no_value(AWS_KEY);
}
END_TEST

START_TEST(a_presigned_url_is_refused)
{
	char path[512];

	snprintf(path, sizeof(path),
		 "/o?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%s%%2F20150830&X-Amz-"
		 "Signature=0",
		 placeholder(AWS_ID));
	begin("s.aws.test");
	http_head_set_path(head, path, strlen(path));
	ck_assert_int_eq(prepare(), SECRET_REFUSAL_FOREIGN);
	expect_no_value(usual[AWS_ID].value);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_request");
	TCase *tests = tcase_create("secret_request");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_loop_test(tests, a_placeholder_in_its_place_becomes_the_value, 0,
			    (int)ARRAY_LENGTH(good_places));
	tcase_add_loop_test(tests, basic_credentials_are_decoded_and_encoded, 0,
			    (int)ARRAY_LENGTH(good_basics));
	tcase_add_test(tests, a_slot_of_its_own_is_the_only_one);
	tcase_add_test(tests, the_query_is_for_those_that_allow_it);
	tcase_add_test(tests, an_escaped_query_stays_escaped);
	tcase_add_loop_test(tests, a_placeholder_in_another_place_is_refused, 0,
			    (int)ARRAY_LENGTH(bad_places));
	tcase_add_loop_test(tests, a_placeholder_for_another_host_is_refused, 0,
			    (int)ARRAY_LENGTH(writers));
	tcase_add_test(tests, basic_towards_another_host_is_refused);
	tcase_add_test(tests, the_name_of_a_field_and_the_method_are_searched);
	tcase_add_test(tests, neither_plain_text_nor_another_port_gets_a_value);
	tcase_add_test(tests, the_value_itself_means_nothing_here);
	tcase_add_test(tests, trailers_are_searched);
	tcase_add_loop_test(tests, another_credential_on_a_bound_host_is_refused, 0,
			    (int)ARRAY_LENGTH(foreign));
	tcase_add_loop_test(tests, a_second_credential_in_basic_is_refused, 0,
			    (int)ARRAY_LENGTH(foreign_basics));
	tcase_add_test(tests, no_credential_at_all_is_fine);
	tcase_add_test(tests, two_credentials_must_both_be_placeholders);
	tcase_add_test(tests, answers_are_asked_for_plain);
	tcase_add_test(tests, a_probed_store_closes_its_hosts);
	tcase_add_test(tests, a_request_to_aws_is_signed_anew);
	tcase_add_test(tests, a_signature_over_a_body_waits_for_it);
	tcase_add_test(tests, what_the_payload_is_said_to_be_is_taken);
	tcase_add_test(tests, no_signature_is_made_for_who_has_none);
	tcase_add_test(tests, a_secret_access_key_is_never_sent);
	tcase_add_test(tests, a_presigned_url_is_refused);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
