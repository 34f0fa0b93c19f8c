/*
 * Messages of a daemon's edge, on standard error, one line each: "<program>: <text>". Library
 * code returns errors and does not log. Control characters in the text are escaped, so that
 * nothing a guest named reaches a terminal raw.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level {
	LOG_LEVEL_ERROR,   /* -q */
	LOG_LEVEL_WARNING, /* default */
	LOG_LEVEL_INFO,	   /* -v */
	LOG_LEVEL_DEBUG,   /* --debug */
};

/* `program` must outlive all messages. Call once, before any thread starts. */
void log_configure(const char *program, enum log_level level);
enum log_level log_current_level(void);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
