/* An init that says so, for the time until it runs, in two bytes, because each is an exit and wakes
 * the reader; then the kernel's clock as it was, in seconds. Where the VMM stores guests, it has
 * itself stored before. */
#include "wire/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	const char *port = getenv(AGENT_SNAPSHOT_VARIABLE);
	struct timespec clock = { 0 };

	if (port && ioperm(strtoul(port, NULL, 0), 1, 1) == 0)
		outb(1, (unsigned short)strtoul(port, NULL, 0));
	(void)clock_gettime(CLOCK_BOOTTIME, &clock);
	if (write(STDOUT_FILENO, "i\n", 2) != 2)
		return 1;
	printf("%lld.%06ld\n", (long long)clock.tv_sec, clock.tv_nsec / 1000);
	if (fflush(stdout) != 0)
		return 1;
	for (;;)
		pause();
}
