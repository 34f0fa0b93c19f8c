/* An init that says so, for the time until it runs. */
#include <unistd.h>

int main(void)
{
	static const char text[] = "init-runs\n";

	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
		return 1;
	for (;;)
		pause();
}
