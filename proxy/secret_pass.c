#include "proxy/secret_pass.h"

#include "proxy/credential_rules.h"

#include <string.h>
#include <strings.h>

void secret_pass_refuse(const struct secret_pass *pass, enum secret_refusal refusal, size_t index,
			const char *detail)
{
	secret_verdict_refuse(pass->verdict, pass->store, refusal, index, detail);
	secret_set_add(&pass->verdict->used, index);
}

void secret_pass_refuse_foreign(const struct secret_pass *pass, const char *where)
{
	secret_verdict_refuse(pass->verdict, pass->store, SECRET_REFUSAL_FOREIGN, SECRET_STORE_MAX,
			      where);
}

bool secret_pass_is_slot(const struct secret *secret, struct http_text name)
{
	if (secret->slot_count == 0)
		return credential_is_usual_slot(name);
	for (size_t i = 0; i < secret->slot_count; i++) {
		if (secret->slots[i].length == name.length &&
		    !strncasecmp(secret->slots[i].data, name.data, name.length))
			return true;
	}
	return false;
}

struct http_text secret_pass_split_query(struct http_text *path)
{
	const char *mark = memchr(path->data, '?', path->length);
	struct http_text query = { "", 0 };

	if (mark) {
		query.data = mark + 1;
		query.length = path->length - (size_t)(mark + 1 - path->data);
		path->length = (size_t)(mark - path->data);
	}
	return query;
}
