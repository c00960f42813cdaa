/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/streams.h"

#include <stdarg.h>

#include "common/util.h"

#define BUCKETS_FIRST 1024u

/* A text that several streams share. If it is a cell's id: the losses of its streams. */
struct name {
	struct name *chain;
	struct stream_losses losses;
	char text[];
};

struct streams {
	struct findings *findings;
	struct stream **buckets;
	size_t n_buckets;
	struct stream *first, **last;
	struct name *names[256];
	uint64_t n, ends[_STREAM_END_MAX];
};

struct streams *streams_new(struct findings *findings)
{
	struct streams *streams = calloc(1, sizeof(*streams));

	if (!streams)
		return NULL;
	streams->findings = findings;
	streams->last = &streams->first;
	streams->n_buckets = BUCKETS_FIRST;
	streams->buckets = calloc(streams->n_buckets, sizeof(*streams->buckets));
	if (!streams->buckets) {
		free(streams);
		return NULL;
	}
	return streams;
}

void streams_free(struct streams *streams)
{
	if (!streams)
		return;
	while (streams->first) {
		struct stream *s = streams->first;

		streams->first = s->next;
		free(s);
	}
	for (size_t i = 0; i < ARRAY_SIZE(streams->names); i++)
		while (streams->names[i]) {
			struct name *name = streams->names[i];

			streams->names[i] = name->chain;
			free(name);
		}
	free(streams->buckets);
	free(streams);
}

static uint64_t hash_of(struct wire_text text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.data[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static struct name **name_bucket(struct streams *streams, struct wire_text text)
{
	return &streams->names[hash_of(text) % ARRAY_SIZE(streams->names)];
}

static struct name *find_name(struct streams *streams, struct wire_text text)
{
	struct name *name = *name_bucket(streams, text);

	while (name && !json_text_is(text, name->text))
		name = name->chain;
	return name;
}

/* The one copy of a text. NULL: no memory. */
static const char *intern(struct streams *streams, struct wire_text text)
{
	struct name **bucket = name_bucket(streams, text), *name;

	if (text.len == 0 || memchr(text.data, '\0', text.len))
		return "";
	name = find_name(streams, text);
	if (name)
		return name->text;
	name = malloc(sizeof(*name) + text.len + 1);
	if (!name)
		return NULL;
	name->losses = (struct stream_losses){0};
	memcpy(name->text, text.data, text.len);
	name->text[text.len] = '\0';
	name->chain = *bucket;
	*bucket = name;
	return name->text;
}

/* ---- the table ---- */

/* Double the buckets when there is a stream for each. Without memory the chains grow instead. */
static void grow(struct streams *streams)
{
	const size_t n = streams->n_buckets * 2;
	struct stream **buckets;

	if (streams->n < streams->n_buckets)
		return;
	buckets = calloc(n, sizeof(*buckets));
	if (!buckets)
		return;
	for (struct stream *s = streams->first; s; s = s->next) {
		struct stream **bucket = &buckets[hash_of(wire_text(s->id)) % n];

		s->chain = *bucket;
		*bucket = s;
	}
	free(streams->buckets);
	streams->buckets = buckets;
	streams->n_buckets = n;
}

static struct stream *find(const struct streams *streams, struct wire_text id,
			   enum stream_class class)
{
	struct stream *s = streams->buckets[hash_of(id) % streams->n_buckets];

	while (s && (s->class != class || !json_text_is(id, s->id)))
		s = s->chain;
	return s;
}

static struct stream *add(struct streams *streams, const struct event_facts *event,
			  enum stream_class class, const struct log_summary *log)
{
	const struct wire_text id = event->texts[TEXT_STREAM];
	struct stream *s = calloc(1, sizeof(*s) + id.len + 1), **bucket;

	if (!s)
		return NULL;
	memcpy(s->id, id.data, id.len);
	s->class = class;
	s->expected = 1;
	s->first = event->numbers[NUMBER_SEQUENCE];
	s->log = log;
	s->cell = intern(streams, event->texts[TEXT_CELL]);
	s->run = intern(streams, event->texts[TEXT_RUN]);
	s->host = "";
	if (!s->cell || !s->run) {
		free(s);
		return NULL;
	}
	bucket = &streams->buckets[hash_of(id) % streams->n_buckets];
	s->chain = *bucket;
	*bucket = s;
	*streams->last = s;
	streams->last = &s->next;
	streams->n++;
	grow(streams);
	return s;
}

/* ---- one event ---- */

static void miss(struct streams *streams, struct stream *s, struct place at, const char *fmt, ...)
	_printf_(4, 5);

static void miss(struct streams *streams, struct stream *s, struct place at, const char *fmt, ...)
{
	char why[FINDINGS_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	s->broken = true;
	findings_add(streams->findings, FINDING_MISSING, 1, at, "stream %s: %.240s", s->id, why);
}

/*
 * Check the place of the event in its stream. The first event of a stream may have any sequence:
 * only streams_finish() knows whether the beginning may be missing.
 */
static void check_place(struct streams *streams, struct stream *s, uint64_t sequence,
			struct place at)
{
	if (s->sealed && !s->is_log)
		miss(streams, s, at, "sequence %" PRIu64 " stands after the seal", sequence);
	else if (s->records == 0)
		s->expected = sequence;
	else if (sequence > s->expected)
		miss(streams, s, at, "sequence %" PRIu64 "..%" PRIu64 " is missing", s->expected,
		     sequence - 1);
	else if (sequence < s->expected)
		miss(streams, s, at,
		     "sequence %" PRIu64 " is repeated or out of order: %" PRIu64 " was due",
		     sequence, s->expected);
	if (sequence >= s->expected)
		s->expected = sequence + 1;
}

/* Add the frames that a gap names. For some reasons of a gap nothing was lost. */
static void add_gap(struct stream *s, const struct event_facts *event)
{
	const uint64_t first = event->numbers[NUMBER_FIRST], last = event->numbers[NUMBER_LAST];

	if (json_text_is(event->texts[TEXT_REASON], "inherited") ||
	    json_text_is(event->texts[TEXT_REASON], "host_ahead"))
		return;
	s->losses.gaps++;
	if (last < first)
		return;
	add_saturated(&s->losses.gap_frames, last - first);
	add_saturated(&s->losses.gap_frames, 1);
}

static int open_stream(struct streams *streams, struct stream *s, const struct event_facts *event,
		       struct place at)
{
	const uint64_t sequence = event->numbers[NUMBER_SEQUENCE];

	if (sequence != 1 || s->opened)
		miss(streams, s, at, "opened again by sequence %" PRIu64, sequence);
	s->opened = true;
	s->is_log = event->kind == FACT_LOG_OPENED;
	s->host = intern(streams, event->texts[TEXT_HOST]);
	if (!s->host)
		return -ENOMEM;
	/* Logs are joined by their origins, in logs.c. */
	if (s->is_log || event->texts[TEXT_PREVIOUS].len == 0)
		return 0;
	s->previous = intern(streams, event->texts[TEXT_PREVIOUS]);
	s->previous_sequence = event->numbers[NUMBER_PREVIOUS];
	s->has_previous_sequence = event->has_previous;
	return s->previous ? 0 : -ENOMEM;
}

static int count_event(struct streams *streams, struct stream *s, const struct event_facts *event,
		       struct place at)
{
	switch (event->kind) {
	case FACT_STREAM_OPENED:
	case FACT_LOG_OPENED: return open_stream(streams, s, event, at);
	case FACT_STREAM_SEALED:
	case FACT_STREAM_CHECKPOINT:
		s->losses.guest_dropped = event->numbers[NUMBER_DROPPED];
		s->losses.kernel_lost = event->numbers[NUMBER_KERNEL_LOST];
		break;
	case FACT_LOG_RESUMED: s->losses.cut_lines += event->numbers[NUMBER_COUNT]; break;
	case FACT_GAP: add_gap(s, event); break;
	case FACT_RECEIPT:
		add_saturated(&s->losses.kernel_receipts, event->numbers[NUMBER_KERNEL_LOST]);
		break;
	case FACT_SILENCED: s->losses.silences++; break;
	case FACT_CONTESTED:
		s->losses.contests += MAX(event->numbers[NUMBER_COUNT], UINT64_C(1));
		break;
	case FACT_UNWITNESSED: s->losses.unwitnessed++; break;
	default: break;
	}
	return 0;
}

int streams_add(struct streams *streams, const struct event_facts *event, enum stream_class class,
		const struct log_summary *log, struct place at)
{
	struct stream *s = find(streams, event->texts[TEXT_STREAM], class);

	if (!s)
		s = add(streams, event, class, log);
	if (!s)
		return -ENOMEM;
	if (event->kind >= FACT_LOG_OPENED && event->kind <= FACT_LOG_PRUNED)
		s->is_log = true;
	check_place(streams, s, event->numbers[NUMBER_SEQUENCE], at);
	s->records++;
	s->last = at;
	if (event->time_ms != 0) {
		if (s->first_ms == 0 || event->time_ms < s->first_ms)
			s->first_ms = event->time_ms;
		s->last_ms = MAX(s->last_ms, event->time_ms);
	}
	s->sealed = event->kind == FACT_STREAM_SEALED || event->kind == FACT_LOG_CLOSED ||
		    (s->sealed && !s->is_log);
	return count_event(streams, s, event, at);
}

/* ---- the end ---- */

/* Check that the predecessor that a stream names is there, up to the sequence that it names. */
static void check_previous(struct streams *streams, struct stream *s,
			   const struct streams_context *context)
{
	struct stream *previous = find(streams, wire_text(s->previous), STREAM_VERIFIED);

	/* Signing may have been off in one of the two streams; then they have different classes. */
	if (!previous)
		previous = find(streams, wire_text(s->previous), STREAM_UNSIGNED);
	if (!previous) {
		if (!context->start_excused(context->data, s, true))
			miss(streams, s, s->last, "its predecessor %s is not there", s->previous);
		return;
	}
	/* But an unsigned stream cannot end a verified one. */
	if (s->has_previous_sequence && s->class >= previous->class)
		previous->has_successor = true;
	if (s->has_previous_sequence && previous->expected <= s->previous_sequence)
		miss(streams, previous, previous->last,
		     "sequence %" PRIu64 "..%" PRIu64 " is missing: its successor %s names it",
		     previous->expected, s->previous_sequence, s->id);
}

static void check_start(struct streams *streams, struct stream *s,
			const struct streams_context *context)
{
	if (s->first > 1 && context->start_excused(context->data, s, false))
		s->pruned = true;
	else if (s->first > 1)
		miss(streams, s, s->last, "sequence 1..%" PRIu64 " is missing", s->first - 1);
	else if (!s->opened)
		miss(streams, s, s->last, "has no opened event");
}

static void check_end(struct streams *streams, struct stream *s,
		      const struct streams_context *context)
{
	if (s->broken)
		s->end = STREAM_BROKEN;
	else if (s->sealed)
		s->end = STREAM_COMPLETE;
	else
		s->end = s->has_successor || context->superseded(context->data, s)
				 ? STREAM_INTERRUPTED
				 : STREAM_OPEN;
	if (s->end == STREAM_OPEN && !context->open_excused(context->data, s))
		findings_add(streams->findings, FINDING_OPEN, 1, s->last,
			     "stream %s: ends with sequence %" PRIu64 " and without a seal", s->id,
			     s->expected - 1);
	streams->ends[s->end]++;
}

/* Add the losses of a stream to its cell's. An agent's totals go on from stream to stream. */
static void add_to_cell(struct streams *streams, const struct stream *s)
{
	struct name *name = find_name(streams, wire_text(s->cell));
	struct stream_losses *cell;

	if (!name)
		return;
	cell = &name->losses;
	add_saturated(&cell->gap_frames, s->losses.gap_frames);
	add_saturated(&cell->kernel_receipts, s->losses.kernel_receipts);
	cell->guest_dropped = MAX(cell->guest_dropped, s->losses.guest_dropped);
	cell->kernel_lost = MAX(cell->kernel_lost, s->losses.kernel_lost);
}

void streams_finish(struct streams *streams, const struct streams_context *context)
{
	struct stream *s;

	for (s = streams->first; s; s = s->next)
		if (s->previous && !context->ignored(context->data, s))
			check_previous(streams, s, context);
	for (s = streams->first; s; s = s->next)
		if (!context->ignored(context->data, s)) {
			check_start(streams, s, context);
			check_end(streams, s, context);
			add_to_cell(streams, s);
		}
}

const struct stream *streams_first(const struct streams *streams)
{
	return streams->first;
}

uint64_t streams_count(const struct streams *streams)
{
	return streams->n;
}

uint64_t streams_count_end(const struct streams *streams, enum stream_end end)
{
	return streams->ends[end];
}

static uint64_t declared_lost(const struct stream_losses *losses)
{
	uint64_t n = MAX(losses->gap_frames, losses->guest_dropped);

	add_saturated(&n, stream_kernel_lost(losses));
	return n;
}

uint64_t streams_declared_lost(const struct streams *streams)
{
	uint64_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(streams->names); i++)
		for (const struct name *name = streams->names[i]; name; name = name->chain)
			add_saturated(&n, declared_lost(&name->losses));
	return n;
}

uint64_t stream_declared_lost(const struct stream *s)
{
	return declared_lost(&s->losses);
}

uint64_t stream_kernel_lost(const struct stream_losses *losses)
{
	return MAX(losses->kernel_receipts, losses->kernel_lost);
}

const char *stream_end_name(enum stream_end end)
{
	static const char *const names[] = {
		[STREAM_COMPLETE] = "sealed",
		[STREAM_INTERRUPTED] = "interrupted",
		[STREAM_OPEN] = "open",
		[STREAM_BROKEN] = "broken",
	};

	return names[end];
}
