/* SPDX-License-Identifier: MIT */
/*
 * Refused privilege by seccomp user notification: launchers hand over the notification descriptors
 * of their filters (common/handover.h), and the agent answers the calls that these ask about.
 *
 * A refused call fails with its rule's errno and a watched one goes on, whatever the agent finds
 * out about the caller; nothing that the caller has in memory changes the answer. Who calls is read
 * from /proc before the answer, while it cannot go away, and reported after it. So a caller waits
 * for a few reads of /proc, never for a queue or the channel.
 *
 * When the agent dies the kernel answers ENOSYS: what is refused stays refused.
 *
 * Single-threaded; allocates in open() only.
 */
#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "common/handover.h"
#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/listener_rules.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/sources.h"

#define NOTIFICATION_MAX 512u /* the structs may grow with the kernel */
#define STATUS_MAX	 4096u
#define BURST		 8u  /* notifications of one listener before the next has its turn */
#define REPEATS_MAX	 32u /* interrupted calls that are remembered */
#define REPEAT_NS	 NSEC_PER_SEC
#define NS_LINK_MAX	 64u
#define SOCKET_ID	 LISTENER_MAX

enum slot_state { SLOT_FREE, SLOT_PENDING, SLOT_SERVING };

struct table {
	unsigned users; /* slots */
	struct listener_message message;
};

struct slot {
	enum slot_state state;
	int fd; /* pending: the connection; serving: the notification descriptor. Owned */
	uint64_t deadline_ns; /* of a pending one */
	struct table *table;  /* of a serving one */
};

/* A call whose answer came too late because a signal interrupted it: the kernel starts it again. */
struct repeat {
	uint64_t until_ns;
	uint32_t pid;
	struct seccomp_data call;
};

struct notify {
	struct probe probe; /* its fd: an epoll of the socket, pending and served descriptors */
	const struct probe_config *config;
	int socket;
	unsigned serving;
	unsigned unprivileged_port;
	unsigned next_repeat;
	char pid_ns[NS_LINK_MAX];
	struct slot slots[LISTENER_MAX];
	struct repeat repeats[REPEATS_MAX];
	struct table tables[LISTENER_TABLES_MAX];
	struct listener_message incoming;
	_Alignas(8) uint8_t request[NOTIFICATION_MAX];
	_Alignas(8) uint8_t response[NOTIFICATION_MAX];
	struct seccomp_notif_sizes sizes;
};

/* What is known of a caller. */
struct caller {
	pid_t tgid;
	size_t comm_len;
	size_t exe_len;
	bool has_sets;
	struct capability_sets sets;
	char comm[PROC_COMM_MAX];
	char exe[WIRE_DETAIL_TEXT_MAX];
};

static int read_ns_link(pid_t pid, char ret[static NS_LINK_MAX])
{
	char path[NS_LINK_MAX];
	ssize_t n;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	else
		snprintf(path, sizeof(path), "/proc/self/ns/pid");
	n = readlink(path, ret, NS_LINK_MAX - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

/* Slots. */

static void slot_free(struct notify *n, struct slot *s)
{
	if (s->state == SLOT_SERVING)
		n->serving--;
	if (s->table)
		s->table->users--;
	close_fd(s->fd);
	*s = (struct slot){.state = SLOT_FREE, .fd = -1};
}

static void expire_pending(struct notify *n)
{
	uint64_t now = monotonic_ns();

	for (unsigned i = 0; i < LISTENER_MAX; i++)
		if (n->slots[i].state == SLOT_PENDING && n->slots[i].deadline_ns <= now)
			slot_free(n, &n->slots[i]);
}

static struct slot *slot_find_free(struct notify *n)
{
	for (unsigned i = 0; i < LISTENER_MAX; i++)
		if (n->slots[i].state == SLOT_FREE)
			return &n->slots[i];
	return NULL;
}

static void reply(int fd, int status)
{
	const struct listener_reply r = {
		.magic = LISTENER_MAGIC, .version = LISTENER_VERSION, .status = status};

	/* A launcher that does not read it finds out by itself. */
	(void)!send(fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int watch_fd(struct notify *n, int fd, unsigned id)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = id};

	return epoll_ctl(n->probe.fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* The hand-over. */

/* Root, and not one that a launcher has put into a pid namespace of its own. */
static bool peer_allowed(const struct notify *n, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	char ns[NS_LINK_MAX];

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == 0 &&
	       peer.pid > 0 && read_ns_link(peer.pid, ns) == 0 && !strcmp(ns, n->pid_ns);
}

static void accept_one(struct notify *n)
{
	_cleanup_close_ int fd = accept4(n->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct slot *s;
	int r = 0;

	if (fd < 0)
		return;
	expire_pending(n);
	s = slot_find_free(n);
	if (!peer_allowed(n, fd))
		r = -EACCES;
	else if (!s)
		r = -EMFILE;
	else
		r = watch_fd(n, fd, (unsigned)(s - n->slots));
	reply(fd, r);
	if (r < 0)
		return;
	*s = (struct slot){.state = SLOT_PENDING,
			   .fd = take_fd(&fd),
			   .deadline_ns = monotonic_ns() + LISTENER_PENDING_MS * NSEC_PER_MSEC};
}

/*
 * The message and its one descriptor: bytes received, or a negative errno. Further descriptors
 * cannot arrive: there is room for one, and the kernel closes what does not fit.
 */
static ssize_t receive_message(struct notify *n, int fd, int *ret_fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = &n->incoming, .iov_len = sizeof(n->incoming)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	ssize_t len;

	len = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (len < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EPROTO : len;
}

/* By its name in /proc: an ioctl(2) could mean anything to a descriptor of another kind. */
static bool is_notification_fd(int fd)
{
	static const char name[] = "anon_inode:seccomp notify";
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	return n == (ssize_t)sizeof(name) - 1 && !memcmp(link, name, sizeof(name) - 1);
}

static struct table *table_for(struct notify *n, const struct listener_message *m, size_t len)
{
	struct table *unused = NULL;

	for (unsigned i = 0; i < LISTENER_TABLES_MAX; i++) {
		struct table *t = &n->tables[i];

		if (!t->users)
			unused = t;
		else if (t->message.n_rules == m->n_rules && !memcmp(&t->message, m, len))
			return t;
	}
	if (unused)
		memcpy(&unused->message, m, len);
	return unused;
}

static int take_message(struct notify *n, struct slot *s, ssize_t len, int *fd)
{
	struct table *table;
	int r;

	if (len < 0 || listener_message_check(&n->incoming, (size_t)len) < 0)
		return -EPROTO;
	if (*fd < 0 || !is_notification_fd(*fd))
		return -EBADF;
	table = table_for(n, &n->incoming, (size_t)len);
	if (!table)
		return -ENOSPC;
	r = watch_fd(n, *fd, (unsigned)(s - n->slots));
	if (r < 0)
		return r;
	table->users++;
	s->table = table;
	return 0;
}

static void pending_readable(struct notify *n, struct slot *s)
{
	_cleanup_close_ int connection = s->fd, fd = -1;
	ssize_t len = receive_message(n, connection, &fd);
	int r;

	if (len == -EAGAIN || len == -EINTR) {
		take_fd(&connection);
		return;
	}
	/* Whatever comes now, the connection has done its work. */
	s->fd = -1;
	r = len == 0 ? -EPROTO : take_message(n, s, len, &fd);
	if (r < 0) {
		slot_free(n, s);
	} else {
		s->state = SLOT_SERVING;
		s->fd = take_fd(&fd);
		n->serving++;
	}
	reply(connection, r);
}

/* Notifications. */

static void read_caller(pid_t tid, struct caller *c)
{
	char path[64], status[STATUS_MAX];
	uint64_t tgid;
	int n;

	*c = (struct caller){.tgid = tid};
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	n = proc_read_file(path, status, sizeof(status));
	if (n > 0) {
		size_t len = (size_t)n;

		if (proc_status_value(status, len, "Tgid", 10, &tgid) == 0)
			c->tgid = (pid_t)tgid;
		c->has_sets =
			proc_status_value(status, len, "CapEff", 16, &c->sets.effective) == 0 &&
			proc_status_value(status, len, "CapPrm", 16, &c->sets.permitted) == 0 &&
			proc_status_value(status, len, "CapInh", 16, &c->sets.inheritable) == 0;
	}
	n = proc_read_comm(tid, c->comm);
	c->comm_len = n > 0 ? (size_t)n : 0;
	n = proc_read_exe(tid, c->exe, sizeof(c->exe));
	c->exe_len = n > 0 ? (size_t)n : 0;
}

/*
 * Memory of the caller, only if it is there already: a page that has to be fetched could make the
 * agent wait for somebody, even for the caller itself. Returns the bytes read, 0 if none.
 */
static size_t read_memory(pid_t tid, uint64_t address, void *ret, size_t len)
{
	const uint64_t page = (uint64_t)getpagesize(), present = UINT64_C(1) << 63;
	struct iovec local = {.iov_base = ret, .iov_len = len};
	struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = len};
	_cleanup_close_ int fd = -1;
	char path[64];
	uint64_t entry;
	ssize_t n;

	if (len == 0 || address + len < address)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	for (uint64_t p = address / page; p <= (address + len - 1) / page; p++)
		if (pread(fd, &entry, sizeof(entry), (off_t)(p * sizeof(entry))) != sizeof(entry) ||
		    !(entry & present))
			return 0;
	n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
	return n > 0 ? (size_t)n : 0;
}

static size_t read_argument(const struct seccomp_notif *req, uint8_t ret[WATCH_ARGUMENT_MAX])
{
	const struct seccomp_data *call = &req->data;
	const pid_t tid = (pid_t)req->pid;

	switch (call->nr) {
	case __NR_bind:
		return read_memory(tid, call->args[1], ret,
				   MIN((size_t)(uint32_t)call->args[2], (size_t)16));
	case __NR_capset:
		if (read_memory(tid, call->args[0], ret, WATCH_CAPSET_HEADER) !=
			    WATCH_CAPSET_HEADER ||
		    read_memory(tid, call->args[1], ret + WATCH_CAPSET_HEADER, WATCH_CAPSET_DATA) !=
			    WATCH_CAPSET_DATA)
			return 0;
		return WATCH_CAPSET_HEADER + WATCH_CAPSET_DATA;
	default: return 0;
	}
}

static bool is_repeat(struct notify *n, const struct seccomp_notif *req)
{
	uint64_t now = monotonic_ns();

	for (unsigned i = 0; i < REPEATS_MAX; i++) {
		struct repeat *r = &n->repeats[i];

		if (r->until_ns >= now && r->pid == req->pid &&
		    !memcmp(&r->call, &req->data, sizeof(r->call))) {
			r->until_ns = 0;
			return true;
		}
	}
	return false;
}

static void remember_repeat(struct notify *n, const struct seccomp_notif *req)
{
	n->repeats[n->next_repeat++ % REPEATS_MAX] = (struct repeat){
		.until_ns = monotonic_ns() + REPEAT_NS, .pid = req->pid, .call = req->data};
}

static void report(struct notify *n, struct event_queue *q, const struct seccomp_notif *req,
		   const struct caller *caller, const struct watch_verdict *v, const char *via)
{
	const char *capability = capability_name(v->capability), *error = error_name(v->error);
	char name[SYSCALL_NAME_MAX];
	struct observation o;

	if (probe_excludes(n->config, caller->tgid))
		return;
	observation_init(&o, WIRE_CAPABILITY_DENIED, caller->tgid, caller->comm, caller->comm_len,
			 monotonic_ns());
	declaration_add_text(&o.d, WIRE_KEY_SYSCALL,
			     wire_text(syscall_name(req->data.arch, req->data.nr, name)));
	declaration_add_text(&o.d, WIRE_KEY_ERROR, wire_text(error ? error : "EPERM"));
	if (capability)
		declaration_add_text(&o.d, WIRE_KEY_CAPABILITY, wire_text(capability));
	if (caller->exe_len)
		observation_add_bytes(&o, WIRE_KEY_EXE, caller->exe, caller->exe_len);
	declaration_add_text(&o.d, WIRE_KEY_VIA, wire_text(via));
	event_queue_observe(q, &o.d);
}

/* musl declares the request as an int, which these do not fit; the kernel takes 32 bits. */
static int notify_ioctl(int fd, unsigned long request, const void *argument)
{
	return ioctl(fd, (int)request, argument);
}

static void answer_one(struct notify *n, const struct slot *s, struct event_queue *q,
		       const struct seccomp_notif *req)
{
	struct seccomp_notif_resp *resp = (struct seccomp_notif_resp *)n->response;
	const struct listener_message *m = &s->table->message;
	const struct listener_rule *rule = NULL;
	uint8_t argument[WATCH_ARGUMENT_MAX];
	struct watch_verdict v = {0};
	struct caller caller;
	const char *via = "profile";
	bool told;

	if (req->data.arch == m->arch)
		rule = listener_match(m->rules, m->n_rules, &req->data);

	memset(n->response, 0, n->sizes.seccomp_notif_resp);
	resp->id = req->id;
	read_caller((pid_t)req->pid, &caller);
	if (rule && rule->action == LISTENER_WATCH) {
		via = "seccomp-notify";
		resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		if (caller.has_sets)
			v = watch_judge(&req->data, &caller.sets, argument,
					read_argument(req, argument), n->unprivileged_port);
	} else {
		v.denied = true;
		v.error = rule ? (int)rule->error : EPERM;
		v.capability = capability_of_syscall(req->data.nr, req->data.args[0], EPERM);
		resp->error = -v.error;
	}
	/* Was it the caller that was read, or another that has got its pid meanwhile? */
	if (notify_ioctl(s->fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &req->id) < 0) {
		caller = (struct caller){.tgid = (pid_t)req->pid};
		v.denied = v.denied && !resp->flags;
	}
	told = is_repeat(n, req);
	if (notify_ioctl(s->fd, SECCOMP_IOCTL_NOTIF_SEND, resp) < 0 && v.denied)
		remember_repeat(n, req);
	if (v.denied && !told)
		report(n, q, req, &caller, &v, via);
}

static bool readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1 && pfd.revents & POLLIN;
}

/* Returns the number of notifications taken. */
static unsigned serve(struct notify *n, struct slot *s, struct event_queue *q)
{
	const struct seccomp_notif *req = (const struct seccomp_notif *)n->request;
	unsigned done;

	for (done = 0; done < BURST; done++) {
		/* The receive would wait for the next if there were none. */
		if (!readable(s->fd))
			break;
		memset(n->request, 0, n->sizes.seccomp_notif);
		if (notify_ioctl(s->fd, SECCOMP_IOCTL_NOTIF_RECV, n->request) == 0)
			answer_one(n, s, q, req);
		else if (errno != ENOENT && errno != EINTR)
			break; /* ENOENT: its caller was interrupted before */
	}
	return done;
}

static int seccomp_notify_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct notify *n = (struct notify *)probe;
	struct epoll_event events[LISTENER_MAX + 1];

	for (unsigned done = 0; done < budget;) {
		int count = epoll_wait(n->probe.fd, events, ARRAY_SIZE(events), 0);

		if (count < 0 && errno != EINTR)
			return -errno;
		if (count <= 0)
			return 0;
		for (int i = 0; i < count; i++) {
			struct slot *s;

			done++;
			if (events[i].data.u32 == SOCKET_ID) {
				accept_one(n);
				continue;
			}
			s = &n->slots[events[i].data.u32];
			if (s->state == SLOT_PENDING)
				pending_readable(n, s);
			else if (s->state == SLOT_SERVING && events[i].events & EPOLLIN)
				done += serve(n, s, q);
			else if (s->state == SLOT_SERVING)
				slot_free(n, s); /* the last process under this filter is gone */
		}
	}
	return 1;
}

static int seccomp_notify_check(struct probe *probe, _unused_ struct event_queue *q)
{
	expire_pending((struct notify *)probe);
	return 1;
}

static const char *seccomp_notify_announce(const struct probe *probe)
{
	const struct notify *n = (const struct notify *)probe;

	return n->serving ? probe->ops->via : "none";
}

static void seccomp_notify_close(struct probe *probe)
{
	struct notify *n = (struct notify *)probe;

	for (unsigned i = 0; i < LISTENER_MAX; i++)
		slot_free(n, &n->slots[i]);
	if (n->socket >= 0)
		unlink(n->config->listener_socket);
	close_fd(n->socket);
	close_fd(n->probe.fd);
	free(n);
}

/* The socket in the file system, readable and writable by its owner only. */
static int listen_socket(struct notify *n, const char *path, const char **ret_step)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	mode_t mask;
	int r;

	*ret_step = "listener socket";
	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	/* Is somebody there? If not, it is what an agent that was killed has left. */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		*ret_step = "another agent listens on the listener socket";
		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
			return -EADDRINUSE;
		unlink(path);
	}
	*ret_step = "bind of the listener socket";
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(mask);
	if (r < 0)
		return r;
	n->socket = take_fd(&fd);
	*ret_step = "listen on the listener socket";
	return listen(n->socket, LISTENER_MAX) < 0 ? -errno : 0;
}

static unsigned read_unprivileged_port(void)
{
	char text[16];
	uint64_t port;
	int len;

	len = proc_read_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", text,
			     sizeof(text) - 1);
	if (len > 0 && text[len - 1] == '\n')
		len--;
	text[MAX(len, 0)] = '\0';
	return parse_u64(text, 0, 65535, &port) < 0 ? 1024 : (unsigned)port;
}

static int seccomp_notify_open(const struct probe_config *config, struct probe **ret,
			       char why[PROBE_WHY_MAX])
{
	struct notify *n = calloc(1, sizeof(*n));
	const char *step = "memory";
	int r = -ENOMEM;

	if (!n)
		goto fail;
	n->probe = (struct probe){.ops = &seccomp_notify_ops, .fd = -1};
	n->config = config;
	n->socket = -1;
	n->unprivileged_port = read_unprivileged_port();
	for (unsigned i = 0; i < LISTENER_MAX; i++)
		n->slots[i].fd = -1;

	step = "seccomp(SECCOMP_GET_NOTIF_SIZES)";
	r = syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &n->sizes) < 0 ? -errno : 0;
	if (r == 0 && (n->sizes.seccomp_notif > NOTIFICATION_MAX ||
		       n->sizes.seccomp_notif_resp > NOTIFICATION_MAX))
		r = -EMSGSIZE;
	if (r < 0)
		goto fail;
	step = "/proc/self/ns/pid";
	r = read_ns_link(0, n->pid_ns);
	if (r < 0)
		goto fail;
	step = "epoll_create1";
	n->probe.fd = epoll_create1(EPOLL_CLOEXEC);
	r = n->probe.fd < 0 ? -errno : listen_socket(n, config->listener_socket, &step);
	if (r == 0)
		r = watch_fd(n, n->socket, SOCKET_ID);
	if (r < 0)
		goto fail;
	*ret = &n->probe;
	return 0;

fail:
	snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	if (n)
		seccomp_notify_close(&n->probe);
	return r;
}

const struct probe_ops seccomp_notify_ops = {
	.via = "seccomp-notify",
	.family = PROBE_CAPABILITY,
	.capabilities = UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_DAC_READ_SEARCH,
	.uses = "seccomp notifications of workloads that cellos-workload-exec started",
	.misses = "what the profile does not name, and workloads started otherwise",
	.open = seccomp_notify_open,
	.drain = seccomp_notify_drain,
	.check = seccomp_notify_check,
	.close = seccomp_notify_close,
	.announce = seccomp_notify_announce,
};
