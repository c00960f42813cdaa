/* SPDX-License-Identifier: MIT */
#include "host-receiver/confine/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"

/*
 * Newer than some kernel headers that this must build with
 * (Documentation/userspace-api/landlock.rst).
 */
#define ACCESS_FS_TRUNCATE  (UINT64_C(1) << 14) /* ABI 3 */
#define ACCESS_FS_IOCTL_DEV (UINT64_C(1) << 15) /* ABI 5 */
#define ACCESS_NET_BIND_TCP (UINT64_C(1) << 0)	/* ABI 4 */
#define SCOPE_SIGNAL	    (UINT64_C(1) << 1)	/* ABI 6 */

#define READ_FILE  ((uint64_t)LANDLOCK_ACCESS_FS_READ_FILE)
#define READ	   (READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE_FILE (READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE)
#define WRITE                                                                                      \
	(READ | WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |      \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK)

/* struct landlock_ruleset_attr of the newest ABI that is used here. */
struct ruleset {
	uint64_t fs, net, scoped;
};

/*
 * Fill in the rights that the running kernel knows. Returns the size of the struct for this kernel;
 * 0: it has no Landlock.
 */
static size_t choose(const struct confine_access *access, struct ruleset *ret)
{
	const long abi =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 1)
		return 0;
	ret->fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
	if (abi >= 2)
		ret->fs |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		ret->fs |= ACCESS_FS_TRUNCATE;
	if (abi >= 5)
		ret->fs |= ACCESS_FS_IOCTL_DEV;
	ret->net = access->no_listening ? ACCESS_NET_BIND_TCP : 0;
	ret->scoped = access->no_signals ? SCOPE_SIGNAL : 0;
	if (abi < 4)
		return offsetof(struct ruleset, net);
	return abi < 6 ? offsetof(struct ruleset, scoped) : sizeof(*ret);
}

static int grant(int ruleset_fd, const struct confine_path *path, uint64_t handled)
{
	_cleanup_close_ int fd = open(path->path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr rule = {.parent_fd = fd};
	struct stat st;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		rule.allowed_access = path->write ? WRITE : READ;
	else
		rule.allowed_access = path->write ? WRITE_FILE : READ_FILE;
	rule.allowed_access &= handled;
	return syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0
		       ? -errno
		       : 0;
}

int confine_landlock(const struct confine_access *access)
{
	_cleanup_close_ int fd = -1;
	struct ruleset ruleset;
	const size_t size = choose(access, &ruleset);

	if (size == 0)
		return 0;
	fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, size, 0);
	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < access->n_paths; i++) {
		int r = grant(fd, &access->paths[i], ruleset.fs);

		if (r < 0)
			return r;
	}
	return syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 1;
}

void confine_bounding_set(uint64_t keep)
{
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(keep & (UINT64_C(1) << cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

int confine_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &head, sets) < 0)
		return -errno;
	confine_bounding_set(keep);
	for (int i = 0; i < 2; i++) {
		const uint32_t word = (uint32_t)(keep >> (32 * i));

		sets[i].permitted &= word;
		/* A change of user has emptied the effective set. */
		sets[i].effective = sets[i].permitted;
		sets[i].inheritable &= word;
	}
	return syscall(SYS_capset, &head, sets) < 0 ? -errno : 0;
}

int confine_no_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}
