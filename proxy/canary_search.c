#include "proxy/canary_search.h"

#include "proxy/request_body.h"
#include "proxy/secret_filter.h"
#include "proxy/secret_store.h"

bool canary_search_is_wanted(const struct services *services, const struct http_leg *guest,
			     const struct request_verdict *verdict)
{
	if (!services->secrets || verdict->secret.refusal != SECRET_REFUSAL_NONE ||
	    guest->framing.kind == HTTP_FRAMING_NONE ||
	    http_head_find(guest->head, "expect", 0) >= 0)
		return false;
	for (size_t i = 0; i < secret_store_count(services->secrets); i++) {
		if (secret_store_get(services->secrets, i)->kind == SECRET_CANARY)
			return true;
	}
	return false;
}

bool canary_search(const struct services *services, struct http_leg *guest,
		   struct byte_buffer *held, struct request_verdict *verdict)
{
	struct secret_verdict found = verdict->secret;
	struct body_filter *secrets;
	struct body_filter *filter;
	struct byte_buffer out;

	if (guest->receiving == HTTP_RECEIVING_BODY)
		guest->ops->receive(guest, held);
	if (guest->receiving == HTTP_RECEIVING_BODY && byte_buffer_room(held) > 0)
		return false;
	found.bound = (struct secret_set){ 0 };
	if (request_body_filter(services->secrets, guest->head, NULL, true, &found, &filter,
				&secrets) < 0)
		return true;
	byte_buffer_init(&out, CANARY_SEARCH_MAX);
	(void)filter->feed(filter, byte_buffer_front(held), byte_buffer_length(held), true, &out);
	secret_filter_report(secrets, &found);
	filter->free(filter);
	byte_buffer_release(&out);
	/* That another secret's placeholder was in it is not why the request is refused. */
	if (found.refusal != SECRET_REFUSAL_CANARY)
		return true;
	verdict->secret = found;
	(void)request_check_secrets(services, verdict);
	return true;
}
