/*
 * matchlock-audit: the only process that writes a session's audit log, and the tool that reads it.
 */
#include "audit/commands.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: matchlock-audit COMMAND [OPTION...]\n"
	"\n"
	"  serve   write a session's log from its producers' events (started by matchlock)\n"
	"  show    print a log as a table, or filtered as JSON lines\n"
	"  verify  tell whether a log is complete and unchanged, and name the first bad record\n"
	"\n"
	"Each command lists its options when it is given a wrong one. Exit status: 0, 1 for a\n"
	"failure or a bad log, 2 for bad usage.\n";

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{ "serve", command_serve },
		{ "show", command_show },
		{ "verify", command_verify },
	};

	log_configure("matchlock-audit", LOG_LEVEL_WARNING);
	if (argc > 1 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("matchlock-audit " MATCHLOCK_VERSION);
		return 0;
	}
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	}
	fputs(usage, stderr);
	return EXIT_USAGE;
}
