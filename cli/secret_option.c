#include "cli/secret_option.h"

#include "base/bytes.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "cli/client_certificates.h"
#include "cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#define PORT_USUAL 443

/* Names and forms of the decoys. Each session draws its own, from the broker's generator. */
static const struct {
	const char *name;
	const char *model;
} canaries[] = {
	{ "PROD_GITHUB_TOKEN", "ghp_0123456789abcdefghijABCDEFGHIJ012345" },
	{ "STRIPE_LIVE_SECRET_KEY", "sk_live_0123456789abcdefghijABCD" },
	{ "PROD_DATABASE_PASSWORD", "x9Kq2mVt7Lp4RwZs" },
	{ "BACKUP_SIGNING_KEY", "3f9a7c1e5b8d2046f1a3c5e7092b4d68" },
	{ "PROD_ACCESS_KEY_ID", "AKIAQ3EGRV2FJZ5TNW4K" },
	{ "PROD_SECRET_ACCESS_KEY", "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" },
};

const char *secret_option_canary(size_t index)
{
	return index < ARRAY_LENGTH(canaries) ? canaries[index].name : NULL;
}

/* ---- parsing -----------------------------------------------------------------------------------
 */

void secret_option_free(struct secret_option *option)
{
	free(option->name);
	free(option->from);
	text_list_free(&option->hosts);
	text_list_free(&option->slots);
	*option = (struct secret_option){ 0 };
}

static char *copy_part(const char *text, size_t length)
{
	return text_printf("%.*s", (int)length, text);
}

static int parse_source(const char *text, struct secret_option *option, struct problem *problem)
{
	static const char *const prefixes[] = {
		[SECRET_FROM_ENVIRONMENT] = "env:",
		[SECRET_FROM_FILE] = "file:",
		[SECRET_FROM_COMMAND] = "cmd:",
	};

	for (size_t i = 0; i < ARRAY_LENGTH(prefixes); i++) {
		size_t length = strlen(prefixes[i]);

		if (strncmp(text, prefixes[i], length) != 0)
			continue;
		if (text[length] == '\0')
			return problem_set(problem, STATUS_USAGE, "--secret %s: nothing follows %s",
					   option->name, prefixes[i]);
		option->source = (enum secret_source)i;
		option->from = text_copy(text + length);
		return 0;
	}
	return problem_set(
		problem, STATUS_USAGE,
		"--secret %s: a value in the command line can be read by every process of "
		"this machine, and stays in the shell's history. Put it into the "
		"environment (--secret %s@HOST), or write %s=file:PATH@HOST or "
		"%s=cmd:COMMAND@HOST",
		option->name, option->name, option->name, option->name);
}

static int parse_host(const char *text, size_t length, struct secret_option *option,
		      struct problem *problem)
{
	const char *colon = memchr(text, ':', length);
	size_t size = colon ? (size_t)(colon - text) : length;
	cleanup_free char *host = copy_part(text, size);
	cleanup_free char *port = colon ? copy_part(colon + 1, length - size - 1) : NULL;
	uint64_t number = PORT_USUAL;

	if (option->hosts.count == SECRET_HOSTS_MAX)
		return problem_set(problem, STATUS_USAGE, "--secret %s: more than %d hosts",
				   option->name, SECRET_HOSTS_MAX);
	if (port && !strcmp(port, "*"))
		number = SECRET_PORT_ANY;
	else if (port && (!parse_unsigned(port, UINT16_MAX, &number) || number == 0))
		return problem_set(problem, STATUS_USAGE,
				   "--secret %s: the port after ':' is a number up to 65535, or *",
				   option->name);
	for (char *at = host; *at; at++)
		*at = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
	option->ports[option->hosts.count] = (uint16_t)number;
	text_list_add(&option->hosts, host);
	return 0;
}

static int parse_hosts(const char *text, size_t length, struct secret_option *option,
		       struct problem *problem)
{
	while (length > 0) {
		const char *comma = memchr(text, ',', length);
		size_t size = comma ? (size_t)(comma - text) : length;

		if (parse_host(text, size, option, problem) < 0)
			return -1;
		text += comma ? size + 1 : size;
		length -= comma ? size + 1 : size;
	}
	return 0;
}

static int parse_extra(const char *text, struct secret_option *option, struct problem *problem)
{
	static const struct {
		const char *word;
		uint8_t flag;
	} words[] = {
		{ "query", SECRET_FLAG_QUERY },
		{ "body", SECRET_FLAG_BODY },
		{ "capture", SECRET_FLAG_CAPTURE },
		{ "unpinned", SECRET_FLAG_UNPINNED },
	};
	uint64_t number;

	for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
		if (!strcmp(text, words[i].word)) {
			option->flags |= words[i].flag;
			return 0;
		}
	}
	if (!strncmp(text, "header=", 7) && option->slots.count < SECRET_SLOTS_MAX) {
		text_list_add(&option->slots, text + 7);
		return 0;
	}
	if (!strncmp(text, "prefix=", 7) && parse_unsigned(text + 7, UINT8_MAX, &number) &&
	    number > 0) {
		option->prefix_length = (uint8_t)number;
		return 0;
	}
	return problem_set(
		problem, STATUS_USAGE,
		"--secret %s: after '+' goes query, body, capture, unpinned, header=NAME or "
		"prefix=N",
		option->name);
}

static int parse_extras(const char *text, struct secret_option *option, struct problem *problem)
{
	while (*text == '+') {
		size_t length = strcspn(++text, "+");
		cleanup_free char *word = copy_part(text, length);

		if (parse_extra(word, option, problem) < 0)
			return -1;
		text += length;
	}
	return 0;
}

static enum secret_kind kind_of(const char *name)
{
	static const struct {
		const char *ending;
		enum secret_kind kind;
	} endings[] = {
		{ "AWS_ACCESS_KEY_ID", SECRET_AWS_ACCESS_KEY_ID },
		{ "AWS_SECRET_ACCESS_KEY", SECRET_AWS_SECRET_ACCESS_KEY },
		{ "AWS_SESSION_TOKEN", SECRET_AWS_SESSION_TOKEN },
	};
	size_t length = strlen(name);

	for (size_t i = 0; i < ARRAY_LENGTH(endings); i++) {
		size_t size = strlen(endings[i].ending);

		if (length >= size && !strcmp(name + length - size, endings[i].ending))
			return endings[i].kind;
	}
	return SECRET_PLAIN;
}

static struct secret_text borrow(const char *text)
{
	return (struct secret_text){ text, strlen(text) };
}

/* As in the bundle, with that value. */
static struct secret_entry make_entry(const struct secret_option *option, struct secret_text value)
{
	struct secret_entry entry = {
		.kind = kind_of(option->name),
		.flags = option->flags,
		.prefix_length = option->prefix_length,
		.host_count = (uint8_t)option->hosts.count,
		.slot_count = (uint8_t)option->slots.count,
		.name = borrow(option->name),
		.value = value,
	};

	for (size_t i = 0; i < option->hosts.count; i++)
		entry.hosts[i] =
			(struct secret_host){ borrow(option->hosts.items[i]), option->ports[i] };
	for (size_t i = 0; i < option->slots.count; i++)
		entry.slots[i] = borrow(option->slots.items[i]);
	return entry;
}

/* All but the value. */
static int check_entry(const struct secret_option *option, struct problem *problem)
{
	char some[UINT8_MAX + 2];
	struct secret_entry entry;
	const char *fault;

	memset(some, 'x', sizeof(some));
	entry = make_entry(option, (struct secret_text){ some, sizeof(some) });
	fault = secret_entry_fault(&entry);
	if (fault)
		return problem_set(problem, STATUS_USAGE, "--secret %s: %s", option->name, fault);
	return 0;
}

/* Takes "NAME[=SOURCE]", the hosts and the options apart, and reads each. */
static int parse_parts(const char *text, struct secret_option *option, struct problem *problem)
{
	/* A path or a command may hold '@', a host may not. */
	const char *at = strrchr(text, '@');
	size_t name = strcspn(text, "=@");
	cleanup_free char *source = NULL;
	size_t hosts;

	if (name == 0 || name > SECRET_NAME_MAX)
		return problem_set(problem, STATUS_USAGE,
				   "--secret: write NAME@HOST, for example "
				   "--secret API_KEY@api.example.com");
	option->name = copy_part(text, name);
	if (text[name] == '=' && at)
		source = copy_part(text + name + 1, (size_t)(at - text) - name - 1);
	else
		source = text[name] == '=' ? text_copy(text + name + 1)
					   : text_printf("env:%s", option->name);
	if (parse_source(source, option, problem) < 0)
		return -1;
	if (!at || at[1] == '\0' || at[1] == '+')
		return problem_set(problem, STATUS_USAGE,
				   "--secret %s: say for which hosts: %s@HOST[,HOST]", option->name,
				   option->name);
	hosts = strcspn(at + 1, "+");
	if (parse_hosts(at + 1, hosts, option, problem) < 0 ||
	    parse_extras(at + 1 + hosts, option, problem) < 0)
		return -1;
	return check_entry(option, problem);
}

int secret_option_parse(const char *text, struct secret_option *ret_option, struct problem *problem)
{
	struct secret_option option = { 0 };

	if (parse_parts(text, &option, problem) < 0) {
		secret_option_free(&option);
		return -1;
	}
	*ret_option = option;
	return 0;
}

/* ---- values ------------------------------------------------------------------------------------
 */

struct value {
	char text[SECRET_VALUE_MAX + 3]; /* with a newline, and one byte that is too many */
	size_t length;
};

/* Wiped from the memory that /proc/PID/environ shows, once all secrets are read: two may have the
 * same. */
static void wipe_variable(const char *name)
{
	char *value = getenv(name);

	if (!value)
		return;
	explicit_bzero(value, strlen(value));
	unsetenv(name);
}

static int read_variable(const struct secret_option *option, struct value *value,
			 struct problem *problem)
{
	const char *text = getenv(option->from);

	if (!text || *text == '\0')
		return problem_set(problem, STATUS_USAGE,
				   "--secret %s: the environment has no %s; set it, or write "
				   "%s=file:PATH@HOST or %s=cmd:COMMAND@HOST",
				   option->name, option->from, option->name, option->name);
	value->length = MIN_OF(strlen(text), sizeof(value->text));
	memcpy(value->text, text, value->length);
	return 0;
}

static int read_path(const struct secret_option *option, struct value *value,
		     struct problem *problem)
{
	cleanup_fd int fd = open(option->from, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -errno : read_full(fd, value->text, sizeof(value->text));

	if (got < 0)
		return problem_set(problem, STATUS_USAGE, "--secret %s: %s: %s", option->name,
				   option->from, strerror((int)-got));
	value->length = (size_t)got;
	return 0;
}

/* Until the end of file, the limit, or the deadline. */
static bool read_pipe(int fd, uint64_t deadline, struct value *value)
{
	while (value->length < sizeof(value->text)) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		int64_t left = clock_ms_until(deadline);
		ssize_t got;

		if (left <= 0)
			return false;
		if (poll(&wait, 1, (int)left) <= 0)
			continue;
		got = read(fd, value->text + value->length, sizeof(value->text) - value->length);
		if (got == 0)
			return true;
		if (got < 0 && errno != EINTR)
			return false;
		value->length += (size_t)MAX_OF(got, 0);
	}
	return true;
}

static int read_command(const struct secret_option *option, struct value *value,
			struct problem *problem)
{
	char shell[] = "sh";
	char flag[] = "-c";
	char *arguments[] = { shell, flag, option->from, NULL };
	struct child child = CHILD_INIT("secret");
	struct child_streams streams = { .error = -1, .input = -1 };
	uint64_t deadline = clock_now_ms() + SECRET_COMMAND_MS;
	int ends[2];
	bool is_read;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return problem_set(problem, STATUS_SANDBOX, "--secret %s: pipe: %s", option->name,
				   strerror(errno));
	streams.output = ends[1];
	if (child_start(&child, "/bin/sh", arguments, NULL, 0, &streams, problem) < 0) {
		close(ends[0]);
		close(ends[1]);
		return -1;
	}
	close(ends[1]);
	is_read = read_pipe(ends[0], deadline, value);
	close(ends[0]);
	if (!is_read || !child_wait(&child, (int)MAX_OF(clock_ms_until(deadline), 0))) {
		child_kill(&child);
		child_close(&child);
		return problem_set(problem, STATUS_USAGE,
				   "--secret %s: its command did not end within %d s", option->name,
				   SECRET_COMMAND_MS / 1000);
	}
	if (child_exit_status(&child) != 0) {
		cleanup_free char *end = child_end_text(&child);

		child_close(&child);
		return problem_set(problem, STATUS_USAGE, "--secret %s: its command ended with %s",
				   option->name, end);
	}
	child_close(&child);
	return 0;
}

static int read_value(const struct secret_option *option, struct value *value,
		      struct problem *problem)
{
	int result = -1;

	value->length = 0;
	switch (option->source) {
	case SECRET_FROM_ENVIRONMENT:
		result = read_variable(option, value, problem);
		break;
	case SECRET_FROM_FILE:
		result = read_path(option, value, problem);
		break;
	case SECRET_FROM_COMMAND:
		result = read_command(option, value, problem);
		break;
	}
	if (result < 0)
		return result;
	if (value->length > 0 && value->text[value->length - 1] == '\n')
		value->length--;
	if (value->length > 0 && value->text[value->length - 1] == '\r')
		value->length--;
	return 0;
}

/* ---- the bundle --------------------------------------------------------------------------------
 */

static int add_secret(const struct secret_option *option, struct byte_writer *writer,
		      struct problem *problem)
{
	struct value value;
	struct secret_entry entry;
	const char *fault = NULL;
	int result = read_value(option, &value, problem);

	if (result == 0) {
		entry = make_entry(option, (struct secret_text){ value.text, value.length });
		fault = secret_entry_fault(&entry);
		if (!fault)
			secret_bundle_add(writer, &entry);
	}
	explicit_bzero(&value, sizeof(value));
	if (fault)
		result = problem_set(problem, STATUS_USAGE, "--secret %s: %s", option->name, fault);
	return result;
}

static void add_canaries(struct byte_writer *writer)
{
	for (size_t i = 0; i < ARRAY_LENGTH(canaries); i++) {
		const struct secret_entry entry = {
			.kind = SECRET_CANARY,
			.name = borrow(canaries[i].name),
			.value = borrow(canaries[i].model),
		};

		secret_bundle_add(writer, &entry);
	}
}

static int fill(const struct secret_option *options, size_t count, bool with_canaries,
		const json_t *egress_rules, struct byte_writer *writer, struct problem *problem)
{
	secret_bundle_begin(writer);
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (!strcmp(options[i].name, options[j].name))
				return problem_set(problem, STATUS_USAGE,
						   "--secret %s is there twice; one takes several "
						   "hosts: %s@HOST,HOST",
						   options[i].name, options[i].name);
		}
		if (add_secret(&options[i], writer, problem) < 0)
			return -1;
	}
	if (with_canaries)
		add_canaries(writer);
	if (client_certificates_bundle(egress_rules, writer, problem) < 0)
		return -1;
	if (!byte_writer_ok(writer))
		return problem_set(
			problem, STATUS_USAGE,
			"--secret: more than %d secrets, decoys and client certificates, "
			"or more than %d KiB in all",
			SECRET_COUNT_MAX, SECRET_BUNDLE_MAX / 1024);
	return 0;
}

static int seal(int fd, size_t length)
{
	if (ftruncate(fd, (off_t)length) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}

int secret_options_bundle(const struct secret_option *options, size_t count, bool with_canaries,
			  const json_t *egress_rules, int *ret_fd, struct problem *problem)
{
	cleanup_fd int fd = memfd_create("secrets", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct byte_writer writer;
	void *block;
	int result;

	/* Written in place: there is no copy to forget. */
	if (fd < 0 || ftruncate(fd, SECRET_BUNDLE_MAX) < 0)
		return problem_set(problem, STATUS_SANDBOX, "--secret: memfd: %s", strerror(errno));
	block = mmap(NULL, SECRET_BUNDLE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (block == MAP_FAILED)
		return problem_set(problem, STATUS_SANDBOX, "--secret: memfd: %s", strerror(errno));
	byte_writer_init(&writer, block, SECRET_BUNDLE_MAX);
	result = fill(options, count, with_canaries, egress_rules, &writer, problem);
	munmap(block, SECRET_BUNDLE_MAX);
	for (size_t i = 0; i < count; i++) {
		if (options[i].source == SECRET_FROM_ENVIRONMENT)
			wipe_variable(options[i].from);
	}
	if (result < 0)
		return result;
	result = seal(fd, writer.length);
	if (result < 0)
		return problem_set(problem, STATUS_SANDBOX, "--secret: sealing: %s",
				   strerror(-result));
	*ret_fd = steal_fd(&fd);
	return 0;
}
