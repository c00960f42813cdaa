/* SPDX-License-Identifier: MIT */
/* The judge: the golden stream and what a forger might do to it, and logs at their limits. */
#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/event.h"
#include "host-receiver/judge/log_finder.h"
#include "host-receiver/judge/sources.h"
#include "host-receiver/judge/verifier.h"
#include "host-receiver/judge/walker.h"
#include "tests/unit/evidence.h"
#include "tests/unit/scarce.h"

static char *lines[LINES_MAX]; /* of evidence-good.jsonl, without '\n' */
static size_t n_lines;

static void read_lines(void)
{
	n_lines = read_golden_lines(lines);
}

static struct keyring *ring_of_file(const char *name)
{
	char *text = read_vector(name);
	struct keyring *ring = ring_of(text, SIGN_ED25519);

	free(text);
	return ring;
}

static struct keyring *vectors_ring(void)
{
	return ring_of_file("keyring.json");
}

/* What became of some lines. */
struct outcome {
	enum verdict verdict;
	uint64_t verified, streams, complete;
	unsigned kids; /* of the first log */
	uint64_t count[_FINDING_MAX];
	char bad_why[FINDINGS_WHY_MAX], missing_why[FINDINGS_WHY_MAX];
};

static void keep_why(const struct findings *findings, enum finding finding, char *to)
{
	if (findings->n_places[finding] > 0)
		memcpy(to, findings->places[finding][0].why, FINDINGS_WHY_MAX);
}

static struct outcome finish(struct verifier *v)
{
	const struct verifier_result result = verifier_finish(v);
	struct outcome outcome = {
		.verdict = result.verdict,
		.verified = result.verified,
		.streams = streams_count(result.streams),
		.complete = streams_count_end(result.streams, STREAM_COMPLETE),
		.kids = result.logs->first ? result.logs->first->n_kids : 0,
	};

	memcpy(outcome.count, result.findings->count, sizeof(outcome.count));
	keep_why(result.findings, FINDING_BAD, outcome.bad_why);
	keep_why(result.findings, FINDING_MISSING, outcome.missing_why);
	verifier_free(v);
	return outcome;
}

/* The lines end with NULL. */
static struct outcome judge(const struct keyring *ring, const char *const *those)
{
	static char memory[FACTS_LINE_MAX + FACTS_ARENA_SPARE];
	const struct verifier_options options = {
		.ring = ring, .since_ms = INT64_MIN, .until_ms = INT64_MAX};
	struct verifier *v = verifier_new(&options);
	struct facts_reader *reader = facts_reader_new(ring);

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
	facts_reader_free(reader);
	return finish(v);
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
	ck_assert(sources.changed);
	ck_assert_uint_eq(sources.n, 1);
	ck_assert_str_eq(sources.list[0].path, path[1]);
	sources_free(&sources);
	ck_assert_int_eq(sources_add(&sources, path[1], why), 0);
	ck_assert_int_eq(sources_order(&sources, why), 0);
	ck_assert(!sources.changed);
	unlink(path[1]);
	ck_assert_int_eq(sources_order(&sources, why), -ENOENT);
	ck_assert_ptr_nonnull(strstr(why, path[1]));
	sources_free(&sources);
	rmdir(folder);
}

/* ---- whole logs ---- */

static void add_log(struct sources *sources, const char *name)
{
	char path[512], why[SOURCES_WHY_MAX];

	snprintf(path, sizeof(path), "%s/log/%s", unit_vectors(), name);
	ck_assert_msg(sources_add(sources, path, why) == 0, "%s", why);
	ck_assert_msg(sources_order(sources, why) == 0, "%s", why);
}

/* The segments of a folder of log/. */
static struct outcome judge_log(const struct keyring *ring, const char *name)
{
	const struct verifier_options options = {
		.ring = ring, .require_signed = true, .since_ms = INT64_MIN, .until_ms = INT64_MAX};
	struct verifier *v = verifier_new(&options);
	struct walker *walker = walker_new(ring);
	struct sources sources = {0};
	char why[WALKER_WHY_MAX];
	struct outcome outcome;

	add_log(&sources, name);
	for (size_t i = 0; i < sources.n; i++) {
		struct line_facts facts;
		struct verifier_line line = {.at = {.file = sources.list[i].path}, .facts = &facts};
		struct input_line text;

		verifier_begin_input(v, false);
		ck_assert_int_eq(walker_open(walker, sources.list[i].path, why), 0);
		while (walker_next(walker, &text, &facts, why) > 0) {
			line.at.line++;
			line.bytes = text.len;
			line.cut = text.cut;
			ck_assert_int_eq(verifier_line(v, &line), 0);
		}
	}
	outcome = finish(v);
	walker_free(walker);
	sources_free(&sources);
	return outcome;
}

UNIT_TEST(each_golden_log_has_its_verdict)
{
	static const struct {
		const char *name;
		enum verdict want;
	} cases[] = {
		{"good", VERDICT_INTACT},
		{"stream-deleted", VERDICT_BAD},
		{"entry-deleted", VERDICT_BAD},
		{"entry-changed", VERDICT_BAD},
		{"entry-added", VERDICT_BAD},
		{"entries-swapped", VERDICT_BAD},
		{"first-segment-gone", VERDICT_MISSING},
		{"last-segment-gone", VERDICT_OPEN},
		{"cut-at-checkpoint", VERDICT_OPEN},
		{"tail-uncovered", VERDICT_UNVERIFIABLE},
		{"frontier-changed", VERDICT_BAD},
		{"signed-by-another-key", VERDICT_UNVERIFIABLE},
		{"checkpoint-damaged", VERDICT_BAD},
		{"rewritten-with-the-key", VERDICT_INTACT},
		{"wrapper-disagrees", VERDICT_BAD},
		{"segment-line-in-the-middle", VERDICT_BAD},
		{"checkpoints-stripped", VERDICT_UNVERIFIABLE},
		{"pruned-honestly", VERDICT_INTACT},
	};
	struct keyring *ring = ring_of_file("log/keyring.json");

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct outcome r = judge_log(ring, cases[i].name);

		ck_assert_msg(r.verdict == cases[i].want, "%s: %d", cases[i].name, (int)r.verdict);
	}
	keyring_free(ring);
}

/* After a segment line that does not hold, nothing is verified until the next one. */
UNIT_TEST(a_bad_segment_line_proves_nothing)
{
	struct keyring *ring = ring_of_file("log/keyring.json");
	const struct outcome r = judge_log(ring, "frontier-changed");

	ck_assert_uint_eq(r.verified, 12);
	ck_assert_uint_eq(r.count[FINDING_BAD], 1 + 12);
	keyring_free(ring);
}

UNIT_TEST(a_log_without_its_beginning_is_named)
{
	struct keyring *ring = ring_of_file("log/keyring.json");
	const struct outcome r = judge_log(ring, "first-segment-gone");

	ck_assert_uint_eq(r.verified, 12);
	ck_assert_uint_eq(r.kids, 1);
	ck_assert_str_eq(r.missing_why,
			 "log example.org/host-7/0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a11: entries "
			 "0..11 are missing, and no verified pruned entry explains it");
	keyring_free(ring);
}

/* A key that is not for this log did not sign it. */
UNIT_TEST(a_key_of_another_log_is_no_key_of_this_one)
{
	struct keyring *ring = ring_of("{\"log-key-1\":{\"key\":\"" GOLDEN_LOG_KEY
				       "\",\"origins\":[\"example.org/host-8\"]}}",
				       SIGN_ED25519);
	const struct outcome r = judge_log(ring, "first-segment-gone");

	ck_assert_uint_eq(r.verified, 0);
	ck_assert_uint_eq(r.count[FINDING_UNVERIFIABLE], 12);
	ck_assert_uint_eq(r.kids, 0);
	keyring_free(ring);
}

/* --since excuses what is older, and a log whose entries are all newer has lost something. */
UNIT_TEST(a_missing_beginning_is_excused_by_its_time_only)
{
	static const struct {
		int64_t since_ms, first_ms;
		uint64_t first_index, pruned_before, want;
	} cases[] = {
		/* All must be there. */
		{INT64_MIN, 1000, 5, 0, 1},
		/* Only what is since then. */
		{999, 1000, 5, 0, 1},
		{1000, 1000, 5, 0, 0},
		{1001, 1000, 5, 0, 0},
		/* The log's time is not known. */
		{1001, 0, 5, 0, 1},
		/* Some of it was pruned, or all of it, or nothing is missing. */
		{INT64_MIN, 1000, 5, 4, 1},
		{INT64_MIN, 1000, 5, 5, 0},
		{INT64_MIN, 1000, 0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		static struct findings findings;
		struct log_summary *log;
		struct logs logs;

		findings = (struct findings){0};
		logs_init(&logs, &findings);
		log = logs_get(&logs, wire_text("a/1"));
		log->present = true;
		log->first_index = cases[i].first_index;
		log->first_ms = cases[i].first_ms;
		log->pruned_before = cases[i].pruned_before;
		logs_finish(&logs, cases[i].since_ms);
		ck_assert_msg(findings.count[FINDING_MISSING] == cases[i].want, "case %zu", i);
		logs_free(&logs);
	}
}

/* The checkpoint of a tree of n times this leaf; n is a power of two, or one more. */
static struct line_facts checkpoint_of(struct tree_hasher *hasher, const struct tree_hash *leaf,
				       uint64_t n)
{
	struct line_facts facts = {.class = CLASS_CHECKPOINT,
				   .note = {.verdict = KEYRING_SIGNED,
					    .kid = "k",
					    .origin = wire_text("a/1"),
					    .present = true,
					    .size = n,
					    .root = *leaf}};
	struct tree_hash *root = &facts.note.root;

	for (uint64_t size = 1; size * 2 <= n; size *= 2)
		ck_assert_int_eq(tree_hash_node(hasher, root, root, root), 0);
	if (n % 2 == 1)
		ck_assert_int_eq(tree_hash_node(hasher, root, leaf, root), 0);
	return facts;
}

/* As many entries as may wait for a checkpoint, and one more: no checkpoint covers these. */
UNIT_TEST(only_so_many_entries_wait_for_a_checkpoint)
{
	const struct verifier_options options = {.since_ms = INT64_MIN, .until_ms = INT64_MAX};
	struct tree_hasher *hasher = tree_hasher_new();
	struct verifier *v = verifier_new(&options);
	struct line_facts begin = {.class = CLASS_SEGMENT, .note = {.origin = wire_text("a/1")}};
	struct line_facts entry = {.class = CLASS_ENTRY, .leaf = {{1}}}, end;
	struct verifier_line line = {.at = {.file = "f", .line = 1}, .bytes = 1, .facts = &begin};
	struct outcome r;

	verifier_begin_input(v, false);
	ck_assert_int_eq(verifier_line(v, &line), 0);
	for (uint64_t n = 1; n <= 2 * TREE_RUN_PENDING_MAX + 1; n++) {
		line.at.line++;
		line.facts = &entry;
		entry.event.numbers[NUMBER_SEQUENCE] = n;
		ck_assert_int_eq(verifier_line(v, &line), 0);
		if (n != TREE_RUN_PENDING_MAX && n <= 2 * TREE_RUN_PENDING_MAX)
			continue;
		line.facts = &end;
		end = checkpoint_of(hasher, &entry.leaf, n);
		ck_assert_int_eq(verifier_line(v, &line), 0);
	}
	r = finish(v);
	ck_assert_uint_eq(r.verified, TREE_RUN_PENDING_MAX);
	ck_assert_uint_eq(r.count[FINDING_BAD], TREE_RUN_PENDING_MAX + 1);
	ck_assert_ptr_nonnull(strstr(r.bad_why, "more than 65536 entries"));
	tree_hasher_free(hasher);
}

/* ---- reading again ---- */

#define GOLDEN_ORIGIN "example.org/host-7/0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a11"

/* What a copy is compared with: all entries of the log, from any of them on. */
UNIT_TEST(each_entry_is_read_again)
{
	struct tree_hasher *hasher = tree_hasher_new();
	struct tree_frontier frontier = {.size = 0};
	struct sources sources = {0};
	struct tree_earlier *earlier;
	struct tree_hash leaf, root, want;
	struct tree_frontier at;
	static struct found_note newest;
	struct log_finder *finder;
	char why[FINDER_WHY_MAX];

	add_log(&sources, "good");
	ck_assert_int_eq(log_finder_open(&sources, NULL, &finder, why), 0);
	ck_assert_int_eq(log_finder_newest(finder, &newest, why), 0);
	log_finder_close(finder);
	earlier = sources_earlier_new(&sources);
	for (uint64_t i = 0; i < 24; i++) {
		ck_assert_int_eq(earlier->seek(earlier->data, GOLDEN_ORIGIN, i, &at), 1);
		ck_assert_uint_eq(at.size, i);
		ck_assert_int_eq(tree_frontier_root(hasher, &at, &root), 0);
		ck_assert_int_eq(tree_frontier_root(hasher, &frontier, &want), 0);
		ck_assert(tree_hash_equal(&root, &want));
		ck_assert_int_eq(earlier->next(earlier->data, &leaf), 1);
		ck_assert_int_eq(tree_frontier_append(hasher, &frontier, &leaf), 0);
	}
	ck_assert_int_eq(tree_frontier_root(hasher, &frontier, &root), 0);
	ck_assert(tree_hash_equal(&root, &newest.checkpoint.root));
	ck_assert_int_eq(earlier->next(earlier->data, &leaf), 0);
	ck_assert_int_eq(earlier->seek(earlier->data, GOLDEN_ORIGIN, 25, &at), 0);
	ck_assert_int_eq(earlier->seek(earlier->data, "another", 0, &at), 0);
	sources_earlier_free(earlier);
	sources_free(&sources);
	tree_hasher_free(hasher);
}

/* The judge notices that a file has changed after its first line was read. */
UNIT_TEST(a_changed_file_is_not_read_again)
{
	static const struct {
		const char *text; /* NULL: the file is gone */
		int want;
	} cases[] = {
		{"{}\n", 0},
		{"", 0},
		{"{\"type\":\"" EVIDENCE_TYPE_SEGMENT "\"}\n", 0},
		{NULL, -ENOENT},
	};
	char path[] = "/tmp/cellos-judge-XXXXXX", why[SOURCES_WHY_MAX];
	char *text = read_vector("log/good/evidence-00000000000000000000.jsonl");
	struct sources sources = {0};
	struct tree_earlier *earlier;
	struct tree_frontier at;
	int fd = mkstemp(path);

	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(sources_add(&sources, path, why), 0);
	ck_assert_msg(sources_order(&sources, why) == 0, "%s", why);
	earlier = sources_earlier_new(&sources);
	ck_assert_int_eq(earlier->seek(earlier->data, GOLDEN_ORIGIN, 3, &at), 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].text) {
			const ssize_t len = (ssize_t)strlen(cases[i].text);

			ck_assert_int_eq(ftruncate(fd, 0), 0);
			ck_assert_int_eq(pwrite(fd, cases[i].text, (size_t)len, 0), len);
		} else {
			unlink(path);
		}
		ck_assert_msg(earlier->seek(earlier->data, GOLDEN_ORIGIN, 3, &at) == cases[i].want,
			      "case %zu", i);
	}
	close(fd);
	sources_earlier_free(earlier);
	sources_free(&sources);
	free(text);
}

/* The id of an entry of the log. */
static void id_of(struct log_finder *finder, uint64_t index, char *ret, size_t size)
{
	static const char key[] = "\"id\":\"";
	static struct found_entry entry;
	static struct found_note note;
	struct tree_proof proof;
	char why[FINDER_WHY_MAX];
	const char *begin;

	ck_assert_msg(log_finder_inclusion(finder, index, &entry, &note, &proof, why) == 0, "%s",
		      why);
	begin = memmem(entry.data, entry.len, key, sizeof(key) - 1);
	ck_assert_ptr_nonnull(begin);
	begin += sizeof(key) - 1;
	snprintf(ret, size, "%.*s", (int)strcspn(begin, "\""), begin);
}

/* Without memory checkpoint and prove fail. They never report that something is not in the log. */
UNIT_LOOP_TEST(no_memory_is_no_absent_entry, 2)
{
	struct sources sources = {0};
	char path[512], id[128] = "", why[FINDER_WHY_MAX];
	unsigned n = 1;

	snprintf(path, sizeof(path), "%s/log/good", unit_vectors());
	ck_assert_msg(sources_add(&sources, path, why) == 0, "%s", why);
	ck_assert_msg(sources_order(&sources, why) == 0, "%s", why);
	for (bool again = true; again; n++) {
		static struct found_note note;
		struct log_finder *finder;
		uint64_t index = 0;
		int r;

		ck_assert_int_eq(log_finder_open(&sources, NULL, &finder, why), 0);
		if (!*id)
			id_of(finder, 3, id, sizeof(id));
		log_finder_close(finder);
		ck_assert_int_eq(log_finder_open(&sources, NULL, &finder, why), 0);
		scarce_from(n);
		r = _i == 0 ? log_finder_newest(finder, &note, why)
			    : log_finder_index(finder, id, &index, why);
		again = scarce_end();
		ck_assert_msg(r == (again ? -ENOMEM : 0), "%d: %s", r, why);
		if (!again)
			ck_assert_uint_eq(_i == 0 ? note.checkpoint.size : index, _i == 0 ? 24 : 3);
		log_finder_close(finder);
	}
	ck_assert_uint_gt(n, 3);
	sources_free(&sources);
}

UNIT_SUITE(.setup_once = read_lines);
