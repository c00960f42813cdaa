/* SPDX-License-Identifier: MIT */
/*
 * The fs source: fanotify(7) on the paths of the command line, with the process that changed them.
 *
 * fan_watch.c marks each path, its files and the directories above it. This file turns the events
 * into reports, and looks paths up again.
 *
 *   a path is   moves by
 *   MARKED      an event after which its name may lead elsewhere  -> looked up again
 *   MISSING     every --poll ms it is looked up; once there       -> MARKED, reported as create
 *   LEFT        its file system cannot be marked: the inotify helper watches it
 *
 * The queue has no limit, so nothing is lost in it; equal events of one process and object that
 * were not read yet are one event.
 *
 * Single-threaded; allocates in open() only.
 */
#include "common/util.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/fan_event.h"
#include "guest-agent/probes/fan_watch.h"
#include "guest-agent/probes/inotify.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/process_view.h"
#include "guest-agent/probes/sources.h"

#define WAITING_MAX 64u
#define TICK_MS	    10u
#define BUFFER_SIZE 8192u
#define FD_PATH_MAX 40u

/* A change whose actor's program is not certain yet. */
struct waiting {
	uint8_t watch;
	uint8_t comm_len;
	uint16_t name_len;
	pid_t pid;
	uint64_t mask, after_ns, at_ns, until_ns;
	char comm[PROC_COMM_MAX];
	char name[WIRE_DETAIL_TEXT_MAX];
};

struct fanotify {
	struct probe probe; /* its fd: an epoll of the group, the timer and the helper */
	const struct probe_config *config;
	struct probe *helper; /* inotify, for what cannot be marked; NULL: none can be had */
	int timer_fd;
	unsigned timer_ms; /* what it is armed for */
	bool left;	   /* a path is the helper's */
	uint64_t empty_ns; /* when the group was last found empty */
	uint64_t after_ns; /* what empty_ns was before these events were read */
	size_t n_waiting;
	struct fan_watches ws;
	struct waiting waiting[WAITING_MAX];
	_Alignas(8) uint8_t buf[BUFFER_SIZE];
};

/* ---- reports ---- */

static void learn_name(struct waiting *c)
{
	if (c->pid && !c->comm_len)
		c->comm_len = (uint8_t)process_view_comm(c->pid, c->comm);
}

static void emit(struct fanotify *f, struct event_queue *q, struct waiting *c, const char *exe,
		 size_t exe_len)
{
	const struct fan_watch *w = &f->ws.watches[c->watch];
	struct observation o;
	char names[80];
	const size_t len = fan_event_names(c->mask, names, sizeof(names));

	/* The process source may have learnt the name since the change was read. */
	learn_name(c);
	observation_init(&o, WIRE_FS_CHANGED, c->pid, c->comm, c->comm_len, c->at_ns);
	observation_add_bytes(&o, WIRE_KEY_PATH, w->path, strlen(w->path));
	declaration_add_text(&o.d, WIRE_KEY_EVENT, (struct wire_text){names, len});
	if (c->name_len)
		observation_add_bytes(&o, WIRE_KEY_NAME, c->name, c->name_len);
	if (exe)
		observation_add_bytes(&o, WIRE_KEY_EXE, exe, exe_len);
	event_queue_observe(q, &o.d);
}

/* True when it is reported. */
static bool try_emit(struct fanotify *f, struct event_queue *q, struct waiting *c, uint64_t now_ns)
{
	const char *exe = NULL;
	size_t len = 0;

	if (c->pid &&
	    process_view_exe_between(q, c->pid, c->after_ns, c->at_ns, &exe, &len) == EXE_WAIT &&
	    now_ns < c->until_ns)
		return false;
	emit(f, q, c, exe, len);
	return true;
}

static void settle(struct fanotify *f, struct event_queue *q)
{
	const uint64_t now_ns = monotonic_ns();
	size_t kept = 0;

	if (f->n_waiting == 0)
		return;
	process_view_catch_up(q);
	for (size_t i = 0; i < f->n_waiting; i++) {
		if (try_emit(f, q, &f->waiting[i], now_ns))
			continue;
		if (kept != i)
			f->waiting[kept] = f->waiting[i];
		kept++;
	}
	f->n_waiting = kept;
}

/* pid 0: nobody knows who. */
static void change(struct fanotify *f, struct event_queue *q, unsigned watch, uint64_t mask,
		   pid_t pid, const char *name, size_t name_len)
{
	struct waiting *c;

	if (f->n_waiting == WAITING_MAX)
		settle(f, q);
	if (f->n_waiting == WAITING_MAX) {
		emit(f, q, &f->waiting[0], NULL, 0);
		f->n_waiting--;
		memmove(f->waiting, f->waiting + 1, f->n_waiting * sizeof(f->waiting[0]));
	}
	c = &f->waiting[f->n_waiting++];
	c->watch = (uint8_t)watch;
	c->mask = mask;
	c->pid = pid;
	c->at_ns = monotonic_ns();
	c->after_ns = f->after_ns;
	c->until_ns = c->at_ns + EXE_WAIT_NS;
	c->name_len = (uint16_t)MIN(name_len, sizeof(c->name));
	memcpy(c->name, name, c->name_len);
	c->comm_len = 0;
	learn_name(c);
}

/* "DIRECTORY/NAME" of a name that is not in the watched place; only the name if that fails. */
static size_t foreign_name(const struct fan_watch *w, const struct fan_event *ev,
			   char out[static WIRE_DETAIL_TEXT_MAX])
{
	_cleanup_close_ int fd = fan_watch_open(w, &ev->dir);
	char link[FD_PATH_MAX];
	ssize_t n = 0;
	size_t name_len = MIN(ev->name_len, (size_t)FAN_NAME_MAX);

	if (fd >= 0) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, out, WIRE_DETAIL_TEXT_MAX - FAN_NAME_MAX - 1);
	}
	if (n > 0 && out[n - 1] != '/')
		out[n++] = '/';
	n = MAX(n, 0);
	memcpy(out + n, ev->name, name_len);
	return (size_t)n + name_len;
}

static bool is_name_of(const struct fan_watch *w, const struct fan_event *ev)
{
	size_t end = strlen(w->path), begin;

	while (end > 1 && w->path[end - 1] == '/')
		end--;
	for (begin = end; begin && w->path[begin - 1] != '/';)
		begin--;
	return ev->name_len == end - begin && !memcmp(ev->name, w->path + begin, end - begin);
}

static bool has_parent_mark(struct fanotify *f, unsigned watch, const struct fan_object *dir)
{
	for (struct fan_mark *m = fan_marks_find(&f->ws.marks, dir); m;
	     m = fan_marks_next(&f->ws.marks, m))
		if (m->watch == watch && m->role == FAN_ROLE_PARENT)
			return true;
	return false;
}

/* An event in a marked directory, about one of its names. */
static bool on_name(struct fanotify *f, struct event_queue *q, const struct fan_mark *m,
		    const struct fan_event *ev)
{
	struct fan_watch *w = &f->ws.watches[m->watch];
	const uint64_t mask = ev->mask & (FAN_WATCH_NAMES | FAN_WATCH_WRITES);

	if (m->role == FAN_ROLE_SELF && mask) {
		if (ev->mask & (FAN_CREATE | FAN_MOVED_TO) && w->mount_fd >= 0) {
			char name[FAN_NAME_MAX + 1];

			memcpy(name, ev->name, ev->name_len);
			name[ev->name_len] = '\0';
			f->ws.unwatched +=
				!fan_watch_mark_child(&f->ws, m->watch, w->mount_fd, name);
		}
		change(f, q, m->watch, mask, ev->pid, ev->name, ev->name_len);
		return true;
	}
	if (m->role == FAN_ROLE_PARENT && ev->mask & FAN_WATCH_NAMES && is_name_of(w, ev)) {
		w->verify = true;
		w->announced |= (ev->mask & (FAN_CREATE | FAN_MOVED_TO)) != 0;
		change(f, q, m->watch, ev->mask & FAN_WATCH_NAMES, ev->pid, "", 0);
		return true;
	}
	return false;
}

/* An event about a marked object itself. in_dir: ev->dir is not the object's own handle. */
static bool on_object(struct fanotify *f, struct event_queue *q, const struct fan_mark *m,
		      const struct fan_event *ev, bool in_dir)
{
	char name[WIRE_DETAIL_TEXT_MAX];
	struct fan_watch *w = &f->ws.watches[m->watch];
	size_t len = 0;

	if (ev->mask & FAN_WATCH_GONE && m->role != FAN_ROLE_CHILD) {
		w->verify = true;
		/* Its own end shows by its name; a directory above takes the path away. */
		if (m->role == FAN_ROLE_ANCESTOR || m->role == FAN_ROLE_PARENT)
			change(f, q, m->watch, ev->mask & FAN_WATCH_GONE, ev->pid, "", 0);
		return true;
	}
	if (!(ev->mask & FAN_WATCH_WRITES) ||
	    (m->role != FAN_ROLE_SELF && m->role != FAN_ROLE_CHILD))
		return false;
	if (in_dir && (m->role == FAN_ROLE_CHILD || !has_parent_mark(f, m->watch, &ev->dir) ||
		       !is_name_of(w, ev)))
		len = foreign_name(w, ev, name);
	/* The count of its links may have changed: the name may be another file's now. */
	w->verify |= (ev->mask & FAN_ATTRIB) && m->role == FAN_ROLE_SELF;
	change(f, q, m->watch, ev->mask & FAN_WATCH_WRITES, ev->pid, name, len);
	return true;
}

static void on_event(struct fanotify *f, struct event_queue *q, const struct fan_event *ev)
{
	const bool of_dir = ev->name_len == 1 && ev->name[0] == '.';
	const struct fan_object *object = of_dir || !ev->object.len ? &ev->dir : &ev->object;
	const bool in_dir = ev->dir.len && ev->name_len && !of_dir;
	uint64_t done = 0; /* watches */
	struct fan_mark *m;

	if (ev->mask & FAN_Q_OVERFLOW) {
		event_queue_kernel_lost(q, PROBE_FS, 1);
		for (size_t i = 0; i < f->ws.n; i++)
			f->ws.watches[i].verify = true;
		return;
	}
	if (ev->pid && probe_excludes(f->config, ev->pid))
		return;
	for (m = in_dir ? fan_marks_find(&f->ws.marks, &ev->dir) : NULL; m;
	     m = fan_marks_next(&f->ws.marks, m))
		if (!(done >> m->watch & 1) && on_name(f, q, m, ev))
			done |= UINT64_C(1) << m->watch;
	if (in_dir && (!ev->object.len || ev->mask & FAN_WATCH_NAMES))
		return;
	for (m = fan_marks_find(&f->ws.marks, object); m; m = fan_marks_next(&f->ws.marks, m))
		if (!(done >> m->watch & 1) && on_object(f, q, m, ev, in_dir))
			done |= UINT64_C(1) << m->watch;
}

/* ---- paths that come and go ---- */

static void leave_to_helper(struct fanotify *f, unsigned watch)
{
	fan_watch_leave(&f->ws, watch);
	if (!f->helper) {
		f->ws.unwatched++;
		return;
	}
	inotify_helper_add(f->helper, f->ws.watches[watch].path);
	f->left = true;
}

static void look_up(struct fanotify *f, struct event_queue *q, unsigned watch)
{
	struct fan_watch *w = &f->ws.watches[watch];
	const bool was_there = w->state == WATCH_MARKED;
	int r;

	w->verify = false;
	if (was_there && fan_watch_leads_there(w)) {
		w->announced = false;
		return;
	}
	r = fan_watch_mark(&f->ws, watch);
	if (fan_watch_unmarkable(r)) {
		leave_to_helper(f, watch);
	} else if (r == 0) {
		/* Nobody was seen doing it. */
		if (!w->announced)
			change(f, q, watch, FAN_CREATE, 0, "", 0);
		w->announced = false;
	}
}

static void look_up_all(struct fanotify *f, struct event_queue *q, bool missing)
{
	for (unsigned i = 0; i < f->ws.n; i++) {
		struct fan_watch *w = &f->ws.watches[i];

		if (w->state != WATCH_LEFT && (w->verify || (missing && w->state == WATCH_MISSING)))
			look_up(f, q, i);
	}
}

/* The timer runs fast while a change waits, and by --poll while a path is missing. */
static void arm_timer(struct fanotify *f)
{
	unsigned ms = f->n_waiting ? TICK_MS : 0;
	struct itimerspec spec = {0};

	for (size_t i = 0; !ms && i < f->ws.n; i++)
		if (f->ws.watches[i].state == WATCH_MISSING)
			ms = f->config->poll_ms;
	if (ms == f->timer_ms)
		return;
	spec.it_interval = (struct timespec){.tv_sec = ms / 1000,
					     .tv_nsec = (long)(ms % 1000) * (long)NSEC_PER_MSEC};
	spec.it_value = spec.it_interval;
	if (timerfd_settime(f->timer_fd, 0, &spec, NULL) == 0)
		f->timer_ms = ms;
}

/* ---- the source ---- */

/* One read. Returns the number of events, 0 when there is none, or a negative errno. */
static int read_events(struct fanotify *f, struct event_queue *q)
{
	const uint64_t asked_ns = monotonic_ns();
	const ssize_t n = read(f->ws.group, f->buf, sizeof(f->buf));
	struct fan_event ev;
	int events = 0;
	ssize_t len;

	/* The group is found empty again while these wait in the buffer. */
	f->after_ns = f->empty_ns;
	if (n < 0 && errno == EAGAIN) {
		f->empty_ns = asked_ns;
		return 0;
	}
	if (n < 0)
		return errno == EINTR ? 1 : -errno;
	/* Then the name of a process is known that has begun and ended since the last time. */
	process_view_catch_up(q);
	for (ssize_t at = 0; at < n; at += len, events++) {
		len = fan_event_next(f->buf + at, (size_t)(n - at), &ev);
		if (len <= 0)
			return -EBADMSG;
		on_event(f, q, &ev);
	}
	return events;
}

/* Processes have begun or executed something: changes that are read from now on came later. */
static void note_empty(void *ctx)
{
	struct fanotify *f = ctx;
	const uint64_t asked_ns = monotonic_ns();
	struct pollfd pfd = {.fd = f->ws.group, .events = POLLIN};

	if (poll(&pfd, 1, 0) == 0)
		f->empty_ns = asked_ns;
}

static int fanotify_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct fanotify *f = (struct fanotify *)probe;
	uint64_t expirations;
	const bool tick = read(f->timer_fd, &expirations, sizeof(expirations)) > 0;
	unsigned done = 0;
	int r;

	do {
		r = read_events(f, q);
		if (r < 0)
			return r;
		done += (unsigned)r;
		look_up_all(f, q, false);
	} while (r > 0 && done < budget);
	if (tick)
		look_up_all(f, q, true);
	if (f->ws.unwatched)
		event_queue_kernel_lost(q, PROBE_FS, f->ws.unwatched);
	f->ws.unwatched = 0;
	settle(f, q);
	arm_timer(f);
	if (r > 0 || fan_watches_sweep(&f->ws) || fan_watches_mark_children(&f->ws))
		return 1;
	return f->left ? inotify_ops.drain(f->helper, q, budget) : 0;
}

static void fanotify_flush(struct probe *probe, struct event_queue *q)
{
	struct fanotify *f = (struct fanotify *)probe;

	settle(f, q);
	for (size_t i = 0; i < f->n_waiting; i++)
		emit(f, q, &f->waiting[i], NULL, 0);
	f->n_waiting = 0;
}

static void fanotify_close(struct probe *probe)
{
	struct fanotify *f = (struct fanotify *)probe;

	process_view_notify(NULL, NULL);
	if (f->helper)
		inotify_ops.close(f->helper);
	fan_watches_close(&f->ws);
	close_fd(f->timer_fd);
	close_fd(probe->fd);
	free(f);
}

static int open_descriptors(struct fanotify *f, char why[PROBE_WHY_MAX])
{
	struct epoll_event ev = {.events = EPOLLIN};
	const char *step = "fanotify_init (CONFIG_FANOTIFY, CAP_SYS_ADMIN)";
	int r;

	f->ws.group = (int)syscall(SYS_fanotify_init,
				   FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID |
					   FAN_REPORT_DFID_NAME | FAN_UNLIMITED_QUEUE |
					   FAN_UNLIMITED_MARKS,
				   O_RDONLY | O_CLOEXEC);
	r = f->ws.group < 0 ? -errno : 0;
	if (r == 0) {
		step = "epoll";
		if (inotify_helper_open(f->config, &f->helper) < 0)
			f->helper = NULL;
		f->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		f->probe.fd = epoll_create1(EPOLL_CLOEXEC);
		if (f->timer_fd < 0 || f->probe.fd < 0 ||
		    epoll_ctl(f->probe.fd, EPOLL_CTL_ADD, f->ws.group, &ev) < 0 ||
		    epoll_ctl(f->probe.fd, EPOLL_CTL_ADD, f->timer_fd, &ev) < 0 ||
		    (f->helper && epoll_ctl(f->probe.fd, EPOLL_CTL_ADD, f->helper->fd, &ev) < 0))
			r = -errno;
	}
	if (r < 0)
		snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	return r;
}

/* 0 when at least one path is fanotify's, or will be. */
static int mark_all(struct fanotify *f, char why[PROBE_WHY_MAX])
{
	int refused = 0;
	size_t left = 0;

	for (unsigned i = 0; i < f->ws.n; i++) {
		const int r = fan_watch_mark(&f->ws, i);

		if (!fan_watch_unmarkable(r))
			continue;
		refused = r;
		leave_to_helper(f, i);
		left++;
	}
	if (left < f->ws.n)
		return 0;
	snprintf(why, PROBE_WHY_MAX, "none of the paths can be marked: %s", strerror(-refused));
	return refused ? refused : -ENOENT;
}

static int fanotify_open(const struct probe_config *config, struct probe **ret,
			 char why[PROBE_WHY_MAX])
{
	struct fanotify *f;
	int r;

	if (config->n_inotify_paths == 0) {
		snprintf(why, PROBE_WHY_MAX, "no --inotify path is given");
		return -ENOENT;
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		snprintf(why, PROBE_WHY_MAX, "memory: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	f->probe = (struct probe){.ops = &fanotify_ops, .fd = -1};
	f->config = config;
	f->timer_fd = -1;
	fan_watches_init(&f->ws, config->inotify_paths, config->n_inotify_paths);
	r = open_descriptors(f, why);
	if (r == 0)
		r = mark_all(f, why);
	/* Those that are there before the agent is ready are marked before. */
	while (r == 0 && fan_watches_mark_children(&f->ws))
		;
	if (r < 0) {
		fanotify_close(&f->probe);
		return r;
	}
	f->empty_ns = monotonic_ns();
	process_view_notify(note_empty, f);
	arm_timer(f);
	*ret = &f->probe;
	return 0;
}

static const char *fanotify_announce(const struct probe *probe)
{
	return ((const struct fanotify *)probe)->left ? "fanotify+inotify" : "fanotify";
}

const struct probe_ops fanotify_ops = {
	.via = "fanotify",
	.family = PROBE_FS,
	.capabilities = UINT64_C(1) << CAP_DAC_READ_SEARCH,
	.uses = "marks the --inotify paths, their files and the directories above them",
	.misses = "what subdirectories hold, a mapping's writes before it is closed (on overlayfs "
		  "all), equal changes of one process that were not read yet",
	.open = fanotify_open,
	.drain = fanotify_drain,
	.flush = fanotify_flush,
	.close = fanotify_close,
	.announce = fanotify_announce,
};
