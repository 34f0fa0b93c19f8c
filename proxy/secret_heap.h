/*
 * Locked memory for the private keys that OpenSSL keeps: its secure heap (CRYPTO_secure_malloc(3)),
 * which is locked, left out of core dumps, between guard pages, and wiped where it is given back.
 *
 * OpenSSL by itself puts there the numbers of a key, but not the text that a key is read from, nor
 * what it computes from an RSA key for later use, which holds the primes once more. So what it
 * allocates between secret_heap_enter() and secret_heap_leave() lies there, whatever it is, until
 * it is freed, and what it left on the stack is wiped. A key is read and used for the first time in
 * there.
 *
 * The state is the library's, one for the process: its allocators are told nothing else.
 */
#ifndef PROXY_SECRET_HEAP_H
#define PROXY_SECRET_HEAP_H

#include <openssl/types.h>
#include <stdbool.h>

/* Bytes of address space, all of which count against RLIMIT_MEMLOCK; a page takes memory when it is
 * first used. Room for the keys of a session (an RSA key of 4096 bits takes some 16 KiB while it is
 * read), and for an ephemeral key in each handshake that a server lets wait. */
#define SECRET_HEAP_SIZE (2u << 20)

/* Before any other call of OpenSSL, and before the jail. 0; -EPERM when it cannot be locked, and
 * then keys lie there all the same; -ENOMEM, and then they lie in ordinary memory, as they do
 * without this call. */
int secret_heap_init(void);

/* Whether keys lie in locked memory. */
bool secret_heap_is_locked(void);

/* Not nested. */
void secret_heap_enter(void);
/* False when it was full in between, so that some call of OpenSSL has failed for that. */
bool secret_heap_leave(void);

/* Signs something, so that what the library keeps to compute with the key comes into being; it lies
 * where the key does when this is called in between. */
void secret_heap_use_key(EVP_PKEY *key);

#endif
