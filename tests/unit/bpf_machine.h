/* SPDX-License-Identifier: MIT */
/*
 * The part of classic BPF that seccomp filters are made of, run without a kernel.
 */
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>

#define BPF_MACHINE_BAD 0xffffffffu

/* What the filter returns, or BPF_MACHINE_BAD: the kernel would not have taken it. */
static inline uint32_t bpf_machine_run(const struct sock_filter *program, size_t n,
				       const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < n; pc++) {
		const struct sock_filter *f = &program[pc];

		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (f->k % 4 || f->k > sizeof(*data) - 4)
				return BPF_MACHINE_BAD;
			memcpy(&a, (const char *)data + f->k, 4);
			break;
		case BPF_ALU | BPF_AND | BPF_K: a &= f->k; break;
		case BPF_JMP | BPF_JA: pc += f->k; break;
		case BPF_JMP | BPF_JEQ | BPF_K: pc += a == f->k ? f->jt : f->jf; break;
		case BPF_JMP | BPF_JGE | BPF_K: pc += a >= f->k ? f->jt : f->jf; break;
		case BPF_JMP | BPF_JSET | BPF_K: pc += a & f->k ? f->jt : f->jf; break;
		case BPF_RET | BPF_K: return f->k;
		default: return BPF_MACHINE_BAD;
		}
	}
	return BPF_MACHINE_BAD;
}
