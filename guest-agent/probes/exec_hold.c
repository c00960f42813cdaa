/* SPDX-License-Identifier: MIT */
/*
 * Held executions: see exec_hold.h.
 */
#include "common/util.h"

#include "guest-agent/probes/exec_hold.h"

const char *exec_why_name(enum exec_why why)
{
	static const char names[_EXEC_WHY_MAX][11] = {
		[EXEC_GONE] = "gone",
		[EXEC_REPLACED] = "replaced",
		[EXEC_TRACED] = "traced",
		[EXEC_TOO_LONG] = "too_long",
		[EXEC_UNREADABLE] = "unreadable",
		[EXEC_UNSURE] = "unsure",
	};

	return names[why][0] ? names[why] : NULL;
}

static enum exec_why why_of(int error)
{
	switch (error) {
	case -ENOENT:
	case -ESRCH: return EXEC_GONE;
	case -ENAMETOOLONG: return EXEC_TOO_LONG;
	default: return EXEC_UNREADABLE;
	}
}

void exec_learn(struct exec_facts *f, uint64_t start_ns, int r)
{
	f->pending = facts_are_late(r);
	f->there = r == 0;
	/* stat is read last, so that all of it was read of the process that this start belongs to.
	 */
	if (f->there && start_ns &&
	    !proc_same_start(f->stat.start_ticks * PROC_TICK_NS, start_ns)) {
		f->there = false;
		f->cwd_len = 0;
	}
	f->learnt_ns = monotonic_ns();
	if (f->pending)
		f->why = EXEC_UNREADABLE;
	else if (!f->there)
		f->why = f->exe_error == -ENAMETOOLONG ? EXEC_TOO_LONG : EXEC_GONE;
	else if (f->exe_error)
		f->why = why_of(f->exe_error);
	else if (f->status.tracer)
		f->why = EXEC_TRACED;
	else
		f->why = EXEC_RESOLVED;
}

void exec_look(pid_t pid, uint64_t start_ns, struct exec_facts *f)
{
	exec_learn(f, start_ns, facts_both(pid, &f->status, &f->stat));
}

void exec_read_links(pid_t pid, struct exec_facts *ret)
{
	/* The path first: each moment makes it more likely to be another's. */
	int exe = proc_read_exe(pid, ret->exe, sizeof(ret->exe));
	int cwd = proc_read_cwd(pid, ret->cwd, sizeof(ret->cwd));

	ret->exe_len = exe > 0 ? (size_t)exe : 0;
	ret->cwd_len = cwd > 0 && (size_t)cwd < sizeof(ret->cwd) ? (size_t)cwd : 0;
	ret->exe_error = exe == (int)sizeof(ret->exe) ? -ENAMETOOLONG : MIN(exe, 0);
	/* A process that has ended: nothing of it can be trusted any more. */
	ret->pending = exe != -ENOENT && exe != -ESRCH;
	ret->why = ret->pending ? EXEC_UNREADABLE : EXEC_GONE;
	ret->there = ret->other_user = false;
}

void exec_read(pid_t pid, uint64_t start_ns, struct exec_facts *ret)
{
	exec_read_links(pid, ret);
	if (ret->pending)
		exec_look(pid, start_ns, ret);
}

struct exec_held *exec_hold_find(struct exec_holds *x, pid_t pid)
{
	for (size_t i = 0, left = x->n; left && i < EXEC_HOLDS_MAX; i++) {
		if (x->held[i].pid == 0)
			continue;
		if (x->held[i].pid == pid)
			return &x->held[i];
		left--;
	}
	return NULL;
}

struct exec_held *exec_hold_oldest(struct exec_holds *x)
{
	struct exec_held *oldest = NULL;

	for (size_t i = 0; i < EXEC_HOLDS_MAX; i++) {
		struct exec_held *h = &x->held[i];

		if (h->pid && (!oldest || (int32_t)(h->order - oldest->order) < 0))
			oldest = h;
	}
	return oldest;
}

struct exec_held *exec_hold_begin(struct exec_holds *x, pid_t pid, uint64_t at_ns, uint64_t now_ns)
{
	for (size_t i = 0; i < EXEC_HOLDS_MAX; i++) {
		struct exec_held *h = &x->held[i];

		if (h->pid)
			continue;
		h->pid = pid;
		h->ppid = 0;
		h->silent = h->ended = h->untracked = h->has_args = h->args_cut = false;
		h->image = 0;
		h->at_ns = at_ns;
		h->rested_ns = h->look_ns = 0;
		h->hold_until_ns = now_ns + EXEC_HOLD_NS;
		h->give_up_ns = now_ns + EXEC_GIVE_UP_NS;
		h->rest_until_ns = now_ns + EXEC_REST_NS;
		h->order = x->order++;
		h->question = EXEC_NOT_ASKED;
		h->args_len = h->comm_len = h->looks = 0;
		h->start_ns = 0;
		x->n++;
		return h;
	}
	return NULL;
}

bool exec_hold_over(const struct exec_held *h, uint64_t now_ns, uint64_t empty_ns,
		    enum exec_why *ret)
{
	*ret = h->facts.why;
	/* The reader has a deadline of its own. */
	if (h->question == EXEC_ASKED)
		return false;
	/* The number of tries counts, too: the whole machine may have stood still. */
	if (h->facts.pending)
		return h->looks >= EXEC_LOOKS && now_ns >= h->rest_until_ns;
	if (h->ended || h->facts.why != EXEC_RESOLVED)
		return true;
	/* Its arguments are missing still; the reader is busy with others. */
	if (h->question == EXEC_TO_ASK && !h->silent && now_ns < h->give_up_ns)
		return false;
	if (empty_ns >= h->hold_until_ns)
		return true;
	*ret = EXEC_UNSURE;
	return now_ns >= h->give_up_ns;
}

/*
 * Whether it is not within execve(2): its program's stack is there, and it sleeps or has run for
 * longer than the rest of execve(2) takes. The kernel sets the stack up after all that can wait for
 * a file system, and the event follows at once, but for a tracer's stop ('t').
 */
static bool has_left_execve(const struct exec_held *h, const struct proc_stat *st)
{
	const struct proc_stat *then = &h->facts.stat;
	const uint64_t ticks =
		st->faults - then->faults >= EXEC_FAULTS ? EXEC_CPU_TICKS : EXEC_LONG_TICKS;

	return st->has_stack &&
	       (memchr("STI", st->state, 3) || st->cpu_ticks >= then->cpu_ticks + ticks);
}

bool exec_hold_rested(struct exec_held *h, uint64_t empty_ns)
{
	struct proc_stat st;
	int r;

	if (h->rested_ns)
		return empty_ns >= h->rested_ns;
	/* Many can be held for long on a busy machine: not each of them in each turn. */
	if (empty_ns < h->look_ns)
		return false;
	h->look_ns = empty_ns + EXEC_LOOK_NS;
	r = facts_stat(h->pid, &st);
	if (facts_are_late(r))
		return false;
	/* A process that has ended has left execve(2), too, and has no stack any more. */
	if (r < 0 || st.state == 'Z' || st.state == 'X' || has_left_execve(h, &st))
		h->rested_ns = monotonic_ns();
	return false;
}

/* Whether what was read can be another program's. */
static bool is_doubtful(enum exec_why why)
{
	return why == EXEC_REPLACED || why == EXEC_UNSURE || why == EXEC_GONE;
}

void exec_describe(const struct exec_facts *facts, enum exec_why why, pid_t ppid,
		   struct observation *o)
{
	observation_add_bytes(o, WIRE_KEY_EXE, facts->exe,
			      why == EXEC_RESOLVED ? facts->exe_len : 0);
	if (ppid)
		declaration_add_uint(&o->d, WIRE_KEY_PPID, (uint32_t)ppid);
	declaration_add_bool(&o->d, WIRE_KEY_RESOLVED, why == EXEC_RESOLVED);
	if (why != EXEC_RESOLVED)
		observation_add_name(o, WIRE_KEY_WHY, exec_why_name(why));
	if (is_doubtful(why))
		return;
	if (facts->there && !facts->other_user) {
		declaration_add_uint(&o->d, WIRE_KEY_UID, facts->status.uid);
		declaration_add_uint(&o->d, WIRE_KEY_EUID, facts->status.euid);
	}
	if (facts->cwd_len)
		observation_add_bytes(o, WIRE_KEY_CWD, facts->cwd, facts->cwd_len);
}

static void report(const struct exec_held *h, enum exec_why why, struct event_queue *q)
{
	struct observation o;

	observation_init(&o, WIRE_PROCESS_EXECUTED, h->pid, h->comm, h->comm_len, h->at_ns);
	exec_describe(&h->facts, why, h->ppid, &o);
	if (!is_doubtful(why) && h->has_args) {
		observation_add_bytes(&o, WIRE_KEY_ARGS, h->args, h->args_len);
		declaration_add_bool(&o.d, WIRE_KEY_ARGS_CUT, h->args_cut);
	}
	event_queue_observe(q, &o.d);
}

void exec_hold_release(struct exec_holds *x, struct exec_held *h, enum exec_why why,
		       struct image_table *images, struct event_queue *q)
{
	if (!h->silent)
		report(h, why, q);
	image_settle(images, h->image, h->facts.exe, why == EXEC_RESOLVED ? h->facts.exe_len : 0);
	image_unref(images, h->image);
	h->pid = 0;
	x->n--;
}

bool exec_hold_wait(struct exec_holds *x, const struct connector_event *ev)
{
	for (size_t i = 0; i < EXEC_WAITING_MAX; i++) {
		struct exec_waiting *w = &x->waiting[i];

		if (w->pid)
			continue;
		*w = (struct exec_waiting){.pid = ev->tgid, .order = x->order++, .event = *ev};
		x->n_waiting++;
		return true;
	}
	return false;
}

bool exec_hold_take(struct exec_holds *x, pid_t pid, struct connector_event *ret)
{
	struct exec_waiting *first = NULL;

	for (size_t i = 0, left = x->n_waiting; left && i < EXEC_WAITING_MAX; i++) {
		struct exec_waiting *w = &x->waiting[i];

		if (w->pid == 0)
			continue;
		left--;
		if (w->pid == pid && (!first || (int32_t)(w->order - first->order) < 0))
			first = w;
	}
	if (!first)
		return false;
	*ret = first->event;
	first->pid = 0;
	x->n_waiting--;
	return true;
}

struct exec_held *exec_hold_to_ask(struct exec_holds *x)
{
	struct exec_held *first = NULL;

	for (size_t i = 0, left = x->n; left && i < EXEC_HOLDS_MAX; i++) {
		struct exec_held *h = &x->held[i];

		if (h->pid == 0)
			continue;
		left--;
		if (h->question == EXEC_TO_ASK &&
		    (!first || (int32_t)(h->order - first->order) < 0))
			first = h;
	}
	return first;
}

void exec_hold_args(struct exec_held *h, const char *data, ssize_t len, uint64_t now_ns)
{
	size_t n = len > 0 ? (size_t)len : 0;

	h->has_args = n > 0;
	/* A process that ends has none any more; that is no program without arguments. */
	if (n == 0)
		return;
	h->args_cut = n > sizeof(h->args);
	n = MIN(n, sizeof(h->args));
	/* The last one ends with a NUL too, unless it was cut. */
	while (!h->args_cut && n && data[n - 1] == '\0')
		n--;
	for (size_t i = 0; i < n; i++) {
		const unsigned char c = (unsigned char)data[i];

		h->args[i] = c == '\0' ? ' ' : c < ' ' || c == 0x7f ? '?' : (char)c;
	}
	h->args_len = (uint16_t)n;
	/* They were read later than the path, so the hold begins again. */
	h->rested_ns = 0;
	h->hold_until_ns = MAX(h->hold_until_ns, now_ns + EXEC_HOLD_NS);
	h->give_up_ns = MAX(h->give_up_ns, now_ns + EXEC_GIVE_UP_NS);
	h->rest_until_ns = MAX(h->rest_until_ns, now_ns + EXEC_REST_NS);
}
