/* SPDX-License-Identifier: MIT */
/* A flat keyed file of the kernel. What is read and written again is read the same. */
#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/probes/flat_keyed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct flat_keyed pairs;
	static char out[64 * 1024];
	struct json_document *doc;
	struct json_writer w;
	const char *what;
	unsigned line = 0;
	size_t len, at;

	if (flat_keyed_parse((const char *)data, size, &pairs, &line, &what) < 0) {
		if (line == 0 || !what)
			abort();
		return 0;
	}
	json_writer_init(&w, out, sizeof(out));
	flat_keyed_write(&pairs, &w);
	doc = json_document_new(sizeof(out));
	if (json_writer_done(&w, &len) < 0 || json_document_read(doc, out, len, &what, &at) < 0)
		abort();
	json_document_free(doc);
	return 0;
}
