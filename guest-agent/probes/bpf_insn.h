/* SPDX-License-Identifier: MIT */
/*
 * BPF instructions, one function a form, so that a program reads as a list. The encoding is
 * linux/bpf.h's and linux/bpf_common.h's. Pure.
 */
#pragma once

#include <linux/bpf.h>
#include <stdint.h>

/* Register numbers are fields of four bits, and gcc cannot see that an argument fits. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"

static inline struct bpf_insn bpf_mov_reg(uint8_t dst, uint8_t src)
{
	return (struct bpf_insn){
		.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = dst, .src_reg = src};
}

static inline struct bpf_insn bpf_mov_imm(uint8_t dst, int32_t imm)
{
	return (struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = dst, .imm = imm};
}

/* op: BPF_ADD, BPF_RSH, ... */
static inline struct bpf_insn bpf_alu_imm(uint8_t op, uint8_t dst, int32_t imm)
{
	return (struct bpf_insn){
		.code = (uint8_t)(BPF_ALU64 | op | BPF_K), .dst_reg = dst, .imm = imm};
}

/* dst = *(size *)(src + off); size: BPF_W, BPF_DW. */
static inline struct bpf_insn bpf_load(uint8_t size, uint8_t dst, uint8_t src, int16_t off)
{
	return (struct bpf_insn){.code = (uint8_t)(BPF_LDX | size | BPF_MEM),
				 .dst_reg = dst,
				 .src_reg = src,
				 .off = off};
}

/* *(size *)(dst + off) = src */
static inline struct bpf_insn bpf_store(uint8_t size, uint8_t dst, uint8_t src, int16_t off)
{
	return (struct bpf_insn){.code = (uint8_t)(BPF_STX | size | BPF_MEM),
				 .dst_reg = dst,
				 .src_reg = src,
				 .off = off};
}

/* *(size *)(dst + off) = imm */
static inline struct bpf_insn bpf_store_imm(uint8_t size, uint8_t dst, int16_t off, int32_t imm)
{
	return (struct bpf_insn){
		.code = (uint8_t)(BPF_ST | size | BPF_MEM), .dst_reg = dst, .off = off, .imm = imm};
}

/* *(uint64_t *)(dst + off) += src, in one piece */
static inline struct bpf_insn bpf_atomic_add(uint8_t dst, uint8_t src, int16_t off)
{
	return (struct bpf_insn){.code = BPF_STX | BPF_DW | BPF_ATOMIC,
				 .dst_reg = dst,
				 .src_reg = src,
				 .off = off,
				 .imm = BPF_ADD};
}

/* op: BPF_JEQ, BPF_JNE, ...; off: instructions to skip. */
static inline struct bpf_insn bpf_jump_imm(uint8_t op, uint8_t dst, int32_t imm, int16_t off)
{
	return (struct bpf_insn){
		.code = (uint8_t)(BPF_JMP | op | BPF_K), .dst_reg = dst, .imm = imm, .off = off};
}

static inline struct bpf_insn bpf_call(int32_t helper)
{
	return (struct bpf_insn){.code = BPF_JMP | BPF_CALL, .imm = helper};
}

static inline struct bpf_insn bpf_exit_insn(void)
{
	return (struct bpf_insn){.code = BPF_JMP | BPF_EXIT};
}

/*
 * The two halves of a 64-bit constant. src: BPF_PSEUDO_MAP_FD (low is a descriptor) or
 * BPF_PSEUDO_MAP_VALUE (low is a descriptor, high an offset into the map's value).
 */
static inline struct bpf_insn bpf_const_low(uint8_t dst, uint8_t src, int32_t low)
{
	return (struct bpf_insn){
		.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = dst, .src_reg = src, .imm = low};
}

static inline struct bpf_insn bpf_const_high(int32_t high)
{
	return (struct bpf_insn){.imm = high};
}

#pragma GCC diagnostic pop
