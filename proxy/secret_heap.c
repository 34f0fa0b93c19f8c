#include "proxy/secret_heap.h"

#include "base/checked.h"
#include "proxy/secret_memory.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Most numbers of a key are about as long as this or longer. */
#define BLOCK_MIN 32u
#define SIGNATURE_MAX 4096u
#define STACK_WIPED 65536u

static struct {
	bool has_allocators;
	bool is_locked;
	bool is_entered;
	bool was_full;
} heap;

static void *take(size_t size)
{
	void *block = CRYPTO_secure_malloc(size, __FILE__, __LINE__);

	heap.was_full |= !block && size > 0;
	return block;
}

static void *allocate(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	if (size == 0)
		return NULL;
	return heap.is_entered ? take(size) : malloc(size);
}

static void release(void *block, const char *file, int line)
{
	if (CRYPTO_secure_allocated(block))
		CRYPTO_secure_free(block, file, line);
	else
		free(block);
}

/* A block stays where it is, in one heap or the other. */
static void *reallocate(void *block, size_t size, const char *file, int line)
{
	void *larger;

	if (!block)
		return allocate(size, file, line);
	if (size == 0) {
		release(block, file, line);
		return NULL;
	}
	if (!CRYPTO_secure_allocated(block))
		return realloc(block, size);
	larger = take(size);
	if (!larger)
		return NULL;
	memcpy(larger, block, MIN_OF(size, CRYPTO_secure_actual_size(block)));
	release(block, file, line);
	return larger;
}

int secret_heap_init(void)
{
	int result;

	secret_memory_raise_limit();
	heap.has_allocators = CRYPTO_set_mem_functions(allocate, reallocate, release) == 1;
	if (!heap.has_allocators)
		return -ENOMEM;
	result = CRYPTO_secure_malloc_init(SECRET_HEAP_SIZE, BLOCK_MIN);
	if (result == 0) {
		heap.has_allocators = false;
		return -ENOMEM;
	}
	heap.is_locked = result == 1;
	return heap.is_locked ? 0 : -EPERM;
}

bool secret_heap_is_locked(void)
{
	return heap.is_locked;
}

void secret_heap_enter(void)
{
	heap.is_entered = heap.has_allocators;
	heap.was_full = false;
}

/* What the calls in between left below this call's frame. */
__attribute__((noinline)) static void wipe_stack(void)
{
	char below[STACK_WIPED];

	explicit_bzero(below, sizeof(below));
}

bool secret_heap_leave(void)
{
	heap.is_entered = false;
	wipe_stack();
	return !heap.was_full;
}

void secret_heap_use_key(EVP_PKEY *key)
{
	static const unsigned char text[] = "first use";
	unsigned char signature[SIGNATURE_MAX];
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	size_t length = sizeof(signature);
	int digest = NID_undef;
	const EVP_MD *kind = NULL;

	/* Ed25519 and Ed448 have none. */
	if (EVP_PKEY_get_default_digest_nid(key, &digest) > 0 && digest != NID_undef)
		kind = EVP_get_digestbynid(digest);
	if (context && EVP_DigestSignInit(context, NULL, kind, NULL, key) == 1)
		(void)EVP_DigestSign(context, signature, &length, text, sizeof(text));
	EVP_MD_CTX_free(context);
	ERR_clear_error();
}
