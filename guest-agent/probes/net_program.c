/* SPDX-License-Identifier: MIT */
/*
 * The BPF programs at the socket hooks and their records: see net_program.h.
 */
#include "guest-agent/probes/net_program.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/bpf_insn.h"

#define FIELD(name) ((int16_t)offsetof(struct net_record, name))
#define ADDR(name)  ((int16_t)offsetof(struct bpf_sock_addr, name))
#define SOCK(name)  ((int16_t)offsetof(struct bpf_sock, name))

/* SOCK_DCCP, which not every libc names. */
#define TYPE_DCCP 6u
/* IPPROTO_MPTCP, likewise. */
#define PROTOCOL_MPTCP 262u

/* The key and the value of the once map on the program's stack. */
#define STACK_KEY   (-(int16_t)sizeof(struct net_once_key))
#define STACK_VALUE (STACK_KEY - 8)
#define KEY(name)   ((int16_t)(STACK_KEY + (int16_t)offsetof(struct net_once_key, name)))

/* clang-format off */
const struct net_hook_spec net_hook_specs[_NET_HOOK_MAX] = {
	[NET_HOOK_CONNECT4] = {"connect4", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT,
			       AF_INET, NET_RING_CONNECT, ADDR(user_ip4), ADDR(user_port), false},
	[NET_HOOK_CONNECT6] = {"connect6", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_CONNECT,
			       AF_INET6, NET_RING_CONNECT, ADDR(user_ip6), ADDR(user_port), false},
	[NET_HOOK_SENDMSG4] = {"sendmsg4", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_UDP4_SENDMSG,
			       AF_INET, NET_RING_SENDMSG, ADDR(user_ip4), ADDR(user_port), true},
	[NET_HOOK_SENDMSG6] = {"sendmsg6", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_UDP6_SENDMSG,
			       AF_INET6, NET_RING_SENDMSG, ADDR(user_ip6), ADDR(user_port), true},
	[NET_HOOK_BIND4] = {"bind4", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_BIND,
			    AF_INET, NET_RING_BIND, ADDR(user_ip4), ADDR(user_port), false},
	[NET_HOOK_BIND6] = {"bind6", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_BIND,
			    AF_INET6, NET_RING_BIND, ADDR(user_ip6), ADDR(user_port), false},
	[NET_HOOK_POST_BIND4] = {"post_bind4", BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET4_POST_BIND,
				 AF_INET, NET_RING_BIND, SOCK(src_ip4), SOCK(src_port), false},
	[NET_HOOK_POST_BIND6] = {"post_bind6", BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET6_POST_BIND,
				 AF_INET6, NET_RING_BIND, SOCK(src_ip6), SOCK(src_port), false},
	[NET_HOOK_SOCKET] = {"sock_create", BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE,
			     0, NET_RING_SOCKET, -1, -1, false},
};
/* clang-format on */

/* A program while it is written. */
struct builder {
	struct bpf_insn *p;
	const struct net_hook_spec *hook;
};

static bool of_addresses(const struct builder *b)
{
	return b->hook->type == BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
}

/* r1 = the context's word at offset; r6 is the context. */
static void load(struct builder *b, int16_t offset)
{
	*b->p++ = bpf_load(BPF_W, BPF_REG_1, BPF_REG_6, offset);
}

/* r1 = word i of the address, 0 where the hook has none. */
static void load_address(struct builder *b, int i)
{
	const int words = b->hook->address < 0 ? 0 : b->hook->family == AF_INET6 ? 4 : 1;

	if (i < words)
		load(b, (int16_t)(b->hook->address + i * 4));
	else
		*b->p++ = bpf_mov_imm(BPF_REG_1, 0);
}

static void load_map(struct builder *b, uint8_t reg, uint8_t kind, int fd, int32_t offset)
{
	*b->p++ = bpf_const_low(reg, kind, fd);
	*b->p++ = bpf_const_high(offset);
}

static void stack_pointer(struct builder *b, uint8_t reg, int32_t offset)
{
	*b->p++ = bpf_mov_reg(reg, BPF_REG_10);
	*b->p++ = bpf_alu_imm(BPF_ADD, reg, offset);
}

static void go_on(struct builder *b)
{
	/* 1: the call goes on. */
	*b->p++ = bpf_mov_imm(BPF_REG_0, 1);
	*b->p++ = bpf_exit_insn();
}

/* TCP and UDP sockets are reported by their connects, datagrams and binds. */
static void skip_tcp_and_udp(struct builder *b)
{
	load(b, SOCK(protocol));
	for (int i = 0; i < 2; i++) {
		*b->p++ = bpf_jump_imm(BPF_JNE, BPF_REG_1, i ? IPPROTO_UDP : IPPROTO_TCP, 2);
		go_on(b);
	}
}

/* The key on the stack, and out if the map has it. */
static void skip_known(struct builder *b, int once_fd)
{
	*b->p++ = bpf_store(BPF_DW, BPF_REG_10, BPF_REG_8, KEY(cookie));
	for (int i = 0; i < 4; i++) {
		load_address(b, i);
		*b->p++ = bpf_store(BPF_W, BPF_REG_10, BPF_REG_1, (int16_t)(KEY(address) + i * 4));
	}
	load(b, b->hook->port);
	*b->p++ = bpf_store(BPF_W, BPF_REG_10, BPF_REG_1, KEY(port));
	*b->p++ = bpf_store_imm(BPF_W, BPF_REG_10, KEY(unused), 0);
	load_map(b, BPF_REG_1, BPF_PSEUDO_MAP_FD, once_fd, 0);
	stack_pointer(b, BPF_REG_2, STACK_KEY);
	*b->p++ = bpf_call(BPF_FUNC_map_lookup_elem);
	*b->p++ = bpf_jump_imm(BPF_JEQ, BPF_REG_0, 0, 2);
	go_on(b);
}

/* The record has its place in the ring; a record that is lost must not be marked as known. */
static void note_known(struct builder *b, int once_fd)
{
	*b->p++ = bpf_store_imm(BPF_DW, BPF_REG_10, STACK_VALUE, 0);
	load_map(b, BPF_REG_1, BPF_PSEUDO_MAP_FD, once_fd, 0);
	stack_pointer(b, BPF_REG_2, STACK_KEY);
	stack_pointer(b, BPF_REG_3, STACK_VALUE);
	*b->p++ = bpf_mov_imm(BPF_REG_4, BPF_ANY);
	*b->p++ = bpf_call(BPF_FUNC_map_update_elem);
}

/* r7 is the record. */
static void fill_record(struct builder *b, enum net_hook hook)
{
	const bool addresses = of_addresses(b);

	*b->p++ = bpf_store(BPF_DW, BPF_REG_7, BPF_REG_8, FIELD(cookie));
	*b->p++ = bpf_call(BPF_FUNC_ktime_get_ns);
	*b->p++ = bpf_store(BPF_DW, BPF_REG_7, BPF_REG_0, FIELD(at_ns));
	*b->p++ = bpf_call(BPF_FUNC_get_current_pid_tgid);
	*b->p++ = bpf_alu_imm(BPF_RSH, BPF_REG_0, 32);
	*b->p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_0, FIELD(pid));
	*b->p++ = bpf_store_imm(BPF_W, BPF_REG_7, FIELD(hook), hook);
	if (b->hook->family)
		*b->p++ = bpf_mov_imm(BPF_REG_1, b->hook->family);
	else
		load(b, SOCK(family));
	*b->p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1, FIELD(family));
	load(b, addresses ? ADDR(type) : SOCK(type));
	*b->p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1, FIELD(type));
	load(b, addresses ? ADDR(protocol) : SOCK(protocol));
	*b->p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1, FIELD(protocol));
	if (b->hook->port >= 0)
		load(b, b->hook->port);
	else
		*b->p++ = bpf_mov_imm(BPF_REG_1, 0);
	*b->p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1, FIELD(port));
	for (int i = 0; i < 4; i++) {
		load_address(b, i);
		*b->p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1, (int16_t)(FIELD(address) + i * 4));
	}
	*b->p++ = bpf_mov_reg(BPF_REG_1, BPF_REG_7);
	*b->p++ = bpf_alu_imm(BPF_ADD, BPF_REG_1, FIELD(comm));
	*b->p++ = bpf_mov_imm(BPF_REG_2, sizeof(((struct net_record *)0)->comm));
	*b->p++ = bpf_call(BPF_FUNC_get_current_comm);
}

size_t net_program(struct bpf_insn insns[static NET_PROGRAM_MAX], enum net_hook hook,
		   const struct net_program_fds *fds)
{
	struct builder b = {.p = insns, .hook = &net_hook_specs[hook]};
	struct bpf_insn *full;

	/* r6 is the context, r7 the record, r8 the socket's cookie. */
	*b.p++ = bpf_mov_reg(BPF_REG_6, BPF_REG_1);
	if (hook == NET_HOOK_SOCKET)
		skip_tcp_and_udp(&b);
	*b.p++ = bpf_mov_reg(BPF_REG_1, BPF_REG_6);
	*b.p++ = bpf_call(BPF_FUNC_get_socket_cookie);
	*b.p++ = bpf_mov_reg(BPF_REG_8, BPF_REG_0);
	if (b.hook->once)
		skip_known(&b, fds->once);
	load_map(&b, BPF_REG_1, BPF_PSEUDO_MAP_FD, fds->ring, 0);
	*b.p++ = bpf_mov_imm(BPF_REG_2, sizeof(struct net_record));
	*b.p++ = bpf_mov_imm(BPF_REG_3, 0);
	*b.p++ = bpf_call(BPF_FUNC_ringbuf_reserve);
	full = b.p++;
	*b.p++ = bpf_mov_reg(BPF_REG_7, BPF_REG_0);
	fill_record(&b, hook);
	if (b.hook->once)
		note_known(&b, fds->once);
	*b.p++ = bpf_mov_reg(BPF_REG_1, BPF_REG_7);
	*b.p++ = bpf_mov_imm(BPF_REG_2, 0);
	*b.p++ = bpf_call(BPF_FUNC_ringbuf_submit);
	go_on(&b);

	*full = bpf_jump_imm(BPF_JEQ, BPF_REG_0, 0, (int16_t)(b.p - full - 1));
	load_map(&b, BPF_REG_1, BPF_PSEUDO_MAP_VALUE, fds->lost,
		 (int32_t)(b.hook->ring * sizeof(uint64_t)));
	*b.p++ = bpf_mov_imm(BPF_REG_2, 1);
	*b.p++ = bpf_atomic_add(BPF_REG_1, BPF_REG_2, 0);
	go_on(&b);
	return (size_t)(b.p - insns);
}

int net_record_parse(const void *data, size_t len, struct net_record *ret)
{
	struct net_record record;

	if (len != sizeof(record))
		return -EBADMSG;
	memcpy(&record, data, sizeof(record));
	if (record.hook >= _NET_HOOK_MAX || (record.family != AF_INET && record.family != AF_INET6))
		return -EBADMSG;
	*ret = record;
	return 0;
}

uint16_t net_record_port(const struct net_record *record)
{
	const uint16_t port = (uint16_t)record->port;

	return net_hook_specs[record->hook].type == BPF_PROG_TYPE_CGROUP_SOCK ? port : ntohs(port);
}

const char *net_protocol_name(uint32_t protocol)
{
	static const struct {
		uint32_t number;
		char name[8];
	} names[] = {
		{IPPROTO_ICMP, "icmp"},	      {IPPROTO_TCP, "tcp"},	 {IPPROTO_UDP, "udp"},
		{IPPROTO_DCCP, "dccp"},	      {IPPROTO_GRE, "gre"},	 {IPPROTO_ESP, "esp"},
		{IPPROTO_AH, "ah"},	      {IPPROTO_ICMPV6, "icmp6"}, {IPPROTO_SCTP, "sctp"},
		{IPPROTO_UDPLITE, "udplite"}, {IPPROTO_RAW, "raw"},	 {PROTOCOL_MPTCP, "mptcp"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].number == protocol)
			return names[i].name;
	return NULL;
}

const char *net_type_name(uint32_t type)
{
	static const char names[][10] = {
		[SOCK_STREAM] = "stream", [SOCK_DGRAM] = "dgram",	  [SOCK_RAW] = "raw",
		[SOCK_RDM] = "rdm",	  [SOCK_SEQPACKET] = "seqpacket", [TYPE_DCCP] = "dccp",
	};

	return type < ARRAY_SIZE(names) && names[type][0] ? names[type] : NULL;
}

int ring_next(const struct ring_view *ring, uint64_t pos, uint64_t end, const void **ret_record,
	      size_t *ret_len, uint64_t *ret_next)
{
	const uint32_t *header;
	uint32_t word;
	size_t len;

	if (pos >= end)
		return 0;
	if (pos % 8 || end - pos > ring->size || end - pos < BPF_RINGBUF_HDR_SZ)
		return -EBADMSG;
	header = (const uint32_t *)(ring->data + (pos & (ring->size - 1)));
	/* The kernel clears the busy bit after it has written the record. */
	word = __atomic_load_n(header, __ATOMIC_ACQUIRE);
	if (word & BPF_RINGBUF_BUSY_BIT)
		return 0;
	len = word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
	if (len > end - pos - BPF_RINGBUF_HDR_SZ)
		return -EBADMSG;
	*ret_record = header + 2;
	*ret_len = len;
	*ret_next = pos + ((len + BPF_RINGBUF_HDR_SZ + 7) & ~(size_t)7);
	return word & BPF_RINGBUF_DISCARD_BIT ? 2 : 1;
}
