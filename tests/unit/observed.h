/* SPDX-License-Identifier: MIT */
/*
 * What a probe put into the agent's queue, taken out frame by frame and decoded, as the host would.
 */
#pragma once

#include <string.h>

#include <check.h>

#include "common/wire.h"
#include "guest-agent/event_queue.h"

#define OBSERVED_MAX 4096u

struct observed_text {
	char text[WIRE_DETAIL_TEXT_MAX + 1];
};

struct observed {
	uint32_t children_of; /* if not 0: other processes' children are left out */
	size_t n;
	struct observed_event {
		enum wire_source source;
		uint32_t pid;
		uint64_t at_ns;
		char comm[WIRE_COMM_MAX + 1];
		uint64_t has; /* mask of 1 << wire_key */
		uint64_t uints[_WIRE_KEY_MAX];
		char address[64], syscall[64], error[32], capability[64], via[32], family[16];
		char exe[128], result[32];
	} events[OBSERVED_MAX];
};

static inline void observed_text(char *out, size_t size, const struct wire_text *t)
{
	size_t n = t->len < size - 1 ? t->len : size - 1;

	memcpy(out, t->data, n);
	out[n] = '\0';
}

static inline bool observed_has(const struct observed_event *e, enum wire_key key)
{
	return e->has >> key & 1;
}

static inline void observed_add(struct observed *o, const struct declaration *d)
{
	struct observed_event *e = &o->events[o->n];

	ck_assert_uint_lt(o->n, OBSERVED_MAX);
	*e = (struct observed_event){
		.source = d->source, .pid = d->guest_pid, .at_ns = d->guest_monotonic_ns};
	observed_text(e->comm, sizeof(e->comm), &d->guest_comm);
	for (size_t i = 0; i < d->n_details; i++) {
		const struct wire_detail *w = &d->details[i];

		e->has |= UINT64_C(1) << w->key;
		if (w->type == WIRE_TYPE_UINT)
			e->uints[w->key] = w->uint;
		else if (w->type == WIRE_TYPE_BOOL)
			e->uints[w->key] = w->boolean;
		switch (w->key) {
		case WIRE_KEY_ADDRESS:
			observed_text(e->address, sizeof(e->address), &w->text);
			break;
		case WIRE_KEY_SYSCALL:
			observed_text(e->syscall, sizeof(e->syscall), &w->text);
			break;
		case WIRE_KEY_ERROR: observed_text(e->error, sizeof(e->error), &w->text); break;
		case WIRE_KEY_CAPABILITY:
			observed_text(e->capability, sizeof(e->capability), &w->text);
			break;
		case WIRE_KEY_VIA: observed_text(e->via, sizeof(e->via), &w->text); break;
		case WIRE_KEY_FAMILY: observed_text(e->family, sizeof(e->family), &w->text); break;
		case WIRE_KEY_EXE: observed_text(e->exe, sizeof(e->exe), &w->text); break;
		case WIRE_KEY_RESULT: observed_text(e->result, sizeof(e->result), &w->text); break;
		default: break;
		}
	}
	if (!o->children_of || !observed_has(e, WIRE_KEY_PPID) ||
	    e->uints[WIRE_KEY_PPID] == o->children_of)
		o->n++;
}

/* Folded observations as if they had not been folded: each of them again. */
static inline void observed_add_all(struct observed *o, const struct declaration *d)
{
	uint64_t n = 1;

	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == WIRE_KEY_REPEAT)
			n = d->details[i].uint;
	for (; n > 0; n--) {
		observed_add(o, d);
		if (o->n > 0)
			o->events[o->n - 1].has &= ~(UINT64_C(1) << WIRE_KEY_REPEAT);
	}
}

/* Move everything that is queued or folded to the end of *o. */
static inline void observed_take(struct observed *o, struct event_queue *q)
{
	static uint8_t frames[1 << 20];
	struct iovec iov[8];
	size_t n;

	event_queue_flush_folded(q, UINT64_MAX);
	for (n = event_queue_peek(q, iov, 8); n; n = event_queue_peek(q, iov, 8)) {
		size_t used = 0;

		for (size_t i = 0; i < n; i++) {
			ck_assert_uint_le(used + iov[i].iov_len, sizeof(frames));
			memcpy(frames + used, iov[i].iov_base, iov[i].iov_len);
			used += iov[i].iov_len;
		}
		event_queue_sent(q, used);
		for (size_t at = 0; at < used;) {
			uint32_t len = wire_decode_length(frames + at);
			struct wire_refusal refusal;
			struct declaration d;

			ck_assert_uint_le(at + WIRE_PREFIX_SIZE + len, used);
			ck_assert_int_eq(
				wire_decode(frames + at + WIRE_PREFIX_SIZE, len, &d, &refusal),
				WIRE_OK);
			observed_add_all(o, &d);
			at += WIRE_PREFIX_SIZE + len;
		}
	}
}
