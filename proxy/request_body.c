#include "proxy/request_body.h"

#include "base/escape.h"
#include "proxy/coded_filter.h"
#include "proxy/grpc_filter.h"
#include "proxy/secret_filter.h"

#include <errno.h>
#include <stdio.h>

static int refuse_unreadable(const struct secret_store *store, struct http_text name,
			     struct secret_verdict *verdict)
{
	char shown[64];
	char why[128];

	escape_text(name.data, name.length, shown, sizeof(shown));
	snprintf(why, sizeof(why), "only gzip or deflate can be read, alone, and this is %s",
		 shown);
	secret_verdict_refuse(verdict, store, SECRET_REFUSAL_CODED, SECRET_STORE_MAX, why);
	return -EACCES;
}

int request_body_filter(const struct secret_store *store, const struct http_head *head,
			const struct egress_rule *limits, bool over_tls,
			struct secret_verdict *verdict, struct body_filter **ret_filter,
			struct body_filter **ret_secrets)
{
	bool passes_unread = limits && limits->passes_unread_bodies;
	struct http_text name = { "", 0 };
	enum body_coding coding = body_coding_of(head, &name);
	struct body_filter *filter;

	*ret_filter = *ret_secrets = NULL;
	if (coding == BODY_CODING_UNREADABLE)
		return passes_unread ? 0 : refuse_unreadable(store, name, verdict);
	*ret_secrets = secret_request_filter_new(store, &verdict->bound, over_tls);
	filter = *ret_secrets;
	if (filter && coding != BODY_CODING_NONE)
		filter = coded_filter_new(filter, coding);
	else if (filter && grpc_has_messages(head))
		filter = grpc_filter_new(filter, !passes_unread);
	if (!filter)
		return -ENOMEM;
	*ret_filter = filter;
	return 0;
}
