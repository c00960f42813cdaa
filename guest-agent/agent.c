/* SPDX-License-Identifier: MIT */
/*
 * The loop. The order of a turn:
 *
 *   1. sleep until a source, the channel, a signal or the next deadline
 *   2. drain the sources that have something, each within its budget of events and of time;
 *      callers wait for the capability source's answers, so it is first
 *   3. what is due by the clock: heartbeat, loss receipt, folded repeats, the end of a session
 *   4. the channel: connect, greet, read what is settled, send what the queue holds
 *
 * A source that has more left keeps the loop from sleeping, so none starves another. A turn makes
 * no system call for what epoll did not name.
 */
#include "guest-agent/agent.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "common/log.h"
#include "common/util.h"
#include "guest-agent/channel.h"
#include "guest-agent/delivery.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/families.h"
#include "guest-agent/harden.h"
#include "guest-agent/probes/proc_facts.h"
#include "guest-agent/telemetry.h"
#include "guest-agent/turn_watch.h"

#define BYE_FLUSH_MS  500u
#define BYE_DRAIN_MS  250u /* of those, to drain the sources */
#define BYE_SETTLE_MS 500u /* for the bye to be sent and acknowledged */
#define BYE_STEPS_MIN 25u  /* of serve_channel(), if the guest gets no processor */
#define BYE_STEP_MS   10
#define EPOLL_EVENTS  16

struct agent {
	const struct options *options; /* borrowed */
	int epoll_fd, timer_fd, signal_fd;
	struct event_queue *queue;
	struct families families;
	struct delivery delivery;
	struct channel channel;
	struct telemetry telemetry;
	bool ready, new_hello_due, terminated, broken;
	uint64_t heartbeat_at_ns, give_up_at_ns;
	uint64_t timer_at_ns; /* what the timer is armed for; 0: it is not */
	uint64_t taken;	      /* bytes that the host had taken at the last check */
	/* For the last line of the log. */
	struct turn_watch watch;
	uint64_t heartbeat_late_ns;
};

static int watch(struct agent *a, int fd, void *tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

	return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* ---- telemetry frames ---- */

static void fill_hello(struct agent *a, const struct delivery_greeting *greeting,
		       struct declaration *d)
{
	const char *via[_PROBE_FAMILY_MAX];

	families_via(&a->families, via);
	telemetry_hello(&a->telemetry, greeting, via, d);
	families_news(&a->families);
	a->new_hello_due = false;
}

/* The first frame of a connection. */
static void greet(struct agent *a, uint64_t now_ns)
{
	const struct delivery_greeting greeting = delivery_connected(&a->delivery, now_ns);
	uint8_t frame[WIRE_FRAME_SEND_MAX];
	struct declaration d;
	int n = 0;

	a->taken = 0;
	a->channel.progress_only = a->delivery.mode == DELIVERY_ACKNOWLEDGED;
	if (a->options->content_version >= WIRE_VERSION_2) {
		fill_hello(a, &greeting, &d);
		declaration_add_uint(&d, WIRE_KEY_NEXT_SEQ, greeting.next_seq);
		n = wire_encode(&d, frame, sizeof(frame));
	}
	channel_greet(&a->channel, frame, n > 0 ? (size_t)n : 0);
}

/* The sources that hello names have changed: queue another hello of the same session. */
static void greet_again(struct agent *a)
{
	const struct delivery_greeting greeting = delivery_greeting(&a->delivery);
	struct declaration d;

	a->new_hello_due = false;
	if (a->options->content_version < WIRE_VERSION_2)
		return;
	fill_hello(a, &greeting, &d);
	if (event_queue_put_telemetry(a->queue, &d) < 0)
		a->new_hello_due = true;
}

/* Between connections they are not sent; they would only fill the queue. */
static bool telemetry_is_read(const struct agent *a)
{
	return a->channel.state == CHANNEL_OPEN && !a->delivery.finishing;
}

static void heartbeat(struct agent *a)
{
	const bool process_ok = families_check(&a->families);
	struct declaration d;

	facts_tend();
	if (!telemetry_is_read(a))
		return;
	telemetry_heartbeat(&a->telemetry, event_queue_totals(a->queue),
			    event_queue_take_peak(a->queue), process_ok, &d);
	/*
	 * If there is no room for it, a whole queue is on its way to the host, which shows that the
	 * agent lives.
	 */
	event_queue_put_telemetry(a->queue, &d);
}

static void receipt(struct agent *a)
{
	struct declaration d;

	telemetry_receipt(&a->telemetry, &d);
	event_queue_put_receipt(a->queue, &d);
}

/* ---- delivery ---- */

static void follow(struct agent *a, enum delivery_verdict verdict, uint64_t now_ns)
{
	switch (verdict) {
	case DELIVERY_GO_ON: break;
	case DELIVERY_PROGRESSED: channel_progress(&a->channel); break;
	case DELIVERY_SAY_SO: a->new_hello_due = true; break;
	case DELIVERY_RECONNECT:
		log_notice("msg=\"new session\" session=%s", a->delivery.session);
		channel_reconnect(&a->channel, now_ns);
		break;
	}
	a->channel.progress_only = a->delivery.mode == DELIVERY_ACKNOWLEDGED;
}

/* ---- the clock ---- */

static void tick(struct agent *a, uint64_t now_ns)
{
	const uint64_t folded_ns = event_queue_folded_ns(a->queue);

	if (a->ready && now_ns >= a->heartbeat_at_ns) {
		a->heartbeat_late_ns = MAX(a->heartbeat_late_ns, now_ns - a->heartbeat_at_ns);
		heartbeat(a);
		a->heartbeat_at_ns = now_ns + a->options->heartbeat_ms * NSEC_PER_MSEC;
	}
	if (folded_ns > 0 && now_ns >= folded_ns)
		event_queue_flush_folded(a->queue, now_ns);
	if (event_queue_receipt_due(a->queue, now_ns))
		receipt(a);
	follow(a, delivery_tick(&a->delivery, now_ns), now_ns);
	if (a->new_hello_due && telemetry_is_read(a))
		greet_again(a);
}

static void arm_timer_for(struct agent *a, uint64_t at_ns)
{
	/* Zero would disarm the timer; a time in the past fires at once. */
	const uint64_t at = MAX(at_ns, UINT64_C(1));
	const struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(at / NSEC_PER_SEC),
			     .tv_nsec = (long)(at % NSEC_PER_SEC)},
	};

	/*
	 * A timer that fires too early costs one turn; setting it anew in each turn costs a system
	 * call each.
	 */
	if (a->timer_at_ns > 0 && a->timer_at_ns <= at)
		return;
	if (timerfd_settime(a->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
		a->timer_at_ns = at;
}

/* The timer is armed for the next thing due, so that an idle agent wakes for heartbeats only. */
static void arm_timer(struct agent *a, uint64_t now_ns)
{
	const uint64_t deadlines[] = {
		a->channel.deadline_ns,
		delivery_deadline_ns(&a->delivery),
		event_queue_folded_ns(a->queue),
	};
	uint64_t next = a->ready ? a->heartbeat_at_ns : a->give_up_at_ns;

	for (size_t i = 0; i < ARRAY_SIZE(deadlines); i++)
		if (deadlines[i] > 0)
			next = MIN(next, deadlines[i]);
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

static void greeted(struct agent *a, uint64_t now_ns)
{
	log_info("msg=\"connected\" address=%s session=%s", a->options->address_text,
		 a->delivery.session);
	if (a->ready)
		return;
	a->ready = true;
	a->heartbeat_at_ns = now_ns + a->options->heartbeat_ms * NSEC_PER_MSEC;
	families_observe(&a->families);
}

static void turn_channel(struct agent *a, uint64_t now_ns)
{
	enum channel_event event;

	while ((event = channel_turn(&a->channel, a->queue, now_ns)) != CHANNEL_NOTHING) {
		switch (event) {
		case CHANNEL_CONNECTED: greet(a, now_ns); break;
		case CHANNEL_READY: greeted(a, now_ns); break;
		case CHANNEL_SETTLED:
			follow(a, delivery_settled(&a->delivery, a->channel.settled, now_ns),
			       now_ns);
			break;
		case CHANNEL_LOST:
			log_lost(a);
			delivery_lost(&a->delivery, a->channel.reset);
			break;
		case CHANNEL_NOTHING: break;
		}
	}
	if (a->channel.taken != a->taken && a->channel.state == CHANNEL_OPEN)
		follow(a, delivery_taken(&a->delivery, now_ns), now_ns);
	a->taken = a->channel.taken;
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

	turn_watch_begin(&a->watch);
	/*
	 * A signal interrupted it, or the agent was stopped: events of that time come before the
	 * clock.
	 */
	if (n < 0)
		families_all_due(&a->families);
	for (int i = 0; i < n; i++) {
		const void *tag = events[i].data.ptr;

		if (tag == &a->signal_fd)
			take_signal(a);
		else if (tag == &a->timer_fd)
			take_timer(a);
		else if (tag == &a->channel)
			a->channel.readable = events[i].events & ~(uint32_t)EPOLLOUT;
		else
			families_ready(&a->families, tag);
	}
}

/* ---- start and end ---- */

static bool is_open(const struct agent *a)
{
	return a->channel.state == CHANNEL_OPEN;
}

/*
 * Serve only the channel while the condition holds: until the time, and for BYE_STEPS_MIN steps
 * whatever the clock says: if the guest gets no processor, the host would still take the rest.
 */
static void serve_channel(struct agent *a, bool (*wanted)(const struct agent *), uint64_t until_ns)
{
	for (unsigned step = 0; is_open(a); step++) {
		const uint64_t now_ns = monotonic_ns();

		turn_channel(a, now_ns);
		if (!wanted(a) || (step >= BYE_STEPS_MIN && now_ns >= until_ns))
			break;
		sleep_until_something(a, BYE_STEP_MS);
	}
}

static bool has_unsent(const struct agent *a)
{
	return !event_queue_all_sent(a->queue);
}

static bool has_unfinished(const struct agent *a)
{
	return has_unsent(a) || delivery_awaits(&a->delivery);
}

/*
 * The channel sends meanwhile, so that the queue has room. Events that are not reported in time
 * count as lost.
 */
static void drain_to_the_end(struct agent *a, uint64_t until_ns)
{
	uint64_t now_ns;

	families_all_due(&a->families);
	do {
		families_drain(&a->families, &a->watch);
		now_ns = monotonic_ns();
		if (is_open(a))
			turn_channel(a, now_ns);
	} while (families_any_due(&a->families) && now_ns < until_ns);
	families_flush(&a->families);
	event_queue_flush_folded(a->queue, UINT64_MAX);
}

static void say_bye(struct agent *a)
{
	const uint64_t now_ns = monotonic_ns();
	const uint64_t until_ns = now_ns + BYE_FLUSH_MS * NSEC_PER_MSEC;
	struct declaration d;

	/*
	 * Observations that the sources still hold count as observed, and as sent when they are
	 * sent.
	 */
	drain_to_the_end(a, now_ns + BYE_DRAIN_MS * NSEC_PER_MSEC);
	if (event_queue_receipt_pending(a->queue))
		receipt(a);
	serve_channel(a, has_unsent, until_ns);
	telemetry_bye(&a->telemetry, event_queue_totals(a->queue), "SIGTERM", &d);
	event_queue_put_telemetry(a->queue, &d);
	serve_channel(a, has_unfinished, monotonic_ns() + BYE_SETTLE_MS * NSEC_PER_MSEC);
}

static void agent_done(struct agent *a)
{
	families_close(&a->families);
	facts_close();
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
		.watch = {.longest_in = "none"},
	};
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	a->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (a->epoll_fd < 0 || a->timer_fd < 0 || a->signal_fd < 0)
		return -errno;
	r = watch(a, a->timer_fd, &a->timer_fd);
	if (r == 0)
		r = watch(a, a->signal_fd, &a->signal_fd);
	if (r < 0)
		return r;
	a->queue = event_queue_new(options->queue, (uint16_t)options->content_version);
	if (!a->queue)
		return -ENOMEM;
	if (!facts_open())
		log_warning("msg=\"no reader process: the loop reads stat and status itself\"");
	families_init(&a->families, options, a->queue, a->epoll_fd);
	telemetry_init(&a->telemetry, options);
	delivery_init(&a->delivery, a->queue, (uint16_t)options->content_version);
	channel_init(&a->channel, &options->address, a->epoll_fd);
	return 0;
}

static void log_not_ready(const struct agent *a)
{
	const int error = a->channel.last_errno;

	log_error("msg=\"not ready in time: no channel to the host\" address=%s timeout_ms=%u "
		  "why=\"%s\"",
		  a->options->address_text, a->options->ready_timeout_ms,
		  error					   ? strerror(error)
		  : a->channel.state == CHANNEL_CONNECTING ? "the connect was not answered"
							   : "the host closed the connection");
}

static void log_end(const struct agent *a)
{
	const struct event_queue_totals *t = event_queue_totals(a->queue);

	const struct turn_watch *w = &a->watch;

	log_info("msg=\"ended\" observed=%" PRIu64 " sent=%" PRIu64 " longest_turn_us=%" PRIu64
		 " longest_turn_in=%s longest_turn_cpu_us=%" PRIu64 " turn_cpu_us=%" PRIu64
		 " heartbeat_late_us=%" PRIu64,
		 t->observed, t->sent, w->longest_ns / NSEC_PER_USEC, w->longest_in,
		 w->longest_cpu_ns / NSEC_PER_USEC, w->most_cpu_ns / NSEC_PER_USEC,
		 a->heartbeat_late_ns / NSEC_PER_USEC);
}

/* Returns the exit status, or -1 to go on. */
static int turn(struct agent *a, void (*on_ready)(void *), void *ctx)
{
	const bool was_ready = a->ready;
	uint64_t now_ns;

	sleep_until_something(a, families_any_due(&a->families) ? 0 : -1);
	if (a->broken)
		return EXIT_NOT_READY;
	if (a->terminated) {
		say_bye(a);
		log_end(a);
		return EXIT_SUCCESS;
	}
	/* Before the agent is ready nothing is drained: events wait in the sources. */
	if (a->ready) {
		families_drain(&a->families, &a->watch);
		a->new_hello_due |= families_news(&a->families);
	}
	now_ns = monotonic_ns();
	tick(a, now_ns);
	turn_watch_part(&a->watch, "clock");
	turn_channel(a, now_ns);
	turn_watch_part(&a->watch, "channel");
	if (a->ready && !was_ready)
		on_ready(ctx);
	if (!a->ready && now_ns >= a->give_up_at_ns) {
		log_not_ready(a);
		return EXIT_NOT_READY;
	}
	arm_timer(a, now_ns);
	turn_watch_end(&a->watch);
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
	if (families_open(&a.families) < 0) {
		agent_done(&a);
		return EXIT_NOT_READY;
	}
	r = harden((const struct probe *const *)a.families.probes, _PROBE_FAMILY_MAX, why);
	if (r < 0)
		log_warning("msg=\"cannot harden the agent wholly\" why=\"%s\"", why);
	a.give_up_at_ns = monotonic_ns() + options->ready_timeout_ms * NSEC_PER_MSEC;
	/* The first turn connects; no event would start it. */
	arm_timer_for(&a, 1);
	while (status < 0)
		status = turn(&a, on_ready, ctx);
	agent_done(&a);
	return status;
}
