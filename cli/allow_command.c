/* `matchlock allow add|rm|ls SESSION [PATTERN...]`: hosts of a session that runs. */
#include "base/checked.h"
#include "base/cleanup.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/network_options.h"
#include "cli/session_control.h"
#include "cli/session_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	enum proxy_control_type type;
} verbs[] = {
	{ "add", PROXY_CONTROL_ALLOW_ADD },
	{ "rm", PROXY_CONTROL_ALLOW_REMOVE },
	{ "ls", PROXY_CONTROL_ALLOW_LIST },
};

/* 0, or the exit status. */
static int wish(const struct paths *paths, const struct session_record *record,
		enum proxy_control_type type, const char *pattern)
{
	cleanup_free char *text = NULL;
	cleanup_free char *shown = escape_copy(pattern);
	struct problem problem;
	int error = session_control_ask(paths, record, type, pattern, &text, &problem);

	if (error < 0)
		return command_problem(&problem);
	if (type == PROXY_CONTROL_ALLOW_LIST && error == 0) {
		fputs(text, stdout);
		return 0;
	}
	if (error > 0) {
		fprintf(stderr, "matchlock: %s: %s\n", shown, *text ? text : strerror(error));
		return 1;
	}
	printf("%s %s\n", type == PROXY_CONTROL_ALLOW_ADD ? "allowed" : "not allowed any more",
	       shown);
	return 0;
}

int command_allow(int argc, char **argv, const struct paths *paths)
{
	cleanup_record struct session_record record = { 0 };
	enum proxy_control_type type = PROXY_CONTROL_RESULT;
	struct problem problem;
	int status = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return command_help("allow");
	}
	for (size_t i = 0; argc > 1 && i < ARRAY_LENGTH(verbs); i++) {
		if (strcmp(argv[1], verbs[i].name) == 0)
			type = verbs[i].type;
	}
	if (type == PROXY_CONTROL_RESULT)
		return command_usage("allow", "say `add`, `rm` or `ls`, and a session");
	if (argc < 3)
		return command_usage("allow", "which session?");
	if ((type == PROXY_CONTROL_ALLOW_LIST) != (argc == 3))
		return command_usage("allow", argc == 3 ? "which host?" : "ls takes no host");
	for (int i = 3; i < argc; i++) {
		if (network_check_pattern("allow", argv[i], &problem) < 0)
			return command_problem(&problem);
	}
	if (session_record_find(paths, argv[2], &record, &problem) < 0)
		return command_problem(&problem);
	if (type == PROXY_CONTROL_ALLOW_LIST)
		return wish(paths, &record, type, "");
	for (int i = 3; i < argc && status == 0; i++)
		status = wish(paths, &record, type, argv[i]);
	return status;
}
