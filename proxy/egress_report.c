#include "proxy/egress_report.h"

#include "wire/audit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define COMPONENT "proxy"

/* As many as a socket of this kind takes before its reader has taken any: net.unix.max_dgram_qlen,
 * whose default is 10. */
#define WAITING_MAX 8u

/* Events that go out together, each a datagram of its own. */
struct waiting {
	unsigned count;
	size_t length; /* of all, in `data` */
	struct iovec events[WAITING_MAX];
	uint8_t data[AUDIT_EVENT_MAX];
};

struct egress_report {
	int fd; /* not owned */
	bool failed;
	unsigned canaries;
	struct audit_event event;
	struct waiting waiting;
};

struct egress_report *egress_report_new(int audit_fd)
{
	struct egress_report *report = calloc(1, sizeof(*report));

	if (report)
		report->fd = audit_fd;
	return report;
}

void egress_report_free(struct egress_report *report)
{
	if (report)
		egress_report_flush(report);
	free(report);
}

bool egress_report_has_failed(const struct egress_report *report)
{
	return report->failed;
}

static bool is_open(const struct egress_report *report)
{
	return report->fd >= 0 && !report->failed;
}

void egress_report_flush(struct egress_report *report)
{
	struct waiting *waiting = &report->waiting;

	for (unsigned i = 0; i < waiting->count && is_open(report); i++)
		report->failed = audit_send(report->fd, waiting->events[i].iov_base,
					    waiting->events[i].iov_len) < 0;
	waiting->count = 0;
	waiting->length = 0;
}

/* With what waits before it. */
static void send_event(struct egress_report *report)
{
	egress_report_flush(report);
	if (is_open(report))
		report->failed = audit_event_send(&report->event, report->fd) < 0;
}

static void queue_event(struct egress_report *report)
{
	struct waiting *waiting = &report->waiting;
	const void *data;
	size_t length;

	if (!is_open(report))
		return;
	if (!audit_event_finish(&report->event, &data, &length)) {
		report->failed = true;
		return;
	}
	if (waiting->count == WAITING_MAX || length > sizeof(waiting->data) - waiting->length)
		egress_report_flush(report);
	memcpy(waiting->data + waiting->length, data, length);
	waiting->events[waiting->count++] = (struct iovec){
		.iov_base = waiting->data + waiting->length,
		.iov_len = length,
	};
	waiting->length += length;
}

static void put_address(struct egress_report *report, const struct ip_address *address)
{
	char text[IP_ADDRESS_TEXT_MAX];

	if (!address || address->family == 0)
		return;
	ip_address_text(address, text);
	audit_event_text(&report->event, AUDIT_FIELD_ADDRESS, text);
}

static void put_target(struct egress_report *report, const struct egress_entry *entry)
{
	struct audit_event *event = &report->event;

	audit_event_text(event, AUDIT_FIELD_HOST, entry->host);
	audit_event_number(event, AUDIT_FIELD_PORT, entry->port);
	put_address(report, entry->address);
	audit_event_text(event, AUDIT_FIELD_PROTOCOL, entry->protocol);
}

static void put_outcome(struct egress_report *report, const struct egress_entry *entry)
{
	struct audit_event *event = &report->event;

	audit_event_text(event, AUDIT_FIELD_REASON, entry->reason);
	audit_event_number(event, AUDIT_FIELD_SENT, entry->sent);
	audit_event_number(event, AUDIT_FIELD_RECEIVED, entry->received);
	audit_event_number(event, AUDIT_FIELD_DURATION_NS, entry->duration_ns);
	audit_event_text(event, AUDIT_FIELD_RULE, entry->rule);
}

void egress_report_jail(struct egress_report *report, const char *detail)
{
	audit_event_begin(&report->event, AUDIT_JAIL);
	audit_event_text(&report->event, AUDIT_FIELD_COMPONENT, COMPONENT);
	audit_event_text(&report->event, AUDIT_FIELD_DETAIL, detail);
	send_event(report);
}

void egress_report_request(struct egress_report *report, const struct egress_entry *entry)
{
	audit_event_begin(&report->event, AUDIT_REQUEST);
	put_target(report, entry);
	audit_event_text(&report->event, AUDIT_FIELD_METHOD, entry->method);
	audit_event_text(&report->event, AUDIT_FIELD_PATH, entry->path);
	if (entry->status > 0)
		audit_event_number(&report->event, AUDIT_FIELD_STATUS, entry->status);
	put_outcome(report, entry);
	audit_event_text(&report->event, AUDIT_FIELD_SECRETS, entry->secrets);
	queue_event(report);
}

static void put_denial(struct egress_report *report, enum audit_kind kind,
		       const struct egress_entry *entry)
{
	struct audit_event *event = &report->event;

	audit_event_begin(event, kind);
	audit_event_text(event, AUDIT_FIELD_OPERATION, entry->operation);
	put_target(report, entry);
	audit_event_text(event, AUDIT_FIELD_METHOD, entry->method);
	audit_event_text(event, AUDIT_FIELD_PATH, entry->path);
	audit_event_text(event, AUDIT_FIELD_RULE, entry->rule);
	audit_event_text(event, AUDIT_FIELD_REASON, entry->reason);
	audit_event_text(event, AUDIT_FIELD_HINT, entry->hint);
	audit_event_number(event, AUDIT_FIELD_SENT, entry->sent);
	audit_event_number(event, AUDIT_FIELD_BYTES, entry->withheld);
	audit_event_text(event, AUDIT_FIELD_SECRETS, entry->secrets);
	send_event(report);
}

void egress_report_denial(struct egress_report *report, const struct egress_entry *entry)
{
	if (entry->reason && strcmp(entry->reason, "canary") == 0 &&
	    report->canaries < EGRESS_REPORT_CANARIES_MAX) {
		report->canaries++;
		put_denial(report, AUDIT_CANARY, entry);
	}
	put_denial(report, AUDIT_DENIAL, entry);
}

void egress_report_connection(struct egress_report *report, const struct egress_entry *entry)
{
	audit_event_begin(&report->event, AUDIT_CONNECTION);
	audit_event_text(&report->event, AUDIT_FIELD_OPERATION, entry->operation);
	put_target(report, entry);
	put_outcome(report, entry);
	audit_event_text(&report->event, AUDIT_FIELD_SECRETS, entry->secrets);
	send_event(report);
}
