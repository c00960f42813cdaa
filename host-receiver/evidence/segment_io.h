/* SPDX-License-Identifier: MIT */
/*
 * Bytes of one segment file: written whole, written again, compared, moved aside. No state; any
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define EVIDENCE_SEGMENT_MODE 0640
#define EVIDENCE_TORN_SUFFIX  ".torn"

/* All of the lines from offset on, however many calls it takes. n is at most IOV_MAX. */
int segment_write(int fd, const struct iovec *lines, size_t n, uint64_t offset);

/* 0: the file holds exactly these lines from offset on; -EBADMSG: it does not. */
int segment_compare(int fd, const struct iovec *lines, size_t n, uint64_t offset);

/*
 * After a sync that failed the kernel takes the pages for clean, and a next sync would succeed
 * without a write: only writing them again makes it report anything.
 */
int segment_write_again(int fd, uint64_t from, uint64_t to);

/*
 * Copy what stands after end to a file of its own, evidence-<number>.<end>.torn, and sync it; only
 * then cut it off here. 0 or a negative errno.
 */
int segment_move_aside(int dir_fd, int fd, uint64_t number, uint64_t end);

/* CLOCK_REALTIME of the file's birth; now, where the file system does not know. */
uint64_t segment_birth_ms(int fd);

/* Why a segment that is open is not what its writer left; NULL: it is. Static. */
const char *segment_find_loss(int dir_fd, int fd, uint64_t number, uint64_t size,
			      bool may_be_longer);
