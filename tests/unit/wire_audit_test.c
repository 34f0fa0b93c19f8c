/* wire/audit.h: events come back as they were, and nothing else is taken for one. */
#include "wire/audit.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct audit_event event;
static struct audit_event_view view;

static const void *finish(size_t *ret_length)
{
	const void *data;

	ck_assert(audit_event_finish(&event, &data, ret_length));
	return data;
}

START_TEST(an_event_comes_back)
{
	size_t length;
	const void *data;

	audit_event_begin(&event, AUDIT_DENIAL);
	audit_event_text(&event, AUDIT_FIELD_OPERATION, "open");
	audit_event_bytes(&event, AUDIT_FIELD_PATH, "a\0b", 3);
	audit_event_number(&event, AUDIT_FIELD_COUNT, UINT64_MAX);
	audit_event_text(&event, AUDIT_FIELD_HINT, NULL);
	audit_event_text(&event, AUDIT_FIELD_REASON, "");
	data = finish(&length);
	ck_assert_int_eq(audit_event_decode(data, length, &view), 0);
	ck_assert_int_eq(view.kind, AUDIT_DENIAL);
	ck_assert_uint_eq(view.field_count, 4);
	ck_assert_int_eq(view.fields[1].field, AUDIT_FIELD_PATH);
	ck_assert_uint_eq(view.fields[1].text_length, 3);
	ck_assert_mem_eq(view.fields[1].text, "a\0b", 3);
	ck_assert_int_eq(view.fields[2].type, AUDIT_TYPE_NUMBER);
	ck_assert_uint_eq(view.fields[2].number, UINT64_MAX);
	ck_assert_uint_eq(view.fields[3].text_length, 0);
}
END_TEST

START_TEST(long_text_is_cut_and_too_much_is_refused)
{
	static char text[AUDIT_TEXT_MAX + 10];
	size_t length;
	const void *data;

	memset(text, 'x', sizeof(text) - 1);
	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_PATH, text);
	data = finish(&length);
	ck_assert_int_eq(audit_event_decode(data, length, &view), 0);
	ck_assert_uint_eq(view.fields[0].text_length, AUDIT_TEXT_MAX);
	for (int i = 0; i < 4; i++)
		audit_event_text(&event, (enum audit_field)(AUDIT_FIELD_PATH2 + i), text);
	ck_assert(!audit_event_finish(&event, &data, &length));
}
END_TEST

START_TEST(an_event_is_sent_as_one_message)
{
	static uint8_t received[256];
	char text[AUDIT_TEXT_MAX];
	int ends[2];
	ssize_t length;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	audit_event_begin(&event, AUDIT_NOTICE);
	audit_event_text(&event, AUDIT_FIELD_DETAIL, "said");
	ck_assert_int_eq(audit_event_send(&event, ends[0]), 0);
	length = recv(ends[1], received, sizeof(received), 0);
	ck_assert_int_gt(length, 0);
	ck_assert_int_eq(audit_event_decode(received, (size_t)length, &view), 0);
	ck_assert_mem_eq(view.fields[0].text, "said", 4);
	close(ends[1]);
	audit_event_begin(&event, AUDIT_NOTICE);
	ck_assert_int_eq(audit_event_send(&event, ends[0]), -EPIPE);
	memset(text, 'a', sizeof(text));
	for (int i = 0; i < 5; i++)
		audit_event_bytes(&event, AUDIT_FIELD_DETAIL, text, sizeof(text));
	ck_assert_int_eq(audit_event_send(&event, ends[0]), -EMSGSIZE);
	close(ends[0]);
}
END_TEST

START_TEST(every_cut_and_every_extra_byte_is_refused)
{
	static uint8_t copy[256];
	size_t length;
	const void *data;

	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_PATH, "path");
	audit_event_number(&event, AUDIT_FIELD_BYTES, 7);
	data = finish(&length);
	for (size_t cut = 0; cut < length; cut++)
		ck_assert_int_eq(audit_event_decode(data, cut, &view), -EBADMSG);
	memcpy(copy, data, length);
	ck_assert_int_eq(audit_event_decode(copy, length, &view), 0);
	ck_assert_int_eq(audit_event_decode(copy, length + 1, &view), -EBADMSG);
}
END_TEST

/* Puts `value` at `offset` of a good event and expects a refusal. */
static void refuse(size_t offset, uint8_t value)
{
	uint8_t copy[256];
	size_t length;
	const void *data;

	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_PATH, "path");
	audit_event_number(&event, AUDIT_FIELD_BYTES, 7);
	data = finish(&length);
	memcpy(copy, data, length);
	copy[offset] = value;
	ck_assert_msg(audit_event_decode(copy, length, &view) == -EBADMSG, "offset %zu value %u",
		      offset, value);
}

START_TEST(each_part_of_the_header_is_checked)
{
	refuse(0, 2);		      /* version */
	refuse(2, 0);		      /* kind 0 */
	refuse(2, 200);		      /* kind unknown */
	refuse(4, 1);		      /* fewer fields than there are */
	refuse(4, 3);		      /* more */
	refuse(5, 255);		      /* far more */
	refuse(6, 1);		      /* the zero */
	refuse(8, 0);		      /* field 0 */
	refuse(8, 40);		      /* field unknown */
	refuse(9, 1);		      /* field 263 */
	refuse(10, 0);		      /* type 0 */
	refuse(10, 1);		      /* text of length 4 as a number */
	refuse(10, 3);		      /* type unknown */
	refuse(12, 3);		      /* length too short */
	refuse(12, 5);		      /* too long */
	refuse(15, 255);	      /* far too long */
	refuse(20, AUDIT_FIELD_PATH); /* the same field again */
}
END_TEST

START_TEST(every_number_has_a_name_or_none)
{
	ck_assert_str_eq(audit_kind_name(AUDIT_GRANT), "grant");
	ck_assert_str_eq(audit_field_name(AUDIT_FIELD_SECRETS), "secrets");
	ck_assert_ptr_null(audit_kind_name((enum audit_kind)0));
	ck_assert_ptr_null(audit_kind_name((enum audit_kind)16));
	ck_assert_ptr_null(audit_field_name((enum audit_field)0));
	ck_assert_ptr_null(audit_field_name((enum audit_field)40));
	for (int i = 1; i <= AUDIT_CANARY; i++)
		ck_assert_ptr_nonnull(audit_kind_name((enum audit_kind)i));
	for (int i = 1; i <= AUDIT_FIELD_SECRETS; i++)
		ck_assert_ptr_nonnull(audit_field_name((enum audit_field)i));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire_audit");
	TCase *tests = tcase_create("wire_audit");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, an_event_comes_back);
	tcase_add_test(tests, long_text_is_cut_and_too_much_is_refused);
	tcase_add_test(tests, an_event_is_sent_as_one_message);
	tcase_add_test(tests, every_cut_and_every_extra_byte_is_refused);
	tcase_add_test(tests, each_part_of_the_header_is_checked);
	tcase_add_test(tests, every_number_has_a_name_or_none);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
