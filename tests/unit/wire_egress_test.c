/* wire/egress.h and wire/proxy_control.h: what was written comes back, and nothing else is taken.
 */
#include "base/checked.h"
#include "wire/egress.h"
#include "wire/proxy_control.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct egress_target targets[] = {
	{ .family = 4, .port = 443, .address = { 198, 18, 0, 7 } },
	{ .family = 6, .port = 65535, .address = { 0xfd, 1, 2, [15] = 9 } },
};

START_TEST(a_hello_comes_back)
{
	uint8_t hello[EGRESS_HELLO_SIZE];
	struct egress_target back;

	for (size_t i = 0; i < ARRAY_LENGTH(targets); i++) {
		egress_encode_hello(hello, &targets[i]);
		ck_assert_int_eq(egress_decode_hello(hello, &back), 0);
		ck_assert_int_eq(back.family, targets[i].family);
		ck_assert_int_eq(back.port, targets[i].port);
		ck_assert_mem_eq(back.address, targets[i].address, sizeof(back.address));
	}
	/* As the header has it. */
	egress_encode_hello(hello, &targets[0]);
	ck_assert_mem_eq(hello, "MLe0\x04\x00\xbb\x01\xc6\x12\x00\x07", 12);
}
END_TEST

START_TEST(other_hellos_are_refused)
{
	static const struct {
		size_t offset;
		uint8_t value;
	} changes[] = { { 0, 'm' }, { 3, '1' }, { 4, 0 },  { 4, 5 },
			{ 5, 1 },   { 12, 1 },	{ 23, 1 }, { 4, 255 } };
	uint8_t hello[EGRESS_HELLO_SIZE];
	struct egress_target back;

	for (size_t i = 0; i < ARRAY_LENGTH(changes); i++) {
		egress_encode_hello(hello, &targets[0]);
		hello[changes[i].offset] = changes[i].value;
		ck_assert_int_eq(egress_decode_hello(hello, &back), -EBADMSG);
	}
	egress_encode_hello(hello, &targets[0]);
	hello[6] = hello[7] = 0;
	ck_assert_int_eq(egress_decode_hello(hello, &back), -EBADMSG);
}
END_TEST

static size_t encode(uint8_t *buffer, size_t capacity, enum proxy_control_type type,
		     const char *name, const char *text, uint32_t error)
{
	const struct proxy_control message = {
		.type = type, .name = name, .text = text, .error = error
	};

	return proxy_control_encode(buffer, capacity, &message);
}

START_TEST(control_messages_come_back)
{
	static const struct proxy_control messages[] = {
		{ PROXY_CONTROL_PLACEHOLDER, 0, "KEY", "sk-0123" },
		{ PROXY_CONTROL_READY, 0, "", "-----BEGIN CERTIFICATE-----\n" },
		{ PROXY_CONTROL_RESULT, EEXIST, "", "" },
		{ PROXY_CONTROL_RESULT, 0, "", "example.test\n" },
		{ PROXY_CONTROL_ALLOW_ADD, 0, "", "*.example.test" },
		{ PROXY_CONTROL_ALLOW_REMOVE, 0, "", "a:22" },
		{ PROXY_CONTROL_ALLOW_LIST, 0, "", "" },
	};
	uint8_t buffer[128];
	struct proxy_control back;

	for (size_t i = 0; i < ARRAY_LENGTH(messages); i++) {
		size_t length = proxy_control_encode(buffer, sizeof(buffer), &messages[i]);

		ck_assert_uint_gt(length, 0);
		ck_assert_int_eq(proxy_control_decode(buffer, length, &back), 0);
		ck_assert_int_eq(back.type, messages[i].type);
		ck_assert_uint_eq(back.error, messages[i].error);
		ck_assert_str_eq(back.name, messages[i].name);
		ck_assert_str_eq(back.text, messages[i].text);
		for (size_t cut = 0; cut < length; cut++)
			ck_assert_int_eq(proxy_control_decode(buffer, cut, &back), -EBADMSG);
		ck_assert_int_eq(proxy_control_decode(buffer, length + 1, &back), -EBADMSG);
	}
}
END_TEST

START_TEST(other_control_messages_are_refused)
{
	uint8_t buffer[64];
	struct proxy_control back;
	size_t length;

	length = encode(buffer, sizeof(buffer), PROXY_CONTROL_ALLOW_ADD, "", "", 0);
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	length = encode(buffer, sizeof(buffer), PROXY_CONTROL_READY, "name", "pem", 0);
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	length = encode(buffer, sizeof(buffer), PROXY_CONTROL_ALLOW_LIST, "", "text", 0);
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	length = encode(buffer, sizeof(buffer), PROXY_CONTROL_READY, "", "pem", 1);
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	length = encode(buffer, sizeof(buffer), (enum proxy_control_type)4, "", "", 0);
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	length = encode(buffer, sizeof(buffer), PROXY_CONTROL_READY, "", "pem", 0);
	buffer[length - 2] = '\0'; /* a NUL inside */
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	length = encode(buffer, sizeof(buffer), PROXY_CONTROL_READY, "", "pem", 0);
	buffer[8] = 255; /* a longer name than there is */
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
	buffer[8] = 0;
	buffer[2] = 1;
	ck_assert_int_eq(proxy_control_decode(buffer, length, &back), -EBADMSG);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
	char *text = calloc(1, PROXY_CONTROL_MAX + 1);
	uint8_t *buffer = malloc(2 * PROXY_CONTROL_MAX);

	memset(text, 'x', PROXY_CONTROL_MAX);
	ck_assert_uint_eq(encode(buffer, 20, PROXY_CONTROL_READY, "", "pempem", 0), 0);
	ck_assert_uint_eq(encode(buffer, 24, PROXY_CONTROL_READY, "", "pempem", 0), 24);
	ck_assert_uint_eq(encode(buffer, 2 * PROXY_CONTROL_MAX, PROXY_CONTROL_READY, "", text, 0),
			  0);
	text[PROXY_CONTROL_MAX - 18] = '\0';
	ck_assert_uint_eq(encode(buffer, 2 * PROXY_CONTROL_MAX, PROXY_CONTROL_READY, "", text, 0),
			  PROXY_CONTROL_MAX);
	free(text);
	free(buffer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire_egress");
	TCase *tests = tcase_create("wire_egress");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, a_hello_comes_back);
	tcase_add_test(tests, other_hellos_are_refused);
	tcase_add_test(tests, control_messages_come_back);
	tcase_add_test(tests, other_control_messages_are_refused);
	tcase_add_test(tests, what_does_not_fit_is_refused);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
