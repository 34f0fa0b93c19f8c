#include "proxy/secret_request.h"

#include "base/checked.h"
#include "proxy/aws_signing.h"
#include "proxy/credential_pinning.h"
#include "proxy/secret_pass.h"
#include "proxy/secret_search.h"

#include <string.h>

/*
 * Theory of operation
 *
 * The texts of the head are searched twice: first every placeholder is judged by the place it is
 * in, and only when all is well, each is replaced; so a head that is refused never holds a value. A
 * text in which something is replaced is a wiped copy that becomes the field's value. Credentials
 * of scheme Basic are decoded, searched as any text, and encoded again.
 *
 * Pinning comes before replacing, while a credential's field still holds the placeholder: what
 * stands around it must be syntax alone. A request signed for AWS has its signature checked first,
 * over the head as it came, and made again last, over the head as it goes.
 */

/* Answers that can be searched: not compressed, by whatever means. */
static int ask_for_plain_answers(struct http_head *head)
{
	static const char *const fields[] = { "Accept-Encoding", "grpc-accept-encoding" };

	for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
		ssize_t index = http_head_find(head, fields[i], 0);
		int error;

		/* gRPC's is only for who speaks it. */
		if (index < 0 && i > 0)
			continue;
		http_head_remove_all(head, fields[i]);
		error = http_head_add(head, fields[i], strlen(fields[i]), "identity", 8);
		if (error)
			return error;
	}
	/* permessage-deflate (RFC 7692) is an extension. */
	http_head_remove_all(head, "Sec-WebSocket-Extensions");
	return 0;
}

/* All is well: the head becomes what goes upstream. */
static int change_head(struct secret_pass *pass, const struct aws_signing *signing)
{
	int error = 0;

	pass->is_replacing = true;
	if (!secret_set_is_empty(&pass->verdict->used))
		error = secret_search_replace(pass);
	if (error == 0 && !secret_set_is_empty(&pass->verdict->named))
		error = ask_for_plain_answers(pass->head);
	if (error == 0 && signing->field >= 0)
		error = aws_signing_finish(pass, signing);
	return error;
}

int secrets_prepare_request(const struct secret_store *store, struct http_head *head,
			    const struct secret_request *request,
			    struct secret_verdict *ret_verdict)
{
	struct secret_verdict verdict = { 0 };
	struct secret_findings findings = { .in_query = false };
	struct secret_pass pass = { store, request, head, &verdict, &findings, false };
	struct aws_signing signing;
	int error;

	secret_store_bound(store, &request->host, request->port, &verdict.bound);
	secret_store_named(store, &request->host, &verdict.named);
	if (secret_store_is_probed(store) && !secret_set_is_empty(&verdict.named))
		secret_verdict_refuse(&verdict, store, SECRET_REFUSAL_PROBED, SECRET_STORE_MAX,
				      NULL);
	error = aws_signing_begin(&pass, &signing);
	if (error == 0 && !verdict.needs_body_digest) {
		if (credential_pinning_is_on(&pass))
			error = credential_pinning_judge(&pass, signing.field);
		if (error == 0)
			error = secret_search_head(&pass);
		if (error == 0 && verdict.refusal == SECRET_REFUSAL_NONE)
			error = change_head(&pass, &signing);
	}
	if (error)
		return error;
	*ret_verdict = verdict;
	return 0;
}

void secrets_check_trailers(const struct secret_store *store, const struct http_head *trailers,
			    struct secret_verdict *verdict)
{
	const struct secret_pass pass = { .store = store, .verdict = verdict };

	for (size_t i = 0; i < http_head_field_count(trailers); i++) {
		struct http_field field = http_head_field(trailers, i);

		secret_search_text(&pass, field.name, "it is in a trailer");
		secret_search_text(&pass, field.value, "it is in a trailer");
	}
}
