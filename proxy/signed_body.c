#include "proxy/signed_body.h"

#include "proxy/http_head.h"

#include <errno.h>
#include <openssl/evp.h>

void signed_body_ask(struct http_leg *guest)
{
	const struct http_framing none = { .kind = HTTP_FRAMING_NONE };
	struct http_head *go_on = http_head_new();

	if (!go_on)
		return;
	http_head_set_status(go_on, 100);
	(void)guest->ops->send_head(guest, go_on, &none);
	(void)guest->ops->flush(guest);
	http_head_free(go_on);
}

int signed_body_collect(struct http_leg *guest, struct byte_buffer *held,
			uint8_t digest[static SIGNED_BODY_DIGEST_SIZE])
{
	if (guest->receiving == HTTP_RECEIVING_BODY)
		guest->ops->receive(guest, held);
	if (guest->receiving == HTTP_RECEIVING_FAILED)
		return -EBADMSG;
	if (byte_buffer_room(held) == 0)
		return -EMSGSIZE;
	if (guest->receiving == HTTP_RECEIVING_BODY)
		return -EAGAIN;
	return EVP_Digest(byte_buffer_front(held), byte_buffer_length(held), digest, NULL,
			  EVP_sha256(), NULL) == 1
		       ? 0
		       : -ENOMEM;
}
