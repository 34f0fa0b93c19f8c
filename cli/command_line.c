#include "cli/command_line.h"

#include "cli/help.h"

#include <stdio.h>
#include <unistd.h>

int command_problem(const struct problem *problem)
{
	fprintf(stderr, "matchlock: %s\n", problem->text);
	return problem->status == STATUS_USAGE ? STATUS_USAGE : 1;
}

int command_usage(const char *command, const char *mistake)
{
	fprintf(stderr, "matchlock %s: %s; see `matchlock %s --help`\n", command, mistake, command);
	return STATUS_USAGE;
}

int command_help(const char *command)
{
	const char *text = help_text(command);

	fputs(text ? text : help_text(NULL), stdout);
	return 0;
}

bool ask(const char *question)
{
	char answer[16] = "";

	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return false;
	fprintf(stderr, "%s [y/N] ", question);
	if (!fgets(answer, sizeof(answer), stdin))
		return false;
	return answer[0] == 'y' || answer[0] == 'Y';
}
