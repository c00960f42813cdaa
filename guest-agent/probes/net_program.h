/* SPDX-License-Identifier: MIT */
/*
 * The BPF programs at the root cgroup's socket hooks, and the record they leave in a ring buffer:
 * one table of hooks, one builder for all of them. Builder and parsers are pure: no system call, no
 * allocation.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The hooks, in the order in which they are attached. */
enum net_hook {
	NET_HOOK_CONNECT4,
	NET_HOOK_CONNECT6,
	NET_HOOK_SENDMSG4,
	NET_HOOK_SENDMSG6,
	NET_HOOK_BIND4,
	NET_HOOK_BIND6,
	NET_HOOK_POST_BIND4,
	NET_HOOK_POST_BIND6,
	NET_HOOK_SOCKET,
	_NET_HOOK_MAX,
};

/* Each kind of record has a ring of its own, so that a flood of one does not lose another. */
enum net_ring {
	NET_RING_CONNECT,
	NET_RING_SENDMSG,
	NET_RING_BIND, /* bind and post_bind: their order matters */
	NET_RING_SOCKET,
	_NET_RING_MAX,
};

struct net_hook_spec {
	char name[BPF_OBJ_NAME_LEN];
	enum bpf_prog_type type;
	enum bpf_attach_type attach;
	int family; /* 0: the socket's own */
	enum net_ring ring;
	int16_t address, port; /* fields of the context; -1: none */
	bool once;	       /* only the first time for each socket, address and port */
};

extern const struct net_hook_spec net_hook_specs[_NET_HOOK_MAX];

/* As the programs write it. Addresses are in network byte order. */
struct net_record {
	uint64_t at_ns;	 /* CLOCK_MONOTONIC */
	uint64_t cookie; /* of the socket */
	uint32_t pid;	 /* of the first pid namespace */
	uint32_t hook;
	uint32_t family;
	uint32_t type; /* SOCK_STREAM, ... */
	uint32_t protocol;
	uint32_t port; /* host byte order with post_bind, else network byte order in the low 16 bits
			*/
	uint32_t address[4]; /* AF_INET: the first only */
	char comm[16];
};
_Static_assert(sizeof(struct net_record) == 72, "no padding");

/* The key of the map that shows whether a datagram's address is new for its socket. */
struct net_once_key {
	uint64_t cookie;
	uint32_t address[4];
	uint32_t port;
	uint32_t unused;
};
_Static_assert(sizeof(struct net_once_key) == 32, "no padding");

#define NET_PROGRAM_MAX 96u /* instructions */

struct net_program_fds {
	int ring;
	int lost; /* an array of u64, one for each ring */
	int once; /* an LRU hash of struct net_once_key */
};

/*
 * The program of a hook: it writes a record to the ring and lets the call go on; when the ring is
 * full it adds 1 to the ring's number in the array of losses. Returns the number of instructions.
 */
size_t net_program(struct bpf_insn insns[static NET_PROGRAM_MAX], enum net_hook hook,
		   const struct net_program_fds *fds);

/* A record of the ring -> *ret. 0, or -EBADMSG when its length, hook or family is not ours. */
int net_record_parse(const void *data, size_t len, struct net_record *ret);

/* In host byte order. */
uint16_t net_record_port(const struct net_record *record);

/* Static; NULL for a number without a name. */
const char *net_protocol_name(uint32_t protocol);
const char *net_type_name(uint32_t type);

/* A ring buffer as it is mapped: linux/bpf.h and kernel/bpf/ringbuf.c. */
struct ring_view {
	const uint8_t *data; /* mapped twice in a row, so a record never wraps */
	size_t size;	     /* a power of two */
};

/*
 * The record at position pos, of a ring written up to position end. Returns 1 with the record, its
 * length and the next position; 2 the same for a record that was discarded; 0 if there is none yet;
 * -EBADMSG if the ring makes no sense.
 */
int ring_next(const struct ring_view *ring, uint64_t pos, uint64_t end, const void **ret_record,
	      size_t *ret_len, uint64_t *ret_next);
