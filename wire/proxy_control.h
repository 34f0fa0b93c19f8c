/*
 * The control socket between matchlock and the broker, matchlock-proxy: SOCK_SEQPACKET, one
 * message a datagram. Its end of file tells the broker to finish.
 *
 *     u16 type (enum proxy_control_type)   u16 zero   u32 error
 *     then two texts, each u32 length, the bytes, a closing NUL that the length does not count
 *
 * The broker begins with one PLACEHOLDER for each secret and then READY; both sides are trusted,
 * yet the broker reads what the guest writes, so matchlock takes nothing from it that is not of
 * this form. Each ALLOW_ message is answered by one RESULT, in order. Texts hold no NUL; unused
 * ones are empty, as `error` is 0 in all but RESULT.
 */
#ifndef WIRE_PROXY_CONTROL_H
#define WIRE_PROXY_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#define PROXY_CONTROL_MAX 65536 /* bytes of one message */

enum proxy_control_type {
	/* broker to matchlock */
	PROXY_CONTROL_PLACEHOLDER =
		1,		  /* name: the secret's, text: what stands for it in the guest */
	PROXY_CONTROL_READY = 2,  /* text: the session's CA certificate, PEM */
	PROXY_CONTROL_RESULT = 3, /* error: errno or 0, text: for a person */
	/* matchlock to broker */
	PROXY_CONTROL_ALLOW_ADD = 64, /* text: pattern */
	PROXY_CONTROL_ALLOW_REMOVE = 65,
	PROXY_CONTROL_ALLOW_LIST = 66,
	/* `matchlock port-forward` to the session (cli/session_control.h), never to the broker;
	 * text: the ports, for the log */
	PROXY_CONTROL_FORWARD = 67,
};

struct proxy_control {
	enum proxy_control_type type;
	uint32_t error;
	const char *name;
	const char *text;
};

/* The message borrows from `data`. Returns 0, or -EBADMSG for anything not of the form above. */
int proxy_control_decode(const void *data, size_t length, struct proxy_control *ret_message);
/* Returns the length, or 0 when it does not fit `capacity` or PROXY_CONTROL_MAX. */
size_t proxy_control_encode(void *buffer, size_t capacity, const struct proxy_control *message);

#endif
