/* SPDX-License-Identifier: MIT */
/*
 * The processes that are alive, and what to report of them: see process_tracker.h.
 */
#include "guest-agent/probes/process_tracker.h"

#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/observation.h"

#define TICK_NS	  (NSEC_PER_SEC / 100) /* USER_HZ is 100 everywhere */
#define SCAN_STEP 64u		       /* pids of /proc a turn */
#define EXE_MAX	  WIRE_DETAIL_TEXT_MAX

/* Flags of a pid_entry. */
enum {
	UNREPORTED = 1,	     /* found by a walk; no event has told its start yet */
	EXEC_UNREPORTED = 2, /* a walk saw another comm; no event has told the exec yet */
	START_TOLD = 4,	     /* reported because of a walk: a late event says it again */
	EXEC_TOLD = 8,
	GUESSED = 16,	  /* threads was read while events were queued */
	LEADER_GONE = 32, /* the first thread ended before others */
};

/* What "now" of the events is on the clock that /proc tells start times by. */
static uint64_t boottime_offset(void)
{
	return clock_ns(CLOCK_BOOTTIME) - monotonic_ns();
}

static void report_spawned(struct process_tracker *t, struct event_queue *q,
			   const struct pid_entry *e, uint64_t at_ns)
{
	struct observation o;

	if (probe_excludes(t->config, e->pid))
		return;
	observation_init(&o, WIRE_PROCESS_SPAWNED, e->pid, e->comm, e->comm_len, at_ns);
	declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	event_queue_observe(q, &o.d);
}

static void report_executed(struct process_tracker *t, struct event_queue *q,
			    const struct pid_entry *e, uint64_t at_ns)
{
	char exe[EXE_MAX];
	struct observation o;
	int n;

	if (probe_excludes(t->config, e->pid))
		return;
	n = proc_read_exe(e->pid, exe, sizeof(exe));
	observation_init(&o, WIRE_PROCESS_EXECUTED, e->pid, e->comm, e->comm_len, at_ns);
	observation_add_bytes(&o, WIRE_KEY_EXE, exe, n > 0 ? (size_t)n : 0);
	if (e->ppid)
		declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	declaration_add_bool(&o.d, WIRE_KEY_RESOLVED, n > 0);
	event_queue_observe(q, &o.d);
}

/* status: as wait(2) gives it, or NULL where nobody told it. */
static void report_exited(struct process_tracker *t, struct event_queue *q,
			  const struct pid_entry *e, const uint32_t *status, uint64_t at_ns)
{
	struct observation o;

	if (probe_excludes(t->config, e->pid))
		return;
	observation_init(&o, WIRE_PROCESS_EXITED, e->pid, e->comm, e->comm_len, at_ns);
	if (status && WIFSIGNALED((int)*status)) {
		declaration_add_uint(&o.d, WIRE_KEY_SIGNAL, (uint64_t)WTERMSIG((int)*status));
		declaration_add_bool(&o.d, WIRE_KEY_CORE, WCOREDUMP((int)*status));
	} else if (status) {
		declaration_add_uint(&o.d, WIRE_KEY_EXIT_CODE, (uint64_t)WEXITSTATUS((int)*status));
	}
	if (e->ppid)
		declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	event_queue_observe(q, &o.d);
}

/* Before anything else is said of an entry that a walk found: that it exists. */
static void report_late_start(struct process_tracker *t, struct event_queue *q, struct pid_entry *e,
			      uint64_t at_ns)
{
	if (e->flags & UNREPORTED)
		report_spawned(t, q, e, at_ns);
	e->flags &= (uint8_t)~UNREPORTED;
}

static void resolve_comm(struct pid_entry *e)
{
	char comm[PROC_COMM_MAX];
	int n = proc_read_comm(e->pid, comm);

	if (n >= 0)
		pid_entry_set_comm(e, comm, (size_t)n);
}

static void on_fork(struct process_tracker *t, struct event_queue *q,
		    const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);
	struct pid_entry *parent, untracked = {.pid = ev->tgid};
	uint64_t start_ns = ev->at_ns + boottime_offset();

	if (ev->tid != ev->tgid) {
		if (e)
			e->threads++;
		return;
	}
	/* A canary: a child of the agent that it did not tell anybody about. */
	if (ev->parent_tgid == t->config->self)
		return;
	if (e && pid_same_start(e->start_ns, start_ns)) {
		if ((e->flags & START_TOLD) && ev->at_ns <= t->told_ns) {
			e->flags &= (uint8_t)~START_TOLD;
			return;
		}
	} else if (e) {
		/* The pid is used again, so its last owner has ended, and that was lost. */
		report_late_start(t, q, e, ev->at_ns);
		report_exited(t, q, e, e->flags & LEADER_GONE ? &e->exit_status : NULL, ev->at_ns);
		pid_table_remove(t->table, e);
		e = NULL;
	}
	if (!e)
		e = pid_table_add(t->table, ev->tgid);
	if (!e)
		e = &untracked;
	if (!(e->flags & UNREPORTED)) {
		e->threads = 1;
		e->flags = 0;
		/* At its birth a process has its parent's name; the kernel's copy may already have
		 * gone on to the next. */
		parent = pid_table_find(t->table, ev->parent_tgid);
		if (parent)
			pid_entry_set_comm(e, parent->comm, parent->comm_len);
		else
			resolve_comm(e);
	}
	e->flags &= (uint8_t)~UNREPORTED;
	e->ppid = ev->parent_tgid;
	e->start_ns = start_ns;
	e->scan = t->scan;
	report_spawned(t, q, e, ev->at_ns);
}

static void on_exec(struct process_tracker *t, struct event_queue *q,
		    const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);
	struct pid_entry untracked = {.pid = ev->tgid};

	if (!e) {
		e = pid_table_add(t->table, ev->tgid);
		if (!e)
			e = &untracked;
		/* Its start was lost, and with it the exact time of it. */
		e->start_ns = ev->at_ns + boottime_offset();
		e->scan = t->scan;
	}
	report_late_start(t, q, e, ev->at_ns);
	if ((e->flags & EXEC_TOLD) && ev->at_ns <= t->told_ns) {
		e->flags &= (uint8_t)~EXEC_TOLD;
		return;
	}
	e->threads = 1;
	e->flags = 0;
	resolve_comm(e);
	report_executed(t, q, e, ev->at_ns);
}

/*
 * Whether the thread group has ended, asked of /proc where the count of threads is not certain.
 * The thread that is ending right now may still be in the kernel's own count.
 */
static bool group_gone(const struct pid_entry *e)
{
	struct proc_stat st;
	int r = proc_read_stat(e->pid, &st);

	if (r == -ENOENT || r == -ESRCH)
		return true;
	if (r < 0)
		return false;
	return st.threads <= 1 || !pid_same_start(st.start_ticks * TICK_NS, e->start_ns);
}

static void on_exit_event(struct process_tracker *t, struct event_queue *q,
			  const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);
	struct pid_entry untracked = {.pid = ev->tgid, .ppid = ev->parent_tgid};

	if (!e) {
		if (ev->tid != ev->tgid || ev->parent_tgid == t->config->self)
			return;
		resolve_comm(&untracked);
		report_exited(t, q, &untracked, &ev->exit_status, ev->at_ns);
		return;
	}
	if (e->threads)
		e->threads--;
	e->exit_status = ev->exit_status;
	if (ev->tid == ev->tgid)
		e->flags |= LEADER_GONE;
	if (!(e->flags & LEADER_GONE))
		return;
	/* Others live on, or one of them executes and takes its pid over. The last thread's end
	 * tells, or, where the count is wrong, the next check(). */
	if (e->threads || ((e->flags & GUESSED) && !group_gone(e)))
		return;
	report_late_start(t, q, e, ev->at_ns);
	if (ev->parent_tgid)
		e->ppid = ev->parent_tgid;
	report_exited(t, q, e, &ev->exit_status, ev->at_ns);
	pid_table_remove(t->table, e);
}

static void on_comm(struct process_tracker *t, const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);

	if (e && ev->tid == ev->tgid)
		pid_entry_set_comm(e, ev->comm, strnlen(ev->comm, sizeof(ev->comm)));
}

/* The walk of /proc. */

static void scan_entry(struct process_tracker *t, const struct proc_stat *st, bool first)
{
	uint64_t start_ns = st->start_ticks * TICK_NS;
	struct pid_entry *e = pid_table_find(t->table, st->pid);
	bool dead = (st->state == 'Z' || st->state == 'X') && st->threads <= 1;

	/* A dead one waits for its parent only: either its end was told, or the report tells. */
	if (dead || st->ppid == t->config->self)
		return;
	if (e && !pid_same_start(e->start_ns, start_ns)) {
		/* Another process by now. The old one counts as not seen; its entry makes room in
		 * the report, and the new one is found by the walk after that. */
		t->scan_again = true;
		return;
	}
	if (e)
		e->flags &= (uint8_t) ~(START_TOLD | EXEC_TOLD);
	if (!e) {
		e = pid_table_add(t->table, st->pid);
		if (!e)
			return;
		e->flags = first ? 0 : UNREPORTED;
		e->ppid = st->ppid;
		e->start_ns = start_ns;
	} else if (!first && !st->kernel_thread &&
		   (e->comm_len != st->comm_len || memcmp(e->comm, st->comm, st->comm_len) != 0)) {
		e->flags |= EXEC_UNREPORTED;
	}
	e->flags |= GUESSED;
	e->threads = MAX(st->threads, 1u);
	e->scan = t->scan;
	pid_entry_set_comm(e, st->comm, st->comm_len);
}

/* At most limit pids. 1 if more are left, 0 at the end of /proc, or a negative errno. */
static int scan_step(struct process_tracker *t, unsigned limit, bool first)
{
	while (limit--) {
		struct pid_entry *e;
		struct proc_stat st;
		pid_t pid;
		int r;

		r = proc_dir_next(&t->dir, &pid);
		if (r <= 0)
			return r;
		r = proc_read_stat(pid, &st);
		if (r == 0) {
			scan_entry(t, &st, first);
		} else if (r != -ENOENT && r != -ESRCH) {
			/* It is there, though it cannot be read. */
			e = pid_table_find(t->table, pid);
			if (e)
				e->scan = t->scan;
		}
	}
	return 1;
}

/* What a walk found and no event told. Returns the number of events reported. */
static unsigned report_found(struct process_tracker *t, struct event_queue *q, struct pid_entry *e)
{
	struct pid_entry *parent;
	unsigned n = 0;

	if (e->scan != t->scan) {
		report_late_start(t, q, e, t->told_ns);
		report_exited(t, q, e, e->flags & LEADER_GONE ? &e->exit_status : NULL, t->told_ns);
		pid_table_remove(t->table, e);
		return 1;
	}
	if (e->flags & UNREPORTED) {
		report_late_start(t, q, e, t->told_ns);
		e->flags |= START_TOLD;
		n++;
		/* A child has its parent's name until it executes something. */
		parent = pid_table_find(t->table, e->ppid);
		if (parent && (parent->comm_len != e->comm_len ||
			       memcmp(parent->comm, e->comm, e->comm_len) != 0))
			e->flags |= EXEC_UNREPORTED;
	}
	if (e->flags & EXEC_UNREPORTED) {
		report_executed(t, q, e, t->told_ns);
		e->flags &= (uint8_t)~EXEC_UNREPORTED;
		e->flags |= EXEC_TOLD;
		n++;
	}
	return n;
}

bool process_tracker_turn(struct process_tracker *t, struct event_queue *q, unsigned budget)
{
	struct pid_entry *e;
	int r;

	switch (t->state) {
	case TRACKER_STEADY: return false;
	case TRACKER_SCAN_WANTED:
		t->scan_again = false;
		t->scan++;
		t->state = proc_dir_rewind(&t->dir) < 0 ? TRACKER_STEADY : TRACKER_WALKING;
		break;
	case TRACKER_WALKING:
		r = scan_step(t, SCAN_STEP, false);
		/* Half a walk tells nothing of those it did not come to. */
		if (r <= 0)
			t->state = r == 0 ? TRACKER_SETTLING : TRACKER_STEADY;
		break;
	case TRACKER_SETTLING:
		/* This turn began after the walk had ended, and found the socket empty. */
		t->told_ns = monotonic_ns();
		t->place = 0;
		t->state = TRACKER_REPORTING;
		break;
	case TRACKER_REPORTING:
		for (unsigned n = 0; n < budget;) {
			e = pid_table_next(t->table, &t->place);
			if (!e) {
				t->state = t->scan_again ? TRACKER_SCAN_WANTED : TRACKER_STEADY;
				break;
			}
			n += report_found(t, q, e);
		}
		break;
	}
	return t->state != TRACKER_STEADY;
}

void process_tracker_check(struct process_tracker *t, struct event_queue *q)
{
	struct pid_entry *e;
	size_t place = 0;

	while ((e = pid_table_next(t->table, &place))) {
		if (!(e->flags & LEADER_GONE) || !group_gone(e))
			continue;
		report_late_start(t, q, e, monotonic_ns());
		report_exited(t, q, e, &e->exit_status, monotonic_ns());
		pid_table_remove(t->table, e);
	}
}

void process_tracker_event(struct process_tracker *t, struct event_queue *q,
			   const struct connector_event *ev)
{
	switch (ev->kind) {
	case CONNECTOR_FORK: on_fork(t, q, ev); break;
	case CONNECTOR_EXEC: on_exec(t, q, ev); break;
	case CONNECTOR_EXIT: on_exit_event(t, q, ev); break;
	case CONNECTOR_COMM: on_comm(t, ev); break;
	default: break;
	}
}

void process_tracker_repair(struct process_tracker *t)
{
	if (t->state == TRACKER_STEADY)
		t->state = TRACKER_SCAN_WANTED;
	else if (t->state != TRACKER_SCAN_WANTED)
		t->scan_again = true;
}

int process_tracker_init(struct process_tracker *t, const struct probe_config *config)
{
	int r;

	*t = (struct process_tracker){.config = config, .dir = {.fd = -1}};
	t->table = pid_table_new();
	if (!t->table)
		return -ENOMEM;
	r = proc_dir_open(&t->dir);
	if (r < 0)
		return r;
	do
		r = scan_step(t, SCAN_STEP, true);
	while (r > 0);
	t->scan_again = false;
	return r;
}

void process_tracker_done(struct process_tracker *t)
{
	proc_dir_close(&t->dir);
	pid_table_free(take_ptr(t->table));
}
