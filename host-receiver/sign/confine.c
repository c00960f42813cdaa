/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/confine.h"

#include <linux/capability.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "common/util.h"

/* None of it is needed to receive, probe or write evidence. */
static const int dropped[] = {
	CAP_SYS_PTRACE, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT,	 CAP_SYS_TIME,
	CAP_MKNOD,	CAP_SYSLOG,	CAP_BPF,       CAP_PERFMON,	 CAP_AUDIT_CONTROL,
	CAP_MAC_ADMIN,	CAP_SETFCAP,	CAP_SETPCAP,   CAP_MAC_OVERRIDE, CAP_CHECKPOINT_RESTORE,
};

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &head, sets) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++) {
		const unsigned word = CAP_TO_INDEX(dropped[i]);
		const uint32_t keep = ~CAP_TO_MASK(dropped[i]);

		/* Without CAP_SETPCAP the bounding set stays; without new privileges that gives
		 * nothing back. */
		prctl(PR_CAPBSET_DROP, dropped[i], 0, 0, 0);
		sets[word].effective &= keep;
		sets[word].permitted &= keep;
		sets[word].inheritable &= keep;
	}
	return syscall(SYS_capset, &head, sets) < 0 ? -errno : 0;
}

/*
 * What a receiver reads and binds is named by its operator and may be anywhere, so no path is
 * closed to it here; it makes no devices.
 */
static bool enter_landlock(void)
{
	const struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK,
	};
	_cleanup_close_ int fd =
		(int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);

	return fd >= 0 && syscall(SYS_landlock_restrict_self, fd, 0) == 0;
}

int receiver_confine(struct confinement *ret)
{
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	r = drop_capabilities();
	if (r < 0)
		return r;
	ret->landlock = enter_landlock();
	return 0;
}
