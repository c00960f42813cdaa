/* SPDX-License-Identifier: MIT */
#include "guest-agent/kernel_options.h"

#include "common/util.h"
#include "guest-agent/options.h"

static const struct {
	enum probe_family family;
	const char *via, *options;
} kernel_options[] = {
	{PROBE_PROCESS, "proc-connector", "CONFIG_CONNECTOR CONFIG_PROC_EVENTS"},
	{PROBE_PROCESS, "proc-walk", "CONFIG_PROC_FS"},
	{PROBE_NET, "cgroup-bpf", "CONFIG_BPF_SYSCALL CONFIG_CGROUP_BPF"},
	{PROBE_NET, "audit", "CONFIG_AUDIT CONFIG_AUDITSYSCALL"},
	{PROBE_NET, "proc-net", "CONFIG_PROC_FS CONFIG_INET"},
	{PROBE_CAPABILITY, "seccomp-notify", "CONFIG_SECCOMP CONFIG_SECCOMP_FILTER"},
	{PROBE_CAPABILITY, "audit", "CONFIG_AUDIT CONFIG_AUDITSYSCALL"},
	{PROBE_FS, "fanotify", "CONFIG_FANOTIFY CONFIG_EXPORTFS"},
	{PROBE_FS, "inotify", "CONFIG_INOTIFY_USER"},
};

const char *probe_kernel_options(enum probe_family family, const char *via)
{
	for (size_t i = 0; i < ARRAY_SIZE(kernel_options); i++)
		if (kernel_options[i].family == family &&
		    (strcmp(via, SOURCE_ANY) == 0 || strcmp(via, kernel_options[i].via) == 0))
			return kernel_options[i].options;
	return "";
}
