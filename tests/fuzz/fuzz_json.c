/* SPDX-License-Identifier: MIT */
/* Any JSON: its canonical form reads as the same, and is its own canonical form. */
#include "common/util.h"
#include "host-receiver/event/json_document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t canonical(struct json_document *doc, const char *data, size_t size, char *out,
			size_t out_size)
{
	struct json_writer w;
	const char *what;
	size_t at, len;

	if (json_document_read(doc, data, size, &what, &at) < 0)
		return 0;
	json_writer_init(&w, out, out_size);
	json_write_canonical(doc, json_document_root(doc), &w);
	if (json_writer_done(&w, &len) < 0)
		abort();
	return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char first[JSON_DOCUMENT_MAX], second[JSON_DOCUMENT_MAX];
	static struct json_document *doc;
	size_t len;

	if (!doc)
		doc = json_document_new(JSON_DOCUMENT_MAX);
	/* "It is never longer than its text was." */
	len = canonical(doc, (const char *)data, size, first, MIN(size, sizeof(first)));
	if (len > 0 && (canonical(doc, first, len, second, sizeof(second)) != len ||
			memcmp(first, second, len) != 0))
		abort();
	return 0;
}
