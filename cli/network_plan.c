#include "cli/network_plan.h"

#include "base/cleanup.h"
#include "cli/client_certificates.h"

#include <string.h>

static void print_list(FILE *out, const char *what, const struct text_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		cleanup_free char *shown = escape_copy(list->items[i]);

		fprintf(out, "%-12s%s%s\n", "", what, shown);
	}
}

/* Without the user and password. */
static char *shown_proxy(const char *url)
{
	const char *at = strrchr(url, '@');

	return at ? text_printf("http://...@%s", at + 1) : text_copy(url);
}

static void print_secret(FILE *out, const struct secret_option *secret)
{
	fprintf(out, "%-12ssecret %s, only towards", "", secret->name);
	for (size_t i = 0; i < secret->hosts.count; i++)
		fprintf(out, "%s %s", i > 0 ? "," : "", secret->hosts.items[i]);
	fputc('\n', out);
}

static void print_certificates(FILE *out, const json_t *rules)
{
	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *rule = json_array_get(rules, i);
		const char *key = client_certificates_key(rules, i);
		const char *host = json_string_value(json_object_get(rule, "host"));
		cleanup_free char *shown = NULL;
		cleanup_free char *shown_host = NULL;

		if (!key)
			continue;
		shown = escape_copy(key);
		shown_host = escape_copy(host ? host : "?");
		fprintf(out, "%-12sclient certificate, only towards %s: the key of %s\n", "",
			shown_host, shown);
	}
}

void network_print(FILE *out, const struct plan *plan, const struct run_options *options)
{
	const struct network_options *network = &options->network;
	size_t rules = json_array_size(plan->egress_rules);

	if (!plan->has_network) {
		fprintf(out, "%-12snone: the guest has no network card\n", "network");
		return;
	}
	if (network->allow_all)
		fprintf(out, "%-12severy host (--allow-all-hosts)\n", "network");
	else
		fprintf(out, "%-12sby way of Matchlock on the host, to%s\n", "network",
			network->allow.count + network->passthrough.count + rules > 0 ? ""
										      : " no host");
	print_list(out, "", &network->allow);
	print_list(out, "not looked into: ", &network->passthrough);
	if (rules > 0)
		fprintf(out, "%-12sand by %zu rule%s of the policy\n", "", rules,
			rules == 1 ? "" : "s");
	print_certificates(out, plan->egress_rules);
	for (size_t i = 0; i + 1 < network->added_hosts.count; i += 2)
		fprintf(out, "%-12s%s is at %s\n", "", network->added_hosts.items[i],
			network->added_hosts.items[i + 1]);
	for (size_t i = 0; i < network->secret_count; i++)
		print_secret(out, &network->secrets[i]);
	if (plan->plants_canaries)
		fprintf(out, "%-12sdecoy secrets, whose use is denied and told%s\n", "",
			plan->freezes_on_canary ? ", and closes the network" : "");
	if (network->upstream_proxy) {
		cleanup_free char *url = shown_proxy(network->upstream_proxy);
		cleanup_free char *shown = escape_copy(url);

		fprintf(out, "%-12sthrough the proxy %s\n", "", shown);
	}
	for (size_t i = 0; i < network->forward_count; i++) {
		const struct port_forward *forward = &network->forwards[i];

		fprintf(out, "%-12s%s port %u goes to the guest's port %u\n", "", forward->address,
			forward->host_port, forward->guest_port);
	}
}

static json_t *text_array(const struct text_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(array, json_string(list->items[i]));
	return array;
}

static json_t *added_hosts(const struct network_options *network)
{
	json_t *array = json_array();

	for (size_t i = 0; i + 1 < network->added_hosts.count; i += 2)
		json_array_append_new(array,
				      json_pack("{s:s, s:s}", "name", network->added_hosts.items[i],
						"address", network->added_hosts.items[i + 1]));
	return array;
}

static json_t *secrets(const struct network_options *network)
{
	json_t *array = json_array();

	for (size_t i = 0; i < network->secret_count; i++)
		json_array_append_new(array,
				      json_pack("{s:s, s:o}", "name", network->secrets[i].name,
						"hosts", text_array(&network->secrets[i].hosts)));
	return array;
}

json_t *network_plan_json(const struct plan *plan, const struct run_options *options)
{
	const struct network_options *network = &options->network;
	cleanup_free char *proxy = NULL;
	json_t *forwards;

	if (!plan->has_network)
		return json_string("none");
	forwards = json_array();
	for (size_t i = 0; i < network->forward_count; i++) {
		const struct port_forward *forward = &network->forwards[i];

		json_array_append_new(forwards,
				      json_pack("{s:s, s:i, s:i}", "address", forward->address,
						"host_port", (int)forward->host_port, "guest_port",
						(int)forward->guest_port));
	}
	if (network->upstream_proxy)
		proxy = shown_proxy(network->upstream_proxy);
	return json_pack(
		"{s:o, s:o, s:b, s:o, s:o, s:o, s:b, s:o, s:o}", "allow",
		text_array(&network->allow), "passthrough", text_array(&network->passthrough),
		"allow_all", network->allow_all ? 1 : 0, "add_host", added_hosts(network), "rules",
		plan->egress_rules ? json_incref(plan->egress_rules) : json_array(), "secrets",
		secrets(network), "canaries", plan->plants_canaries ? 1 : 0, "upstream_proxy",
		proxy ? json_string(proxy) : json_null(), "forwards", forwards);
}

json_t *network_broker_json(const struct plan *plan, const struct run_options *options)
{
	const struct network_options *network = &options->network;
	json_t *json = json_pack("{s:s, s:o, s:o, s:b, s:o}", "session", plan->id, "allow",
				 text_array(&network->allow), "passthrough",
				 text_array(&network->passthrough), "allow_all",
				 network->allow_all ? 1 : 0, "add_host", added_hosts(network));

	if (json && plan->freezes_on_canary)
		json_object_set_new(json, "freeze_on_canary", json_true());
	if (json && network->upstream_proxy)
		json_object_set_new(json, "upstream_proxy", json_string(network->upstream_proxy));
	if (json && plan->egress_rules) {
		json_t *rules = json_deep_copy(plan->egress_rules);

		client_certificates_name(rules);
		json_object_set_new(json, "rules", rules);
	}
	return json;
}
