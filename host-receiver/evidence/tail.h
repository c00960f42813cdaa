/* SPDX-License-Identifier: MIT */
/*
 * The last lines of a file, read from its end. A struct belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tail {
	char *buf; /* owned */
	size_t size, len;
	size_t first; /* the first line that begins in buf */
	bool whole;   /* buf has the whole file */
};

/* Read the last `window` bytes of a file of `size` bytes. 0 or a negative errno. */
int tail_read(struct tail *tail, int fd, uint64_t size, size_t window);
void tail_free(struct tail *tail);

/* Offsets in buf. */
struct tail_line {
	size_t begin, end; /* without '\n' */
};

/*
 * The newest whole line that begins in buf and ends before `at`; at first `at` is tail->len. False:
 * there is none.
 */
bool tail_line_before(const struct tail *tail, size_t at, struct tail_line *ret);
/* The next whole line from `at` on. */
bool tail_line_after(const struct tail *tail, size_t at, struct tail_line *ret);
