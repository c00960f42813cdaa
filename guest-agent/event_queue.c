/* SPDX-License-Identifier: MIT */
/*
 * The ring is a run of entries, each a head and an encoded frame, never broken by the end of the
 * memory: where the rest is too short a gap entry fills it. Frames are encoded straight into their
 * place. Offsets count bytes for ever; the place is offset % size.
 */
#include "guest-agent/event_queue.h"

#include <sys/mman.h>

#include "common/util.h"

enum entry_kind {
	ENTRY_GAP,
	ENTRY_OBSERVATION,
	ENTRY_TELEMETRY,
	ENTRY_RECEIPT, /* a struct event_loss stands between head and frame */
};

/* Of a gap there are only size and kind: it can be as short as 8 bytes. */
struct entry {
	uint32_t size; /* of the whole entry, a multiple of 8 */
	uint16_t kind;
	uint16_t frame_at; /* from the entry's start */
	uint32_t frame_len;
	uint32_t unused;
	/* Once this frame is sent, the host can account for every number up to this one. */
	uint64_t covers;
};
_Static_assert(sizeof(struct entry) % 8 == 0, "entries stay aligned");
_Static_assert(offsetof(struct entry, frame_at) <= 8, "a gap of 8 bytes holds its size and kind");
_Static_assert(sizeof(struct event_loss) % 8 == 0, "frames of receipts stay aligned");

struct event_queue {
	uint8_t *ring;
	size_t size;	     /* a multiple of 8 */
	uint64_t head, tail; /* oldest byte, next free byte */
	size_t head_sent;    /* bytes of the first frame that the channel took */
	unsigned events, capacity;
	uint64_t peak;
	uint16_t content_version;
	uint64_t next_seq;
	uint64_t covered; /* of the last frame that was sent whole */
	struct event_loss pending;
	uint64_t last_receipt_ns;
	struct event_queue_totals totals;
};

struct event_queue *event_queue_new(unsigned capacity, uint16_t content_version)
{
	size_t size = (size_t)capacity * EVENT_QUEUE_BYTES_EVENT + EVENT_QUEUE_RESERVE;
	struct event_queue *q = calloc(1, sizeof(*q));
	void *ring;

	if (!q)
		return NULL;
	/* Of its own mapping only the pages that a backlog has reached become resident. */
	ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ring == MAP_FAILED) {
		free(q);
		return NULL;
	}
	*q = (struct event_queue){
		.ring = ring,
		.size = size,
		.capacity = capacity,
		.content_version = content_version,
		.next_seq = 1,
	};
	return q;
}

void event_queue_free(struct event_queue *q)
{
	if (!q)
		return;
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

/* A gap to the end of the memory is stepped over like an entry. */
static void skip_gaps(struct event_queue *q)
{
	while (q->head != q->tail && entry_at(q, q->head)->kind == ENTRY_GAP)
		q->head += entry_at(q, q->head)->size;
	/* An empty ring starts over, so that it touches no more memory than it needs. */
	if (q->head == q->tail)
		q->head = q->tail = 0;
}

static void pop(struct event_queue *q)
{
	if (entry_at(q, q->head)->kind == ENTRY_OBSERVATION)
		q->events--;
	q->head += entry_at(q, q->head)->size;
	q->head_sent = 0;
	skip_gaps(q);
}

/*
 * Encode d as a new entry, leaving `reserve` bytes of the ring free behind it. Returns 0, -ENOBUFS
 * when it does not fit, or what wire_encode() says.
 */
static int append(struct event_queue *q, const struct declaration *d, enum entry_kind kind,
		  size_t reserve)
{
	const size_t frame_at =
		sizeof(struct entry) + (kind == ENTRY_RECEIPT ? sizeof(struct event_loss) : 0);
	const size_t used = q->tail - q->head, place = q->tail % q->size;
	const size_t to_end = q->size - place;
	size_t free_bytes = q->size - used, room = MIN(to_end, free_bytes);
	struct entry *e;
	int n = -EMSGSIZE;

	if (free_bytes < reserve)
		return -ENOBUFS;
	free_bytes -= reserve;
	room = MIN(to_end, free_bytes);
	if (room > frame_at)
		n = wire_encode(d, q->ring + place + frame_at, room - frame_at);
	if (n == -EMSGSIZE && room < frame_at + WIRE_FRAME_SEND_MAX) {
		/* Not here: then at the start of the memory, if that is free. */
		if (room < to_end || free_bytes - to_end <= frame_at)
			return -ENOBUFS;
		n = wire_encode(d, q->ring + frame_at, free_bytes - to_end - frame_at);
		if (n == -EMSGSIZE && free_bytes - to_end < frame_at + WIRE_FRAME_SEND_MAX)
			return -ENOBUFS;
		if (n < 0)
			return n;
		/* There may be room for no more of the entry than these two. */
		e = entry_at(q, q->tail);
		e->size = (uint32_t)to_end;
		e->kind = ENTRY_GAP;
		q->tail += to_end;
	}
	if (n < 0)
		return n;
	e = entry_at(q, q->tail);
	*e = (struct entry){
		.size = (uint32_t)((frame_at + (size_t)n + 7) & ~(size_t)7),
		.kind = (uint16_t)kind,
		.frame_at = (uint16_t)frame_at,
		.frame_len = (uint32_t)n,
		.covers = q->next_seq - 1,
	};
	q->tail += e->size;
	return 0;
}

static enum probe_family family_of(enum wire_source source)
{
	static const enum probe_family families[] = {
		[WIRE_PROCESS_SPAWNED] = PROBE_PROCESS,
		[WIRE_PROCESS_EXECUTED] = PROBE_PROCESS,
		[WIRE_PROCESS_IDENTITY_CHANGED] = PROBE_PROCESS,
		[WIRE_PROCESS_SESSION_STARTED] = PROBE_PROCESS,
		[WIRE_PROCESS_TRACED] = PROBE_PROCESS,
		[WIRE_PROCESS_CORE_DUMPED] = PROBE_PROCESS,
		[WIRE_PROCESS_EXITED] = PROBE_PROCESS,
		[WIRE_NET_CONNECT_ATTEMPTED] = PROBE_NET,
		[WIRE_NET_DATAGRAM_SENT] = PROBE_NET,
		[WIRE_NET_BOUND] = PROBE_NET,
		[WIRE_NET_SOCKET_CREATED] = PROBE_NET,
		[WIRE_CAPABILITY_DENIED] = PROBE_CAPABILITY,
		[WIRE_FS_CHANGED] = PROBE_FS,
		[WIRE_FS_INOTIFY_FIRED] = PROBE_FS,
	};
	_Static_assert(ARRAY_SIZE(families) == WIRE_TELEMETRY_DROPPED,
		       "a family for each observation");

	return families[source];
}

/* The one place that loses anything. seq 0: it had no number. */
static void drop(struct event_queue *q, enum drop_reason reason, enum probe_family family,
		 uint64_t n, uint64_t seq, uint64_t at_ns)
{
	struct event_loss *loss = &q->pending;

	q->totals.dropped[reason] += n;
	loss->count[reason] += n;
	if (reason == DROP_QUEUE_FULL || reason == DROP_KERNEL_OVERRUN)
		loss->family[family] += n;
	if (seq > 0) {
		loss->first_seq = loss->first_seq ? MIN(loss->first_seq, seq) : seq;
		loss->last_seq = MAX(loss->last_seq, seq);
	}
	loss->first_ns = loss->first_ns ? MIN(loss->first_ns, at_ns) : at_ns;
	loss->last_ns = MAX(loss->last_ns, at_ns);
}

void event_queue_observe(struct event_queue *q, struct declaration *d)
{
	int r = -ENOBUFS;

	/* Version 1 knows no such source. */
	if (q->content_version == WIRE_VERSION_1 && d->source == WIRE_PROCESS_EXECUTED)
		return;
	d->content_version = q->content_version;
	d->seq = q->next_seq++;
	q->totals.observed++;
	if (q->events < q->capacity)
		r = append(q, d, ENTRY_OBSERVATION, EVENT_QUEUE_RESERVE);
	if (r < 0) {
		drop(q, r == -ENOBUFS ? DROP_QUEUE_FULL : DROP_TOO_LARGE, family_of(d->source), 1,
		     d->seq, d->guest_monotonic_ns);
		return;
	}
	q->events++;
	q->peak = MAX(q->peak, (uint64_t)q->events);
}

void event_queue_kernel_lost(struct event_queue *q, enum probe_family family, uint64_t n)
{
	if (n > 0)
		drop(q, DROP_KERNEL_OVERRUN, family, n, 0, monotonic_ns());
}

int event_queue_put_telemetry(struct event_queue *q, struct declaration *d)
{
	d->content_version = q->content_version;
	d->seq = 0;
	declaration_add_uint(d, WIRE_KEY_NEXT_SEQ, q->next_seq);
	return append(q, d, ENTRY_TELEMETRY, 0);
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
	return event_queue_receipt_pending(q) && q->events < q->capacity &&
	       (q->last_receipt_ns == 0 ||
		now_ns - q->last_receipt_ns >= EVENT_QUEUE_RECEIPT_MS * NSEC_PER_MSEC);
}

int event_queue_put_receipt(struct event_queue *q, struct declaration *d)
{
	static const enum wire_key count_keys[] = {
		[DROP_QUEUE_FULL] = WIRE_KEY_QUEUE_FULL,
		[DROP_TOO_LARGE] = WIRE_KEY_TOO_LARGE,
		[DROP_CHANNEL] = WIRE_KEY_CHANNEL,
		[DROP_KERNEL_OVERRUN] = WIRE_KEY_KERNEL_OVERRUN,
	};
	static const enum wire_key family_keys[] = {
		[PROBE_PROCESS] = WIRE_KEY_PROCESS_LOST,
		[PROBE_NET] = WIRE_KEY_NET_LOST,
		[PROBE_CAPABILITY] = WIRE_KEY_CAPABILITY_LOST,
		[PROBE_FS] = WIRE_KEY_FS_LOST,
	};
	const struct event_loss *loss = &q->pending;
	const uint64_t offset = q->tail, now_ns = d->guest_monotonic_ns;
	uint64_t total = 0;
	struct entry *e;
	int r;

	for (size_t i = 0; i < _DROP_REASON_MAX; i++) {
		declaration_add_uint(d, count_keys[i], loss->count[i]);
		total += q->totals.dropped[i];
	}
	for (size_t i = 0; i < _PROBE_FAMILY_MAX; i++)
		declaration_add_uint(d, family_keys[i], loss->family[i]);
	if (loss->first_seq > 0) {
		declaration_add_uint(d, WIRE_KEY_FIRST_SEQ, loss->first_seq);
		declaration_add_uint(d, WIRE_KEY_LAST_SEQ, loss->last_seq);
	}
	declaration_add_uint(d, WIRE_KEY_FIRST_NS, loss->first_ns);
	declaration_add_uint(d, WIRE_KEY_LAST_NS, loss->last_ns);
	declaration_add_uint(d, WIRE_KEY_NEXT_SEQ, q->next_seq);
	d->content_version = q->content_version;
	d->seq = 0;
	/* Version 1 has no details: the total travels in the time field. */
	if (q->content_version == WIRE_VERSION_1)
		d->guest_monotonic_ns = total;
	r = append(q, d, ENTRY_RECEIPT, 0);
	if (r < 0)
		return r;
	e = entry_at(q, offset);
	if (e->kind == ENTRY_GAP)
		e = entry_at(q, offset + e->size);
	*entry_loss(e) = q->pending;
	q->pending = (struct event_loss){0};
	q->last_receipt_ns = now_ns;
	return 0;
}

size_t event_queue_peek(const struct event_queue *q, struct iovec *iov, size_t max)
{
	size_t n = 0, skip = q->head_sent;

	for (uint64_t at = q->head; at != q->tail && n < max;) {
		struct entry *e = entry_at(q, at);

		at += e->size;
		if (e->kind == ENTRY_GAP)
			continue;
		iov[n++] = (struct iovec){
			.iov_base = entry_frame(e) + skip,
			.iov_len = e->frame_len - skip,
		};
		skip = 0;
	}
	return n;
}

void event_queue_sent(struct event_queue *q, size_t bytes)
{
	while (bytes > 0) {
		const struct entry *e = entry_at(q, q->head);
		const size_t left = e->frame_len - q->head_sent;

		if (bytes < left) {
			q->head_sent += bytes;
			return;
		}
		bytes -= left;
		if (e->kind == ENTRY_OBSERVATION)
			q->totals.sent++;
		q->covered = MAX(q->covered, e->covers);
		pop(q);
	}
}

/* A receipt that did not arrive is owed again. */
static void restore_loss(struct event_queue *q, const struct event_loss *lost)
{
	struct event_loss *loss = &q->pending;

	for (size_t i = 0; i < _DROP_REASON_MAX; i++)
		loss->count[i] += lost->count[i];
	for (size_t i = 0; i < _PROBE_FAMILY_MAX; i++)
		loss->family[i] += lost->family[i];
	if (lost->first_seq > 0) {
		loss->first_seq =
			loss->first_seq ? MIN(loss->first_seq, lost->first_seq) : lost->first_seq;
		loss->last_seq = MAX(loss->last_seq, lost->last_seq);
	}
	loss->first_ns = loss->first_ns ? MIN(loss->first_ns, lost->first_ns) : lost->first_ns;
	loss->last_ns = MAX(loss->last_ns, lost->last_ns);
}

void event_queue_connection_lost(struct event_queue *q)
{
	struct entry *e = entry_at(q, q->head);

	if (q->head_sent == 0)
		return;
	if (e->kind == ENTRY_OBSERVATION)
		drop(q, DROP_CHANNEL, PROBE_PROCESS, 1, e->covers, monotonic_ns());
	else if (e->kind == ENTRY_RECEIPT)
		restore_loss(q, entry_loss(e));
	pop(q);
}

/* ---- renumbering ---- */

/* Bytes of a head, and its value; our own encoder wrote it, so there is no other kind. */
static size_t read_head(const uint8_t *p, uint64_t *ret)
{
	const unsigned info = p[0] & 0x1f;
	const size_t n = info < 24 ? 0 : (size_t)1 << (info - 24);

	*ret = info < 24 ? info : 0;
	for (size_t i = 0; i < n; i++)
		*ret = *ret << 8 | p[1 + i];
	return 1 + n;
}

static size_t item_size(const uint8_t *p)
{
	const bool text = (p[0] & 0xe0) == 0x60;
	uint64_t value;
	const size_t head = read_head(p, &value);

	return text ? head + (size_t)value : head;
}

static size_t write_head(uint8_t *p, uint64_t v)
{
	const size_t n = v < 24		   ? 0
			 : v <= UINT8_MAX  ? 1
			 : v <= UINT16_MAX ? 2
			 : v <= UINT32_MAX ? 4
					   : 8;

	p[0] = (uint8_t)(n == 0 ? v : n == 1 ? 24 : n == 2 ? 25 : n == 4 ? 26 : 27);
	for (size_t i = 0; i < n; i++)
		p[1 + i] = (uint8_t)(v >> (8 * (n - 1 - i)));
	return 1 + n;
}

/*
 * Lower the seq of an encoded observation. It is the value of the sixth pair; the number gets
 * smaller, so the frame never grows and stays in its place.
 */
static void lower_seq(struct entry *e, uint64_t by)
{
	const size_t pairs_before = 5, key_size = 1 + 3;
	uint8_t *frame = entry_frame(e), *p = frame + WIRE_PREFIX_SIZE + 1, *rest;
	uint64_t seq;
	size_t body;

	for (size_t i = 0; i < 2 * pairs_before; i++)
		p += item_size(p);
	p += key_size;
	rest = p + read_head(p, &seq);
	p += write_head(p, seq - by);
	memmove(p, rest, (size_t)(frame + e->frame_len - rest));
	e->frame_len -= (uint32_t)(rest - p);
	e->covers -= by;
	body = e->frame_len - WIRE_PREFIX_SIZE;
	for (size_t i = 0; i < WIRE_PREFIX_SIZE; i++)
		frame[i] = (uint8_t)(body >> (8 * i));
}

void event_queue_new_session(struct event_queue *q)
{
	const uint64_t base = q->covered;

	for (uint64_t at = q->head; at != q->tail;) {
		struct entry *e = entry_at(q, at);

		at += e->size;
		if (e->kind == ENTRY_RECEIPT)
			restore_loss(q, entry_loss(e));
		if (e->kind == ENTRY_OBSERVATION) {
			if (q->content_version >= WIRE_VERSION_2)
				lower_seq(e, base);
		} else {
			e->kind = ENTRY_GAP;
		}
	}
	skip_gaps(q);
	q->next_seq -= base;
	q->covered = 0;
	/* What was lost before the last number that arrived keeps no number in the new session. */
	if (q->pending.last_seq > base) {
		q->pending.first_seq =
			q->pending.first_seq > base ? q->pending.first_seq - base : 1;
		q->pending.last_seq -= base;
	} else {
		q->pending.first_seq = q->pending.last_seq = 0;
	}
}

uint64_t event_queue_wire_seq(const struct event_queue *q)
{
	for (uint64_t at = q->head; at != q->tail;) {
		const struct entry *e = entry_at(q, at);

		if (e->kind == ENTRY_OBSERVATION)
			return e->covers;
		at += e->size;
	}
	return q->next_seq;
}

bool event_queue_empty(const struct event_queue *q)
{
	return q->head == q->tail;
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
