/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/schedule.h"

#include "common/util.h"
#include "host-receiver/probes/nftables.h"
#include "host-receiver/probes/pool.h"

static const char gave_up[] = "the reading hangs for 2 s; it is tried again when it has ended";
static const char refused[] = "too many readings of this kind hang; no thread is left for another";

struct slot {
	struct probe *probe; /* NULL: not wanted */
	bool in_flight, stuck, failing;
	bool last_one; /* is to be started yet: probe_set_finish() */
	uint64_t readings, failures, last_ns;
	char *why; /* owned */
};

struct probe_set {
	struct probe_host *host; /* borrowed */
	const struct probe_listener *listener;
	void *ctx;
	unsigned interval_ms;
	struct slot slots[_PROBE_KIND_MAX];
	uv_timer_t timer;
	bool timer_closed, freed, finishing;
	unsigned in_flight; /* jobs that refer to the set */

	struct probe_set *nft_next, **nft_link; /* with an nftables probe: in the host's list */
	uint64_t nft_due_ns;
};

/* One reading of one probe. */
struct read_job {
	struct pool_job job;
	struct probe_set *set;
	enum probe_kind kind;
	int r;
	struct probe_reading reading;
	char why[PROBE_WHY_MAX];
};

/* One reading of the ruleset, and from it those of some sets. */
struct nft_job {
	struct pool_job job;
	struct probe_host *host;
	size_t n;
	struct read_job *reads; /* job unused */
};

struct probe_host {
	/* Of each kind its own: a VMM's API that is slow is not in the way of sysfs. */
	struct pool *pools[_PROBE_KIND_MAX];
	uint64_t n_sets; /* ever */
	struct probe_set *nft_sets;
	uv_timer_t nft_timer;
	bool nft_in_flight, nft_stuck;
};

/* ---- what came of a reading ---- */

static void set_free_if_unused(struct probe_set *set)
{
	if (!set->freed || !set->timer_closed || set->in_flight > 0)
		return;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		if (set->slots[kind].probe)
			probe_table[kind]->close(set->slots[kind].probe);
		free(set->slots[kind].why);
	}
	free(set);
}

static bool set_is_done(const struct probe_set *set)
{
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		const struct slot *slot = &set->slots[kind];

		if (slot->last_one || (slot->in_flight && !slot->stuck))
			return false;
	}
	return true;
}

static void check_finished(struct probe_set *set)
{
	if (!set->finishing || set->freed || !set_is_done(set))
		return;
	set->finishing = false;
	set->listener->finished(set->ctx);
}

static void tell_failure(struct probe_set *set, enum probe_kind kind, const char *why, bool blind)
{
	struct slot *slot = &set->slots[kind];
	const bool changed = !slot->failing;

	slot->failing = true;
	slot->failures++;
	free(slot->why);
	slot->why = strdup(why);
	set->listener->failed(set->ctx, kind, why, blind, changed);
}

static void tell_reading(struct probe_set *set, enum probe_kind kind,
			 const struct probe_reading *reading)
{
	struct slot *slot = &set->slots[kind];

	slot->readings++;
	slot->last_ns = reading->taken_ns;
	set->listener->reading(set->ctx, kind, reading);
}

static void tell_recovery(struct probe_set *set, enum probe_kind kind)
{
	struct slot *slot = &set->slots[kind];

	if (!slot->failing)
		return;
	slot->failing = false;
	free(take_ptr(slot->why));
	set->listener->recovered(set->ctx, kind);
}

static void tell(const struct read_job *read)
{
	struct probe_set *set = read->set;

	if (set->freed)
		return;
	if (read->r > 0)
		tell_reading(set, read->kind, &read->reading);
	if (read->r < 0 || *read->why)
		tell_failure(set, read->kind, *read->why ? read->why : strerror(-read->r),
			     read->r < 0);
	else
		tell_recovery(set, read->kind);
}

static void read_slot(struct probe_set *set, enum probe_kind kind);

/* A reading of the set is over, whatever came of it. */
static void settle(struct read_job *read, enum pool_outcome outcome)
{
	struct probe_set *set = read->set;
	struct slot *slot = &set->slots[read->kind];

	if (outcome == POOL_GAVE_UP) {
		slot->stuck = true;
		slot->last_one = false;
		if (!set->freed)
			tell_failure(set, read->kind, gave_up, true);
		check_finished(set);
		return;
	}
	set->in_flight--;
	slot->in_flight = slot->stuck = false;
	/* What came too late says how it was long ago; that is not told as how it is. */
	if (outcome == POOL_FINISHED ||
	    (outcome == POOL_LATE && probe_table[read->kind]->is_history))
		tell(read);
	else if (outcome == POOL_REFUSED && !set->freed)
		tell_failure(set, read->kind, refused, true);
	if (read->r > 0)
		probe_reading_done(&read->reading);
	/* It was begun before the end was known. The ruleset is planned for all sets. */
	if (slot->last_one && read->kind != PROBE_NFTABLES)
		read_slot(set, read->kind);
	check_finished(set);
	set_free_if_unused(set);
}

/* ---- one probe ---- */

static void run_read(struct pool_job *job)
{
	struct read_job *read = (struct read_job *)job;

	read->r = probe_table[read->kind]->read(read->set->slots[read->kind].probe, &read->reading,
						read->why);
}

static void on_read(struct pool_job *job, enum pool_outcome outcome)
{
	struct read_job *read = (struct read_job *)job;

	settle(read, outcome);
	if (outcome != POOL_GAVE_UP)
		free(read);
}

static void read_slot(struct probe_set *set, enum probe_kind kind)
{
	struct slot *slot = &set->slots[kind];
	struct read_job *read;

	if (!slot->probe || slot->in_flight)
		return;
	slot->last_one = false;
	read = calloc(1, sizeof(*read));
	if (!read) {
		tell_failure(set, kind, strerror(ENOMEM), true);
		return;
	}
	read->job.run = run_read;
	read->job.done = on_read;
	read->set = set;
	read->kind = kind;
	slot->in_flight = true;
	set->in_flight++;
	pool_submit(set->host->pools[kind], &read->job);
}

static void on_timer(uv_timer_t *timer)
{
	struct probe_set *set = timer->data;
	const bool room = set->listener->has_room(set->ctx);

	for (int kind = 0; kind < _PROBE_KIND_MAX && room; kind++)
		if (kind != PROBE_NFTABLES)
			read_slot(set, (enum probe_kind)kind);
	uv_timer_start(timer, on_timer, set->interval_ms, 0);
}

/* ---- the ruleset ---- */

static void run_nft(struct pool_job *job)
{
	struct nft_job *nft = (struct nft_job *)job;
	char why[PROBE_WHY_MAX] = "";
	struct nft_dump dump;
	const int r = nft_dump_read(&dump, why);

	for (size_t i = 0; i < nft->n; i++) {
		struct read_job *read = &nft->reads[i];

		read->r = r;
		memcpy(read->why, why, sizeof(why));
		if (r == 0)
			read->r = nft_reading(&dump, read->set->slots[PROBE_NFTABLES].probe,
					      &read->reading, read->why);
	}
	nft_dump_done(&dump);
}

static void plan_nft(struct probe_host *host);

/* Nobody will read the ruleset for these before they go. */
static void release_waiting(struct probe_host *host)
{
	struct probe_set *next;

	for (struct probe_set *set = host->nft_sets; set; set = next) {
		next = set->nft_next;
		if (!set->slots[PROBE_NFTABLES].last_one)
			continue;
		set->slots[PROBE_NFTABLES].last_one = false;
		tell_failure(set, PROBE_NFTABLES, gave_up, true);
		check_finished(set);
	}
}

static void on_nft(struct pool_job *job, enum pool_outcome outcome)
{
	struct nft_job *nft = (struct nft_job *)job;
	struct probe_host *host = nft->host;

	for (size_t i = 0; i < nft->n; i++)
		settle(&nft->reads[i], outcome);
	host->nft_stuck = outcome == POOL_GAVE_UP;
	if (host->nft_stuck) {
		release_waiting(host);
		return;
	}
	host->nft_in_flight = false;
	plan_nft(host);
	free(nft->reads);
	free(nft);
}

/* Those that are due and cannot be told wait for their next turn. */
static void postpone_nft(struct probe_set *set, uint64_t now_ns)
{
	if (set->nft_due_ns <= now_ns && !set->listener->has_room(set->ctx))
		set->nft_due_ns = now_ns + set->interval_ms * NSEC_PER_MSEC;
}

/* Those that are due, or will be soon: one reading serves them all. */
static bool nft_is_due(const struct probe_set *set, uint64_t now_ns)
{
	return set->slots[PROBE_NFTABLES].last_one ||
	       set->nft_due_ns <= now_ns + set->interval_ms * NSEC_PER_MSEC / 2;
}

static void on_nft_timer(uv_timer_t *timer)
{
	struct probe_host *host = timer->data;
	const uint64_t now_ns = monotonic_ns();
	struct nft_job *nft;
	size_t n = 0;

	if (host->nft_in_flight)
		return;
	for (struct probe_set *set = host->nft_sets; set; set = set->nft_next) {
		postpone_nft(set, now_ns);
		n += nft_is_due(set, now_ns);
	}
	nft = n > 0 ? calloc(1, sizeof(*nft)) : NULL;
	if (nft)
		nft->reads = calloc(n, sizeof(*nft->reads));
	if (!nft || !nft->reads) {
		free(nft);
		plan_nft(host);
		return;
	}
	nft->job.run = run_nft;
	nft->job.done = on_nft;
	nft->host = host;
	for (struct probe_set *set = host->nft_sets; set; set = set->nft_next) {
		if (!nft_is_due(set, now_ns))
			continue;
		nft->reads[nft->n].set = set;
		nft->reads[nft->n].kind = PROBE_NFTABLES;
		nft->n++;
		set->nft_due_ns = now_ns + set->interval_ms * NSEC_PER_MSEC;
		set->slots[PROBE_NFTABLES].in_flight = true;
		set->slots[PROBE_NFTABLES].last_one = false;
		set->in_flight++;
	}
	host->nft_in_flight = true;
	pool_submit(host->pools[PROBE_NFTABLES], &nft->job);
}

static void plan_nft(struct probe_host *host)
{
	const uint64_t now_ns = monotonic_ns();
	uint64_t due_ns = UINT64_MAX;

	for (struct probe_set *set = host->nft_sets; set; set = set->nft_next)
		due_ns =
			MIN(due_ns, set->slots[PROBE_NFTABLES].last_one ? now_ns : set->nft_due_ns);
	if (due_ns == UINT64_MAX || host->nft_in_flight)
		uv_timer_stop(&host->nft_timer);
	else
		uv_timer_start(&host->nft_timer, on_nft_timer,
			       due_ns > now_ns ? (due_ns - now_ns) / NSEC_PER_MSEC + 1 : 0, 0);
}

/* ---- sets ---- */

/* A place in the interval for each, far from those before (the golden ratio's multiples). */
static unsigned phase_of(uint64_t n, unsigned interval_ms)
{
	const uint64_t turn = n * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned)((turn >> 32) * interval_ms >> 32);
}

int probe_set_new(struct probe_host *host, const struct probe_options *options,
		  const struct probe_listener *listener, void *ctx, struct probe_set **ret)
{
	struct probe_set *set;
	bool any = false;

	*ret = NULL;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		any |= probe_table[kind]->wanted(options);
	if (!any)
		return 0;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->host = host;
	set->listener = listener;
	set->ctx = ctx;
	set->interval_ms = options->interval_ms;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		if (!probe_table[kind]->wanted(options))
			continue;
		set->slots[kind].probe = probe_table[kind]->open(options);
		if (set->slots[kind].probe)
			continue;
		set->freed = set->timer_closed = true;
		set_free_if_unused(set);
		return -ENOMEM;
	}
	uv_timer_init(host->nft_timer.loop, &set->timer);
	set->timer.data = set;
	uv_timer_start(&set->timer, on_timer, phase_of(host->n_sets++, set->interval_ms), 0);
	if (set->slots[PROBE_NFTABLES].probe) {
		set->nft_next = host->nft_sets;
		set->nft_link = &host->nft_sets;
		if (set->nft_next)
			set->nft_next->nft_link = &set->nft_next;
		host->nft_sets = set;
		set->nft_due_ns = monotonic_ns();
		plan_nft(host);
	}
	*ret = set;
	return 0;
}

/* What has not been read by now, or waits for a thread still, is not waited for. */
static void on_deadline(uv_timer_t *timer)
{
	struct probe_set *set = timer->data;

	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		struct slot *slot = &set->slots[kind];

		if (!slot->last_one && (!slot->in_flight || slot->stuck))
			continue;
		slot->last_one = false;
		slot->stuck = slot->in_flight;
		tell_failure(set, (enum probe_kind)kind, gave_up, true);
	}
	check_finished(set);
}

void probe_set_finish(struct probe_set *set)
{
	set->finishing = true;
	uv_timer_start(&set->timer, on_deadline, POOL_GIVE_UP_MS, 0);
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		struct slot *slot = &set->slots[kind];

		if (!slot->probe || slot->stuck || (kind == PROBE_NFTABLES && set->host->nft_stuck))
			continue;
		slot->last_one = true;
		if (kind != PROBE_NFTABLES)
			read_slot(set, (enum probe_kind)kind);
	}
	if (set->slots[PROBE_NFTABLES].probe)
		plan_nft(set->host);
	check_finished(set);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct probe_set *set = handle->data;

	set->timer_closed = true;
	set_free_if_unused(set);
}

void probe_set_free(struct probe_set *set)
{
	if (!set)
		return;
	set->freed = true;
	if (set->nft_link) {
		*set->nft_link = set->nft_next;
		if (set->nft_next)
			set->nft_next->nft_link = set->nft_link;
		plan_nft(set->host);
	}
	uv_close((uv_handle_t *)&set->timer, on_timer_closed);
}

struct probe_status probe_set_status(const struct probe_set *set, enum probe_kind kind)
{
	const struct slot *slot = set ? &set->slots[kind] : NULL;

	if (!slot || !slot->probe)
		return (struct probe_status){0};
	return (struct probe_status){
		.wanted = true,
		.failing = slot->failing,
		.readings = slot->readings,
		.failures = slot->failures,
		.last_ns = slot->last_ns,
		.why = slot->failing ? slot->why : NULL,
	};
}

/* ---- the host ---- */

int probe_host_new(uv_loop_t *loop, struct probe_host **ret)
{
	struct probe_host *host = calloc(1, sizeof(*host));
	int r;

	if (!host)
		return -ENOMEM;
	uv_timer_init(loop, &host->nft_timer);
	host->nft_timer.data = host;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		r = pool_new(loop, &host->pools[kind]);
		if (r < 0) {
			probe_host_free(host);
			return r;
		}
	}
	*ret = host;
	return 0;
}

static void on_host_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void probe_host_free(struct probe_host *host)
{
	if (!host)
		return;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		pool_free(take_ptr(host->pools[kind]));
	uv_close((uv_handle_t *)&host->nft_timer, on_host_closed);
}

unsigned probe_host_stuck(const struct probe_host *host)
{
	unsigned n = 0;

	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		n += pool_stuck(host->pools[kind]);
	return n;
}
