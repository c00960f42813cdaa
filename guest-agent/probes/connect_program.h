/* SPDX-License-Identifier: MIT */
/*
 * The BPF program that sees every connect(2) of an inet or inet6 socket, and the record it leaves
 * in the ring buffer. Builder and parser are pure: no system call, no allocation.
 */
#pragma once

#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

/* As the program writes it. */
struct connect_record {
	uint64_t at_ns;	     /* CLOCK_MONOTONIC */
	uint32_t pid;	     /* of the first pid namespace */
	uint32_t family;     /* AF_INET, AF_INET6 */
	uint32_t port;	     /* network byte order, in the low 16 bits of the machine's */
	uint32_t address[4]; /* network byte order; AF_INET: the first only */
	char comm[16];
	uint32_t unused;
};
_Static_assert(sizeof(struct connect_record) == 56, "no padding");

#define CONNECT_PROGRAM_MAX 64u /* instructions */

/*
 * The program for the connect hook of family: it writes a record to the ring buffer ring_fd and
 * lets the call go on; when the ring is full it adds 1 to the first u64 of the array lost_fd.
 * Returns the number of instructions.
 */
size_t connect_program(struct bpf_insn insns[static CONNECT_PROGRAM_MAX], int family, int ring_fd,
		       int lost_fd);

/* A record of the ring -> *ret. 0, or -EBADMSG when its length or family is not ours. */
int connect_record_parse(const void *data, size_t len, struct connect_record *ret);

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
