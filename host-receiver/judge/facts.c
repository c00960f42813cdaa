/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/facts.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/evidence/base64.h"
#include "host-receiver/evidence/timestamp.h"

#define LOG_SOURCE "cellos-host-telemetry/log"

/* Members of a transport CloudEvent, and of its data. */
#define ENVELOPE_MEMBERS      7u
#define ENVELOPE_DATA_MEMBERS 4u
#define SEGMENT_MEMBERS	      4u
#define CHECKPOINT_MEMBERS    4u

struct facts_reader {
	const struct keyring *ring;
	struct json_document *doc;
	struct tree_hasher *hasher;
	char *canonical;	   /* FACTS_LINE_MAX + 1 */
	struct facts_arena *arena; /* of the current call */
};

struct facts_reader *facts_reader_new(const struct keyring *ring)
{
	struct facts_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return NULL;
	reader->ring = ring;
	reader->doc = json_document_new(FACTS_LINE_MAX);
	reader->hasher = tree_hasher_new();
	reader->canonical = malloc(FACTS_LINE_MAX + 1);
	if (!reader->doc || !reader->hasher || !reader->canonical) {
		facts_reader_free(reader);
		return NULL;
	}
	return reader;
}

void facts_reader_free(struct facts_reader *reader)
{
	if (!reader)
		return;
	json_document_free(reader->doc);
	tree_hasher_free(reader->hasher);
	free(reader->canonical);
	free(reader);
}

static bool same(struct wire_text a, struct wire_text b)
{
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

/* A copy in the arena; empty when the arena is full. */
static struct wire_text keep(struct facts_reader *reader, struct wire_text text, size_t max)
{
	struct facts_arena *arena = reader->arena;
	const size_t len = MIN(text.len, max);
	char *to = arena->data + arena->used;

	if (len > arena->size - arena->used)
		return (struct wire_text){.data = "", .len = 0};
	memcpy(to, text.data, len);
	arena->used += len;
	return (struct wire_text){.data = to, .len = len};
}

static unsigned count_members(const struct facts_reader *reader, const struct json_node *object)
{
	unsigned n = 0;

	for (const struct json_node *m = json_child(reader->doc, object); m;
	     m = json_sibling(reader->doc, m))
		n++;
	return n;
}

/* ---- what an event says ---- */

/* Which members of data are read, for each type of event. */
static const struct fact_rule {
	const char *type; /* after EVIDENCE_TYPE_PREFIX */
	struct {
		enum fact_number number;
		const char *key;
	} numbers[3];
	struct {
		enum fact_text text;
		const char *key;
	} texts[4];
	bool in_detail; /* its members are in data.detail, the guest's part of an event */
} fact_rules[_FACT_KIND_MAX] = {
	[FACT_STREAM_OPENED] = {"stream.v1.opened",
				{{NUMBER_PREVIOUS, "previousSequence"}},
				{{TEXT_HOST, "hostname"},
				 {TEXT_PREVIOUS, "previousStreamId"},
				 {TEXT_ORIGIN, "origin"}}},
	[FACT_STREAM_CHECKPOINT] = {"stream.v1.checkpoint",
				    {{NUMBER_DROPPED, "guestDropped"},
				     {NUMBER_KERNEL_LOST, "guestKernelLost"}},
				    {{0}}},
	[FACT_STREAM_SEALED] = {"stream.v1.sealed",
				{{NUMBER_DROPPED, "guestDropped"},
				 {NUMBER_KERNEL_LOST, "guestKernelLost"}},
				{{TEXT_REASON, "reason"}}},
	[FACT_LOG_OPENED] = {"log.v1.opened",
			     {{NUMBER_PREVIOUS, "previousSize"}},
			     {{TEXT_HOST, "hostname"},
			      {TEXT_PREVIOUS, "previousOrigin"},
			      {TEXT_ORIGIN, "origin"},
			      {TEXT_REASON, "reason"}}},
	[FACT_LOG_RESUMED] = {"log.v1.resumed", {{NUMBER_COUNT, "cutLines"}}, {{0}}},
	[FACT_LOG_CLOSED] = {"log.v1.closed", {{0}}, {{0}}},
	[FACT_LOG_PRUNED] = {"log.v1.pruned",
			     {{NUMBER_FIRST, "firstIndex"}},
			     {{TEXT_ORIGIN, "origin"}}},
	[FACT_GAP] = {"guest.v1.telemetry_gap",
		      {{NUMBER_FIRST, "firstMissing"}, {NUMBER_LAST, "lastMissing"}},
		      {{TEXT_REASON, "reason"}}},
	[FACT_RECEIPT] = {"guest.v1.telemetry_dropped",
			  {{NUMBER_KERNEL_LOST, "kernelOverrun"}},
			  {{0}},
			  .in_detail = true},
	[FACT_SILENCED] = {"guest.v1.agent_silenced", {{0}}, {{TEXT_REASON, "reason"}}},
	[FACT_CONTESTED] = {"guest.v1.channel_contested", {{NUMBER_COUNT, "count"}}, {{0}}},
	[FACT_UNWITNESSED] = {"guest.v1.declaration_unwitnessed", {{0}}, {{0}}},
};

static enum fact_kind kind_of(struct wire_text type)
{
	const size_t prefix = sizeof(EVIDENCE_TYPE_PREFIX) - 1;

	if (type.len <= prefix || memcmp(type.data, EVIDENCE_TYPE_PREFIX, prefix) != 0)
		return FACT_OTHER;
	type.data += prefix;
	type.len -= prefix;
	for (int kind = 0; kind < _FACT_KIND_MAX; kind++)
		if (fact_rules[kind].type && json_text_is(type, fact_rules[kind].type))
			return (enum fact_kind)kind;
	return FACT_OTHER;
}

static void read_rule(struct facts_reader *reader, const struct json_node *data,
		      struct event_facts *facts)
{
	const struct fact_rule *rule = &fact_rules[facts->kind];
	struct wire_text text;

	if (rule->in_detail)
		data = json_member(reader->doc, data, "detail");
	for (size_t i = 0; i < ARRAY_SIZE(rule->numbers) && rule->numbers[i].key; i++) {
		uint64_t *number = &facts->numbers[rule->numbers[i].number];

		if (json_member_uint(reader->doc, data, rule->numbers[i].key, number) &&
		    rule->numbers[i].number == NUMBER_PREVIOUS)
			facts->has_previous = true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rule->texts) && rule->texts[i].key; i++)
		if (json_member_string(reader->doc, data, rule->texts[i].key, &text))
			facts->texts[rule->texts[i].text] = keep(reader, text, FACTS_TEXT_MAX);
}

/* Returns NULL, or a reason. */
static const char *read_event(struct facts_reader *reader, const struct json_node *event,
			      struct event_facts *facts)
{
	const struct json_node *data = json_member(reader->doc, event, "data");
	struct wire_text stream, type, text;

	if (!json_member_string(reader->doc, event, "type", &type) ||
	    !json_member_string(reader->doc, data, "streamId", &stream) || stream.len < 1 ||
	    stream.len > FACTS_STREAM_ID_MAX || memchr(stream.data, '\0', stream.len) ||
	    !json_member_uint(reader->doc, data, "sequence", &facts->numbers[NUMBER_SEQUENCE]) ||
	    facts->numbers[NUMBER_SEQUENCE] < 1)
		return "not a record: no streamId or sequence";
	facts->kind = kind_of(type);
	facts->texts[TEXT_STREAM] = keep(reader, stream, FACTS_STREAM_ID_MAX);
	if (json_member_string(reader->doc, data, "cellId", &text))
		facts->texts[TEXT_CELL] = keep(reader, text, FACTS_TEXT_MAX);
	if (json_member_string(reader->doc, data, "runId", &text))
		facts->texts[TEXT_RUN] = keep(reader, text, FACTS_TEXT_MAX);
	if (!json_member_string(reader->doc, event, "time", &text) ||
	    timestamp_parse(text.data, text.len, &facts->time_ms) < 0)
		facts->time_ms = 0;
	read_rule(reader, data, facts);
	return NULL;
}

/* ---- an entry's own signature ---- */

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

/*
 * The attributes outside the signature must equal those inside it. This function and the check of
 * the signature name every member that a record may have. So any other member is one that nobody
 * signed.
 */
static const char *check_envelope(const struct facts_reader *reader,
				  const struct json_node *envelope, const struct json_node *data,
				  const struct json_node *event)
{
	static const char *const repeated[] = {"id", "source", "time"};
	static const char *const fixed[][2] = {{"specversion", "1.0"},
					       {"datacontenttype", "application/json"}};
	struct wire_text outer, inner;

	for (size_t i = 0; i < ARRAY_SIZE(repeated); i++)
		if (!json_member_string(reader->doc, envelope, repeated[i], &outer) ||
		    !json_member_string(reader->doc, event, repeated[i], &inner) ||
		    !same(outer, inner))
			return "the envelope's id, source or time is not the event's";
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!json_member_string(reader->doc, envelope, fixed[i][0], &outer) ||
		    !json_text_is(outer, fixed[i][1]))
			return "the envelope's specversion or datacontenttype is not a record's";
	if (count_members(reader, envelope) > ENVELOPE_MEMBERS ||
	    count_members(reader, data) > ENVELOPE_DATA_MEMBERS)
		return "the envelope has a member that is not a record's";
	return NULL;
}

static bool known_algorithm(struct wire_text name, enum sign_algorithm *ret)
{
	if (json_text_is(name, "ed25519"))
		*ret = SIGN_ED25519;
	else if (json_text_is(name, "hmac-sha256"))
		*ret = SIGN_HMAC_SHA256;
	else
		return false;
	return true;
}

static enum line_proof refuse(struct line_facts *facts, const char *why)
{
	facts->why = why;
	return PROOF_WRONG;
}

static enum line_proof check_signature(struct facts_reader *reader, const struct json_node *data,
				       const struct json_node *event, struct line_facts *facts)
{
	uint8_t signature[128];
	struct wire_text name, kid, text;
	enum sign_algorithm algorithm;
	struct json_writer w;
	struct keyring_key key;
	size_t len, canonical_len;
	bool holds;

	if (!json_member_string(reader->doc, data, "algorithm", &name) ||
	    !json_member_string(reader->doc, data, "signerKid", &kid) ||
	    !json_member_string(reader->doc, data, "signature", &text))
		return refuse(facts, "the envelope has no algorithm, signerKid or signature");
	if (!known_algorithm(name, &algorithm))
		return refuse(facts, "an algorithm that is neither ed25519 nor hmac-sha256");
	if (!keyring_find(reader->ring, algorithm, kid, &key)) {
		facts->why = algorithm == SIGN_ED25519 ? "no ed25519 key for kid"
						       : "no hmac-sha256 key for kid";
		facts->why_name = keep(reader, kid, FACTS_TEXT_MAX);
		return PROOF_UNKNOWN_KEY;
	}
	if (!base64_decode(text.data, text.len, sodium_base64_VARIANT_URLSAFE_NO_PADDING, signature,
			   sizeof(signature), &len))
		return refuse(facts, "a signature that is not base64url");
	json_writer_init(&w, reader->canonical, FACTS_LINE_MAX + 1);
	json_write_canonical(reader->doc, event, &w);
	if (json_writer_done(&w, &canonical_len) < 0)
		return refuse(facts, "the signature is not of this event");
	holds = algorithm == SIGN_ED25519
			? check_ed25519(&key, signature, len, reader->canonical, canonical_len)
			: check_hmac(&key, signature, len, reader->canonical, canonical_len);
	return holds ? PROOF_SIGNED : refuse(facts, "the signature is not of this event");
}

static void malformed(struct line_facts *facts, const char *why, uint64_t offset)
{
	facts->class = CLASS_MALFORMED;
	facts->why = why;
	facts->why_offset = offset;
}

static void read_entry(struct facts_reader *reader, const struct json_node *root,
		       struct wire_text type, struct line_facts *facts)
{
	const struct json_node *data, *event = root;
	const char *why = NULL;

	facts->class = CLASS_ENTRY;
	if (json_text_is(type, SIGN_ENVELOPE_TYPE)) {
		data = json_member(reader->doc, root, "data");
		event = json_member(reader->doc, data, "event");
		if (!event || event->type != JSON_OBJECT_NODE)
			why = "the envelope has no event";
		else
			why = check_envelope(reader, root, data, event);
		facts->proof = why ? PROOF_WRONG : check_signature(reader, data, event, facts);
	}
	if (!why)
		why = read_event(reader, event, &facts->event);
	if (why)
		malformed(facts, why, UINT64_MAX);
}

/* ---- the log's own lines ---- */

/* "urn:cellos:<what>:<log uuid>:<number>"; the uuid is the last part of the origin. */
static bool id_is(struct wire_text id, const char *what, const char *origin, uint64_t number)
{
	const char *slash = strrchr(origin, '/');
	char want[NOTE_ORIGIN_MAX + 64];

	snprintf(want, sizeof(want), "urn:cellos:%s:%s:%" PRIu64, what, slash ? slash + 1 : origin,
		 number);
	return json_text_is(id, want);
}

/*
 * The line has exactly the members of a CloudEvent, and is byte for byte what the writer would
 * write.
 */
static const char *check_form(struct facts_reader *reader, const char *line, size_t len,
			      const struct json_node *root, const struct json_node *data,
			      unsigned members)
{
	static const char *const fixed[][2] = {{"source", LOG_SOURCE},
					       {"specversion", "1.0"},
					       {"datacontenttype", "application/json"}};
	struct wire_text text;
	struct json_writer w;
	size_t canonical_len;
	int64_t ms;

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!json_member_string(reader->doc, root, fixed[i][0], &text) ||
		    !json_text_is(text, fixed[i][1]))
			return "a line of the log with another source, specversion or "
			       "datacontenttype";
	if (!json_member_string(reader->doc, root, "time", &text) ||
	    timestamp_parse(text.data, text.len, &ms) < 0)
		return "a line of the log without a time";
	if (count_members(reader, root) != ENVELOPE_MEMBERS ||
	    count_members(reader, data) != members)
		return "a line of the log with a member too many or too few";
	json_writer_init(&w, reader->canonical, FACTS_LINE_MAX + 1);
	json_write_canonical(reader->doc, root, &w);
	if (json_writer_done(&w, &canonical_len) < 0 || canonical_len != len ||
	    memcmp(reader->canonical, line, len) != 0)
		return "a line of the log that is not in canonical form";
	return NULL;
}

static int check_note(struct facts_reader *reader, const struct note *note, struct wire_text kid,
		      struct note_facts *facts)
{
	facts->present = true;
	facts->size = note->checkpoint.size;
	facts->root = note->checkpoint.root;
	if (kid.data)
		facts->name = keep(reader, kid, FACTS_TEXT_MAX);
	return keyring_check_note(reader->ring, reader->hasher, note, &facts->verdict, &facts->kid);
}

static int read_checkpoint(struct facts_reader *reader, const struct json_node *root,
			   const struct json_node *data, struct line_facts *facts)
{
	struct wire_text id = {0}, origin, text, kid;
	struct note note;
	uint64_t size;
	int fits = 1;

	facts->class = CLASS_CHECKPOINT;
	if (!json_member_string(reader->doc, root, "id", &id) ||
	    !json_member_string(reader->doc, data, "origin", &origin) ||
	    !json_member_string(reader->doc, data, "signerKid", &kid) ||
	    !json_member_string(reader->doc, data, "checkpoint", &text) ||
	    !json_member_uint(reader->doc, data, "size", &size)) {
		facts->why = "a checkpoint line without origin, signerKid, checkpoint or size";
		return 0;
	}
	if (note_parse(text.data, text.len, &note, &facts->why) < 0)
		return 0;
	facts->note.origin = keep(reader, wire_text(note.checkpoint.origin), NOTE_ORIGIN_MAX);
	if (!json_text_is(origin, note.checkpoint.origin) || size != note.checkpoint.size ||
	    !id_is(id, "checkpoint", note.checkpoint.origin, size))
		facts->why = "a checkpoint line that disagrees with its checkpoint";
	else
		fits = keyring_kid_fits(reader->ring, reader->hasher, &note, kid);
	if (fits == 0)
		facts->why = "a checkpoint line whose signerKid did not sign its checkpoint";
	if (fits < 0)
		return fits;
	return facts->why ? 0 : check_note(reader, &note, kid, &facts->note);
}

/* Decode the hashes of the frontier into the arena. Returns NULL, or a reason. */
static const char *read_frontier(struct facts_reader *reader, const struct json_node *list,
				 struct note_facts *facts)
{
	struct tree_hash hashes[TREE_LEVELS];
	const struct json_node *item;
	unsigned n = 0;
	size_t len;

	if (!list || list->type != JSON_ARRAY_NODE)
		return "a segment line without a frontier";
	for (item = json_child(reader->doc, list); item;
	     item = json_sibling(reader->doc, item), n++)
		if (n == TREE_LEVELS || item->type != JSON_STRING_NODE ||
		    !base64_decode(item->text.data, item->text.len, sodium_base64_VARIANT_ORIGINAL,
				   hashes[n].bytes, TREE_HASH_SIZE, &len) ||
		    len != TREE_HASH_SIZE)
			return "a frontier of a segment line that is not hashes";
	if (n != tree_frontier_count(facts->first_index))
		return "a frontier of a segment line that has not as many hashes as its index";
	facts->frontier =
		(const struct tree_hash *)keep(
			reader,
			(struct wire_text){.data = (const char *)hashes, .len = n * TREE_HASH_SIZE},
			sizeof(hashes))
			.data;
	return NULL;
}

static int read_segment(struct facts_reader *reader, const struct json_node *root,
			const struct json_node *data, struct line_facts *facts)
{
	const struct json_node *checkpoint = json_member(reader->doc, data, "checkpoint");
	struct note_facts *n = &facts->note;
	struct wire_text id = {0}, origin, text;
	char name[NOTE_ORIGIN_MAX + 1];
	struct note note;

	facts->class = CLASS_SEGMENT;
	if (!json_member_string(reader->doc, root, "id", &id) ||
	    !json_member_string(reader->doc, data, "origin", &origin) ||
	    !note_origin_valid(origin.data, origin.len) || !checkpoint ||
	    !json_member_uint(reader->doc, data, "firstIndex", &n->first_index) ||
	    n->first_index > TREE_SIZE_MAX) {
		facts->why = "a segment line without origin, checkpoint or firstIndex";
		return 0;
	}
	n->origin = keep(reader, origin, NOTE_ORIGIN_MAX);
	memcpy(name, origin.data, origin.len);
	name[origin.len] = '\0';
	if (!id_is(id, "segment", name, n->first_index))
		facts->why = "a segment line that disagrees with its id";
	else
		facts->why = read_frontier(reader, json_member(reader->doc, data, "frontier"), n);
	if (facts->why)
		return 0;
	if (checkpoint->type == JSON_NULL_NODE) {
		if (n->first_index > 0)
			facts->why = "a segment line without a checkpoint";
		return 0;
	}
	if (!json_member_string(reader->doc, data, "checkpoint", &text))
		facts->why = "a segment line whose checkpoint is not a text";
	else if (note_parse(text.data, text.len, &note, &facts->why) == 0 &&
		 (!json_text_is(origin, note.checkpoint.origin) ||
		  note.checkpoint.size != n->first_index))
		facts->why = "a segment line that disagrees with its checkpoint";
	return facts->why ? 0 : check_note(reader, &note, (struct wire_text){0}, n);
}

static int read_log_line(struct facts_reader *reader, const char *line, size_t len, bool segment,
			 struct line_facts *facts)
{
	const struct json_node *root = json_document_root(reader->doc);
	const struct json_node *data = json_member(reader->doc, root, "data");
	int r = segment ? read_segment(reader, root, data, facts)
			: read_checkpoint(reader, root, data, facts);

	if (r == 0 && !facts->why)
		facts->why = check_form(reader, line, len, root, data,
					segment ? SEGMENT_MEMBERS : CHECKPOINT_MEMBERS);
	return r;
}

/* ---- a line ---- */

int facts_read(struct facts_reader *reader, const char *line, size_t len, struct facts_arena *arena,
	       struct line_facts *ret)
{
	const struct json_node *root;
	struct wire_text type, id;
	const char *phrase;
	size_t offset;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->why_offset = UINT64_MAX;
	reader->arena = arena;
	r = len > 0 ? json_document_read(reader->doc, line, len, &phrase, &offset) : 0;
	if (r == -ENOMEM)
		return r;
	if (len == 0) {
		malformed(ret, "not a record: an empty line", UINT64_MAX);
	} else if (r == -EBADMSG) {
		malformed(ret, phrase, offset);
	} else {
		root = json_document_root(reader->doc);
		if (!json_member_string(reader->doc, root, "type", &type))
			type = (struct wire_text){.data = "", .len = 0};
		if (json_text_is(type, EVIDENCE_TYPE_SEGMENT))
			return read_log_line(reader, line, len, true, ret);
		if (json_text_is(type, EVIDENCE_TYPE_CHECKPOINT))
			return read_log_line(reader, line, len, false, ret);
		if (type.len == 0 || !json_member_string(reader->doc, root, "id", &id))
			malformed(ret, "not a record: no type or id", UINT64_MAX);
		else
			read_entry(reader, root, type, ret);
	}
	return tree_hash_leaf(reader->hasher, line, len, &ret->leaf);
}
