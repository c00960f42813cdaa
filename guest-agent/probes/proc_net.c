/* SPDX-License-Identifier: MIT */
/*
 * The fallback of the net source: read /proc/net/tcp and tcp6 every so often and report the
 * connections that are new, joined to a process by the inode of the socket. What begins and ends
 * within a period is missed; so is every protocol but TCP, and every network namespace but the
 * agent's.
 *
 * A period takes several turns: read the two files, a piece a turn; then, if something is new, look
 * through the descriptors of all processes, a piece a turn; then report.
 *
 * Single-threaded; allocates in open() only.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/timerfd.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/process_view.h"
#include "guest-agent/probes/sources.h"
#include "guest-agent/probes/tcp_row.h"

#define SEEN_MAX	4096u /* connections known at a time; beyond, new ones are counted as lost */
#define SEEN_SLOTS	8192u
#define NEW_MAX		64u /* of one period; more wait for the next */
#define BUFFER_SIZE	8192u
#define JOIN_MAX	65536u /* descriptors looked at for one period */
#define SOCKET_LINK_MAX 64u
#define LISTENERS_MAX                                                                              \
	256u /* bound to one address each; beyond, their accepted connections show too */

_Static_assert((SEEN_SLOTS & (SEEN_SLOTS - 1)) == 0, "a power of two");
_Static_assert(SEEN_SLOTS >= 2 * SEEN_MAX, "the search for a free slot is short");

enum period_state { PERIOD_IDLE, PERIOD_READING, PERIOD_JOINING };

static const char *const files[] = {"/proc/net/tcp", "/proc/net/tcp6"};

/* The connections of one reading, identified by the socket and the remote address. */
struct seen {
	uint64_t began_ns; /* the reading; 0: it has left some of them out */
	size_t count;
	uint64_t keys[SEEN_SLOTS]; /* 0: free */
};

struct fresh {
	struct tcp_row row;
	pid_t pid; /* 0: not found */
};

struct listener {
	uint32_t address[4];
	uint16_t port;
};

struct proc_net {
	struct probe probe; /* its fd: a timerfd */
	const struct probe_config *config;
	enum period_state state;
	bool silent; /* the first period reports nothing */
	unsigned file;
	int fd; /* of files[file], while reading */
	size_t used;
	struct seen *now, *before;
	size_t n_fresh, n_joined;
	unsigned looked_at;
	pid_t pid; /* whose descriptors are being looked at */
	struct proc_dir pids, fds;
	uint8_t listening[65536 / 8]; /* local ports of this file */
	uint8_t wildcard[65536 / 8];  /* those among them that are bound to every address */
	size_t n_listeners;
	struct listener listeners[LISTENERS_MAX];
	struct fresh fresh[NEW_MAX];
	char buf[BUFFER_SIZE];
};

/* The hash of a connection, never 0: FNV-1a over the fields that identify it. */
static uint64_t key_of(const struct tcp_row *row)
{
	const uint64_t words[] = {row->inode, row->remote_port,
				  (uint64_t)row->remote[0] << 32 | row->remote[1],
				  (uint64_t)row->remote[2] << 32 | row->remote[3]};
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		for (unsigned shift = 0; shift < 64; shift += 8)
			hash = (hash ^ (words[i] >> shift & 0xff)) * UINT64_C(0x100000001b3);
	return hash ? hash : 1;
}

static uint64_t *seen_slot(struct seen *s, uint64_t key)
{
	size_t i = key & (SEEN_SLOTS - 1);

	while (s->keys[i] && s->keys[i] != key)
		i = (i + 1) & (SEEN_SLOTS - 1);
	return &s->keys[i];
}

static bool has_port(const uint8_t *ports, uint16_t port)
{
	return ports[port / 8] >> port % 8 & 1;
}

static void add_port(uint8_t *ports, uint16_t port)
{
	ports[port / 8] |= (uint8_t)(1u << port % 8);
}

static void see_listener(struct proc_net *p, const struct tcp_row *row)
{
	struct listener *l = &p->listeners[p->n_listeners];

	add_port(p->listening, row->local_port);
	if (!row->local[0] && !row->local[1] && !row->local[2] && !row->local[3]) {
		add_port(p->wildcard, row->local_port);
	} else if (p->n_listeners < LISTENERS_MAX) {
		memcpy(l->address, row->local, sizeof(l->address));
		l->port = row->local_port;
		p->n_listeners++;
	}
}

/*
 * Whether a listener of this address and port accepted the connection. Listeners come first in the
 * file. A connect from a port with a listener on every address looks accepted too.
 */
static bool is_accepted(const struct proc_net *p, const struct tcp_row *row)
{
	if (row->state == TCP_ROW_SYN_SENT || !has_port(p->listening, row->local_port))
		return false;
	if (has_port(p->wildcard, row->local_port))
		return true;
	for (size_t i = 0; i < p->n_listeners; i++)
		if (p->listeners[i].port == row->local_port &&
		    !memcmp(p->listeners[i].address, row->local, sizeof(row->local)))
			return true;
	return false;
}

static void see(struct proc_net *p, struct event_queue *q, const struct tcp_row *row)
{
	uint64_t key, *slot;
	bool known;

	if (row->state == TCP_ROW_LISTEN) {
		see_listener(p, row);
		return;
	}
	if ((row->state != TCP_ROW_SYN_SENT && row->state != TCP_ROW_ESTABLISHED) || !row->inode ||
	    is_accepted(p, row))
		return;
	key = key_of(row);
	known = p->silent || *seen_slot(p->before, key);
	slot = seen_slot(p->now, key);
	if (*slot)
		return;
	if (p->now->count == SEEN_MAX) {
		if (!known)
			event_queue_kernel_lost(q, PROBE_NET, 1);
		return;
	}
	if (!known) {
		if (p->n_fresh == NEW_MAX) {
			p->now->began_ns = 0;
			return;
		}
		p->fresh[p->n_fresh++] = (struct fresh){.row = *row};
	}
	*slot = key;
	p->now->count++;
}

static void report(struct proc_net *p, struct event_queue *q, const struct fresh *f, uint64_t at_ns)
{
	char address[INET6_ADDRSTRLEN], comm[PROC_COMM_MAX];
	const int comm_len = f->pid ? process_view_comm(f->pid, comm) : 0;
	const char *exe = NULL;
	size_t exe_len = 0;
	struct observation o;

	if (f->pid && probe_excludes(p->config, f->pid))
		return;
	inet_ntop(f->row.family, f->row.remote, address, sizeof(address));
	observation_init(&o, WIRE_NET_CONNECT_ATTEMPTED, f->pid, comm_len > 0 ? comm : NULL,
			 (size_t)comm_len, at_ns);
	observation_add_name(&o, WIRE_KEY_FAMILY, f->row.family == AF_INET6 ? "inet6" : "inet");
	observation_add_name(&o, WIRE_KEY_ADDRESS, address);
	declaration_add_uint(&o.d, WIRE_KEY_PORT, f->row.remote_port);
	if (f->row.state == TCP_ROW_ESTABLISHED)
		observation_add_name(&o, WIRE_KEY_RESULT, "ok");
	/* The reading before had no such connection. end_reading() has put it into p->now. */
	if (f->pid && process_view_exe_between(q, f->pid, p->now->began_ns, at_ns, &exe,
					       &exe_len) == EXE_KNOWN)
		observation_add_bytes(&o, WIRE_KEY_EXE, exe, exe_len);
	event_queue_observe(q, &o.d);
}

/* Reading. */

static void begin_file(struct proc_net *p)
{
	memset(p->listening, 0, sizeof(p->listening));
	memset(p->wildcard, 0, sizeof(p->wildcard));
	p->n_listeners = 0;
	p->used = 0;
	p->fd = open(files[p->file], O_RDONLY | O_CLOEXEC);
}

static void end_reading(struct proc_net *p)
{
	struct seen *spare = p->before;

	p->before = p->now;
	p->now = spare;
	p->silent = false;
	p->n_joined = 0;
	p->looked_at = 0;
	p->state = p->n_fresh && proc_dir_rewind(&p->pids) == 0 ? PERIOD_JOINING : PERIOD_IDLE;
}

/* One buffer of the file. */
static void read_piece(struct proc_net *p, struct event_queue *q)
{
	struct tcp_row row;
	char *line = p->buf, *eol;
	ssize_t n = p->fd < 0 ? 0 : read(p->fd, p->buf + p->used, sizeof(p->buf) - p->used);

	if (n <= 0) {
		close_fd(take_fd(&p->fd));
		if (++p->file < ARRAY_SIZE(files))
			begin_file(p);
		else
			end_reading(p);
		return;
	}
	p->used += (size_t)n;
	while ((eol = memchr(line, '\n', p->used - (size_t)(line - p->buf)))) {
		if (tcp_row_parse(line, (size_t)(eol - line), &row) == 0)
			see(p, q, &row);
		line = eol + 1;
	}
	p->used -= (size_t)(line - p->buf);
	memmove(p->buf, line, p->used);
	/* No line is that long. */
	if (p->used == sizeof(p->buf))
		p->used = 0;
}

/* Joining. */

static void match_link(struct proc_net *p, const char *link, size_t len)
{
	uint64_t inode;

	if (socket_link_parse(link, len, &inode) < 0)
		return;
	for (size_t i = 0; i < p->n_fresh; i++) {
		if (p->fresh[i].row.inode != inode || p->fresh[i].pid)
			continue;
		p->fresh[i].pid = p->pid;
		p->n_joined++;
	}
}

/* At most limit descriptors. Returns true when there is nothing more to find. */
static bool join_piece(struct proc_net *p, unsigned limit)
{
	while (limit--) {
		char name[16], link[SOCKET_LINK_MAX];
		ssize_t n;
		pid_t fd;

		if (p->n_joined == p->n_fresh || p->looked_at++ == JOIN_MAX)
			return true;
		if (p->fds.fd < 0) {
			if (proc_dir_next(&p->pids, &p->pid) <= 0)
				return true;
			proc_dir_open_fds(&p->fds, p->pid);
			continue;
		}
		if (proc_dir_next(&p->fds, &fd) <= 0) {
			proc_dir_close(&p->fds);
			continue;
		}
		snprintf(name, sizeof(name), "%d", fd);
		n = readlinkat(p->fds.fd, name, link, sizeof(link));
		if (n > 0)
			match_link(p, link, (size_t)n);
	}
	return false;
}

/* The source. */

static int proc_net_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct proc_net *p = (struct proc_net *)probe;
	uint64_t expirations, now_ns;

	switch (p->state) {
	case PERIOD_IDLE:
		if (read(probe->fd, &expirations, sizeof(expirations)) < 0)
			return errno == EAGAIN ? 0 : -errno;
		memset(p->now, 0, sizeof(*p->now));
		p->now->began_ns = monotonic_ns();
		p->n_fresh = 0;
		p->file = 0;
		begin_file(p);
		p->state = PERIOD_READING;
		break;
	case PERIOD_READING: read_piece(p, q); break;
	case PERIOD_JOINING:
		if (!join_piece(p, budget))
			break;
		proc_dir_close(&p->fds);
		now_ns = monotonic_ns();
		process_view_catch_up(q);
		for (size_t i = 0; i < p->n_fresh; i++)
			report(p, q, &p->fresh[i], now_ns);
		p->state = PERIOD_IDLE;
		break;
	}
	return p->state != PERIOD_IDLE;
}

static void proc_net_close(struct probe *probe)
{
	struct proc_net *p = (struct proc_net *)probe;

	close_fd(p->fd);
	proc_dir_close(&p->pids);
	proc_dir_close(&p->fds);
	close_fd(probe->fd);
	free(p->now);
	free(p->before);
	free(p);
}

static int proc_net_open(const struct probe_config *config, struct probe **ret,
			 char why[PROBE_WHY_MAX])
{
	const struct itimerspec spec = {
		.it_interval = {.tv_sec = config->poll_ms / 1000,
				.tv_nsec = (long)(config->poll_ms % 1000) * 1000000L},
		.it_value = {.tv_nsec = 1},
	};
	struct proc_net *p = calloc(1, sizeof(*p));
	const char *step = "memory";
	int r = -ENOMEM;

	if (!p)
		goto fail;
	p->probe = (struct probe){.ops = &proc_net_ops, .fd = -1};
	p->config = config;
	p->silent = true;
	p->fd = p->pids.fd = p->fds.fd = -1;
	p->now = calloc(1, sizeof(*p->now));
	p->before = calloc(1, sizeof(*p->before));
	if (!p->now || !p->before)
		goto fail;
	step = files[0];
	if (access(files[0], R_OK) < 0) {
		r = -errno;
		goto fail;
	}
	step = "/proc";
	r = proc_dir_open(&p->pids);
	if (r < 0)
		goto fail;
	step = "timerfd";
	p->probe.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (p->probe.fd < 0 || timerfd_settime(p->probe.fd, 0, &spec, NULL) < 0) {
		r = -errno;
		goto fail;
	}
	*ret = &p->probe;
	return 0;

fail:
	snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	if (p)
		proc_net_close(&p->probe);
	return r;
}

const struct probe_ops proc_net_ops = {
	.via = "proc-net",
	.family = PROBE_NET,
	.capabilities = UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_DAC_READ_SEARCH,
	.uses = "reads /proc/net/tcp and tcp6 every --poll ms",
	.misses =
		"connects that end within --poll or come from the port of a listener that is bound "
		"to every address, datagrams, binds, all but TCP, other network namespaces",
	.open = proc_net_open,
	.drain = proc_net_drain,
	.close = proc_net_close,
};
