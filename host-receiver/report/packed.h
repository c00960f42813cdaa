/* SPDX-License-Identifier: MIT */
/*
 * A stream of bytes as text that any document can hold: gzip, then base64. No byte of what is
 * written can be taken for a part of the document, whoever wrote it. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

struct packed;

/* out is borrowed. NULL: no memory. */
struct packed *packed_new(FILE *out);

/*
 * The rest of the text, and the end. Returns 0, or the first error there was, also of writes: a
 * negative errno.
 */
int packed_finish(struct packed *packed);

/* Frees it, finished or not. */
void packed_free(struct packed *packed);

void packed_write(struct packed *packed, const void *data, size_t len);
/* The text of a string of JSON, with its quotes; what is not UTF-8 is replaced. */
void packed_write_json(struct packed *packed, const char *text);
