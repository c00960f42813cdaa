/* SPDX-License-Identifier: MIT */
/*
 * Reads the lines of a segment from a position to its end. The start uses it, before anything is
 * written. A struct belongs to one thread.
 */
#pragma once

#include "host-receiver/evidence/folder.h"

/* The longest line of a log, '\n' included. */
#define LINE_SCAN_MAX (64u * 1024u)

struct line_scan {
	int fd;
	uint64_t offset; /* of buf[end] in the file */
	size_t begin, end;
	bool skip; /* inside a line that is too long */
	bool nul;  /* and a part of it that was skipped has a NUL byte */
	char *buf;
};

struct scan_line {
	const char *data;
	size_t len;   /* without '\n' */
	uint64_t end; /* the offset after it */
	bool whole, too_long;
	bool nul; /* there are NUL bytes in it, which no writer writes: data are missing */
};

/* Returns 0 or -ENOMEM; line_scan_done() is right in both cases. */
int line_scan_init(struct line_scan *s);
void line_scan_done(struct line_scan *s);

/* Begin with a segment. Returns 0 or a negative errno. */
int line_scan_open(struct line_scan *s, const struct folder *folder, uint64_t number);
void line_scan_close(struct line_scan *s);

/*
 * Returns 1 and the next line, which is valid until the next call, 0 at the end, or a negative
 * errno. The last line may not be complete.
 */
int line_scan_next(struct line_scan *s, struct scan_line *ret);
