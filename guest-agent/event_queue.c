/* SPDX-License-Identifier: MIT */
/*
 * The ring is a sequence of entries, each a head and an encoded frame. An entry never wraps around
 * the end of the memory: a gap entry fills a rest that is too short. Frames are encoded directly in
 * their place. Offsets count bytes and never go back; the place is offset % size.
 *
 *     head             cursor            tail
 *     | sent, not settled | not sent yet |
 *
 * An entry is freed when the head passes it. A telemetry frame that was sent is never sent again:
 * it becomes a hole that the head passes later.
 */
#include "guest-agent/event_queue.h"

#include <sys/mman.h>

#include "common/util.h"
#include "guest-agent/fold.h"
#include "guest-agent/renumber.h"

enum entry_kind {
	ENTRY_GAP,  /* to the end of the memory */
	ENTRY_HOLE, /* a telemetry frame that was sent or is no longer to be sent */
	ENTRY_TELEMETRY,
	ENTRY_OBSERVATION,
	ENTRY_RECEIPT, /* a struct event_loss stands between head and frame */
};

/* Of a gap there are only size and kind: it can be as short as 8 bytes. */
struct entry {
	uint32_t size; /* of the whole entry, a multiple of 8 */
	uint8_t kind;
	uint8_t family;	   /* of an observation */
	uint16_t frame_at; /* from the entry's start */
	uint32_t frame_len;
	uint32_t weight; /* observations that the frame stands for */
	/* The number of this frame; without one, of the last numbered frame before it. Once it is
	 * sent, the host can account for every number up to this one. */
	uint64_t covers;
};
_Static_assert(sizeof(struct entry) % 8 == 0, "entries stay aligned");
_Static_assert(offsetof(struct entry, frame_at) <= 8, "a gap of 8 bytes holds its size and kind");
_Static_assert(sizeof(struct event_loss) % 8 == 0, "frames of receipts stay aligned");

_Static_assert(sizeof(struct entry) + sizeof(struct event_loss) + WIRE_FRAME_SEND_MAX <=
		       EVENT_QUEUE_SLACK,
	       "the gap at the end of the memory takes no room from the events");

struct usage {
	size_t events, bytes;
};

struct event_queue {
	uint8_t *ring;
	size_t size; /* a multiple of 8 */
	uint64_t head, cursor, tail;
	uint64_t last;	    /* the newest entry, if there is one */
	size_t cursor_sent; /* bytes of the frame at the cursor that the channel took */
	struct usage used[_PROBE_FAMILY_MAX], capacity;
	size_t telemetry_bytes; /* receipts and holes included */
	uint64_t events, peak;
	uint16_t content_version;
	bool keep_sent;
	uint64_t next_seq;
	uint64_t highest_sent, settled;
	uint64_t accounted; /* covers of the frames that were sent whole */
	uint64_t limit;
	struct event_loss pending;
	uint64_t last_receipt_ns;
	struct event_queue_totals totals;
	struct fold *fold; /* NULL with version 1, which has no field for it */
};

struct event_queue *event_queue_new(unsigned capacity, uint16_t content_version)
{
	const size_t bytes =
		MAX((size_t)capacity * EVENT_QUEUE_BYTES_EVENT, (size_t)EVENT_QUEUE_BYTES_MIN);
	const size_t size = bytes + EVENT_QUEUE_RESERVE + EVENT_QUEUE_SLACK;
	struct event_queue *q = calloc(1, sizeof(*q));
	void *ring;

	if (!q)
		return NULL;
	/* In a mapping of its own, only the pages that a backlog has reached become resident. */
	ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ring == MAP_FAILED) {
		free(q);
		return NULL;
	}
	/* Otherwise each reader process keeps copies of the pages that the agent changes. */
	(void)!madvise(ring, size, MADV_DONTFORK);
	*q = (struct event_queue){
		.ring = ring,
		.size = size,
		.capacity = {.events = capacity, .bytes = bytes},
		.content_version = content_version,
		.next_seq = 1,
		.limit = UINT64_MAX,
		.fold = content_version == WIRE_VERSION_1 ? NULL : fold_new(),
	};
	if (!q->fold && content_version != WIRE_VERSION_1) {
		event_queue_free(q);
		return NULL;
	}
	return q;
}

void event_queue_free(struct event_queue *q)
{
	if (!q)
		return;
	fold_free(q->fold);
	munmap(q->ring, q->size);
	free(q);
}

static struct entry *entry_at(const struct event_queue *q, uint64_t offset)
{
	return (struct entry *)(q->ring + offset % q->size);
}

static uint8_t *entry_frame(struct entry *e)
{
	return (uint8_t *)e + e->frame_at;
}

static struct event_loss *entry_loss(struct entry *e)
{
	return (struct event_loss *)(e + 1);
}

static bool is_numbered(const struct entry *e)
{
	return e->kind == ENTRY_OBSERVATION || e->kind == ENTRY_RECEIPT;
}

/* ---- shares ---- */

static size_t over(size_t used, size_t own)
{
	return used > own ? used - own : 0;
}

/* How much the family may still use: of its own part, and of the shared part. */
static struct usage room_for(const struct event_queue *q, enum probe_family family)
{
	const struct usage own = {.events = q->capacity.events / EVENT_QUEUE_SHARE,
				  .bytes = q->capacity.bytes / EVENT_QUEUE_SHARE};
	struct usage room = {.events = q->capacity.events - _PROBE_FAMILY_MAX * own.events,
			     .bytes = q->capacity.bytes - _PROBE_FAMILY_MAX * own.bytes};

	for (int f = 0; f < _PROBE_FAMILY_MAX; f++) {
		room.events -= over(q->used[f].events, own.events);
		room.bytes -= over(q->used[f].bytes, own.bytes);
	}
	room.events += over(own.events, q->used[family].events);
	room.bytes += over(own.bytes, q->used[family].bytes);
	return room;
}

static void account(struct event_queue *q, const struct entry *e, bool taken)
{
	const size_t bytes = taken ? e->size : -(size_t)e->size, one = taken ? 1 : -(size_t)1;

	if (e->kind == ENTRY_OBSERVATION) {
		q->used[e->family].events += one;
		q->used[e->family].bytes += bytes;
		q->events += one;
	} else if (e->kind != ENTRY_GAP) {
		q->telemetry_bytes += bytes;
	}
}

/* ---- the ring ---- */

/* Free the entries at the head that are no longer needed. */
static void release(struct event_queue *q)
{
	while (q->head != q->tail) {
		const struct entry *e = entry_at(q, q->head);

		if (e->kind == ENTRY_TELEMETRY || (is_numbered(e) && e->covers > q->settled) ||
		    (q->head == q->cursor && q->cursor_sent > 0))
			return;
		account(q, e, false);
		if (q->head == q->cursor)
			q->cursor += e->size;
		q->head += e->size;
	}
	/*
	 * An empty ring starts at offset 0 again, so that it touches no more memory than it needs.
	 */
	q->head = q->cursor = q->tail = 0;
}

/*
 * The newest entry can be a hole: while old frames wait to be settled, each heartbeat takes the
 * place of the previous one.
 */
static void reuse_last_hole(struct event_queue *q)
{
	const struct entry *e = entry_at(q, q->last);

	if (q->head == q->tail || q->last >= q->tail || q->cursor != q->tail ||
	    e->kind != ENTRY_HOLE)
		return;
	account(q, e, false);
	q->cursor = q->tail = q->last;
}

/*
 * Encode d as a new entry of at most `limit` bytes. Returns it, or NULL with *ret_error -ENOBUFS
 * when it does not fit, or what wire_encode() says. The caller sets family and weight and accounts
 * for it.
 */
static struct entry *append(struct event_queue *q, const struct declaration *d,
			    enum entry_kind kind, size_t limit, int *ret_error)
{
	const size_t frame_at =
		sizeof(struct entry) + (kind == ENTRY_RECEIPT ? sizeof(struct event_loss) : 0);
	const size_t place = q->tail % q->size, to_end = q->size - place;
	const size_t free_bytes = q->size - (size_t)(q->tail - q->head);
	size_t room = MIN(to_end, free_bytes), gap = 0, size;
	struct entry *e;
	int n = -EMSGSIZE;

	if (room > frame_at)
		n = wire_encode(d, q->ring + place + frame_at, room - frame_at);
	if (n == -EMSGSIZE && room == to_end && room < frame_at + WIRE_FRAME_SEND_MAX &&
	    free_bytes > to_end + frame_at) {
		/* It does not fit here; then at the start of the memory. */
		gap = to_end;
		room = free_bytes - to_end;
		n = wire_encode(d, q->ring + frame_at, room - frame_at);
	}
	size = (frame_at + (size_t)MAX(n, 0) + 7) & ~(size_t)7;
	if (n < 0 || size > limit) {
		/* The frame is too large only if a whole frame had room. */
		*ret_error = n < 0 && (n != -EMSGSIZE || room >= frame_at + WIRE_FRAME_SEND_MAX)
				     ? n
				     : -ENOBUFS;
		return NULL;
	}
	if (gap > 0) {
		/* The gap may be so short that only these two fields fit. */
		e = entry_at(q, q->tail);
		e->size = (uint32_t)gap;
		e->kind = ENTRY_GAP;
		q->tail += gap;
	}
	q->last = q->tail;
	e = entry_at(q, q->tail);
	*e = (struct entry){
		.size = (uint32_t)size,
		.kind = (uint8_t)kind,
		.frame_at = (uint16_t)frame_at,
		.frame_len = (uint32_t)n,
		.covers = q->next_seq - 1,
	};
	q->tail += e->size;
	return e;
}

/* ---- loss ---- */

/* The only function that drops. seq 0: the observation had no number. */
static void drop(struct event_queue *q, enum drop_reason reason, enum probe_family family,
		 uint64_t n, uint64_t seq, uint64_t at_ns)
{
	const struct event_loss one = {
		.first_seq = seq, .last_seq = seq, .first_ns = at_ns, .last_ns = at_ns};

	q->totals.dropped[reason] += n;
	q->pending.count[reason] += n;
	if (reason == DROP_QUEUE_FULL || reason == DROP_KERNEL_OVERRUN)
		q->pending.family[family] += n;
	event_loss_widen(&q->pending, &one);
}

void event_queue_kernel_lost(struct event_queue *q, enum probe_family family, uint64_t n)
{
	if (n > 0)
		drop(q, DROP_KERNEL_OVERRUN, family, n, 0, monotonic_ns());
}

/* ---- observations ---- */

/* The sources that version 1 has a name for. */
static bool is_version_1(enum wire_source source)
{
	return source == WIRE_PROCESS_SPAWNED || source == WIRE_PROCESS_EXITED ||
	       source == WIRE_NET_CONNECT_ATTEMPTED || source == WIRE_CAPABILITY_DENIED ||
	       source == WIRE_FS_INOTIFY_FIRED;
}

/* weight: how many observations it stands for. */
static void put_observation(struct event_queue *q, struct declaration *d, uint32_t weight)
{
	const enum probe_family family = event_loss_family(d->source);
	const struct usage room = room_for(q, family);
	struct entry *e = NULL;
	int error = -ENOBUFS;

	d->content_version = q->content_version;
	d->seq = q->next_seq++;
	if (room.events > 0)
		e = append(q, d, ENTRY_OBSERVATION, room.bytes, &error);
	if (!e) {
		drop(q, error == -ENOBUFS ? DROP_QUEUE_FULL : DROP_TOO_LARGE, family, weight,
		     d->seq, d->guest_monotonic_ns);
		return;
	}
	e->family = (uint8_t)family;
	e->weight = weight;
	account(q, e, true);
	q->peak = MAX(q->peak, q->events);
}

/* A process begins or ends: repeats that were counted of its pid come before it. */
static void forget_pid(struct event_queue *q, uint32_t pid)
{
	struct declaration d;
	uint32_t count;

	while (fold_forget(q->fold, pid, &d, &count))
		put_observation(q, &d, count);
}

void event_queue_observe(struct event_queue *q, struct declaration *d)
{
	if (!q->fold && !is_version_1(d->source))
		return;
	q->totals.observed++;
	if (q->fold && (d->source == WIRE_PROCESS_SPAWNED || d->source == WIRE_PROCESS_EXITED))
		forget_pid(q, d->guest_pid);
	if (q->fold && fold_take(q->fold, d))
		return;
	put_observation(q, d, 1);
}

void event_queue_flush_folded(struct event_queue *q, uint64_t now_ns)
{
	struct declaration d;
	uint32_t count;

	while (q->fold && fold_due(q->fold, now_ns, &d, &count))
		put_observation(q, &d, count);
}

uint64_t event_queue_folded_ns(const struct event_queue *q)
{
	return q->fold ? fold_next_ns(q->fold) : 0;
}

/* ---- telemetry frames ---- */

int event_queue_put_telemetry(struct event_queue *q, struct declaration *d)
{
	struct entry *e;
	int error;

	reuse_last_hole(q);
	d->content_version = q->content_version;
	d->seq = 0;
	declaration_add_uint(d, WIRE_KEY_NEXT_SEQ, q->next_seq);
	e = append(q, d, ENTRY_TELEMETRY, SIZE_MAX, &error);
	if (!e)
		return error;
	account(q, e, true);
	return 0;
}

bool event_queue_receipt_pending(const struct event_queue *q)
{
	for (size_t i = 0; i < _DROP_REASON_MAX; i++)
		if (q->pending.count[i] > 0)
			return true;
	return false;
}

bool event_queue_receipt_due(const struct event_queue *q, uint64_t now_ns)
{
	return event_queue_receipt_pending(q) && q->telemetry_bytes < EVENT_QUEUE_RESERVE / 2 &&
	       q->events < q->capacity.events &&
	       (q->last_receipt_ns == 0 ||
		now_ns - q->last_receipt_ns >= EVENT_QUEUE_RECEIPT_MS * NSEC_PER_MSEC);
}

int event_queue_put_receipt(struct event_queue *q, struct declaration *d)
{
	const uint64_t now_ns = d->guest_monotonic_ns;
	struct entry *e;
	int error;

	event_loss_fill(d, &q->pending);
	d->content_version = q->content_version;
	d->seq = q->next_seq;
	/* Version 1 has no details: the total travels in the time field. */
	if (q->content_version == WIRE_VERSION_1) {
		d->guest_monotonic_ns = 0;
		for (size_t i = 0; i < _DROP_REASON_MAX; i++)
			d->guest_monotonic_ns += q->totals.dropped[i];
	}
	e = append(q, d, ENTRY_RECEIPT, SIZE_MAX, &error);
	if (!e)
		return error;
	e->covers = q->next_seq++;
	account(q, e, true);
	*entry_loss(e) = q->pending;
	q->pending = (struct event_loss){0};
	q->last_receipt_ns = now_ns;
	return 0;
}

/* ---- sending ---- */

static bool may_be_sent(const struct event_queue *q, const struct entry *e)
{
	return q->limit == UINT64_MAX || (is_numbered(e) && e->covers <= q->limit);
}

size_t event_queue_peek(const struct event_queue *q, struct iovec *iov, size_t max)
{
	size_t n = 0, skip = q->cursor_sent;

	for (uint64_t at = q->cursor; at != q->tail && n < max;) {
		struct entry *e = entry_at(q, at);

		at += e->size;
		if (e->kind == ENTRY_GAP || e->kind == ENTRY_HOLE)
			continue;
		if (!may_be_sent(q, e))
			break;
		iov[n++] = (struct iovec){
			.iov_base = entry_frame(e) + skip,
			.iov_len = e->frame_len - skip,
		};
		skip = 0;
	}
	return n;
}

static void frame_sent(struct event_queue *q, struct entry *e)
{
	q->accounted = MAX(q->accounted, e->covers);
	if (!is_numbered(e)) {
		e->kind = ENTRY_HOLE;
		return;
	}
	if (e->covers > q->highest_sent) {
		q->highest_sent = e->covers;
		q->totals.sent += e->weight;
	}
	if (!q->keep_sent)
		q->settled = MAX(q->settled, e->covers);
}

void event_queue_sent(struct event_queue *q, size_t bytes)
{
	while (bytes > 0) {
		struct entry *e = entry_at(q, q->cursor);
		size_t left;

		if (e->kind == ENTRY_GAP || e->kind == ENTRY_HOLE) {
			q->cursor += e->size;
			continue;
		}
		left = e->frame_len - q->cursor_sent;
		if (bytes < left) {
			q->cursor_sent += bytes;
			break;
		}
		bytes -= left;
		frame_sent(q, e);
		q->cursor += e->size;
		q->cursor_sent = 0;
	}
	release(q);
}

/* ---- delivery ---- */

void event_queue_keep_sent(struct event_queue *q, bool keep)
{
	q->keep_sent = keep;
	if (!keep)
		event_queue_settle(q, q->highest_sent);
}

void event_queue_rewind(struct event_queue *q)
{
	struct entry *e = entry_at(q, q->cursor);

	/* A frame without a number is never sent again, not even its rest. */
	if (q->cursor_sent > 0 && !is_numbered(e))
		e->kind = ENTRY_HOLE;
	q->cursor_sent = 0;
	q->cursor = q->head;
	release(q);
}

bool event_queue_settle(struct event_queue *q, uint64_t n)
{
	if (n <= q->settled)
		return false;
	q->settled = n;
	q->accounted = MAX(q->accounted, n);
	release(q);
	return true;
}

static struct entry *oldest_sent(const struct event_queue *q)
{
	for (uint64_t at = q->head; at != q->tail;) {
		struct entry *e = entry_at(q, at);

		if (is_numbered(e))
			return e->covers <= q->highest_sent ? e : NULL;
		at += e->size;
	}
	return NULL;
}

bool event_queue_awaits_settling(const struct event_queue *q)
{
	return oldest_sent(q) != NULL;
}

bool event_queue_drop_oldest_sent(struct event_queue *q)
{
	const struct entry *e = oldest_sent(q);

	if (!e)
		return false;
	if (e->kind == ENTRY_RECEIPT)
		/* The receipt was not delivered, so what it reports is due again. */
		event_loss_add(&q->pending, entry_loss((struct entry *)e));
	else
		drop(q, DROP_CHANNEL, (enum probe_family)e->family, e->weight, e->covers,
		     monotonic_ns());
	event_queue_settle(q, e->covers);
	return true;
}

void event_queue_limit(struct event_queue *q, uint64_t highest)
{
	q->limit = highest;
}

void event_queue_new_session(struct event_queue *q, uint64_t base)
{
	for (uint64_t at = q->head; at != q->tail;) {
		struct entry *e = entry_at(q, at);

		at += e->size;
		if (e->kind == ENTRY_TELEMETRY)
			e->kind = ENTRY_HOLE;
		if (!is_numbered(e))
			continue;
		if (e->kind == ENTRY_RECEIPT)
			renumber_range(&entry_loss(e)->first_seq, &entry_loss(e)->last_seq, base);
		if (q->content_version >= WIRE_VERSION_2)
			e->frame_len -=
				(uint32_t)renumber_frame(entry_frame(e), e->frame_len, base);
		e->covers -= base;
	}
	q->next_seq -= base;
	q->settled = q->highest_sent = q->accounted = 0;
	q->limit = UINT64_MAX;
	renumber_range(&q->pending.first_seq, &q->pending.last_seq, base);
	release(q);
}

/* ---- figures ---- */

uint64_t event_queue_highest_sent(const struct event_queue *q)
{
	return q->highest_sent;
}

uint64_t event_queue_settled(const struct event_queue *q)
{
	return q->settled;
}

uint64_t event_queue_accounted(const struct event_queue *q)
{
	return q->accounted;
}

void event_queue_announce(struct event_queue *q, uint64_t n)
{
	q->accounted = MAX(q->accounted, n);
}

uint64_t event_queue_first_seq(const struct event_queue *q)
{
	for (uint64_t at = q->head; at != q->tail;) {
		const struct entry *e = entry_at(q, at);

		if (is_numbered(e))
			return e->covers;
		at += e->size;
	}
	return q->next_seq;
}

uint64_t event_queue_next_seq(const struct event_queue *q)
{
	return q->next_seq;
}

bool event_queue_all_sent(const struct event_queue *q)
{
	struct iovec iov;

	return event_queue_peek(q, &iov, 1) == 0;
}

const struct event_queue_totals *event_queue_totals(const struct event_queue *q)
{
	return &q->totals;
}

uint64_t event_queue_take_peak(struct event_queue *q)
{
	uint64_t peak = q->peak;

	q->peak = q->events;
	return peak;
}
