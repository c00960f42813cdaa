/* SPDX-License-Identifier: MIT */
/* The judge: the golden stream and what a forger might do to it, and logs at their limits. */
#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/event.h"
#include "host-receiver/judge/sources.h"
#include "host-receiver/judge/verifier.h"
#include "tests/unit/evidence.h"

static char *lines[LINES_MAX]; /* of evidence-good.jsonl, without '\n' */
static size_t n_lines;

static void read_lines(void)
{
	n_lines = read_golden_lines(lines);
}

static struct keyring *vectors_ring(void)
{
	char *text = read_vector("keyring.json");
	struct keyring *ring = ring_of(text, SIGN_ED25519);

	free(text);
	return ring;
}

/* What became of some lines. */
struct outcome {
	enum verdict verdict;
	uint64_t verified, streams, complete;
	uint64_t count[_FINDING_MAX];
	char bad_why[FINDINGS_WHY_MAX], missing_why[FINDINGS_WHY_MAX];
};

static void keep_why(const struct findings *findings, enum finding finding, char *to)
{
	if (findings->n_places[finding] > 0)
		memcpy(to, findings->places[finding][0].why, FINDINGS_WHY_MAX);
}

/* The lines end with NULL. */
static struct outcome judge(const struct keyring *ring, const char *const *those)
{
	static char memory[FACTS_LINE_MAX + FACTS_ARENA_SPARE];
	const struct verifier_options options = {
		.ring = ring, .since_ms = INT64_MIN, .until_ms = INT64_MAX};
	struct verifier *v = verifier_new(&options);
	struct facts_reader *reader = facts_reader_new(ring);
	struct outcome outcome = {0};
	struct verifier_result result;

	verifier_begin_input(v, false);
	for (uint64_t i = 0; those[i]; i++) {
		struct facts_arena arena = {.data = memory, .size = sizeof(memory)};
		struct line_facts facts;
		const struct verifier_line line = {.at = {.file = "f", .line = i + 1},
						   .bytes = strlen(those[i]),
						   .facts = &facts};

		ck_assert_int_eq(facts_read(reader, those[i], line.bytes, &arena, &facts), 0);
		ck_assert_int_eq(verifier_line(v, &line), 0);
	}
	result = verifier_finish(v);
	outcome.verdict = result.verdict;
	outcome.verified = result.verified;
	outcome.streams = streams_count(result.streams);
	outcome.complete = streams_count_end(result.streams, STREAM_COMPLETE);
	memcpy(outcome.count, result.findings->count, sizeof(outcome.count));
	keep_why(result.findings, FINDING_BAD, outcome.bad_why);
	keep_why(result.findings, FINDING_MISSING, outcome.missing_why);
	facts_reader_free(reader);
	verifier_free(v);
	return outcome;
}

static void counts(const struct outcome *r, uint64_t verified, uint64_t bad, uint64_t unverifiable,
		   uint64_t is_unsigned, uint64_t missing, uint64_t open)
{
	ck_assert_uint_eq(r->verified, verified);
	ck_assert_uint_eq(r->count[FINDING_BAD], bad);
	ck_assert_uint_eq(r->count[FINDING_UNVERIFIABLE], unverifiable);
	ck_assert_uint_eq(r->count[FINDING_UNSIGNED], is_unsigned);
	ck_assert_uint_eq(r->count[FINDING_MISSING] > 0, missing);
	ck_assert_uint_eq(r->count[FINDING_OPEN], open);
}

UNIT_TEST(whole_is_whole)
{
	struct keyring *ring = vectors_ring();
	struct outcome r = judge(ring, (const char *const *)lines);

	counts(&r, n_lines, 0, 0, 0, 0, 0);
	ck_assert_uint_eq(r.complete, r.streams);
	keyring_free(ring);
}

UNIT_TEST(each_changed_byte_is_found)
{
	struct keyring *ring = vectors_ring();
	const size_t len = strlen(lines[0]);
	char *line = strdup(lines[0]);

	for (size_t i = 0; i < len; i++) {
		const char *const one[] = {line, NULL};
		struct outcome r;

		line[i] ^= 1;
		r = judge(ring, one);
		ck_assert_msg(r.verified == 0, "byte %zu of %s", i, line);
		line[i] ^= 1;
	}
	free(line);
	keyring_free(ring);
}

UNIT_TEST(members_outside_the_signature_are_found)
{
	/* In front of these: in the envelope, then in its data. */
	static const char *const before[] = {"\"data\":{\"algorithm",
					     "\"type\":\"dev.cellos.events.signed",
					     "\"algorithm\":", "\"signerKid\":"};
	struct keyring *ring = vectors_ring();

	for (size_t i = 0; i < ARRAY_SIZE(before); i++) {
		const char *at = strstr(lines[0], before[i]);
		const char *one[2] = {NULL};
		struct outcome r;
		char *line;

		ck_assert(at != NULL);
		ck_assert_int_gt(asprintf(&line, "%.*s\"cellId\":\"forged\",%s",
					  (int)(at - lines[0]), lines[0], at),
				 0);
		one[0] = line;
		r = judge(ring, one);
		counts(&r, 0, 1, 0, 0, 0, 0);
		ck_assert_msg(strstr(r.bad_why, "member"), "%s", r.bad_why);
		free(line);
	}
	keyring_free(ring);
}

UNIT_TEST(each_line_that_is_gone_is_missed)
{
	struct keyring *ring = vectors_ring();

	for (size_t gone = 0; gone < n_lines; gone++) {
		const char *those[LINES_MAX + 1];
		struct outcome r;
		size_t n = 0;

		for (size_t i = 0; i < n_lines; i++)
			if (i != gone)
				those[n++] = lines[i];
		those[n] = NULL;
		r = judge(ring, those);
		ck_assert_uint_eq(r.verified, n_lines - 1);
		ck_assert_uint_eq((r.count[FINDING_MISSING] > 0) + r.count[FINDING_OPEN], 1);
	}
	keyring_free(ring);
}

UNIT_TEST(repeated_and_swapped_are_found)
{
	struct keyring *ring = vectors_ring();
	const char *those[LINES_MAX + 2];
	struct outcome r;

	memcpy(those, lines, sizeof(lines));
	those[n_lines] = lines[1];
	those[n_lines + 1] = NULL;
	r = judge(ring, those);
	ck_assert_uint_gt(r.count[FINDING_MISSING], 0);
	memcpy(those, lines, sizeof(lines));
	those[0] = lines[1];
	those[1] = lines[0];
	r = judge(ring, those);
	ck_assert_uint_gt(r.count[FINDING_MISSING], 0);
	keyring_free(ring);
}

UNIT_TEST(without_the_key_nothing_is_said_of_it)
{
	struct keyring *ring = ring_of(
		"{\"another\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", SIGN_ED25519);
	struct outcome r = judge(ring, (const char *const *)lines);

	ck_assert_uint_eq(r.count[FINDING_UNVERIFIABLE], n_lines);
	ck_assert_uint_eq(r.verified + r.count[FINDING_BAD], 0);
	keyring_free(ring);
}

/* A line is exactly named: what is missing, and of which stream. */
UNIT_TEST(missing_evidence_is_named)
{
	struct keyring *ring = vectors_ring();
	static const struct {
		size_t gone, n;
		const char *want;
	} cases[] = {
		{0, 1, "sequence 1..1 is missing"},
		{0, 3, "sequence 1..3 is missing"},
		{2, 1, "sequence 3..3 is missing"},
		{2, 4, "sequence 3..6 is missing"},
	};
	const char *const id = strstr(lines[0], "\"streamId\":\"") + 12;

	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		const char *those[LINES_MAX + 1];
		char want[128];
		struct outcome r;
		size_t n = 0, of_stream = 0;

		for (size_t i = 0; i < n_lines; i++) {
			const bool same =
				strstr(lines[i], "\"streamId\":\"") &&
				strncmp(strstr(lines[i], "\"streamId\":\"") + 12, id, 36) == 0;

			if (same && of_stream >= cases[c].gone &&
			    of_stream < cases[c].gone + cases[c].n) {
				of_stream++;
				continue;
			}
			of_stream += same;
			those[n++] = lines[i];
		}
		those[n] = NULL;
		r = judge(ring, those);
		snprintf(want, sizeof(want), "stream %.36s: %s", id, cases[c].want);
		ck_assert_str_eq(r.missing_why, want);
	}
	keyring_free(ring);
}

/* One of three events of an unsigned stream, the first of which may name a predecessor. */
static char *unsigned_line(uint8_t stream, uint64_t sequence, uint8_t previous,
			   uint64_t previous_sequence)
{
	struct stream_identity identity = {.cell_id = (char *)"c",
					   .run_id = (char *)"r",
					   .spec_hash = (char *)"h",
					   .stream_id = {stream}};
	struct event e = {.type = sequence == 1 ? EVENT_STREAM_OPENED : EVENT_GUEST_FIRST,
			  .stream = &identity,
			  .id = {stream, (uint8_t)sequence},
			  .sequence = sequence};
	struct event_clock clock = {0};
	struct event_head head;
	char id[64], json[4096];
	size_t len;

	snprintf(id, sizeof(id), "%02x000000-0000-0000-0000-000000000000", previous);
	if (sequence == 1 && previous) {
		event_add_text(&e, EVENT_KEY_PREVIOUS_STREAM_ID, wire_text(id));
		event_add_uint(&e, EVENT_KEY_PREVIOUS_SEQUENCE, previous_sequence);
	}
	ck_assert_int_eq(event_write(&e, &clock, json, sizeof(json), &len, &head), 0);
	return strndup(json, len);
}

/* Unsigned streams follow each other as signed ones do. */
UNIT_TEST(an_unsigned_predecessor_is_a_predecessor)
{
	static const struct {
		uint8_t previous;
		uint64_t sequence;
		const char *want; /* NULL: nothing is missing */
	} cases[] = {
		{1, 3, NULL},
		{1, 5, "sequence 4..5 is missing: its successor"},
		{9, 3, "its predecessor 09000000"},
	};
	struct keyring *ring = vectors_ring();

	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		char *those[7] = {0};
		struct outcome r;

		for (uint64_t i = 0; i < 3; i++) {
			those[i] = unsigned_line(1, i + 1, 0, 0);
			those[3 + i] =
				unsigned_line(2, i + 1, cases[c].previous, cases[c].sequence);
		}
		r = judge(ring, (const char *const *)those);
		ck_assert_uint_eq(r.count[FINDING_UNSIGNED], 6);
		ck_assert_msg((r.count[FINDING_MISSING] > 0) == (cases[c].want != NULL), "%s",
			      r.missing_why);
		ck_assert_msg(!cases[c].want || strstr(r.missing_why, cases[c].want), "%s",
			      r.missing_why);
		for (size_t i = 0; i < 6; i++)
			free(those[i]);
	}
	keyring_free(ring);
}

/* Retention deletes a segment between the listing of its folder and the first look into it: the
 * others are read. A file that was named must be there. */
UNIT_TEST(a_segment_may_be_deleted_before_it_is_read)
{
	char folder[] = "/tmp/cellos-judge-XXXXXX", path[2][128], why[SOURCES_WHY_MAX] = "";
	struct sources sources = {0};

	ck_assert_ptr_nonnull(mkdtemp(folder));
	for (int i = 0; i < 2; i++) {
		FILE *f;

		snprintf(path[i], sizeof(path[i]), "%s/evidence-%020d.jsonl", folder, i);
		f = fopen(path[i], "w");
		ck_assert_ptr_nonnull(f);
		fprintf(f, "{}\n");
		fclose(f);
	}
	ck_assert_int_eq(sources_add(&sources, folder, why), 0);
	ck_assert_uint_eq(sources.n, 2);
	unlink(path[0]);
	ck_assert_msg(sources_order(&sources, why) == 0, "%s", why);
	ck_assert_uint_eq(sources.n, 1);
	ck_assert_str_eq(sources.list[0].path, path[1]);
	sources_free(&sources);
	ck_assert_int_eq(sources_add(&sources, path[1], why), 0);
	unlink(path[1]);
	ck_assert_int_eq(sources_order(&sources, why), -ENOENT);
	ck_assert_ptr_nonnull(strstr(why, path[1]));
	sources_free(&sources);
	rmdir(folder);
}

UNIT_SUITE(.setup_once = read_lines);
