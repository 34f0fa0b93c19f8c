#include "cli/session_control.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "wire/audit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 20000
/* Between two events of a peer that stays, at the end. */
#define FINISH_TIMEOUT_MS 500

static int set_address(struct sockaddr_un *address, const char *runtime, struct problem *problem)
{
	int length;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/control", runtime);
	if (length < 0 || (size_t)length >= sizeof(address->sun_path))
		return problem_set(problem, STATUS_SANDBOX,
				   "%s/control is too long for a socket's name: set "
				   "XDG_RUNTIME_DIR to a shorter directory",
				   runtime);
	return 0;
}

/* ---- the session's side ----------------------------------------------------------------- */

void session_control_init(struct session_control *control)
{
	*control = (struct session_control){ 0 };
	for (size_t i = 0; i < SESSION_CONTROL_WATCHES; i++)
		control->watches[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
}

int session_control_listen(struct session_control *control, const char *runtime,
			   struct problem *problem)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	mode_t old_mask;
	int result;

	if (set_address(&address, runtime, problem) < 0)
		return -1;
	old_mask = umask(0177);
	result = bind(fd, (const struct sockaddr *)&address, sizeof(address));
	umask(old_mask);
	if (result < 0 || listen(fd, SESSION_CONTROL_PEERS) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot listen at %s: %s",
				   address.sun_path, strerror(errno));
	control->watches[0].fd = steal_fd(&fd);
	return 0;
}

static void close_watch(struct pollfd *watch)
{
	if (watch->fd >= 0)
		close(watch->fd);
	watch->fd = -1;
	watch->revents = 0;
}

static bool is_ours(int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
	       peer.uid == geteuid();
}

static void accept_peer(struct session_control *control)
{
	int fd = accept4(control->watches[0].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (size_t i = 1; is_ours(fd) && i < SESSION_CONTROL_WATCHES; i++) {
		if (control->watches[i].fd < 0) {
			control->watches[i].fd = fd;
			return;
		}
	}
	close(fd);
}

static size_t count_staying(const struct session_control *control)
{
	size_t count = 0;

	for (size_t i = 1; i < SESSION_CONTROL_WATCHES; i++)
		count += control->stays[i] ? 1 : 0;
	return count;
}

/* False when the peer is to be hung up on. */
static bool take_event(struct session_control *control, int fd)
{
	cleanup_free uint8_t *buffer = allocate(1, AUDIT_EVENT_MAX);
	struct audit_event_view view;
	ssize_t count = recv(fd, buffer, AUDIT_EVENT_MAX, MSG_DONTWAIT | MSG_TRUNC);

	if (count < 0)
		return errno == EAGAIN || errno == EINTR;
	if (count == 0 || count > AUDIT_EVENT_MAX ||
	    audit_event_decode(buffer, (size_t)count, &view) < 0 ||
	    (view.kind != AUDIT_CONNECTION && view.kind != AUDIT_JAIL))
		return false;
	if (control->tell)
		control->tell(control->context, buffer, (size_t)count);
	return true;
}

/* True when the peer stays. */
static bool answer_peer(struct session_control *control, int fd)
{
	cleanup_free uint8_t *buffer = allocate(1, PROXY_CONTROL_MAX);
	cleanup_free char *text = NULL;
	struct proxy_control question;
	struct proxy_control result = { .type = PROXY_CONTROL_RESULT };
	bool is_forward;
	ssize_t count = recv(fd, buffer, PROXY_CONTROL_MAX, MSG_DONTWAIT);
	size_t length;

	if (count <= 0 || proxy_control_decode(buffer, (size_t)count, &question) < 0 ||
	    (question.type != PROXY_CONTROL_ALLOW_ADD &&
	     question.type != PROXY_CONTROL_ALLOW_REMOVE &&
	     question.type != PROXY_CONTROL_ALLOW_LIST && question.type != PROXY_CONTROL_FORWARD))
		return false;
	is_forward = question.type == PROXY_CONTROL_FORWARD;
	if (is_forward && count_staying(control) >= SESSION_CONTROL_FORWARDS_MAX) {
		result.error = EMFILE;
		text = text_copy("too many processes forward ports to the session");
	} else {
		result.error = (uint32_t)control->answer(control->context, question.type,
							 question.text, &text);
	}
	result.text = text;
	length = proxy_control_encode(buffer, PROXY_CONTROL_MAX, &result);
	/* Who does not wait for the answer does without. */
	return send(fd, buffer, length, MSG_DONTWAIT | MSG_NOSIGNAL) > 0 && is_forward &&
	       result.error == 0;
}

void session_control_turn(struct session_control *control)
{
	for (size_t i = 1; i < SESSION_CONTROL_WATCHES; i++) {
		if (!control->watches[i].revents)
			continue;
		control->stays[i] = control->stays[i]
					    ? take_event(control, control->watches[i].fd)
					    : answer_peer(control, control->watches[i].fd);
		if (!control->stays[i])
			close_watch(&control->watches[i]);
	}
	if (control->watches[0].revents)
		accept_peer(control);
}

void session_control_finish(struct session_control *control)
{
	close_watch(&control->watches[0]);
	for (size_t i = 1; i < SESSION_CONTROL_WATCHES; i++) {
		if (control->stays[i])
			shutdown(control->watches[i].fd, SHUT_WR);
		else
			close_watch(&control->watches[i]);
	}
	while (count_staying(control) > 0 &&
	       poll(control->watches, SESSION_CONTROL_WATCHES, FINISH_TIMEOUT_MS) > 0)
		session_control_turn(control);
}

void session_control_release(struct session_control *control)
{
	for (size_t i = 0; i < SESSION_CONTROL_WATCHES; i++)
		close_watch(&control->watches[i]);
}

/* ---- the other side --------------------------------------------------------------------- */

/* *ret_fd is the connection. */
static int ask(const struct paths *paths, const struct session_record *record,
	       enum proxy_control_type type, const char *text, int *ret_fd, char **ret_text,
	       struct problem *problem)
{
	cleanup_free char *runtime = text_printf("%s/%s", paths->runtime, record->id);
	cleanup_free uint8_t *buffer = allocate(1, PROXY_CONTROL_MAX);
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const struct proxy_control question = { .type = type, .text = text };
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct proxy_control answer;
	struct sockaddr_un address;
	size_t length = proxy_control_encode(buffer, PROXY_CONTROL_MAX, &question);
	ssize_t count;

	if (set_address(&address, runtime, problem) < 0)
		return -1;
	if (length == 0)
		return problem_set(problem, STATUS_USAGE, "the pattern is too long");
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "session %s does not run, or has no network; see `matchlock ls`",
				   record->id);
	if (send(fd, buffer, length, MSG_NOSIGNAL) < 0 || poll(&poll_fd, 1, ANSWER_TIMEOUT_MS) <= 0)
		return problem_set(problem, STATUS_SANDBOX, "session %s does not answer",
				   record->id);
	count = recv(fd, buffer, PROXY_CONTROL_MAX, 0);
	if (count <= 0 || proxy_control_decode(buffer, (size_t)count, &answer) < 0 ||
	    answer.type != PROXY_CONTROL_RESULT || answer.error > INT32_MAX)
		return problem_set(problem, STATUS_SANDBOX, "session %s does not answer",
				   record->id);
	*ret_text = text_copy(answer.text);
	*ret_fd = steal_fd(&fd);
	return (int)answer.error;
}

int session_control_ask(const struct paths *paths, const struct session_record *record,
			enum proxy_control_type type, const char *text, char **ret_text,
			struct problem *problem)
{
	cleanup_fd int fd = -1;

	return ask(paths, record, type, text, &fd, ret_text, problem);
}

int session_control_attach(const struct paths *paths, const struct session_record *record,
			   const char *text, int *ret_fd, char **ret_text, struct problem *problem)
{
	return ask(paths, record, PROXY_CONTROL_FORWARD, text, ret_fd, ret_text, problem);
}
