/* The first byte chooses: the rest is a URL of an upstream proxy, or what one answers. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/upstream_proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_url(const uint8_t *data, size_t size)
{
	static const struct host_name target = { .text = "example.com", .length = 11 };
	char request[UPSTREAM_PROXY_REQUEST_MAX];
	struct upstream_proxy proxy;
	char *url = strndup((const char *)data, size);
	size_t length;

	if (url && upstream_proxy_parse(url, &proxy) == 0) {
		assert(proxy.port != 0);
		assert(proxy.has_name || proxy.address.family == 4 || proxy.address.family == 6);
		length = upstream_proxy_request(&proxy, &target, 443, request);
		assert(length < sizeof(request) && strlen(request) == length);
		/* Nothing in the URL adds a line. */
		assert(upstream_proxy_head_length(request, length) == length);
		assert(strspn(proxy.authorization,
			      "Basic ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklm"
			      "nopqrstuvwxyz0123456789+/=") == strlen(proxy.authorization));
	}
	free(url);
}

static void parse_answer(const uint8_t *data, size_t size)
{
	/* Of the exact size, so that a read past the end is seen. */
	char *answer = malloc(size > 0 ? size : 1);
	size_t head;
	int status;

	if (!answer)
		return;
	memcpy(answer, data, size);
	head = upstream_proxy_head_length(answer, size);
	assert(head <= size);
	status = upstream_proxy_status(answer, head);
	assert(status < 0 || (status >= 100 && status <= 999));
	free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		parse_url(data + 1, size - 1);
	else
		parse_answer(data + 1, size - 1);
	return 0;
}
