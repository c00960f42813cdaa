/* SPDX-License-Identifier: MIT */
/* Signing and judging: the golden stream signed again, and what a forger might do to it. */
#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/sign/signer.h"
#include "host-receiver/sign/verifier.h"
#include "tests/unit/unit.h"

#define LINES_MAX 64

static char *lines[LINES_MAX]; /* of evidence-good.jsonl, without '\n' */
static size_t n_lines;

static char *read_vector(const char *name)
{
	char path[512], *text = NULL;
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", unit_vectors(), name);
	f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	ck_assert_int_ge(getdelim(&text, &size, '\0', f), 0);
	fclose(f);
	return text;
}

static void read_lines(void)
{
	char *text = read_vector("evidence-good.jsonl"), *at = text, *line;

	for (n_lines = 0; (line = strsep(&at, "\n")) && *line; n_lines++)
		lines[n_lines] = strdup(line);
	free(text);
}

static struct keyring *ring_of(const char *json, enum sign_algorithm algorithm)
{
	struct keyring *ring = keyring_new();
	char why[KEYRING_WHY_MAX];

	ck_assert_msg(keyring_parse(ring, json, strlen(json), "test", algorithm, why) == 0, "%s",
		      why);
	return ring;
}

static struct keyring *vectors_ring(void)
{
	char *text = read_vector("keyring.json");
	struct keyring *ring = ring_of(text, SIGN_ED25519);

	free(text);
	return ring;
}

/* The counts of the lines, which end with NULL. */
static struct verifier_result judge(const struct keyring *ring, const char *const *those)
{
	struct verifier *v = verifier_new(ring);
	struct verifier_result result;

	for (uint64_t i = 0; those[i]; i++)
		ck_assert_int_eq(verifier_line(v, "f", i + 1, those[i], strlen(those[i])), 0);
	result = *verifier_finish(v);
	verifier_free(v);
	return result;
}

static void counts(const struct verifier_result *r, uint64_t verified, uint64_t bad,
		   uint64_t unverifiable, uint64_t is_unsigned, uint64_t missing, uint64_t open)
{
	ck_assert_uint_eq(r->verified, verified);
	ck_assert_uint_eq(r->count[FINDING_BAD], bad);
	ck_assert_uint_eq(r->count[FINDING_UNVERIFIABLE], unverifiable);
	ck_assert_uint_eq(r->count[FINDING_UNSIGNED], is_unsigned);
	ck_assert_uint_eq(r->count[FINDING_MISSING] > 0, missing);
	ck_assert_uint_eq(r->count[FINDING_OPEN], open);
}

START_TEST(the_golden_stream_is_signed_again)
{
	char key[] = "/tmp/cellos-seed-XXXXXX", why[SIGN_WHY_MAX], out[8192];
	const struct signer_options options = {
		.algorithm = "ed25519", .kid = "vector-key-1", .key_file = key};
	char *seed = read_vector("seed.txt");
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);
	struct signer *signer;
	int fd = mkstemp(key);

	ck_assert_int_eq(write(fd, seed, strlen(seed)), (ssize_t)strlen(seed));
	close(fd);
	ck_assert_msg(signer_open(&options, &signer, why) == 0, "%s", why);
	unlink(key);
	for (size_t i = 0; i < n_lines; i++) {
		char event[4096];
		struct signer_event e = {.json = event};
		const struct json_node *node;
		struct json_writer w;
		const char *bad;
		size_t len, offset;

		ck_assert_int_eq(json_document_read(doc, lines[i], strlen(lines[i]), &bad, &offset),
				 0);
		node = json_member(doc, json_member(doc, json_document_root(doc), "data"), "event");
		json_writer_init(&w, event, sizeof(event));
		json_write_canonical(doc, node, &w);
		ck_assert_int_eq(json_writer_done(&w, &e.json_len), 0);
		ck_assert(json_member_string(doc, node, "id", &e.id) &&
			  json_member_string(doc, node, "source", &e.source) &&
			  json_member_string(doc, node, "time", &e.time));
		ck_assert_int_eq(signer_write_line(signer, &e, out, sizeof(out), &len), 0);
		ck_assert_uint_eq(len, strlen(lines[i]) + 1);
		ck_assert_int_eq(memcmp(out, lines[i], len - 1), 0);
		ck_assert_int_eq(out[len - 1], '\n');
		/* At the line's length it fits, below it does not. */
		ck_assert_int_eq(signer_write_line(signer, &e, out, len, &len), 0);
		ck_assert_int_eq(signer_write_line(signer, &e, out, len - 1, &len), -ENOBUFS);
	}
	signer_free(signer);
	json_document_free(doc);
	free(seed);
}
END_TEST

START_TEST(whole_is_whole)
{
	struct keyring *ring = vectors_ring();
	struct verifier_result r = judge(ring, (const char *const *)lines);

	counts(&r, n_lines, 0, 0, 0, 0, 0);
	ck_assert_uint_eq(r.complete, r.streams);
	keyring_free(ring);
}
END_TEST

START_TEST(each_changed_byte_is_found)
{
	struct keyring *ring = vectors_ring();
	const size_t len = strlen(lines[0]);
	char *line = strdup(lines[0]);

	for (size_t i = 0; i < len; i++) {
		const char *const one[] = {line, NULL};
		struct verifier_result r;

		line[i] ^= 1;
		r = judge(ring, one);
		ck_assert_msg(r.verified == 0, "byte %zu of %s", i, line);
		line[i] ^= 1;
	}
	free(line);
	keyring_free(ring);
}
END_TEST

START_TEST(what_is_added_outside_the_signature_is_found)
{
	/* In front of these: in the envelope, then in its data. */
	static const char *const before[] = {"\"data\":{\"algorithm",
					     "\"type\":\"dev.cellos.events.signed",
					     "\"algorithm\":", "\"signerKid\":"};
	struct keyring *ring = vectors_ring();

	for (size_t i = 0; i < ARRAY_SIZE(before); i++) {
		const char *at = strstr(lines[0], before[i]);
		const char *one[2] = {NULL};
		struct verifier_result r;
		char *line;

		ck_assert(at != NULL);
		ck_assert_int_gt(asprintf(&line, "%.*s\"cellId\":\"forged\",%s",
					  (int)(at - lines[0]), lines[0], at),
				 0);
		one[0] = line;
		r = judge(ring, one);
		counts(&r, 0, 1, 0, 0, 0, 0);
		ck_assert_msg(strstr(r.places[FINDING_BAD][0].why, "member"), "%s",
			      r.places[FINDING_BAD][0].why);
		free(line);
	}
	keyring_free(ring);
}
END_TEST

START_TEST(each_line_that_is_gone_is_missed)
{
	struct keyring *ring = vectors_ring();

	for (size_t gone = 0; gone < n_lines; gone++) {
		const char *those[LINES_MAX + 1];
		struct verifier_result r;
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
END_TEST

START_TEST(repeated_and_swapped_are_found)
{
	struct keyring *ring = vectors_ring();
	const char *those[LINES_MAX + 2];
	struct verifier_result r;

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
END_TEST

START_TEST(without_the_key_nothing_is_said_of_it)
{
	struct keyring *ring = ring_of(
		"{\"another\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", SIGN_ED25519);
	struct verifier_result r = judge(ring, (const char *const *)lines);

	ck_assert_uint_eq(r.count[FINDING_UNVERIFIABLE], n_lines);
	ck_assert_uint_eq(r.verified + r.count[FINDING_BAD], 0);
	keyring_free(ring);
}
END_TEST

START_TEST(a_public_key_is_no_hmac_key)
{
	/* Who knows the public key makes a MAC with it and calls that the algorithm. */
	char *text = read_vector("keyring.json");
	struct keyring *ring = ring_of(text, SIGN_ED25519);
	struct keyring_key key;

	ck_assert(keyring_find(ring, SIGN_ED25519, wire_text("vector-key-1"), &key));
	ck_assert(!keyring_find(ring, SIGN_HMAC_SHA256, wire_text("vector-key-1"), &key));
	ck_assert(!keyring_find(ring, SIGN_ED25519, wire_text("vector-key-"), &key));
	keyring_free(ring);
	free(text);
}
END_TEST

START_TEST(keyrings_are_refused_with_a_reason)
{
	static const struct {
		const char *json, *why;
	} bad[] = {
		{"", "test:"},
		{"[]", "expected an object"},
		{"{\"a\":1}", "base64url"},
		{"{\"a\":\"!\"}", "base64url"},
		{"{\"a\":\"AAAA\"}", "3 bytes"},
		{"{\"a b\":\"AAAA\"}", "kid"},
		{"{\"\":\"AAAA\"}", "kid"},
		{"{\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
		 "\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
		 "duplicate"},
		{"{\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", "33 bytes"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct keyring *ring = keyring_new();
		char why[KEYRING_WHY_MAX] = "";

		ck_assert_int_lt(keyring_parse(ring, bad[i].json, strlen(bad[i].json), "test",
					       SIGN_ED25519, why),
				 0);
		ck_assert_msg(strstr(why, bad[i].why) != NULL, "%s: %s", bad[i].json, why);
		keyring_free(ring);
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("sign");

	tcase_add_unchecked_fixture(tc, read_lines, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, the_golden_stream_is_signed_again);
	tcase_add_test(tc, whole_is_whole);
	tcase_add_test(tc, each_changed_byte_is_found);
	tcase_add_test(tc, what_is_added_outside_the_signature_is_found);
	tcase_add_test(tc, each_line_that_is_gone_is_missed);
	tcase_add_test(tc, repeated_and_swapped_are_found);
	tcase_add_test(tc, without_the_key_nothing_is_said_of_it);
	tcase_add_test(tc, a_public_key_is_no_hmac_key);
	tcase_add_test(tc, keyrings_are_refused_with_a_reason);
	return unit_run("sign", &tc, 1);
}
