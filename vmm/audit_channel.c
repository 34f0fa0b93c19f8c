#include "vmm/audit_channel.h"

#include "base/checked.h"

#include <sys/socket.h>
#include <time.h>

void audit_channel_init(struct audit_channel *channel, int socket)
{
	channel->socket = socket;
	channel->tokens = AUDIT_CHANNEL_BURST;
	channel->refilled_second = 0;
	channel->suppressed = 0;
}

static void finish_and_send(struct audit_channel *channel)
{
	const void *data;
	size_t length;

	if (channel->socket < 0 || !audit_event_finish(&channel->event, &data, &length))
		return;
	/* Waiting here would let a stuck log stop the guest's files and network. */
	(void)send(channel->socket, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_event(struct audit_channel *channel, enum audit_kind kind, const char *component,
		       const char *detail, uint64_t count)
{
	audit_event_begin(&channel->event, kind);
	audit_event_text(&channel->event, AUDIT_FIELD_COMPONENT, component);
	audit_event_text(&channel->event, AUDIT_FIELD_DETAIL, detail);
	if (count > 1)
		audit_event_number(&channel->event, AUDIT_FIELD_COUNT, count);
	finish_and_send(channel);
}

void audit_channel_jail(struct audit_channel *channel, const char *component, const char *detail)
{
	send_event(channel, AUDIT_JAIL, component, detail, 1);
}

void audit_channel_notice(struct audit_channel *channel, const char *component, const char *detail)
{
	send_event(channel, AUDIT_NOTICE, component, detail, 1);
}

bool audit_channel_violation(struct audit_channel *channel, const char *component,
			     const char *detail)
{
	struct timespec now;
	uint64_t second;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	second = (uint64_t)now.tv_sec;
	if (channel->refilled_second != 0 && second > channel->refilled_second)
		channel->tokens = MIN_OF(channel->tokens + (second - channel->refilled_second),
					 (uint64_t)AUDIT_CHANNEL_BURST);
	channel->refilled_second = second;
	if (channel->tokens == 0) {
		channel->suppressed++;
		return false;
	}
	channel->tokens--;
	send_event(channel, AUDIT_VIOLATION, component, detail, channel->suppressed + 1);
	channel->suppressed = 0;
	return true;
}

void audit_channel_flush(struct audit_channel *channel, const char *component)
{
	if (channel->suppressed > 0)
		send_event(channel, AUDIT_VIOLATION, component,
			   "further violations, left out because of their number",
			   channel->suppressed);
	channel->suppressed = 0;
}
