/*
 * matchlock: the command that people type. See cli/run.h for what it is about.
 */
#include "base/checked.h"
#include "base/log.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/paths.h"
#include "cli/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int command_version(int argc, char **argv, const struct paths *paths)
{
	(void)argv;
	(void)paths;
	if (argc > 1)
		return command_usage("version", "it takes no arguments");
	puts("matchlock " MATCHLOCK_VERSION);
	return 0;
}

static int unknown_command(const char *name)
{
	const char *near = suggest(name, command_names, command_name_count());

	if (near)
		fprintf(stderr, "matchlock: there is no command %s; did you mean %s?\n", name,
			near);
	else
		fprintf(stderr, "matchlock: there is no command %s; see `matchlock help`\n", name);
	return STATUS_USAGE;
}

static int show_help(int argc, char **argv)
{
	const char *text = help_text(argc > 1 ? argv[1] : NULL);

	if (!text)
		return unknown_command(argv[1]);
	fputs(text, stdout);
	return 0;
}

/* A caller that closed 0, 1 or 2 would otherwise get our sockets in their place. */
static void fill_standard_streams(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static int dispatch(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv, const struct paths *paths);
	} commands[] = {
		{ "run", command_run },		{ "rollback", command_rollback },
		{ "diff", command_diff },	{ "ls", command_ls },
		{ "rm", command_rm },		{ "prune", command_prune },
		{ "audit", command_audit },	{ "doctor", command_doctor },
		{ "trust", command_trust },	{ "config", command_config },
		{ "allow", command_allow },	{ "port-forward", command_port_forward },
		{ "version", command_version },
	};
	struct problem problem;
	struct paths paths;
	int status;

	for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
		if (strcmp(commands[i].name, argv[0]) != 0)
			continue;
		if (paths_find(&paths, &problem) < 0)
			return command_problem(&problem);
		status = commands[i].run(argc, argv, &paths);
		paths_free(&paths);
		return status;
	}
	return unknown_command(argv[0]);
}

int main(int argc, char **argv)
{
	int status;

	fill_standard_streams();
	log_configure("matchlock", LOG_LEVEL_WARNING);
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		fputs(help_text(NULL), stderr);
		return STATUS_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		status = show_help(1, argv);
	else if (strcmp(argv[1], "help") == 0)
		status = show_help(argc - 1, argv + 1);
	else if (strcmp(argv[1], "--version") == 0)
		status = command_version(1, argv, NULL);
	else if (argv[1][0] == '-')
		status = command_usage("help", "flags come after the command, as in `matchlock run "
					       "--workspace . -- make`");
	else
		status = dispatch(argc - 1, argv + 1);
	/* A full disk or a closed pipe must not look like success. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0)
		status = 1;
	return status;
}
