/* SPDX-License-Identifier: MIT */
/*
 * Connects and refused privilege by the kernel's audit, for guests whose workload our launcher does
 * not start. Only when asked for: with any rule loaded every system call of the guest costs more.
 *
 * The agent is the audit daemon: else the kernel would print each record on the console. Where
 * there is one already, it stays, and the agent reads along from the multicast group. Two sources
 * share this, one a family: the first to open sets audit up, the last to close puts it back, unless
 * the configuration was locked.
 *
 * Commands go over a socket of their own, so that no record is lost while an answer is awaited.
 *
 * Single-threaded; allocates in open() only.
 */
#include <arpa/inet.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/audit_join.h"
#include "guest-agent/probes/audit_record.h"
#include "guest-agent/probes/audit_rules.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/netlink.h"
#include "guest-agent/probes/sources.h"

#define RECEIVE_BUFFER	   (8 << 20)
#define BACKLOG_LIMIT	   8192u
#define ANSWER_MS	   2000
#define LEFTOVERS_MAX	   32u /* rules of an agent that was killed */
#define RULE_STRINGS_MAX   64u /* longer ones are not ours */
#define DATAGRAM_MAX	   (NLMSG_HDRLEN + AUDIT_RECORD_MAX)
#define AUDIT_OFF	   0u
#define AUDIT_LOCKED	   2u
#define SOCKETCALL_CONNECT 3u

struct audit {
	const struct probe_config *config;
	unsigned users;
	bool wanted[_PROBE_FAMILY_MAX];
	bool registered; /* as the daemon; else another is */
	bool locked;
	bool gone;   /* another process has taken audit over */
	int records; /* the socket of the records */
	int control; /* and the one of the commands */
	uint32_t seq;
	uint32_t lost;	   /* the kernel's count, as last read */
	uint32_t drops_at; /* of the multicast socket */
	uint64_t malformed;
	struct audit_status before; /* what close() puts back */
	bool loaded[_AUDIT_RULE_MAX];
	struct audit_join join;
	_Alignas(8) uint8_t buf[DATAGRAM_MAX];
};

static struct audit *audit; /* NULL: no source of it is open */

/* Commands. */

static int command_send(struct audit *a, int fd, uint16_t type, uint16_t flags, const void *data,
			size_t len)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct nlmsghdr h = {.nlmsg_len = (uint32_t)(NLMSG_HDRLEN + len),
			     .nlmsg_type = type,
			     .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
			     .nlmsg_seq = ++a->seq};
	struct iovec iov[] = {{&h, NLMSG_HDRLEN}, {(void *)data, len}};
	struct msghdr msg = {.msg_name = &kernel,
			     .msg_namelen = sizeof(kernel),
			     .msg_iov = iov,
			     .msg_iovlen = ARRAY_SIZE(iov)};

	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The next datagram of the kernel. Returns its length, or a negative errno. */
static ssize_t datagram_receive(struct audit *a, int fd)
{
	struct sockaddr_nl from;
	socklen_t from_len = sizeof(from);
	ssize_t n;

	for (;;) {
		n = recvfrom(fd, a->buf, sizeof(a->buf), MSG_DONTWAIT, (struct sockaddr *)&from,
			     &from_len);
		if (n < 0)
			return -errno;
		if (from.nl_pid == 0 && n >= (ssize_t)NLMSG_HDRLEN)
			return n;
	}
}

/*
 * Wait for a message of the type that answers our last command, or for its error. Returns the
 * length of the datagram in a->buf, 0 for an acknowledgement, or a negative errno.
 */
static ssize_t answer_wait(struct audit *a, int fd, uint16_t type)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)a->buf;
	const uint64_t until = monotonic_ns() + ANSWER_MS * NSEC_PER_MSEC;

	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now = monotonic_ns();
		ssize_t n;

		if (now >= until)
			return -ETIMEDOUT;
		poll(&pfd, 1, (int)((until - now) / NSEC_PER_MSEC) + 1);
		n = datagram_receive(a, fd);
		if (n == -EAGAIN || n == -EINTR || n == -ENOBUFS)
			continue;
		if (n < 0)
			return n;
		if (h->nlmsg_seq != a->seq)
			continue;
		if (h->nlmsg_type == NLMSG_ERROR && n >= (ssize_t)NLMSG_LENGTH(sizeof(int)))
			return *(const int *)NLMSG_DATA(h);
		if (h->nlmsg_type == type || h->nlmsg_type == NLMSG_DONE)
			return n;
	}
}

static int command(struct audit *a, int fd, uint16_t type, const void *data, size_t len)
{
	int r = command_send(a, fd, type, NLM_F_ACK, data, len);

	return r < 0 ? r : (int)answer_wait(a, fd, NLMSG_ERROR);
}

static void status_parse(const struct audit *a, size_t len, struct audit_status *ret)
{
	/* Kernels may know fewer fields or more. */
	*ret = (struct audit_status){0};
	memcpy(ret, a->buf + NLMSG_HDRLEN, MIN(len - NLMSG_HDRLEN, sizeof(*ret)));
}

static int status_get(struct audit *a, struct audit_status *ret)
{
	int r = command_send(a, a->control, AUDIT_GET, 0, NULL, 0);
	ssize_t n = r < 0 ? r : answer_wait(a, a->control, AUDIT_GET);

	if (n < 0)
		return (int)n;
	status_parse(a, (size_t)n, ret);
	return 0;
}

static int status_set(struct audit *a, int fd, const struct audit_status *status)
{
	return command(a, fd, AUDIT_SET, status, sizeof(*status));
}

/* Rules. */

static int rule_command(struct audit *a, uint16_t type, enum audit_rule_id id)
{
	union audit_rule rule;
	int r = audit_rule_build(id, a->config->self, &rule);

	return r < 0 ? r : command(a, a->control, type, rule.bytes, sizeof(rule.bytes));
}

static void rules_unload(struct audit *a, bool connects)
{
	for (unsigned i = 0; i < _AUDIT_RULE_MAX; i++) {
		if (!a->loaded[i] || a->locked || audit_rule_is_connect(i) != connects)
			continue;
		rule_command(a, AUDIT_DEL_RULE, i);
		a->loaded[i] = false;
	}
}

static int rules_load(struct audit *a, bool connects)
{
	for (unsigned i = 0; i < _AUDIT_RULE_MAX && !a->locked; i++) {
		int r;

		if (audit_rule_is_connect(i) != connects)
			continue;
		r = rule_command(a, AUDIT_ADD_RULE, i);
		if (r < 0 && r != -EEXIST && !audit_rule_optional(i))
			return r;
		a->loaded[i] = r == 0 || r == -EEXIST;
	}
	return 0;
}

/*
 * Count the rules of a killed agent, up to this number. Returns the number, or a negative errno;
 * with remove they are deleted.
 */
static int rules_left(struct audit *a, bool remove)
{
	struct {
		size_t len;
		_Alignas(8) uint8_t data[sizeof(struct audit_rule_data) + RULE_STRINGS_MAX];
	} found[LEFTOVERS_MAX];
	const struct nlmsghdr *h = (const struct nlmsghdr *)a->buf;
	int n_found = 0, r;

	r = command_send(a, a->control, AUDIT_LIST_RULES, 0, NULL, 0);
	if (r < 0)
		return r;
	for (;;) {
		ssize_t n = answer_wait(a, a->control, AUDIT_LIST_RULES);
		size_t len;

		if (n <= 0 || h->nlmsg_type == NLMSG_DONE)
			break;
		len = (size_t)n - NLMSG_HDRLEN;
		if (n_found < (int)LEFTOVERS_MAX && len <= sizeof(found[0].data) &&
		    audit_rule_is_ours(NLMSG_DATA(h), len)) {
			memcpy(found[n_found].data, NLMSG_DATA(h), len);
			found[n_found++].len = len;
		}
	}
	for (int i = 0; remove && i < n_found; i++)
		command(a, a->control, AUDIT_DEL_RULE, found[i].data, found[i].len);
	return n_found;
}

/* Reports. */

/* The address in a form to report; false: another family. */
static bool read_address(const struct audit_record *call, char out[static INET6_ADDRSTRLEN],
			 const char **ret_family, unsigned *ret_port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_vm vm;
	} u = {0};
	size_t len = MIN(call->sockaddr_len, sizeof(u));

	memcpy(&u, call->sockaddr, len);
	if (len < sizeof(u.any.sa_family))
		return false;
	switch (u.any.sa_family) {
	case AF_INET:
		if (len < offsetof(struct sockaddr_in, sin_zero))
			return false;
		*ret_family = "inet";
		*ret_port = ntohs(u.in.sin_port);
		return inet_ntop(AF_INET, &u.in.sin_addr, out, INET6_ADDRSTRLEN);
	case AF_INET6:
		if (len < offsetof(struct sockaddr_in6, sin6_scope_id))
			return false;
		*ret_family = "inet6";
		*ret_port = ntohs(u.in6.sin6_port);
		return inet_ntop(AF_INET6, &u.in6.sin6_addr, out, INET6_ADDRSTRLEN);
	case AF_VSOCK:
		if (len < sizeof(u.vm))
			return false;
		*ret_family = "vsock";
		*ret_port = u.vm.svm_port;
		snprintf(out, INET6_ADDRSTRLEN, "%u", u.vm.svm_cid);
		return true;
	default: return false;
	}
}

static const char *result_name(int64_t exit, char buf[static SYSCALL_NAME_MAX])
{
	const char *name;

	if (exit >= 0)
		return "ok";
	name = exit >= -4095 ? error_name((int)-exit) : NULL;
	if (name)
		return name;
	snprintf(buf, SYSCALL_NAME_MAX, "#%" PRId64, -exit);
	return buf;
}

static bool is_connect(const struct audit_record *call)
{
	char buf[SYSCALL_NAME_MAX];
	const char *name;

	if (call->uring_connect)
		return true;
	name = syscall_name(call->arch, call->nr, buf);
	return !strcmp(name, "connect") ||
	       (!strcmp(name, "socketcall") && call->a0 == SOCKETCALL_CONNECT);
}

static void report_connect(struct event_queue *q, const struct audit_record *call)
{
	char address[INET6_ADDRSTRLEN], buf[SYSCALL_NAME_MAX];
	struct observation o;
	const char *family;
	unsigned port;

	if (!read_address(call, address, &family, &port))
		return;
	observation_init(&o, WIRE_NET_CONNECT_ATTEMPTED, call->pid, call->comm, call->comm_len,
			 monotonic_ns());
	observation_add_name(&o, WIRE_KEY_FAMILY, family);
	observation_add_name(&o, WIRE_KEY_ADDRESS, address);
	declaration_add_uint(&o.d, WIRE_KEY_PORT, port);
	/* The call that submitted it to io_uring is reported with its own result. */
	if (!call->uring_connect)
		observation_add_name(&o, WIRE_KEY_RESULT, result_name(call->exit, buf));
	if (call->exe_len)
		observation_add_bytes(&o, WIRE_KEY_EXE, call->exe, call->exe_len);
	event_queue_observe(q, &o.d);
}

static void report_denied(struct event_queue *q, const struct audit_record *call)
{
	const int error = (int)-call->exit;
	char buf[SYSCALL_NAME_MAX];
	const char *name, *capability;
	struct observation o;

	name = call->kind == AUDIT_KIND_URING ? "io_uring_enter"
					      : syscall_name(call->arch, call->nr, buf);
	/* The 32-bit calls have other numbers but the same names. */
	capability = capability_name(capability_of_syscall(syscall_number(name), call->a0, error));
	observation_init(&o, WIRE_CAPABILITY_DENIED, call->pid, call->comm, call->comm_len,
			 monotonic_ns());
	observation_add_name(&o, WIRE_KEY_SYSCALL, name);
	observation_add_name(&o, WIRE_KEY_ERROR, error_name(error));
	if (capability)
		observation_add_name(&o, WIRE_KEY_CAPABILITY, capability);
	if (call->exe_len)
		observation_add_bytes(&o, WIRE_KEY_EXE, call->exe, call->exe_len);
	observation_add_name(&o, WIRE_KEY_VIA, "audit");
	event_queue_observe(q, &o.d);
}

static void report(struct audit *a, struct event_queue *q, const struct audit_record *call)
{
	if (probe_excludes(a->config, call->pid))
		return;
	if (a->wanted[PROBE_NET] && is_connect(call))
		report_connect(q, call);
	if (a->wanted[PROBE_CAPABILITY] && (call->exit == -EPERM || call->exit == -EACCES))
		report_denied(q, call);
}

/* Loss and health. */

/*
 * One stream of records serves both families; its losses are counted for the first family in use.
 */
static enum probe_family lost_family(const struct audit *a)
{
	return a->wanted[PROBE_NET] ? PROBE_NET : PROBE_CAPABILITY;
}

static void account_lost(struct audit *a, struct event_queue *q, uint32_t lost)
{
	if (lost != a->lost)
		event_queue_kernel_lost(q, lost_family(a), lost - a->lost);
	a->lost = lost;
}

/* Records that the socket itself dropped: the kernel's count does not include them. */
static void account_drops(struct audit *a, struct event_queue *q)
{
	uint32_t drops;

	if (netlink_drops(a->records, &drops) < 0 || drops == a->drops_at)
		return;
	event_queue_kernel_lost(q, lost_family(a), drops - a->drops_at);
	a->drops_at = drops;
}

static int register_daemon(struct audit *a)
{
	struct audit_status status = {.mask = AUDIT_STATUS_PID, .pid = (uint32_t)a->config->self};

	return status_set(a, a->records, &status);
}

/* The answer to the request of check(). */
static void on_status(struct audit *a, struct event_queue *q, size_t len)
{
	struct audit_status status;

	status_parse(a, len, &status);
	account_lost(a, q, status.lost);
	if (status.enabled == AUDIT_OFF)
		a->gone = true;
	/* The kernel drops a daemon that did not read for long. No other daemon has registered. */
	if (a->registered && status.pid == 0) {
		struct audit_status again = {.mask = AUDIT_STATUS_PID,
					     .pid = (uint32_t)a->config->self};

		command_send(a, a->records, AUDIT_SET, 0, &again, sizeof(again));
	} else if (a->registered && status.pid != (uint32_t)a->config->self) {
		a->gone = true;
	}
}

/* The source. */

static int drain_records(struct audit *a, struct event_queue *q, unsigned budget)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)a->buf;

	for (unsigned done = 0; done < budget; done++) {
		const struct audit_record *call;
		struct audit_record record;
		ssize_t n = datagram_receive(a, a->records);
		int r;

		if (n == -EAGAIN)
			return 0;
		if (n == -EINTR)
			continue;
		if (n == -ENOBUFS) {
			account_drops(a, q);
			continue;
		}
		if (n < 0)
			return (int)n;
		/*
		 * One record in each datagram. Its nlmsg_len cannot be trusted: in datagrams to the
		 * daemon it does not include the header, in datagrams to the group it does.
		 */
		r = audit_record_parse(h->nlmsg_type, (const char *)a->buf + NLMSG_HDRLEN,
				       (size_t)n - NLMSG_HDRLEN, &record);
		if (r == -EBADMSG)
			a->malformed++;
		if (r < 0)
			continue;
		call = audit_join_add(&a->join, &record);
		if (call)
			report(a, q, call);
	}
	return 1;
}

static void drain_control(struct audit *a, struct event_queue *q)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)a->buf;
	ssize_t n;

	while ((n = datagram_receive(a, a->control)) > 0)
		if (h->nlmsg_type == AUDIT_GET)
			on_status(a, q, (size_t)n);
}

/* Lock the configuration until the machine starts again; only after all rules are loaded. */
static void audit_lock(struct audit *a)
{
	struct audit_status status = {.mask = AUDIT_STATUS_ENABLED, .enabled = AUDIT_LOCKED};

	a->locked = status_set(a, a->control, &status) == 0;
}

static int audit_drain(_unused_ struct probe *probe, struct event_queue *q, unsigned budget)
{
	/* All sources are open when the first is drained. */
	if (audit->config->lock_audit && !audit->locked)
		audit_lock(audit);
	drain_control(audit, q);
	if (audit->gone)
		return -EPIPE;
	return drain_records(audit, q, budget);
}

static int audit_check(_unused_ struct probe *probe, struct event_queue *q)
{
	account_drops(audit, q);
	command_send(audit, audit->control, AUDIT_GET, 0, NULL, 0);
	return !audit->gone;
}

/* Restore the configuration as far as possible. */
static void audit_release(struct audit *a)
{
	if (a->registered) {
		struct audit_status status = {.mask = AUDIT_STATUS_PID};

		if (!a->locked && !a->gone) {
			struct audit_status back = a->before;

			back.mask = AUDIT_STATUS_ENABLED | AUDIT_STATUS_BACKLOG_LIMIT |
				    AUDIT_STATUS_BACKLOG_WAIT_TIME;
			status_set(a, a->control, &back);
		}
		status_set(a, a->records, &status);
	}
	close_fd(a->records);
	close_fd(a->control);
	free(a);
}

/* The daemon that is registered already, if it still runs. */
static bool other_daemon(const struct audit *a)
{
	return a->before.pid && a->before.pid != (uint32_t)a->config->self &&
	       (kill((pid_t)a->before.pid, 0) == 0 || errno == EPERM);
}

static int audit_become_daemon(struct audit *a, const char **ret_step)
{
	struct audit_status status = {
		.mask = AUDIT_STATUS_ENABLED | AUDIT_STATUS_BACKLOG_LIMIT |
			AUDIT_STATUS_BACKLOG_WAIT_TIME,
		.enabled = 1,
		.backlog_limit = MAX(a->before.backlog_limit, BACKLOG_LIMIT),
		.backlog_wait_time = 0, /* a full backlog must not make the workload wait */
	};
	int r;

	*ret_step = "registration as the audit daemon";
	r = register_daemon(a);
	if (r < 0)
		return r;
	a->registered = true;
	if (a->locked)
		return 0;
	*ret_step = "AUDIT_SET: enable audit";
	return status_set(a, a->control, &status);
}

static int audit_setup(struct audit *a, const char **ret_step)
{
	int r;

	a->control = netlink_open(NETLINK_AUDIT, 0, RECEIVE_BUFFER, ret_step);
	if (a->control < 0)
		return a->control;
	*ret_step = "AUDIT_GET";
	r = status_get(a, &a->before);
	if (r < 0)
		return r;
	a->lost = a->before.lost;
	/*
	 * The configuration is locked; but the rules of the agent that locked it are still loaded.
	 */
	*ret_step = "the audit configuration is locked, without rules of ours";
	a->locked = a->before.enabled == AUDIT_LOCKED;
	if (a->locked && rules_left(a, false) <= 0)
		return -EPERM;
	if (other_daemon(a)) {
		*ret_step = "another audit daemon is registered and audit is disabled";
		if (a->before.enabled == AUDIT_OFF)
			return -EBUSY;
		a->records = netlink_open(NETLINK_AUDIT, 1u << (AUDIT_NLGRP_READLOG - 1),
					  RECEIVE_BUFFER, ret_step);
		if (a->records < 0)
			return a->records;
	} else {
		a->records = netlink_open(NETLINK_AUDIT, 0, RECEIVE_BUFFER, ret_step);
		if (a->records < 0)
			return a->records;
		r = audit_become_daemon(a, ret_step);
		if (r < 0)
			return r;
	}
	if (!a->locked)
		rules_left(a, true);
	return 0;
}

static int audit_new(const struct probe_config *config, struct audit **ret, const char **ret_step)
{
	struct audit *a = calloc(1, sizeof(*a));
	int r;

	*ret_step = "memory";
	if (!a)
		return -ENOMEM;
	a->config = config;
	a->records = a->control = -1;
	r = audit_setup(a, ret_step);
	if (r < 0) {
		audit_release(a);
		return r;
	}
	*ret = a;
	return 0;
}

static void audit_close(struct probe *probe)
{
	const enum probe_family family = probe->ops->family;

	close_fd(probe->fd);
	free(probe);
	if (!audit)
		return;
	if (audit->wanted[family]) {
		rules_unload(audit, family == PROBE_NET);
		audit->wanted[family] = false;
		audit->users--;
	}
	if (audit->users == 0) {
		audit_release(audit);
		audit = NULL;
	}
}

static int audit_open(const struct probe_config *config, const struct probe_ops *ops,
		      struct probe **ret, char why[PROBE_WHY_MAX])
{
	struct probe *p = calloc(1, sizeof(*p)); /* its fd: an epoll of both sockets */
	struct epoll_event ev = {.events = EPOLLIN};
	const char *step = "memory";
	int r = -ENOMEM;

	if (!p)
		goto fail;
	*p = (struct probe){.ops = ops, .fd = -1};
	r = audit ? 0 : audit_new(config, &audit, &step);
	if (r < 0)
		goto fail;
	step = "epoll";
	p->fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->fd < 0 || epoll_ctl(p->fd, EPOLL_CTL_ADD, audit->records, &ev) < 0 ||
	    epoll_ctl(p->fd, EPOLL_CTL_ADD, audit->control, &ev) < 0) {
		r = -errno;
		goto fail;
	}
	step = "AUDIT_ADD_RULE";
	audit->wanted[ops->family] = true;
	audit->users++;
	r = rules_load(audit, ops->family == PROBE_NET);
	if (r < 0)
		goto fail;
	*ret = p;
	return 0;

fail:
	snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	if (p)
		audit_close(p);
	return r;
}

static int audit_net_open(const struct probe_config *config, struct probe **ret,
			  char why[PROBE_WHY_MAX])
{
	return audit_open(config, &audit_net_ops, ret, why);
}

static int audit_capability_open(const struct probe_config *config, struct probe **ret,
				 char why[PROBE_WHY_MAX])
{
	return audit_open(config, &audit_capability_ops, ret, why);
}

#define AUDIT_CAPABILITIES (UINT64_C(1) << CAP_AUDIT_CONTROL | UINT64_C(1) << CAP_AUDIT_READ)

const struct probe_ops audit_net_ops = {
	.via = "audit",
	.family = PROBE_NET,
	.opt_in = true,
	.capabilities = AUDIT_CAPABILITIES,
	.uses = "the kernel's audit, rules for connect",
	.misses =
		"programs that ran before audit was first enabled, connects that io_uring does in a "
		"thread of the kernel's; slows every system call",
	.open = audit_net_open,
	.drain = audit_drain,
	.check = audit_check,
	.close = audit_close,
};

const struct probe_ops audit_capability_ops = {
	.via = "audit",
	.family = PROBE_CAPABILITY,
	.opt_in = true,
	.capabilities = AUDIT_CAPABILITIES,
	.uses = "the kernel's audit, rules for EPERM and EACCES",
	.misses = "programs that ran before audit was first enabled; slows every system call",
	.open = audit_capability_open,
	.drain = audit_drain,
	.check = audit_check,
	.close = audit_close,
};
