/*
 * What is known of one directory: the names in it (all of them when `complete`), and its listing
 * in the server's order. All functions need the cache's lock.
 */
#ifndef GUEST_FUSED_DIRECTORY_H
#define GUEST_FUSED_DIRECTORY_H

#include "guest-fused/cache.h"

/* The directory of a node, made when it has none; NULL when memory is out. Counts as a use. */
struct fused_directory *fused_directory_get(struct fused_cache *cache, struct fused_node *node);
void fused_directory_drop(struct fused_cache *cache, struct fused_directory *directory);

enum fused_answer {
	FUSED_UNKNOWN, /* ask the server */
	FUSED_PRESENT,
	FUSED_ABSENT,
};
/* FUSED_PRESENT sets *ret_entry, whose node has good attributes. FUSED_ABSENT may be promised to
 * the kernel until directory->expires. */
enum fused_answer fused_directory_lookup(struct fused_directory *directory, const char *name,
					 size_t length, struct fused_entry **ret_entry);

/* Starts a listing anew at READDIR offset `offset`; `since` is the clock before the server is
 * asked. Only one that starts at 0 can become complete. */
void fused_directory_begin(struct fused_cache *cache, struct fused_directory *directory,
			   uint64_t since, uint64_t offset);
/* Takes the body of a READDIR reply that goes on where the listing stands and was asked for with
 * `size` bytes; `valid_ms` is the directory's own validity, which bounds that of absence.
 * Returns 0, or -EBADMSG or -ENOMEM, after which the listing is empty. May drop directories other
 * than this one to make room, and with them nodes that the kernel does not hold. */
int fused_directory_absorb(struct fused_cache *cache, struct fused_directory *directory,
			   uint64_t since, const uint8_t *body, size_t length, uint32_t size,
			   uint32_t valid_ms);
/* A READDIR reply that is not wanted: gives its lookups back. */
void fused_listing_discard(struct fused_cache *cache, const uint8_t *body, size_t length);
/* What the kernel or the server called the entry by that name; NULL when not known. */
struct fused_node *fused_directory_child(const struct fused_directory *directory, const char *name,
					 size_t length);
/* The list position that follows READDIR offset `offset`, or -1 when it is not here. */
int64_t fused_directory_position(struct fused_directory *directory, uint64_t offset);

/* What a mutation of ours did. The directory may be NULL: then nothing is known of it. */
void fused_directory_add(struct fused_cache *cache, struct fused_directory *directory,
			 const char *name, size_t length, struct fused_node *node,
			 uint64_t expires);
void fused_directory_remove(struct fused_cache *cache, struct fused_directory *directory,
			    const char *name, size_t length);
/* The server says that something happened to a name. */
void fused_directory_name_changed(struct fused_cache *cache, struct fused_directory *directory,
				  const char *name, size_t length);
/* A directory that was just made, and so is empty. */
void fused_directory_made(struct fused_cache *cache, struct fused_node *node, uint32_t valid_ms);
/* Something else changed: nothing here can be relied on but by readers under way. */
void fused_directory_distrust(struct fused_directory *directory);

#endif
