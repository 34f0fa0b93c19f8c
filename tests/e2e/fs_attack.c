/*
 * A hostile guest against the real file server:
 *
 *     fs_attack SERVER_PROGRAM [[--except] CLASS...]
 *
 * Prints TAP. The classes are those of the design's list of attacks on files.
 */
#include "tests/e2e/lib/attack.h"

#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned tests;
static unsigned failures;

void ok(bool good, const char *format, ...)
{
	va_list arguments;

	printf("%s %u - ", good ? "ok" : "not ok", ++tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	failures += !good;
}

void skip(const char *text, const char *why)
{
	printf("ok %u - %s # SKIP %s\n", ++tests, text, why);
}

void refused(int got, int wanted, int or_wanted, const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	ok(got == wanted || got == or_wanted, "%s: %s", text,
	   got == -1 ? "stream ended"
	   : got     ? strerror(got)
		     : "GRANTED");
}

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "set-up failed: %s: %s\n", what, strerror(errno));
	exit(99);
}

char *in_tree(const struct attack *attack, const char *path)
{
	static char buffers[8][512];
	static unsigned next;
	char *buffer = buffers[next++ % 8];

	snprintf(buffer, sizeof(buffers[0]), "%s/%s", attack->tree, path);
	return buffer;
}

void put_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	must(fd >= 0 && write_full(fd, content, strlen(content)) == 0, path);
	close(fd);
}

bool file_is(const char *path, const char *content)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	bool same =
		fd >= 0 && read_file(fd, 1 << 20, &text, NULL) == 0 && strcmp(text, content) == 0;

	free(text);
	if (fd >= 0)
		close(fd);
	return same;
}

bool exists(const char *path)
{
	struct stat stat;

	return lstat(path, &stat) == 0;
}

bool outside_is_whole(const struct attack *attack)
{
	char path[192];
	DIR *directory = opendir(attack->outside);
	unsigned count = 0;

	must(directory, attack->outside);
	while (readdir(directory))
		count++;
	closedir(directory);
	snprintf(path, sizeof(path), "%s/secret", attack->outside);
	return count == 3 && file_is(path, SECRET);
}

uint64_t must_lookup(struct attack *attack, uint64_t parent, const char *name)
{
	uint64_t node = 0;

	must(fs_lookup(&attack->client, parent, name, &node) == 0, name);
	return node;
}

bool neighbour_works(const struct attack *attack)
{
	struct fs_client client;
	uint64_t node;
	bool works = fs_join(&client, attack->neighbour.socket, 1, FS_STREAM_REQUESTS) == 0 &&
		     fs_lookup(&client, FS_NODE_ROOT, "own", &node) == 0 &&
		     fs_read(&client, node, FS_HANDLE_NONE, 0, 100) == 0;

	fs_leave(&client);
	return works;
}

/* ---- the scratch tree ----------------------------------------------------------------------- */

static void make_folder(const char *path)
{
	must(mkdir(path, 0755) == 0, path);
}

static void make_tree(struct attack *attack)
{
	static const char *const folders[] = { ".git", ".git/hooks", ".git/objects", ".git/refs",
					       "src",  "src/deep",   "empty" };
	static const char *const files[] = { ".git/config", ".git/HEAD", "readme", "src/main.c",
					     "src/deep/x" };
	char path[192];

	make_folder(attack->tree);
	make_folder(attack->outside);
	snprintf(path, sizeof(path), "%s/secret", attack->outside);
	put_file(path, SECRET);
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		make_folder(in_tree(attack, folders[i]));
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		put_file(in_tree(attack, files[i]), files[i]);
}

static void remove_base(struct attack *attack)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("rm", "rm", "-rf", "--one-file-system", attack->base, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

void start(struct attack *attack, const char *export_extra, const char *extra)
{
	char text[2048];

	snprintf(text, sizeof(text),
		 "{\"session\": \"attack\", \"uid\": %u, \"gid\": %u, \"exports\": [{\"id\": 1, "
		 "\"name\": \"workspace\", \"path\": \"%s\", \"profile\": \"workspace\", "
		 "\"undo_store\": \"%s/store\"%s}, {\"id\": 2, \"name\": \"other\", \"path\": "
		 "\"%s/other\", \"profile\": \"mount\", \"read_only\": true}]%s}",
		 getuid(), getgid(), attack->tree, attack->base, export_extra, attack->base, extra);
	fs_server_start(&attack->server, attack->program, attack->base, "attack", text);
	must(fs_join(&attack->client, attack->server.socket, 1, FS_STREAM_REQUESTS) == 0, "HELLO");
}

void stop(struct attack *attack)
{
	int status;

	fs_leave(&attack->client);
	status = fs_server_stop(&attack->server);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the server ended in good order (%#x)",
	   status);
}

static void start_neighbour(struct attack *attack)
{
	char path[128];
	char text[1024];

	snprintf(path, sizeof(path), "%s/other", attack->base);
	make_folder(path);
	snprintf(path, sizeof(path), "%s/other/own", attack->base);
	put_file(path, "own");
	snprintf(text, sizeof(text),
		 "{\"session\": \"neighbour\", \"uid\": %u, \"gid\": %u, \"exports\": [{\"id\": 1, "
		 "\"name\": \"workspace\", \"path\": \"%s/other\", \"profile\": \"workspace\", "
		 "\"read_only\": true}]}",
		 getuid(), getgid(), attack->base);
	fs_server_start(&attack->neighbour, attack->program, attack->base, "neighbour", text);
}

static void run_class(struct attack *attack, const char *name, void (*class)(struct attack *))
{
	struct attack own = { .program = attack->program };

	printf("# %s\n", name);
	snprintf(own.base, sizeof(own.base), "/tmp/matchlock-attack-XXXXXX");
	must(mkdtemp(own.base), own.base);
	snprintf(own.tree, sizeof(own.tree), "%s/workspace", own.base);
	snprintf(own.outside, sizeof(own.outside), "%s/outside", own.base);
	make_tree(&own);
	start_neighbour(&own);
	class(&own);
	ok(outside_is_whole(&own), "%s: nothing outside the tree changed", name);
	ok(neighbour_works(&own), "%s: the neighbour session works", name);
	fs_server_stop(&own.neighbour);
	remove_base(&own);
}

/* Whether the arguments, those behind the server's program, name this class. */
static bool is_wanted(int count, char **arguments, const char *class)
{
	bool except = count > 0 && strcmp(arguments[0], "--except") == 0;

	for (int i = except; i < count; i++) {
		if (strcmp(arguments[i], class) == 0)
			return !except;
	}
	return except || count == 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*class)(struct attack *attack);
	} classes[] = {
		{ "names", attack_names },
		{ "races", attack_races },
		{ "ids", attack_ids },
		{ "lengths", attack_lengths },
		{ "channels", attack_channels },
		{ "floods", attack_floods },
		{ "cold nodes", attack_cold_nodes },
		{ "special files", attack_special_files },
		{ "crossings", attack_crossings },
		{ "mounts", attack_mounts },
		{ "denied paths", attack_denied_paths },
		{ "undo", attack_undo },
		{ "full disk", attack_full_disk },
		{ "single file", attack_single_file },
	};
	struct attack attack = { 0 };

	if (argc < 2) {
		fprintf(stderr, "usage: fs_attack SERVER_PROGRAM [[--except] CLASS...]\n");
		return 2;
	}
	attack.program = argv[1];
	signal(SIGPIPE, SIG_IGN);
	/* A server that hangs must fail the test, not hold it up. */
	alarm(120);
	for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++) {
		if (is_wanted(argc - 2, argv + 2, classes[i].name))
			run_class(&attack, classes[i].name, classes[i].class);
	}
	printf("1..%u\n", tests);
	return failures ? 1 : 0;
}
