/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/host_view.h"

#include "common/log.h"
#include "host-receiver/cell/cell.h"

/* ---- the two views, compared ---- */

static void judge(struct observer *o)
{
	const uint64_t now_ns = monotonic_ns();
	struct witness_verdict verdict;

	while (witness_judge(&o->witness, &verdict))
		tell_unwitnessed(o->cell, &verdict, now_ns);
}

/*
 * Every connection that the VMM made to the cell's socket was accepted here, or waits to be: so it
 * cannot count more, unless somebody else's socket was in its place, or the VMM serves other ports.
 */
static void compare_connections(struct observer *o, uint64_t vmm_connections)
{
	uint64_t more;

	if (!o->vmm_known)
		o->vmm_before = vmm_connections;
	o->vmm_known = true;
	if (!o->ops->accept_waiting(o->cell))
		return;
	more = vmm_connections - o->vmm_before;
	more = more > o->cell->n_accepted ? more - o->cell->n_accepted : 0;
	if (more <= o->vmm_told)
		return;
	o->ops->contested(o->cell, more - o->vmm_told);
	o->vmm_told = more;
}

/* ---- what the probes say ---- */

static void on_reading(void *ctx, enum probe_kind kind, const struct probe_reading *reading)
{
	struct observer *o = ctx;

	o->cell->host->stats.probe_readings[kind]++;
	tell_reading(o->cell, kind, reading);
	switch (kind) {
	case PROBE_TAP_LINK:
	case PROBE_NFTABLES:
		witness_read(&o->witness, kind, reading);
		judge(o);
		break;
	case PROBE_FC_METRICS:
		o->vmm_bytes = reading->vmm_bytes;
		compare_connections(o, reading->vmm_connections);
		break;
	case PROBE_CGROUP:
	case _PROBE_KIND_MAX: break;
	}
}

static void on_failed(void *ctx, enum probe_kind kind, const char *why, bool blind, bool changed)
{
	struct observer *o = ctx;

	o->cell->host->stats.probe_failures[kind]++;
	if (blind && (kind == PROBE_TAP_LINK || kind == PROBE_NFTABLES))
		witness_failed(&o->witness, kind);
	if (changed)
		log_warning("msg=\"a probe cannot read\" cell=%s probe=%s why=\"%s\"",
			    o->cell->options.cell_id, host_probe_table[kind]->name, why);
}

static void on_recovered(void *ctx, enum probe_kind kind)
{
	const struct observer *o = ctx;

	log_notice("msg=\"the probe reads again\" cell=%s probe=%s", o->cell->options.cell_id,
		   host_probe_table[kind]->name);
}

/* Counters go on counting: what is read later says as much. */
static bool has_room(void *ctx)
{
	const struct observer *o = ctx;

	return !pipeline_full(o->cell->host->pipeline);
}

static void on_finished(void *ctx)
{
	struct observer *o = ctx;

	o->ops->finished(o->cell);
}

static const struct probe_set_callbacks listener = {
	.reading = on_reading,
	.failed = on_failed,
	.recovered = on_recovered,
	.has_room = has_room,
	.finished = on_finished,
};

/* ---- the cell's ---- */

int observer_new(struct cell *cell, const struct observer_ops *ops, bool taken_over,
		 struct observer **ret)
{
	const struct cell_options *options = &cell->options;
	const unsigned interval_ms = options->probes.interval_ms;
	struct observer *o = calloc(1, sizeof(*o));
	int r;

	*ret = NULL;
	if (!o)
		return -ENOMEM;
	o->cell = cell;
	o->ops = ops;
	o->vmm_known = !taken_over;
	o->reads_vmm = options->probes.fc_metrics != NULL;
	witness_init(&o->witness, interval_ms,
		     options->witness_before_ms ? options->witness_before_ms : interval_ms,
		     options->witness_after_ms ? options->witness_after_ms : 2 * interval_ms);
	r = probe_set_new(cell->host->probes, &options->probes, &listener, o, &o->set);
	if (r < 0 || !o->set) {
		free(o);
		return r;
	}
	*ret = o;
	return 0;
}

void observer_declared(struct observer *o, const struct declaration *d, uint64_t now_ns)
{
	if (o && witness_expects_packets(d))
		witness_declared(&o->witness, now_ns);
}

void observer_finish(struct observer *o)
{
	probe_set_finish(o->set);
}

void observer_free(struct observer *o)
{
	if (!o)
		return;
	probe_set_free(o->set);
	free(o);
}
