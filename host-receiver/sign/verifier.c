/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/verifier.h"

#include <stdarg.h>

#include <sodium.h>

#include "common/log.h"
#include "common/util.h"
#include "host-receiver/event/json_document.h"

#define STREAM_ID_MAX 64u
#define TYPE_PREFIX   "dev.cellos.events.cell.observability."
#define TYPE_OPENED   TYPE_PREFIX "stream.v1.opened"
#define TYPE_SEALED   TYPE_PREFIX "stream.v1.sealed"

/* Of a transport CloudEvent, and of the data in it. */
#define ENVELOPE_MEMBERS      7u
#define ENVELOPE_DATA_MEMBERS 4u

struct stream {
	char id[STREAM_ID_MAX + 1];
	bool is_signed; /* unsigned records are another stream, whatever id they claim */
	bool opened, sealed, broken;
	uint64_t expected; /* the sequence that comes next */
	char *last_file;   /* owned: where its newest record stands */
	uint64_t last_line;
	struct stream *chain; /* next in the bucket */
};

struct verifier {
	const struct keyring *ring;
	struct json_document *doc;
	char *canonical; /* JSON_DOCUMENT_MAX bytes */
	struct stream **buckets;
	size_t n_buckets;
	struct verifier_result result;
};

/* What one line says, and what becomes of it. */
struct record {
	const struct json_node *event;
	const char *why;
	char why_room[VERIFIER_WHY_MAX];
	bool is_signed;
};

const char *finding_name(enum finding finding)
{
	static const char *const names[] = {
		[FINDING_BAD] = "bad",		 [FINDING_UNVERIFIABLE] = "unverifiable",
		[FINDING_UNSIGNED] = "unsigned", [FINDING_MISSING] = "missing",
		[FINDING_OPEN] = "unsealed",
	};

	return names[finding];
}

struct verifier *verifier_new(const struct keyring *ring)
{
	struct verifier *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->ring = ring;
	v->n_buckets = 1024;
	v->doc = json_document_new(JSON_DOCUMENT_MAX);
	v->canonical = malloc(JSON_DOCUMENT_MAX);
	v->buckets = calloc(v->n_buckets, sizeof(*v->buckets));
	if (!v->doc || !v->canonical || !v->buckets) {
		verifier_free(v);
		return NULL;
	}
	return v;
}

void verifier_free(struct verifier *v)
{
	if (!v)
		return;
	for (size_t i = 0; v->buckets && i < v->n_buckets; i++)
		while (v->buckets[i]) {
			struct stream *s = v->buckets[i];

			v->buckets[i] = s->chain;
			free(s->last_file);
			free(s);
		}
	for (size_t f = 0; f < _FINDING_MAX; f++)
		for (size_t i = 0; i < VERIFIER_PLACES_MAX; i++)
			free(v->result.places[f][i].file);
	free(v->buckets);
	free(v->canonical);
	json_document_free(v->doc);
	free(v);
}

static void note(struct verifier *v, enum finding finding, const char *file, uint64_t line,
		 const char *why)
{
	const uint64_t n = v->result.count[finding]++;
	struct verifier_place *place;

	if (n >= VERIFIER_PLACES_MAX)
		return;
	place = &v->result.places[finding][n];
	place->file = strdup(file);
	place->line = line;
	snprintf(place->why, sizeof(place->why), "%s", why);
}

void verifier_bad(struct verifier *v, const char *file, uint64_t number, const char *why)
{
	v->result.records++;
	note(v, FINDING_BAD, file, number, why);
}

/* ---- one record ---- */

static bool same(struct wire_text a, struct wire_text b)
{
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

static bool check_ed25519(const struct keyring_key *key, const uint8_t *signature, size_t len,
			  const char *data, size_t data_len)
{
	return len == crypto_sign_BYTES &&
	       crypto_sign_verify_detached(signature, (const uint8_t *)data, data_len,
					   key->bytes) == 0;
}

static bool check_hmac(const struct keyring_key *key, const uint8_t *signature, size_t len,
		       const char *data, size_t data_len)
{
	uint8_t want[crypto_auth_hmacsha256_BYTES];
	crypto_auth_hmacsha256_state state;

	crypto_auth_hmacsha256_init(&state, key->bytes, key->len);
	crypto_auth_hmacsha256_update(&state, (const uint8_t *)data, data_len);
	crypto_auth_hmacsha256_final(&state, want);
	return len == sizeof(want) && sodium_memcmp(want, signature, sizeof(want)) == 0;
}

static unsigned count_members(const struct verifier *v, const struct json_node *object)
{
	unsigned n = 0;

	for (const struct json_node *m = json_child(v->doc, object); m; m = json_sibling(v->doc, m))
		n++;
	return n;
}

/*
 * The attributes outside the signature must be the ones inside it. A record's members are all asked
 * for, here and for its signature: more than so many is something that nobody signed.
 */
static const char *check_envelope(const struct verifier *v, const struct json_node *envelope,
				  const struct json_node *data, const struct json_node *event)
{
	static const char *const repeated[] = {"id", "source", "time"};
	static const char *const fixed[][2] = {{"specversion", "1.0"},
					       {"datacontenttype", "application/json"}};
	struct wire_text outer, inner;

	for (size_t i = 0; i < ARRAY_SIZE(repeated); i++)
		if (!json_member_string(v->doc, envelope, repeated[i], &outer) ||
		    !json_member_string(v->doc, event, repeated[i], &inner) || !same(outer, inner))
			return "the envelope's id, source or time is not the event's";
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!json_member_string(v->doc, envelope, fixed[i][0], &outer) ||
		    !same(outer, wire_text(fixed[i][1])))
			return "the envelope's specversion or datacontenttype is not a record's";
	if (count_members(v, envelope) > ENVELOPE_MEMBERS ||
	    count_members(v, data) > ENVELOPE_DATA_MEMBERS)
		return "the envelope has a member that is not a record's";
	return NULL;
}

static bool known_algorithm(struct wire_text name, enum sign_algorithm *ret)
{
	char copy[32];

	if (name.len >= sizeof(copy))
		return false;
	memcpy(copy, name.data, name.len);
	copy[name.len] = '\0';
	return sign_algorithm_from_string(copy, ret) == 0 && *ret != SIGN_OFF;
}

/* Returns _FINDING_MAX when the signature holds. */
static enum finding check_signature(struct verifier *v, const struct json_node *data,
				    struct record *rec)
{
	uint8_t signature[128];
	struct wire_text algorithm_name, kid, text;
	enum sign_algorithm algorithm;
	struct json_writer w;
	struct keyring_key key;
	size_t len, canonical_len;
	const char *end;
	char escaped[160];

	if (!json_member_string(v->doc, data, "algorithm", &algorithm_name) ||
	    !json_member_string(v->doc, data, "signerKid", &kid) ||
	    !json_member_string(v->doc, data, "signature", &text)) {
		rec->why = "the envelope has no algorithm, signerKid or signature";
		return FINDING_BAD;
	}
	if (!known_algorithm(algorithm_name, &algorithm)) {
		rec->why = "an algorithm that is neither ed25519 nor hmac-sha256";
		return FINDING_BAD;
	}
	if (!keyring_find(v->ring, algorithm, kid, &key)) {
		snprintf(rec->why_room, sizeof(rec->why_room), "no %s key for kid %s",
			 sign_algorithm_name(algorithm),
			 log_escape(escaped, sizeof(escaped), kid.data, kid.len));
		rec->why = rec->why_room;
		return FINDING_UNVERIFIABLE;
	}
	if (sodium_base642bin(signature, sizeof(signature), text.data, text.len, NULL, &len, &end,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
	    end != text.data + text.len) {
		rec->why = "a signature that is not base64url";
		return FINDING_BAD;
	}
	json_writer_init(&w, v->canonical, JSON_DOCUMENT_MAX);
	json_write_canonical(v->doc, rec->event, &w);
	if (json_writer_done(&w, &canonical_len) < 0 ||
	    !(algorithm == SIGN_ED25519
		      ? check_ed25519(&key, signature, len, v->canonical, canonical_len)
		      : check_hmac(&key, signature, len, v->canonical, canonical_len))) {
		rec->why = "the signature is not of this event";
		return FINDING_BAD;
	}
	return _FINDING_MAX;
}

/* Returns _FINDING_MAX for a record that is verified. */
static enum finding judge(struct verifier *v, const char *line, size_t len, struct record *rec)
{
	const struct json_node *root, *data;
	struct wire_text type, id;
	const char *phrase;
	enum finding finding;
	size_t offset;
	int r = json_document_read(v->doc, line, len, &phrase, &offset);

	if (r == -EBADMSG)
		snprintf(rec->why_room, sizeof(rec->why_room), "not a record: %s at byte %zu",
			 phrase, offset);
	else if (r < 0)
		snprintf(rec->why_room, sizeof(rec->why_room), "not a record: longer than %u bytes",
			 JSON_DOCUMENT_MAX);
	if (r < 0) {
		rec->why = rec->why_room;
		return FINDING_BAD;
	}
	root = json_document_root(v->doc);
	if (!json_member_string(v->doc, root, "type", &type) ||
	    !json_member_string(v->doc, root, "id", &id)) {
		rec->why = "not a record: no type or id";
		return FINDING_BAD;
	}
	if (!same(type, wire_text(SIGN_ENVELOPE_TYPE))) {
		rec->event = root;
		rec->why = "no signature";
		return FINDING_UNSIGNED;
	}
	data = json_member(v->doc, root, "data");
	rec->event = json_member(v->doc, data, "event");
	rec->is_signed = true;
	if (!rec->event || rec->event->type != JSON_OBJECT_NODE) {
		rec->why = "the envelope has no event";
		return FINDING_BAD;
	}
	rec->why = check_envelope(v, root, data, rec->event);
	if (rec->why)
		return FINDING_BAD;
	finding = check_signature(v, data, rec);
	return finding;
}

/* ---- streams ---- */

static struct stream **bucket_of(struct verifier *v, struct wire_text id)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (size_t i = 0; i < id.len; i++)
		hash = (hash ^ (unsigned char)id.data[i]) * UINT64_C(0x100000001b3);
	return &v->buckets[hash % v->n_buckets];
}

/* Twice the buckets once there are as many streams: evidence of years has many. */
static void grow(struct verifier *v)
{
	struct stream **old = v->buckets, **buckets;
	const size_t n_old = v->n_buckets;

	if (v->result.streams < n_old)
		return;
	buckets = calloc(n_old * 2, sizeof(*buckets));
	if (!buckets)
		return;
	v->buckets = buckets;
	v->n_buckets = n_old * 2;
	for (size_t i = 0; i < n_old; i++)
		while (old[i]) {
			struct stream *s = old[i], **bucket = bucket_of(v, wire_text(s->id));

			old[i] = s->chain;
			s->chain = *bucket;
			*bucket = s;
		}
	free(old);
}

static struct stream *find_stream(struct verifier *v, struct wire_text id, bool is_signed)
{
	struct stream **bucket = bucket_of(v, id), *s;

	for (s = *bucket; s; s = s->chain)
		if (s->is_signed == is_signed && same(wire_text(s->id), id))
			return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	memcpy(s->id, id.data, id.len);
	s->is_signed = is_signed;
	s->expected = 1;
	s->chain = *bucket;
	*bucket = s;
	v->result.streams++;
	grow(v);
	return s;
}

static void miss(struct verifier *v, struct stream *s, const char *file, uint64_t line,
		 const char *fmt, ...) _printf_(5, 6);

static void miss(struct verifier *v, struct stream *s, const char *file, uint64_t line,
		 const char *fmt, ...)
{
	va_list ap;
	char why[VERIFIER_WHY_MAX];
	int n = snprintf(why, sizeof(why), "stream %s: ", s->id);

	va_start(ap, fmt);
	vsnprintf(why + n, sizeof(why) - (size_t)n, fmt, ap);
	va_end(ap);
	s->broken = true;
	note(v, FINDING_MISSING, file, line, why);
}

/* Where the record belongs, and whether it stands there. Returns 0, -EBADMSG or -ENOMEM. */
static int place_record(struct verifier *v, const struct record *rec, const char *file,
			uint64_t line)
{
	const struct json_node *data = json_member(v->doc, rec->event, "data");
	struct wire_text id, type;
	uint64_t sequence;
	struct stream *s;

	if (!json_member_string(v->doc, data, "streamId", &id) || id.len < 1 ||
	    id.len > STREAM_ID_MAX || memchr(id.data, '\0', id.len) ||
	    !json_member_uint(v->doc, data, "sequence", &sequence) || sequence < 1 ||
	    !json_member_string(v->doc, rec->event, "type", &type))
		return -EBADMSG;
	s = find_stream(v, id, rec->is_signed);
	if (!s)
		return -ENOMEM;
	if (s->sealed)
		miss(v, s, file, line, "sequence %" PRIu64 " stands behind the seal", sequence);
	else if (sequence > s->expected)
		miss(v, s, file, line, "sequence %" PRIu64 "..%" PRIu64 " is missing", s->expected,
		     sequence - 1);
	else if (sequence < s->expected)
		miss(v, s, file, line,
		     "sequence %" PRIu64 " is repeated or out of order: %" PRIu64 " was due",
		     sequence, s->expected);
	if (same(type, wire_text(TYPE_OPENED))) {
		if (sequence != 1 || s->opened)
			miss(v, s, file, line, "opened again by sequence %" PRIu64, sequence);
		s->opened = true;
	}
	if (same(type, wire_text(TYPE_SEALED)))
		s->sealed = true;
	if (sequence >= s->expected)
		s->expected = sequence + 1;
	if (!s->last_file || strcmp(s->last_file, file) != 0) {
		free(s->last_file);
		s->last_file = strdup(file);
		if (!s->last_file)
			return -ENOMEM;
	}
	s->last_line = line;
	return 0;
}

int verifier_line(struct verifier *v, const char *file, uint64_t number, const char *line,
		  size_t len)
{
	struct record rec = {0};
	enum finding finding = judge(v, line, len, &rec);
	int r;

	v->result.records++;
	if (finding != FINDING_BAD) {
		r = place_record(v, &rec, file, number);
		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			finding = FINDING_BAD;
			rec.why = "not a record: no streamId or sequence";
		}
	}
	if (finding == _FINDING_MAX)
		v->result.verified++;
	else
		note(v, finding, file, number, rec.why);
	return 0;
}

const struct verifier_result *verifier_finish(struct verifier *v)
{
	for (size_t i = 0; i < v->n_buckets; i++)
		for (struct stream *s = v->buckets[i]; s; s = s->chain) {
			char why[VERIFIER_WHY_MAX];

			if (!s->opened)
				miss(v, s, s->last_file, s->last_line, "has no opened event");
			if (s->sealed && !s->broken)
				v->result.complete++;
			if (s->sealed || s->broken)
				continue;
			snprintf(why, sizeof(why),
				 "stream %s: ends with sequence %" PRIu64 " and without a seal",
				 s->id, s->expected - 1);
			note(v, FINDING_OPEN, s->last_file, s->last_line, why);
		}
	return &v->result;
}
