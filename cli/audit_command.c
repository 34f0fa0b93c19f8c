/* `matchlock audit show|verify SESSION`: finds the log and hands over to matchlock-audit. */
#include "base/cleanup.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/session_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int command_audit(int argc, char **argv, const struct paths *paths)
{
	cleanup_record struct session_record record = { 0 };
	cleanup_list struct text_list arguments = { 0 };
	cleanup_free char *directory = NULL;
	cleanup_free char *program = NULL;
	const char *session = "last";
	struct problem problem;
	int next = 2;

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return command_help("audit");
	if (argc < 2 || (strcmp(argv[1], "show") != 0 && strcmp(argv[1], "verify") != 0))
		return command_usage("audit", "say `show` or `verify`, and a session");
	if (argc > 2 && argv[2][0] != '-')
		session = argv[next++];
	for (int i = next; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return command_help("audit");
	}
	if (session_record_find(paths, session, &record, &problem) < 0)
		return command_problem(&problem);
	program = find_program(paths, "matchlock-audit", &problem);
	if (!program)
		return command_problem(&problem);
	directory = session_record_directory(paths, record.id);
	text_list_add(&arguments, "matchlock-audit");
	text_list_add(&arguments, argv[1]);
	text_list_add(&arguments, "--log");
	text_list_take(&arguments, text_printf("%s/audit.jsonl", directory));
	for (int i = next; i < argc; i++)
		text_list_add(&arguments, argv[i]);
	execv(program, arguments.items);
	fprintf(stderr, "matchlock: cannot run %s: %s\n", program, strerror(errno));
	return 1;
}
