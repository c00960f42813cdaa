/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/limited.h"

static void report(struct limited *l, struct stream *s, enum limited_kind kind, uint64_t count)
{
	const struct wire_text source = {.data = l->source, .len = l->source_len};

	switch (kind) {
	case LIMITED_VERSION: report_version_rejected(s, l->version, count); break;
	case LIMITED_SOURCE: report_unknown_source(s, source, count); break;
	case LIMITED_SECOND_CONNECTION:
		report_contested(s, "second_connection", &l->peers[kind], count);
		break;
	case LIMITED_PEER: report_contested(s, "peer_credentials", &l->peers[kind], count); break;
	case LIMITED_VMM_COUNTS: report_contested(s, "vmm_counts_more", NULL, count); break;
	case _LIMITED_MAX: break;
	}
}

void limited_count(struct limited *l, struct stream *s, enum limited_kind kind, uint64_t n,
		   uint64_t now_ns)
{
	const uint64_t count = once_a_second_add(&l->kinds[kind], n, now_ns);

	if (count > 0)
		report(l, s, kind, count);
}

void limited_refusal(struct limited *l, struct stream *s, const struct wire_refusal *refusal,
		     uint64_t now_ns)
{
	if (refusal->error == WIRE_UNSUPPORTED_VERSION) {
		l->version = refusal->content_version;
		limited_count(l, s, LIMITED_VERSION, 1, now_ns);
		return;
	}
	l->source_len = MIN(refusal->source.len, sizeof(l->source));
	memcpy(l->source, refusal->source.data, l->source_len);
	limited_count(l, s, LIMITED_SOURCE, 1, now_ns);
}

void limited_contest(struct limited *l, struct stream *s, enum limited_kind kind,
		     const struct ucred *peer, uint64_t now_ns)
{
	l->peers[kind] = *peer;
	limited_count(l, s, kind, 1, now_ns);
}

void limited_flush(struct limited *l, struct stream *s, uint64_t now_ns, bool force)
{
	for (enum limited_kind kind = 0; kind < _LIMITED_MAX; kind++) {
		const uint64_t count = once_a_second_take(&l->kinds[kind], now_ns, force);

		if (count > 0)
			report(l, s, kind, count);
	}
}

uint64_t limited_due(const struct limited *l)
{
	uint64_t due = 0;

	for (enum limited_kind kind = 0; kind < _LIMITED_MAX; kind++)
		if (l->kinds[kind].count > 0 && (due == 0 || l->kinds[kind].due_ns < due))
			due = l->kinds[kind].due_ns;
	return due;
}
