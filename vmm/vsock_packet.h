/*
 * The virtio-vsock packet header: 44 bytes, little-endian (virtio 1.2, section 5.10.6).
 *
 *     u64 src_cid, dst_cid   u32 src_port, dst_port, len   u16 type, op
 *     u32 flags, buf_alloc, fwd_cnt
 */
#ifndef VMM_VSOCK_PACKET_H
#define VMM_VSOCK_PACKET_H

#include <stddef.h>
#include <stdint.h>

#define VSOCK_HEADER_LENGTH 44
#define VSOCK_CID_HOST 2
#define VSOCK_TYPE_STREAM 1

/* Largest payload that Linux sends in one packet (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE). */
#define VSOCK_PAYLOAD_MAX 65536

enum vsock_operation {
	VSOCK_OP_INVALID = 0,
	VSOCK_OP_REQUEST = 1,
	VSOCK_OP_RESPONSE = 2,
	VSOCK_OP_RST = 3,
	VSOCK_OP_SHUTDOWN = 4,
	VSOCK_OP_RW = 5,
	VSOCK_OP_CREDIT_UPDATE = 6,
	VSOCK_OP_CREDIT_REQUEST = 7,
};

#define VSOCK_SHUTDOWN_RECEIVE 1 /* the sender will receive no more */
#define VSOCK_SHUTDOWN_SEND 2	 /* the sender will send no more */
#define VSOCK_SHUTDOWN_BOTH 3

struct vsock_header {
	uint64_t source_cid;
	uint64_t target_cid;
	uint32_t source_port;
	uint32_t target_port;
	uint32_t length; /* bytes of payload */
	uint16_t type;
	uint16_t operation; /* any number when it came from the guest */
	uint32_t flags;
	uint32_t buffer_allocation; /* the sender's receive buffer for this stream, bytes */
	uint32_t forward_count;	    /* bytes of this stream the sender has consumed, modulo 2^32 */
};

void vsock_header_encode(const struct vsock_header *header, uint8_t output[VSOCK_HEADER_LENGTH]);
void vsock_header_decode(const uint8_t input[VSOCK_HEADER_LENGTH], struct vsock_header *ret_header);

#endif
