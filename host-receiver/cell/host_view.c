/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/host_view.h"

#include "common/log.h"

struct host_view {
	struct stream *stream;		 /* borrowed */
	const struct host_view_ops *ops; /* borrowed */
	void *owner;			 /* borrowed */
	struct probe_set *set;
	struct witness witness;
	bool reads_vmm, vmm_known;
	uint64_t vmm_before; /* connections that the VMM counted before the cell was served here */
	uint64_t vmm_reported; /* connections that were reported as too many */
	uint64_t vmm_bytes;
};

/* ---- the two views, compared ---- */

static void judge(struct host_view *v)
{
	const uint64_t now_ns = monotonic_ns();
	struct witness_verdict verdict;

	while (witness_judge(&v->witness, &verdict)) {
		report_unwitnessed(v->stream, &verdict, now_ns);
		log_warning("msg=\"the host saw nothing of declared connects\" cell=%s "
			    "declared=%" PRIu64,
			    v->stream->identity->cell_id, verdict.declared);
	}
}

/*
 * Every connection of the VMM to the cell's socket was accepted here, or waits in the backlog. So
 * the VMM can count more only if another process's socket was at the path, or if it serves other
 * ports too.
 */
static void compare_connections(struct host_view *v, uint64_t vmm_connections)
{
	uint64_t accepted, more;

	if (!v->vmm_known)
		v->vmm_before = vmm_connections;
	v->vmm_known = true;
	if (!v->ops->accept_waiting(v->owner, &accepted))
		return;
	more = vmm_connections - v->vmm_before;
	more = more > accepted ? more - accepted : 0;
	if (more <= v->vmm_reported)
		return;
	v->ops->contested(v->owner, more - v->vmm_reported);
	v->vmm_reported = more;
}

/* ---- what the probes say ---- */

static void on_reading(void *ctx, enum probe_kind kind, const struct probe_reading *reading)
{
	struct host_view *v = ctx;

	v->ops->probed(v->owner, kind, false);
	report_reading(v->stream, kind, reading);
	switch (kind) {
	case PROBE_TAP_LINK:
	case PROBE_NFTABLES:
		witness_read(&v->witness, kind, reading);
		judge(v);
		break;
	case PROBE_FC_METRICS:
		v->vmm_bytes = reading->vmm_bytes;
		compare_connections(v, reading->vmm_connections);
		break;
	case PROBE_CGROUP:
	case _PROBE_KIND_MAX: break;
	}
}

static void on_failed(void *ctx, enum probe_kind kind, const char *why, bool blind, bool changed)
{
	struct host_view *v = ctx;

	v->ops->probed(v->owner, kind, true);
	if (blind && (kind == PROBE_TAP_LINK || kind == PROBE_NFTABLES))
		witness_failed(&v->witness, kind);
	if (changed)
		log_warning("msg=\"a probe cannot read\" cell=%s probe=%s why=\"%s\"",
			    v->stream->identity->cell_id, host_probe_table[kind]->name, why);
}

static void on_recovered(void *ctx, enum probe_kind kind)
{
	const struct host_view *v = ctx;

	log_notice("msg=\"the probe reads again\" cell=%s probe=%s", v->stream->identity->cell_id,
		   host_probe_table[kind]->name);
}

/*
 * A reading may be delayed, because counters go on counting and a later reading has the same
 * information.
 */
static bool has_room(void *ctx)
{
	const struct host_view *v = ctx;

	return !pipeline_full(v->stream->pipeline);
}

static void on_finished(void *ctx)
{
	struct host_view *v = ctx;

	v->ops->finished(v->owner);
}

static const struct probe_set_callbacks set_callbacks = {
	.reading = on_reading,
	.failed = on_failed,
	.recovered = on_recovered,
	.has_room = has_room,
	.finished = on_finished,
};

/* ---- for the owner ---- */

int host_view_new(struct probe_scheduler *probes, const struct host_view_options *o,
		  struct stream *stream, const struct host_view_ops *ops, void *owner,
		  struct host_view **ret)
{
	const unsigned interval_ms = o->probes->interval_ms;
	struct host_view *v = calloc(1, sizeof(*v));
	int r;

	*ret = NULL;
	if (!v)
		return -ENOMEM;
	v->stream = stream;
	v->ops = ops;
	v->owner = owner;
	v->vmm_known = !o->taken_over;
	v->reads_vmm = o->probes->fc_metrics != NULL;
	witness_init(&v->witness, interval_ms,
		     o->witness_before_ms ? o->witness_before_ms : interval_ms,
		     o->witness_after_ms ? o->witness_after_ms : 2 * interval_ms);
	r = probe_set_new(probes, o->probes, &set_callbacks, v, &v->set);
	if (r < 0 || !v->set) {
		free(v);
		return r;
	}
	*ret = v;
	return 0;
}

void host_view_declared(struct host_view *v, const struct declaration *d, uint64_t now_ns)
{
	if (v && witness_expects_packets(d))
		witness_declared(&v->witness, now_ns);
}

bool host_view_vmm_bytes(const struct host_view *v, uint64_t *ret)
{
	if (!v || !v->reads_vmm)
		return false;
	*ret = v->vmm_bytes;
	return true;
}

const struct probe_set *host_view_probes(const struct host_view *v)
{
	return v ? v->set : NULL;
}

void host_view_finish(struct host_view *v)
{
	probe_set_finish(v->set);
}

void host_view_free(struct host_view *v)
{
	if (!v)
		return;
	probe_set_free(v->set);
	free(v);
}
