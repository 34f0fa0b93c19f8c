#include "proxy/shortage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool shortage_is_of_files(int error)
{
	return error == -EMFILE || error == -ENFILE;
}

void shortage_text(int error, uint64_t files_max, char text[SHORTAGE_TEXT_MAX])
{
	switch (error) {
	case -EMFILE:
		snprintf(text, SHORTAGE_TEXT_MAX,
			 "the broker has all %" PRIu64 " files open that it may, two for each "
			 "connection; raise the hard limit (ulimit -Hn) where matchlock is started",
			 files_max);
		break;
	case -ENFILE:
		snprintf(text, SHORTAGE_TEXT_MAX,
			 "this host has as many files open as it can; raise its limit "
			 "(sysctl fs.file-max)");
		break;
	case -EBUSY:
		snprintf(text, SHORTAGE_TEXT_MAX,
			 "the broker is making too many connections at once; try again");
		break;
	case -ENOMEM:
		snprintf(text, SHORTAGE_TEXT_MAX, "the broker has no memory left");
		break;
	default:
		snprintf(text, SHORTAGE_TEXT_MAX, "the broker can make no connection: %s",
			 strerror(-error));
		break;
	}
}
