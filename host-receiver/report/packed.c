/* SPDX-License-Identifier: MIT */
#include "host-receiver/report/packed.h"

#include <sodium.h>
#include <zlib.h>

#include "common/utf8.h"
#include "common/util.h"
#include "host-receiver/event/json_writer.h"

#define GZIP_WINDOW  (15 + 16) /* deflateInit2(): the largest window, with gzip's header */
#define BASE64_BYTES 57u       /* of a line of 76 characters */
#define ROOM	     (BASE64_BYTES * 1024u)
#define TEXT_MAX     4096u /* bytes of a text for packed_write_json() */

struct packed {
	FILE *out;
	z_stream z;
	int error; /* the first one */
	size_t n;  /* packed bytes that wait in room */
	uint8_t room[ROOM];
};

struct packed *packed_new(FILE *out)
{
	struct packed *packed = calloc(1, sizeof(*packed));

	if (!packed)
		return NULL;
	packed->out = out;
	if (deflateInit2(&packed->z, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, MAX_MEM_LEVEL,
			 Z_DEFAULT_STRATEGY) == Z_OK)
		return packed;
	free(packed);
	return NULL;
}

void packed_free(struct packed *packed)
{
	if (!packed)
		return;
	deflateEnd(&packed->z);
	free(packed);
}

static void fail(struct packed *packed, int error)
{
	if (packed->error == 0)
		packed->error = error;
}

/* Write the waiting bytes as lines of base64. Only the last call may end within a line. */
static void write_lines(struct packed *packed)
{
	char line[sodium_base64_ENCODED_LEN(BASE64_BYTES, sodium_base64_VARIANT_ORIGINAL)];

	for (size_t at = 0; at < packed->n; at += BASE64_BYTES) {
		const size_t len = MIN(packed->n - at, (size_t)BASE64_BYTES);

		sodium_bin2base64(line, sizeof(line), packed->room + at, len,
				  sodium_base64_VARIANT_ORIGINAL);
		if (fputs(line, packed->out) == EOF || putc('\n', packed->out) == EOF)
			fail(packed, errno ? -errno : -EIO);
	}
	packed->n = 0;
}

/* Compress until the input is used up; with Z_FINISH until the end is written. */
static void deflate_all(struct packed *packed, int flush)
{
	int r;

	do {
		packed->z.next_out = packed->room + packed->n;
		packed->z.avail_out = (uInt)(ROOM - packed->n);
		r = deflate(&packed->z, flush);
		packed->n = ROOM - packed->z.avail_out;
		if (packed->n == ROOM)
			write_lines(packed);
	} while (packed->z.avail_in > 0 || (flush == Z_FINISH && r == Z_OK));
	if (r == Z_STREAM_ERROR)
		fail(packed, -EIO);
}

void packed_write(struct packed *packed, const void *data, size_t len)
{
	if (packed->error != 0 || len == 0)
		return;
	packed->z.next_in = (Bytef *)(uintptr_t)data;
	packed->z.avail_in = (uInt)len;
	deflate_all(packed, Z_NO_FLUSH);
}

void packed_write_json(struct packed *packed, const char *text)
{
	char clean[TEXT_MAX], quoted[TEXT_MAX * 6 + 2];
	const size_t len = utf8_sanitize(text, strlen(text), clean, sizeof(clean));
	struct json_writer w;

	json_writer_init(&w, quoted, sizeof(quoted));
	json_put_string(&w, clean, len);
	packed_write(packed, quoted, w.len);
}

int packed_finish(struct packed *packed)
{
	if (packed->error == 0) {
		deflate_all(packed, Z_FINISH);
		write_lines(packed);
	}
	return packed->error;
}
