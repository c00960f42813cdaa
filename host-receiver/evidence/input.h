/* SPDX-License-Identifier: MIT */
/*
 * Reads finished evidence: a plain file, a file compressed by gzip or zstd, or standard input. It
 * returns one line after another and needs constant memory. It never waits for a writer: FIFOs and
 * devices are refused, except as standard input. An input belongs to one thread.
 *
 * An error of the disk or of the compressed data is returned as an error, never as the end of the
 * lines.
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
	bool cut;	  /* the input ended before the '\n' */
};

/*
 * path "-" is standard input. Symbolic links are followed. Returns 0, or a negative errno with a
 * sentence in why.
 */
int input_open(const char *path, struct input **ret, char why[INPUT_WHY_MAX]);
void input_close(struct input *input);

/* Returns 1 and a line, 0 at the end, or a negative errno with a sentence in why. */
int input_next(struct input *input, struct input_line *ret, char why[INPUT_WHY_MAX]);

/* How much of the file was read, and its size (0: unknown), in stored (compressed) bytes. */
uint64_t input_read_bytes(const struct input *input);
uint64_t input_size(const struct input *input);
