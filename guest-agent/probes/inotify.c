/* SPDX-License-Identifier: MIT */
/*
 * The fs source: inotify(7) on the paths of the command line. It tells that a path changed, not
 * who changed it. A path that is deleted, or not there yet, is looked for every --poll ms and
 * watched again when it comes back; meanwhile only, the source wakes by a timer.
 */
#include <limits.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/flag_names.h"
#include "guest-agent/probes/inotify.h"
#include "guest-agent/probes/sources.h"

#define REPORTED_MASK (IN_MODIFY | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO)
/* The path itself goes away: reported as delete or moved_from of the path. */
#define SELF_MASK (IN_DELETE_SELF | IN_MOVE_SELF)

struct watch {
	const char *path; /* borrowed */
	int wd;		  /* -1: not there */
	bool refused;	  /* the kernel had no room for it */
	/*
	 * The previous watch, until its IN_IGNORED: events queued before that are reported. -1:
	 * none.
	 */
	int retired;
};

struct inotify_probe {
	struct probe probe; /* its fd is the epoll set of the other two */
	int inotify_fd, timer_fd;
	bool timer_armed;
	unsigned poll_ms;
	size_t n_watches;
	struct watch watches[PROBE_INOTIFY_PATHS_MAX];
	_Alignas(struct inotify_event) char buf[4096];
};

static struct inotify_probe *from_probe(struct probe *probe)
{
	return (struct inotify_probe *)probe;
}

/* The names in the order of the specification, joined by commas. */
static size_t event_names(uint32_t mask, char *out, size_t size)
{
	static const struct flag_name names[] = {
		{IN_MODIFY, "modify"},
		{IN_CREATE, "create"},
		{IN_DELETE | IN_DELETE_SELF, "delete"},
		{IN_ATTRIB, "attrib"},
		{IN_MOVED_FROM | IN_MOVE_SELF, "moved_from"},
		{IN_MOVED_TO, "moved_to"},
	};

	return flag_names_join(names, ARRAY_SIZE(names), mask, out, size);
}

static void report(struct event_queue *q, const struct watch *w, uint32_t mask, const char *name,
		   size_t name_len)
{
	char names[64];
	size_t len = event_names(mask, names, sizeof(names));
	struct observation o;

	if (len == 0)
		return;
	/* inotify does not tell who. */
	observation_init(&o, WIRE_FS_INOTIFY_FIRED, 0, NULL, 0, monotonic_ns());
	observation_add_bytes(&o, WIRE_KEY_PATH, w->path, strlen(w->path));
	declaration_add_text(&o.d, WIRE_KEY_EVENT, (struct wire_text){names, len});
	if (name_len > 0)
		observation_add_bytes(&o, WIRE_KEY_NAME, name, name_len);
	event_queue_observe(q, &o.d);
}

static void arm_timer(struct inotify_probe *p)
{
	const long ns = (long)(p->poll_ms % 1000) * 1000000L;
	struct itimerspec spec = {0};
	bool missing = false;

	for (size_t i = 0; i < p->n_watches; i++)
		missing |= p->watches[i].wd < 0;
	if (missing == p->timer_armed)
		return;
	if (missing)
		spec.it_interval = spec.it_value =
			(struct timespec){.tv_sec = p->poll_ms / 1000, .tv_nsec = ns};
	if (timerfd_settime(p->timer_fd, 0, &spec, NULL) == 0)
		p->timer_armed = missing;
}

/* q is NULL before the first drain: paths that exist from the start are not reported as changes. */
static void watch_missing(struct inotify_probe *p, struct event_queue *q)
{
	for (size_t i = 0; i < p->n_watches; i++) {
		struct watch *w = &p->watches[i];

		if (w->wd >= 0)
			continue;
		w->wd = inotify_add_watch(p->inotify_fd, w->path, REPORTED_MASK | SELF_MASK);
		/*
		 * No watches are left: changes there are lost until the path is watched again, and
		 * counted once.
		 */
		if (w->wd < 0 && (errno == ENOSPC || errno == ENOMEM) && !w->refused) {
			w->refused = true;
			if (q)
				event_queue_kernel_lost(q, PROBE_FS, 1);
		}
		w->refused &= w->wd < 0;
		if (w->wd >= 0 && q)
			report(q, w, IN_CREATE, NULL, 0);
	}
	arm_timer(p);
}

/*
 * Events were lost, and the kernel does not say how many: at least one. A path's end may be among
 * them, so that its watch is dead: each is looked up again.
 */
static void on_overflow(struct inotify_probe *p, struct event_queue *q)
{
	event_queue_kernel_lost(q, PROBE_FS, 1);
	for (size_t i = 0; i < p->n_watches; i++) {
		struct watch *w = &p->watches[i];
		int wd;

		if (w->wd < 0)
			continue;
		wd = inotify_add_watch(p->inotify_fd, w->path, REPORTED_MASK | SELF_MASK);
		if (wd == w->wd)
			continue;
		inotify_rm_watch(p->inotify_fd, w->wd);
		w->retired = w->wd;
		w->wd = wd;
		if (wd >= 0)
			report(q, w, IN_CREATE, NULL, 0);
	}
	watch_missing(p, q);
}

/* Two of the paths can be one inode, and then share a watch descriptor. */
static void on_event(struct inotify_probe *p, struct event_queue *q, const struct inotify_event *ev)
{
	bool known = false, again = false;

	if (ev->mask & IN_Q_OVERFLOW) {
		on_overflow(p, q);
		return;
	}
	for (size_t i = 0; i < p->n_watches; i++) {
		struct watch *w = &p->watches[i];

		if (ev->wd != w->wd && ev->wd != w->retired)
			continue;
		known = true;
		report(q, w, ev->mask, ev->name, ev->len ? strnlen(ev->name, ev->len) : 0);
		if (ev->wd == w->wd && ev->mask & (SELF_MASK | IN_IGNORED)) {
			/* The name does not lead to this inode any more. */
			w->retired = w->wd;
			w->wd = -1;
			again = true;
		}
		if (ev->mask & IN_IGNORED)
			w->retired = -1;
	}
	if (!known && !(ev->mask & IN_IGNORED))
		event_queue_kernel_lost(q, PROBE_FS, 1);
	if (!again)
		return;
	if (!(ev->mask & IN_IGNORED))
		inotify_rm_watch(p->inotify_fd, ev->wd);
	watch_missing(p, q);
}

static int inotify_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct inotify_probe *p = from_probe(probe);
	uint64_t expirations;

	if (read(p->timer_fd, &expirations, sizeof(expirations)) == sizeof(expirations))
		watch_missing(p, q);
	for (unsigned seen = 0; seen < budget;) {
		const char *at = p->buf, *end;
		ssize_t n = read(p->inotify_fd, p->buf, sizeof(p->buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 || errno == EAGAIN ? 0 : -errno;
		for (end = p->buf + n; at < end; seen++) {
			const struct inotify_event *ev = (const struct inotify_event *)at;

			at += sizeof(*ev) + ev->len;
			on_event(p, q, ev);
		}
	}
	return 1;
}

static void inotify_close(struct probe *probe)
{
	struct inotify_probe *p = from_probe(probe);

	close_fd(p->inotify_fd);
	close_fd(p->timer_fd);
	close_fd(probe->fd);
	free(p);
}

static int add_to_set(int epoll_fd, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int inotify_helper_open(const struct probe_config *config, struct probe **ret)
{
	struct inotify_probe *p = calloc(1, sizeof(*p));
	int r = 0;

	if (!p)
		return -ENOMEM;
	p->probe = (struct probe){.ops = &inotify_ops, .fd = epoll_create1(EPOLL_CLOEXEC)};
	p->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	p->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	p->poll_ms = config->poll_ms;
	if (p->probe.fd < 0 || p->inotify_fd < 0 || p->timer_fd < 0)
		r = -errno;
	if (r == 0)
		r = add_to_set(p->probe.fd, p->inotify_fd);
	if (r == 0)
		r = add_to_set(p->probe.fd, p->timer_fd);
	if (r < 0) {
		inotify_close(&p->probe);
		return r;
	}
	*ret = &p->probe;
	return 0;
}

void inotify_helper_add(struct probe *helper, const char *path)
{
	struct inotify_probe *p = from_probe(helper);

	p->watches[p->n_watches++] = (struct watch){.path = path, .wd = -1, .retired = -1};
	watch_missing(p, NULL);
}

static int inotify_open(const struct probe_config *config, struct probe **ret,
			char why[PROBE_WHY_MAX])
{
	int r;

	if (config->n_inotify_paths == 0) {
		snprintf(why, PROBE_WHY_MAX, "no --inotify path is given");
		return -ENOENT;
	}
	r = inotify_helper_open(config, ret);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "inotify_init1 (CONFIG_INOTIFY_USER): %s",
			 strerror(-r));
		return r;
	}
	for (size_t i = 0; i < config->n_inotify_paths; i++)
		inotify_helper_add(*ret, config->inotify_paths[i]);
	return 0;
}

const struct probe_ops inotify_ops = {
	.via = "inotify",
	.family = PROBE_FS,
	.uses = "watches the --inotify paths",
	.misses =
		"who changed them, equal changes in quick succession, and what takes the place of a "
		"path whose parent folder is renamed",
	.open = inotify_open,
	.drain = inotify_drain,
	.close = inotify_close,
};
