/* SPDX-License-Identifier: MIT */
/*
 * What processes do with inet sockets, by BPF programs at the hooks of the root cgroup: every
 * connect(2), the first datagram from a socket to an address, binds, and sockets that are neither
 * TCP nor UDP; in whatever network namespace, by whatever ABI and also by io_uring, with the
 * kernel's own copy of the address. Connects and datagrams are seen before they happen, a bind
 * after it.
 *
 * A process with CAP_SYS_ADMIN could detach the programs. So the agent connects a datagram socket
 * of its own now and then, which sends no packet, and must see that connect.
 *
 * Single-threaded; allocates in open() only.
 */
#include <arpa/inet.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/bind_watch.h"
#include "guest-agent/probes/net_hooks.h"
#include "guest-agent/probes/net_view.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/process_view.h"
#include "guest-agent/probes/sources.h"

#define FIRST_PID_NS	   UINT64_C(0xeffffffc) /* PROC_PID_INIT_INO: its inode number */
#define SELF_TEST_FAILURES 2u			/* in a row, before the source gives up */
#define NUMBER_TEXT_MAX	   16u
#define WAITING_MAX	   512u
#define TICK_MS		   10
#define RING_SHARE	   8u /* records of a ring before the next has its turn */

/* An observation without its exe. */
struct waiting {
	enum wire_source source;
	uint64_t until_ns;
	struct net_record record;
};

struct cgroup_bpf {
	struct probe probe; /* its fd: an epoll of the rings, dead_fd and tick_fd */
	const struct probe_config *config;
	struct net_hooks hooks;
	struct bind_watch binds;
	size_t n_waiting;
	struct waiting
		waiting[WAITING_MAX]; /* that wait for their process's program, the oldest first */
	int dead_fd;		      /* an eventfd: readable once the source has died */
	int tick_fd;		      /* a timer, armed while something waits */
	int test_fd;		      /* the socket of the self-test, or -1 */
	uint64_t lost_told;
	uint64_t malformed;
	bool tick_armed;
	bool test_pending;
	bool test_seen;
	unsigned test_failures;
};

/* Connecting a datagram socket sends nothing; whether it succeeds does not matter. */
static void self_test_send(struct cgroup_bpf *b)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};

	b->test_pending = true;
	b->test_seen = false;
	(void)!connect(b->test_fd, (struct sockaddr *)&to, sizeof(to));
}

/* The kernel works for io_uring in threads of the process that have names of their own. */
static bool is_uring_thread(const char comm[static PROC_COMM_MAX])
{
	return !strncmp(comm, "iou-wrk-", 8) || !strncmp(comm, "iou-sqp-", 8);
}

/* A name, or the number where there is none. */
static struct wire_text name_or_number(const char *name, uint32_t number,
				       char room[static NUMBER_TEXT_MAX])
{
	if (name)
		return wire_text(name);
	snprintf(room, NUMBER_TEXT_MAX, "%u", number);
	return wire_text(room);
}

static void begin(struct observation *o, enum wire_source source, const struct net_record *r)
{
	size_t comm_len = strnlen(r->comm, sizeof(r->comm));
	char comm[PROC_COMM_MAX];
	int n;

	memcpy(comm, r->comm, sizeof(comm));
	if (is_uring_thread(r->comm)) {
		n = process_view_comm((pid_t)r->pid, comm);
		if (n > 0)
			comm_len = (size_t)n;
	}
	observation_init(o, source, (pid_t)r->pid, comm, comm_len, r->at_ns);
}

static void add_address(struct observation *o, const struct net_record *r)
{
	char address[INET6_ADDRSTRLEN];

	inet_ntop((int)r->family, r->address, address, sizeof(address));
	observation_add_bytes(o, WIRE_KEY_ADDRESS, address, strlen(address));
	declaration_add_uint(&o->d, WIRE_KEY_PORT, net_record_port(r));
}

/* exe: NULL when it is not known for certain. */
static void report(struct event_queue *q, enum wire_source source, const struct net_record *r,
		   const char *exe, size_t exe_len)
{
	char type[NUMBER_TEXT_MAX], protocol[NUMBER_TEXT_MAX];
	struct observation o;

	begin(&o, source, r);
	if (source == WIRE_CAPABILITY_DENIED) {
		observation_add_name(&o, WIRE_KEY_SYSCALL, "bind");
		observation_add_name(&o, WIRE_KEY_ERROR, "EACCES");
		observation_add_name(&o, WIRE_KEY_CAPABILITY, "CAP_NET_BIND_SERVICE");
		observation_add_name(&o, WIRE_KEY_VIA, "derived");
	} else {
		observation_add_name(&o, WIRE_KEY_FAMILY, r->family == AF_INET6 ? "inet6" : "inet");
		if (source == WIRE_NET_SOCKET_CREATED)
			declaration_add_text(&o.d, WIRE_KEY_TYPE,
					     name_or_number(net_type_name(r->type), r->type, type));
		else
			add_address(&o, r);
		if (source != WIRE_NET_CONNECT_ATTEMPTED)
			declaration_add_text(&o.d, WIRE_KEY_PROTOCOL,
					     name_or_number(net_protocol_name(r->protocol),
							    r->protocol, protocol));
	}
	if (exe)
		observation_add_bytes(&o, WIRE_KEY_EXE, exe, exe_len);
	event_queue_observe(q, &o.d);
}

/* True when it is reported. */
static bool try_report(struct event_queue *q, const struct waiting *w, uint64_t now_ns)
{
	const char *exe = NULL;
	size_t len = 0;

	if (process_view_exe(q, (pid_t)w->record.pid, w->record.at_ns, &exe, &len) == EXE_WAIT &&
	    now_ns < w->until_ns)
		return false;
	report(q, w->source, &w->record, exe, len);
	return true;
}

/* Report the observations that need not wait any longer. */
static void settle(struct cgroup_bpf *b, struct event_queue *q)
{
	const uint64_t now_ns = monotonic_ns();
	size_t kept = 0;

	if (b->n_waiting == 0)
		return;
	process_view_catch_up(q);
	for (size_t i = 0; i < b->n_waiting; i++)
		if (!try_report(q, &b->waiting[i], now_ns))
			b->waiting[kept++] = b->waiting[i];
	b->n_waiting = kept;
}

static void wait_for_exe(struct cgroup_bpf *b, struct event_queue *q, enum wire_source source,
			 const struct net_record *r)
{
	if (b->n_waiting == WAITING_MAX)
		settle(b, q);
	/*
	 * A flood from a program that has just started: the oldest observation is reported without
	 * its exe.
	 */
	if (b->n_waiting == WAITING_MAX) {
		report(q, b->waiting[0].source, &b->waiting[0].record, NULL, 0);
		b->n_waiting--;
		memmove(b->waiting, b->waiting + 1, b->n_waiting * sizeof(b->waiting[0]));
	}
	b->waiting[b->n_waiting++] = (struct waiting){
		.source = source, .until_ns = monotonic_ns() + EXE_WAIT_NS, .record = *r};
}

/*
 * A bind that was refused has no second record. Its caller's capabilities say why, unless it has
 * changed its user since: then it may have had the capability, and the port was in use.
 */
static void on_bind(struct cgroup_bpf *b, struct event_queue *q, const struct net_record *r)
{
	if (net_hook_specs[r->hook].type == BPF_PROG_TYPE_CGROUP_SOCK) {
		bind_watch_bound(&b->binds, r->cookie);
		wait_for_exe(b, q, WIRE_NET_BOUND, r);
	} else if (bind_needs_capability(r) && process_view_same_user(q, (pid_t)r->pid, r->at_ns) &&
		   !bind_watch_add(&b->binds, r)) {
		event_queue_kernel_lost(q, PROBE_NET, 1);
	}
}

static void on_record(struct cgroup_bpf *b, struct event_queue *q, const struct net_record *r)
{
	const enum net_ring ring = net_hook_specs[r->hook].ring;

	if ((pid_t)r->pid == b->config->self && ring == NET_RING_CONNECT)
		b->test_seen = true;
	if (probe_excludes(b->config, (pid_t)r->pid))
		return;
	switch (ring) {
	case NET_RING_CONNECT: wait_for_exe(b, q, WIRE_NET_CONNECT_ATTEMPTED, r); break;
	case NET_RING_SENDMSG: wait_for_exe(b, q, WIRE_NET_DATAGRAM_SENT, r); break;
	case NET_RING_SOCKET: wait_for_exe(b, q, WIRE_NET_SOCKET_CREATED, r); break;
	default: on_bind(b, q, r); break;
	}
}

static void account_loss(struct cgroup_bpf *b, struct event_queue *q)
{
	const uint64_t lost = net_hooks_lost(&b->hooks);

	if (lost == b->lost_told)
		return;
	event_queue_kernel_lost(q, PROBE_NET, lost - b->lost_told);
	b->lost_told = lost;
}

/* The timer runs while something waits. */
static void arm_tick(struct cgroup_bpf *b)
{
	const bool wanted = b->binds.n > 0 || b->n_waiting > 0;
	const struct timespec period = {.tv_nsec = wanted ? TICK_MS * (long)NSEC_PER_MSEC : 0};
	const struct itimerspec spec = {.it_interval = period, .it_value = period};

	if (wanted != b->tick_armed && timerfd_settime(b->tick_fd, 0, &spec, NULL) == 0)
		b->tick_armed = wanted;
}

static int cgroup_bpf_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;
	struct net_record record;
	uint64_t ticks;
	unsigned done = 0, before;
	int r;

	if (b->test_failures >= SELF_TEST_FAILURES)
		return -EPIPE;
	(void)!read(b->tick_fd, &ticks, sizeof(ticks));
	do {
		before = done;
		/*
		 * Each ring in turn gets a share, so that a flood in one does not delay the others.
		 */
		for (unsigned i = 0; i < _NET_RING_MAX; i++) {
			for (unsigned n = 0; n < RING_SHARE; n++) {
				r = net_hooks_next(&b->hooks, (enum net_ring)i, &record,
						   &b->malformed);
				if (r < 0)
					return r;
				if (r == 0)
					break;
				on_record(b, q, &record);
				done++;
			}
		}
	} while (done > before && done < budget);
	while (bind_watch_refused(&b->binds, monotonic_ns(), &record))
		wait_for_exe(b, q, WIRE_CAPABILITY_DENIED, &record);
	settle(b, q);
	account_loss(b, q);
	arm_tick(b);
	return done > before;
}

static void cgroup_bpf_flush(struct probe *probe, struct event_queue *q)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;

	settle(b, q);
	for (size_t i = 0; i < b->n_waiting; i++)
		report(q, b->waiting[i].source, &b->waiting[i].record, NULL, 0);
	b->n_waiting = 0;
}

static int cgroup_bpf_check(struct probe *probe, struct event_queue *q)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;
	const uint64_t one = 1;

	/* The self-test may be among the records that a full ring lost. */
	if (net_hooks_lost(&b->hooks) != b->lost_told)
		b->test_pending = false;
	account_loss(b, q);
	if (b->test_fd < 0)
		return 1;
	/* No verdict while records wait to be read. */
	if (b->test_pending && net_hooks_empty(&b->hooks, NET_RING_CONNECT)) {
		b->test_failures = b->test_seen ? 0 : b->test_failures + 1;
		b->test_pending = false;
	}
	if (b->test_failures >= SELF_TEST_FAILURES)
		(void)!write(b->dead_fd, &one, sizeof(one));
	else if (!b->test_pending)
		self_test_send(b);
	return b->test_failures == 0;
}

static bool sees_raw_sockets; /* cgroup_bpf_open() and _close() set it */

bool net_view_sees_raw_sockets(void)
{
	return sees_raw_sockets;
}

static void cgroup_bpf_close(struct probe *probe)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;

	sees_raw_sockets = false;
	net_hooks_close(&b->hooks);
	close_fd(b->dead_fd);
	close_fd(b->tick_fd);
	close_fd(b->test_fd);
	close_fd(b->probe.fd);
	free(b);
}

static int watch(struct cgroup_bpf *b, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	return epoll_ctl(b->probe.fd, EPOLL_CTL_ADD, fd, &ev);
}

static int open_descriptors(struct cgroup_bpf *b)
{
	b->dead_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	b->probe.fd = epoll_create1(EPOLL_CLOEXEC);
	if (b->dead_fd < 0 || b->tick_fd < 0 || b->probe.fd < 0 || watch(b, b->dead_fd) < 0 ||
	    watch(b, b->tick_fd) < 0)
		return -errno;
	for (unsigned i = 0; i < _NET_RING_MAX; i++)
		if (watch(b, b->hooks.rings[i].fd) < 0)
			return -errno;
	/* Without IPv4 there is no self-test. */
	b->test_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return 0;
}

static int in_first_pid_namespace(void)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st) < 0)
		return -errno;
	return st.st_ino == FIRST_PID_NS ? 0 : -EOPNOTSUPP;
}

static int cgroup_bpf_open(const struct probe_config *config, struct probe **ret,
			   char why[PROBE_WHY_MAX])
{
	struct cgroup_bpf *b;
	const char *step = NULL;
	int r = in_first_pid_namespace();

	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX,
			 "BPF tells pids of the first pid namespace, and this is another: %s",
			 strerror(-r));
		return r;
	}
	b = calloc(1, sizeof(*b));
	if (!b) {
		snprintf(why, PROBE_WHY_MAX, "memory: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	b->probe = (struct probe){.ops = &cgroup_bpf_ops, .fd = -1};
	b->config = config;
	b->dead_fd = b->tick_fd = b->test_fd = -1;
	r = net_hooks_open(&b->hooks, why);
	if (r == 0) {
		step = "epoll";
		r = open_descriptors(b);
	}
	if (r == 0 && b->test_fd >= 0) {
		self_test_send(b);
		if (net_hooks_empty(&b->hooks, NET_RING_CONNECT)) {
			step = "a connect of the agent itself was not seen";
			r = -EOPNOTSUPP;
		}
	}
	if (r == 0) {
		sees_raw_sockets = b->hooks.links[NET_HOOK_SOCKET] >= 0;
		*ret = &b->probe;
		return 0;
	}
	if (step)
		snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	cgroup_bpf_close(&b->probe);
	return r;
}

const struct probe_ops cgroup_bpf_ops = {
	.via = "cgroup-bpf",
	.family = PROBE_NET,
	.capabilities = UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_DAC_READ_SEARCH,
	.uses = "BPF programs at the root cgroup's connect, sendmsg, bind and sock_create hooks",
	.misses = "vsock, packet and netlink sockets, binds of raw, SCTP and ping sockets, what a "
		  "connect came to, datagrams after the first from a socket to an address",
	.open = cgroup_bpf_open,
	.drain = cgroup_bpf_drain,
	.check = cgroup_bpf_check,
	.flush = cgroup_bpf_flush,
	.close = cgroup_bpf_close,
};
