/* SPDX-License-Identifier: MIT */
/*
 * The wire contract: the golden frames, the encoder held against libcbor byte for byte, encode ->
 * decode as the identity, and every limit one below, at and one above.
 */
#include "common/wire.h"

#include <cbor.h>
#include <jansson.h>

#include "common/utf8.h"
#include "common/util.h"
#include "tests/unit/unit.h"

/* ---- golden frames ---- */

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		unsigned byte;

		ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (uint8_t)byte;
	}
	return n;
}

/* What a receiver does with the bytes of one connection that carries one frame. */
static enum wire_error receive(const uint8_t *data, size_t len, struct declaration *d,
			       struct wire_refusal *refusal)
{
	uint32_t body;

	*refusal = (struct wire_refusal){.error = WIRE_TRUNCATED};
	if (len < WIRE_PREFIX_SIZE)
		return WIRE_TRUNCATED;
	body = wire_decode_length(data);
	if (body < 1 || body > WIRE_BODY_ACCEPT_MAX)
		return wire_decode(data + WIRE_PREFIX_SIZE, body, d, refusal);
	if (len - WIRE_PREFIX_SIZE < body)
		return WIRE_TRUNCATED;
	return wire_decode(data + WIRE_PREFIX_SIZE, body, d, refusal);
}

static const char *as_string(struct wire_text text)
{
	static char copy[WIRE_DETAIL_TEXT_MAX + 1];

	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	return copy;
}

static void check_wanted(const char *name, const struct declaration *d, json_t *want)
{
	json_t *detail = json_object_get(want, "detail"), *value;
	const char *key;

	ck_assert_int_eq(d->content_version,
			 json_integer_value(json_object_get(want, "contentVersion")));
	ck_assert_str_eq(wire_source_name(d->source),
			 json_string_value(json_object_get(want, "probeSource")));
	ck_assert_int_eq(d->guest_pid, json_integer_value(json_object_get(want, "guestPid")));
	ck_assert_str_eq(as_string(d->guest_comm),
			 json_string_value(json_object_get(want, "guestComm")));
	ck_assert_int_eq((json_int_t)d->guest_monotonic_ns,
			 json_integer_value(json_object_get(want, "guestMonotonicNs")));
	ck_assert_int_eq((json_int_t)d->seq, json_integer_value(json_object_get(want, "seq")));
	ck_assert_msg(d->n_details == json_object_size(detail), "%s: %zu details", name,
		      d->n_details);
	json_object_foreach(detail, key, value)
	{
		const struct wire_detail *found = NULL;

		for (size_t i = 0; i < d->n_details; i++)
			if (strcmp(wire_key_camel(d->details[i].key).data, key) == 0)
				found = &d->details[i];
		ck_assert_msg(found != NULL, "%s: no detail %s", name, key);
		if (json_is_integer(value))
			ck_assert_int_eq((json_int_t)found->uint, json_integer_value(value));
		else
			ck_assert_str_eq(as_string(found->text), json_string_value(value));
	}
}

UNIT_TEST(golden_frames)
{
	char path[4096];
	json_t *frames, *entry;
	size_t i, accepted = 0;

	snprintf(path, sizeof(path), "%s/frames.json", unit_vectors());
	frames = json_load_file(path, 0, NULL);
	ck_assert_msg(json_array_size(frames) > 50, "%s cannot be read", path);
	json_array_foreach(frames, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "name"));
		const char *want = json_string_value(json_object_get(entry, "result"));
		const char *field = json_string_value(json_object_get(entry, "field"));
		const char *hex = json_string_value(json_object_get(entry, "frame"));
		/* The exact size, so that a read past the end is one past the allocation. */
		uint8_t *data = malloc(strlen(hex) / 2 + 1);
		size_t len = from_hex(hex, data);
		struct declaration d;
		struct wire_refusal refusal;
		enum wire_error error = receive(data, len, &d, &refusal);

		if (strcmp(want, "accepted") == 0) {
			ck_assert_msg(error == WIRE_OK, "%s: %s", name, wire_error_name(error));
			check_wanted(name, &d, json_object_get(entry, "want"));
			accepted++;
		} else {
			ck_assert_msg(strcmp(want, wire_error_name(error)) == 0,
				      "%s: %s instead of %s", name, wire_error_name(error), want);
			if (field)
				ck_assert_str_eq(refusal.field, field);
		}
		free(data);
	}
	ck_assert_uint_gt(accepted, 10);
	json_decref(frames);
}

/* ---- random declarations ---- */

struct texts {
	size_t used;
	char room[WIRE_DETAIL_PAIRS_MAX * WIRE_DETAIL_TEXT_MAX + WIRE_COMM_MAX];
};

static struct wire_text random_text(uint64_t *rng, struct texts *texts, size_t max)
{
	char raw[WIRE_DETAIL_TEXT_MAX];
	size_t len = unit_random(rng) % (max + 1), n;

	for (size_t i = 0; i < len; i++)
		raw[i] = (char)(unit_random(rng) & (unit_random(rng) % 4 ? 0x7f : 0xff));
	n = utf8_sanitize(raw, len, texts->room + texts->used, max);
	texts->used += n;
	return (struct wire_text){.data = texts->room + texts->used - n, .len = n};
}

static uint64_t random_uint(uint64_t *rng, uint64_t max)
{
	/* Every width of head comes up. */
	uint64_t v = unit_random(rng) >> (unit_random(rng) % 64);

	return v > max ? v & max : v;
}

/* A word that the key's vocabulary has, or NULL where any text will do. */
static const char *known_word(enum wire_key key)
{
	switch (key) {
	case WIRE_KEY_FAMILY: return "inet6";
	case WIRE_KEY_EVENT: return "modify,moved_to";
	case WIRE_KEY_ERROR: return "EACCES";
	case WIRE_KEY_RESULT: return "ECONNREFUSED";
	case WIRE_KEY_SESSION: return "0123456789abcdef";
	case WIRE_KEY_PROCESS_VIA:
	case WIRE_KEY_NET_VIA:
	case WIRE_KEY_CAPABILITY_VIA:
	case WIRE_KEY_FS_VIA: return "none";
	default: return NULL;
	}
}

static void add_random_text(uint64_t *rng, struct declaration *d, enum wire_key key,
			    struct texts *texts, size_t text_max)
{
	const char *word = known_word(key);

	declaration_add_text(d, key, word ? wire_text(word) : random_text(rng, texts, text_max));
}

static uint64_t uint_max(enum wire_key key)
{
	switch (key) {
	case WIRE_KEY_PORT: return WIRE_PORT_MAX;
	case WIRE_KEY_NEXT_SEQ:
	case WIRE_KEY_ASSIGNED: return WIRE_SEQ_MAX;
	default: return UINT64_MAX;
	}
}

static void random_declaration(uint64_t *rng, struct declaration *d, struct texts *texts,
			       size_t text_max)
{
	uint64_t allowed;

	texts->used = 0;
	*d = (struct declaration){
		.content_version = unit_random(rng) % 4 ? WIRE_VERSION_2 : WIRE_VERSION_1,
		.source = (enum wire_source)(unit_random(rng) % _WIRE_SOURCE_MAX),
		.guest_pid = (uint32_t)random_uint(rng, UINT32_MAX),
		.guest_comm = random_text(rng, texts, WIRE_COMM_MAX),
		.guest_monotonic_ns = random_uint(rng, WIRE_MONOTONIC_MAX),
	};
	if (d->content_version == WIRE_VERSION_1)
		return;
	if (wire_source_is_numbered(d->source))
		d->seq = 1 + random_uint(rng, WIRE_SEQ_MAX - 1);
	allowed = wire_source_allowed(d->source);
	for (enum wire_key key = 0; key < _WIRE_KEY_MAX; key++) {
		uint64_t bit = UINT64_C(1) << key;

		if (!(allowed & bit) ||
		    (!(wire_source_required(d->source) & bit) && unit_random(rng) % 2))
			continue;
		switch (wire_key_type(key)) {
		case WIRE_TYPE_UINT:
			declaration_add_uint(d, key, random_uint(rng, uint_max(key)));
			break;
		case WIRE_TYPE_BOOL: declaration_add_bool(d, key, unit_random(rng) % 2); break;
		default: add_random_text(rng, d, key, texts, text_max); break;
		}
	}
}

static cbor_item_t *cbor_text(struct wire_text text)
{
	return cbor_build_stringn(text.data, text.len);
}

/* libcbor's builders take a fixed width; this is the shortest. */
static cbor_item_t *cbor_shortest(uint64_t v)
{
	return v <= UINT8_MAX	 ? cbor_build_uint8((uint8_t)v)
	       : v <= UINT16_MAX ? cbor_build_uint16((uint16_t)v)
	       : v <= UINT32_MAX ? cbor_build_uint32((uint32_t)v)
				 : cbor_build_uint64(v);
}

static void cbor_put(cbor_item_t *map, const char *key, cbor_item_t *value)
{
	ck_assert(cbor_map_add(map, (struct cbor_pair){.key = cbor_move(cbor_build_string(key)),
						       .value = cbor_move(value)}));
}

static size_t encode_by_libcbor(const struct declaration *d, unsigned char *out, size_t size)
{
	const bool detail = d->content_version >= WIRE_VERSION_2 && d->n_details > 0;
	cbor_item_t *map = cbor_new_definite_map(5u + (d->seq > 0) + detail);
	size_t n;

	cbor_put(map, "content_version", cbor_shortest(d->content_version));
	cbor_put(map, "probe_source", cbor_text(wire_text(wire_source_name(d->source))));
	cbor_put(map, "guest_pid", cbor_shortest(d->guest_pid));
	cbor_put(map, "guest_comm", cbor_text(d->guest_comm));
	cbor_put(map, "guest_monotonic_ns", cbor_shortest(d->guest_monotonic_ns));
	if (d->seq > 0)
		cbor_put(map, "seq", cbor_shortest(d->seq));
	if (detail) {
		cbor_item_t *details = cbor_new_definite_map(d->n_details);

		for (size_t i = 0; i < d->n_details; i++) {
			const struct wire_detail *e = &d->details[i];

			cbor_put(details, wire_key_name(e->key),
				 e->type == WIRE_TYPE_UINT   ? cbor_shortest(e->uint)
				 : e->type == WIRE_TYPE_BOOL ? cbor_build_bool(e->boolean)
							     : cbor_text(e->text));
		}
		cbor_put(map, "detail", details);
	}
	n = cbor_serialize(map, out, size);
	cbor_decref(&map);
	return n;
}

#define RANDOM_ROUNDS 20000

UNIT_TEST(encoder_equals_libcbor)
{
	static struct texts texts;
	uint64_t rng = unit_seed();

	for (int i = 0; i < RANDOM_ROUNDS; i++) {
		uint8_t ours[WIRE_FRAME_SEND_MAX];
		unsigned char theirs[WIRE_FRAME_SEND_MAX];
		struct declaration d;
		size_t want;
		int n;

		random_declaration(&rng, &d, &texts, 200);
		n = wire_encode(&d, ours, sizeof(ours));
		want = encode_by_libcbor(&d, theirs, sizeof(theirs));
		ck_assert_int_eq(n, (int)(want + WIRE_PREFIX_SIZE));
		ck_assert_uint_eq(wire_decode_length(ours), want);
		ck_assert_mem_eq(ours + WIRE_PREFIX_SIZE, theirs, want);
	}
}

static void same_text(struct wire_text a, struct wire_text b)
{
	ck_assert_uint_eq(a.len, b.len);
	if (a.len > 0)
		ck_assert_mem_eq(a.data, b.data, a.len);
}

static void same_declaration(const struct declaration *a, const struct declaration *b)
{
	ck_assert_int_eq(a->content_version, b->content_version);
	ck_assert_int_eq(a->source, b->source);
	ck_assert_uint_eq(a->guest_pid, b->guest_pid);
	same_text(a->guest_comm, b->guest_comm);
	ck_assert_uint_eq(a->guest_monotonic_ns, b->guest_monotonic_ns);
	ck_assert_uint_eq(a->seq, b->seq);
	ck_assert_uint_eq(a->n_details, b->n_details);
	for (size_t i = 0; i < a->n_details; i++) {
		ck_assert_int_eq(a->details[i].key, b->details[i].key);
		ck_assert_int_eq(a->details[i].type, b->details[i].type);
		if (a->details[i].type == WIRE_TYPE_TEXT)
			same_text(a->details[i].text, b->details[i].text);
		else if (a->details[i].type == WIRE_TYPE_UINT)
			ck_assert_uint_eq(a->details[i].uint, b->details[i].uint);
		else
			ck_assert_int_eq(a->details[i].boolean, b->details[i].boolean);
	}
}

UNIT_TEST(encode_then_decode_is_identity)
{
	static struct texts texts;
	uint64_t rng = unit_seed();

	for (int i = 0; i < RANDOM_ROUNDS; i++) {
		uint8_t frame[WIRE_FRAME_SEND_MAX];
		struct declaration d, back;
		struct wire_refusal refusal;
		int n;

		random_declaration(&rng, &d, &texts, 200);
		n = wire_encode(&d, frame, sizeof(frame));
		ck_assert_int_gt(n, 0);
		ck_assert_int_eq(receive(frame, (size_t)n, &back, &refusal), WIRE_OK);
		same_declaration(&d, &back);
	}
}

/* Cut anywhere and flipped anywhere: an answer, never a crash (the sanitizers watch). */
UNIT_TEST(damaged_frames_are_answered)
{
	static struct texts texts;
	uint64_t rng = unit_seed();

	for (int i = 0; i < 2000; i++) {
		uint8_t frame[WIRE_FRAME_SEND_MAX];
		struct declaration d;
		struct wire_refusal refusal;
		int n;

		random_declaration(&rng, &d, &texts, 40);
		n = wire_encode(&d, frame, sizeof(frame));
		for (int cut = 1; cut < n - (int)WIRE_PREFIX_SIZE; cut++) {
			uint8_t *body = malloc((size_t)cut);

			memcpy(body, frame + WIRE_PREFIX_SIZE, (size_t)cut);
			ck_assert_int_eq(wire_decode(body, (size_t)cut, &d, &refusal),
					 WIRE_MALFORMED_CBOR);
			free(body);
		}
		for (int flip = 0; flip < 20; flip++) {
			frame[WIRE_PREFIX_SIZE + unit_random(&rng) % (unsigned)(n - 4)] ^=
				(uint8_t)(1u << unit_random(&rng) % 8);
			wire_decode(frame + WIRE_PREFIX_SIZE, (size_t)n - WIRE_PREFIX_SIZE, &d,
				    &refusal);
		}
	}
}

/* ---- limits, one below, at, one above ---- */

static struct declaration spawned(void)
{
	struct declaration d = {
		.content_version = WIRE_VERSION_2,
		.source = WIRE_PROCESS_SPAWNED,
		.guest_pid = 1,
		.guest_comm = wire_text("x"),
		.seq = 1,
	};

	declaration_add_uint(&d, WIRE_KEY_PPID, 1);
	return d;
}

UNIT_TEST(encoder_refuses_what_is_out_of_range)
{
	static char long_comm[WIRE_COMM_MAX + 1];
	uint8_t frame[WIRE_FRAME_SEND_MAX];
	struct declaration d = spawned();
	int n;

	memset(long_comm, 'c', sizeof(long_comm));
	d.guest_comm = (struct wire_text){long_comm, WIRE_COMM_MAX};
	ck_assert_int_gt(wire_encode(&d, frame, sizeof(frame)), 0);
	d.guest_comm.len++;
	ck_assert_int_eq(wire_encode(&d, frame, sizeof(frame)), -EINVAL);

	d = spawned();
	d.guest_monotonic_ns = WIRE_MONOTONIC_MAX;
	n = wire_encode(&d, frame, sizeof(frame));
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(wire_encode(&d, frame, (size_t)n), n);
	ck_assert_int_eq(wire_encode(&d, frame, (size_t)n - 1), -EMSGSIZE);
	d.guest_monotonic_ns++;
	ck_assert_int_eq(wire_encode(&d, frame, sizeof(frame)), -EINVAL);
}

/* The body of exactly the limit is sent, one byte more is not. */
UNIT_TEST(encoder_body_limit)
{
	static char filler[WIRE_DETAIL_TEXT_MAX];
	uint8_t frame[WIRE_FRAME_SEND_MAX + 64];
	struct declaration d = {
		.content_version = WIRE_VERSION_2,
		.source = WIRE_NET_CONNECT_ATTEMPTED,
		.guest_comm = wire_text(""),
		.seq = 1,
	};
	int n;

	memset(filler, 'f', sizeof(filler));
	declaration_add_text(&d, WIRE_KEY_FAMILY, (struct wire_text){filler, sizeof(filler)});
	declaration_add_text(&d, WIRE_KEY_ADDRESS, (struct wire_text){filler, sizeof(filler)});
	declaration_add_text(&d, WIRE_KEY_EXE, (struct wire_text){filler, sizeof(filler)});
	declaration_add_text(&d, WIRE_KEY_VIA, (struct wire_text){filler, 512});
	n = wire_encode(&d, frame, sizeof(frame));
	ck_assert_int_gt(n, 0);
	d.details[3].text.len += WIRE_FRAME_SEND_MAX - (size_t)n;
	ck_assert_int_eq(wire_encode(&d, frame, sizeof(frame)), WIRE_FRAME_SEND_MAX);
	d.details[3].text.len++;
	ck_assert_int_eq(wire_encode(&d, frame, sizeof(frame)), -EMSGSIZE);
}

UNIT_TEST(added_text_is_cut_at_a_character)
{
	static char euros[3 * WIRE_DETAIL_TEXT_MAX];
	struct declaration d = {.source = WIRE_FS_INOTIFY_FIRED};

	for (size_t i = 0; i < sizeof(euros); i += 3)
		memcpy(euros + i, "\xe2\x82\xac", 3);
	declaration_add_text(&d, WIRE_KEY_PATH, (struct wire_text){euros, sizeof(euros)});
	ck_assert_uint_eq(d.details[0].text.len, WIRE_DETAIL_TEXT_MAX - WIRE_DETAIL_TEXT_MAX % 3);
}

/* A hand-made body: the mandatory fields and then what a test adds. */
struct body {
	size_t len;
	uint8_t data[WIRE_BODY_ACCEPT_MAX + 64];
};

static void body_raw(struct body *b, const void *data, size_t len)
{
	ck_assert_uint_le(b->len + len, sizeof(b->data));
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void body_head(struct body *b, uint8_t major, uint32_t v)
{
	uint8_t head[5] = {(uint8_t)(major | 26), (uint8_t)(v >> 24), (uint8_t)(v >> 16),
			   (uint8_t)(v >> 8), (uint8_t)v};

	body_raw(b, head, sizeof(head));
}

static void body_text(struct body *b, const char *s)
{
	body_head(b, 0x60, (uint32_t)strlen(s));
	body_raw(b, s, strlen(s));
}

static void body_uint64(struct body *b, uint64_t v)
{
	body_raw(b, "\x1b", 1);
	for (int shift = 56; shift >= 0; shift -= 8)
		body_raw(b, (uint8_t[]){(uint8_t)(v >> shift)}, 1);
}

static void body_start(struct body *b, unsigned extra, unsigned version, const char *source)
{
	b->len = 0;
	body_head(b, 0xa0, 5 + extra);
	body_text(b, "content_version");
	body_head(b, 0x00, version);
	body_text(b, "probe_source");
	body_text(b, source);
	body_text(b, "guest_pid");
	body_head(b, 0x00, 7);
	body_text(b, "guest_comm");
	body_text(b, "w");
	body_text(b, "guest_monotonic_ns");
	body_head(b, 0x00, 42);
}

static enum wire_error body_decode(const struct body *b, struct wire_refusal *refusal,
				   struct declaration *d)
{
	return wire_decode(b->data, b->len, d, refusal);
}

static struct body body;

static void expect(enum wire_error want, const char *field)
{
	struct wire_refusal refusal = {0};
	struct declaration d;
	enum wire_error error = body_decode(&body, &refusal, &d);

	ck_assert_str_eq(wire_error_name(error), wire_error_name(want));
	if (field)
		ck_assert_str_eq(refusal.field, field);
	if (error)
		ck_assert_uint_le(refusal.offset, body.len);
}

UNIT_TEST(limit_body_length)
{
	static char filler[WIRE_BODY_ACCEPT_MAX];
	struct wire_refusal refusal;
	struct declaration d;

	for (int delta = -1; delta <= 1; delta++) {
		body_start(&body, 1, 1, "process.spawned");
		body_text(&body, "x");
		body_head(&body, 0x40, (uint32_t)(WIRE_BODY_ACCEPT_MAX - body.len - 5) + delta);
		body_raw(&body, filler, WIRE_BODY_ACCEPT_MAX - body.len + (size_t)delta);
		ck_assert_uint_eq(body.len, WIRE_BODY_ACCEPT_MAX + (size_t)delta);
		ck_assert_int_eq(body_decode(&body, &refusal, &d),
				 delta <= 0 ? WIRE_OK : WIRE_FRAME_LENGTH);
	}
	ck_assert_int_eq(wire_decode(body.data, 0, &d, &refusal), WIRE_FRAME_LENGTH);
}

UNIT_TEST(limit_pairs)
{
	for (unsigned pairs = WIRE_PAIRS_MAX - 1; pairs <= WIRE_PAIRS_MAX + 1; pairs++) {
		body_start(&body, pairs - 5, 1, "process.spawned");
		for (unsigned i = 5; i < pairs; i++) {
			body_text(&body, "unknown");
			body_head(&body, 0x00, i);
		}
		expect(pairs <= WIRE_PAIRS_MAX ? WIRE_OK : WIRE_TOO_MANY_PAIRS, NULL);

		/* The same inside an unknown field, by a map of indefinite length. */
		body_start(&body, 1, 1, "process.spawned");
		body_text(&body, "unknown");
		body_raw(&body, "\xbf", 1);
		for (unsigned i = 0; i < pairs; i++)
			body_raw(&body, "\x01\x02", 2);
		body_raw(&body, "\xff", 1);
		expect(pairs <= WIRE_PAIRS_MAX ? WIRE_OK : WIRE_TOO_MANY_PAIRS, NULL);
	}
}

UNIT_TEST(limit_detail_pairs)
{
	for (unsigned pairs = WIRE_DETAIL_PAIRS_MAX - 1; pairs <= WIRE_DETAIL_PAIRS_MAX + 1;
	     pairs++) {
		body_start(&body, 1, 2, "process.exited");
		body_text(&body, "detail");
		body_head(&body, 0xa0, pairs);
		for (unsigned i = 0; i < pairs; i++) {
			body_text(&body, "unknown");
			body_raw(&body, "\x82\x01\xf6", 3);
		}
		if (pairs <= WIRE_DETAIL_PAIRS_MAX)
			expect(WIRE_OK, NULL);
		else
			expect(WIRE_TOO_MANY_PAIRS, "detail");
	}
}

UNIT_TEST(limit_depth)
{
	for (unsigned depth = WIRE_DEPTH_MAX - 1; depth <= WIRE_DEPTH_MAX + 1; depth++) {
		body_start(&body, 1, 1, "process.spawned");
		body_text(&body, "unknown");
		for (unsigned i = 1; i < depth; i++)
			body_raw(&body, "\x81", 1);
		body_raw(&body, "\x01", 1);
		expect(depth <= WIRE_DEPTH_MAX ? WIRE_OK : WIRE_TOO_DEEP, NULL);
	}
}

UNIT_TEST(limit_texts)
{
	char text[WIRE_DETAIL_TEXT_MAX + 2];

	for (size_t len = WIRE_DETAIL_TEXT_MAX - 1; len <= WIRE_DETAIL_TEXT_MAX + 1; len++) {
		memset(text, 't', len);
		text[len] = '\0';
		body_start(&body, 1, 2, "telemetry.bye");
		body_text(&body, "detail");
		body_head(&body, 0xa0, 2);
		body_text(&body, "next_seq");
		body_head(&body, 0x00, 1);
		body_text(&body, "reason");
		body_text(&body, text);
		if (len <= WIRE_DETAIL_TEXT_MAX)
			expect(WIRE_OK, NULL);
		else
			expect(WIRE_OUT_OF_RANGE, "reason");
	}
	for (size_t len = 0; len <= WIRE_SOURCE_MAX + 1; len++) {
		memset(text, 's', len);
		text[len] = '\0';
		body_start(&body, 0, 1, text);
		expect(len >= 1 && len <= WIRE_SOURCE_MAX ? WIRE_UNKNOWN_SOURCE : WIRE_OUT_OF_RANGE,
		       "probe_source");
	}
}

UNIT_TEST(seq_from_one_and_only_for_observations)
{
	struct wire_refusal refusal;
	struct declaration d;

	body_start(&body, 1, 2, "process.exited");
	body_text(&body, "seq");
	body_head(&body, 0x00, 0);
	expect(WIRE_OUT_OF_RANGE, "seq");

	body_start(&body, 1, 2, "telemetry.heartbeat");
	body_text(&body, "seq");
	body_head(&body, 0x00, 9);
	ck_assert_int_eq(body_decode(&body, &refusal, &d), WIRE_OK);
	ck_assert_uint_eq(d.seq, 0);
}

UNIT_TEST(limit_numbers)
{
	static const uint64_t numbers[] = {WIRE_SEQ_MAX - 1, WIRE_SEQ_MAX, WIRE_SEQ_MAX + 1};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const bool fits = numbers[i] <= WIRE_SEQ_MAX;

		body_start(&body, 1, 2, "process.exited");
		body_text(&body, "seq");
		body_uint64(&body, numbers[i]);
		expect(fits ? WIRE_OK : WIRE_OUT_OF_RANGE, fits ? NULL : "seq");

		body_start(&body, 1, 2, "telemetry.bye");
		body_text(&body, "detail");
		body_head(&body, 0xa0, 2);
		body_text(&body, "reason");
		body_text(&body, "r");
		body_text(&body, "next_seq");
		body_uint64(&body, numbers[i]);
		expect(fits ? WIRE_OK : WIRE_OUT_OF_RANGE, fits ? NULL : "next_seq");
	}
}

/* One detail text of a source; the others that it needs are filled in. */
static void one_word(const char *source, const char *key, const char *value)
{
	static const char *const needed[] = {"family",	"address",	"syscall", "error",
					     "path",	"event",	"type",	   "protocol",
					     "session", "agent_version"};
	static const char *const words[] = {
		"inet", "a", "s", "EPERM", "p", "modify", "t", "p", "0123456789abcdef", "v"};
	unsigned pairs = 3;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		pairs += strcmp(needed[i], key) != 0;
	body_start(&body, 1, 2, source);
	body_text(&body, "detail");
	body_head(&body, 0xa0, pairs);
	body_text(&body, "next_seq");
	body_head(&body, 0x00, 1);
	body_text(&body, "port");
	body_head(&body, 0x00, 1);
	body_text(&body, key);
	body_text(&body, value);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (strcmp(needed[i], key) == 0)
			continue;
		body_text(&body, needed[i]);
		body_text(&body, words[i]);
	}
}

UNIT_TEST(words_are_those_of_the_contract)
{
	static const struct {
		const char *source, *key, *value;
		bool allowed;
	} cases[] = {
		{"net.connect_attempted", "family", "vsock", true},
		{"net.connect_attempted", "family", "packet", false},
		{"net.connect_attempted", "family", "inet7", false},
		{"net.socket_created", "family", "packet", true},
		{"net.socket_created", "family", "vsock", false},
		{"net.connect_attempted", "result", "ok", true},
		{"net.connect_attempted", "result", "ECONNREFUSED", true},
		{"net.connect_attempted", "result", "#133", true},
		{"net.connect_attempted", "result", "E", false},
		{"net.connect_attempted", "result", "refused", false},
		{"net.connect_attempted", "result", "", false},
		{"capability.denied", "error", "ENOSYS", true},
		{"capability.denied", "error", "ok", false},
		{"fs.inotify_fired", "event", "modify", true},
		{"fs.inotify_fired", "event", "create,moved_to", true},
		{"fs.inotify_fired", "event", "close_write", false},
		{"fs.inotify_fired", "event", "create,", false},
		{"fs.inotify_fired", "event", "", false},
		{"fs.changed", "event", "modify,close_write", true},
		{"fs.changed", "event", "modify,open", false},
		{"telemetry.hello", "session", "0123456789abcdef", true},
		{"telemetry.hello", "session", "0123456789abcde", false},
		{"telemetry.hello", "session", "0123456789abcdef0", false},
		{"telemetry.hello", "session", "0123456789ABCDEF", false},
		{"telemetry.hello", "process_via", "proc-walk", true},
		{"telemetry.hello", "process_via", "inotify", false},
		{"telemetry.hello", "net_via", "cgroup-bpf", true},
		{"telemetry.hello", "net_via", "", false},
		{"telemetry.hello", "capability_via", "seccomp-notify-stale", true},
		{"telemetry.hello", "capability_via", "seccomp", false},
		{"telemetry.hello", "fs_via", "fanotify+inotify", true},
		{"telemetry.hello", "fs_via", "inotify+fanotify", false},
		{"capability.denied", "via", "anything", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		one_word(cases[i].source, cases[i].key, cases[i].value);
		expect(cases[i].allowed ? WIRE_OK : WIRE_OUT_OF_RANGE,
		       cases[i].allowed ? NULL : cases[i].key);
	}
}

/* Sixteen bits, thirty-two where the family is vsock, in whatever order the two come. */
UNIT_TEST(limit_port)
{
	static const struct {
		const char *family;
		uint64_t port;
		bool allowed;
	} cases[] = {
		{"inet", 65534, true},	     {"inet6", 65535, true},
		{"inet", 65536, false},	     {"vsock", 4294967294, true},
		{"vsock", UINT32_MAX, true}, {"vsock", 1ull << 32, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		body_start(&body, 1, 2, "net.connect_attempted");
		body_text(&body, "detail");
		body_head(&body, 0xa0, 3);
		body_text(&body, "port");
		body_uint64(&body, cases[i].port);
		body_text(&body, "family");
		body_text(&body, cases[i].family);
		body_text(&body, "address");
		body_text(&body, "a");
		expect(cases[i].allowed ? WIRE_OK : WIRE_OUT_OF_RANGE,
		       cases[i].allowed ? NULL : "port");
	}
}

/* One name, two types: the source decides. */
UNIT_TEST(capability_is_a_word_or_a_count)
{
	struct wire_refusal refusal;
	struct declaration d;

	body_start(&body, 2, 2, "telemetry.dropped");
	body_text(&body, "seq");
	body_head(&body, 0x00, 77);
	body_text(&body, "detail");
	body_head(&body, 0xa0, 5);
	body_text(&body, "queue_full");
	body_head(&body, 0x00, 1);
	body_text(&body, "too_large");
	body_head(&body, 0x00, 2);
	body_text(&body, "channel");
	body_head(&body, 0x00, 3);
	body_text(&body, "kernel_overrun");
	body_head(&body, 0x00, 4);
	body_text(&body, "capability");
	body_head(&body, 0x00, 5);
	ck_assert_int_eq(body_decode(&body, &refusal, &d), WIRE_OK);
	ck_assert_uint_eq(d.seq, 77);
	ck_assert_int_eq(d.details[4].key, WIRE_KEY_CAPABILITY_LOST);
	ck_assert_uint_eq(d.details[4].uint, 5);
	ck_assert_str_eq(wire_key_camel(WIRE_KEY_CAPABILITY_LOST).data, "capability");

	one_word("capability.denied", "capability", "CAP_KILL");
	ck_assert_int_eq(body_decode(&body, &refusal, &d), WIRE_OK);
}

UNIT_TEST(acknowledgements_are_little_endian)
{
	static const uint8_t want[WIRE_ACK_SIZE] = {0x01, 0xef, 0xcd, 0xab, 0x89,
						    0x67, 0x45, 0x23, 0x01};
	uint8_t out[WIRE_ACK_SIZE];

	wire_ack_encode(out, 0x0123456789abcdef);
	ck_assert_mem_eq(out, want, sizeof(want));
	ck_assert_uint_eq(wire_ack_decode(want), 0x0123456789abcdef);
}

static void detail_with(const char *key, const void *value, size_t len)
{
	body_start(&body, 1, 2, "process.spawned");
	body_text(&body, "detail");
	body_head(&body, 0xa0, 2);
	body_text(&body, "ppid");
	body_head(&body, 0x00, 1);
	body_text(&body, key);
	body_raw(&body, value, len);
}

UNIT_TEST(details_are_the_source_s_own)
{
	/* port belongs to another source: skipped, whatever its type. */
	detail_with("port", "\x61x", 2);
	expect(WIRE_OK, NULL);
	detail_with("ppid", "\x02", 1);
	expect(WIRE_DUPLICATE_FIELD, "ppid");
	detail_with("unknown", "\x9f\x01\xff", 3);
	expect(WIRE_OK, NULL);
	detail_with("unknown", "\xff", 1);
	expect(WIRE_MALFORMED_CBOR, NULL);

	body_start(&body, 1, 2, "process.spawned");
	body_text(&body, "detail");
	body_head(&body, 0xa0, 0);
	expect(WIRE_MISSING_FIELD, "ppid");

	body_start(&body, 1, 2, "process.spawned");
	body_text(&body, "detail");
	body_raw(&body, "\xa1\x64ppid\x20", 7);
	expect(WIRE_BAD_TYPE, "ppid");

	body_start(&body, 1, 2, "process.spawned");
	body_text(&body, "detail");
	body_raw(&body, "\xbf\x64ppid\x01\xff", 8);
	expect(WIRE_INDEFINITE_LENGTH, "detail");

	body_start(&body, 1, 2, "process.spawned");
	body_text(&body, "detail");
	body_raw(&body, "\x80", 1);
	expect(WIRE_BAD_TYPE, "detail");

	/* The same nonsense is an unknown field to version 1. */
	body_start(&body, 1, 1, "process.spawned");
	body_text(&body, "detail");
	body_raw(&body, "\x80", 1);
	expect(WIRE_OK, NULL);
}

UNIT_TEST(unknown_fields_hold_anything_well_formed)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum wire_error want;
	} values[] = {
		{"\xf6", 1, WIRE_OK},		      /* null */
		{"\xf7", 1, WIRE_OK},		      /* undefined */
		{"\xe5", 1, WIRE_OK},		      /* unassigned simple value */
		{"\xf8\x20", 2, WIRE_OK},	      /* the same, two bytes */
		{"\xf8\x10", 2, WIRE_MALFORMED_CBOR}, /* RFC 8949 3.3: not well-formed */
		{"\xf9\x3c\x00", 3, WIRE_OK},	      /* half-precision 1.0 */
		{"\xc1\x01", 2, WIRE_OK},	      /* a tag */
		{"\xc1\xc2\x41\x00", 4, WIRE_OK},     /* a tag on a tag */
		{"\xc6\x01", 2, WIRE_OK},	      /* tags that libcbor 0.8 refuses */
		{"\xd0\xd2\xd4\x01", 4, WIRE_OK},     /* among them COSE's */
		{"\xd7\x40", 2, WIRE_OK},
		{"\xd8\x18\x40", 3, WIRE_OK},
		{"\xdc\x01", 2, WIRE_MALFORMED_CBOR},	      /* a reserved head */
		{"\xc1\xff", 2, WIRE_MALFORMED_CBOR},	      /* a tag on nothing */
		{"\x5f\x41\x00\x41\x01\xff", 6, WIRE_OK},     /* chunked bytes */
		{"\x7f\x61x\xff", 4, WIRE_OK},		      /* chunked text */
		{"\x7f\x41x\xff", 4, WIRE_MALFORMED_CBOR},    /* bytes as a chunk of text */
		{"\x7f\x7f\xff\xff", 4, WIRE_MALFORMED_CBOR}, /* a chunk of chunks */
		{"\xbf\x01\xff", 3, WIRE_MALFORMED_CBOR},     /* a key without a value */
		{"\x1c", 1, WIRE_MALFORMED_CBOR},	      /* a reserved head */
	};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		body_start(&body, 1, 1, "process.spawned");
		body_text(&body, "unknown");
		body_raw(&body, values[i].bytes, values[i].len);
		expect(values[i].want, NULL);
	}
}

UNIT_TEST(keys_at_the_top_are_text)
{
	body_start(&body, 1, 1, "process.spawned");
	body_raw(&body, "\x01\x02", 2);
	expect(WIRE_BAD_TYPE, NULL);
	body_start(&body, 1, 1, "process.spawned");
	body_raw(&body, "\x7f\x61x\xff\x02", 5);
	expect(WIRE_INDEFINITE_LENGTH, NULL);
}

UNIT_TEST(another_major_wins_over_everything_but_form)
{
	struct wire_refusal refusal;
	struct declaration d;

	body.len = 0;
	body_raw(&body, "\xbf", 1);
	body_text(&body, "content_version");
	body_head(&body, 0x00, 0x0307);
	body_raw(&body, "\x01\xf6\xff", 3);
	ck_assert_int_eq(body_decode(&body, &refusal, &d), WIRE_UNSUPPORTED_VERSION);
	ck_assert_int_eq(refusal.content_version, 0x0307);

	body_raw(&body, "\x00", 1);
	expect(WIRE_TRAILING_BYTES, NULL);
}

/* Arrays in arrays, as deep as a body can be. */
static void body_nested(unsigned version, size_t depth)
{
	body.len = 0;
	body_raw(&body, "\xa2\x61x", 3);
	for (size_t i = 0; i < depth; i++)
		body_raw(&body, "\x81", 1);
	body_raw(&body, "\x01", 1);
	body_text(&body, "content_version");
	body_head(&body, 0x00, version);
}

UNIT_TEST(another_major_wins_over_limits)
{
	const size_t deepest = WIRE_BODY_ACCEPT_MAX - 3 - 1 - 5 - 15 - 5;

	for (size_t depth = WIRE_DEPTH_MAX - 1; depth <= WIRE_DEPTH_MAX + 1; depth++) {
		body_nested(0x0107, depth);
		expect(WIRE_UNSUPPORTED_VERSION, "content_version");
	}
	body_nested(0x0107, deepest);
	ck_assert_uint_eq(body.len, WIRE_BODY_ACCEPT_MAX);
	expect(WIRE_UNSUPPORTED_VERSION, "content_version");
	/* The same of our own major, and the same cut short, are what they were. */
	body_nested(0x0002, deepest);
	expect(WIRE_TOO_DEEP, NULL);
	body_nested(0x0107, deepest);
	body.len--;
	expect(WIRE_TOO_DEEP, NULL);

	body.len = 0;
	body_head(&body, 0xa0, 1000);
	for (unsigned i = 0; i < 999; i++)
		body_raw(&body, "\x00\x00", 2);
	body_text(&body, "content_version");
	body_head(&body, 0x00, 0x0100);
	expect(WIRE_UNSUPPORTED_VERSION, "content_version");
	body.len--;
	expect(WIRE_TOO_MANY_PAIRS, NULL);

	body.len = 0;
	body_raw(&body, "\xbf", 1);
	for (unsigned i = 0; i < 999; i++)
		body_raw(&body, "\x00\x00", 2);
	body_text(&body, "content_version");
	body_head(&body, 0x00, 0x0100);
	body_raw(&body, "\xff", 1);
	expect(WIRE_UNSUPPORTED_VERSION, "content_version");
}

UNIT_TEST(unknown_source_keeps_its_zeros)
{
	struct wire_refusal refusal;
	struct declaration d;
	uint8_t *zero;

	body_start(&body, 0, 2, "process.x?y");
	zero = memchr(body.data, '?', body.len);
	*zero = 0;
	ck_assert_int_eq(body_decode(&body, &refusal, &d), WIRE_UNKNOWN_SOURCE);
	ck_assert_uint_eq(refusal.source.len, 11);
	ck_assert_mem_eq(refusal.source.data, "process.x\0y", 11);
}

UNIT_TEST(tables_agree)
{
	for (enum wire_key key = 0; key < _WIRE_KEY_MAX; key++) {
		/* Equal names have two types, and no source has both. */
		if (key > 0)
			ck_assert_str_ge(wire_key_camel(key).data, wire_key_camel(key - 1).data);
		if (key > 0 && strcmp(wire_key_name(key), wire_key_name(key - 1)) == 0)
			ck_assert_int_ne(wire_key_type(key), wire_key_type(key - 1));
	}
	for (enum wire_source s = 0; s < _WIRE_SOURCE_MAX; s++) {
		ck_assert_int_eq(wire_source_from_name(wire_text(wire_source_name(s))), s);
		ck_assert_int_le(__builtin_popcountll(wire_source_allowed(s)),
				 (int)WIRE_DETAIL_PAIRS_MAX);
		for (enum wire_key key = 0; key < _WIRE_KEY_MAX; key++)
			ck_assert_int_eq(wire_key_from_name(s, wire_text(wire_key_name(key))) ==
						 key,
					 wire_source_allowed(s) >> key & 1);
	}
	ck_assert_int_eq(wire_source_from_name(wire_text("process.spawne")), _WIRE_SOURCE_INVALID);
	ck_assert_int_eq(wire_key_from_name(WIRE_PROCESS_SPAWNED, wire_text("")),
			 _WIRE_KEY_INVALID);
}
