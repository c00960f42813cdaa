/* SPDX-License-Identifier: MIT */
/* Lines of evidence, judged with the vectors' keys: each is one thing, and nothing is counted
 * twice.
 */
#include "common/util.h"
#include "host-receiver/judge/verifier.h"

static const char keys[] = "{\"log-key-1\":\"YNo4OgMsIcSrIkmw1OaFr8KRLBIUZSZoluIgVF3NSIk\","
			   "\"vector-key-1\":\"40GIxZ5RyGKqF8s0LtPbtLXiaHXY0emNxilgYur3yXE\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void give(struct verifier *v, struct facts_reader *reader, uint64_t number, const char *line,
		 size_t len)
{
	static char memory[FACTS_LINE_MAX + FACTS_ARENA_SPARE];
	struct facts_arena arena = {.data = memory, .size = sizeof(memory)};
	struct line_facts facts;
	const struct verifier_line judged = {.at = {.file = "corpus", .line = number},
					     .bytes = len,
					     .too_long = len > FACTS_LINE_MAX,
					     .facts = &facts};

	if (!judged.too_long && facts_read(reader, line, len, &arena, &facts) < 0)
		abort();
	if (verifier_line(v, &judged) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct keyring *ring;
	static struct facts_reader *reader;
	struct verifier_options options = {.since_ms = INT64_MIN, .until_ms = INT64_MAX};
	const char *at = (const char *)data, *const end = at + size;
	struct verifier_result result;
	struct verifier *v;
	char why[KEYRING_WHY_MAX];
	uint64_t n = 0;

	if (!ring) {
		ring = keyring_new();
		if (keyring_parse(ring, keys, sizeof(keys) - 1, "vectors", SIGN_ED25519, why) < 0)
			abort();
		reader = facts_reader_new(ring);
	}
	options.ring = ring;
	v = verifier_new(&options);
	verifier_begin_input(v, true);
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const size_t len = newline ? (size_t)(newline - at) : (size_t)(end - at);

		give(v, reader, ++n, at, len);
		at += len + (newline != NULL);
	}
	result = verifier_finish(v);
	if (result.records > n || result.verified > result.records ||
	    streams_count_end(result.streams, STREAM_COMPLETE) > streams_count(result.streams))
		abort();
	verifier_free(v);
	return 0;
}
