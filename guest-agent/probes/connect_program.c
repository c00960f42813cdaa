/* SPDX-License-Identifier: MIT */
/*
 * The BPF program at the connect hooks and its records: see connect_program.h.
 */
#include "guest-agent/probes/connect_program.h"

#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/bpf_insn.h"

#define FIELD(name)   ((int16_t)offsetof(struct connect_record, name))
#define CONTEXT(name) ((int16_t)offsetof(struct bpf_sock_addr, name))

size_t connect_program(struct bpf_insn insns[static CONNECT_PROGRAM_MAX], int family, int ring_fd,
		       int lost_fd)
{
	const int words = family == AF_INET6 ? 4 : 1;
	const int16_t source = family == AF_INET6 ? CONTEXT(user_ip6) : CONTEXT(user_ip4);
	struct bpf_insn *p = insns, *full;

	/* r6 is the context, r7 the record. */
	*p++ = bpf_mov_reg(BPF_REG_6, BPF_REG_1);
	*p++ = bpf_const_low(BPF_REG_1, BPF_PSEUDO_MAP_FD, ring_fd);
	*p++ = bpf_const_high(0);
	*p++ = bpf_mov_imm(BPF_REG_2, sizeof(struct connect_record));
	*p++ = bpf_mov_imm(BPF_REG_3, 0);
	*p++ = bpf_call(BPF_FUNC_ringbuf_reserve);
	full = p++;
	*p++ = bpf_mov_reg(BPF_REG_7, BPF_REG_0);

	*p++ = bpf_call(BPF_FUNC_ktime_get_ns);
	*p++ = bpf_store(BPF_DW, BPF_REG_7, BPF_REG_0, FIELD(at_ns));
	*p++ = bpf_call(BPF_FUNC_get_current_pid_tgid);
	*p++ = bpf_alu_imm(BPF_RSH, BPF_REG_0, 32);
	*p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_0, FIELD(pid));
	*p++ = bpf_store_imm(BPF_W, BPF_REG_7, FIELD(family), family);
	*p++ = bpf_load(BPF_W, BPF_REG_1, BPF_REG_6, CONTEXT(user_port));
	*p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1, FIELD(port));
	for (int i = 0; i < 4; i++) {
		const int16_t at = (int16_t)(i * 4);

		if (i < words) {
			*p++ = bpf_load(BPF_W, BPF_REG_1, BPF_REG_6, (int16_t)(source + at));
			*p++ = bpf_store(BPF_W, BPF_REG_7, BPF_REG_1,
					 (int16_t)(FIELD(address) + at));
		} else {
			*p++ = bpf_store_imm(BPF_W, BPF_REG_7, (int16_t)(FIELD(address) + at), 0);
		}
	}
	*p++ = bpf_store_imm(BPF_W, BPF_REG_7, FIELD(unused), 0);
	*p++ = bpf_mov_reg(BPF_REG_1, BPF_REG_7);
	*p++ = bpf_alu_imm(BPF_ADD, BPF_REG_1, FIELD(comm));
	*p++ = bpf_mov_imm(BPF_REG_2, sizeof(((struct connect_record *)0)->comm));
	*p++ = bpf_call(BPF_FUNC_get_current_comm);
	*p++ = bpf_mov_reg(BPF_REG_1, BPF_REG_7);
	*p++ = bpf_mov_imm(BPF_REG_2, 0);
	*p++ = bpf_call(BPF_FUNC_ringbuf_submit);
	/* 1: the connect goes on. */
	*p++ = bpf_mov_imm(BPF_REG_0, 1);
	*p++ = bpf_exit_insn();

	*full = bpf_jump_imm(BPF_JEQ, BPF_REG_0, 0, (int16_t)(p - full - 1));
	*p++ = bpf_const_low(BPF_REG_1, BPF_PSEUDO_MAP_VALUE, lost_fd);
	*p++ = bpf_const_high(0);
	*p++ = bpf_mov_imm(BPF_REG_2, 1);
	*p++ = bpf_atomic_add(BPF_REG_1, BPF_REG_2, 0);
	*p++ = bpf_mov_imm(BPF_REG_0, 1);
	*p++ = bpf_exit_insn();
	return (size_t)(p - insns);
}

int connect_record_parse(const void *data, size_t len, struct connect_record *ret)
{
	struct connect_record record;

	if (len != sizeof(record))
		return -EBADMSG;
	memcpy(&record, data, sizeof(record));
	if (record.family != AF_INET && record.family != AF_INET6)
		return -EBADMSG;
	*ret = record;
	return 0;
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
