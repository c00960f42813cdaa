/* SPDX-License-Identifier: MIT */
/*
 * Binds without a post_bind: see bind_watch.h.
 */
#include "common/util.h"

#include "guest-agent/probes/bind_watch.h"

#include <linux/capability.h>

#include "guest-agent/probes/proc_file.h"

#define THRESHOLD_FILE	  "/proc/sys/net/ipv4/ip_unprivileged_port_start"
#define THRESHOLD_DEFAULT 1024u

static void remove_at(struct bind_watch *w, size_t i)
{
	w->n--;
	memmove(&w->waiting[i], &w->waiting[i + 1], (w->n - i) * sizeof(w->waiting[0]));
}

bool bind_watch_add(struct bind_watch *w, const struct net_record *bind)
{
	if (w->n == BIND_WATCH_MAX)
		return false;
	w->waiting[w->n++] = *bind;
	return true;
}

void bind_watch_bound(struct bind_watch *w, uint64_t cookie)
{
	for (size_t i = 0; i < w->n; i++) {
		if (w->waiting[i].cookie != cookie)
			continue;
		remove_at(w, i);
		return;
	}
}

bool bind_watch_refused(struct bind_watch *w, uint64_t now_ns, struct net_record *ret)
{
	if (w->n == 0 || now_ns < w->waiting[0].at_ns + BIND_WATCH_WAIT_NS)
		return false;
	*ret = w->waiting[0];
	remove_at(w, 0);
	return true;
}

static unsigned threshold(void)
{
	char text[16];
	uint64_t value;
	int n = proc_read_file(THRESHOLD_FILE, text, sizeof(text) - 1);

	if (n <= 0)
		return THRESHOLD_DEFAULT;
	text[text[n - 1] == '\n' ? n - 1 : n] = '\0';
	return parse_u64(text, 0, UINT16_MAX + 1, &value) < 0 ? THRESHOLD_DEFAULT : (unsigned)value;
}

bool bind_needs_capability(const struct net_record *bind)
{
	const uint16_t port = net_record_port(bind);
	uint64_t effective;

	if (port == 0 || port >= threshold() || !proc_same_net((pid_t)bind->pid))
		return false;
	return proc_read_capabilities((pid_t)bind->pid, &effective) == 0 &&
	       !(effective >> CAP_NET_BIND_SERVICE & 1);
}
