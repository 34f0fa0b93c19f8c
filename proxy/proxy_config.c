#include "proxy/proxy_config.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"
#include "base/io.h"
#include "proxy/http_syntax.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

/* One object of the document while it is taken apart; errors stick to the first. */
struct reader {
	struct owner *owner;
	char *error;
	int result;
};

/* What proxy_config_read() gives is the first part of this. */
struct owner {
	struct proxy_config config;
	json_t *document; /* owns all strings */
	void **blocks;	  /* arrays of the rules */
	size_t block_count;
};

static void fail(struct reader *reader, const char *where, const char *key, const char *what)
{
	char raw[PROXY_CONFIG_ERROR_MAX];

	if (reader->result)
		return;
	reader->result = -EINVAL;
	snprintf(raw, sizeof(raw), "configuration: %s%s%s: %s", where, *where ? ": " : "", key,
		 what);
	escape_text(raw, strlen(raw), reader->error, PROXY_CONFIG_ERROR_MAX);
}

/* Zeroed, and freed with the configuration. NULL without memory, which is noted. */
static void *allocate(struct reader *reader, size_t count, size_t size)
{
	struct owner *owner = reader->owner;
	void **blocks = reallocarray(owner->blocks, owner->block_count + 1, sizeof(*blocks));
	void *block = NULL;

	if (blocks) {
		owner->blocks = blocks;
		block = calloc(count + 1, size);
	}
	if (block)
		owner->blocks[owner->block_count++] = block;
	else if (!reader->result)
		reader->result = -ENOMEM;
	return block;
}

static bool check_keys(struct reader *reader, json_t *object, const char *where,
		       const char *const *known, size_t known_count)
{
	const char *key;
	json_t *value;

	if (!json_is_object(object)) {
		fail(reader, where, "value", "must be an object");
		return false;
	}
	json_object_foreach(object, key, value)
	{
		bool found = false;

		for (size_t i = 0; i < known_count; i++)
			found = found || strcmp(key, known[i]) == 0;
		if (!found)
			fail(reader, where, key, "unknown key");
	}
	return reader->result == 0;
}

/* ---- values ---------------------------------------------------------------------------------- */

static const char *text_of(json_t *value)
{
	const char *text = json_string_value(value);

	return text && *text && strlen(text) == json_string_length(value) ? text : NULL;
}

static const char *take_text(struct reader *reader, json_t *object, const char *where,
			     const char *key, bool required)
{
	json_t *value = json_object_get(object, key);
	const char *text = text_of(value);

	if (!text && (value || required))
		fail(reader, where, key, "must be a text that is not empty");
	return text;
}

static bool take_bool(struct reader *reader, json_t *object, const char *where, const char *key)
{
	json_t *value = json_object_get(object, key);

	if (value && !json_is_boolean(value))
		fail(reader, where, key, "must be true or false");
	return json_is_true(value);
}

static uint64_t take_limit(struct reader *reader, json_t *object, const char *where,
			   const char *key)
{
	json_t *value = json_object_get(object, key);

	if (!value)
		return EGRESS_NO_LIMIT;
	if (!json_is_integer(value) || json_integer_value(value) < 0) {
		fail(reader, where, key, "must be a whole number, 0 or more");
		return 0;
	}
	return (uint64_t)json_integer_value(value);
}

/* NULL for a list that is not there, or is wrong. */
static json_t *take_list(struct reader *reader, json_t *object, const char *where, const char *key,
			 size_t least, size_t most)
{
	json_t *list = json_object_get(object, key);
	char what[96];

	if (!list)
		return NULL;
	if (json_is_array(list) && json_array_size(list) >= least && json_array_size(list) <= most)
		return list;
	snprintf(what, sizeof(what), "must be a list of %zu to %zu items", least, most);
	fail(reader, where, key, what);
	return NULL;
}

static struct egress_texts take_texts(struct reader *reader, json_t *object, const char *where,
				      const char *key, size_t least, size_t most)
{
	json_t *list = take_list(reader, object, where, key, least, most);
	struct egress_texts texts = { NULL, 0 };

	if (!list)
		return texts;
	texts.items = allocate(reader, json_array_size(list), sizeof(*texts.items));
	for (size_t i = 0; i < json_array_size(list) && texts.items; i++) {
		texts.items[i] = text_of(json_array_get(list, i));
		if (!texts.items[i]) {
			fail(reader, where, key, "each item must be a text that is not empty");
			return texts;
		}
		texts.count++;
	}
	return texts;
}

static struct egress_texts take_tokens(struct reader *reader, json_t *object, const char *where,
				       const char *key, size_t least)
{
	struct egress_texts texts = take_texts(reader, object, where, key, least, EGRESS_LIST_MAX);

	for (size_t i = 0; i < texts.count; i++) {
		if (!http_is_token(texts.items[i], strlen(texts.items[i])))
			fail(reader, where, key, "each item must be a name as HTTP has them");
	}
	return texts;
}

/* ---- rules ----------------------------------------------------------------------------------- */

static struct egress_selector take_selector(struct reader *reader, json_t *object,
					    const char *where)
{
	struct egress_selector selector = { .methods = take_tokens(reader, object, where, "methods",
								   1) };
	struct egress_texts paths = take_texts(reader, object, where, "paths", 1, EGRESS_LIST_MAX);

	if (paths.count > 0)
		selector.paths = allocate(reader, paths.count, sizeof(*selector.paths));
	for (size_t i = 0; i < paths.count && selector.paths; i++) {
		if (request_path_pattern_parse(paths.items[i], &selector.paths[i]) < 0)
			fail(reader, where, "paths",
			     "a pattern begins with / and is in normal form: no query, no "
			     "percent sign, no . or .. segments; ** is a segment of its own");
		selector.path_count++;
	}
	return selector;
}

static void take_host(struct reader *reader, json_t *object, const char *where,
		      struct egress_rule *rule)
{
	const char *text = take_text(reader, object, where, "host", true);
	int error = text ? host_pattern_parse(text, strlen(text), &rule->host) : 0;

	if (error == -ENOTSUP)
		fail(reader, where, "host",
		     "is an address; give it a name with --add-host NAME:IP");
	else if (error || (!rule->host.is_tcp && rule->host.ports != HOST_PATTERN_PORTS_DEFAULT))
		fail(reader, where, "host",
		     "must be a name, *.name or tcp://name:port; other ports have their own key");
}

/* What only HTTP has. */
static void check_tcp_keys(struct reader *reader, json_t *object, const char *where)
{
	static const char *const keys[] = {
		"ports",	  "methods", "paths",	 "require_headers",    "deny_headers",
		"head_bytes_max", "secrets", "git_push", "client_certificate", "pass_unread_bodies"
	};

	for (size_t i = 0; i < ARRAY_LENGTH(keys); i++) {
		if (json_object_get(object, keys[i]))
			fail(reader, where, keys[i], "nobody looks for that in tcp:// connections");
	}
}

static void take_ports(struct reader *reader, json_t *object, const char *where,
		       struct egress_rule *rule)
{
	json_t *list = take_list(reader, object, where, "ports", 1, EGRESS_LIST_MAX);

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);

		if (!json_is_integer(item) || json_integer_value(item) < 1 ||
		    json_integer_value(item) > UINT16_MAX) {
			fail(reader, where, "ports", "must be numbers from 1 to 65535");
			return;
		}
		rule->ports[i] = (uint16_t)json_integer_value(item);
	}
}

static void take_required(struct reader *reader, json_t *object, const char *where,
			  struct egress_rule *rule)
{
	static const char *const known[] = { "name", "value" };
	json_t *list = take_list(reader, object, where, "require_headers", 0, EGRESS_LIST_MAX);

	if (list)
		rule->required = allocate(reader, json_array_size(list), sizeof(*rule->required));
	for (size_t i = 0; rule->required && i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);
		struct egress_header *header = &rule->required[i];

		if (!check_keys(reader, item, where, known, ARRAY_LENGTH(known)))
			return;
		header->name = take_text(reader, item, where, "name", true);
		header->value = take_text(reader, item, where, "value", false);
		if (header->name && !http_is_token(header->name, strlen(header->name)))
			fail(reader, where, "require_headers", "a header's name is no such");
		if (header->value && !http_is_field_value(header->value, strlen(header->value)))
			fail(reader, where, "require_headers", "a header's value is no such");
		rule->required_count++;
	}
}

static void take_bindings(struct reader *reader, json_t *object, const char *where,
			  struct egress_rule *rule)
{
	static const char *const known[] = { "name", "methods", "paths" };
	json_t *list = take_list(reader, object, where, "secrets", 0, EGRESS_LIST_MAX);

	if (list)
		rule->bindings = allocate(reader, json_array_size(list), sizeof(*rule->bindings));
	for (size_t i = 0; rule->bindings && i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);

		if (!check_keys(reader, item, where, known, ARRAY_LENGTH(known)))
			return;
		rule->bindings[i].secret = take_text(reader, item, where, "name", true);
		rule->bindings[i].selector = take_selector(reader, item, where);
		rule->binding_count++;
	}
}

/* As the path of a request has it, without ".git" and without a slash at its end. */
static bool is_repository(const char *text)
{
	struct request_path_pattern pattern;
	size_t length = strlen(text);

	return request_path_pattern_parse(text, &pattern) == 0 && !strchr(text, '*') &&
	       length > 1 && text[length - 1] != '/' &&
	       (length < 4 || strcmp(text + length - 4, ".git") != 0);
}

static void take_pushes(struct reader *reader, json_t *object, const char *where,
			struct egress_rule *rule)
{
	static const char *const known[] = { "repository", "refs" };
	json_t *list = take_list(reader, object, where, "git_push", 0, EGRESS_LIST_MAX);

	rule->limits_pushes = list != NULL;
	if (list)
		rule->pushes = allocate(reader, json_array_size(list), sizeof(*rule->pushes));
	for (size_t i = 0; rule->pushes && i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);
		struct egress_push *push = &rule->pushes[i];

		if (!check_keys(reader, item, where, known, ARRAY_LENGTH(known)))
			return;
		push->repository = take_text(reader, item, where, "repository", true);
		push->refs = take_texts(reader, item, where, "refs", 1, EGRESS_LIST_MAX);
		if (push->refs.count == 0)
			fail(reader, where, "refs", "is missing; \"**\" is every ref");
		if (push->repository && !is_repository(push->repository))
			fail(reader, where, "repository",
			     "must be a path such as /owner/name, without .git");
		for (size_t r = 0; r < push->refs.count; r++) {
			if (strncmp(push->refs.items[r], "refs/", 5) != 0 &&
			    strncmp(push->refs.items[r], "**", 2) != 0)
				fail(reader, where, "refs",
				     "must be whole, such as refs/heads/main");
		}
		rule->push_count++;
	}
}

static void take_rule(struct reader *reader, json_t *object, struct egress_rule *rule)
{
	static const char *const known[] = {
		"where",
		"host",
		"ports",
		"methods",
		"paths",
		"require_headers",
		"deny_headers",
		"head_bytes_max",
		"body_bytes_max",
		"response_bytes_max",
		"requests_max",
		"bytes_max",
		"secrets",
		"git_push",
		"client_certificate",
		"pass_unread_bodies",
	};
	const char *where;

	if (!json_is_object(object)) {
		fail(reader, "", "rules", "must be a list of objects");
		return;
	}
	where = take_text(reader, object, "rules", "where", true);
	if (!where || !check_keys(reader, object, where, known, ARRAY_LENGTH(known)))
		return;
	rule->where = where;
	take_host(reader, object, where, rule);
	if (rule->host.is_tcp)
		check_tcp_keys(reader, object, where);
	take_ports(reader, object, where, rule);
	rule->selector = take_selector(reader, object, where);
	take_required(reader, object, where, rule);
	rule->denied_headers = take_tokens(reader, object, where, "deny_headers", 0);
	rule->head_bytes_max = take_limit(reader, object, where, "head_bytes_max");
	rule->body_bytes_max = take_limit(reader, object, where, "body_bytes_max");
	rule->response_bytes_max = take_limit(reader, object, where, "response_bytes_max");
	rule->requests_max = take_limit(reader, object, where, "requests_max");
	rule->bytes_max = take_limit(reader, object, where, "bytes_max");
	take_bindings(reader, object, where, rule);
	take_pushes(reader, object, where, rule);
	rule->passes_unread_bodies = take_bool(reader, object, where, "pass_unread_bodies");
	rule->client_certificate = take_text(reader, object, where, "client_certificate", false);
}

static void take_rules(struct reader *reader, json_t *root)
{
	json_t *list = take_list(reader, root, "", "rules", 0, EGRESS_RULES_MAX);
	struct egress_policy_options *policy = &reader->owner->config.policy;
	struct egress_rule *rules;

	if (!list)
		return;
	rules = allocate(reader, json_array_size(list), sizeof(*rules));
	for (size_t i = 0; rules && i < json_array_size(list) && !reader->result; i++)
		take_rule(reader, json_array_get(list, i), &rules[i]);
	policy->rules = rules;
	policy->rule_count = rules ? json_array_size(list) : 0;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void take_hosts(struct reader *reader, json_t *root)
{
	static const char *const known[] = { "name", "address" };
	json_t *list = take_list(reader, root, "", "add_host", 0, PROXY_CONFIG_HOSTS_MAX);

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);
		struct ip_address address;
		struct host_name name;
		const char *name_text, *address_text;

		if (!check_keys(reader, item, "add_host", known, ARRAY_LENGTH(known)))
			return;
		name_text = take_text(reader, item, "add_host", "name", true);
		address_text = take_text(reader, item, "add_host", "address", true);
		if (reader->result)
			return;
		if (host_name_parse(name_text, strlen(name_text), &name) < 0)
			fail(reader, "add_host", name_text, "is no host name");
		else if (ip_address_parse(address_text, &address) < 0)
			fail(reader, "add_host", address_text, "is no address");
		else if (host_table_add(reader->owner->config.pinned, &name, &address) < 0)
			fail(reader, "add_host", name_text, "has too many addresses");
	}
}

static void take_upstream(struct reader *reader, json_t *root)
{
	const char *url = take_text(reader, root, "", "upstream_proxy", false);
	struct proxy_config *config = &reader->owner->config;
	int error = url ? upstream_proxy_parse(url, &config->upstream) : 0;

	/* The URL is not shown: it may hold a password. */
	if (error == -EPROTONOSUPPORT)
		fail(reader, "", "upstream_proxy", "only http:// is spoken to a proxy");
	else if (error)
		fail(reader, "", "upstream_proxy", "must be http://[USER:PASSWORD@]HOST[:PORT]");
	config->has_upstream = url && !error;
}

static void take_all(struct reader *reader, json_t *root)
{
	static const char *const known[] = { "session",	  "allow",	     "passthrough",
					     "allow_all", "add_host",	     "upstream_proxy",
					     "rules",	  "freeze_on_canary" };
	struct egress_policy_options *policy = &reader->owner->config.policy;
	struct egress_texts texts;

	if (!check_keys(reader, root, "", known, ARRAY_LENGTH(known)))
		return;
	policy->session = take_text(reader, root, "", "session", true);
	policy->allow_all = take_bool(reader, root, "", "allow_all");
	policy->freezes_on_canary = take_bool(reader, root, "", "freeze_on_canary");
	texts = take_texts(reader, root, "", "allow", 0, EGRESS_PATTERNS_MAX);
	policy->allow = texts.items;
	policy->allow_count = texts.count;
	texts = take_texts(reader, root, "", "passthrough", 0, EGRESS_PATTERNS_MAX);
	policy->passthrough = texts.items;
	policy->passthrough_count = texts.count;
	take_rules(reader, root);
	take_hosts(reader, root);
	take_upstream(reader, root);
}

int proxy_config_parse(const char *text, size_t length, struct proxy_config **ret_config,
		       char error[static PROXY_CONFIG_ERROR_MAX])
{
	struct owner *owner = calloc(1, sizeof(*owner));
	struct reader reader = { .owner = owner, .error = error };
	json_error_t syntax;

	static_assert(offsetof(struct owner, config) == 0, "a configuration is its owner");
	if (!owner)
		return -ENOMEM;
	snprintf(error, PROXY_CONFIG_ERROR_MAX, "configuration: no memory");
	owner->config.pinned = host_table_new();
	owner->document = json_loadb(text, length, JSON_REJECT_DUPLICATES, &syntax);
	if (!owner->config.pinned)
		reader.result = -ENOMEM;
	else if (!owner->document)
		fail(&reader, "", "JSON", syntax.text);
	else
		take_all(&reader, owner->document);
	if (reader.result) {
		proxy_config_free(&owner->config);
		return reader.result;
	}
	error[0] = '\0';
	*ret_config = &owner->config;
	return 0;
}

int proxy_config_read(int fd, struct proxy_config **ret_config,
		      char error[static PROXY_CONFIG_ERROR_MAX])
{
	char *text = NULL;
	size_t length;
	int result = read_file(fd, PROXY_CONFIG_FILE_MAX, &text, &length);

	if (result) {
		snprintf(error, PROXY_CONFIG_ERROR_MAX, "cannot read the configuration: %s",
			 strerror(-result));
		return result;
	}
	result = proxy_config_parse(text, length, ret_config, error);
	OPENSSL_cleanse(text, length);
	free(text);
	return result;
}

void proxy_config_free(struct proxy_config *config)
{
	struct owner *owner = (struct owner *)config;

	if (!config)
		return;
	for (size_t i = 0; i < owner->block_count; i++)
		free(owner->blocks[i]);
	free(owner->blocks);
	host_table_free(config->pinned);
	json_decref(owner->document);
	OPENSSL_cleanse(&config->upstream, sizeof(config->upstream));
	free(owner);
}
