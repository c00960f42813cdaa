/* SPDX-License-Identifier: MIT */
/*
 * One segment file: create it, write its bytes, write them again, compare them, move the end to
 * another file. No state; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "host-receiver/evidence/segment.h"

#define EVIDENCE_SEGMENT_MODE 0640
#define EVIDENCE_TORN_SUFFIX  ".torn"

/*
 * Create the segment with this number. Files of others may have the next names: they are skipped,
 * and *number is moved on. Returns a descriptor or a negative errno.
 */
int segment_create(int dir_fd, uint64_t *number, char name[static SEGMENT_NAME_MAX]);

/* Write all lines from offset on, with as many calls as that takes. n is at most IOV_MAX. */
int segment_write(int fd, const struct iovec *lines, size_t n, uint64_t offset);

/* 0: the file holds exactly these lines from offset on; -EBADMSG: it does not. */
int segment_compare(int fd, const struct iovec *lines, size_t n, uint64_t offset);

/*
 * Write the bytes of the file to itself. After a failed sync the kernel treats the pages as clean,
 * and the next sync would succeed without writing anything. Only a new write makes it report errors
 * again.
 */
int segment_write_again(int fd, uint64_t from, uint64_t to);

/*
 * Copy the bytes after end to a file of their own, evidence-<number>.<end>.torn, and sync it. Only
 * then cut them off here. 0 or a negative errno.
 */
int segment_move_aside(int dir_fd, int fd, uint64_t number, uint64_t end);

/* When the file was created (CLOCK_REALTIME); the time now if the file system does not know. */
uint64_t segment_birth_ms(int fd);

/* Who may open a segment. mode 0: not known. */
struct segment_access {
	mode_t mode; /* as in struct stat */
	uid_t uid;
	gid_t gid;
};

void segment_read_access(int fd, struct segment_access *ret);

/*
 * Whether somebody else changed an open segment, or who may open it: the reason (static), or NULL
 * if nobody did.
 */
const char *segment_find_loss(int dir_fd, int fd, uint64_t number, uint64_t size,
			      bool may_be_longer, const struct segment_access *access);
