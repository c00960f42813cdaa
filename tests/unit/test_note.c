/* SPDX-License-Identifier: MIT */
/* Checkpoints: written and read again, every damage refused, and the golden log's held true. */
#include <ctype.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/evidence/note.h"
#include "tests/unit/unit.h"

#define ORIGIN "example.org/host-7/0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a11"

static struct tree_hasher *hasher;
static uint8_t seed[32], public_key[32], secret_key[64], golden_key[32];

static void setup(void)
{
	ck_assert_int_ge(sodium_init(), 0);
	hasher = tree_hasher_new();
	ck_assert_ptr_nonnull(hasher);
	memset(seed, 7, sizeof(seed));
	crypto_sign_seed_keypair(public_key, secret_key, seed);
	ck_assert_int_eq(sodium_base642bin(golden_key, sizeof(golden_key),
					   "YNo4OgMsIcSrIkmw1OaFr8KRLBIUZSZoluIgVF3NSIk", 43, NULL,
					   NULL, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
			 0);
}

static void teardown(void)
{
	tree_hasher_free(hasher);
}

static size_t make(const struct note_checkpoint *checkpoint, unsigned n,
		   char text[static NOTE_TEXT_MAX])
{
	struct note_signature signatures[NOTE_OWN_MAX];
	char body[NOTE_BODY_MAX];
	int len = note_format_body(checkpoint, body), r;

	ck_assert_int_gt(len, 0);
	for (unsigned i = 0; i < NOTE_OWN_MAX; i++) {
		ck_assert_int_eq(
			note_key_id(hasher, checkpoint->origin, public_key, signatures[i].key_id),
			0);
		crypto_sign_detached(signatures[i].bytes, NULL, (uint8_t *)body, (size_t)len,
				     secret_key);
	}
	signatures[1].key_id[0] ^= 1;
	r = note_format(checkpoint, signatures, n, text, NOTE_TEXT_MAX);
	ck_assert_int_gt(r, 0);
	ck_assert_uint_eq(strlen(text), (size_t)r);
	return (size_t)r;
}

static enum note_result check(const char *text, size_t len, const uint8_t key[32])
{
	uint8_t key_id[NOTE_KEY_ID_SIZE];
	struct note note;
	const char *why;

	ck_assert_msg(note_parse(text, len, &note, &why) == 0, "%s", why);
	ck_assert_int_eq(note_key_id(hasher, note.checkpoint.origin, key, key_id), 0);
	return note_check(&note, key_id, key);
}

UNIT_TEST(a_note_is_read_as_it_was_written)
{
	static const uint64_t sizes[] = {0, 1, 22, TREE_SIZE_MAX};
	char text[NOTE_TEXT_MAX];
	const char *why;
	struct note note;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (unsigned n = 1; n <= NOTE_OWN_MAX; n++) {
			struct note_checkpoint checkpoint = {.origin = ORIGIN, .size = sizes[i]};
			size_t len;

			memset(checkpoint.root.bytes, (int)(i + 1), TREE_HASH_SIZE);
			len = make(&checkpoint, n, text);
			ck_assert_int_eq(note_parse(text, len, &note, &why), 0);
			ck_assert_str_eq(note.checkpoint.origin, ORIGIN);
			ck_assert_uint_eq(note.checkpoint.size, sizes[i]);
			ck_assert(tree_hash_equal(&note.checkpoint.root, &checkpoint.root));
			ck_assert_uint_eq(note.n, n);
			ck_assert_int_eq(check(text, len, public_key), NOTE_SIGNED);
			ck_assert_int_eq(check(text, len, golden_key), NOTE_NO_KEY);
			text[strlen(ORIGIN) + 1 + (sizes[i] == 22)] = '1' + (sizes[i] == 1);
			if (sizes[i] < 100)
				ck_assert_int_eq(check(text, len, public_key), NOTE_WRONG);
		}
}

/* A zero byte ends no line of a note: "2", zero, anything is not the size 2. */
UNIT_TEST(a_size_has_no_zero_bytes)
{
	struct note_checkpoint checkpoint = {.origin = ORIGIN, .size = 222};
	char text[NOTE_TEXT_MAX];
	const size_t len = make(&checkpoint, 1, text), at = strlen(ORIGIN) + 1;
	const char *why = NULL;
	struct note note;

	text[at + 1] = '\0';
	ck_assert_int_lt(note_parse(text, len, &note, &why), 0);
	ck_assert_str_eq(why, "the second line of a checkpoint is not a size");
}

UNIT_TEST(limits_of_what_is_written)
{
	struct note_checkpoint checkpoint = {.origin = ORIGIN, .size = 1};
	struct note_signature signatures[NOTE_OWN_MAX + 1] = {0};
	char text[NOTE_TEXT_MAX], body[NOTE_BODY_MAX];
	int len = note_format(&checkpoint, signatures, 1, text, sizeof(text));

	ck_assert_int_gt(len, 0);
	ck_assert_int_eq(note_format(&checkpoint, signatures, 1, text, (size_t)len + 1), len);
	ck_assert_int_eq(note_format(&checkpoint, signatures, 1, text, (size_t)len), -ENOBUFS);
	ck_assert_int_eq(note_format(&checkpoint, signatures, 1, text, 10), -ENOBUFS);
	ck_assert_int_eq(note_format(&checkpoint, signatures, 0, text, sizeof(text)), -EINVAL);
	ck_assert_int_eq(note_format(&checkpoint, signatures, 3, text, sizeof(text)), -EINVAL);
	checkpoint.size = UINT64_C(1) << 63;
	ck_assert_int_eq(note_format_body(&checkpoint, body), -EINVAL);
	checkpoint.size--;
	ck_assert_int_gt(note_format_body(&checkpoint, body), 0);
	memset(checkpoint.origin, 'o', NOTE_ORIGIN_MAX);
	ck_assert_int_gt(note_format_body(&checkpoint, body), 0);
	ck_assert(note_origin_valid(checkpoint.origin, NOTE_ORIGIN_MAX));
	ck_assert(!note_origin_valid(checkpoint.origin, NOTE_ORIGIN_MAX + 1));
	for (int c = 0; c < 256; c++) {
		const char name[] = {'a', (char)c};
		const bool want = isalnum(c) || (c && strchr("._/-", c));

		ck_assert_msg(note_origin_valid(name, 2) == want, "byte %d", c);
	}
	ck_assert(!note_origin_valid("", 0));
	checkpoint.origin[3] = '\n';
	ck_assert_int_eq(note_format_body(&checkpoint, body), -EINVAL);
}

/* Lines put together from parts, so that each part can be wrong by itself. */
struct parts {
	const char *origin, *size, *root, *rest;
};

#define ROOT "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0/gsj7/JKZ91k="
#define BLOB                                                                                       \
	"1E2FITi9bDWdnMY8hoLW+3nRZMH8Y6WAOys5gWNFDgr7Tw9+ka1TfDuqghUW7F/"                          \
	"FFCLORFsEeDlw9qMK4wjvzhPxAA4="
#define DASH "\xe2\x80\x94 "
#define LINE DASH ORIGIN " " BLOB "\n"

static int parse_parts(const struct parts *p, struct note *note)
{
	char text[NOTE_TEXT_MAX];
	const char *why = NULL;
	int r;

	snprintf(text, sizeof(text), "%s\n%s\n%s\n%s", p->origin ? p->origin : ORIGIN,
		 p->size ? p->size : "1", p->root ? p->root : ROOT, p->rest ? p->rest : "\n" LINE);
	r = note_parse(text, strlen(text), note, &why);
	ck_assert_msg(r == 0 || (why && *why), "a reason is given");
	return r;
}

UNIT_TEST(only_the_exact_form_is_read)
{
	static const struct parts wrong[] = {
		{.origin = ""},
		{.origin = "a b"},
		{.origin = "a+b"},
		{.size = ""},
		{.size = "01"},
		{.size = "00"},
		{.size = "+1"},
		{.size = "-1"},
		{.size = " 1"},
		{.size = "1 "},
		{.size = "0x1"},
		{.size = "9223372036854775808"},
		{.size = "18446744073709551617"},
		{.size = "111111111111111111111111111111"},
		{.root = ""},
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0/gsj7/JKZ91k"},
		{.root = "3UTKeDkkeOX9GDQq-QwfS0IxYuPfSU0_gsj7_JKZ91k="},
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0/gsj7/JKZ91l="},
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0/gsj7/JKZ9 k="},
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0/gsj7/JKZ91kA"},
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0/gsj7/JKZ91k=\r"},
		/* Bytes that libsodium 1.0.18 takes for a slash. */
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0\xc9gsj7/JKZ91k="},
		{.root = "3UTKeDkkeOX9GDQq+QwfS0IxYuPfSU0\xafgsj7/JKZ91k="},
		{.rest = "\n" DASH ORIGIN " 1E2FITi9bDWdnMY8hoLW\xc9nRZMH8Y6WAOys5gWNFDgr7Tw9=\n"},
		{.rest = "\n"},
		{.rest = LINE},
		{.rest = "extension\n\n" LINE},
		{.rest = "\n\n" LINE},
		{.rest = "\n" LINE "\n"},
		{.rest = "\n- " ORIGIN " " BLOB "\n"},
		{.rest = "\n\xe2\x80\x94" ORIGIN " " BLOB "\n"},
		{.rest = "\n" DASH " " BLOB "\n"},
		{.rest = "\n" DASH "a+b " BLOB "\n"},
		{.rest = "\n" DASH ORIGIN "\n"},
		{.rest = "\n" DASH ORIGIN " \n"},
		{.rest = "\n" DASH ORIGIN " AAAAAA==\n"}, /* a key id alone */
		{.rest = "\n" DASH ORIGIN " AAAA\n"},
		{.rest = "\n" DASH ORIGIN " " BLOB " \n"},
		{.rest = "\n" DASH ORIGIN " " BLOB}, /* no newline */
		{.rest = "\n" LINE "x"},
	};
	static const struct parts right[] = {
		{0},
		{.size = "0"},
		{.size = "9223372036854775807"},
		{.origin = "w", .rest = "\n" LINE}, /* signed by somebody else only */
		{.rest = "\n" LINE LINE},
		{.rest = "\n" LINE DASH "witness.example AAAAAAA=\n"},
	};
	struct note note;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		ck_assert_msg(parse_parts(&wrong[i], &note) == -EBADMSG, "wrong %zu", i);
	for (size_t i = 0; i < ARRAY_SIZE(right); i++)
		ck_assert_msg(parse_parts(&right[i], &note) == 0, "right %zu", i);
	ck_assert_uint_eq(note.n, 1);
	ck_assert_uint_eq(note.lines, 2);
}

UNIT_TEST(many_signature_lines_are_a_limit)
{
	char text[NOTE_TEXT_MAX], huge[NOTE_TEXT_MAX + 1];
	const char *why;
	struct note note;

	for (unsigned n = NOTE_SIGNATURES_MAX - 1; n <= NOTE_SIGNATURES_MAX + 1; n++) {
		int len = snprintf(text, sizeof(text), ORIGIN "\n1\n" ROOT "\n\n");

		for (unsigned i = 0; i < n; i++)
			len += snprintf(text + len, sizeof(text) - (size_t)len, LINE);
		ck_assert_int_eq(note_parse(text, (size_t)len, &note, &why),
				 n <= NOTE_SIGNATURES_MAX ? 0 : -EBADMSG);
	}
	memset(huge, 'x', sizeof(huge));
	ck_assert_int_eq(note_parse(huge, sizeof(huge), &note, &why), -EBADMSG);
	ck_assert_str_eq(why, "a checkpoint is too long");
}

/* A line with the key's id and anything but its signature is wrong, whatever else is there. */
UNIT_TEST(a_known_key_id_must_have_signed)
{
	struct note_checkpoint checkpoint = {.origin = ORIGIN, .size = 3};
	char text[NOTE_TEXT_MAX], more[NOTE_TEXT_MAX + 256], short_blob[16];
	size_t len = make(&checkpoint, 2, text);
	uint8_t blob[5] = {0};

	ck_assert_int_eq(check(text, len, public_key), NOTE_SIGNED);
	ck_assert_int_eq(note_key_id(hasher, ORIGIN, public_key, blob), 0);
	sodium_bin2base64(short_blob, sizeof(short_blob), blob, sizeof(blob),
			  sodium_base64_VARIANT_ORIGINAL);
	snprintf(more, sizeof(more), "%s" DASH ORIGIN " %s\n", text, short_blob);
	ck_assert_int_eq(check(more, strlen(more), public_key), NOTE_WRONG);
	snprintf(more, sizeof(more), "%s" DASH "other %s\n", text, short_blob);
	ck_assert_int_eq(check(more, strlen(more), public_key), NOTE_SIGNED);
}

struct log_walk {
	struct json_document *doc;
	struct tree_frontier frontier;
	unsigned checkpoints, segments;
};

static void check_golden_note(struct log_walk *walk, struct wire_text text)
{
	struct tree_hash root;
	struct note note;
	const char *why;

	ck_assert_msg(note_parse(text.data, text.len, &note, &why) == 0, "%s", why);
	ck_assert_uint_eq(note.checkpoint.size, walk->frontier.size);
	ck_assert_int_eq(tree_frontier_root(hasher, &walk->frontier, &root), 0);
	ck_assert(tree_hash_equal(&root, &note.checkpoint.root));
	ck_assert_int_eq(check(text.data, text.len, golden_key), NOTE_SIGNED);
}

static void check_golden_frontier(struct log_walk *walk, const struct json_node *data)
{
	const struct json_node *hash =
		json_child(walk->doc, json_member(walk->doc, data, "frontier"));
	struct tree_hash decoded;
	unsigned n = 0;
	size_t len;

	for (; hash; hash = json_sibling(walk->doc, hash), n++) {
		ck_assert_int_eq(sodium_base642bin(decoded.bytes, TREE_HASH_SIZE, hash->text.data,
						   hash->text.len, NULL, &len, NULL,
						   sodium_base64_VARIANT_ORIGINAL),
				 0);
		ck_assert(tree_hash_equal(&decoded, &walk->frontier.hashes[n]));
	}
	ck_assert_uint_eq(n, tree_frontier_count(walk->frontier.size));
}

static void walk_line(struct log_walk *walk, const char *line, size_t len)
{
	const struct json_node *root, *data;
	struct wire_text type, text;
	struct tree_hash leaf;
	const char *why;
	size_t offset;

	ck_assert_int_eq(json_document_read(walk->doc, line, len, &why, &offset), 0);
	root = json_document_root(walk->doc);
	data = json_member(walk->doc, root, "data");
	ck_assert(json_member_string(walk->doc, root, "type", &type));
	if (memmem(type.data, type.len, "log_segment.v1", 14)) {
		walk->segments++;
		check_golden_frontier(walk, data);
		if (json_member_string(walk->doc, data, "checkpoint", &text))
			check_golden_note(walk, text);
	} else if (memmem(type.data, type.len, "log_checkpoint.v1", 17)) {
		walk->checkpoints++;
		ck_assert(json_member_string(walk->doc, data, "checkpoint", &text));
		check_golden_note(walk, text);
	} else {
		ck_assert_int_eq(tree_hash_leaf(hasher, line, len, &leaf), 0);
		ck_assert_int_eq(tree_frontier_append(hasher, &walk->frontier, &leaf), 0);
	}
}

UNIT_TEST(the_golden_log_holds)
{
	struct log_walk walk = {.doc = json_document_new(JSON_DOCUMENT_MAX)};
	_cleanup_free_ char *line = NULL;
	size_t size = 0;

	for (unsigned segment = 0; segment < 2; segment++) {
		char path[512];
		FILE *f;
		ssize_t n;

		snprintf(path, sizeof(path), "%s/log/good/evidence-%020u.jsonl", unit_vectors(),
			 segment);
		f = fopen(path, "r");
		ck_assert_msg(f != NULL, "%s", path);
		while ((n = getline(&line, &size, f)) > 0)
			walk_line(&walk, line, (size_t)n - 1);
		fclose(f);
	}
	ck_assert_uint_eq(walk.segments, 2);
	ck_assert_uint_gt(walk.checkpoints, 3);
	ck_assert_uint_eq(walk.frontier.size, 24);
	json_document_free(walk.doc);
}

UNIT_SUITE(.setup_once = setup, .teardown_once = teardown);
