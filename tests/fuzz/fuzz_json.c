/* SPDX-License-Identifier: MIT */
/* The strict reader of JSON: what it takes has one canonical form, which it takes again. */
#include "common/util.h"
#include "host-receiver/event/json_document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t canonical(struct json_document *doc, const char *data, size_t size, char *out)
{
	struct json_writer w;
	const char *why = NULL;
	size_t offset = 0, len;

	if (json_document_read(doc, data, size, &why, &offset) < 0)
		return 0;
	json_writer_init(&w, out, JSON_DOCUMENT_MAX);
	json_write_canonical(doc, json_document_root(doc), &w);
	/* Never longer than its text was. */
	if (json_writer_done(&w, &len) < 0 || len > size)
		abort();
	return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char once[JSON_DOCUMENT_MAX], twice[JSON_DOCUMENT_MAX];
	static struct json_document *doc;
	size_t len;

	if (!doc)
		doc = json_document_new(JSON_DOCUMENT_MAX);
	len = canonical(doc, (const char *)data, size, once);
	if (len > 0 && (canonical(doc, once, len, twice) != len || memcmp(once, twice, len) != 0))
		abort();
	return 0;
}
