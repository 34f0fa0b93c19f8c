#include "base/log.h"

#include "base/escape.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_MAX 2048

static struct {
	const char *program;
	enum log_level level;
} log_state = { .program = "matchlock", .level = LOG_LEVEL_WARNING };

void log_configure(const char *program, enum log_level level)
{
	log_state.program = program;
	log_state.level = level;
}

enum log_level log_current_level(void)
{
	return log_state.level;
}

__attribute__((format(printf, 3, 0))) static void emit(enum log_level level, const char *label,
						       const char *format, va_list arguments)
{
	char text[MESSAGE_MAX];
	char escaped[MESSAGE_MAX * 2];
	char line[MESSAGE_MAX * 2 + 128];
	int saved = errno;
	int length;

	if (level > log_state.level)
		return;
	vsnprintf(text, sizeof(text), format, arguments);
	escape_text(text, strlen(text), escaped, sizeof(escaped));
	length = snprintf(line, sizeof(line), "%s: %s%s\n", log_state.program, label, escaped);
	/* One write per line keeps lines of several processes whole. A failed write has nowhere
	 * to be reported. */
	if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
		errno = saved;
	errno = saved;
}

void log_error(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	emit(LOG_LEVEL_ERROR, "", format, arguments);
	va_end(arguments);
}

void log_warning(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	emit(LOG_LEVEL_WARNING, "warning: ", format, arguments);
	va_end(arguments);
}

void log_info(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	emit(LOG_LEVEL_INFO, "", format, arguments);
	va_end(arguments);
}

void log_debug(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	emit(LOG_LEVEL_DEBUG, "debug: ", format, arguments);
	va_end(arguments);
}
