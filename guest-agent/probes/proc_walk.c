/* SPDX-License-Identifier: MIT */
/*
 * The fallback of the process source: walk /proc every so often and tell the difference by (pid,
 * start time). What lives shorter than the period is missed; ends have no exit code. The first
 * walk is silent.
 *
 * A walk takes several drains, so that a guest with many processes does not hold up the loop.
 */
#include <sys/timerfd.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/probes/exec_hold.h"
#include "guest-agent/probes/pid_table.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/sources.h"

#define WALK_STEP   4u			  /* batches of pids a drain */
#define PATIENCE_NS (500 * NSEC_PER_MSEC) /* for the facts of one batch */

/* pid_entry.flags: its end is reported; it waits for its parent. */
enum { ENDED = 1 };

struct proc_walk {
	struct probe probe;
	const struct probe_config *config; /* borrowed */
	struct pid_table *table;
	struct proc_dir dir;
	uint32_t scan;
	/* Processes without a place in the table: of this walk so far, of the last whole one. */
	uint64_t unfit, last_unfit;
	bool walking, silent;
	/* The processes that the walk has come to: `at` of them are done. */
	size_t n, at;
	pid_t pids[READER_PIDS_MAX];
	struct reader_stat stats[READER_PIDS_MAX];
	bool known; /* the stats are */
	uint64_t patience_ns;
};

static struct proc_walk *from_probe(struct probe *probe)
{
	return (struct proc_walk *)probe;
}

static bool comm_differs(const struct pid_entry *e, const struct proc_stat *st)
{
	return e->comm_len != st->comm_len || memcmp(e->comm, st->comm, st->comm_len) != 0;
}

/*
 * The path belongs to the name if the process still has the name after the path was read and is not
 * within execve(2), which sets the path first, then the name, then the stack.
 */
static void describe_program(const struct pid_entry *e, const struct exec_facts *facts,
			     struct observation *o)
{
	enum exec_why why = facts->why;

	if (why == EXEC_RESOLVED && comm_differs(e, &facts->stat))
		why = EXEC_REPLACED;
	else if (why == EXEC_RESOLVED && !facts->stat.has_stack)
		why = EXEC_UNSURE;
	exec_describe(facts, why, e->ppid, o);
}

/* facts: of an execution. */
static void observe(const struct proc_walk *w, struct event_queue *q, enum wire_source source,
		    const struct pid_entry *e, const struct exec_facts *facts)
{
	struct observation o;

	if (w->silent || probe_excludes_start(w->config, e->pid, e->start_ns))
		return;
	observation_init(&o, source, e->pid, e->comm, e->comm_len, monotonic_ns());
	if (facts)
		describe_program(e, facts, &o);
	else
		declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	event_queue_observe(q, &o.d);
}

/* 0; -EAGAIN: its facts are not known yet. */
static int see(struct proc_walk *w, struct event_queue *q, const struct proc_stat *st)
{
	const uint64_t start_ns = st->start_ticks * PROC_TICK_NS;
	const bool dead = st->state == 'Z' || st->state == 'X';
	struct pid_entry *e = pid_table_find(w->table, st->pid);
	struct exec_facts facts;

	if (e && e->start_ns != start_ns) {
		/* The pid is another process's by now. */
		if (!(e->flags & ENDED))
			observe(w, q, WIRE_PROCESS_EXITED, e, NULL);
		pid_table_remove(w->table, e);
		e = NULL;
	}
	if (!e) {
		e = pid_table_add(w->table, st->pid);
		if (!e) {
			w->unfit++;
			return 0;
		}
		e->start_ns = start_ns;
		e->ppid = st->ppid;
		pid_entry_set_comm(e, st->comm, st->comm_len);
		observe(w, q, WIRE_PROCESS_SPAWNED, e, NULL);
	} else if (comm_differs(e, st) && !st->kernel_thread) {
		exec_read(e->pid, e->start_ns, &facts);
		if (facts.pending && monotonic_ns() < w->patience_ns)
			return -EAGAIN;
		pid_entry_set_comm(e, st->comm, st->comm_len);
		e->ppid = st->ppid;
		observe(w, q, WIRE_PROCESS_EXECUTED, e, &facts);
	}
	e->scan = w->scan;
	if (dead && !(e->flags & ENDED)) {
		e->flags |= ENDED;
		observe(w, q, WIRE_PROCESS_EXITED, e, NULL);
	}
	return 0;
}

static void tell_ended(struct proc_walk *w, struct event_queue *q)
{
	struct pid_entry *e;
	size_t place = 0;

	while ((e = pid_table_next(w->table, &place))) {
		if (e->scan == w->scan)
			continue;
		if (!(e->flags & ENDED))
			observe(w, q, WIRE_PROCESS_EXITED, e, NULL);
		pid_table_remove(w->table, e);
	}
}

/* Processes that are still there were reported as lost before, or existed from the start. */
static void tell_unfit(struct proc_walk *w, struct event_queue *q)
{
	if (!w->silent && w->unfit > w->last_unfit)
		event_queue_kernel_lost(q, PROBE_PROCESS, w->unfit - w->last_unfit);
	w->last_unfit = w->unfit;
}

/* The next processes of /proc. 1, 0 at the end, or a negative errno. */
static int next_batch(struct proc_walk *w)
{
	int r = 1;

	w->n = w->at = 0;
	w->known = false;
	while (w->n < READER_PIDS_MAX && (r = proc_dir_next(&w->dir, &w->pids[w->n])) > 0)
		w->n++;
	w->patience_ns = monotonic_ns() + PATIENCE_NS;
	return w->n > 0 ? 1 : r;
}

/* 0; -EAGAIN: the rest of the batch is done later. */
static int see_batch(struct proc_walk *w, struct event_queue *q)
{
	int r = w->known ? 0 : facts_stats(w->pids, w->n, w->stats);

	if (r == -EAGAIN && monotonic_ns() < w->patience_ns)
		return r;
	for (size_t i = 0; r < 0 && i < w->n; i++)
		w->stats[i].error = r;
	w->known = true;
	for (; w->at < w->n; w->at++) {
		struct pid_entry *e;

		r = w->stats[w->at].error;
		if (r == 0)
			r = see(w, q, &w->stats[w->at].stat);
		if (r == -EAGAIN && monotonic_ns() < w->patience_ns)
			return r;
		/* Not known is not gone. */
		e = facts_are_late(r) ? pid_table_find(w->table, w->pids[w->at]) : NULL;
		if (e)
			e->scan = w->scan;
	}
	return 0;
}

/* 1 while the walk goes on, 0 when it is through or must wait for the next tick. */
static int walk_on(struct proc_walk *w, struct event_queue *q)
{
	for (unsigned i = 0; i < WALK_STEP; i++) {
		int r = w->at < w->n ? 1 : next_batch(w);

		if (r > 0) {
			if (see_batch(w, q) < 0)
				return 0;
			continue;
		}
		w->walking = false;
		/* Half a walk tells nothing of those it did not come to. */
		if (r == 0) {
			tell_ended(w, q);
			tell_unfit(w, q);
		}
		w->silent = false;
		return 0;
	}
	return 1;
}

static int proc_walk_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct proc_walk *w = from_probe(probe);
	uint64_t expirations;
	const bool tick = read(probe->fd, &expirations, sizeof(expirations)) >= 0;

	(void)budget;
	if (!tick && errno != EAGAIN)
		return -errno;
	if (!w->walking) {
		if (!tick)
			return 0;
		if (proc_dir_rewind(&w->dir) < 0)
			return 0;
		w->scan++;
		w->unfit = 0;
		w->walking = true;
	}
	return walk_on(w, q);
}

static void proc_walk_close(struct probe *probe)
{
	struct proc_walk *w = from_probe(probe);

	close_fd(probe->fd);
	proc_dir_close(&w->dir);
	pid_table_free(w->table);
	free(w);
}

static int proc_walk_open(const struct probe_config *config, struct probe **ret,
			  char why[PROBE_WHY_MAX])
{
	const struct itimerspec spec = {
		.it_interval = {.tv_sec = config->poll_ms / 1000,
				.tv_nsec = (long)(config->poll_ms % 1000) * 1000000L},
		.it_value = {.tv_nsec = 1},
	};
	struct proc_walk *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->probe = (struct probe){.ops = &proc_walk_ops, .fd = -1};
	w->config = config;
	w->silent = true;
	w->dir.fd = -1;
	w->table = pid_table_new();
	r = w->table ? proc_dir_open(&w->dir) : -ENOMEM;
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "cannot read /proc; is it mounted?");
		goto fail;
	}
	w->probe.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (w->probe.fd < 0 || timerfd_settime(w->probe.fd, 0, &spec, NULL) < 0) {
		r = -errno;
		snprintf(why, PROBE_WHY_MAX, "cannot make a timer");
		goto fail;
	}
	*ret = &w->probe;
	return 0;
fail:
	proc_walk_close(&w->probe);
	return r;
}

const struct probe_ops proc_walk_ops = {
	.via = "proc-walk",
	.family = PROBE_PROCESS,
	.uses = "walks /proc every --poll ms",
	.misses = "processes that live shorter than --poll, exit codes, the order of events",
	.open = proc_walk_open,
	.drain = proc_walk_drain,
	.close = proc_walk_close,
};
