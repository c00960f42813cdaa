/* SPDX-License-Identifier: MIT */
/*
 * The processes that are alive, and what to report of them: see process_tracker.h.
 */
#include "common/util.h"

#include "guest-agent/probes/process_tracker.h"

#include "guest-agent/probes/process_report.h"

#define SCAN_STEP 64u /* pids of /proc a turn */

/* Flags of a pid_entry. */
enum {
	UNREPORTED = 1,	     /* found by a walk; no event has reported its start yet */
	EXEC_UNREPORTED = 2, /* a walk saw another comm; no event has reported the exec yet */
	START_TOLD = 4,	     /* reported because of a walk: a late event says it again */
	EXEC_TOLD = 8,
	GUESSED = 16,	    /* threads was read while events were queued */
	LEADER_GONE = 32,   /* the first thread ended before others */
	EXITING = 64,	    /* its end waits for its execution */
	START_UNKNOWN = 128 /* start_ns is that of its first event */
};

/* Before anything else is said of an entry that a walk found: that it exists. */
static void report_late_start(struct process_tracker *t, struct event_queue *q, struct pid_entry *e,
			      uint64_t at_ns)
{
	if (e->flags & UNREPORTED)
		process_report_spawned(t->config, q, e, at_ns);
	e->flags &= (uint8_t)~UNREPORTED;
}

static void set_image(struct process_tracker *t, struct pid_entry *e, image_id image,
		      uint64_t since_ns)
{
	image_unref(t->images, e->image);
	e->image = image;
	e->image_ns = since_ns;
}

/* It has ended; what it ran is remembered for a while. */
static void forget(struct process_tracker *t, struct pid_entry *e, uint64_t at_ns)
{
	past_add(t->past, t->images, e, at_ns);
	pid_table_remove(t->table, e);
}

/* It is gone, and no event reported its end. */
static void end_unseen(struct process_tracker *t, struct event_queue *q, struct pid_entry *e,
		       uint64_t at_ns)
{
	report_late_start(t, q, e, at_ns);
	process_report_exited(t->config, q, e, e->flags & LEADER_GONE ? &e->exit_status : NULL,
			      at_ns);
	forget(t, e, at_ns);
}

/* Held executions. */

/* The execution is reported, then what waited for it, then the end if that came. */
static void finish(struct process_tracker *t, struct event_queue *q, struct exec_held *h,
		   enum exec_why why)
{
	struct pid_entry untracked = {.pid = h->pid, .ppid = h->ppid};
	const pid_t pid = h->pid;
	const bool ended = h->ended, silent = h->silent;
	const uint32_t status = h->exit_status;
	const uint64_t exit_at_ns = h->exit_at_ns;
	struct connector_event ev;
	struct pid_entry *e;

	pid_entry_set_comm(&untracked, h->comm, h->comm_len);
	exec_hold_release(t->holds, h, why, t->images, q);
	while (exec_hold_take(t->holds, pid, &ev))
		process_report_detail(t->config, q, t->table, t->images, &ev);
	if (!ended)
		return;
	e = pid_table_find(t->table, pid);
	if (e || !silent)
		process_report_exited(t->config, q, e ? e : &untracked, &status, exit_at_ns);
	if (e)
		forget(t, e, exit_at_ns);
}

/* Before its time: something else has to be said of that pid. */
static void finish_early(struct process_tracker *t, struct event_queue *q, struct exec_held *h,
			 enum exec_why why)
{
	const bool known = !h->facts.pending && (h->ended || h->facts.why != EXEC_RESOLVED);

	finish(t, q, h, known ? h->facts.why : why);
}

/* What the stat of a held process says of it, if its start was lost. */
static void learn(struct process_tracker *t, struct exec_held *h)
{
	struct pid_entry *e = pid_table_find(t->table, h->pid);

	/* Without its start nothing says that the path is this process's. */
	if (h->untracked && h->facts.why == EXEC_RESOLVED)
		h->facts.why = EXEC_UNSURE;
	if (!h->facts.there)
		return;
	if (!h->ppid)
		h->ppid = h->facts.stat.ppid;
	if (e && !e->ppid)
		e->ppid = h->ppid;
	if (h->start_ns)
		return;
	h->start_ns = h->facts.stat.start_ticks * PROC_TICK_NS;
	h->silent |= probe_excludes_start(t->config, h->pid, h->start_ns);
	if (e)
		e->start_ns = h->start_ns;
}

void process_tracker_take(struct process_tracker *t)
{
	struct exec_held *h;

	while ((h = exec_reader_take(&t->reader, t->holds)))
		learn(t, h);
	exec_reader_ask(&t->reader, t->holds);
}

static void look(struct process_tracker *t, struct exec_held *h)
{
	exec_look(h->pid, h->start_ns, &h->facts);
	if (h->facts.pending)
		h->looks = (uint8_t)MIN(h->looks + 1u, EXEC_LOOKS);
	else
		learn(t, h);
}

static void settle(struct process_tracker *t, struct event_queue *q, struct exec_held *h,
		   uint64_t now_ns)
{
	enum exec_why why;

	if (h->facts.pending && (h->question == EXEC_NOT_ASKED || now_ns >= h->ask_until_ns))
		look(t, h);
	if (!exec_hold_over(h, now_ns, t->empty_ns, &why))
		return;
	/* An agent that got no processor for a while is not flooded: it reads on first. */
	if (why == EXEC_UNSURE && (!t->behind_ns || now_ns < t->behind_ns + EXEC_GIVE_UP_NS))
		return;
	if (why == EXEC_RESOLVED && !h->ended && !exec_hold_rested(h, t->empty_ns)) {
		if (now_ns < h->rest_until_ns)
			return;
		why = EXEC_UNSURE;
	}
	finish(t, q, h, why);
}

/* start_ns: 0 if it is not known. */
static struct exec_held *hold(struct process_tracker *t, struct event_queue *q, pid_t pid,
			      uint64_t at_ns, uint64_t start_ns)
{
	const uint64_t now_ns = monotonic_ns();
	struct exec_held *h = exec_hold_begin(t->holds, pid, at_ns, now_ns);

	if (!h) {
		finish_early(t, q, exec_hold_oldest(t->holds), EXEC_UNSURE);
		h = exec_hold_begin(t->holds, pid, at_ns, now_ns);
	}
	h->start_ns = start_ns;
	exec_read_links(pid, &h->facts);
	h->image = image_new(t->images);
	return h;
}

/* Without the reader, settle() looks. */
static void ask(struct process_tracker *t, struct exec_held *h)
{
	if (h->facts.pending)
		exec_reader_want(&t->reader, h);
	exec_reader_ask(&t->reader, t->holds);
}

/* e executed something at at_ns; tracked: e is in the table. */
static void begin_execution(struct process_tracker *t, struct event_queue *q, struct pid_entry *e,
			    uint64_t at_ns, bool tracked)
{
	struct exec_held *h = exec_hold_find(t->holds, e->pid);

	if (h)
		finish_early(t, q, h, EXEC_REPLACED);
	h = hold(t, q, e->pid, at_ns, e->flags & START_UNKNOWN ? 0 : e->start_ns);
	h->untracked = !tracked;
	process_report_name(e);
	e->flags &= (uint8_t)~START_UNKNOWN;
	h->silent = probe_excludes_start(t->config, e->pid, e->start_ns);
	h->ppid = e->ppid;
	h->comm_len = e->comm_len;
	memcpy(h->comm, e->comm, e->comm_len);
	if (tracked)
		set_image(t, e, image_ref(t->images, h->image), at_ns);
	ask(t, h);
	settle(t, q, h, at_ns);
}

/* Its end comes after its execution. False when nothing is held of it. */
static bool hold_end(struct process_tracker *t, struct event_queue *q, pid_t pid, uint32_t status,
		     uint64_t at_ns)
{
	struct exec_held *h = exec_hold_find(t->holds, pid);

	if (!h)
		return false;
	h->ended = true;
	h->exit_status = status;
	h->exit_at_ns = at_ns;
	/* A process that has ended has no arguments any more. */
	if (h->question == EXEC_TO_ASK && !h->facts.pending)
		h->question = EXEC_NOT_ASKED;
	settle(t, q, h, at_ns);
	return true;
}

/* Events. */

/* The entry of a process; when the table is full, *untracked, and the loss is counted. */
static struct pid_entry *entry_for(struct process_tracker *t, pid_t pid,
				   struct pid_entry *untracked)
{
	struct pid_entry *e = pid_table_find(t->table, pid);

	if (!e)
		e = pid_table_add(t->table, pid);
	if (e)
		return e;
	*untracked = (struct pid_entry){.pid = pid};
	return untracked;
}

static void account_refused(struct process_tracker *t, struct event_queue *q)
{
	const uint64_t refused = pid_table_refused(t->table);

	event_queue_kernel_lost(q, PROBE_PROCESS, refused - t->refused_told);
	t->refused_told = refused;
}

/* The kernel did not report the end of the pid's last owner: report it before the next start. */
static void end_last_owner(struct process_tracker *t, struct event_queue *q, pid_t pid,
			   uint64_t at_ns)
{
	struct exec_held *h = exec_hold_find(t->holds, pid);
	struct orphan *o = orphan_find(t->past, pid);
	struct pid_entry *e;

	if (h)
		finish_early(t, q, h, EXEC_UNSURE);
	if (o) {
		event_queue_kernel_lost(q, PROBE_PROCESS, !o->reported);
		o->pid = 0;
	}
	e = pid_table_find(t->table, pid);
	if (!e)
		return;
	end_unseen(t, q, e, at_ns);
}

static void on_fork(struct process_tracker *t, struct event_queue *q,
		    const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);
	struct pid_entry *parent, untracked;
	uint64_t start_ns = ev->at_ns + proc_clock_offset();

	if (ev->tid != ev->tgid) {
		if (e)
			e->threads++;
		return;
	}
	/* A canary: a child of the agent that it did not tell anybody about. */
	if (ev->parent_tgid == t->config->self)
		return;
	if (e && !(e->flags & EXITING) && proc_same_start(e->start_ns, start_ns)) {
		if ((e->flags & START_TOLD) && ev->at_ns <= t->told_ns) {
			e->flags &= (uint8_t)~START_TOLD;
			return;
		}
	} else {
		end_last_owner(t, q, ev->tgid, ev->at_ns);
	}
	e = entry_for(t, ev->tgid, &untracked);
	account_refused(t, q);
	if (!(e->flags & UNREPORTED)) {
		e->threads = 1;
		e->flags = 0;
		/* At its birth a process has its parent's name; the kernel's copy may already have
		 * gone on to the next. */
		parent = pid_table_find(t->table, ev->parent_tgid);
		if (parent)
			pid_entry_set_comm(e, parent->comm, parent->comm_len);
		else
			process_report_name(e);
		/* And its parent's program. */
		if (e != &untracked)
			set_image(t, e, parent ? image_ref(t->images, parent->image) : 0,
				  ev->at_ns);
	}
	e->flags &= (uint8_t)~UNREPORTED;
	e->ppid = ev->parent_tgid;
	e->start_ns = start_ns;
	e->scan = t->scan;
	process_report_spawned(t->config, q, e, ev->at_ns);
}

static void on_exec(struct process_tracker *t, struct event_queue *q,
		    const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);
	struct pid_entry untracked;

	if (!e) {
		e = entry_for(t, ev->tgid, &untracked);
		account_refused(t, q);
		/* Its start was lost, and with it the exact time of it. */
		e->start_ns = ev->at_ns + proc_clock_offset();
		e->flags = START_UNKNOWN;
		e->scan = t->scan;
	}
	report_late_start(t, q, e, ev->at_ns);
	if ((e->flags & EXEC_TOLD) && ev->at_ns <= t->told_ns) {
		e->flags &= (uint8_t)~EXEC_TOLD;
		return;
	}
	e->threads = 1;
	e->flags &= START_UNKNOWN;
	begin_execution(t, q, e, ev->at_ns, e != &untracked);
}

/*
 * The ends of processes that are not in the table. Only /proc can tell when all of one has gone,
 * and the last thread's status is known when all events are read.
 */
static void check_orphans(struct process_tracker *t, struct event_queue *q)
{
	for (size_t i = 0; i < ORPHANS_MAX; i++) {
		struct orphan *o = &t->past->orphans[i];
		struct pid_entry untracked = {.pid = o->pid, .ppid = o->ppid};

		if (!o->pid || o->reported || !proc_group_gone(o->pid))
			continue;
		/* The first thread's end may be lost: then none of it must be left. */
		if (process_report_name(&untracked) && !o->leader_gone)
			continue;
		o->reported = true;
		if (!hold_end(t, q, o->pid, o->exit_status, o->at_ns))
			process_report_exited(t->config, q, &untracked, &o->exit_status, o->at_ns);
	}
}

/* A process that is not in the table. */
static void on_orphan_exit(struct process_tracker *t, struct event_queue *q,
			   const struct connector_event *ev)
{
	struct orphan *o;
	bool lost;

	/* A canary, or the reader of arguments. */
	if (ev->parent_tgid == t->config->self)
		return;
	/* Before their places are used again; that costs a look at each, so not at every event. */
	if (t->past->next_orphan % ORPHANS_MAX == 0 && !orphan_find(t->past, ev->tgid))
		check_orphans(t, q);
	o = orphan_get(t->past, ev->tgid, &lost);
	event_queue_kernel_lost(q, PROBE_PROCESS, lost);
	o->ppid = ev->parent_tgid;
	o->exit_status = ev->exit_status;
	o->at_ns = ev->at_ns;
	o->leader_gone |= ev->tid == ev->tgid;
}

/* All threads of e have ended. */
static void end(struct process_tracker *t, struct event_queue *q, struct pid_entry *e,
		uint64_t at_ns)
{
	e->flags |= EXITING;
	if (hold_end(t, q, e->pid, e->exit_status, at_ns))
		return;
	process_report_exited(t->config, q, e, &e->exit_status, at_ns);
	forget(t, e, at_ns);
}

static void on_exit_event(struct process_tracker *t, struct event_queue *q,
			  const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);

	if (!e) {
		on_orphan_exit(t, q, ev);
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
	if (e->threads || ((e->flags & GUESSED) && !proc_group_gone(e->pid)))
		return;
	report_late_start(t, q, e, ev->at_ns);
	if (ev->parent_tgid)
		e->ppid = ev->parent_tgid;
	end(t, q, e, ev->at_ns);
}

static void on_comm(struct process_tracker *t, const struct connector_event *ev)
{
	struct pid_entry *e = pid_table_find(t->table, ev->tgid);

	if (e && ev->tid == ev->tgid)
		pid_entry_set_comm(e, ev->comm, strnlen(ev->comm, sizeof(ev->comm)));
}

static void on_detail(struct process_tracker *t, struct event_queue *q,
		      const struct connector_event *ev)
{
	struct exec_held *h = exec_hold_find(t->holds, ev->tgid);

	if (ev->kind == CONNECTOR_UID) {
		struct pid_entry *e = pid_table_find(t->table, ev->tgid);

		if (e)
			e->user_ns = ev->at_ns;
		/* What status says may be of later than the execution. */
		if (h)
			h->facts.other_user |= h->facts.pending || ev->at_ns < h->facts.learnt_ns;
	}
	if (h && exec_hold_wait(t->holds, ev))
		return;
	if (h)
		finish_early(t, q, h, EXEC_UNSURE);
	process_report_detail(t->config, q, t->table, t->images, ev);
}

/* The walk of /proc. */

static void scan_entry(struct process_tracker *t, const struct proc_stat *st, bool first)
{
	uint64_t start_ns = st->start_ticks * PROC_TICK_NS;
	struct pid_entry *e = pid_table_find(t->table, st->pid);
	bool dead = (st->state == 'Z' || st->state == 'X') && st->threads <= 1;

	/* A dead one only waits for its parent: its end was reported, or report_found() reports it.
	 */
	if (dead || st->ppid == t->config->self)
		return;
	if (e && !proc_same_start(e->start_ns, start_ns)) {
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

		r = t->scan_pid ? 1 : proc_dir_next(&t->dir, &t->scan_pid);
		if (r <= 0)
			return r;
		pid = t->scan_pid;
		r = facts_stat(pid, &st);
		if (r == -EAGAIN)
			return 1;
		t->scan_pid = 0;
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

/* Report what a walk found and no event reported. Returns the number of events. */
static unsigned report_found(struct process_tracker *t, struct event_queue *q, struct pid_entry *e)
{
	struct pid_entry *parent;
	struct exec_held *h;
	unsigned n = 0;

	if (e->flags & EXITING)
		return 0;
	if (e->scan != t->scan) {
		h = exec_hold_find(t->holds, e->pid);
		if (h)
			finish_early(t, q, h, EXEC_UNSURE);
		end_unseen(t, q, e, t->told_ns);
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
		e->flags &= (uint8_t)~EXEC_UNREPORTED;
		e->flags |= EXEC_TOLD;
		begin_execution(t, q, e, t->told_ns, true);
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
		t->scan_pid = 0;
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
	const uint64_t now_ns = monotonic_ns();
	struct pid_entry *e;
	size_t place = 0;

	while ((e = pid_table_next(t->table, &place))) {
		if (!(e->flags & LEADER_GONE) || e->flags & EXITING || !proc_group_gone(e->pid))
			continue;
		/* The kernel reports the last thread's end after /proc shows it. */
		if (!e->was_gone) {
			e->was_gone = true;
			continue;
		}
		report_late_start(t, q, e, now_ns);
		end(t, q, e, now_ns);
	}
	check_orphans(t, q);
}

void process_tracker_settle(struct process_tracker *t, struct event_queue *q, uint64_t now_ns,
			    uint64_t empty_ns)
{
	t->empty_ns = MAX(t->empty_ns, empty_ns);
	if (!t->behind_ns)
		check_orphans(t, q);
	for (size_t i = 0; t->holds->n && i < EXEC_HOLDS_MAX; i++)
		if (t->holds->held[i].pid)
			settle(t, q, &t->holds->held[i], now_ns);
}

void process_tracker_flush(struct process_tracker *t, struct event_queue *q)
{
	while (t->holds->n)
		finish_early(t, q, exec_hold_oldest(t->holds), EXEC_UNSURE);
}

/* A process that has executed nothing since it was known: its program is read now, and held. */
static void learn_image(struct process_tracker *t, struct event_queue *q, struct pid_entry *e)
{
	struct exec_held *h;

	if (exec_hold_find(t->holds, e->pid))
		return;
	h = hold(t, q, e->pid, monotonic_ns(), e->start_ns);
	h->silent = true;
	set_image(t, e, image_ref(t->images, h->image), e->image_ns);
	ask(t, h);
}

static enum exe_answer answer(struct process_tracker *t, image_id image, const char **ret_exe,
			      size_t *ret_len)
{
	switch (image_state(t->images, image)) {
	case IMAGE_HELD: return EXE_WAIT;
	case IMAGE_KNOWN: *ret_exe = image_path(t->images, image, ret_len); return EXE_KNOWN;
	default: return EXE_UNKNOWN;
	}
}

enum exe_answer process_tracker_exe(struct process_tracker *t, struct event_queue *q, pid_t pid,
				    uint64_t at_ns, const char **ret_exe, size_t *ret_len)
{
	struct pid_entry *e = pid_table_find(t->table, pid);
	const struct past_process *ended;

	if (e && at_ns >= e->image_ns) {
		if (!e->image)
			learn_image(t, q, e);
		return answer(t, e->image, ret_exe, ret_len);
	}
	ended = past_find(t->past, pid, at_ns);
	return ended ? answer(t, ended->image, ret_exe, ret_len) : EXE_UNKNOWN;
}

enum exe_answer process_tracker_exe_since(struct process_tracker *t, struct event_queue *q,
					  pid_t pid, uint64_t since_ns, const char **ret_exe,
					  size_t *ret_len)
{
	const struct past_process *last;
	const struct pid_entry *e;

	/* One that has the pid now may have done it, or one that had it before: only when neither
	 * has changed its program since is the answer certain. */
	if ((e = pid_table_find(t->table, pid)))
		return since_ns < e->image_ns
			       ? EXE_UNKNOWN
			       : process_tracker_exe(t, q, pid, since_ns, ret_exe, ret_len);
	last = past_last(t->past, pid);
	return last && last->from_ns <= since_ns ? answer(t, last->image, ret_exe, ret_len)
						 : EXE_UNKNOWN;
}

int process_tracker_comm(struct process_tracker *t, pid_t pid, char ret_comm[static PROC_COMM_MAX])
{
	const struct pid_entry *e = pid_table_find(t->table, pid);
	const struct past_process *last = e ? NULL : past_last(t->past, pid);

	if (e)
		memcpy(ret_comm, e->comm, e->comm_len);
	else if (last)
		memcpy(ret_comm, last->comm, last->comm_len);
	return e ? e->comm_len : last ? last->comm_len : 0;
}

void process_tracker_event(struct process_tracker *t, struct event_queue *q,
			   const struct connector_event *ev)
{
	switch (ev->kind) {
	case CONNECTOR_FORK: on_fork(t, q, ev); break;
	case CONNECTOR_EXEC: on_exec(t, q, ev); break;
	case CONNECTOR_EXIT: on_exit_event(t, q, ev); break;
	case CONNECTOR_COMM: on_comm(t, ev); break;
	case CONNECTOR_UID:
	case CONNECTOR_GID:
	case CONNECTOR_SID:
	case CONNECTOR_TRACE:
	case CONNECTOR_CORE: on_detail(t, q, ev); break;
	default: break;
	}
}

/* An execution may be among what was lost, so nobody's program is known any more. */
static void distrust_images(struct process_tracker *t, struct event_queue *q)
{
	const uint64_t now_ns = monotonic_ns();
	struct pid_entry *e;
	size_t place = 0;

	process_tracker_flush(t, q);
	past_forget(t->past, t->images);
	while ((e = pid_table_next(t->table, &place)))
		set_image(t, e, 0, now_ns);
}

void process_tracker_repair(struct process_tracker *t, struct event_queue *q)
{
	distrust_images(t, q);
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
	t->images = image_table_new();
	t->holds = calloc(1, sizeof(*t->holds));
	t->past = calloc(1, sizeof(*t->past));
	if (!t->table || !t->images || !t->holds || !t->past)
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
	image_table_free(take_ptr(t->images));
	free(take_ptr(t->holds));
	free(take_ptr(t->past));
}
