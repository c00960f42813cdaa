/* SPDX-License-Identifier: MIT */
/*
 * Rules of a notifying filter: see listener_rules.h.
 */
#include "guest-agent/probes/listener_rules.h"

#include <asm/unistd.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/util.h"
#include "guest-agent/probes/capability_table.h"

#define SOCK_TYPE_MASK 0xf /* the rest are flags: linux/net.h */

int listener_message_check(const void *data, size_t len)
{
	const struct listener_message *m = data;

	if (len < LISTENER_MESSAGE_SIZE(1) || m->magic != LISTENER_MAGIC ||
	    m->version != LISTENER_VERSION || m->arch != syscall_native_arch() || m->n_rules < 1 ||
	    m->n_rules > LISTENER_RULES_MAX || len != LISTENER_MESSAGE_SIZE(m->n_rules))
		return -EPROTO;
	for (uint32_t i = 0; i < m->n_rules; i++) {
		const struct listener_rule *r = &m->rules[i];

		if (r->action == LISTENER_REFUSE ? r->error < 1 || r->error > LISTENER_ERRNO_MAX
						 : r->action != LISTENER_WATCH || r->error != 0)
			return -EPROTO;
		if (r->n_conditions > LISTENER_CONDITIONS_MAX)
			return -EPROTO;
		for (uint32_t k = 0; k < r->n_conditions; k++)
			if (r->conditions[k].arg > 5)
				return -EPROTO;
	}
	return 0;
}

const struct listener_rule *listener_match(const struct listener_rule *rules, size_t n,
					   const struct seccomp_data *call)
{
	for (size_t i = 0; i < n; i++) {
		const struct listener_rule *r = &rules[i];
		bool all = r->nr == (uint32_t)call->nr;

		for (uint32_t k = 0; all && k < r->n_conditions; k++) {
			const struct listener_condition *c = &r->conditions[k];

			all = ((uint32_t)call->args[c->arg] & c->mask) == c->value;
		}
		if (all)
			return r;
	}
	return NULL;
}

static bool has(uint64_t set, int capability)
{
	return set >> capability & 1;
}

/* net/ipv4/af_inet.c __inet_bind(), net/ipv6/af_inet6.c __inet6_bind() */
static struct watch_verdict judge_bind(const struct capability_sets *sets, const void *argument,
				       size_t len, unsigned unprivileged_port)
{
	struct sockaddr_in in;
	unsigned port;

	/* family and port are at the same place in both. */
	_Static_assert(offsetof(struct sockaddr_in, sin_port) ==
			       offsetof(struct sockaddr_in6, sin6_port),
		       "one reader for both");
	if (len < offsetof(struct sockaddr_in, sin_addr))
		return (struct watch_verdict){0};
	memcpy(&in, argument, offsetof(struct sockaddr_in, sin_addr));
	port = ntohs(in.sin_port);
	return (struct watch_verdict){
		.denied = (in.sin_family == AF_INET || in.sin_family == AF_INET6) && port &&
			  port < unprivileged_port && !has(sets->effective, CAP_NET_BIND_SERVICE),
		.error = EACCES,
		.capability = CAP_NET_BIND_SERVICE,
	};
}

/* security/commoncap.c cap_capset() */
static struct watch_verdict judge_capset(const struct capability_sets *sets, const void *argument,
					 size_t len)
{
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct data[2];
	uint64_t effective, permitted, inheritable;

	_Static_assert(sizeof(header) == WATCH_CAPSET_HEADER, "as the kernel has it");
	_Static_assert(sizeof(data) == WATCH_CAPSET_DATA, "as the kernel has it");
	if (len < sizeof(header) + sizeof(data))
		return (struct watch_verdict){0};
	memcpy(&header, argument, sizeof(header));
	memcpy(data, (const uint8_t *)argument + sizeof(header), sizeof(data));
	if (header.version != _LINUX_CAPABILITY_VERSION_3)
		return (struct watch_verdict){0};
	effective = (uint64_t)data[1].effective << 32 | data[0].effective;
	permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
	inheritable = (uint64_t)data[1].inheritable << 32 | data[0].inheritable;
	if (permitted & ~sets->permitted || effective & ~permitted)
		return (struct watch_verdict){.denied = true, .error = EPERM, .capability = -1};
	return (struct watch_verdict){
		.denied = inheritable & ~(sets->inheritable | sets->permitted) &&
			  !has(sets->effective, CAP_SETPCAP),
		.error = EPERM,
		.capability = CAP_SETPCAP,
	};
}

static bool is_device(uint64_t mode)
{
	return S_ISCHR((mode_t)mode) || S_ISBLK((mode_t)mode);
}

/* Whether the arguments are such that the call wants its capability. */
static bool wants_capability(const struct seccomp_data *call)
{
	const int family = (int)call->args[0], type = (int)call->args[1] & SOCK_TYPE_MASK;

	switch (call->nr) {
	case __NR_socket:
		return family == AF_PACKET ||
		       ((family == AF_INET || family == AF_INET6) && type == SOCK_RAW);
#ifdef __NR_mknod
	case __NR_mknod: return is_device(call->args[1]);
#endif
	case __NR_mknodat: return is_device(call->args[2]);
	default: return true;
	}
}

struct watch_verdict watch_judge(const struct seccomp_data *call,
				 const struct capability_sets *sets, const void *argument,
				 size_t len, unsigned unprivileged_port)
{
	int capability;

	if (call->nr == __NR_bind)
		return judge_bind(sets, argument, len, unprivileged_port);
	if (call->nr == __NR_capset)
		return judge_capset(sets, argument, len);
	capability = capability_of_syscall(call->nr, call->args[0], EPERM);
	return (struct watch_verdict){
		.denied = capability >= 0 && wants_capability(call) &&
			  !has(sets->effective, capability),
		.error = EPERM,
		.capability = capability,
	};
}
