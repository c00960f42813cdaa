/* SPDX-License-Identifier: MIT */
#include "guest-agent/probes/seccomp_notify_stale.h"

#include <fcntl.h>
#include <linux/capability.h>

#include "common/handover.h"
#include "common/util.h"

#define CHUNK	      4096u
#define MOUNTINFO_MAX (1024u * 1024u) /* what is read of one process */

static const char marker[] = " " PROFILE_MOUNT_SOURCE " ";

int pid_ns_read(pid_t pid, char ret[PID_NS_LINK_MAX])
{
	char path[64];
	ssize_t n;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	else
		snprintf(path, sizeof(path), "/proc/self/ns/pid");
	n = readlink(path, ret, PID_NS_LINK_MAX - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

bool is_profile_workload(pid_t pid)
{
	struct proc_status status;
	struct proc_stat st;
	uint64_t permitted;

	/* Most processes are ruled out by their capabilities, and these are read at once. */
	if (proc_read_permitted(pid, &permitted) == 0 && permitted >> CAP_SYS_PTRACE & 1)
		return false;
	return facts_both(pid, &status, &st) != 0 || status.seccomp;
}

/* Whether the profile has made a mount in the process's mount namespace. */
static bool has_profile_mount(pid_t pid)
{
	char path[64], text[CHUNK];
	_cleanup_close_ int fd = -1;
	size_t matched = 0;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (size_t total = 0; fd >= 0 && total < MOUNTINFO_MAX;) {
		const ssize_t n = read(fd, text, sizeof(text));

		if (n <= 0)
			return false;
		total += (size_t)n;
		for (ssize_t i = 0; i < n; i++) {
			/* Its only spaces are the ends: another beginning is a space. */
			matched = text[i] == marker[matched] ? matched + 1 : text[i] == ' ';
			if (matched == sizeof(marker) - 1)
				return true;
		}
	}
	return false;
}

static bool is_stale(const struct stale_workloads *s, pid_t pid)
{
	char ns[PID_NS_LINK_MAX];

	return is_profile_workload(pid) && pid_ns_read(pid, ns) == 0 && !strcmp(ns, s->pid_ns) &&
	       has_profile_mount(pid);
}

void stale_workloads_init(struct stale_workloads *s)
{
	*s = (struct stale_workloads){.dir.fd = -1};
}

/* Looks at up to max processes. Ends the search when it finds one, or when there are no more. */
static void search(struct stale_workloads *s, unsigned max)
{
	pid_t pid;

	if (s->dir.fd < 0 && proc_dir_open(&s->dir) < 0)
		return;
	for (unsigned i = 0; i < max; i++) {
		const int r = proc_dir_next(&s->dir, &pid);

		if (r > 0 && !is_stale(s, pid))
			continue;
		s->found = r > 0;
		s->last = pid;
		stale_workloads_free(s);
		return;
	}
}

void stale_workloads_find(struct stale_workloads *s, const char *pid_ns)
{
	snprintf(s->pid_ns, sizeof(s->pid_ns), "%s", pid_ns);
	search(s, UINT32_MAX);
}

void stale_workloads_check(struct stale_workloads *s)
{
	if (!s->found || (s->dir.fd < 0 && is_stale(s, s->last)))
		return;
	/* That one is gone. It stays "found" until the whole search finds none. */
	search(s, STALE_PIDS_PER_CHECK);
}

void stale_workloads_free(struct stale_workloads *s)
{
	if (s->dir.fd >= 0)
		proc_dir_close(&s->dir);
	s->dir.fd = -1;
}
