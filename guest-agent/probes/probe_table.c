/* SPDX-License-Identifier: MIT */
/*
 * Every source, by family, in the order of preference.
 */
#include "guest-agent/probes/sources.h"

/* clang-format off */
const struct probe_ops *const probe_table[] = {
	&proc_connector_ops,
	&proc_walk_ops,
	&cgroup_bpf_ops,
	&audit_net_ops, /* opt_in: passed over unless asked for */
	&proc_net_ops,
	&seccomp_notify_ops,
	&audit_capability_ops,
	&fanotify_ops,
	&inotify_ops,
	NULL,
};
/* clang-format on */
