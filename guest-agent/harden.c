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
	/*
	 * By number, because musl has no wrapper. Since Linux 5.9; on an older kernel inherited
	 * descriptors stay open.
	 */
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

static int raise_limits(void)
{
	static const int resources[] = {RLIMIT_NPROC, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING};
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(resources); i++)
		if (prlimit(0, resources[i], &unlimited, NULL) < 0)
			r = -errno;
	return r;
}

static int raise_sysctl(const char *path, uint64_t least)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	char text[24];
	uint64_t now;
	ssize_t n;

	/* A kernel without it has no such limit. */
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return n < 0 ? -errno : -ENODATA;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (parse_u64(text, 0, UINT64_MAX, &now) == 0 && now >= least)
		return 0;
	n = snprintf(text, sizeof(text), "%" PRIu64 "\n", least);
	/* At the start: elsewhere a write to a sysctl is ignored. */
	return pwrite(fd, text, (size_t)n, 0) < 0 ? -errno : 0;
}

/*
 * fs.file-max holds for everybody but root, so a root workload could use up what the agent's own
 * user needs. The others hold for each user; the agent's user needs them for its watches.
 */
static int raise_sysctls(void)
{
	static const struct {
		const char *path;
		uint64_t least;
	} sysctls[] = {
		{"/proc/sys/fs/file-max", 1048576},
		{"/proc/sys/fs/inotify/max_user_watches", 65536},
		{"/proc/sys/fs/inotify/max_user_instances", 1024},
		{"/proc/sys/fs/inotify/max_queued_events", 65536},
		{"/proc/sys/fs/epoll/max_user_watches", 65536},
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(sysctls); i++) {
		const int one = raise_sysctl(sysctls[i].path, sysctls[i].least);

		r = r ? r : one;
	}
	return r;
}

int harden_log(void)
{
	_cleanup_close_ int fd =
		open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return dup2(fd, STDERR_FILENO) < 0 ? -errno : 0;
}

static int lock_memory(void)
{
	struct rlimit limit = {0, 0};
	/* CAP_IPC_LOCK goes next: what a source that takes over will map must not run into the
	 * limit, which is 64 KiB before Linux 5.16. Where it stays, later memory is not locked.
	 */
	const int later = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY
				  ? MCL_FUTURE
				  : 0;

	/* Pages are locked when they are touched, so unused memory costs nothing. */
	return mlockall(MCL_CURRENT | MCL_ONFAULT | later) < 0 ? -errno : 0;
}

/* Make the permitted capabilities effective. */
static int raise_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(data); i++)
		data[i].effective = data[i].permitted;
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int harden_identity(uid_t uid, const char *folder)
{
	int r;

	if (uid == 0 || geteuid() != 0)
		return 0;
	/* Another user without its capabilities would see less than root does: first the proof that
	 * they can be raised. */
	r = raise_capabilities();
	if (r < 0)
		return r;
	if (chown(folder, uid, (gid_t)uid) < 0 && errno != ENOENT)
		return -errno;
	/* A raw system call: musl's wrappers stop other threads first, and there are none. */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setgroups, 0, NULL) < 0 ||
	    syscall(SYS_setresgid, uid, uid, uid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
		return -errno;
	return raise_capabilities();
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

struct harden_step {
	const char *name;
	int result;
};

/* Returns the first failure, with all of them in ret_why. */
static int report(const struct harden_step *steps, size_t n, char ret_why[HARDEN_WHY_MAX])
{
	size_t used = 0;
	int first = 0;

	for (size_t i = 0; i < n; i++) {
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

int harden_limits(bool sysctls, char ret_why[HARDEN_WHY_MAX])
{
	/* Not later: a process that is not dumpable may not write its own oom_score_adj. */
	const struct harden_step steps[] = {
		{"oom_score_adj", protect_from_oom()},
		{"resource limits", raise_limits()},
		{"sysctls", sysctls ? raise_sysctls() : 0},
	};

	return report(steps, ARRAY_SIZE(steps), ret_why);
}

int harden(const struct probe *const *probes, size_t n, char ret_why[HARDEN_WHY_MAX])
{
	uint64_t capabilities = CAPABILITIES_ALWAYS;

	for (size_t i = 0; i < n; i++)
		if (probes[i])
			capabilities |= probes[i]->ops->capabilities;
	/* Locking needs what capset takes away; changed credentials make dumpable again. */
	const struct harden_step steps[] = {
		{"mlockall", lock_memory()},	       {"capset", cut_capabilities(capabilities)},
		{"no_new_privs", no_new_privileges()}, {"dumpable", not_dumpable()},
		{"seccomp", agent_filter_install()},
	};

	return report(steps, ARRAY_SIZE(steps), ret_why);
}
