/* SPDX-License-Identifier: MIT */
/* The ring buffer's records, and the shape of the BPF program; the kernel judges it in the VM. */
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/connect_program.h"
#include "tests/unit/unit.h"

#define RING 256u

static _Alignas(8) uint8_t memory[2 * RING];
static const struct ring_view ring = {memory, RING};

static void put(uint64_t pos, uint32_t header)
{
	memcpy(memory + (pos & (RING - 1)), &header, sizeof(header));
}

START_TEST(test_ring)
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
END_TEST

START_TEST(test_ring_makes_no_sense)
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
END_TEST

START_TEST(test_record)
{
	struct connect_record in = {.family = AF_INET6, .pid = 7}, out = {.pid = 1};

	ck_assert_int_eq(connect_record_parse(&in, sizeof(in) - 1, &out), -EBADMSG);
	ck_assert_int_eq(connect_record_parse(&in, sizeof(in) + 1, &out), -EBADMSG);
	ck_assert_int_eq(connect_record_parse(&in, 0, &out), -EBADMSG);
	ck_assert_uint_eq(out.pid, 1);
	ck_assert_int_eq(connect_record_parse(&in, sizeof(in), &out), 0);
	ck_assert_uint_eq(out.pid, 7);
	in.family = AF_UNIX;
	ck_assert_int_eq(connect_record_parse(&in, sizeof(in), &out), -EBADMSG);
}
END_TEST

START_TEST(test_program)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct bpf_insn insns[CONNECT_PROGRAM_MAX];
		size_t n = connect_program(insns, v6 ? AF_INET6 : AF_INET, 40, 41);
		unsigned exits = 0, jumps = 0, addresses = 0;

		ck_assert_uint_le(n, CONNECT_PROGRAM_MAX);
		for (size_t i = 0; i < n; i++) {
			if (insns[i].code == (BPF_JMP | BPF_EXIT)) {
				/* Each way out lets the call go on. */
				ck_assert_int_eq(insns[i - 1].code, BPF_ALU64 | BPF_MOV | BPF_K);
				ck_assert_int_eq(insns[i - 1].dst_reg, BPF_REG_0);
				ck_assert_int_eq(insns[i - 1].imm, 1);
				exits++;
			}
			if (insns[i].code == (BPF_JMP | BPF_JEQ | BPF_K)) {
				/* A full ring: to what is behind the first way out. */
				ck_assert_int_eq(insns[i + (size_t)insns[i].off].code,
						 BPF_JMP | BPF_EXIT);
				jumps++;
			}
			addresses += insns[i].code == (BPF_LDX | BPF_W | BPF_MEM);
		}
		ck_assert_uint_eq(exits, 2);
		ck_assert_uint_eq(jumps, 1);
		ck_assert_uint_eq(addresses, v6 ? 5 : 2);
		ck_assert_int_eq(insns[n - 1].code, BPF_JMP | BPF_EXIT);
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("connect_program");

	tcase_add_test(tc, test_ring);
	tcase_add_test(tc, test_ring_makes_no_sense);
	tcase_add_test(tc, test_record);
	tcase_add_test(tc, test_program);
	return unit_run("connect_program", &tc, 1);
}
