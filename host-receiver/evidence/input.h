/* SPDX-License-Identifier: MIT */
/*
 * Reads evidence that nobody writes any more, or not here: a file as it is, or compressed by gzip
 * or zstd, or standard input. Gives line after line in constant memory. It never waits for a
 * writer: a FIFO or a device is refused (standard input may be anything). One thread an input.
 *
 * An error of the disk or of the compressed data is an error, never an end of the lines.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INPUT_LINE_MAX 65535u /* bytes of a line without its '\n' */
#define INPUT_WHY_MAX  128u

struct input;

struct input_line {
	const char *data; /* borrowed until the next call */
	size_t len;	  /* without '\n' */
	bool too_long;	  /* longer than INPUT_LINE_MAX: the line was skipped, len is 0 */
	bool cut;	  /* the input ended before its '\n' */
};

/*
 * path "-" is standard input. Symbolic links are followed. Returns 0, or a negative errno with a
 * sentence in why.
 */
int input_open(const char *path, struct input **ret, char why[INPUT_WHY_MAX]);
void input_close(struct input *input);

/* Returns 1 and a line, 0 at the end, or a negative errno with a sentence in why. */
int input_next(struct input *input, struct input_line *ret, char why[INPUT_WHY_MAX]);

/* How much of the file has been read, and its size (0: not known), in bytes as they are stored. */
uint64_t input_read_bytes(const struct input *input);
uint64_t input_size(const struct input *input);
