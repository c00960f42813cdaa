/* SPDX-License-Identifier: MIT */
/*
 * Processes by the kernel's process connector: fork, exec and exit as they happen. Threads are
 * counted, not reported. Every loss is noticed: each CPU numbers its events, and the socket counts
 * the messages that it had no room for. process_tracker.h gives the events their meaning, and
 * repairs its table after a loss.
 *
 * The kernel ignores a listener outside the first pid namespace, and it keeps one count of all
 * listeners, which others can lower: before 6.6 with CAP_NET_ADMIN, from then on without. So a
 * child that ends at once is forked now and then, and must be seen to end.
 *
 * To wake for each of a process's events would cost the workload more than the events: only an exec
 * cannot wait, because /proc must be read while the process lives. So while there is something to
 * do the events' socket does not wake the agent; a second one that lets pass nothing but execs, the
 * bell, and a tick do. Whenever it wakes it reads all events, in their order.
 *
 * Single-threaded; allocates in open() only.
 */
#include <arpa/inet.h>
#include <linux/capability.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/netlink.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/process_tracker.h"
#include "guest-agent/probes/process_view.h"
#include "guest-agent/probes/sources.h"

#define RECEIVE_BUFFER	(8 << 20) /* of which the kernel takes double: some 18000 events */
#define BELL_BUFFER	(64 << 10)
#define BATCH		32u   /* datagrams a recvmmsg(2) */
#define DATAGRAM_MAX	512u  /* one event is 76 bytes */
#define CPUS_MAX	1024u /* beyond: the socket's own count of drops only */
#define SELF_TEST_NS	(30 * NSEC_PER_SEC)
#define ANSWER_MS	500
#define SELF_TEST_READS 32768u /* more than fit into the buffer */
#define TICK_MS		10     /* how long an event but an exec may wait under load */
#define CHECK_TURNS	8u
#define CHECK_BUDGET	256u
#define CATCH_UP_BUDGET 256u
#define DRAIN_NS	(2 * NSEC_PER_MSEC)
#define LISTENS_MAX	256u /* of one failed self-test */

struct connector {
	struct probe probe; /* its fd: an epoll of the following */
	const struct probe_config *config;
	struct process_tracker tracker;
	int events_fd; /* every event; wakes unless busy */
	int bell_fd;   /* execs only, thrown away; -1: none, and events_fd always wakes */
	int tick_fd;   /* a timer, armed while busy */
	bool busy;

	uint32_t next_seq[CPUS_MAX];
	bool seen_cpu[CPUS_MAX];
	uint64_t gaps;	   /* by sequence */
	uint64_t drops;	   /* by the socket */
	uint32_t drops_at; /* its counter, as last read */
	uint64_t lost;	   /* reported to the queue: the larger of the two, never both */
	uint64_t malformed;
	uint64_t empty_ns; /* when the socket was last found empty */

	pid_t canary; /* 0: none */
	bool canary_seen;
	bool healthy;
	uint64_t canary_ns;
	uint64_t canary_lost; /* lost when it was forked */
	unsigned listens;     /* how often to say LISTEN when the next self-test fails */

	struct mmsghdr msgs[BATCH];
	struct iovec iovs[BATCH];
	struct sockaddr_nl names[BATCH];
	_Alignas(8) uint8_t bufs[BATCH][DATAGRAM_MAX];
};

static int connector_send(int fd, enum proc_cn_mcast_op op, uint32_t ack)
{
	const struct cn_msg cn = {.id = {.idx = CN_IDX_PROC, .val = CN_VAL_PROC},
				  .ack = ack,
				  .len = sizeof(uint32_t)};
	const uint32_t what = op;
	_Alignas(8) uint8_t m[NLMSG_HDRLEN + sizeof(cn) + sizeof(what)];
	const struct nlmsghdr nl = {.nlmsg_len = sizeof(m), .nlmsg_type = NLMSG_DONE};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	memcpy(m, &nl, sizeof(nl));
	memcpy(m + NLMSG_HDRLEN, &cn, sizeof(cn));
	memcpy(m + NLMSG_HDRLEN + sizeof(cn), &what, sizeof(what));
	if (sendto(fd, m, sizeof(m), MSG_NOSIGNAL, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return 0;
}

/* A child that ends at once and raises no SIGCHLD. Returns its pid or a negative errno. */
static pid_t canary_fork(void)
{
	long pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(0);
	return (pid_t)pid;
}

/* False while it has not ended yet. */
static bool canary_reap(pid_t pid, int flags)
{
	pid_t r;

	do
		r = waitpid(pid, NULL, __WALL | flags);
	while (r < 0 && errno == EINTR);
	return r != 0;
}

/* Loss. */

/*
 * The socket's count tells at once how many it dropped; the sequence tells it with the next event
 * of the CPU, and tells also what the kernel had no memory for. Each loss is in at least one of the
 * two, and most are in both.
 */
static void account_loss(struct connector *c, struct event_queue *q)
{
	uint64_t lost = MAX(c->gaps, c->drops);

	if (lost <= c->lost)
		return;
	event_queue_kernel_lost(q, PROBE_PROCESS, lost - c->lost);
	c->lost = lost;
	process_tracker_repair(&c->tracker, q);
}

static void read_drops(struct connector *c)
{
	uint32_t drops;

	if (netlink_drops(c->events_fd, &drops) < 0)
		return;
	c->drops += drops - c->drops_at;
	c->drops_at = drops;
}

static void check_seq(struct connector *c, const struct connector_event *ev)
{
	uint32_t gap;

	if (ev->cpu >= CPUS_MAX)
		return;
	gap = ev->seq - c->next_seq[ev->cpu];
	/* A number that goes back is a counter that started again (a restored machine). */
	if (c->seen_cpu[ev->cpu] && gap && gap < UINT32_C(1) << 31)
		c->gaps += gap;
	c->seen_cpu[ev->cpu] = true;
	c->next_seq[ev->cpu] = ev->seq + 1;
}

/* The source. */

static void handle(struct connector *c, struct event_queue *q, const struct nlmsghdr *h)
{
	struct connector_event ev;

	if (connector_parse(h, &ev) < 0) {
		c->malformed++;
		return;
	}
	check_seq(c, &ev);
	if (ev.kind == CONNECTOR_EXIT && ev.tid == c->canary)
		c->canary_seen = true;
	process_tracker_event(&c->tracker, q, &ev);
}

/* Once is enough: netlink addresses have one length, so recvmmsg(2) changes none of it. */
static void prepare_messages(struct connector *c)
{
	for (unsigned i = 0; i < BATCH; i++) {
		c->iovs[i] = (struct iovec){.iov_base = c->bufs[i], .iov_len = sizeof(c->bufs[i])};
		c->msgs[i].msg_hdr = (struct msghdr){.msg_name = &c->names[i],
						     .msg_namelen = sizeof(c->names[i]),
						     .msg_iov = &c->iovs[i],
						     .msg_iovlen = 1};
	}
}

/* Whether it rang. Its messages come by the other socket, too. */
static bool take_bell(struct connector *c)
{
	bool rang = false;
	int n = (int)BATCH;

	if (c->bell_fd < 0)
		return false;
	for (unsigned i = 0; i < BATCH && n == (int)BATCH; i++) {
		n = recvmmsg(c->bell_fd, c->msgs, BATCH, MSG_DONTWAIT, NULL);
		rang |= n > 0 || (n < 0 && errno != EAGAIN);
	}
	return rang;
}

static void set_busy(struct connector *c, bool busy)
{
	const struct timespec period = {.tv_nsec = busy ? TICK_MS * (long)NSEC_PER_MSEC : 0};
	const struct itimerspec spec = {.it_interval = period, .it_value = period};
	struct epoll_event ev = {.events = busy ? 0 : EPOLLIN};

	/* In an order that leaves it awake rather than asleep if one of them fails. */
	if (timerfd_settime(c->tick_fd, 0, &spec, NULL) == 0 &&
	    epoll_ctl(c->probe.fd, EPOLL_CTL_MOD, c->events_fd, &ev) == 0)
		c->busy = busy;
}

static struct connector *current; /* the open one; connector_open() and _close() set it */

static struct {
	void (*note)(void *ctx); /* NULL: nobody wants it */
	void *ctx;
} view_callback;

void process_view_notify(void (*note)(void *ctx), void *ctx)
{
	view_callback.note = note;
	view_callback.ctx = ctx;
}

static void notify(unsigned done)
{
	if (done > 0 && view_callback.note)
		view_callback.note(view_callback.ctx);
}

/* What wakes the agent next, after done events were read. */
static void pace(struct connector *c, bool rang, unsigned done)
{
	uint64_t ticks;

	if (c->bell_fd < 0)
		return;
	if (!c->busy && done > 0)
		set_busy(c, true);
	else if (!rang && read(c->tick_fd, &ticks, sizeof(ticks)) > 0 && c->busy && done == 0 &&
		 c->tracker.holds->n == 0)
		set_busy(c, false);
}

static void found_empty(struct connector *c, uint64_t at_ns)
{
	c->empty_ns = at_ns;
	c->tracker.behind_ns = 0;
}

static int drain_events(struct connector *c, struct event_queue *q, unsigned budget,
			unsigned *ret_done)
{
	const uint64_t until_ns = monotonic_ns() + DRAIN_NS;
	unsigned done = 0;

	*ret_done = 0;
	while (done < budget) {
		const unsigned wanted = MIN(BATCH, budget - done);
		const uint64_t asked_ns = monotonic_ns();
		int n;

		n = recvmmsg(c->events_fd, c->msgs, wanted, MSG_DONTWAIT, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			found_empty(c, asked_ns);
			break;
		}
		if (n < 0 && errno == ENOBUFS) {
			read_drops(c);
			account_loss(c, q);
			continue;
		}
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct netlink_walk walk = {.data = c->bufs[i], .left = c->msgs[i].msg_len};
			const struct nlmsghdr *h;

			done++;
			/* Only the kernel's messages count: any process with CAP_NET_ADMIN can
			 * send to the group. */
			if (c->names[i].nl_pid != 0)
				continue;
			while ((h = netlink_next(&walk)))
				handle(c, q, h);
		}
		*ret_done = done;
		account_loss(c, q);
		/* That was all; only a repair asks the socket itself. */
		if ((unsigned)n < wanted && c->tracker.state == TRACKER_STEADY) {
			found_empty(c, asked_ns);
			return 0;
		}
		if (monotonic_ns() >= until_ns)
			budget = done;
	}
	if (done >= budget) {
		if (!c->tracker.behind_ns)
			c->tracker.behind_ns = monotonic_ns();
		return 1;
	}
	return process_tracker_turn(&c->tracker, q, budget);
}

static int connector_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct connector *c = (struct connector *)probe;
	const bool rang = take_bell(c);
	unsigned done;
	int r = drain_events(c, q, budget, &done);

	notify(done);
	process_tracker_take(&c->tracker);
	process_tracker_settle(&c->tracker, q, monotonic_ns(), c->empty_ns);
	pace(c, rang, done);
	return r;
}

static void connector_flush(struct probe *probe, struct event_queue *q)
{
	process_tracker_flush(&((struct connector *)probe)->tracker, q);
}

/* What the other sources ask: process_view.h. */

void process_view_catch_up(struct event_queue *q)
{
	unsigned done;

	if (!current)
		return;
	drain_events(current, q, CATCH_UP_BUDGET, &done);
	notify(done);
	process_tracker_take(&current->tracker);
	process_tracker_settle(&current->tracker, q, monotonic_ns(), current->empty_ns);
	/* The timer ends the holds that began here. */
	if (current->bell_fd >= 0 && !current->busy && current->tracker.holds->n > 0)
		set_busy(current, true);
}

/* The timer ends the hold that an answer waits for. */
static enum exe_answer answered(enum exe_answer r)
{
	if (r == EXE_WAIT && !current->busy && current->tracker.holds->n > 0)
		set_busy(current, true);
	return r;
}

enum exe_answer process_view_exe(struct event_queue *q, pid_t pid, uint64_t at_ns,
				 const char **ret_exe, size_t *ret_len)
{
	if (!current)
		return EXE_UNKNOWN;
	/* Events may be queued that are older than the question. */
	if (current->empty_ns < at_ns)
		return EXE_WAIT;
	return answered(process_tracker_exe(&current->tracker, q, pid, at_ns, ret_exe, ret_len));
}

enum exe_answer process_view_exe_between(struct event_queue *q, pid_t pid, uint64_t since_ns,
					 uint64_t until_ns, const char **ret_exe, size_t *ret_len)
{
	if (!current)
		return EXE_UNKNOWN;
	if (current->empty_ns < until_ns)
		return EXE_WAIT;
	return answered(
		process_tracker_exe_since(&current->tracker, q, pid, since_ns, ret_exe, ret_len));
}

bool process_view_same_user(struct event_queue *q, pid_t pid, uint64_t since_ns)
{
	const struct pid_entry *e;

	process_view_catch_up(q);
	e = current ? pid_table_find(current->tracker.table, pid) : NULL;
	return !e || e->user_ns < since_ns;
}

int process_view_comm(pid_t pid, char ret_comm[static PROC_COMM_MAX])
{
	int n = current ? process_tracker_comm(&current->tracker, pid, ret_comm) : 0;

	if (n == 0)
		n = proc_read_comm(pid, ret_comm);
	return MAX(n, 0);
}

/*
 * Raise the kernel's count of listeners. Before Linux 6.6 each LISTEN adds one, from then on only
 * the first of a socket. Closing the socket takes nothing back. Somebody may have lowered the count
 * by many, so the next failed test adds twice as many.
 */
static void listen_again(struct connector *c)
{
	for (unsigned i = 0; i < c->listens; i++) {
		const char *step;
		_cleanup_close_ int fd =
			netlink_open(NETLINK_CONNECTOR, CN_IDX_PROC, BELL_BUFFER, &step);

		if (fd < 0 || connector_send(fd, PROC_CN_MCAST_LISTEN, 0) < 0)
			break;
	}
	c->listens = MIN(2 * c->listens, LISTENS_MAX);
}

static int connector_check(struct probe *probe, struct event_queue *q)
{
	struct connector *c = (struct connector *)probe;
	struct pollfd pfd = {.fd = c->events_fd, .events = POLLIN};
	uint64_t now = monotonic_ns();
	bool empty;

	read_drops(c);
	account_loss(c, q);
	/* The last threads' ends may wait to be read. */
	empty = poll(&pfd, 1, 0) == 0;
	if (empty)
		process_tracker_check(&c->tracker, q);
	exec_reader_tend(&c->tracker.reader);

	/* No verdict before it has ended, nor while what may tell of it waits to be read. */
	if (c->canary && canary_reap(c->canary, WNOHANG) && (c->canary_seen || empty)) {
		if (c->canary_seen) {
			c->healthy = true;
			c->listens = 1;
		} else if (c->lost == c->canary_lost) {
			/* Neither seen nor lost: somebody silenced the connector. What happened
			 * meanwhile has no number, but /proc can still tell the most of it. */
			c->healthy = false;
			listen_again(c);
			process_tracker_repair(&c->tracker, q);
		}
		c->canary = 0;
	}
	if (!c->canary && (!c->canary_seen || now - c->canary_ns >= SELF_TEST_NS)) {
		pid_t pid = canary_fork();

		if (pid > 0) {
			c->canary = pid;
			c->canary_seen = false;
			c->canary_ns = now;
			c->canary_lost = c->lost;
		} else {
			/* A source that cannot be tested has not passed its test. */
			c->healthy = false;
		}
	}
	/* A silenced connector gives no reason to drain, and a repair must not wait for one. */
	for (unsigned i = 0; empty && i < CHECK_TURNS; i++)
		if (!process_tracker_turn(&c->tracker, q, CHECK_BUDGET))
			break;
	return c->healthy;
}

struct self_test {
	int fd; /* borrowed */
	uint32_t token;
	pid_t canary;
	bool acked, seen; /* the kernel's answer; the report of the canary's end */
	bool ended;	  /* the canary, as its parent sees it */
};

/*
 * Read until both were seen, or nothing more comes. On a slow machine the canary may end late, so
 * the time for its report begins when it has ended: the kernel sends it after the parent can see
 * the end. Returns 0, or the error of the kernel's answer.
 */
static int self_test_read(struct self_test *self)
{
	uint64_t deadline = monotonic_ns() + ANSWER_MS * NSEC_PER_MSEC;
	int r = 0;

	for (unsigned i = 0; i < SELF_TEST_READS && !(self->acked && self->seen); i++) {
		_Alignas(8) uint8_t buf[DATAGRAM_MAX];
		struct pollfd pfd = {.fd = self->fd, .events = POLLIN};
		const uint64_t now = monotonic_ns();
		const uint64_t left_ms = now < deadline ? (deadline - now) / NSEC_PER_MSEC + 1 : 0;
		struct netlink_walk walk;
		const struct nlmsghdr *h;
		ssize_t n;

		/* What has come is read, even if this process was stopped until too late. */
		if (poll(&pfd, 1, (int)left_ms) == 0) {
			if (!self->acked || self->ended)
				break;
			canary_reap(self->canary, 0);
			self->ended = true;
			deadline = monotonic_ns() + ANSWER_MS * NSEC_PER_MSEC;
			continue;
		}
		n = recv(self->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0)
			continue;
		walk = (struct netlink_walk){.data = buf, .left = (size_t)n};
		while ((h = netlink_next(&walk))) {
			struct connector_event ev;

			if (connector_parse(h, &ev) < 0)
				continue;
			if (ev.kind == CONNECTOR_ACK && ev.ack == self->token + 1) {
				r = -(int)ev.ack_error;
				self->acked = true;
			}
			self->seen |= ev.kind == CONNECTOR_EXIT && ev.tid == self->canary;
		}
		if (r < 0)
			break;
	}
	return r;
}

/*
 * Test whether events arrive, on a socket of its own: events on the source's socket belong to
 * drain(). Returns 0, or a negative errno with the reason in why.
 */
static int self_test(char why[PROBE_WHY_MAX])
{
	struct self_test self = {.token = (uint32_t)getpid()};
	_cleanup_close_ int fd = -1;
	const char *step;
	int r;

	fd = netlink_open(NETLINK_CONNECTOR, CN_IDX_PROC, RECEIVE_BUFFER, &step);
	if (fd < 0) {
		snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-fd));
		return fd;
	}
	r = connector_send(fd, PROC_CN_MCAST_LISTEN, self.token);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "LISTEN to the process connector was refused: %s",
			 strerror(-r));
		return r;
	}
	self.canary = canary_fork();
	if (self.canary < 0) {
		snprintf(why, PROBE_WHY_MAX, "fork of the self-test: %s", strerror(-self.canary));
		return self.canary;
	}
	self.fd = fd;
	r = self_test_read(&self);
	if (!self.ended)
		canary_reap(self.canary, 0);
	connector_send(fd, PROC_CN_MCAST_IGNORE, 0);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "LISTEN to the process connector was refused: %s",
			 strerror(-r));
		return r;
	}
	if (!self.acked) {
		snprintf(why, PROBE_WHY_MAX,
			 "the process connector does not answer (not in the first pid namespace?)");
		return -EOPNOTSUPP;
	}
	if (!self.seen) {
		snprintf(why, PROBE_WHY_MAX,
			 "the process connector did not tell of a child's exit");
		return -EOPNOTSUPP;
	}
	return 0;
}

static void connector_close(struct probe *probe)
{
	struct connector *c = (struct connector *)probe;

	if (current == c)
		current = NULL;
	if (c->events_fd >= 0)
		connector_send(c->events_fd, PROC_CN_MCAST_IGNORE, 0);
	close_fd(c->events_fd);
	close_fd(c->bell_fd);
	close_fd(c->tick_fd);
	close_fd(c->probe.fd);
	if (c->canary)
		canary_reap(c->canary, WNOHANG);
	exec_reader_close(&c->tracker.reader);
	process_tracker_done(&c->tracker);
	free(c);
}

/*
 * The socket that only execs wake. The kernel serves the last that was bound first: when this one
 * rings, the events' socket, which is opened after it, has the exec already.
 */
static int bell_open(void)
{
	/* NLMSG_HDRLEN, struct cn_msg, then what; a filter loads it as big-endian. */
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NLMSG_HDRLEN + sizeof(struct cn_msg)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXEC), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	const struct sock_fprog program = {.len = ARRAY_SIZE(filter), .filter = filter};
	const char *step;
	int fd = netlink_open(NETLINK_CONNECTOR, CN_IDX_PROC, BELL_BUFFER, &step);

	if (fd >= 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0) {
		close_fd(fd);
		return -errno;
	}
	return fd;
}

static int open_descriptors(struct connector *c, const char **ret_step)
{
	struct epoll_event ev = {.events = EPOLLIN};

	c->bell_fd = bell_open();
	c->events_fd = netlink_open(NETLINK_CONNECTOR, CN_IDX_PROC, RECEIVE_BUFFER, ret_step);
	if (c->events_fd < 0)
		return c->events_fd;
	/* Else Linux 6.6 and later take a full buffer for a sign that nobody listens any more, and
	 * say nothing from then on. */
	(void)!setsockopt(c->events_fd, SOL_NETLINK, NETLINK_BROADCAST_ERROR, &(int){1},
			  sizeof(int));
	*ret_step = "epoll";
	c->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	c->probe.fd = epoll_create1(EPOLL_CLOEXEC);
	if (c->tick_fd < 0 || c->probe.fd < 0 ||
	    epoll_ctl(c->probe.fd, EPOLL_CTL_ADD, c->events_fd, &ev) < 0 ||
	    epoll_ctl(c->probe.fd, EPOLL_CTL_ADD, c->tick_fd, &ev) < 0)
		return -errno;
	if (c->bell_fd >= 0 && epoll_ctl(c->probe.fd, EPOLL_CTL_ADD, c->bell_fd, &ev) < 0)
		return -errno;
	return 0;
}

static int connector_open(const struct probe_config *config, struct probe **ret,
			  char why[PROBE_WHY_MAX])
{
	struct connector *c = calloc(1, sizeof(*c));
	struct epoll_event ev = {.events = EPOLLIN};
	const char *step = "memory";
	int r = -ENOMEM;

	if (!c)
		goto fail;
	c->probe.ops = &proc_connector_ops;
	c->probe.fd = c->events_fd = c->bell_fd = c->tick_fd = -1;
	c->tracker.dir.fd = -1;
	c->config = config;
	c->healthy = true;
	c->canary_seen = true;
	c->listens = 1;
	c->canary_ns = monotonic_ns();
	prepare_messages(c);
	r = open_descriptors(c, &step);
	if (r < 0)
		goto fail;
	step = "LISTEN to the process connector";
	r = connector_send(c->events_fd, PROC_CN_MCAST_LISTEN, 0);
	if (r < 0)
		goto fail;
	r = self_test(why);
	if (r < 0) {
		connector_close(&c->probe);
		return r;
	}
	/* Processes that exist already are known by name, but not reported. */
	step = "first walk of /proc";
	r = process_tracker_init(&c->tracker, config);
	if (r < 0)
		goto fail;
	/* Without this reader there are no arguments; that is no reason to do without the rest. */
	if (exec_reader_open(&c->tracker.reader, !config->no_args) == 0 &&
	    epoll_ctl(c->probe.fd, EPOLL_CTL_ADD, c->tracker.reader.reader.fd, &ev) < 0)
		exec_reader_close(&c->tracker.reader);
	current = c;
	*ret = &c->probe;
	return 0;

fail:
	snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	if (c)
		connector_close(&c->probe);
	return r;
}

const struct probe_ops proc_connector_ops = {
	.via = "proc-connector",
	.family = PROBE_PROCESS,
	.capabilities = UINT64_C(1) << CAP_NET_ADMIN | UINT64_C(1) << CAP_SYS_PTRACE |
			UINT64_C(1) << CAP_DAC_READ_SEARCH,
	.uses = "the kernel's process connector (netlink)",
	.misses = "nothing; what overruns its buffer is counted",
	.open = connector_open,
	.drain = connector_drain,
	.check = connector_check,
	.flush = connector_flush,
	.close = connector_close,
};
