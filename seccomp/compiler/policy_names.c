/* SPDX-License-Identifier: MIT */
/*
 * The names of constants and errors that policies may use. Their values are the same on all
 * architectures, because one policy is compiled for all of them.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/ioprio.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/util.h"
#include "seccomp/compiler/policy.h"

/* linux/userfaultfd.h has it since 5.11 */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
/* net/socket.c: the type without SOCK_CLOEXEC and SOCK_NONBLOCK */
#define SOCK_TYPE_MASK 0xf

struct named {
	const char *name;
	uint32_t value;
};

#define NAMED(c)                                                                                   \
	{                                                                                          \
#c, (uint32_t)(c)                                                                  \
	}

static const struct named constants[] = {
	NAMED(AF_INET),
	NAMED(AF_INET6),
	NAMED(AF_NETLINK),
	NAMED(AF_PACKET),
	NAMED(AF_UNIX),
	NAMED(AF_VSOCK),
	NAMED(CLONE_NEWCGROUP),
	NAMED(CLONE_NEWIPC),
	NAMED(CLONE_NEWNET),
	NAMED(CLONE_NEWNS),
	NAMED(CLONE_NEWPID),
	NAMED(CLONE_NEWTIME),
	NAMED(CLONE_NEWUSER),
	NAMED(CLONE_NEWUTS),
	NAMED(CLONE_THREAD),
	NAMED(FIONBIO),
	NAMED(FIONREAD),
	NAMED(FIOSETOWN),
	NAMED(F_SETOWN),
	NAMED(F_SETOWN_EX),
	NAMED(IOPRIO_WHO_PGRP),
	NAMED(IOPRIO_WHO_PROCESS),
	NAMED(IOPRIO_WHO_USER),
	NAMED(NETLINK_AUDIT),
	NAMED(NETLINK_CONNECTOR),
	NAMED(NETLINK_NETFILTER),
	NAMED(NETLINK_XFRM),
	NAMED(PRIO_PGRP),
	NAMED(PRIO_PROCESS),
	NAMED(PRIO_USER),
	NAMED(PROT_EXEC),
	NAMED(PR_SET_DUMPABLE),
	NAMED(PR_SET_NO_NEW_PRIVS),
	NAMED(PR_SET_NAME),
	NAMED(PR_SET_PDEATHSIG),
	NAMED(PR_SET_SECCOMP),
	NAMED(SIOCSPGRP),
	NAMED(SOCK_RAW),
	NAMED(SOCK_TYPE_MASK),
	NAMED(S_IFBLK),
	NAMED(S_IFCHR),
	NAMED(S_IFMT),
	NAMED(TCGETS),
	NAMED(UFFD_USER_MODE_ONLY),
};

static const struct named errors[] = {
	NAMED(EACCES), NAMED(EAFNOSUPPORT), NAMED(EINVAL), NAMED(ENOSYS), NAMED(EPERM),
};

static const struct {
	const char *name;
	uint32_t audit;
} arches[] = {
	[POLICY_X86_64] = {"x86_64", AUDIT_ARCH_X86_64},
	[POLICY_AARCH64] = {"aarch64", AUDIT_ARCH_AARCH64},
};

_Static_assert(ARRAY_SIZE(arches) == _POLICY_ARCH_MAX, "each has a name");

static const struct named *find(const struct named *table, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(table[i].name, name))
			return &table[i];
	return NULL;
}

int policy_constant(const char *name, uint32_t *ret)
{
	const struct named *found = find(constants, ARRAY_SIZE(constants), name);

	if (!found)
		return -ENOENT;
	*ret = found->value;
	return 0;
}

int policy_errno(const char *name, uint16_t *ret)
{
	const struct named *found = find(errors, ARRAY_SIZE(errors), name);

	if (!found)
		return -ENOENT;
	*ret = (uint16_t)found->value;
	return 0;
}

const char *policy_errno_name(uint16_t error)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (errors[i].value == error)
			return errors[i].name;
	return NULL;
}

const char *policy_arch_name(enum policy_arch arch)
{
	return arches[arch].name;
}

uint32_t policy_arch_audit(enum policy_arch arch)
{
	return arches[arch].audit;
}
