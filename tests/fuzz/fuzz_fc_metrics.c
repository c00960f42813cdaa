/* SPDX-License-Identifier: MIT */
/* Metrics documents, a line each: their sums stay within their limit, and are canonical JSON. */
#include "common/util.h"
#include "host-receiver/probes/fc_document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct json_document *doc, *scratch;
	struct fc_totals totals = {0};
	const char *what;
	size_t at;

	if (!doc) {
		doc = json_document_new(FC_DOCUMENT_MAX);
		scratch = json_document_new(FC_DOCUMENT_MAX);
	}
	while (size > 0) {
		const uint8_t *newline = memchr(data, '\n', size);
		const size_t len = newline ? (size_t)(newline - data) : size;

		if (json_document_read(doc, (const char *)data, len, &what, &at) == 0)
			fc_totals_add(&totals, doc, scratch, &what);
		if (totals.len > FC_DOCUMENT_MAX)
			abort();
		if (totals.json &&
		    json_document_read(scratch, totals.json, totals.len, &what, &at) < 0)
			abort();
		data += newline ? len + 1 : len;
		size -= newline ? len + 1 : len;
	}
	fc_totals_done(&totals);
	return 0;
}
