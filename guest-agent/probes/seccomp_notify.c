/* SPDX-License-Identifier: MIT */
/*
 * Refused privilege by seccomp user notification: launchers hand over the notification descriptors
 * of their filters (common/handover.h), and the agent answers the calls that these ask about.
 *
 * A refused call fails with its rule's errno, and a watched call goes on, whatever the agent learns
 * about the caller. The agent reads the caller's name and capabilities from /proc before it
 * answers, because the caller cannot end meanwhile; it reports the call after the answer. It never
 * reads the caller's memory, and takes none of its locks: a caller could hold them for ever.
 *
 * All notifications are answered before launchers are served. If the agent dies, the kernel answers
 * ENOSYS: refused calls stay refused.
 *
 * Single-threaded; allocates in open() only.
 */
#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "common/handover.h"
#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/listener_rules.h"
#include "guest-agent/probes/net_view.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/seccomp_notify_stale.h"
#include "guest-agent/probes/sources.h"

#define NOTIFICATION_MAX 512u /* the structs may grow with the kernel */
#define BURST		 8u   /* notifications of one listener before the next has its turn */
#define EVENTS_MAX	 16u  /* of one epoll_wait(2); the kernel rotates among the rest */
#define TURN_NS		 (2 * NSEC_PER_MSEC)
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

struct notify {
	struct probe probe; /* its fd: an epoll of the socket, pending and served descriptors */
	const struct probe_config *config;
	int socket;
	bool socket_paused;	   /* no descriptor was left to accept with */
	unsigned serving, pending; /* slots in these states */
	struct stale_workloads stale;
	char pid_ns[PID_NS_LINK_MAX];
	struct slot slots[LISTENER_MAX];
	struct table tables[LISTENER_TABLES_MAX];
	struct listener_message incoming;
	_Alignas(8) uint8_t request[NOTIFICATION_MAX];
	_Alignas(8) uint8_t response[NOTIFICATION_MAX];
	struct seccomp_notif_sizes sizes;
};

/* The facts about a caller. */
struct caller {
	pid_t tgid;
	size_t comm_len;
	size_t exe_len;
	bool has_effective;
	uint64_t effective; /* capabilities */
	char comm[PROC_COMM_MAX];
	char exe[WIRE_DETAIL_TEXT_MAX];
};

/* Slots. */

static void slot_free(struct notify *n, struct slot *s)
{
	if (s->state == SLOT_SERVING)
		n->serving--;
	if (s->state == SLOT_PENDING)
		n->pending--;
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

/* A pending launcher has the place in which its descriptor will be served. */
static struct slot *slot_find_free(struct notify *n)
{
	for (unsigned i = 0; i < LISTENER_MAX && n->pending < LISTENER_PENDING_MAX; i++)
		if (n->slots[i].state == SLOT_FREE)
			return &n->slots[i];
	return NULL;
}

static void reply(int fd, int status)
{
	const struct listener_reply r = {.magic = LISTENER_MAGIC,
					 .version = LISTENER_VERSION,
					 .agent_uid = getuid(),
					 .status = status};

	/* A launcher that does not read the reply sees the end of the connection. */
	(void)!send(fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int watch_fd(struct notify *n, int fd, unsigned id)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = id};

	return epoll_ctl(n->probe.fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* The hand-over. */

/* Root, in our own pid namespace, and no workload that runs under the profile. */
static bool peer_allowed(const struct notify *n, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	char ns[PID_NS_LINK_MAX];

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == 0 &&
	       peer.pid > 0 && pid_ns_read(peer.pid, ns) == 0 && !strcmp(ns, n->pid_ns) &&
	       !is_profile_workload(peer.pid);
}

/*
 * Without a free descriptor the socket stays readable, so it must not wake the loop. Launchers wait
 * for longer than one period of check(), which tries again.
 */
static void pause_socket(struct notify *n, bool paused)
{
	struct epoll_event ev = {.events = paused ? 0 : EPOLLIN, .data.u32 = SOCKET_ID};

	if (n->socket_paused != paused &&
	    epoll_ctl(n->probe.fd, EPOLL_CTL_MOD, n->socket, &ev) == 0)
		n->socket_paused = paused;
}

static void accept_one(struct notify *n)
{
	_cleanup_close_ int fd = accept4(n->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct slot *s;
	int r = 0;

	if (fd < 0) {
		pause_socket(n, errno == EMFILE || errno == ENFILE || errno == ENOMEM);
		return;
	}
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
	n->pending++;
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
	/*
	 * The descriptor was sent, but there was no free place for it in our table or in the
	 * machine's.
	 */
	if (msg.msg_flags & MSG_CTRUNC && *ret_fd < 0)
		return -ENFILE;
	return msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EPROTO : len;
}

/*
 * Check the kind by its name in /proc: an ioctl(2) on another kind of descriptor could do anything.
 */
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

	if (len == -ENFILE)
		return -ENFILE;
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
	/* The connection ends with this message, whatever it is. */
	s->fd = -1;
	r = len == 0 ? -EPROTO : take_message(n, s, len, &fd);
	if (r < 0) {
		slot_free(n, s);
	} else {
		s->state = SLOT_SERVING;
		s->fd = take_fd(&fd);
		n->pending--;
		n->serving++;
	}
	reply(connection, r);
}

/* Notifications. */

static void read_caller(pid_t tid, struct caller *c)
{
	int n;

	*c = (struct caller){.tgid = tid};
	/* Not by its status file, which has both: see proc_file.h. */
	(void)!proc_read_tgid(tid, &c->tgid);
	c->has_effective = proc_read_capabilities(tid, &c->effective) == 0;
	n = proc_read_comm(tid, c->comm);
	c->comm_len = n > 0 ? (size_t)n : 0;
	n = proc_read_exe(tid, c->exe, sizeof(c->exe));
	c->exe_len = n > 0 ? (size_t)n : 0;
}

static void begin(struct observation *o, enum wire_source source, const struct caller *caller)
{
	observation_init(o, source, caller->tgid, caller->comm, caller->comm_len, monotonic_ns());
}

static void finish(struct observation *o, struct event_queue *q, const struct caller *caller)
{
	if (caller->exe_len)
		observation_add_bytes(o, WIRE_KEY_EXE, caller->exe, caller->exe_len);
	event_queue_observe(q, &o->d);
}

static void report_denied(struct event_queue *q, const struct seccomp_data *call,
			  const struct caller *caller, const struct watch_verdict *v,
			  const char *via)
{
	const char *capability = capability_name(v->capability), *error = error_name(v->error);
	char name[SYSCALL_NAME_MAX];
	struct observation o;

	begin(&o, WIRE_CAPABILITY_DENIED, caller);
	observation_add_name(&o, WIRE_KEY_SYSCALL, syscall_name_abi(call->arch, call->nr, name));
	observation_add_name(&o, WIRE_KEY_ERROR, error ? error : "EPERM");
	if (capability)
		observation_add_name(&o, WIRE_KEY_CAPABILITY, capability);
	observation_add_name(&o, WIRE_KEY_VIA, via);
	finish(&o, q, caller);
}

/* Packet and netlink sockets have no BPF hook; a net source that polls sees no raw ones either. */
static void report_socket(struct event_queue *q, const struct seccomp_data *call,
			  const struct caller *caller)
{
	char type[SOCKET_TEXT_MAX], protocol[SOCKET_TEXT_MAX];
	const char *family;
	struct observation o;

	if (call->nr != __NR_socket || !socket_describe(call, &family, type, protocol) ||
	    (family[0] == 'i' && net_view_sees_raw_sockets()))
		return;
	begin(&o, WIRE_NET_SOCKET_CREATED, caller);
	observation_add_name(&o, WIRE_KEY_FAMILY, family);
	observation_add_name(&o, WIRE_KEY_TYPE, type);
	observation_add_name(&o, WIRE_KEY_PROTOCOL, protocol);
	finish(&o, q, caller);
}

/* musl declares the request as an int, which these do not fit; the kernel takes 32 bits. */
static int notify_ioctl(int fd, unsigned long request, const void *argument)
{
	return ioctl(fd, (int)request, argument);
}

/* The verdict on a call that is not watched. */
static struct watch_verdict refuse(const struct seccomp_data *call, uint32_t arch,
				   const struct listener_rule *rule)
{
	if (syscall_is_foreign(call->arch, call->nr, arch))
		return (struct watch_verdict){.denied = true, .error = ENOSYS, .capability = -1};
	return (struct watch_verdict){
		.denied = true,
		.error = rule ? (int)rule->error : EPERM,
		.capability = capability_of_syscall(call->nr, call->args[0], EPERM),
	};
}

static void answer_one(struct notify *n, const struct slot *s, struct event_queue *q,
		       const struct seccomp_notif *req)
{
	struct seccomp_notif_resp *resp = (struct seccomp_notif_resp *)n->response;
	const struct listener_message *m = &s->table->message;
	const struct listener_rule *rule = NULL;
	struct watch_verdict v = {0};
	struct caller caller;
	bool watched;

	if (req->data.arch == m->arch)
		rule = listener_match(m->rules, m->n_rules, &req->data);
	watched = rule && rule->action == LISTENER_WATCH;
	memset(n->response, 0, n->sizes.seccomp_notif_resp);
	resp->id = req->id;
	read_caller((pid_t)req->pid, &caller);
	if (!watched) {
		v = refuse(&req->data, m->arch, rule);
		resp->error = -v.error;
	} else {
		resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		if (caller.has_effective)
			v = watch_judge(&req->data, caller.effective);
	}
	/* If the caller is gone, its pid may be another process's already. */
	if (notify_ioctl(s->fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &req->id) < 0) {
		caller = (struct caller){.tgid = caller.tgid};
		v.denied = v.denied && !watched;
		watched = false;
	}
	/*
	 * It fails if a signal has interrupted the call. The program, or the kernel for it, makes
	 * the call again, and it is reported again: the two cannot be distinguished.
	 */
	(void)!notify_ioctl(s->fd, SECCOMP_IOCTL_NOTIF_SEND, resp);
	if (probe_excludes(n->config, caller.tgid))
		return;
	if (v.denied)
		report_denied(q, &req->data, &caller, &v, watched ? "seccomp-notify" : "profile");
	else if (watched)
		report_socket(q, &req->data, &caller);
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

static unsigned serve_event(struct notify *n, const struct epoll_event *event,
			    struct event_queue *q)
{
	struct slot *s = &n->slots[event->data.u32];

	if (event->data.u32 == SOCKET_ID || s->state != SLOT_SERVING)
		return 0;
	if (event->events & EPOLLIN)
		return serve(n, s, q);
	slot_free(n, s); /* the last process under this filter is gone */
	return 0;
}

static void meet_launcher(struct notify *n, const struct epoll_event *event)
{
	if (event->data.u32 == SOCKET_ID)
		accept_one(n);
	else if (n->slots[event->data.u32].state == SLOT_PENDING)
		pending_readable(n, &n->slots[event->data.u32]);
}

static int seccomp_notify_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct notify *n = (struct notify *)probe;
	const uint64_t until_ns = monotonic_ns() + TURN_NS;
	struct epoll_event events[EVENTS_MAX];

	for (unsigned done = 0; done < budget && monotonic_ns() < until_ns;) {
		const int count = epoll_wait(n->probe.fd, events, ARRAY_SIZE(events), 0);

		if (count < 0 && errno != EINTR)
			return -errno;
		if (count <= 0)
			return 0;
		/* Callers that wait for an answer come before launchers. */
		for (int i = 0; i < count; i++)
			done += 1 + serve_event(n, &events[i], q);
		for (int i = 0; i < count; i++)
			meet_launcher(n, &events[i]);
	}
	return 1;
}

static int seccomp_notify_check(struct probe *probe, _unused_ struct event_queue *q)
{
	struct notify *n = (struct notify *)probe;

	expire_pending(n);
	pause_socket(n, false);
	stale_workloads_check(&n->stale);
	return 1;
}

/* Workloads of an earlier agent make other results doubtful, so they are named first. */
static const char *seccomp_notify_announce(const struct probe *probe)
{
	const struct notify *n = (const struct notify *)probe;

	if (n->stale.found)
		return "seccomp-notify-stale";
	return n->serving ? probe->ops->via : "none";
}

static void seccomp_notify_close(struct probe *probe)
{
	struct notify *n = (struct notify *)probe;

	for (unsigned i = 0; i < LISTENER_MAX; i++)
		slot_free(n, &n->slots[i]);
	if (n->socket >= 0)
		unlink(n->config->listener_socket);
	stale_workloads_free(&n->stale);
	close_fd(n->socket);
	close_fd(n->probe.fd);
	free(n);
}

/* The folder of the socket, of which only the last part may be missing. */
static void make_folder(const char *path)
{
	char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path)
		return;
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	/* bind(2) returns the reason if the path cannot be used. */
	(void)!mkdir(folder, 0755);
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
	/* If no process listens there, the socket is from a killed agent. */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		*ret_step = "another agent listens on the listener socket";
		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
			return -EADDRINUSE;
		unlink(path);
	}
	*ret_step = "bind of the listener socket";
	make_folder(path);
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(mask);
	if (r < 0)
		return r;
	n->socket = take_fd(&fd);
	*ret_step = "listen on the listener socket";
	return listen(n->socket, LISTENER_MAX) < 0 ? -errno : 0;
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
	stale_workloads_init(&n->stale);
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
	r = pid_ns_read(0, n->pid_ns);
	if (r < 0)
		goto fail;
	step = "epoll_create1";
	n->probe.fd = epoll_create1(EPOLL_CLOEXEC);
	r = n->probe.fd < 0 ? -errno : listen_socket(n, config->listener_socket, &step);
	if (r == 0)
		r = watch_fd(n, n->socket, SOCKET_ID);
	if (r < 0)
		goto fail;
	stale_workloads_find(&n->stale, n->pid_ns);
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
