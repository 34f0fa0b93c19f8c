#include "guest-init/egress_steering.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "guest-init/egress_routes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/*
 * Theory of operation. The program is a dozen decisions, so it is written in instructions: no
 * compiler for BPF is needed, nor a library to load what one makes. It runs once for a connection,
 * when a SYN looks for its listener:
 *
 *     not TCP, or to an address of the guest's own:	look as usual (SK_PASS, no socket)
 *     IPv4, IPv6:					the socket of map entry 0, 1
 *     no such entry:					refuse (SK_DROP)
 *
 * Addresses in the context are in network order, compared as the words they make in memory.
 */

enum map_entry {
	ENTRY_V4,
	ENTRY_V6,
	ENTRIES,
};

#define LOAD(target, base, offset)                                                                 \
	{                                                                                          \
		.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (target), .src_reg = (base),         \
		.off = (int16_t)(offset)                                                           \
	}
#define LOAD_CONTEXT(target, member) LOAD(target, BPF_REG_6, offsetof(struct bpf_sk_lookup, member))
#define MOVE(target, source)                                                                       \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (target), .src_reg = (source)      \
	}
#define SET(target, value)                                                                         \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (target), .imm = (int32_t)(value)  \
	}
#define SET_WORD(target, value)                                                                    \
	{                                                                                          \
		.code = BPF_ALU | BPF_MOV | BPF_K, .dst_reg = (target), .imm = (int32_t)(value)    \
	}
#define AND(target, value)                                                                         \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = (target), .imm = (value)           \
	}
#define ADD(target, value)                                                                         \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = (target), .imm = (value)           \
	}
/* Jumps over `count` instructions. */
#define SKIP_IF(operation, target, value, count)                                                   \
	{                                                                                          \
		.code = BPF_JMP | (operation) | BPF_K, .dst_reg = (target), .off = (count),        \
		.imm = (value)                                                                     \
	}
#define SKIP_IF_SAME(target, source, count)                                                        \
	{                                                                                          \
		.code = BPF_JMP | BPF_JEQ | BPF_X, .dst_reg = (target), .src_reg = (source),       \
		.off = (count)                                                                     \
	}
#define SKIP_IF_OTHER(target, source, count)                                                       \
	{                                                                                          \
		.code = BPF_JMP | BPF_JNE | BPF_X, .dst_reg = (target), .src_reg = (source),       \
		.off = (count)                                                                     \
	}
#define STORE_WORD(offset, value)                                                                  \
	{                                                                                          \
		.code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = BPF_REG_10, .off = (offset),          \
		.imm = (value)                                                                     \
	}
#define LOAD_MAP(target, fd)                                                                       \
	{ .code = BPF_LD | BPF_DW | BPF_IMM,                                                       \
	  .dst_reg = (target),                                                                     \
	  .src_reg = BPF_PSEUDO_MAP_FD,                                                            \
	  .imm = (fd) },                                                                           \
	{                                                                                          \
		.code = 0                                                                          \
	}
#define CALL(function)                                                                             \
	{                                                                                          \
		.code = BPF_JMP | BPF_CALL, .imm = (function)                                      \
	}
#define RETURN                                                                                     \
	{                                                                                          \
		.code = BPF_JMP | BPF_EXIT                                                         \
	}

static int bpf(int command, union bpf_attr *attributes)
{
	long result = syscall(SYS_bpf, command, attributes, sizeof(*attributes));

	return result < 0 ? -errno : (int)result;
}

static uint64_t pointer(const void *object)
{
	return (uint64_t)(uintptr_t)object;
}

static int make_map(void)
{
	union bpf_attr attributes = {
		.map_type = BPF_MAP_TYPE_SOCKMAP,
		.key_size = sizeof(uint32_t),
		.value_size = sizeof(uint64_t),
		.max_entries = ENTRIES,
	};

	return bpf(BPF_MAP_CREATE, &attributes);
}

/* Replies come from addresses that are on no interface. */
static int set_transparent(int listener_v4, int listener_v6)
{
	const int on = 1;

	if (setsockopt(listener_v4, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof(on)) < 0)
		return -errno;
	if (listener_v6 >= 0 &&
	    setsockopt(listener_v6, IPPROTO_IPV6, IPV6_TRANSPARENT, &on, sizeof(on)) < 0)
		return -errno;
	return 0;
}

static int set_entry(int map, uint32_t entry, int listener)
{
	const uint64_t value = (uint64_t)listener;
	union bpf_attr attributes = {
		.map_fd = (uint32_t)map,
		.key = pointer(&entry),
		.value = pointer(&value),
	};

	return bpf(BPF_MAP_UPDATE_ELEM, &attributes);
}

static int load_program(int map)
{
	uint32_t own_v6[4];

	memcpy(own_v6, egress_own_v6, sizeof(own_v6));
	/* clang-format off */
	const struct bpf_insn program[] = {
		/* 0 */ MOVE(BPF_REG_6, BPF_REG_1),
		/* 1 */ LOAD_CONTEXT(BPF_REG_2, protocol),
		/* 2 */ SKIP_IF(BPF_JNE, BPF_REG_2, IPPROTO_TCP, 40 - 3),
		/* 3 */ LOAD_CONTEXT(BPF_REG_2, family),
		/* 4 */ SKIP_IF(BPF_JEQ, BPF_REG_2, AF_INET6, 13 - 5),
		/* 5 */ SKIP_IF(BPF_JNE, BPF_REG_2, AF_INET, 40 - 6),
		/* IPv4 */
		/* 6 */ LOAD_CONTEXT(BPF_REG_2, local_ip4),
		/* 7 */ SET_WORD(BPF_REG_3, htonl(EGRESS_OWN_V4)),
		/* 8 */ SKIP_IF_SAME(BPF_REG_2, BPF_REG_3, 40 - 9),
		/* 9 */ AND(BPF_REG_2, 0xff),
		/* 10 */ SKIP_IF(BPF_JEQ, BPF_REG_2, 127, 40 - 11),
		/* 11 */ STORE_WORD(-4, ENTRY_V4),
		/* 12 */ SKIP_IF(BPF_JA, 0, 0, 27 - 13),
		/* IPv6: ::1, then our own, each word by word */
		/* 13 */ LOAD_CONTEXT(BPF_REG_2, local_ip6[0]),
		/* 14 */ LOAD_CONTEXT(BPF_REG_3, local_ip6[1]),
		/* 15 */ LOAD_CONTEXT(BPF_REG_4, local_ip6[2]),
		/* 16 */ LOAD_CONTEXT(BPF_REG_5, local_ip6[3]),
		/* 17 */ STORE_WORD(-4, ENTRY_V6),
		/* 18 */ SET_WORD(BPF_REG_7, own_v6[3]),
		/* 19 */ SKIP_IF_SAME(BPF_REG_5, BPF_REG_7, 22 - 20),
		/* 20 */ SET_WORD(BPF_REG_7, htonl(1)),
		/* 21 */ SKIP_IF_OTHER(BPF_REG_5, BPF_REG_7, 27 - 22),
		/* 22 */ SKIP_IF(BPF_JNE, BPF_REG_4, 0, 27 - 23),
		/* 23 */ SKIP_IF(BPF_JNE, BPF_REG_3, 0, 27 - 24),
		/* 24 */ SKIP_IF(BPF_JEQ, BPF_REG_2, 0, 40 - 25),
		/* 25 */ SET_WORD(BPF_REG_7, own_v6[0]),
		/* 26 */ SKIP_IF_SAME(BPF_REG_2, BPF_REG_7, 40 - 27),
		/* to the listener */
		/* 27, 28 */ LOAD_MAP(BPF_REG_1, map),
		/* 29 */ MOVE(BPF_REG_2, BPF_REG_10),
		/* 30 */ ADD(BPF_REG_2, -4),
		/* 31 */ CALL(BPF_FUNC_map_lookup_elem),
		/* 32 */ SKIP_IF(BPF_JEQ, BPF_REG_0, 0, 42 - 33),
		/* 33 */ MOVE(BPF_REG_7, BPF_REG_0),
		/* 34 */ MOVE(BPF_REG_1, BPF_REG_6),
		/* 35 */ MOVE(BPF_REG_2, BPF_REG_0),
		/* 36 */ SET(BPF_REG_3, 0),
		/* 37 */ CALL(BPF_FUNC_sk_assign),
		/* 38 */ MOVE(BPF_REG_1, BPF_REG_7),
		/* 39 */ CALL(BPF_FUNC_sk_release),
		/* 40 */ SET(BPF_REG_0, SK_PASS),
		/* 41 */ RETURN,
		/* 42 */ SET(BPF_REG_0, SK_DROP),
		/* 43 */ RETURN,
	};
	/* clang-format on */
	union bpf_attr attributes = {
		.prog_type = BPF_PROG_TYPE_SK_LOOKUP,
		.insn_cnt = ARRAY_LENGTH(program),
		.insns = pointer(program),
		.license = pointer(""),
		.expected_attach_type = BPF_SK_LOOKUP,
	};

	return bpf(BPF_PROG_LOAD, &attributes);
}

/* To the network that `socket` is in. */
static int attach(int program, int socket)
{
	cleanup_fd int network = ioctl(socket, SIOCGSKNS);
	union bpf_attr attributes = {
		.link_create.prog_fd = (uint32_t)program,
		.link_create.target_fd = (uint32_t)network,
		.link_create.attach_type = BPF_SK_LOOKUP,
	};

	return network < 0 ? -errno : bpf(BPF_LINK_CREATE, &attributes);
}

int egress_steering_start(int listener_v4, int listener_v6, struct failure *failure)
{
	cleanup_fd int map = make_map();
	cleanup_fd int program = -1;
	int error;
	int link;

	if (map < 0)
		return failure_set(failure, "network", -map, "cannot make a map of sockets (BPF)");
	error = set_transparent(listener_v4, listener_v6);
	if (error == 0)
		error = set_entry(map, ENTRY_V4, listener_v4);
	if (error == 0 && listener_v6 >= 0)
		error = set_entry(map, ENTRY_V6, listener_v6);
	if (error < 0)
		return failure_set(failure, "network", -error, "cannot steer to the listeners");
	program = load_program(map);
	if (program < 0)
		return failure_set(failure, "network", -program,
				   "cannot load the program that steers connections (BPF)");
	link = attach(program, listener_v4);
	if (link < 0)
		return failure_set(failure, "network", -link,
				   "cannot attach the program that steers connections");
	return link;
}
