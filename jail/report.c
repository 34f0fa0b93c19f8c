#include "jail/jail.h"

#include "base/checked.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct line {
	char *text;
	size_t size;
	size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
	va_list arguments;
	int count;

	va_start(arguments, format);
	count = vsnprintf(line->text + line->length, line->size - line->length, format, arguments);
	va_end(arguments);
	if (count > 0)
		line->length = MIN_OF(line->length + (size_t)count, line->size - 1);
}

static void add_namespaces(struct line *line, unsigned namespaces)
{
	static const struct {
		unsigned bit;
		const char *name;
	} names[] = {
		{ CLONE_NEWUSER, "user" },     { CLONE_NEWNS, "mount" },  { CLONE_NEWNET, "net" },
		{ CLONE_NEWIPC, "ipc" },       { CLONE_NEWUTS, "uts" },	  { CLONE_NEWPID, "pid" },
		{ CLONE_NEWCGROUP, "cgroup" }, { CLONE_NEWTIME, "time" },
	};
	const char *separator = "";

	add(line, " namespaces(");
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		if (!(namespaces & names[i].bit))
			continue;
		add(line, "%s%s", separator, names[i].name);
		separator = ",";
	}
	add(line, ")");
}

static void add_missing(struct line *line, const struct jail_report *report)
{
	bool landlock = report->landlock_errno != 0;

	if (!landlock && !report->namespaces_missing && !report->empty_root_errno)
		return;
	add(line, " missing:");
	if (landlock)
		add(line, " landlock(%s)", strerrorname_np(report->landlock_errno));
	if (report->namespaces_missing) {
		add_namespaces(line, report->namespaces_missing);
		add(line, "(%s)", strerrorname_np(report->namespaces_errno));
	}
	if (report->empty_root_errno)
		add(line, " empty-root(%s)", strerrorname_np(report->empty_root_errno));
}

size_t jail_report_text(const struct jail_report *report, char *text, size_t size)
{
	struct line line = { .text = text, .size = size };

	if (size == 0)
		return 0;
	text[0] = '\0';
	add(&line, "%s", report->no_new_privs ? "no-new-privs" : "");
	if (report->seccomp_calls)
		add(&line, " seccomp(%u calls)", report->seccomp_calls);
	if (report->landlock_abi)
		add(&line, " landlock(abi %d, %zu rules)", report->landlock_abi,
		    report->landlock_rules);
	if (report->rlimits)
		add(&line, " rlimits(%u)", report->rlimits);
	if (report->namespaces)
		add_namespaces(&line, report->namespaces);
	if (report->empty_root)
		add(&line, " empty-root");
	if (report->capabilities_dropped && report->capabilities_kept)
		add(&line, " capabilities(0x%llx)", (unsigned long long)report->capabilities_kept);
	else if (report->capabilities_dropped)
		add(&line, " capabilities(none)");
	if (report->not_dumpable)
		add(&line, " not-dumpable");
	if (report->descriptors_closed)
		add(&line, " descriptors-closed");
	if (report->sanitizer)
		add(&line, " sanitizer-build");
	add_missing(&line, report);
	if (report->failed_stage)
		add(&line, " failed at: %s", report->failed_stage);
	return line.length;
}
