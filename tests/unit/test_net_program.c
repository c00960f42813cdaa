/* SPDX-License-Identifier: MIT */
/* The ring buffer's records, and the shape of the BPF program; the kernel judges it in the VM. */
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/bind_watch.h"
#include "tests/unit/unit.h"

#define RING 256u

static _Alignas(8) uint8_t memory[2 * RING];
static const struct ring_view ring = {memory, RING};

static void put(uint64_t pos, uint32_t header)
{
	memcpy(memory + (pos & (RING - 1)), &header, sizeof(header));
}

UNIT_TEST(test_ring)
{
	const void *record;
	uint64_t next;
	size_t len;

	put(0, 56);
	put(64, 20 | BPF_RINGBUF_DISCARD_BIT);
	put(96, 8 | BPF_RINGBUF_BUSY_BIT);
	ck_assert_int_eq(ring_next(&ring, 0, 0, &record, &len, &next), 0);
	ck_assert_int_eq(ring_next(&ring, 0, 112, &record, &len, &next), 1);
	ck_assert_ptr_eq(record, memory + 8);
	ck_assert_uint_eq(len, 56);
	ck_assert_uint_eq(next, 64);
	ck_assert_int_eq(ring_next(&ring, 64, 112, &record, &len, &next), 2);
	ck_assert_uint_eq(len, 20);
	ck_assert_uint_eq(next, 96);
	ck_assert_int_eq(ring_next(&ring, 96, 112, &record, &len, &next), 0);
	/* Around its end, far along. */
	put(RING * 1000 - 32, 48);
	ck_assert_int_eq(ring_next(&ring, RING * 1000 - 32, RING * 1000 + 24, &record, &len, &next),
			 1);
	ck_assert_ptr_eq(record, memory + RING - 24);
	ck_assert_uint_eq(next, RING * 1000 + 24);
}

UNIT_TEST(test_ring_makes_no_sense)
{
	const void *record = NULL;
	uint64_t next = 1;
	size_t len = 1;

	put(0, 56);
	ck_assert_int_eq(ring_next(&ring, 4, 64, &record, &len, &next), -EBADMSG);
	ck_assert_int_eq(ring_next(&ring, 0, 7, &record, &len, &next), -EBADMSG);
	ck_assert_int_eq(ring_next(&ring, 0, 63, &record, &len, &next), -EBADMSG);
	ck_assert_int_eq(ring_next(&ring, 0, 64, &record, &len, &next), 1);
	ck_assert_int_eq(ring_next(&ring, 0, RING, &record, &len, &next), 1);
	ck_assert_int_eq(ring_next(&ring, 0, RING + 8, &record, &len, &next), -EBADMSG);
	put(0, 0x3fffffff);
	ck_assert_int_eq(ring_next(&ring, 0, RING, &record, &len, &next), -EBADMSG);
}

UNIT_TEST(test_record)
{
	struct net_record in = {.family = AF_INET6, .pid = 7}, out = {.pid = 1};

	ck_assert_int_eq(net_record_parse(&in, sizeof(in) - 1, &out), -EBADMSG);
	ck_assert_int_eq(net_record_parse(&in, sizeof(in) + 1, &out), -EBADMSG);
	ck_assert_int_eq(net_record_parse(&in, 0, &out), -EBADMSG);
	ck_assert_uint_eq(out.pid, 1);
	ck_assert_int_eq(net_record_parse(&in, sizeof(in), &out), 0);
	ck_assert_uint_eq(out.pid, 7);
	in.family = AF_UNIX;
	ck_assert_int_eq(net_record_parse(&in, sizeof(in), &out), -EBADMSG);
}

UNIT_TEST(test_hook_out_of_range)
{
	struct net_record in = {.family = AF_INET, .hook = _NET_HOOK_MAX}, out;

	ck_assert_int_eq(net_record_parse(&in, sizeof(in), &out), -EBADMSG);
	in.hook--;
	ck_assert_int_eq(net_record_parse(&in, sizeof(in), &out), 0);
}

/* Every way through a program: it ends, within bounds, and lets the call go on. */
UNIT_TEST(test_program)
{
	const struct net_program_fds fds = {.ring = 40, .lost = 41, .once = 42};

	for (unsigned hook = 0; hook < _NET_HOOK_MAX; hook++) {
		struct bpf_insn insns[NET_PROGRAM_MAX];
		const size_t n = net_program(insns, (enum net_hook)hook, &fds);
		unsigned exits = 0;

		ck_assert_uint_le(n, NET_PROGRAM_MAX);
		for (size_t i = 0; i < n; i++) {
			if (insns[i].code == (BPF_JMP | BPF_EXIT)) {
				ck_assert_int_eq(insns[i - 1].code, BPF_ALU64 | BPF_MOV | BPF_K);
				ck_assert_int_eq(insns[i - 1].dst_reg, BPF_REG_0);
				ck_assert_int_eq(insns[i - 1].imm, 1);
				exits++;
			} else if (insns[i].code == (BPF_JMP | BPF_JEQ | BPF_K) ||
				   insns[i].code == (BPF_JMP | BPF_JNE | BPF_K)) {
				/* To what follows one of the ways out. */
				ck_assert_int_eq(insns[i + (size_t)insns[i].off].code,
						 BPF_JMP | BPF_EXIT);
			}
		}
		ck_assert_uint_eq(exits, hook == NET_HOOK_SOCKET     ? 4
					 : net_hook_specs[hook].once ? 3
								     : 2);
		ck_assert_int_eq(insns[n - 1].code, BPF_JMP | BPF_EXIT);
	}
}

UNIT_TEST(test_ports)
{
	const struct net_record hook = {.hook = NET_HOOK_BIND4, .port = 0x5000};
	const struct net_record sock = {.hook = NET_HOOK_POST_BIND4, .port = 80};

	ck_assert_uint_eq(net_record_port(&hook), 80);
	ck_assert_uint_eq(net_record_port(&sock), 80);
}

UNIT_TEST(test_names)
{
	ck_assert_str_eq(net_protocol_name(17), "udp");
	ck_assert_str_eq(net_protocol_name(136), "udplite");
	ck_assert_str_eq(net_protocol_name(132), "sctp");
	ck_assert_ptr_null(net_protocol_name(253));
	ck_assert_str_eq(net_type_name(SOCK_RAW), "raw");
	ck_assert_str_eq(net_type_name(6), "dccp");
	ck_assert_ptr_null(net_type_name(0));
	ck_assert_ptr_null(net_type_name(7));
}

static struct net_record bind_of(uint64_t cookie, uint64_t at_ns)
{
	return (struct net_record){.hook = NET_HOOK_BIND4, .cookie = cookie, .at_ns = at_ns};
}

UNIT_TEST(test_bind_watch)
{
	struct bind_watch w = {0};
	struct net_record r;

	for (unsigned i = 0; i < BIND_WATCH_MAX; i++) {
		r = bind_of(i, 1000 + i);
		ck_assert(bind_watch_add(&w, &r));
	}
	r = bind_of(99, 0);
	ck_assert(!bind_watch_add(&w, &r));
	bind_watch_bound(&w, 0);
	bind_watch_bound(&w, 2);
	bind_watch_bound(&w, 77); /* nobody's */
	ck_assert_uint_eq(w.n, BIND_WATCH_MAX - 2);
	ck_assert(!bind_watch_refused(&w, 1000 + BIND_WATCH_WAIT_NS, &r));
	ck_assert(bind_watch_refused(&w, 1001 + BIND_WATCH_WAIT_NS, &r));
	ck_assert_uint_eq(r.cookie, 1);
	ck_assert(!bind_watch_refused(&w, 1002 + BIND_WATCH_WAIT_NS, &r));
	ck_assert(bind_watch_refused(&w, 1003 + BIND_WATCH_WAIT_NS, &r));
	ck_assert_uint_eq(r.cookie, 3);
}
