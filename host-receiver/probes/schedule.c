/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/schedule.h"

#include "common/util.h"
#include "host-receiver/probes/nftables.h"
#include "host-receiver/probes/pool.h"

/*
 * The states of a slot:
 *
 *   state     a reading runs  one is due  ends in
 *   IDLE      no              no          READING (its turn), DUE (the set is finishing)
 *   DUE       no              yes         READING (its turn), IDLE (given up)
 *   READING   yes             no          IDLE (it ended), HANGING (given up), AGAIN (finishing)
 *   AGAIN     yes             yes         DUE (it ended), HANGING (given up)
 *   HANGING   yes, too long   no          IDLE (it ended after all)
 *
 * probe_set_finish() makes the states DUE and AGAIN: it wants one more reading of each probe, which
 * begins after the call.
 */
enum slot_state {
	SLOT_IDLE,
	SLOT_DUE,
	SLOT_READING,
	SLOT_AGAIN,
	SLOT_HANGING,
	_SLOT_STATE_MAX,
};

static const struct {
	bool runs;	 /* a job of this slot exists */
	bool waited_for; /* probe_set_finish() waits for it */
	enum slot_state on_finish, on_end, on_give_up;
} slot_states[] = {
	[SLOT_IDLE] = {false, false, SLOT_DUE, SLOT_IDLE, SLOT_IDLE},
	[SLOT_DUE] = {false, true, SLOT_DUE, SLOT_IDLE, SLOT_IDLE},
	[SLOT_READING] = {true, true, SLOT_AGAIN, SLOT_IDLE, SLOT_HANGING},
	[SLOT_AGAIN] = {true, true, SLOT_AGAIN, SLOT_DUE, SLOT_HANGING},
	[SLOT_HANGING] = {true, false, SLOT_HANGING, SLOT_IDLE, SLOT_HANGING},
};
_Static_assert(ARRAY_SIZE(slot_states) == _SLOT_STATE_MAX, "a row for each state");

static const char gave_up[] = "the reading hangs for 2 s; it is tried again when it has ended";
static const char refused[] = "too many readings of this kind hang; no thread is left for another";

struct slot {
	struct host_probe *probe; /* NULL: the options do not ask for it */
	enum slot_state state;
	bool failing; /* the last reading failed, and the owner knows */
	uint64_t readings, failures, last_ns;
	char *why; /* owned; the reason of the last failure. NULL: none, or no memory */
};

/* The probes of one cell. */
struct probe_set {
	struct probe_scheduler *scheduler; /* borrowed */
	const struct probe_set_callbacks *callbacks;
	void *ctx;
	unsigned interval_ms;
	struct slot slots[_PROBE_KIND_MAX];
	uv_timer_t timer;
	bool timer_closed, freed, finishing;
	unsigned jobs; /* jobs that refer to the set */

	struct probe_set *nft_next,
		**nft_link; /* the scheduler's list of sets with an nftables probe */
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

/* One reading of the ruleset. It gives a reading to each of n sets. */
struct nft_job {
	struct pool_job job;
	struct probe_scheduler *scheduler;
	size_t n;
	struct read_job *reads; /* job unused */
};

struct probe_scheduler {
	/* One pool for each kind: a slow VMM API does not delay readings of sysfs. */
	struct pool *pools[_PROBE_KIND_MAX];
	uint64_t n_sets; /* all that were ever made */
	struct probe_set *nft_sets;
	uv_timer_t nft_timer;
	bool nft_in_flight, nft_hangs;
};

/* ---- the result of a reading ---- */

static void set_free_if_unused(struct probe_set *set)
{
	if (!set->freed || !set->timer_closed || set->jobs > 0)
		return;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		if (set->slots[kind].probe)
			host_probe_table[kind]->close(set->slots[kind].probe);
		free(set->slots[kind].why);
	}
	free(set);
}

static void check_finished(struct probe_set *set)
{
	if (!set->finishing || set->freed)
		return;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		if (slot_states[set->slots[kind].state].waited_for)
			return;
	set->finishing = false;
	set->callbacks->finished(set->ctx);
}

static void report_failure(struct probe_set *set, enum probe_kind kind, const char *why, bool blind)
{
	struct slot *slot = &set->slots[kind];
	const bool changed = !slot->failing;

	slot->failing = true;
	slot->failures++;
	free(slot->why);
	slot->why = strdup(why);
	set->callbacks->failed(set->ctx, kind, why, blind, changed);
}

static void report_recovery(struct probe_set *set, enum probe_kind kind)
{
	struct slot *slot = &set->slots[kind];

	if (!slot->failing)
		return;
	slot->failing = false;
	free(take_ptr(slot->why));
	set->callbacks->recovered(set->ctx, kind);
}

static void report_result(const struct read_job *read)
{
	struct probe_set *set = read->set;
	struct slot *slot = &set->slots[read->kind];

	if (set->freed)
		return;
	if (read->r > 0) {
		slot->readings++;
		slot->last_ns = read->reading.taken_ns;
		set->callbacks->reading(set->ctx, read->kind, &read->reading);
	}
	if (read->r < 0 || *read->why)
		report_failure(set, read->kind, *read->why ? read->why : strerror(-read->r),
			       read->r < 0);
	else
		report_recovery(set, read->kind);
}

static void give_up(struct probe_set *set, enum probe_kind kind)
{
	struct slot *slot = &set->slots[kind];

	slot->state = slot_states[slot->state].on_give_up;
	if (!set->freed)
		report_failure(set, kind, gave_up, true);
}

static void read_slot(struct probe_set *set, enum probe_kind kind);

/* A reading of the set has ended, with any result, or takes too long. */
static void settle(struct read_job *read, enum pool_outcome outcome)
{
	struct probe_set *set = read->set;
	struct slot *slot = &set->slots[read->kind];

	if (outcome == POOL_GAVE_UP) {
		give_up(set, read->kind);
		check_finished(set);
		return;
	}
	set->jobs--;
	slot->state = slot_states[slot->state].on_end;
	/*
	 * A late reading shows an old state, so it is reported only if the probe reports a history.
	 */
	if (outcome == POOL_FINISHED ||
	    (outcome == POOL_LATE && host_probe_table[read->kind]->is_history))
		report_result(read);
	else if (outcome == POOL_REFUSED && !set->freed)
		report_failure(set, read->kind, refused, true);
	if (read->r > 0)
		probe_reading_done(&read->reading);
	/* plan_nft() starts the readings of the ruleset, for all sets at once. */
	if (slot->state == SLOT_DUE && read->kind != PROBE_NFTABLES)
		read_slot(set, read->kind);
	check_finished(set);
	set_free_if_unused(set);
}

/* ---- one probe ---- */

static void run_read(struct pool_job *job)
{
	struct read_job *read = (struct read_job *)job;

	read->r = host_probe_table[read->kind]->read(read->set->slots[read->kind].probe,
						     &read->reading, read->why);
}

static void on_read(struct pool_job *job, enum pool_outcome outcome)
{
	struct read_job *read = (struct read_job *)job;

	settle(read, outcome);
	if (outcome != POOL_GAVE_UP)
		free(read);
}

static void begin(struct read_job *read, struct probe_set *set, enum probe_kind kind)
{
	read->set = set;
	read->kind = kind;
	set->slots[kind].state = SLOT_READING;
	set->jobs++;
}

/* Start a reading, unless one runs already. */
static void read_slot(struct probe_set *set, enum probe_kind kind)
{
	struct slot *slot = &set->slots[kind];
	struct read_job *read;

	if (!slot->probe || slot_states[slot->state].runs)
		return;
	read = calloc(1, sizeof(*read));
	if (!read) {
		slot->state = SLOT_IDLE;
		report_failure(set, kind, strerror(ENOMEM), true);
		return;
	}
	read->job.run = run_read;
	read->job.done = on_read;
	begin(read, set, kind);
	pool_submit(set->scheduler->pools[kind], &read->job);
}

static void on_timer(uv_timer_t *timer)
{
	struct probe_set *set = timer->data;
	const bool room = set->callbacks->has_room(set->ctx);

	for (int kind = 0; kind < _PROBE_KIND_MAX && room; kind++)
		if (kind != PROBE_NFTABLES)
			read_slot(set, (enum probe_kind)kind);
	uv_timer_start(timer, on_timer, set->interval_ms, 0);
}

/* ---- the ruleset ---- */

static struct slot *nft_slot(struct probe_set *set)
{
	return &set->slots[PROBE_NFTABLES];
}

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
			read->r = nft_reading(&dump, nft_slot(read->set)->probe, &read->reading,
					      read->why);
	}
	nft_dump_done(&dump);
}

static void plan_nft(struct probe_scheduler *scheduler);

/* The ruleset hangs: sets that wait for their last reading of it do not get one. */
static void release_waiting(struct probe_scheduler *scheduler)
{
	struct probe_set *next;

	for (struct probe_set *set = scheduler->nft_sets; set; set = next) {
		next = set->nft_next;
		if (nft_slot(set)->state != SLOT_DUE)
			continue;
		give_up(set, PROBE_NFTABLES);
		check_finished(set);
	}
}

static void on_nft(struct pool_job *job, enum pool_outcome outcome)
{
	struct nft_job *nft = (struct nft_job *)job;
	struct probe_scheduler *scheduler = nft->scheduler;

	for (size_t i = 0; i < nft->n; i++)
		settle(&nft->reads[i], outcome);
	scheduler->nft_hangs = outcome == POOL_GAVE_UP;
	if (scheduler->nft_hangs) {
		release_waiting(scheduler);
		return;
	}
	scheduler->nft_in_flight = false;
	plan_nft(scheduler);
	free(nft->reads);
	free(nft);
}

/* A set that is due while too much is in flight waits for its next turn. */
static void postpone_nft(struct probe_set *set, uint64_t now_ns)
{
	if (set->nft_due_ns <= now_ns && !set->callbacks->has_room(set->ctx))
		set->nft_due_ns = now_ns + set->interval_ms * NSEC_PER_MSEC;
}

/* True for sets that are due now or soon: one reading of the ruleset serves them all. */
static bool nft_is_due(struct probe_set *set, uint64_t now_ns)
{
	return nft_slot(set)->state == SLOT_DUE ||
	       set->nft_due_ns <= now_ns + set->interval_ms * NSEC_PER_MSEC / 2;
}

/* A job with room for n readings, or NULL. */
static struct nft_job *nft_job_new(struct probe_scheduler *scheduler, size_t n)
{
	struct nft_job *nft = n > 0 ? calloc(1, sizeof(*nft)) : NULL;

	if (!nft)
		return NULL;
	nft->reads = calloc(n, sizeof(*nft->reads));
	if (!nft->reads) {
		free(nft);
		return NULL;
	}
	nft->scheduler = scheduler;
	return nft;
}

static void on_nft_timer(uv_timer_t *timer)
{
	struct probe_scheduler *scheduler = timer->data;
	const uint64_t now_ns = monotonic_ns();
	struct nft_job *nft;
	size_t n = 0;

	if (scheduler->nft_in_flight)
		return;
	for (struct probe_set *set = scheduler->nft_sets; set; set = set->nft_next) {
		postpone_nft(set, now_ns);
		n += nft_is_due(set, now_ns);
	}
	nft = nft_job_new(scheduler, n);
	if (!nft) {
		plan_nft(scheduler);
		return;
	}
	nft->job.run = run_nft;
	nft->job.done = on_nft;
	for (struct probe_set *set = scheduler->nft_sets; set; set = set->nft_next) {
		if (!nft_is_due(set, now_ns))
			continue;
		begin(&nft->reads[nft->n++], set, PROBE_NFTABLES);
		set->nft_due_ns = now_ns + set->interval_ms * NSEC_PER_MSEC;
	}
	scheduler->nft_in_flight = true;
	pool_submit(scheduler->pools[PROBE_NFTABLES], &nft->job);
}

static void plan_nft(struct probe_scheduler *scheduler)
{
	const uint64_t now_ns = monotonic_ns();
	uint64_t due_ns = UINT64_MAX;

	for (struct probe_set *set = scheduler->nft_sets; set; set = set->nft_next)
		due_ns = MIN(due_ns, nft_slot(set)->state == SLOT_DUE ? now_ns : set->nft_due_ns);
	if (due_ns == UINT64_MAX || scheduler->nft_in_flight)
		uv_timer_stop(&scheduler->nft_timer);
	else
		uv_timer_start(&scheduler->nft_timer, on_nft_timer,
			       due_ns > now_ns ? (due_ns - now_ns) / NSEC_PER_MSEC + 1 : 0, 0);
}

static void nft_join(struct probe_set *set)
{
	struct probe_scheduler *scheduler = set->scheduler;

	set->nft_next = scheduler->nft_sets;
	set->nft_link = &scheduler->nft_sets;
	if (set->nft_next)
		set->nft_next->nft_link = &set->nft_next;
	scheduler->nft_sets = set;
	set->nft_due_ns = monotonic_ns();
	plan_nft(scheduler);
}

static void nft_leave(struct probe_set *set)
{
	if (!set->nft_link)
		return;
	*set->nft_link = set->nft_next;
	if (set->nft_next)
		set->nft_next->nft_link = set->nft_link;
	plan_nft(set->scheduler);
}

/* ---- sets ---- */

/* Spreads the sets over the interval: multiples of the golden ratio are far from each other. */
static unsigned phase_of(uint64_t n, unsigned interval_ms)
{
	const uint64_t turn = n * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned)((turn >> 32) * interval_ms >> 32);
}

static bool wants_any(const struct probe_options *options)
{
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		if (host_probe_table[kind]->wanted(options))
			return true;
	return false;
}

static int open_probes(struct probe_set *set, const struct probe_options *options)
{
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		if (!host_probe_table[kind]->wanted(options))
			continue;
		set->slots[kind].probe = host_probe_table[kind]->open(options);
		if (!set->slots[kind].probe)
			return -ENOMEM;
	}
	return 0;
}

int probe_set_new(struct probe_scheduler *scheduler, const struct probe_options *options,
		  const struct probe_set_callbacks *callbacks, void *ctx, struct probe_set **ret)
{
	struct probe_set *set;

	*ret = NULL;
	if (!wants_any(options))
		return 0;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->scheduler = scheduler;
	set->callbacks = callbacks;
	set->ctx = ctx;
	set->interval_ms = options->interval_ms;
	if (open_probes(set, options) < 0) {
		set->freed = set->timer_closed = true;
		set_free_if_unused(set);
		return -ENOMEM;
	}
	uv_timer_init(scheduler->nft_timer.loop, &set->timer);
	set->timer.data = set;
	uv_timer_start(&set->timer, on_timer, phase_of(scheduler->n_sets++, set->interval_ms), 0);
	if (nft_slot(set)->probe)
		nft_join(set);
	*ret = set;
	return 0;
}

/* Readings that have not ended by now, or have no thread yet, are given up. */
static void on_deadline(uv_timer_t *timer)
{
	struct probe_set *set = timer->data;

	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		if (slot_states[set->slots[kind].state].waited_for)
			give_up(set, (enum probe_kind)kind);
	check_finished(set);
}

void probe_set_finish(struct probe_set *set)
{
	set->finishing = true;
	uv_timer_start(&set->timer, on_deadline, POOL_GIVE_UP_MS, 0);
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		struct slot *slot = &set->slots[kind];

		if (!slot->probe || (kind == PROBE_NFTABLES && set->scheduler->nft_hangs))
			continue;
		slot->state = slot_states[slot->state].on_finish;
		if (slot->state == SLOT_DUE && kind != PROBE_NFTABLES)
			read_slot(set, (enum probe_kind)kind);
	}
	if (nft_slot(set)->probe)
		plan_nft(set->scheduler);
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
	nft_leave(set);
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

/* ---- the scheduler ---- */

int probe_scheduler_new(uv_loop_t *loop, struct probe_scheduler **ret)
{
	struct probe_scheduler *scheduler = calloc(1, sizeof(*scheduler));
	int r;

	if (!scheduler)
		return -ENOMEM;
	uv_timer_init(loop, &scheduler->nft_timer);
	scheduler->nft_timer.data = scheduler;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		r = pool_new(loop, &scheduler->pools[kind]);
		if (r < 0) {
			probe_scheduler_free(scheduler);
			return r;
		}
	}
	*ret = scheduler;
	return 0;
}

static void on_scheduler_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void probe_scheduler_free(struct probe_scheduler *scheduler)
{
	if (!scheduler)
		return;
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		pool_free(take_ptr(scheduler->pools[kind]));
	uv_close((uv_handle_t *)&scheduler->nft_timer, on_scheduler_closed);
}

unsigned probe_scheduler_hanging(const struct probe_scheduler *scheduler)
{
	unsigned n = 0;

	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		n += pool_hanging(scheduler->pools[kind]);
	return n;
}
