#include "guest-init/failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int failure_set(struct failure *failure, const char *stage, int error, const char *format, ...)
{
	va_list arguments;

	if (!failure->stage) {
		failure->stage = stage;
		failure->error = error;
		va_start(arguments, format);
		vsnprintf(failure->text, sizeof(failure->text), format, arguments);
		va_end(arguments);
	}
	return error ? -error : -EIO;
}
