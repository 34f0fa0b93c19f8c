/*
 * One request of a virtio block driver (virtio 1.2, section 5.2.6), read from its chain and judged.
 *
 * A chain is a header of 16 bytes (u32 type, u32 reserved, u64 sector of 512 bytes), data, and one
 * last writable byte for the status, cut into descriptors as the driver likes. Header and segments
 * are copied once; all that remains in guest memory is data.
 *
 * Limits: BLOCK_BYTES_MAX of data; BLOCK_SEGMENTS_MAX segments of at most BLOCK_SEGMENT_SECTORS_MAX
 * sectors in a discard or write-zeroes request.
 */
#ifndef VMM_BLOCK_REQUEST_H
#define VMM_BLOCK_REQUEST_H

#include "vmm/virtqueue.h"

#define BLOCK_SECTOR 512u
#define BLOCK_PART_MAX (1024u * 1024)		   /* bytes: SIZE_MAX */
#define BLOCK_PARTS_MAX (VIRTQUEUE_CHAIN_MAX - 2u) /* beside header and status: SEG_MAX */
#define BLOCK_BYTES_MAX ((uint64_t)BLOCK_PARTS_MAX * BLOCK_PART_MAX)
#define BLOCK_SEGMENTS_MAX 16u
#define BLOCK_SEGMENT_SECTORS_MAX (UINT32_C(1) << 21) /* 1 GiB */
#define BLOCK_SERIAL_LENGTH 20

enum block_request_type {
	BLOCK_READ = 0,
	BLOCK_WRITE = 1,
	BLOCK_FLUSH = 4,
	BLOCK_GET_ID = 8,
	BLOCK_DISCARD = 11,
	BLOCK_WRITE_ZEROES = 13,
};

enum block_status {
	BLOCK_OK = 0,
	BLOCK_IO_ERROR = 1,
	BLOCK_UNSUPPORTED = 2,
};

/* In bytes, within the disk, not empty. */
struct block_segment {
	uint64_t offset;
	uint64_t length;
	bool unmap; /* the space may be given up */
};

struct block_request {
	enum block_request_type type;
	uint16_t head;
	uint8_t *status;			 /* guest memory */
	struct iovec parts[VIRTQUEUE_CHAIN_MAX]; /* data, guest memory */
	size_t part_count;
	/* Reads and writes: one; flush and identity: none. */
	struct block_segment segments[BLOCK_SEGMENTS_MAX];
	size_t segment_count;
	uint64_t length; /* bytes of data */
};

struct block_limits {
	uint64_t capacity; /* bytes, whole sectors */
	bool read_only;
};

/*
 * Returns BLOCK_OK for a request to be carried out; another status that answers it at once, where
 * `head` and `status` are set alone; or -EPROTO with static text for a chain that has no header or
 * no place for a status.
 */
int block_request_parse(const struct block_limits *limits, const struct virtqueue_chain *chain,
			struct block_request *ret_request, const char **ret_what);

#endif
