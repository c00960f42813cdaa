/* SPDX-License-Identifier: MIT */
/*
 * Rules of a notifying filter: see listener_rules.h.
 */
#include "guest-agent/probes/listener_rules.h"

#include <asm/unistd.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/util.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/net_program.h"

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

static bool is_device(uint64_t mode)
{
	return S_ISCHR((mode_t)mode) || S_ISBLK((mode_t)mode);
}

/* Whether the kernel asks for the capability, with these arguments. */
static bool wants_capability(const struct seccomp_data *call)
{
	const int family = (int)call->args[0], type = (int)call->args[1] & SOCK_TYPE_MASK;

	switch (call->nr) {
	case __NR_socket: /* netlink sockets need none */
		return family == AF_PACKET ||
		       ((family == AF_INET || family == AF_INET6) && type == SOCK_RAW);
#ifdef __NR_mknod
	case __NR_mknod: return is_device(call->args[1]);
#endif
	case __NR_mknodat: return is_device(call->args[2]);
	default: return true;
	}
}

struct watch_verdict watch_judge(const struct seccomp_data *call, uint64_t effective)
{
	const int capability = capability_of_syscall(call->nr, call->args[0], EPERM);

	return (struct watch_verdict){
		.denied = capability >= 0 && wants_capability(call) && !has(effective, capability),
		.error = EPERM,
		.capability = capability,
	};
}

static const char *family_name(int family)
{
	switch (family) {
	case AF_PACKET: return "packet";
	case AF_NETLINK: return "netlink";
	case AF_INET: return "inet";
	case AF_INET6: return "inet6";
	default: return NULL;
	}
}

bool socket_describe(const struct seccomp_data *call, const char **ret_family,
		     char ret_type[SOCKET_TEXT_MAX], char ret_protocol[SOCKET_TEXT_MAX])
{
	static const char *const types[] = {
		[SOCK_STREAM] = "stream", [SOCK_DGRAM] = "dgram",	  [SOCK_RAW] = "raw",
		[SOCK_RDM] = "rdm",	  [SOCK_SEQPACKET] = "seqpacket", [SOCK_PACKET] = "packet",
	};
	const int family = (int)call->args[0], protocol = (int)call->args[2];
	const unsigned type = (unsigned)call->args[1] & SOCK_TYPE_MASK;

	*ret_family = family_name(family);
	if (!*ret_family || ((family == AF_INET || family == AF_INET6) && type != SOCK_RAW))
		return false;
	if (type < ARRAY_SIZE(types) && types[type])
		snprintf(ret_type, SOCKET_TEXT_MAX, "%s", types[type]);
	else
		snprintf(ret_type, SOCKET_TEXT_MAX, "%u", type);
	if (family == AF_NETLINK && protocol == NETLINK_NETFILTER)
		snprintf(ret_protocol, SOCKET_TEXT_MAX, "netfilter");
	else if (family == AF_NETLINK && protocol == NETLINK_XFRM)
		snprintf(ret_protocol, SOCKET_TEXT_MAX, "xfrm");
	else if (family == AF_PACKET) /* an Ethernet type, in network byte order */
		snprintf(ret_protocol, SOCKET_TEXT_MAX, "0x%04x", ntohs((uint16_t)protocol));
	else if (family != AF_NETLINK && net_protocol_name((unsigned)protocol))
		snprintf(ret_protocol, SOCKET_TEXT_MAX, "%s",
			 net_protocol_name((unsigned)protocol));
	else
		snprintf(ret_protocol, SOCKET_TEXT_MAX, "%d", protocol);
	return true;
}
