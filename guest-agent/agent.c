/* SPDX-License-Identifier: MIT */
/*
 * The loop. The order of a turn:
 *
 *   1. sleep until a source, the channel, a signal or the next deadline
 *   2. drain the sources that have something, each within its budget; callers wait for the
 *      capability source's answers, so it is first
 *   3. what is due by the clock: heartbeat, loss receipt
 *   4. the channel: connect, greet, send what the queue holds
 *
 * A source that has more left keeps the loop from sleeping, so none starves another. A turn makes
 * no system call for what epoll did not name.
 */
#include "guest-agent/agent.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>

#include "common/log.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/harden.h"
#include "guest-agent/probes/proc_file.h"

#define DRAIN_BUDGET 256u /* events of one source a turn */
#define BYE_FLUSH_MS 500u
#define BYE_DRAIN_MS 250u /* of those, for what the sources still hold */
#define EPOLL_EVENTS 16
#define BOOT_ID_SIZE 36u
#define SESSION_SIZE 16u

/* The comm of telemetry frames: what the kernel makes of the program's name. */
#define AGENT_COMM "cellos-telemetr"

struct agent {
	const struct options *options; /* borrowed */
	int epoll_fd, timer_fd, signal_fd;
	struct event_queue *queue;
	struct channel channel;
	struct probe *probes[_PROBE_FAMILY_MAX]; /* NULL: none */
	const char *announced[_PROBE_FAMILY_MAX];
	char session[SESSION_SIZE + 1];
	char boot_id[BOOT_ID_SIZE + 1];
	struct utsname uts;
	bool due[_PROBE_FAMILY_MAX]; /* to be drained this turn */
	bool ready, new_hello_due, process_ok, terminated, broken;
	uint64_t heartbeat_at_ns, give_up_at_ns;
	uint64_t timer_at_ns; /* what the timer is armed for; 0: it is not */
};

/* The order in which a turn drains them. */
static const enum probe_family drain_order[_PROBE_FAMILY_MAX] = {
	PROBE_CAPABILITY,
	PROBE_PROCESS,
	PROBE_NET,
	PROBE_FS,
};

/* ---- sources ---- */

static int watch(struct agent *a, int op, int fd, uint32_t events, void *tag)
{
	struct epoll_event ev = {.events = events, .data.ptr = tag};

	return epoll_ctl(a->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

static void all_due(struct agent *a)
{
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
		a->due[f] = true;
}

static bool any_due(const struct agent *a)
{
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
		if (a->due[f])
			return true;
	return false;
}

static bool chosen(const struct options *o, const struct probe_ops *ops)
{
	const char *choice = o->source[ops->family];

	if (strcmp(choice, SOURCE_AUTO) == 0)
		return !ops->opt_in;
	return strcmp(choice, ops->via) == 0;
}

/*
 * Open the first source of the family that can be had, from *table on. Returns 0 with or without
 * one, or -ENODEV when a forced one cannot be had.
 */
static int open_family(struct agent *a, enum probe_family family,
		       const struct probe_ops *const *table)
{
	const struct options *o = a->options;
	const bool automatic = strcmp(o->source[family], SOURCE_AUTO) == 0;

	if (strcmp(o->source[family], SOURCE_OFF) == 0 ||
	    (family == PROBE_FS && o->probes.n_inotify_paths == 0))
		return 0;
	for (; *table; table++) {
		char why[PROBE_WHY_MAX] = "";
		int r;

		if ((*table)->family != family || !chosen(o, *table))
			continue;
		r = (*table)->open(&o->probes, &a->probes[family], why);
		/* Before the agent is ready nothing is drained, and must not keep it awake. */
		if (r == 0)
			r = watch(a, EPOLL_CTL_ADD, a->probes[family]->fd, a->ready ? EPOLLIN : 0,
				  a->probes[family]);
		if (r == 0)
			return 0;
		if (a->probes[family]) {
			(*table)->close(a->probes[family]);
			a->probes[family] = NULL;
		}
		log_line(automatic ? LOG_INFO : LOG_ERR,
			 "msg=\"source not available\" option=%s source=%s errno=%d why=\"%s\"",
			 options_family_name(family), (*table)->via, -r, why);
	}
	if (!automatic) {
		log_error(
			"msg=\"the source that was asked for is not available\" option=%s source=%s",
			options_family_name(family), o->source[family]);
		return -ENODEV;
	}
	return 0;
}

static const char *via(const struct agent *a, enum probe_family family)
{
	const struct probe *p = a->probes[family];

	if (!p)
		return "none";
	return p->ops->announce ? p->ops->announce(p) : p->ops->via;
}

/* Whether what hello says of the sources has changed since the last one. */
static bool announcement_changed(struct agent *a)
{
	bool changed = false;

	for (int f = 0; f < _PROBE_FAMILY_MAX; f++) {
		const char *now = via(a, (enum probe_family)f);

		if (!a->announced[f] || strcmp(a->announced[f], now) != 0)
			changed = true;
		a->announced[f] = now;
	}
	return changed;
}

/* The source is dead: take the next of its family. */
static void replace_source(struct agent *a, enum probe_family family, int error)
{
	const struct probe_ops *dead = a->probes[family]->ops;
	const struct probe_ops *const *next = probe_table;

	log_warning("msg=\"source failed\" source=%s errno=%d", dead->via, -error);
	dead->close(a->probes[family]);
	a->probes[family] = NULL;
	event_queue_kernel_lost(a->queue, family, 1);
	while (*next != dead)
		next++;
	open_family(a, family, next + 1);
	/* Two sources can share what has died. */
	all_due(a);
}

static void drain_sources(struct agent *a)
{
	bool drained = false;

	for (size_t i = 0; i < ARRAY_SIZE(drain_order); i++) {
		const enum probe_family family = drain_order[i];
		struct probe *p = a->probes[family];
		int r;

		if (!a->due[family])
			continue;
		a->due[family] = false;
		if (!p)
			continue;
		drained = true;
		r = p->ops->drain(p, a->queue, DRAIN_BUDGET);
		if (r > 0)
			a->due[family] = true;
		else if (r < 0)
			replace_source(a, family, r);
	}
	if (drained && a->ready && announcement_changed(a))
		a->new_hello_due = true;
}

/* From now on the sources wake the loop, and what has queued up in them is drained. */
static void begin_observing(struct agent *a)
{
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
		if (a->probes[f])
			watch(a, EPOLL_CTL_MOD, a->probes[f]->fd, EPOLLIN, a->probes[f]);
	all_due(a);
}

/* ---- telemetry frames ---- */

static struct declaration telemetry(const struct agent *a, enum wire_source source)
{
	return (struct declaration){
		.content_version = (uint16_t)a->options->content_version,
		.source = source,
		.guest_pid = (uint32_t)a->options->probes.self,
		.guest_comm = wire_text(AGENT_COMM),
		.guest_monotonic_ns = monotonic_ns(),
	};
}

static void new_session_id(struct agent *a)
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = monotonic_ns() ^ (uint64_t)getpid() << 48;
	snprintf(a->session, sizeof(a->session), "%016" PRIx64, random);
}

static void fill_hello(const struct agent *a, struct declaration *d)
{
	declaration_add_text(d, WIRE_KEY_AGENT_VERSION, wire_text(CELLOS_VERSION));
	declaration_add_text(d, WIRE_KEY_SESSION, wire_text(a->session));
	declaration_add_text(d, WIRE_KEY_KERNEL, wire_text(a->uts.release));
	declaration_add_text(d, WIRE_KEY_ARCH, wire_text(a->uts.machine));
	if (a->boot_id[0])
		declaration_add_text(d, WIRE_KEY_BOOT_ID, wire_text(a->boot_id));
	declaration_add_text(d, WIRE_KEY_PROCESS_VIA, wire_text(via(a, PROBE_PROCESS)));
	declaration_add_text(d, WIRE_KEY_NET_VIA, wire_text(via(a, PROBE_NET)));
	declaration_add_text(d, WIRE_KEY_CAPABILITY_VIA, wire_text(via(a, PROBE_CAPABILITY)));
	declaration_add_text(d, WIRE_KEY_FS_VIA, wire_text(via(a, PROBE_FS)));
	declaration_add_uint(d, WIRE_KEY_HEARTBEAT_MS, a->options->heartbeat_ms);
	declaration_add_uint(d, WIRE_KEY_QUEUE_CAPACITY, a->options->queue);
}

/* The first frame of a connection. What is queued already comes behind it, so next_seq is its. */
static void greet(struct agent *a)
{
	struct declaration d = telemetry(a, WIRE_TELEMETRY_HELLO);
	uint8_t frame[WIRE_FRAME_SEND_MAX];
	int n = 0;

	if (a->options->content_version >= WIRE_VERSION_2) {
		fill_hello(a, &d);
		declaration_add_uint(&d, WIRE_KEY_NEXT_SEQ, event_queue_wire_seq(a->queue));
		n = wire_encode(&d, frame, sizeof(frame));
	}
	announcement_changed(a);
	a->new_hello_due = false;
	channel_greet(&a->channel, frame, n > 0 ? (size_t)n : 0);
}

/* A source changed while connected: another hello of the same session, in its place in the queue.
 */
static void greet_again(struct agent *a)
{
	struct declaration d = telemetry(a, WIRE_TELEMETRY_HELLO);

	if (a->options->content_version < WIRE_VERSION_2) {
		a->new_hello_due = false;
		return;
	}
	fill_hello(a, &d);
	if (event_queue_put_telemetry(a->queue, &d) == 0)
		a->new_hello_due = false;
}

static uint64_t dropped_total(const struct event_queue_totals *t)
{
	return t->dropped[DROP_QUEUE_FULL] + t->dropped[DROP_TOO_LARGE] + t->dropped[DROP_CHANNEL];
}

static void add_totals(const struct agent *a, struct declaration *d)
{
	const struct event_queue_totals *t = event_queue_totals(a->queue);

	declaration_add_uint(d, WIRE_KEY_OBSERVED, t->observed);
	declaration_add_uint(d, WIRE_KEY_SENT, t->sent);
	declaration_add_uint(d, WIRE_KEY_DROPPED, dropped_total(t));
}

static void heartbeat(struct agent *a)
{
	struct declaration d = telemetry(a, WIRE_TELEMETRY_HEARTBEAT);

	for (int f = 0; f < _PROBE_FAMILY_MAX; f++) {
		struct probe *p = a->probes[f];
		bool ok = p && (!p->ops->check || p->ops->check(p, a->queue) > 0);

		if (f == PROBE_PROCESS)
			a->process_ok = ok;
	}
	/* What a check found out or began, a drain goes on with. */
	all_due(a);
	/* Without a connection nobody hears it, and it would only take room in the queue. */
	if (!channel_connected(&a->channel))
		return;
	add_totals(a, &d);
	declaration_add_uint(&d, WIRE_KEY_KERNEL_LOST,
			     event_queue_totals(a->queue)->dropped[DROP_KERNEL_OVERRUN]);
	declaration_add_uint(&d, WIRE_KEY_QUEUE_PEAK, event_queue_take_peak(a->queue));
	declaration_add_bool(&d, WIRE_KEY_PROCESS_OK, a->process_ok);
	/* When there is no room for it, the host is behind by a whole queue and knows we live. */
	event_queue_put_telemetry(a->queue, &d);
}

static void receipt(struct agent *a)
{
	struct declaration d = telemetry(a, WIRE_TELEMETRY_DROPPED);

	event_queue_put_receipt(a->queue, &d);
}

/* ---- the clock ---- */

static void tick(struct agent *a, uint64_t now_ns)
{
	if (a->ready && now_ns >= a->heartbeat_at_ns) {
		heartbeat(a);
		a->heartbeat_at_ns = now_ns + a->options->heartbeat_ms * NSEC_PER_MSEC;
	}
	if (event_queue_receipt_due(a->queue, now_ns))
		receipt(a);
	if (a->new_hello_due && a->channel.state == CHANNEL_OPEN)
		greet_again(a);
}

static void arm_timer_for(struct agent *a, uint64_t at_ns)
{
	/* Zero would disarm it; the past fires at once. */
	const uint64_t at = MAX(at_ns, UINT64_C(1));
	const struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(at / NSEC_PER_SEC),
			     .tv_nsec = (long)(at % NSEC_PER_SEC)},
	};

	/* Too early once costs a turn; set anew at each turn it costs a system call each. */
	if (a->timer_at_ns > 0 && a->timer_at_ns <= at)
		return;
	if (timerfd_settime(a->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
		a->timer_at_ns = at;
}

/* The timer is armed for the next thing due, so that an idle agent wakes for heartbeats only. */
static void arm_timer(struct agent *a, uint64_t now_ns)
{
	uint64_t next = a->ready ? a->heartbeat_at_ns : a->give_up_at_ns;

	if (a->channel.deadline_ns > 0)
		next = MIN(next, a->channel.deadline_ns);
	if (event_queue_receipt_pending(a->queue))
		next = MIN(next, now_ns + EVENT_QUEUE_RECEIPT_MS * NSEC_PER_MSEC);
	arm_timer_for(a, next);
}

/* ---- the channel ---- */

static void log_lost(const struct agent *a)
{
	const int error = a->channel.last_errno;

	log_notice("msg=\"connection lost\" address=%s why=\"%s\"", a->options->address_text,
		   error ? strerror(error) : "the host closed it");
}

static void turn_channel(struct agent *a, uint64_t now_ns, void (*on_ready)(void *), void *ctx)
{
	for (;;) {
		switch (channel_turn(&a->channel, a->queue, now_ns)) {
		case CHANNEL_NOTHING: return;
		case CHANNEL_CONNECTED: greet(a); break;
		case CHANNEL_READY:
			log_info("msg=\"connected\" address=%s session=%s",
				 a->options->address_text, a->session);
			if (!a->ready) {
				a->ready = true;
				a->heartbeat_at_ns =
					now_ns + a->options->heartbeat_ms * NSEC_PER_MSEC;
				begin_observing(a);
				on_ready(ctx);
			}
			break;
		case CHANNEL_LOST:
			log_lost(a);
			event_queue_connection_lost(a->queue);
			/* The connection was reset under us as a snapshot does it: a clone may go
			 * on with this session, so this one begins a new. */
			if (a->channel.reset && a->ready) {
				new_session_id(a);
				event_queue_new_session(a->queue);
			}
			break;
		}
	}
}

/* ---- what epoll names ---- */

static void take_signal(struct agent *a)
{
	struct signalfd_siginfo signal;

	while (read(a->signal_fd, &signal, sizeof(signal)) == sizeof(signal))
		a->terminated = true;
}

static void take_timer(struct agent *a)
{
	uint64_t expirations;

	a->timer_at_ns = 0;
	if (read(a->timer_fd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
		a->broken = true;
}

/* timeout in milliseconds; -1: for ever. */
static void sleep_until_something(struct agent *a, int timeout)
{
	struct epoll_event events[EPOLL_EVENTS];
	const int n = epoll_wait(a->epoll_fd, events, EPOLL_EVENTS, timeout);

	/* Interrupted, as by having been stopped: what happened meanwhile comes before the clock.
	 */
	if (n < 0)
		all_due(a);
	for (int i = 0; i < n; i++) {
		const void *tag = events[i].data.ptr;

		if (tag == &a->signal_fd)
			take_signal(a);
		else if (tag == &a->timer_fd)
			take_timer(a);
		else if (tag == &a->channel)
			a->channel.readable = events[i].events & ~(uint32_t)EPOLLOUT;
		for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
			if (tag == a->probes[f])
				a->due[f] = true;
	}
}

/* ---- start and end ---- */

/* Sends what is queued, until then at the latest. */
static void flush_queue(struct agent *a, uint64_t until_ns)
{
	uint64_t now_ns;

	while (a->channel.state == CHANNEL_OPEN && !event_queue_empty(a->queue) &&
	       (now_ns = monotonic_ns()) < until_ns) {
		if (channel_turn(&a->channel, a->queue, now_ns) == CHANNEL_LOST)
			break;
		if (!event_queue_empty(a->queue))
			sleep_until_something(a, 10);
	}
}

/* Sends meanwhile, so that the queue has room. What is not reached in time counts as lost. */
static void drain_to_the_end(struct agent *a, uint64_t until_ns)
{
	uint64_t now_ns;

	all_due(a);
	do {
		drain_sources(a);
		now_ns = monotonic_ns();
		if (a->channel.state == CHANNEL_OPEN)
			channel_turn(&a->channel, a->queue, now_ns);
	} while (any_due(a) && now_ns < until_ns);
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
		if (a->due[f])
			event_queue_kernel_lost(a->queue, (enum probe_family)f, 1);
}

static void say_bye(struct agent *a)
{
	struct declaration d = telemetry(a, WIRE_TELEMETRY_BYE);
	const uint64_t now_ns = monotonic_ns();
	const uint64_t until_ns = now_ns + BYE_FLUSH_MS * NSEC_PER_MSEC;

	/* What the sources hold still counts as observed, and as sent once it is. */
	drain_to_the_end(a, now_ns + BYE_DRAIN_MS * NSEC_PER_MSEC);
	if (event_queue_receipt_pending(a->queue))
		receipt(a);
	flush_queue(a, until_ns);
	declaration_add_text(&d, WIRE_KEY_REASON, wire_text("SIGTERM"));
	add_totals(a, &d);
	event_queue_put_telemetry(a->queue, &d);
	flush_queue(a, until_ns);
}

static void agent_done(struct agent *a)
{
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
		if (a->probes[f])
			a->probes[f]->ops->close(a->probes[f]);
	channel_close(&a->channel);
	event_queue_free(a->queue);
	close_fd(a->signal_fd);
	close_fd(a->timer_fd);
	close_fd(a->epoll_fd);
}

static int agent_init(struct agent *a, const struct options *options)
{
	sigset_t signals;
	int r;

	*a = (struct agent){
		.options = options,
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
		.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
		.signal_fd = -1,
		.channel = {.fd = -1},
		.process_ok = true,
	};
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	a->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (a->epoll_fd < 0 || a->timer_fd < 0 || a->signal_fd < 0)
		return -errno;
	r = watch(a, EPOLL_CTL_ADD, a->timer_fd, EPOLLIN, &a->timer_fd);
	if (r == 0)
		r = watch(a, EPOLL_CTL_ADD, a->signal_fd, EPOLLIN, &a->signal_fd);
	if (r < 0)
		return r;
	a->queue = event_queue_new(options->queue, (uint16_t)options->content_version);
	if (!a->queue)
		return -ENOMEM;
	uname(&a->uts);
	r = proc_read_file("/proc/sys/kernel/random/boot_id", a->boot_id, BOOT_ID_SIZE);
	a->boot_id[MAX(r, 0)] = '\0';
	new_session_id(a);
	channel_init(&a->channel, &options->address, a->epoll_fd);
	return 0;
}

static void log_not_ready(const struct agent *a)
{
	const int error = a->channel.last_errno;

	log_error("msg=\"not ready in time: no channel to the host\" address=%s timeout_ms=%u "
		  "why=\"%s\"",
		  a->options->address_text, a->options->ready_timeout_ms,
		  a->channel.state == CHANNEL_CONNECTING ? "the connect was not answered"
		  : error				 ? strerror(error)
							 : "the host closed the connection");
}

/* Returns the exit status, or -1 to go on. */
static int turn(struct agent *a, void (*on_ready)(void *), void *ctx)
{
	uint64_t now_ns;

	sleep_until_something(a, any_due(a) ? 0 : -1);
	if (a->broken)
		return EXIT_NOT_READY;
	if (a->terminated) {
		say_bye(a);
		return EXIT_SUCCESS;
	}
	/* Before it is ready nothing is reported: what queues up in the sources waits there. */
	if (a->ready)
		drain_sources(a);
	now_ns = monotonic_ns();
	tick(a, now_ns);
	turn_channel(a, now_ns, on_ready, ctx);
	if (!a->ready && now_ns >= a->give_up_at_ns) {
		log_not_ready(a);
		return EXIT_NOT_READY;
	}
	arm_timer(a, now_ns);
	return -1;
}

int agent_run(const struct options *options, void (*on_ready)(void *ctx), void *ctx)
{
	struct agent a;
	char why[HARDEN_WHY_MAX];
	int r = agent_init(&a, options), status = -1;

	if (r < 0) {
		log_error("msg=\"cannot start\" errno=%d why=\"%s\"", -r, strerror(-r));
		agent_done(&a);
		return EXIT_NOT_READY;
	}
	for (int f = 0; f < _PROBE_FAMILY_MAX && r == 0; f++)
		r = open_family(&a, (enum probe_family)f, probe_table);
	if (r < 0) {
		agent_done(&a);
		return EXIT_NOT_READY;
	}
	r = harden((const struct probe *const *)a.probes, _PROBE_FAMILY_MAX, why);
	if (r < 0)
		log_warning("msg=\"cannot harden the agent wholly\" why=\"%s\"", why);
	a.give_up_at_ns = monotonic_ns() + options->ready_timeout_ms * NSEC_PER_MSEC;
	/* The first turn connects: nothing else would wake it. */
	arm_timer_for(&a, 1);
	while (status < 0)
		status = turn(&a, on_ready, ctx);
	agent_done(&a);
	return status;
}

int agent_probe(const struct options *options)
{
	static const char *const families[] = {
		[PROBE_PROCESS] = "process",
		[PROBE_NET] = "net",
		[PROBE_CAPABILITY] = "capability",
		[PROBE_FS] = "fs",
	};

	for (const struct probe_ops *const *p = probe_table; *p; p++) {
		char why[PROBE_WHY_MAX] = "";
		struct probe *probe = NULL;
		int r = (*p)->open(&options->probes, &probe, why);

		if (r == 0)
			(*p)->close(probe);
		if (r == 0)
			printf("%-10s %-14s available: %s; misses: %s%s\n", families[(*p)->family],
			       (*p)->via, (*p)->uses, (*p)->misses,
			       (*p)->opt_in ? "; only when asked for" : "");
		else
			printf("%-10s %-14s not available: %s (%s)\n", families[(*p)->family],
			       (*p)->via, why, strerror(-r));
	}
	return EXIT_SUCCESS;
}
