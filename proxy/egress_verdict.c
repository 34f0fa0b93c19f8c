#include "proxy/egress_verdict.h"

#include "base/escape.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define RAW_MAX 512u /* of a text before it is cut and escaped */

static void say(char *text, size_t size, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));

static void say(char *text, size_t size, const char *format, va_list arguments)
{
	char raw[RAW_MAX];

	vsnprintf(raw, sizeof(raw), format, arguments);
	escape_text(raw, strlen(raw), text, size);
}

void egress_verdict_deny(struct egress_verdict *verdict, const char *reason)
{
	verdict->allowed = false;
	verdict->reason = reason;
}

void egress_verdict_name(struct egress_verdict *verdict, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(verdict->rule, sizeof(verdict->rule), format, arguments);
	va_end(arguments);
}

void egress_verdict_hint(struct egress_verdict *verdict, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(verdict->hint, sizeof(verdict->hint), format, arguments);
	va_end(arguments);
}
