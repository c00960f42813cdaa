/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/witness.h"

#include <arpa/inet.h>

#include "common/util.h"

static unsigned bit(enum probe_kind kind)
{
	return 1u << kind;
}

void witness_init(struct witness *w, unsigned interval_ms, unsigned before_ms, unsigned after_ms)
{
	*w = (struct witness){
		.interval_ns = interval_ms * NSEC_PER_MSEC,
		.before_ns = before_ms * NSEC_PER_MSEC,
		.after_ns = after_ms * NSEC_PER_MSEC,
	};
}

/* ---- what is expected of a declaration ---- */

static const struct wire_detail *detail(const struct declaration *d, enum wire_key key)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key && d->details[i].type == WIRE_TYPE_TEXT)
			return &d->details[i];
	return NULL;
}

static bool text_is(struct wire_text text, const char *s)
{
	return text.len == strlen(s) && memcmp(text.data, s, text.len) == 0;
}

/* 127.0.0.0/8, and 0.0.0.0, which connect(2) treats like it. */
static bool is_loopback4(const uint8_t *address)
{
	static const uint8_t any[4];

	return address[0] == 127 || memcmp(address, any, sizeof(any)) == 0;
}

static bool is_loopback6(const uint8_t *address)
{
	static const uint8_t any[16];
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (memcmp(address, mapped, sizeof(mapped)) == 0)
		return is_loopback4(address + sizeof(mapped));
	return memcmp(address, any, 15) == 0 && address[15] <= 1;
}

/* Whether a connect to this address must send a packet. */
static bool is_elsewhere(struct wire_text family, struct wire_text address)
{
	char text[INET6_ADDRSTRLEN];
	uint8_t bytes[16];

	if (address.len >= sizeof(text))
		return false;
	memcpy(text, address.data, address.len);
	text[address.len] = '\0';
	if (text_is(family, "inet"))
		return inet_pton(AF_INET, text, bytes) == 1 && !is_loopback4(bytes);
	if (text_is(family, "inet6"))
		return inet_pton(AF_INET6, text, bytes) == 1 && !is_loopback6(bytes);
	return false;
}

bool witness_expects_packets(const struct declaration *d)
{
	/* A connect with another result may have been refused before it sent anything. */
	static const char *const sent[] = {"ok", "EINPROGRESS", "ECONNREFUSED", "ETIMEDOUT"};
	const struct wire_detail *family = detail(d, WIRE_KEY_FAMILY);
	const struct wire_detail *address = detail(d, WIRE_KEY_ADDRESS);
	const struct wire_detail *result = detail(d, WIRE_KEY_RESULT);

	if (d->source != WIRE_NET_CONNECT_ATTEMPTED || !family || !address ||
	    !is_elsewhere(family->text, address->text))
		return false;
	for (size_t i = 0; result && i < ARRAY_SIZE(sent); i++)
		if (text_is(result->text, sent[i]))
			return true;
	return !result;
}

/* ---- groups ---- */

static struct witness_group *newest(struct witness *w)
{
	return w->n_groups ? &w->groups[w->n_groups - 1] : NULL;
}

static bool moved_lately(const struct witness *w, uint64_t now_ns)
{
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		if (w->last[kind].moved_ns && w->last[kind].moved_ns + w->before_ns >= now_ns)
			return true;
	return false;
}

void witness_declared(struct witness *w, uint64_t now_ns)
{
	struct witness_group *g = newest(w);

	/* No witness can be read. */
	if (w->able == 0)
		return;
	/*
	 * A declaration without room for its own group joins the newest group, whose window grows.
	 */
	if (!g || (now_ns - g->first_ns >= w->interval_ns && w->n_groups < WITNESS_GROUPS)) {
		g = &w->groups[w->n_groups++];
		*g = (struct witness_group){.first_ns = now_ns};
	}
	g->count++;
	g->last_ns = now_ns;
	g->seen_by = 0;
	g->witnessed |= moved_lately(w, now_ns);
}

void witness_read(struct witness *w, enum probe_kind kind, const struct probe_reading *reading)
{
	const bool known = w->able & bit(kind);
	const uint64_t since_ns = w->last[kind].taken_ns;
	const bool moved = known && reading->packets != w->last[kind].packets;

	w->able |= bit(kind);
	w->last[kind].taken_ns = reading->taken_ns;
	w->last[kind].packets = reading->packets;
	if (moved)
		w->last[kind].moved_ns = reading->taken_ns;
	for (unsigned i = 0; i < w->n_groups; i++) {
		struct witness_group *g = &w->groups[i];

		/* The packets before the first reading are not known, so nothing is judged. */
		if (!known || (moved && since_ns <= g->last_ns + w->after_ns))
			g->witnessed = true;
		if (reading->taken_ns >= g->last_ns + w->after_ns)
			g->seen_by |= bit(kind);
	}
}

void witness_failed(struct witness *w, enum probe_kind kind)
{
	w->able &= ~bit(kind);
	if (w->able == 0)
		w->n_groups = 0;
}

bool witness_judge(struct witness *w, struct witness_verdict *ret)
{
	while (w->n_groups > 0) {
		const struct witness_group g = w->groups[0];

		if (w->able == 0 || (g.seen_by & w->able) != w->able)
			return false;
		w->n_groups--;
		memmove(&w->groups[0], &w->groups[1], w->n_groups * sizeof(g));
		if (g.witnessed)
			continue;
		*ret = (struct witness_verdict){
			.declared = g.count,
			.since_ns = g.first_ns,
			.witnesses = g.seen_by & w->able,
		};
		return true;
	}
	return false;
}
