/* SPDX-License-Identifier: MIT */
#include "guest-agent/harden.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "seccomp/agent_filter.h"

/* To read /proc of processes that other users run. */
#define CAPABILITIES_ALWAYS (UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_DAC_READ_SEARCH)

static bool kept(const int *keep, size_t n, int fd)
{
	for (size_t i = 0; i < n; i++)
		if (keep[i] == fd)
			return true;
	return false;
}

static void close_from(int first, int last)
{
	/* By number: musl has no wrapper. Linux 5.9; before it the agent has no business. */
	if (first <= last)
		syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0);
}

void harden_close_inherited(const int *keep, size_t n)
{
	int first = STDERR_FILENO + 1;

	for (;;) {
		int next = INT32_MAX;

		for (size_t i = 0; i < n; i++)
			if (keep[i] >= first && keep[i] < next)
				next = keep[i];
		if (next == INT32_MAX)
			break;
		close_from(first, next - 1);
		first = next + 1;
		while (kept(keep, n, first))
			first++;
	}
	close_from(first, INT32_MAX);
}

static int protect_from_oom(void)
{
	static const char score[] = "-1000";
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, score, sizeof(score) - 1) < 0 ? -errno : 0;
}

static int lock_memory(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	/* CAP_IPC_LOCK goes next: what a source that takes over will map must not run into the
	 * limit, which is 64 KiB before Linux 5.16. Where it stays, the later rather is not locked.
	 */
	const int later = prlimit(0, RLIMIT_MEMLOCK, &unlimited, NULL) == 0 ? MCL_FUTURE : 0;

	/* Pages are locked as they are touched, so that what is never used costs nothing. */
	return mlockall(MCL_CURRENT | MCL_ONFAULT | later) < 0 ? -errno : 0;
}

/* capabilities(7): raw, because a static binary links no libcap. */
static int cut_capabilities(uint64_t mask)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	int r = 0;

	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(mask & (UINT64_C(1) << cap)) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 &&
		    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			r = -errno;
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
		const uint32_t keep = (uint32_t)(mask >> (32 * i));

		data[i].permitted &= keep;
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, data) < 0 ? -errno : r;
}

static int no_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static int not_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? -errno : 0;
}

int harden(const struct probe *const *probes, size_t n, char ret_why[HARDEN_WHY_MAX])
{
	uint64_t capabilities = CAPABILITIES_ALWAYS;
	size_t used = 0;
	int first = 0;

	for (size_t i = 0; i < n; i++)
		if (probes[i])
			capabilities |= probes[i]->ops->capabilities;
	/* The first two need what the third takes away; changed credentials make dumpable again. */
	const struct {
		const char *name;
		int result;
	} steps[] = {
		{"oom_score_adj", protect_from_oom()},
		{"mlockall", lock_memory()},
		{"capset", cut_capabilities(capabilities)},
		{"no_new_privs", no_new_privileges()},
		{"dumpable", not_dumpable()},
		{"seccomp", agent_filter_install()},
	};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		const int r = steps[i].result;

		if (r == 0)
			continue;
		first = first ? first : r;
		used += (size_t)snprintf(ret_why + used, HARDEN_WHY_MAX - used, "%s%s: %s",
					 used ? ", " : "", steps[i].name, strerror(-r));
		used = MIN(used, (size_t)HARDEN_WHY_MAX - 1);
	}
	return first;
}
