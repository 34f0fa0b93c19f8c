/* wire/agent: every message survives the round trip, and everything malformed is refused. */
#include "base/checked.h"
#include "wire/agent.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint8_t frame[2 * 65536];

static const uint8_t *payload(size_t frame_length, enum agent_type type, size_t *ret_length)
{
	struct agent_header header;

	ck_assert_uint_gt(frame_length, 0);
	ck_assert_int_eq(agent_decode_header(frame, AGENT_TO_GUEST_MAX, &header), 0);
	ck_assert_uint_eq(header.type, type);
	ck_assert_uint_eq(header.length + AGENT_HEADER_SIZE, frame_length);
	*ret_length = header.length;
	return frame + AGENT_HEADER_SIZE;
}

START_TEST(header_limits)
{
	uint8_t data[AGENT_HEADER_SIZE] = { 0x00, 0x10, 0, 0, 1, 0, 0, 0 };
	struct agent_header header = { .type = 99 };

	ck_assert_int_eq(agent_decode_header(data, 4096, &header), 0);
	ck_assert_uint_eq(header.length, 4096);
	ck_assert_int_eq(agent_decode_header(data, 4095, &header), -EBADMSG);
	data[6] = 1;
	ck_assert_int_eq(agent_decode_header(data, 4096, &header), -EBADMSG);
}
END_TEST

START_TEST(guest_messages)
{
	struct agent_ready ready = { .version = 1, .uptime_ns = 77, .kernel = "6.1.0" };
	struct agent_ready ready_back;
	struct agent_failed failed = { .error = 5, .stage = "mount", .text = "no" };
	struct agent_failed failed_back;
	struct agent_exited exited = { .exec_id = 3,
				       .kind = AGENT_EXIT_SIGNAL,
				       .code = 9,
				       .user_ns = 1,
				       .system_ns = 2,
				       .max_rss_bytes = 3 };
	struct agent_exited exited_back;
	struct agent_exec_failed exec_failed = { .exec_id = 4,
						 .stage = AGENT_STAGE_EXEC,
						 .error = ENOENT };
	struct agent_exec_failed exec_failed_back;
	const uint8_t *data;
	size_t length;

	length = agent_encode_ready(frame, sizeof(frame), &ready);
	data = payload(length, AGENT_READY, &length);
	ck_assert_int_eq(agent_decode_ready(data, length, &ready_back), 0);
	ck_assert_str_eq(ready_back.kernel, "6.1.0");
	ck_assert_uint_eq(ready_back.uptime_ns, 77);
	ck_assert_int_eq(agent_decode_ready(data, length - 1, &ready_back), -EBADMSG);

	length = agent_encode_failed(frame, sizeof(frame), &failed);
	data = payload(length, AGENT_FAILED, &length);
	ck_assert_int_eq(agent_decode_failed(data, length, &failed_back), 0);
	ck_assert_str_eq(failed_back.stage, "mount");
	ck_assert_str_eq(failed_back.text, "no");

	length = agent_encode_exited(frame, sizeof(frame), &exited);
	data = payload(length, AGENT_EXITED, &length);
	ck_assert_int_eq(agent_decode_exited(data, length, &exited_back), 0);
	ck_assert_uint_eq(exited_back.code, 9);
	ck_assert_uint_eq(exited_back.max_rss_bytes, 3);

	length = agent_encode_exec_failed(frame, sizeof(frame), &exec_failed);
	data = payload(length, AGENT_EXEC_FAILED, &length);
	ck_assert_int_eq(agent_decode_exec_failed(data, length, &exec_failed_back), 0);
	ck_assert_uint_eq(exec_failed_back.error, ENOENT);
}
END_TEST

START_TEST(exited_values)
{
	static const struct {
		uint32_t kind, code;
		int result;
	} cases[] = {
		{ AGENT_EXIT_STATUS, 0, 0 },
		{ AGENT_EXIT_STATUS, 255, 0 },
		{ AGENT_EXIT_STATUS, 256, -EBADMSG },
		{ AGENT_EXIT_SIGNAL, 0, -EBADMSG },
		{ AGENT_EXIT_SIGNAL, 1, 0 },
		{ AGENT_EXIT_SIGNAL, 64, 0 },
		{ AGENT_EXIT_SIGNAL, 65, -EBADMSG },
		{ 0, 0, -EBADMSG },
		{ 3, 1, -EBADMSG },
		{ UINT32_MAX, UINT32_MAX, -EBADMSG },
	};

	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct agent_exited exited = { .kind = cases[i].kind, .code = cases[i].code };
		struct agent_exited back;
		size_t length = agent_encode_exited(frame, sizeof(frame), &exited);
		const uint8_t *data = payload(length, AGENT_EXITED, &length);

		ck_assert_int_eq(agent_decode_exited(data, length, &back), cases[i].result);
	}
}
END_TEST

START_TEST(long_error_texts_are_cut)
{
	char text[4096];
	struct agent_failed failed = { .stage = text, .text = text };
	struct agent_failed back;
	struct agent_notice notice = { .text = text };
	const uint8_t *data;
	size_t length;

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	length = agent_encode_failed(frame, sizeof(frame), &failed);
	data = payload(length, AGENT_FAILED, &length);
	ck_assert_int_eq(agent_decode_failed(data, length, &back), 0);
	ck_assert_uint_eq(strlen(back.text), AGENT_TEXT_MAX);
	ck_assert_uint_eq(strlen(back.stage), AGENT_NAME_MAX);
	ck_assert_uint_gt(agent_encode_notice(frame, sizeof(frame), &notice), 0);
}
END_TEST

static struct agent_config sample_config(void)
{
	struct agent_config config = {
		.clock_seconds = 1700000000,
		.clock_nanoseconds = 5,
		.flags = AGENT_CONFIG_NO_NETWORK,
		.uid = 1000,
		.gid = 1001,
		.user = "alice",
		.group = "staff",
		.home = "/home/alice",
		.hostname = "sandbox",
		.time_zone = "Europe/Berlin",
		.certificate = "-----BEGIN",
		.certificate_hash = 0x89abcdef,
		.mount_count = 3,
	};

	memset(config.entropy, 0xa5, sizeof(config.entropy));
	config.mounts[0] = (struct agent_mount){ .kind = AGENT_MOUNT_IMAGE,
						 .flags = AGENT_MOUNT_READ_ONLY,
						 .export_id = 1,
						 .target = "/",
						 .options = "" };
	config.mounts[1] = (struct agent_mount){ .kind = AGENT_MOUNT_TMPFS,
						 .mode = 0700,
						 .uid = 1000,
						 .gid = 1001,
						 .target = "/home/alice",
						 .options = "size=1g" };
	config.mounts[2] = (struct agent_mount){ .kind = AGENT_MOUNT_EXPORT,
						 .export_id = 2,
						 .target = "/home/alice/work",
						 .options = "" };
	config.file_count = 1;
	config.files[0] = (struct agent_file){ 0600, "/home/alice/.aws/credentials", "[\0]\n", 4 };
	return config;
}

START_TEST(config_round_trip)
{
	struct agent_config config = sample_config();
	struct agent_config back;
	size_t length = agent_encode_config(frame, sizeof(frame), &config);
	const uint8_t *data = payload(length, AGENT_CONFIG, &length);

	ck_assert_int_eq(agent_decode_config(data, length, &back), 0);
	ck_assert_int_eq(back.clock_seconds, 1700000000);
	ck_assert_str_eq(back.user, "alice");
	ck_assert_str_eq(back.time_zone, "Europe/Berlin");
	ck_assert_mem_eq(back.entropy, config.entropy, sizeof(config.entropy));
	ck_assert_str_eq(back.certificate, "-----BEGIN");
	ck_assert_uint_eq(back.certificate_hash, 0x89abcdef);
	ck_assert_uint_eq(back.mount_count, 3);
	ck_assert_str_eq(back.mounts[1].options, "size=1g");
	ck_assert_uint_eq(back.mounts[1].mode, 0700);
	ck_assert_str_eq(back.mounts[2].target, "/home/alice/work");
	ck_assert_uint_eq(back.file_count, 1);
	ck_assert_uint_eq(back.files[0].mode, 0600);
	ck_assert_str_eq(back.files[0].path, "/home/alice/.aws/credentials");
	ck_assert_uint_eq(back.files[0].size, 4);
	ck_assert_mem_eq(back.files[0].data, "[\0]\n", 4);
	/* Every shorter form is refused. */
	for (size_t cut = 0; cut < length; cut++) {
		uint8_t *copy = malloc(cut + 1);

		memcpy(copy, data, cut);
		ck_assert_int_eq(agent_decode_config(copy, cut, &back), -EBADMSG);
		free(copy);
	}
}
END_TEST

START_TEST(config_refusals)
{
	static char long_text[AGENT_CERTIFICATE_MAX + 2];
	static char long_file[AGENT_FILE_SIZE_MAX + 1];
	struct agent_config config = sample_config();
	static const char *const bad_paths[] = { "",	  "relative", "/a/../b", "/a/./b",
						 "/a//b", "/a/",      "/..",	 "//" };

	for (size_t i = 0; i < ARRAY_LENGTH(bad_paths); i++) {
		config = sample_config();
		config.mounts[2].target = bad_paths[i];
		ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
		config = sample_config();
		config.home = bad_paths[i];
		ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	}
	config = sample_config();
	config.user = "root:x:0:0";
	ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	config = sample_config();
	config.hostname = "a\nb";
	ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	config = sample_config();
	config.mount_count = AGENT_MOUNTS_MAX + 1;
	ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	config = sample_config();
	config.file_count = AGENT_FILES_MAX + 1;
	ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	config = sample_config();
	config.files[0].data = long_file;
	config.files[0].size = AGENT_FILE_SIZE_MAX;
	ck_assert_uint_gt(agent_encode_config(frame, sizeof(frame), &config), 0);
	config.files[0].size++;
	ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	config = sample_config();
	ck_assert_uint_eq(agent_encode_config(frame, 100, &config), 0);
	memset(long_text, 'x', AGENT_CERTIFICATE_MAX + 1);
	config.certificate = long_text;
	ck_assert_uint_eq(agent_encode_config(frame, sizeof(frame), &config), 0);
	long_text[AGENT_CERTIFICATE_MAX] = '\0';
	ck_assert_uint_gt(agent_encode_config(frame, sizeof(frame), &config), 0);
}
END_TEST

/* What the encoder lets pass, the decoder judges once more. */
START_TEST(config_decoder_judges)
{
	static const struct agent_file bad_files[] = {
		{ 0600, "/home/bob/.env", "", 0 },
		{ 0600, "/home/alice", "", 0 },
		{ 0600, "/home/alicex/.env", "", 0 },
		{ 04600, "/home/alice/.env", "", 0 },
	};
	struct agent_config config;
	struct agent_config back;
	const uint8_t *data;
	size_t length;

	for (size_t i = 0; i < ARRAY_LENGTH(bad_files); i++) {
		config = sample_config();
		config.files[0] = bad_files[i];
		length = agent_encode_config(frame, sizeof(frame), &config);
		ck_assert_uint_gt(length, 0);
		data = payload(length, AGENT_CONFIG, &length);
		ck_assert_int_eq(agent_decode_config(data, length, &back), -EBADMSG);
	}
	config = sample_config();
	config.mounts[2].kind = AGENT_MOUNT_IMAGE; /* not first */
	length = agent_encode_config(frame, sizeof(frame), &config);
	data = payload(length, AGENT_CONFIG, &length);
	ck_assert_int_eq(agent_decode_config(data, length, &back), -EBADMSG);
	config = sample_config();
	config.flags = AGENT_CONFIG_NO_NETWORK | AGENT_CONFIG_NETWORK;
	length = agent_encode_config(frame, sizeof(frame), &config);
	data = payload(length, AGENT_CONFIG, &length);
	ck_assert_int_eq(agent_decode_config(data, length, &back), -EBADMSG);
	config = sample_config();
	config.mounts[1].target = "/"; /* only an image */
	length = agent_encode_config(frame, sizeof(frame), &config);
	data = payload(length, AGENT_CONFIG, &length);
	ck_assert_int_eq(agent_decode_config(data, length, &back), -EBADMSG);
	config = sample_config();
	config.mounts[1].mode = 0100700;
	length = agent_encode_config(frame, sizeof(frame), &config);
	data = payload(length, AGENT_CONFIG, &length);
	ck_assert_int_eq(agent_decode_config(data, length, &back), -EBADMSG);
	config = sample_config();
	config.flags = 0x80;
	length = agent_encode_config(frame, sizeof(frame), &config);
	data = payload(length, AGENT_CONFIG, &length);
	ck_assert_int_eq(agent_decode_config(data, length, &back), -EBADMSG);
}
END_TEST

START_TEST(exec_round_trip)
{
	static const char *const arguments[] = { "sh", "-c", "", "a b\n", NULL };
	static const char *const environment[] = { "A=1", "B=", NULL };
	struct agent_exec exec = { .exec_id = 9,
				   .flags = AGENT_EXEC_PTY,
				   .uid = 1,
				   .gid = 2,
				   .umask = 022,
				   .rows = 50,
				   .columns = 132,
				   .cwd = "/",
				   .group_count = 2,
				   .groups = { 7, 8 } };
	struct agent_exec back;
	uint32_t position = 0;
	size_t length = agent_encode_exec(frame, sizeof(frame), &exec, arguments, environment);
	const uint8_t *data = payload(length, AGENT_EXEC, &length);

	ck_assert_int_eq(agent_decode_exec(data, length, &back), 0);
	ck_assert_uint_eq(back.arguments.count, 4);
	for (size_t i = 0; i < 4; i++)
		ck_assert_str_eq(agent_strings_next(&back.arguments, &position), arguments[i]);
	ck_assert_ptr_null(agent_strings_next(&back.arguments, &position));
	position = 0;
	ck_assert_str_eq(agent_strings_next(&back.environment, &position), "A=1");
	ck_assert_uint_eq(back.groups[1], 8);
	ck_assert_uint_eq(back.columns, 132);
	for (size_t cut = 0; cut < length; cut++) {
		uint8_t *copy = malloc(cut + 1);

		memcpy(copy, data, cut);
		ck_assert_int_eq(agent_decode_exec(copy, cut, &back), -EBADMSG);
		free(copy);
	}
}
END_TEST

START_TEST(exec_refusals)
{
	static const char *const arguments[] = { "x", NULL };
	static const char *const none[] = { NULL };
	struct agent_exec exec = { .cwd = "/" };
	struct agent_exec back;
	uint8_t *data = frame + AGENT_HEADER_SIZE;
	size_t length;

	ck_assert_uint_eq(agent_encode_exec(frame, sizeof(frame), &exec, none, none), 0);
	exec.cwd = "here";
	ck_assert_uint_eq(agent_encode_exec(frame, sizeof(frame), &exec, arguments, none), 0);
	exec.cwd = "/";
	exec.group_count = AGENT_GROUPS_MAX + 1;
	ck_assert_uint_eq(agent_encode_exec(frame, sizeof(frame), &exec, arguments, none), 0);
	exec.group_count = 0;
	length = agent_encode_exec(frame, sizeof(frame), &exec, arguments, none);
	payload(length, AGENT_EXEC, &length);
	ck_assert_int_eq(agent_decode_exec(data, length, &back), 0);
	/* The argument list: count, size, "x\0"; then the empty environment. */
	data[length - 9] = 'y'; /* the NUL of "x" */
	ck_assert_int_eq(agent_decode_exec(data, length, &back), -EBADMSG);
	data[length - 9] = 0;
	data[length - 10] = 0; /* two strings where one was announced */
	ck_assert_int_eq(agent_decode_exec(data, length, &back), -EBADMSG);
	data[length - 10] = 'x';
	data[length - 14] = 0xff; /* a size far past the end */
	data[length - 11] = 0xff;
	ck_assert_int_eq(agent_decode_exec(data, length, &back), -EBADMSG);
}
END_TEST

START_TEST(small_host_messages)
{
	struct agent_signal signal = { .exec_id = 1, .signal = 64, .flags = AGENT_SIGNAL_GROUP };
	struct agent_signal signal_back;
	struct agent_resize resize = { .exec_id = 1, .rows = 2, .columns = 3 };
	struct agent_resize resize_back;
	uint32_t id = 0;
	const uint8_t *data;
	size_t length;

	length = agent_encode_signal(frame, sizeof(frame), &signal);
	data = payload(length, AGENT_SIGNAL, &length);
	ck_assert_int_eq(agent_decode_signal(data, length, &signal_back), 0);
	ck_assert_uint_eq(signal_back.signal, 64);
	signal.signal = 65;
	length = agent_encode_signal(frame, sizeof(frame), &signal);
	data = payload(length, AGENT_SIGNAL, &length);
	ck_assert_int_eq(agent_decode_signal(data, length, &signal_back), -EBADMSG);
	length = agent_encode_resize(frame, sizeof(frame), &resize);
	data = payload(length, AGENT_RESIZE, &length);
	ck_assert_int_eq(agent_decode_resize(data, length, &resize_back), 0);
	ck_assert_uint_eq(resize_back.columns, 3);
	length = agent_encode_kill(frame, sizeof(frame), 77);
	data = payload(length, AGENT_KILL, &length);
	ck_assert_int_eq(agent_decode_kill(data, length, &id), 0);
	ck_assert_uint_eq(id, 77);
	length = agent_encode_shutdown(frame, sizeof(frame));
	data = payload(length, AGENT_SHUTDOWN, &length);
	ck_assert_int_eq(agent_decode_shutdown(data, length), 0);
	ck_assert_int_eq(agent_decode_shutdown(data, 1), -EBADMSG);
}
END_TEST

START_TEST(hello)
{
	uint8_t data[sizeof(struct agent_hello)];
	struct agent_hello back;

	agent_encode_hello(data, 5, AGENT_STREAM_STDERR);
	ck_assert_int_eq(agent_decode_hello(data, &back), 0);
	ck_assert_uint_eq(back.exec_id, 5);
	ck_assert_uint_eq(back.stream, AGENT_STREAM_STDERR);
	data[8] = AGENT_STREAMS;
	ck_assert_int_eq(agent_decode_hello(data, &back), -EBADMSG);
	data[8] = 0;
	data[0] ^= 1;
	ck_assert_int_eq(agent_decode_hello(data, &back), -EBADMSG);
	data[0] ^= 1;
	data[15] = 1;
	ck_assert_int_eq(agent_decode_hello(data, &back), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire_agent");
	TCase *tests = tcase_create("wire_agent");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, header_limits);
	tcase_add_test(tests, guest_messages);
	tcase_add_test(tests, exited_values);
	tcase_add_test(tests, long_error_texts_are_cut);
	tcase_add_test(tests, config_round_trip);
	tcase_add_test(tests, config_refusals);
	tcase_add_test(tests, config_decoder_judges);
	tcase_add_test(tests, exec_round_trip);
	tcase_add_test(tests, exec_refusals);
	tcase_add_test(tests, small_host_messages);
	tcase_add_test(tests, hello);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
