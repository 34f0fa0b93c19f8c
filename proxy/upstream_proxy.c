#include "proxy/upstream_proxy.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define SCHEME "http://"
#define BASIC "Basic "

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Percent-decoded; -EINVAL for a bad escape, or for a byte that no field may have. */
static int decode(const char *text, size_t length, unsigned char *output, size_t *ret_length)
{
	size_t used = 0;

	if (length > UPSTREAM_PROXY_CREDENTIALS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)text[i];

		if (byte == '%') {
			int high = length - i > 2 ? hex_value(text[i + 1]) : -1;
			int low = length - i > 2 ? hex_value(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return -EINVAL;
			byte = (unsigned char)(high << 4 | low);
			i += 2;
		}
		if (byte < 0x20 || byte == 0x7f)
			return -EINVAL;
		output[used++] = byte;
	}
	*ret_length = used;
	return 0;
}

static int take_credentials(const char *text, size_t length, struct upstream_proxy *proxy)
{
	unsigned char plain[UPSTREAM_PROXY_CREDENTIALS_MAX + 1];
	size_t plain_length;
	int error = decode(text, length, plain, &plain_length);

	static_assert(sizeof(BASIC) + 4 * ((sizeof(plain) + 3) / 3) <= sizeof(proxy->authorization),
		      "the encoded credentials fit");
	if (!error && !memchr(text, ':', length))
		plain[plain_length++] = ':';
	if (!error) {
		memcpy(proxy->authorization, BASIC, strlen(BASIC));
		EVP_EncodeBlock((unsigned char *)proxy->authorization + strlen(BASIC), plain,
				(int)plain_length);
	}
	OPENSSL_cleanse(plain, sizeof(plain));
	return error;
}

/* The host's end in an authority: behind the bracket, or at the colon. */
static size_t host_length(const char *text, size_t length)
{
	const char *end = text[0] == '[' ? memchr(text, ']', length) : memchr(text, ':', length);

	if (!end)
		return length;
	return (size_t)(end - text) + (text[0] == '[' ? 1 : 0);
}

static int take_host(const char *text, size_t length, struct upstream_proxy *proxy)
{
	char literal[IP_ADDRESS_TEXT_MAX];
	bool has_brackets = length >= 2 && text[0] == '[' && text[length - 1] == ']';
	int error = host_name_parse(text, length, &proxy->name);

	proxy->has_name = error == 0;
	if (error != -ENOTSUP)
		return error;
	if (has_brackets) {
		text++;
		length -= 2;
	}
	if (length >= sizeof(literal) || memchr(text, '\0', length))
		return -EINVAL;
	memcpy(literal, text, length);
	literal[length] = '\0';
	error = ip_address_parse(literal, &proxy->address);
	return !error && has_brackets != (proxy->address.family == 6) ? -EINVAL : error;
}

static int take_authority(const char *text, size_t length, struct upstream_proxy *proxy)
{
	/* The port is read as every authority's is, with a name in the host's place. */
	char with_name[] = "x:65535\0";
	struct host_name name;
	size_t host;
	size_t rest;
	int error;

	if (length == 0)
		return -EINVAL;
	host = host_length(text, length);
	rest = length - host;
	if (rest > strlen(":65535") || (rest > 0 && text[host] != ':'))
		return -EINVAL;
	memcpy(with_name + 1, text + host, rest);
	error = authority_parse(with_name, rest + 1, 80, &name, &proxy->port);
	return error ? error : take_host(text, host, proxy);
}

int upstream_proxy_parse(const char *url, struct upstream_proxy *ret_proxy)
{
	struct upstream_proxy proxy = { .port = 80 };
	size_t length = strlen(url);
	const char *at;
	int error = 0;

	if (length > UPSTREAM_PROXY_URL_MAX)
		return -EINVAL;
	if (strncmp(url, SCHEME, strlen(SCHEME)) != 0)
		return strstr(url, "://") ? -EPROTONOSUPPORT : -EINVAL;
	url += strlen(SCHEME);
	length -= strlen(SCHEME);
	if (length > 0 && url[length - 1] == '/')
		length--;
	at = memrchr(url, '@', length);
	if (at) {
		error = take_credentials(url, (size_t)(at - url), &proxy);
		length -= (size_t)(at + 1 - url);
		url = at + 1;
	}
	if (!error)
		error = take_authority(url, length, &proxy);
	if (!error)
		*ret_proxy = proxy;
	OPENSSL_cleanse(&proxy, sizeof(proxy));
	return error == -ENOTSUP ? -EINVAL : error;
}

size_t upstream_proxy_request(const struct upstream_proxy *proxy, const struct host_name *name,
			      uint16_t port, char request[static UPSTREAM_PROXY_REQUEST_MAX])
{
	static_assert(UPSTREAM_PROXY_REQUEST_MAX >
			      2 * HOST_NAME_MAX_LENGTH + sizeof(proxy->authorization) + 128,
		      "a request always fits");
	bool has_credentials = proxy->authorization[0] != '\0';

	return (size_t)snprintf(request, UPSTREAM_PROXY_REQUEST_MAX,
				"CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\n%s%s%s\r\n", name->text,
				port, name->text, port,
				has_credentials ? "Proxy-Authorization: " : "",
				proxy->authorization, has_credentials ? "\r\n" : "");
}

size_t upstream_proxy_head_length(const char *data, size_t length)
{
	const char *end = memmem(data, length, "\r\n\r\n", 4);

	return end ? (size_t)(end - data) + 4 : 0;
}

int upstream_proxy_status(const char *head, size_t length)
{
	int status = 0;

	if (length < strlen("HTTP/1.1 200") || memcmp(head, "HTTP/1.", 7) != 0 ||
	    (head[7] != '0' && head[7] != '1') || head[8] != ' ' || memchr(head, '\0', length))
		return -EBADMSG;
	for (size_t i = 9; i < 12; i++) {
		if (head[i] < '0' || head[i] > '9')
			return -EBADMSG;
		status = status * 10 + (head[i] - '0');
	}
	if (length > 12 && head[12] != ' ' && head[12] != '\r')
		return -EBADMSG;
	return status < 100 ? -EBADMSG : status;
}
