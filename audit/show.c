#include "audit/show.h"

#include "audit/line_reader.h"
#include "audit/record.h"
#include "audit/row.h"
#include "base/log.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND UINT64_C(1000000000)

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_poll),
	JAIL_CALL(SYS_flock),
	JAIL_CALL(SYS_writev),
};
const struct jail_syscall_set show_calls = JAIL_SET(calls);

struct show {
	const struct show_options *options;
	FILE *output;
	struct row_buffers *buffers;
	struct line_reader *reader;
	struct record record;
	uint64_t line_number;
};

int show_watch(const char *log_path)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (inotify_add_watch(fd, log_path, IN_MODIFY | IN_CLOSE_WRITE) < 0) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

static bool matches(struct show *show, const char *glob, enum audit_field name)
{
	const struct record_field *field = record_find(&show->record, name);
	const char *text = field ? row_field_text(show->buffers, field) : NULL;

	return text && fnmatch(glob, text, 0) == 0;
}

static bool is_wanted(struct show *show)
{
	const struct show_options *options = show->options;

	if (options->kinds && !(options->kinds >> show->record.kind & 1))
		return false;
	if (options->since && memcmp(show->record.time, options->since, RECORD_TIME_LENGTH) < 0)
		return false;
	if (options->host && !matches(show, options->host, AUDIT_FIELD_HOST))
		return false;
	return !options->path || matches(show, options->path, AUDIT_FIELD_PATH) ||
	       matches(show, options->path, AUDIT_FIELD_PATH2);
}

static void show_line(struct show *show, const struct line *line)
{
	show->line_number++;
	if (line->state == LINE_TOO_LONG || record_parse(line->text, line->length, &show->record)) {
		log_warning("line %" PRIu64 " is not a record and is left out; see "
			    "`matchlock audit verify`",
			    show->line_number);
		return;
	}
	if (!is_wanted(show))
		return;
	if (show->options->json) {
		fwrite(line->text, 1, line->length, show->output);
		putc('\n', show->output);
	} else {
		row_print(show->buffers, &show->record, show->options->colour, show->output);
	}
}

/* All whole lines there are. */
static int show_present(struct show *show, enum line_state *ret_state)
{
	struct line line;
	int error;

	for (;;) {
		error = line_reader_next(show->reader, &line);
		if (error)
			return error;
		if (line.state == LINE_NONE || line.state == LINE_PARTIAL)
			break;
		show_line(show, &line);
		if (ferror(show->output))
			return -EPIPE;
	}
	*ret_state = line.state;
	return fflush(show->output) == EOF ? -errno : 0;
}

/* The writer holds its lock for as long as it lives. */
static bool writer_is_gone(int log_fd)
{
	if (flock(log_fd, LOCK_SH | LOCK_NB) < 0)
		return false;
	flock(log_fd, LOCK_UN);
	return true;
}

/* Blocks until the log may have grown. */
static int wait_for_change(int watch_fd)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct pollfd state = { .fd = watch_fd, .events = POLLIN };

	if (poll(&state, 1, -1) < 0 && errno != EINTR)
		return -errno;
	/* What they say is of no interest. */
	while (read(watch_fd, events, sizeof(events)) > 0)
		;
	return 0;
}

static int follow(struct show *show, int log_fd, int watch_fd)
{
	for (;;) {
		/* Asked before the last look, so that nothing is written between the two. */
		bool gone = !show->options->follow || writer_is_gone(log_fd);
		enum line_state state;
		int error = show_present(show, &state);

		if (error)
			return error;
		if (gone) {
			if (state == LINE_PARTIAL && !show->options->follow)
				log_info("the log ends with an incomplete record");
			return 0;
		}
		error = wait_for_change(watch_fd);
		if (error)
			return error;
	}
}

int show_log(int log_fd, int watch_fd, const struct show_options *options, FILE *output)
{
	struct show show = {
		.options = options,
		.output = output,
		.buffers = row_buffers_new(),
		.reader = line_reader_new(log_fd),
	};
	int error = -ENOMEM;

	if (show.buffers && show.reader) {
		if (!options->json)
			row_print_header(output, options->colour);
		error = follow(&show, log_fd, watch_fd);
	}
	row_buffers_free(show.buffers);
	line_reader_free(show.reader);
	return error;
}

/* "15m": the time that long before `now`. */
static bool parse_ago(const char *text, uint64_t now_ns, uint64_t *ret_ns)
{
	static const struct {
		char letter;
		uint64_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	char *end;
	uint64_t count;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	count = strtoull(text, &end, 10);
	if (errno || end[0] == '\0' || end[1] != '\0' || count > UINT32_MAX)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		uint64_t ago = count * units[i].seconds;

		if (*end != units[i].letter)
			continue;
		/* Longer ago than 1970 is the same as all. */
		*ret_ns = ago > now_ns / NS_PER_SECOND ? 0 : now_ns - ago * NS_PER_SECOND;
		return true;
	}
	return false;
}

static bool parse_date(const char *text, uint64_t *ret_ns)
{
	static const char *const forms[] = { "%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S" };

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm parts = { .tm_isdst = -1 };
		const char *end = strptime(text, forms[i], &parts);
		time_t seconds;

		if (!end || (*end != '\0' && strcmp(end, "Z") != 0))
			continue;
		seconds = *end == 'Z' ? timegm(&parts) : mktime(&parts);
		if (seconds < 0 || (uint64_t)seconds > UINT64_MAX / NS_PER_SECOND)
			return false;
		*ret_ns = (uint64_t)seconds * NS_PER_SECOND;
		return true;
	}
	return false;
}

bool show_parse_since(const char *text, uint64_t now_ns, char *since)
{
	uint64_t ns;

	if (!parse_ago(text, now_ns, &ns) && !parse_date(text, &ns))
		return false;
	record_format_time(ns, since);
	return true;
}
