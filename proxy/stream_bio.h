/*
 * OpenSSL's transport (a BIO) over a stream: reads and writes its descriptor by stream_receive()
 * and stream_transmit(), so that what these know spares calls of the system.
 */
#ifndef PROXY_STREAM_BIO_H
#define PROXY_STREAM_BIO_H

#include "proxy/stream.h"

#include <openssl/bio.h>

/* For stream_bio_new(); to be freed after all that was made with it. NULL without memory. */
BIO_METHOD *stream_bio_method_new(void);
/* Borrows the stream, which has to stay where it is. NULL without memory. */
BIO *stream_bio_new(const BIO_METHOD *method, struct stream *stream);

#endif
