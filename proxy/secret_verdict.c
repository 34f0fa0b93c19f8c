#include "proxy/secret_verdict.h"

#include <stdio.h>

static const char *const codes[SECRET_REFUSALS] = {
	[SECRET_REFUSAL_WRONG_HOST] = "secret_wrong_host",
	[SECRET_REFUSAL_NEEDS_TLS] = "secret_needs_tls",
	[SECRET_REFUSAL_OUTSIDE_SLOT] = "secret_outside_slot",
	[SECRET_REFUSAL_CANARY] = "canary",
	[SECRET_REFUSAL_FOREIGN] = "foreign_credential",
	[SECRET_REFUSAL_SIGNATURE] = "signature_not_possible",
	[SECRET_REFUSAL_ENCODED] = "encoded_response",
	[SECRET_REFUSAL_TOKEN] = "token_not_capturable",
	[SECRET_REFUSAL_PROBED] = "secret_probed",
	[SECRET_REFUSAL_CODED] = "coded_request",
};

const char *secret_refusal_code(enum secret_refusal refusal)
{
	return codes[refusal];
}

void secret_verdict_refuse(struct secret_verdict *verdict, const struct secret_store *store,
			   enum secret_refusal refusal, size_t index, const char *detail)
{
	const char *name =
		index < secret_store_count(store) ? secret_store_get(store, index)->name : "";
	const char *more = detail ? detail : "";
	char *hint = verdict->hint;

	if (verdict->refusal != SECRET_REFUSAL_NONE)
		return;
	verdict->refusal = refusal;
	switch (refusal) {
	case SECRET_REFUSAL_WRONG_HOST:
		snprintf(hint, SECRET_HINT_MAX,
			 "the placeholder of %s may go to that secret's hosts and ports alone (443 "
			 "unless another is given); take it out of the request, or name this host "
			 "in --secret %s@HOST[:PORT]",
			 name, name);
		break;
	case SECRET_REFUSAL_NEEDS_TLS:
		snprintf(hint, SECRET_HINT_MAX,
			 "%s is only ever sent over TLS that the host has verified; use https",
			 name);
		break;
	case SECRET_REFUSAL_OUTSIDE_SLOT:
		snprintf(hint, SECRET_HINT_MAX,
			 "the placeholder of %s is replaced only where a credential belongs%s%s; "
			 "send it in such a header, or allow this place in --secret",
			 name, detail ? ": " : "", more);
		break;
	case SECRET_REFUSAL_CANARY:
		snprintf(hint, SECRET_HINT_MAX,
			 "the request carries the decoy credential %s, which nothing legitimate "
			 "uses",
			 name);
		break;
	case SECRET_REFUSAL_FOREIGN:
		snprintf(hint, SECRET_HINT_MAX,
			 "requests to this host may carry no credential but the placeholder of its "
			 "own secret%s%s; remove the other one",
			 detail ? ", and this has one in " : "", more);
		break;
	case SECRET_REFUSAL_SIGNATURE:
		snprintf(hint, SECRET_HINT_MAX, "the request cannot be signed with %s: %s", name,
			 more);
		break;
	case SECRET_REFUSAL_ENCODED:
		snprintf(hint, SECRET_HINT_MAX,
			 "the server compressed its answer although it was asked not to, so that "
			 "the answer could not be searched for the secret which the request "
			 "carried");
		break;
	case SECRET_REFUSAL_TOKEN:
		snprintf(hint, SECRET_HINT_MAX,
			 "the server's answer holds a token that cannot be kept "
			 "from the guest: %s",
			 more);
		break;
	case SECRET_REFUSAL_PROBED:
		snprintf(hint, SECRET_HINT_MAX,
			 "answers kept stopping inside what began like a secret, as they do when "
			 "somebody guesses one piece by piece; hosts with secrets are closed for "
			 "the rest of this session");
		break;
	case SECRET_REFUSAL_CODED:
		snprintf(hint, SECRET_HINT_MAX,
			 "the body is compressed and must be searched for secrets: %s; send it as "
			 "it is, or let bodies to this host pass unread with "
			 "pass_unread_bodies: true in an egress rule",
			 detail ? more : "a placeholder in it cannot be replaced");
		break;
	case SECRET_REFUSAL_NONE:
	case SECRET_REFUSALS:
		break;
	}
}
