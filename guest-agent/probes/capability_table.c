/* SPDX-License-Identifier: MIT */
/*
 * See capability_table.h. The comments name the kernel function that asks for the capability. Calls
 * whose refusal has several usual causes are not here.
 */
#include "guest-agent/probes/capability_table.h"

#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/syscall_names.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#define COMPAT_ARCH AUDIT_ARCH_I386
#define COMPAT_NAME "i386"
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#define COMPAT_ARCH AUDIT_ARCH_ARM
#define COMPAT_NAME "arm"
#else
#error "say what this machine's AUDIT_ARCH_* are"
#endif

#define X32_BIT 0x40000000 /* in the number of an x32 call, whose arch is x86_64 */

struct row {
	uint16_t nr;
	uint8_t error;
	uint8_t capability;
};

static const struct row rows[] = {
	/* kernel/sys.c: ns_capable(uts_ns->user_ns) */
	{__NR_sethostname, EPERM, CAP_SYS_ADMIN},
	{__NR_setdomainname, EPERM, CAP_SYS_ADMIN},
	/* fs/namespace.c: may_mount() */
	{__NR_mount, EPERM, CAP_SYS_ADMIN},
	{__NR_umount2, EPERM, CAP_SYS_ADMIN},
	{__NR_pivot_root, EPERM, CAP_SYS_ADMIN},
	{__NR_open_tree, EPERM, CAP_SYS_ADMIN},
	{__NR_move_mount, EPERM, CAP_SYS_ADMIN},
	{__NR_mount_setattr, EPERM, CAP_SYS_ADMIN},
	{__NR_fsmount, EPERM, CAP_SYS_ADMIN},
	/* fs/fsopen.c: may_mount() */
	{__NR_fsopen, EPERM, CAP_SYS_ADMIN},
	{__NR_fspick, EPERM, CAP_SYS_ADMIN},
	/* fs/open.c: ns_capable() in chroot */
	{__NR_chroot, EPERM, CAP_SYS_CHROOT},
	/* fs/namei.c: vfs_mknod(), for devices */
	{__NR_mknodat, EPERM, CAP_MKNOD},
#ifdef __NR_mknod
	{__NR_mknod, EPERM, CAP_MKNOD},
#endif
	/* net/ipv4/af_inet.c, net/ipv6/af_inet6.c, net/packet/af_packet.c: raw and packet; not
	 * other families, see below */
	{__NR_socket, EPERM, CAP_NET_RAW},
	/* net/ipv4/af_inet.c: __inet_bind(), below ip_unprivileged_port_start */
	{__NR_bind, EACCES, CAP_NET_BIND_SERVICE},
	/* kernel/module/main.c: may_init_module() */
	{__NR_init_module, EPERM, CAP_SYS_MODULE},
	{__NR_finit_module, EPERM, CAP_SYS_MODULE},
	{__NR_delete_module, EPERM, CAP_SYS_MODULE},
	/* kernel/reboot.c, kernel/kexec.c, kernel/kexec_file.c */
	{__NR_reboot, EPERM, CAP_SYS_BOOT},
	{__NR_kexec_load, EPERM, CAP_SYS_BOOT},
#ifdef __NR_kexec_file_load
	{__NR_kexec_file_load, EPERM, CAP_SYS_BOOT},
#endif
	/* kernel/sys.c, kernel/groups.c: ns_capable_setid() */
	{__NR_setuid, EPERM, CAP_SETUID},
	{__NR_setreuid, EPERM, CAP_SETUID},
	{__NR_setresuid, EPERM, CAP_SETUID},
	{__NR_setgid, EPERM, CAP_SETGID},
	{__NR_setregid, EPERM, CAP_SETGID},
	{__NR_setresgid, EPERM, CAP_SETGID},
	{__NR_setgroups, EPERM, CAP_SETGID},
	/* security/commoncap.c: cap_capset() */
	{__NR_capset, EPERM, CAP_SETPCAP},
	/* kernel/time/: cap_settime(), do_adjtimex() */
	{__NR_settimeofday, EPERM, CAP_SYS_TIME},
	{__NR_clock_settime, EPERM, CAP_SYS_TIME},
	{__NR_adjtimex, EPERM, CAP_SYS_TIME},
	{__NR_clock_adjtime, EPERM, CAP_SYS_TIME},
	/* mm/swapfile.c */
	{__NR_swapon, EPERM, CAP_SYS_ADMIN},
	{__NR_swapoff, EPERM, CAP_SYS_ADMIN},
	/* kernel/printk/printk.c: check_syslog_permissions() */
	{__NR_syslog, EPERM, CAP_SYSLOG},
	/* kernel/acct.c */
	{__NR_acct, EPERM, CAP_SYS_PACCT},
	/* fs/quota/quota.c: check_quotactl_permission() */
	{__NR_quotactl, EPERM, CAP_SYS_ADMIN},
/* arch/x86/kernel/ioport.c */
#ifdef __NR_iopl
	{__NR_iopl, EPERM, CAP_SYS_RAWIO},
	{__NR_ioperm, EPERM, CAP_SYS_RAWIO},
#endif
	/* fs/attr.c: chown_ok(), chgrp_ok(), setattr_prepare() */
	{__NR_fchown, EPERM, CAP_CHOWN},
	{__NR_fchownat, EPERM, CAP_CHOWN},
	{__NR_fchmod, EPERM, CAP_FOWNER},
	{__NR_fchmodat, EPERM, CAP_FOWNER},
#ifdef __NR_chown
	{__NR_chown, EPERM, CAP_CHOWN},
	{__NR_lchown, EPERM, CAP_CHOWN},
	{__NR_chmod, EPERM, CAP_FOWNER},
#endif
	/* kernel/signal.c: kill_ok_by_cred() */
	{__NR_kill, EPERM, CAP_KILL},
	{__NR_tkill, EPERM, CAP_KILL},
	{__NR_tgkill, EPERM, CAP_KILL},
	{__NR_rt_sigqueueinfo, EPERM, CAP_KILL},
	{__NR_rt_tgsigqueueinfo, EPERM, CAP_KILL},
	{__NR_pidfd_send_signal, EPERM, CAP_KILL},
	/* kernel/ptrace.c: ptrace_may_access(), and its users */
	{__NR_ptrace, EPERM, CAP_SYS_PTRACE},
	{__NR_process_vm_readv, EPERM, CAP_SYS_PTRACE},
	{__NR_process_vm_writev, EPERM, CAP_SYS_PTRACE},
	{__NR_kcmp, EPERM, CAP_SYS_PTRACE},
	{__NR_pidfd_getfd, EPERM, CAP_SYS_PTRACE},
	/* fs/userfaultfd.c: userfaultfd_syscall_allowed() */
	{__NR_userfaultfd, EPERM, CAP_SYS_PTRACE},
	/* kernel/sched/, kernel/sys.c, block/ioprio.c, mm/migrate.c, mm/mempolicy.c */
	{__NR_setpriority, EPERM, CAP_SYS_NICE},
	{__NR_setpriority, EACCES, CAP_SYS_NICE},
	{__NR_sched_setscheduler, EPERM, CAP_SYS_NICE},
	{__NR_sched_setparam, EPERM, CAP_SYS_NICE},
	{__NR_sched_setattr, EPERM, CAP_SYS_NICE},
	{__NR_sched_setaffinity, EPERM, CAP_SYS_NICE},
	{__NR_ioprio_set, EPERM, CAP_SYS_NICE},
	{__NR_migrate_pages, EPERM, CAP_SYS_NICE},
	{__NR_move_pages, EPERM, CAP_SYS_NICE},
	/* kernel/sys.c: do_prlimit(), check_prlimit_permission() */
	{__NR_setrlimit, EPERM, CAP_SYS_RESOURCE},
	{__NR_prlimit64, EPERM, CAP_SYS_RESOURCE},
	/* mm/mlock.c: can_do_mlock() */
	{__NR_mlock, EPERM, CAP_IPC_LOCK},
	{__NR_mlock2, EPERM, CAP_IPC_LOCK},
	{__NR_mlockall, EPERM, CAP_IPC_LOCK},
	/* fs/open.c */
	{__NR_vhangup, EPERM, CAP_SYS_TTY_CONFIG},
	/* kernel/bpf/syscall.c, kernel/events/core.c */
	{__NR_bpf, EPERM, CAP_BPF},
	{__NR_perf_event_open, EACCES, CAP_PERFMON},
	/* kernel/nsproxy.c, kernel/fork.c */
	{__NR_setns, EPERM, CAP_SYS_ADMIN},
	{__NR_unshare, EPERM, CAP_SYS_ADMIN},
	{__NR_clone, EPERM, CAP_SYS_ADMIN},
	{__NR_clone3, EPERM, CAP_SYS_ADMIN},
	/* fs/fhandle.c */
	{__NR_open_by_handle_at, EPERM, CAP_DAC_READ_SEARCH},
	/* fs/notify/fanotify/fanotify_user.c */
	{__NR_fanotify_init, EPERM, CAP_SYS_ADMIN},
	/* fs/namei.c: generic_permission() */
	{__NR_openat, EACCES, CAP_DAC_OVERRIDE},
	{__NR_openat2, EACCES, CAP_DAC_OVERRIDE},
	{__NR_mkdirat, EACCES, CAP_DAC_OVERRIDE},
	{__NR_unlinkat, EACCES, CAP_DAC_OVERRIDE},
	{__NR_renameat2, EACCES, CAP_DAC_OVERRIDE},
	{__NR_symlinkat, EACCES, CAP_DAC_OVERRIDE},
	{__NR_linkat, EACCES, CAP_DAC_OVERRIDE},
	{__NR_truncate, EACCES, CAP_DAC_OVERRIDE},
	{__NR_chdir, EACCES, CAP_DAC_OVERRIDE},
#ifdef __NR_open
	{__NR_open, EACCES, CAP_DAC_OVERRIDE},
	{__NR_creat, EACCES, CAP_DAC_OVERRIDE},
	{__NR_mkdir, EACCES, CAP_DAC_OVERRIDE},
	{__NR_rmdir, EACCES, CAP_DAC_OVERRIDE},
	{__NR_unlink, EACCES, CAP_DAC_OVERRIDE},
	{__NR_rename, EACCES, CAP_DAC_OVERRIDE},
	{__NR_symlink, EACCES, CAP_DAC_OVERRIDE},
	{__NR_link, EACCES, CAP_DAC_OVERRIDE},
#endif
#ifdef __NR_renameat
	{__NR_renameat, EACCES, CAP_DAC_OVERRIDE},
#endif
};

static bool is_raw_family(int family)
{
	return family == AF_INET || family == AF_INET6 || family == AF_PACKET;
}

int capability_of_syscall(long nr, uint64_t a0, int error)
{
	if (nr == __NR_socket && !is_raw_family((int)a0))
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].nr == nr && rows[i].error == error)
			return rows[i].capability;
	return -1;
}

/* The names are stored in the array itself: pointers would take more room, and relocations. */
static const char capability_names[][sizeof("CAP_CHECKPOINT_RESTORE")] = {
	[CAP_CHOWN] = "CAP_CHOWN",
	[CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
	[CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
	[CAP_FOWNER] = "CAP_FOWNER",
	[CAP_FSETID] = "CAP_FSETID",
	[CAP_KILL] = "CAP_KILL",
	[CAP_SETGID] = "CAP_SETGID",
	[CAP_SETUID] = "CAP_SETUID",
	[CAP_SETPCAP] = "CAP_SETPCAP",
	[CAP_LINUX_IMMUTABLE] = "CAP_LINUX_IMMUTABLE",
	[CAP_NET_BIND_SERVICE] = "CAP_NET_BIND_SERVICE",
	[CAP_NET_BROADCAST] = "CAP_NET_BROADCAST",
	[CAP_NET_ADMIN] = "CAP_NET_ADMIN",
	[CAP_NET_RAW] = "CAP_NET_RAW",
	[CAP_IPC_LOCK] = "CAP_IPC_LOCK",
	[CAP_IPC_OWNER] = "CAP_IPC_OWNER",
	[CAP_SYS_MODULE] = "CAP_SYS_MODULE",
	[CAP_SYS_RAWIO] = "CAP_SYS_RAWIO",
	[CAP_SYS_CHROOT] = "CAP_SYS_CHROOT",
	[CAP_SYS_PTRACE] = "CAP_SYS_PTRACE",
	[CAP_SYS_PACCT] = "CAP_SYS_PACCT",
	[CAP_SYS_ADMIN] = "CAP_SYS_ADMIN",
	[CAP_SYS_BOOT] = "CAP_SYS_BOOT",
	[CAP_SYS_NICE] = "CAP_SYS_NICE",
	[CAP_SYS_RESOURCE] = "CAP_SYS_RESOURCE",
	[CAP_SYS_TIME] = "CAP_SYS_TIME",
	[CAP_SYS_TTY_CONFIG] = "CAP_SYS_TTY_CONFIG",
	[CAP_MKNOD] = "CAP_MKNOD",
	[CAP_LEASE] = "CAP_LEASE",
	[CAP_AUDIT_WRITE] = "CAP_AUDIT_WRITE",
	[CAP_AUDIT_CONTROL] = "CAP_AUDIT_CONTROL",
	[CAP_SETFCAP] = "CAP_SETFCAP",
	[CAP_MAC_OVERRIDE] = "CAP_MAC_OVERRIDE",
	[CAP_MAC_ADMIN] = "CAP_MAC_ADMIN",
	[CAP_SYSLOG] = "CAP_SYSLOG",
	[CAP_WAKE_ALARM] = "CAP_WAKE_ALARM",
	[CAP_BLOCK_SUSPEND] = "CAP_BLOCK_SUSPEND",
	[CAP_AUDIT_READ] = "CAP_AUDIT_READ",
	[CAP_PERFMON] = "CAP_PERFMON",
	[CAP_BPF] = "CAP_BPF",
	[CAP_CHECKPOINT_RESTORE] = "CAP_CHECKPOINT_RESTORE",
};

const char *capability_name(int capability)
{
	if (capability < 0 || (size_t)capability >= ARRAY_SIZE(capability_names))
		return NULL;
	return capability_names[capability];
}

const char *syscall_name(uint32_t arch, long nr, char buf[static SYSCALL_NAME_MAX])
{
	if (arch == NATIVE_ARCH && nr >= 0 && (size_t)nr < ARRAY_SIZE(native_offset) &&
	    native_offset[nr])
		return syscall_text + native_offset[nr];
	if (arch == COMPAT_ARCH && nr >= 0 && (size_t)nr < ARRAY_SIZE(compat_offset) &&
	    compat_offset[nr])
		return syscall_text + compat_offset[nr];
	snprintf(buf, SYSCALL_NAME_MAX, "#%ld", nr);
	return buf;
}

const char *syscall_name_abi(uint32_t arch, long nr, char buf[static SYSCALL_NAME_MAX])
{
	const char *abi = NULL, *name;
	char own[SYSCALL_NAME_MAX];

	if (arch == AUDIT_ARCH_X86_64 && nr >= 0 && nr & X32_BIT) {
		abi = "x32";
		nr &= ~X32_BIT;
	} else if (arch == COMPAT_ARCH) {
		abi = COMPAT_NAME;
	} else if (arch != NATIVE_ARCH) {
		abi = "foreign";
	}
	if (!abi)
		return syscall_name(arch, nr, buf);
	name = syscall_name(arch, nr, own);
	snprintf(buf, SYSCALL_NAME_MAX, "%s:%.36s", abi, name);
	return buf;
}

bool syscall_is_foreign(uint32_t arch, long nr, uint32_t native)
{
	/* A tracer writes -1 to skip a call. */
	return arch != native || (arch == AUDIT_ARCH_X86_64 && nr >= 0 && nr & X32_BIT);
}

long syscall_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(native_offset); i++)
		if (native_offset[i] && !strcmp(syscall_text + native_offset[i], name))
			return (long)i;
	return -1;
}

uint32_t syscall_native_arch(void)
{
	return NATIVE_ARCH;
}

uint32_t syscall_compat_arch(void)
{
	return COMPAT_ARCH;
}

const char *error_name(int error)
{
	static const struct {
		uint8_t error;
		char name[sizeof("EADDRNOTAVAIL")];
	} names[] = {
		{EPERM, "EPERM"},
		{EACCES, "EACCES"},
		{ENOSYS, "ENOSYS"},
		{EINVAL, "EINVAL"},
		{EAFNOSUPPORT, "EAFNOSUPPORT"},
		{EINPROGRESS, "EINPROGRESS"},
		{EALREADY, "EALREADY"},
		{EISCONN, "EISCONN"},
		{ECONNREFUSED, "ECONNREFUSED"},
		{ECONNRESET, "ECONNRESET"},
		{ECONNABORTED, "ECONNABORTED"},
		{ETIMEDOUT, "ETIMEDOUT"},
		{ENETUNREACH, "ENETUNREACH"},
		{EHOSTUNREACH, "EHOSTUNREACH"},
		{ENETDOWN, "ENETDOWN"},
		{EADDRINUSE, "EADDRINUSE"},
		{EADDRNOTAVAIL, "EADDRNOTAVAIL"},
		{EAGAIN, "EAGAIN"},
		{EINTR, "EINTR"},
		{EBADF, "EBADF"},
		{EFAULT, "EFAULT"},
		{ENOTSOCK, "ENOTSOCK"},
		{ENOENT, "ENOENT"},
		{EPROTOTYPE, "EPROTOTYPE"},
		{EOPNOTSUPP, "EOPNOTSUPP"},
		{ENOBUFS, "ENOBUFS"},
		{ENOMEM, "ENOMEM"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].error == error)
			return names[i].name;
	return NULL;
}
