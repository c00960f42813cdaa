/* SPDX-License-Identifier: MIT */
/*
 * Packs a stream of bytes as text that any document can hold: gzip, then base64. The packed bytes
 * can never look like a part of the document, even if an attacker chose them. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

struct packed;

/* out is borrowed. NULL: no memory. */
struct packed *packed_new(FILE *out);

/*
 * Write the rest of the text, and its end. Returns 0, or the first error of all calls, as a
 * negative errno.
 */
int packed_finish(struct packed *packed);

/* Frees it, finished or not. */
void packed_free(struct packed *packed);

void packed_write(struct packed *packed, const void *data, size_t len);
/* Write text as a JSON string, with quotes. Bytes that are not UTF-8 are replaced. */
void packed_write_json(struct packed *packed, const char *text);
