#include "proxy/control.h"

#include "proxy/egress_policy.h"
#include "proxy/secret_store.h"
#include "wire/proxy_control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct control {
	struct event_source source; /* first */
	const struct services *services;
	bool has_ended;
	char message[PROXY_CONTROL_MAX];
};

static int tell(struct control *control, const struct proxy_control *message)
{
	size_t length = proxy_control_encode(control->message, sizeof(control->message), message);
	ssize_t sent;

	if (length == 0)
		return -EMSGSIZE;
	do {
		sent = send(control->source.fd, control->message, length, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static const char *explain(int error)
{
	switch (error) {
	case 0:
		return "";
	case -EINVAL:
		return "not a pattern that can be allowed here: see the session's rules";
	case -EEXIST:
		return "allowed already";
	case -ENOENT:
		return "not on the list of what is allowed";
	case -ENOSPC:
		return "too many patterns";
	default:
		return strerror(-error);
	}
}

static int answer(struct control *control, const struct proxy_control *message)
{
	struct egress_policy *policy = control->services->policy;
	struct proxy_control result = { .type = PROXY_CONTROL_RESULT, .name = "", .text = "" };
	char *list;
	int error;

	switch (message->type) {
	case PROXY_CONTROL_ALLOW_ADD:
		error = egress_policy_add(policy, message->text);
		break;
	case PROXY_CONTROL_ALLOW_REMOVE:
		error = egress_policy_remove(policy, message->text);
		break;
	case PROXY_CONTROL_ALLOW_LIST:
		list = egress_policy_list(policy);
		result.text = list ? list : "";
		error = tell(control, &result);
		free(list);
		return error;
	case PROXY_CONTROL_PLACEHOLDER:
	case PROXY_CONTROL_READY:
	case PROXY_CONTROL_RESULT:
	case PROXY_CONTROL_FORWARD:
	default:
		return -EBADMSG;
	}
	result.error = (uint32_t)-error;
	result.text = explain(error);
	return tell(control, &result);
}

static void on_message(struct event_source *source, uint32_t events)
{
	struct control *control = (struct control *)source;
	char data[PROXY_CONTROL_MAX];
	struct proxy_control message;
	ssize_t length = recv(source->fd, data, sizeof(data), MSG_DONTWAIT);

	(void)events;
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length <= 0 || proxy_control_decode(data, (size_t)length, &message) < 0 ||
	    answer(control, &message) < 0)
		control->has_ended = true;
}

int control_new(const struct services *services, int fd, struct control **ret_control)
{
	struct control *control = calloc(1, sizeof(*control));
	int error = 0;

	if (!control)
		return -ENOMEM;
	control->source = (struct event_source){ .ready = on_message, .fd = fd };
	control->services = services;
	if (fd >= 0)
		error = event_loop_add(services->loop, &control->source, EPOLLIN);
	if (error) {
		free(control);
		return error;
	}
	*ret_control = control;
	return 0;
}

void control_free(struct control *control)
{
	if (control && control->source.fd >= 0)
		event_loop_remove(control->services->loop, &control->source);
	free(control);
}

int control_tell_ready(struct control *control, const char *certificate)
{
	const struct secret_store *secrets = control->services->secrets;
	const struct proxy_control ready = {
		.type = PROXY_CONTROL_READY,
		.name = "",
		.text = certificate,
	};
	size_t count = secrets ? secret_store_count(secrets) : 0;

	if (control->source.fd < 0)
		return 0;
	for (size_t i = 0; i < count; i++) {
		const struct secret *secret = secret_store_get(secrets, i);
		const struct proxy_control message = {
			.type = PROXY_CONTROL_PLACEHOLDER,
			.name = secret->name,
			.text = secret->placeholder,
		};
		int error = tell(control, &message);

		if (error)
			return error;
	}
	return tell(control, &ready);
}

bool control_has_ended(const struct control *control)
{
	return control->has_ended;
}
