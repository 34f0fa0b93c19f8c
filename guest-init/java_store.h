/*
 * Adds a certificate to a Java key store, the form in which Debian has /etc/ssl/certs/java/cacerts:
 *
 *     u32 magic 0xfeedfeed   u32 version 2   u32 count   the entries
 *     SHA-1 of the password in UTF-16, "Mighty Aphrodite", and all of that
 *
 * big-endian; an entry of ours is u32 2, its alias, u64 milliseconds, the type, u32 length and the
 * certificate's DER, with texts behind a u16 length. (There is no document; the source is
 * sun.security.provider.JavaKeyStore of OpenJDK.) The password is Debian's and Java's own,
 * "changeit": it is a checksum's and guards nothing.
 */
#ifndef GUEST_INIT_JAVA_STORE_H
#define GUEST_INIT_JAVA_STORE_H

#include <stddef.h>
#include <stdint.h>

#define JAVA_STORE_MAX (16U << 20)

/* The store with the certificate (PEM) at its end, a fresh block for the caller to free. Returns 0,
 * -EBADMSG for what is no such store or certificate, or -ENOMEM. */
int java_store_add(const uint8_t *store, size_t length, const char *certificate,
		   uint8_t **ret_store, size_t *ret_length);

#endif
