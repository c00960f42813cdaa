/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/log_stream.h"

#include <sodium.h>

#include "common/util.h"

#define BASE64 sodium_base64_VARIANT_ORIGINAL

struct log_stream {
	struct pipeline *pipeline;
	struct evidence_log *log;
	const char *hostname, *boot_id;
	void (*on_lost)(void *ctx, uint64_t segment, const char *reason);
	void *ctx;
	struct stream_identity *identity; /* owned */
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t sequence;
	uint64_t submitted, durable; /* records since the start */
	bool closed;

	/* Between log_stream_change_signer() and log_stream_changed(). */
	bool changing, new_log;
	char kid[SIGN_KID_MAX + 1]; /* the kid of the key that is retired; "": none */
	uint8_t public_key[32];	    /* of it */
	struct log_start next;
};

/* ---- records ---- */

static struct wire_text copy(struct log_stream *s, const char *text)
{
	return pipeline_copy(s->pipeline, wire_text(text));
}

struct event *log_stream_event(struct log_stream *s, enum event_type type)
{
	return pipeline_event(s->pipeline, type, s->identity, ++s->sequence);
}

static void on_durable(void *arg)
{
	struct log_stream *s = arg;

	s->durable++;
}

void log_stream_submit(struct log_stream *s, struct event *e)
{
	s->submitted++;
	pipeline_submit(s->pipeline, e);
	pipeline_defer(s->pipeline, on_durable, s);
}

static void add_origin(struct log_stream *s, struct event *e, enum event_key key,
		       const char *origin)
{
	if (*origin)
		event_add_text(e, key, copy(s, origin));
	else
		event_add_null(e, key);
}

static void write_opened(struct log_stream *s, const struct log_start *start)
{
	struct event *e = log_stream_event(s, EVENT_LOG_OPENED);

	add_origin(s, e, EVENT_KEY_ORIGIN, start->origin);
	add_origin(s, e, EVENT_KEY_PREVIOUS_ORIGIN, start->previous_origin);
	if (*start->previous_origin)
		event_add_uint(e, EVENT_KEY_PREVIOUS_SIZE, start->previous_size);
	else
		event_add_null(e, EVENT_KEY_PREVIOUS_SIZE);
	/* The process that began this log died before its first entry was written. */
	event_add_text(
		e, EVENT_KEY_REASON,
		wire_text(log_reason_name(start->reason == LOG_RESUMED ? LOG_NEW : start->reason)));
	event_add_text(e, EVENT_KEY_RECEIVER_VERSION, wire_text(CELLOS_VERSION));
	event_add_text(e, EVENT_KEY_HOSTNAME, wire_text(s->hostname));
	event_add_text(e, EVENT_KEY_HOST_BOOT_ID, wire_text(s->boot_id));
	if (start->reason == LOG_PLANNED)
		event_add_text(e, EVENT_KEY_WHY, copy(s, start->plan));
	log_stream_submit(s, e);
}

static struct wire_text abandoned_text(struct log_stream *s, const struct log_start *start)
{
	char root[sodium_base64_ENCODED_LEN(TREE_HASH_SIZE, BASE64)], text[128];

	sodium_bin2base64(root, sizeof(root), start->abandoned_root.bytes, TREE_HASH_SIZE, BASE64);
	snprintf(text, sizeof(text), "{\"root\":\"%s\",\"size\":%" PRIu64 "}", root,
		 start->abandoned_size);
	return copy(s, text);
}

static void write_key(struct log_stream *s, enum event_type type, const char *kid,
		      const uint8_t *public_key)
{
	char text[sodium_base64_ENCODED_LEN(32, sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
	struct event *e = log_stream_event(s, type);

	sodium_bin2base64(text, sizeof(text), public_key, 32,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	event_add_text(e, EVENT_KEY_KID, copy(s, kid));
	event_add_text(e, EVENT_KEY_PUBLIC_KEY, copy(s, text));
	log_stream_submit(s, e);
}

/*
 * This run has another key than the last one. The old key is not here to sign the change, and it
 * would add no trust.
 */
static void write_key_change(struct log_stream *s, const struct log_start *start)
{
	write_key(s, EVENT_LOG_KEY_ADDED, start->kid, start->public_key);
	write_key(s, EVENT_LOG_KEY_RETIRED, start->retired_kid, start->retired_key);
}

static void write_resumed(struct log_stream *s, const struct log_start *start)
{
	struct event *e = log_stream_event(s, EVENT_LOG_RESUMED);

	event_add_bool(e, EVENT_KEY_UNCLEAN, start->unclean);
	event_add_uint(e, EVENT_KEY_CUT_BYTES, start->cut_bytes);
	event_add_uint(e, EVENT_KEY_CUT_LINES, start->cut_lines);
	if (start->abandoned)
		event_add_raw(e, EVENT_KEY_ABANDONED, abandoned_text(s, start));
	else
		event_add_null(e, EVENT_KEY_ABANDONED);
	if (start->size > 0)
		event_add_uint(e, EVENT_KEY_LAST_INDEX, start->size - 1);
	else
		event_add_null(e, EVENT_KEY_LAST_INDEX);
	event_add_text(e, EVENT_KEY_HOST_BOOT_ID, wire_text(s->boot_id));
	log_stream_submit(s, e);
}

void log_stream_cell_unserved(struct log_stream *s, const char *cell, const char *why)
{
	struct event *e = log_stream_event(s, EVENT_LOG_CELL_UNSERVED);

	event_add_text(e, EVENT_KEY_CELL_ID, copy(s, cell));
	event_add_text(e, EVENT_KEY_WHY, copy(s, why));
	log_stream_submit(s, e);
}

void log_stream_cell_served(struct log_stream *s, const char *cell)
{
	struct event *e = log_stream_event(s, EVENT_LOG_CELL_SERVED);

	event_add_text(e, EVENT_KEY_CELL_ID, copy(s, cell));
	log_stream_submit(s, e);
}

void log_stream_acknowledged(struct log_stream *s, const char *what, uint64_t uid)
{
	struct event *e = log_stream_event(s, EVENT_LOG_ACKNOWLEDGED);

	event_add_text(e, EVENT_KEY_WHAT, copy(s, what));
	event_add_uint(e, EVENT_KEY_BY_UID, uid);
	log_stream_submit(s, e);
}

void log_stream_close(struct log_stream *s, unsigned cells)
{
	struct event *e;

	if (s->closed)
		return;
	e = log_stream_event(s, EVENT_LOG_CLOSED);
	event_add_uint(e, EVENT_KEY_CELLS, cells);
	log_stream_submit(s, e);
	s->closed = true;
}

bool log_stream_closed(const struct log_stream *s)
{
	return s->closed;
}

/* ---- reports of the committer ---- */

struct pruned {
	struct evidence_log *log;
	uint64_t segment;
};

static void on_pruned_durable(void *arg)
{
	struct pruned *p = arg;

	evidence_log_prune(p->log, p->segment);
	free(p);
}

static void write_pruned(struct log_stream *s, const struct evidence_notice *notice)
{
	struct event *e;
	struct pruned *p = malloc(sizeof(*p));

	/* Without memory these reports wait for the next start. */
	if (!p)
		return;
	*p = (struct pruned){.log = s->log, .segment = notice->segment};
	e = log_stream_event(s, EVENT_LOG_PRUNED);
	add_origin(s, e, EVENT_KEY_ORIGIN, notice->origin);
	event_add_uint(e, EVENT_KEY_FIRST_INDEX, notice->first_index);
	event_add_uint(e, EVENT_KEY_SEGMENTS, notice->segments);
	event_add_uint(e, EVENT_KEY_BYTES, notice->bytes);
	event_add_text(e, EVENT_KEY_POLICY,
		       wire_text(notice->hard ? "retain_size_hard" : "retain_size"));
	log_stream_submit(s, e);
	pipeline_defer(s->pipeline, on_pruned_durable, p);
}

static void write_lost(struct log_stream *s, const struct evidence_notice *notice)
{
	struct event *e = log_stream_event(s, EVENT_LOG_SEGMENT_LOST);

	event_add_uint(e, EVENT_KEY_SEGMENT, notice->segment);
	event_add_text(e, EVENT_KEY_REASON, wire_text(notice->reason));
	log_stream_submit(s, e);
	if (s->on_lost)
		s->on_lost(s->ctx, notice->segment, notice->reason);
}

void log_stream_progress(struct log_stream *s)
{
	struct evidence_notice notice;

	if (!s->log || s->closed)
		return;
	if (*s->origin && s->durable == s->submitted)
		evidence_log_note_own(s->log, s->origin, s->sequence);
	while (evidence_log_take_notice(s->log, &notice)) {
		if (notice.kind == EVIDENCE_PRUNE)
			write_pruned(s, &notice);
		else
			write_lost(s, &notice);
	}
}

/* ---- another signer ---- */

int log_stream_change_signer(struct log_stream *s, struct signer *next, const struct signer *last,
			     const char *prefix, unsigned cells)
{
	const bool tree = signer_tree(next) != NULL;
	const bool had_tree = sign_algorithm_has_tree(signer_algorithm(last));
	const bool same_mode = signer_algorithm(next) == signer_algorithm(last);
	struct event *e;

	s->changing = true;
	s->new_log = tree != had_tree;
	*s->kid = '\0';
	if (tree && had_tree && strcmp(signer_kid(next), signer_kid(last)) != 0) {
		signer_set_previous(next, last);
		write_key(s, EVENT_LOG_KEY_ADDED, signer_kid(next), signer_public_key(next));
		snprintf(s->kid, sizeof(s->kid), "%s", signer_kid(last));
		memcpy(s->public_key, signer_public_key(last), sizeof(s->public_key));
	}
	if (!same_mode) {
		e = log_stream_event(s, EVENT_LOG_SIGNING_CHANGED);
		event_add_text(e, EVENT_KEY_FROM,
			       wire_text(sign_algorithm_name(signer_algorithm(last))));
		event_add_text(e, EVENT_KEY_TO,
			       wire_text(sign_algorithm_name(signer_algorithm(next))));
		event_add_text(e, EVENT_KEY_KID, copy(s, signer_kid(next)));
		log_stream_submit(s, e);
	}
	signer_set_origin(next, s->origin);
	if (!s->new_log)
		return 0;
	log_stream_close(s, cells);
	return log_start_follow(next, prefix, s->origin, evidence_log_size(s->log), &s->next);
}

static void free_identity(void *identity)
{
	free(identity);
}

static struct stream_identity *new_identity(const uint8_t *uuid)
{
	struct stream_identity *identity = calloc(1, sizeof(*identity));

	if (identity)
		memcpy(identity->stream_id, uuid, UUID_SIZE);
	return identity;
}

void log_stream_changed(struct log_stream *s)
{
	if (!s->changing)
		return;
	s->changing = false;
	/* After the new key's first checkpoint the old key signs nothing. */
	if (*s->kid)
		write_key(s, EVENT_LOG_KEY_RETIRED, s->kid, s->public_key);
	if (s->new_log) {
		struct stream_identity *identity = new_identity(s->next.uuid);

		/* Without a name of its own the new log cannot begin. */
		if (!identity)
			abort();
		pipeline_defer(s->pipeline, free_identity, s->identity);
		s->identity = identity;
		s->sequence = 0;
		s->closed = false;
		memcpy(s->origin, s->next.origin, sizeof(s->origin));
		write_opened(s, &s->next);
	}
}

/* ---- begin and end ---- */

struct log_stream *log_stream_new(const struct log_stream_options *o, const struct log_start *start)
{
	struct log_stream *s = calloc(1, sizeof(*s));

	if (!s || !(s->identity = new_identity(start->uuid))) {
		free(s);
		return NULL;
	}
	s->pipeline = o->pipeline;
	s->log = o->log;
	s->hostname = o->hostname;
	s->boot_id = o->boot_id;
	s->on_lost = o->on_lost;
	s->ctx = o->ctx;
	s->sequence = start->sequence;
	memcpy(s->origin, start->origin, sizeof(s->origin));
	if (start->reason == LOG_RESUMED && start->sequence > 0)
		write_resumed(s, start);
	else
		write_opened(s, start);
	if (start->reason == LOG_RESUMED && start->key_changed)
		write_key_change(s, start);
	return s;
}

void log_stream_free(struct log_stream *s)
{
	if (!s)
		return;
	free(s->identity);
	free(s);
}

const char *log_stream_origin(const struct log_stream *s)
{
	return s ? s->origin : "";
}
