/* SPDX-License-Identifier: MIT */
/* Lines of evidence as anybody may write them: nothing is verified without a key. */
#include "common/util.h"
#include "host-receiver/sign/verifier.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct keyring *ring;
	const struct verifier_result *result;
	struct verifier *verifier;
	uint64_t number = 0;

	if (!ring)
		ring = keyring_new();
	verifier = verifier_new(ring);
	while (size > 0) {
		const uint8_t *newline = memchr(data, '\n', size);
		const size_t len = newline ? (size_t)(newline - data) : size;

		if (verifier_line(verifier, "f", ++number, (const char *)data, len) < 0)
			abort();
		data += newline ? len + 1 : len;
		size -= newline ? len + 1 : len;
	}
	result = verifier_finish(verifier);
	if (result->records != number || result->verified != 0)
		abort();
	verifier_free(verifier);
	return 0;
}
