#include "cli/environment.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "wire/agent.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PATH_USUAL "/usr/local/bin:/usr/bin:/bin"
#define PATH_SUPERUSER "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static bool same_name(const char *entry, const char *name, size_t length)
{
	return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

/* Sets "NAME=value", replacing an earlier one of that name. */
static void set_entry(struct text_list *list, const char *entry)
{
	size_t length = strcspn(entry, "=");

	for (size_t i = 0; i < list->count; i++) {
		if (same_name(list->items[i], entry, length)) {
			free(list->items[i]);
			list->items[i] = text_copy(entry);
			return;
		}
	}
	text_list_add(list, entry);
}

static void set_variable(struct text_list *list, const char *name, const char *value)
{
	cleanup_free char *entry = NULL;

	if (!value)
		return;
	entry = text_printf("%s=%s", name, value);
	set_entry(list, entry);
}

static bool path_holds(const char *path, const char *directory)
{
	size_t length = strlen(directory);

	for (const char *at = path; *at;) {
		size_t size = strcspn(at, ":");

		if (size == length && strncmp(at, directory, length) == 0)
			return true;
		at += size;
		if (*at == ':')
			at++;
	}
	return false;
}

/* The host's search path without entries that are relative, and with the usual ones at the end;
 * a person's tools are where they are used to find them. */
static char *search_path(const struct environment_facts *facts)
{
	const char *usual = facts->superuser ? PATH_SUPERUSER : PATH_USUAL;
	const char *host = getenv("PATH");
	char *path = text_copy("");

	if (!facts->host_image || !host) {
		free(path);
		return text_copy(usual);
	}
	for (int round = 0; round < 2; round++) {
		const char *at = round == 0 ? host : usual;

		while (*at) {
			size_t size = strcspn(at, ":");
			cleanup_free char *entry = strndup(at, size);
			cleanup_free char *before = path;

			path = NULL;
			if (entry && entry[0] == '/' && !path_holds(before, entry))
				path = text_printf("%s%s%s", before, *before ? ":" : "", entry);
			else
				path = steal_pointer(&before);
			at += size;
			if (*at == ':')
				at++;
		}
	}
	return path;
}

/* Every library looks elsewhere for whom to trust. Some add one certificate to what they have, the
 * others take a whole bundle in place of it. */
static void add_trust(struct text_list *list)
{
	static const char *const certificate[] = { "NODE_EXTRA_CA_CERTS", "DENO_CERT" };
	static const char *const bundle[] = {
		"SSL_CERT_FILE",
		"REQUESTS_CA_BUNDLE",
		"PIP_CERT",
		"CURL_CA_BUNDLE",
		"GIT_SSL_CAINFO",
		"CARGO_HTTP_CAINFO",
		"npm_config_cafile",
		"AWS_CA_BUNDLE",
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
		"NIX_SSL_CERT_FILE",
		"BUNDLE_SSL_CA_CERT",
		"HEX_CACERTS_PATH",
	};

	for (size_t i = 0; i < ARRAY_LENGTH(certificate); i++)
		set_variable(list, certificate[i], AGENT_TRUST_CERTIFICATE);
	for (size_t i = 0; i < ARRAY_LENGTH(bundle); i++)
		set_variable(list, bundle[i], AGENT_TRUST_BUNDLE);
	set_variable(list, "NODE_USE_SYSTEM_CA", "1");
	set_variable(list, "UV_NATIVE_TLS", "1");
}

static void add_facts(struct text_list *list, const struct run_options *options,
		      const struct environment_facts *facts)
{
	cleanup_free char *path = search_path(facts);
	const char *terminal = getenv("TERM");

	set_variable(list, "PATH", path);
	set_variable(list, "HOME", facts->home);
	set_variable(list, "USER", facts->user);
	set_variable(list, "LOGNAME", facts->user);
	set_variable(list, "SHELL", facts->shell);
	for (char **entry = environ; *entry; entry++) {
		if (same_name(*entry, "LANG", 4) || same_name(*entry, "LANGUAGE", 8) ||
		    strncmp(*entry, "LC_", 3) == 0 || same_name(*entry, "TZ", 2))
			set_entry(list, *entry);
	}
	if (options->terminal) {
		set_variable(list, "TERM", terminal && *terminal ? terminal : "xterm");
		set_variable(list, "COLORTERM", getenv("COLORTERM"));
	}
	if (facts->network)
		add_trust(list);
	set_variable(list, "MATCHLOCK", "1");
	set_variable(list, "MATCHLOCK_SESSION", facts->session);
}

/* "NAME=value", or "NAME" for the host's value; a name that the host lacks adds nothing, as in
 * Docker. */
static void add_wish(struct text_list *list, const char *wish)
{
	if (strchr(wish, '='))
		set_entry(list, wish);
	else
		set_variable(list, wish, getenv(wish));
}

static int add_file(struct text_list *list, const char *path, struct problem *problem)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;
	size_t length = 0;
	unsigned number = 0;
	int error = fd < 0 ? -errno : read_file(fd, ENVIRONMENT_FILE_MAX, &text, &length);
	char *line;
	char *rest;

	if (error < 0 || !text)
		return problem_set(problem, STATUS_USAGE, "--env-file %s: %s", path,
				   strerror(-error));
	if (strlen(text) != length)
		return problem_set(problem, STATUS_USAGE, "--env-file %s: holds a NUL byte", path);
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		size_t size = strlen(line);

		number++;
		if (size > 0 && line[size - 1] == '\r')
			line[--size] = '\0';
		while (isspace((unsigned char)*line))
			line++;
		if (*line == '\0' || *line == '#')
			continue;
		if (*line == '=' || strcspn(line, " \t") < strcspn(line, "="))
			return problem_set(problem, STATUS_USAGE,
					   "--env-file %s:%u: write NAME=VALUE, or NAME to pass on "
					   "the host's value",
					   path, number);
		add_wish(list, line);
	}
	return 0;
}

void environment_add(struct text_list *environment, const char *entry)
{
	size_t length = strcspn(entry, "=");

	for (size_t i = 0; i < environment->count; i++) {
		if (same_name(environment->items[i], entry, length))
			return;
	}
	text_list_add(environment, entry);
}

int environment_build(const struct run_options *options, const struct environment_facts *facts,
		      struct text_list *ret_environment, struct problem *problem)
{
	struct text_list list = { 0 };

	add_facts(&list, options, facts);
	for (size_t i = 0; i < options->environment_preset.count; i++)
		add_wish(&list, options->environment_preset.items[i]);
	for (size_t i = 0; i < options->environment_files.count; i++) {
		if (add_file(&list, options->environment_files.items[i], problem) < 0) {
			text_list_free(&list);
			return -1;
		}
	}
	for (size_t i = 0; i < options->environment.count; i++)
		add_wish(&list, options->environment.items[i]);
	*ret_environment = list;
	return 0;
}
