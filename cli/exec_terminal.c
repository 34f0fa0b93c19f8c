#include "cli/exec_terminal.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

void exec_terminal_init(struct exec_terminal *terminal, int fd)
{
	*terminal = (struct exec_terminal){ .fd = fd >= 0 && isatty(fd) ? fd : -1 };
}

void exec_terminal_make_raw(struct exec_terminal *terminal)
{
	struct termios raw;

	if (terminal->fd < 0 || terminal->raw || tcgetattr(terminal->fd, &terminal->saved) < 0)
		return;
	raw = terminal->saved;
	cfmakeraw(&raw);
	while (tcsetattr(terminal->fd, TCSADRAIN, &raw) < 0) {
		if (errno != EINTR)
			return;
	}
	terminal->raw = true;
}

void exec_terminal_restore(struct exec_terminal *terminal)
{
	sigset_t blocked;
	sigset_t previous;

	if (!terminal->raw)
		return;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &blocked, &previous);
	while (tcsetattr(terminal->fd, TCSADRAIN, &terminal->saved) < 0 && errno == EINTR)
		continue;
	pthread_sigmask(SIG_SETMASK, &previous, NULL);
	terminal->raw = false;
}

bool exec_terminal_size(const struct exec_terminal *terminal, uint16_t *ret_rows,
			uint16_t *ret_columns)
{
	struct winsize size;

	if (terminal->fd < 0 || ioctl(terminal->fd, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 ||
	    size.ws_col == 0)
		return false;
	*ret_rows = size.ws_row;
	*ret_columns = size.ws_col;
	return true;
}
