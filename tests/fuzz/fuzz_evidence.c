/* SPDX-License-Identifier: MIT */
/* Lines of evidence, judged with the vectors' key: each is one thing, and nothing is counted twice.
 */
#include "common/util.h"
#include "host-receiver/sign/verifier.h"

static const char keys[] = "{\"vector-key-1\":\"40GIxZ5RyGKqF8s0LtPbtLXiaHXY0emNxilgYur3yXE\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct keyring *ring;
	const struct verifier_result *result;
	const char *at = (const char *)data, *const end = at + size;
	struct verifier *v;
	char why[KEYRING_WHY_MAX];
	uint64_t n = 0;

	if (!ring) {
		ring = keyring_new();
		if (keyring_parse(ring, keys, sizeof(keys) - 1, "vectors", SIGN_ED25519, why) < 0)
			abort();
	}
	v = verifier_new(ring);
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const size_t len = newline ? (size_t)(newline - at) : (size_t)(end - at);

		verifier_line(v, "corpus", ++n, at, len);
		at += len + (newline != NULL);
	}
	result = verifier_finish(v);
	if (result->records > n || result->complete > result->streams ||
	    result->verified + result->count[FINDING_BAD] + result->count[FINDING_UNVERIFIABLE] +
			    result->count[FINDING_UNSIGNED] !=
		    result->records)
		abort();
	verifier_free(v);
	return 0;
}
