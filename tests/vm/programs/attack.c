/* SPDX-License-Identifier: MIT */
/*
 * A workload that attacks the agent: attack MODE AGENT_PID
 *
 * Tries every route of the workload profile, each in a child of its own, and prints a line each:
 * route, what was expected, what happened. MODE says under what it runs: default, share-pidns or
 * none. Without a profile the same routes are tried with what does no harm (signal 0, a bad
 * argument), to show that they are open. Exits with the number of surprises, at most 100.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/handover.h"

#define AGENT	     ((long)0x5eed0001) /* stands for the agent's pid in the tables */
#define AGENT_GROUP  ((long)0x5eed0002)
#define HIGH	     (1L << 32)
#define AGENT_UID    ((long)AGENT_UID_DEFAULT)
#define FD_INHERITED 9

static pid_t agent;
static bool live; /* under a profile: real signals, real writes */

enum expect {
	STOPPED,
	OWN,  /* under the default mode it reaches the workload's own processes only */
	OPEN, /* the profile leaves it alone */
	ANY,  /* the kernel may stop it by itself */
	DEAD, /* killed by the filter */
};

/* A system call as it is. Refused when its errno is one of a refusal. */
struct call {
	const char *name;
	long nr;
	long args[6];
	enum expect by_default, shared, none;
};

#define NOT_ALLOWED STOPPED, STOPPED, OPEN
#define UNLESS_OWN  OWN, STOPPED, OPEN
#define SIG	    ((long)0x5eed0003) /* SIGKILL when live, else 0 */

static uint64_t zeroes[16];
static int agent_number;
static uint64_t one_cpu = 1;
static const struct iovec vector = {.iov_base = zeroes, .iov_len = sizeof(zeroes)};
/* siginfo_t: signal, errno, SI_QUEUE; others may be sent no other code. */
static const int queued[32] = {0, 0, -1};

static const struct call calls[] = {
	/* impersonating */
	{"socket(AF_VSOCK)", SYS_socket, {AF_VSOCK, SOCK_STREAM}, NOT_ALLOWED},
	{"socket(AF_VSOCK, SOCK_SEQPACKET)",
	 SYS_socket,
	 {AF_VSOCK, SOCK_SEQPACKET},
	 STOPPED,
	 STOPPED,
	 ANY},
	{"socket(AF_VSOCK + 2^32)", SYS_socket, {AF_VSOCK | HIGH, SOCK_STREAM}, NOT_ALLOWED},
	{"socketpair(AF_VSOCK)",
	 SYS_socketpair,
	 {AF_VSOCK, SOCK_STREAM, 0, (long)zeroes},
	 STOPPED,
	 STOPPED,
	 ANY},
	{"socket(AF_NETLINK, CONNECTOR)",
	 SYS_socket,
	 {AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR},
	 NOT_ALLOWED},
	{"socket(AF_NETLINK, CONNECTOR + 2^32)",
	 SYS_socket,
	 {AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR | HIGH},
	 NOT_ALLOWED},
	{"socket(AF_NETLINK, AUDIT)",
	 SYS_socket,
	 {AF_NETLINK, SOCK_RAW, NETLINK_AUDIT},
	 NOT_ALLOWED},
	{"io_uring_setup", SYS_io_uring_setup, {1, (long)zeroes}, NOT_ALLOWED},
	{"io_uring_enter", SYS_io_uring_enter, {-1}, NOT_ALLOWED},
	{"io_uring_register", SYS_io_uring_register, {-1}, NOT_ALLOWED},
	/* machine */
	{"reboot", SYS_reboot, {0}, NOT_ALLOWED},
	{"kexec_load", SYS_kexec_load, {0, 99}, STOPPED, STOPPED, ANY},
	{"kexec_file_load", SYS_kexec_file_load, {-1, -1}, STOPPED, STOPPED, ANY},
	{"init_module", SYS_init_module, {0}, NOT_ALLOWED},
	{"finit_module", SYS_finit_module, {-1}, NOT_ALLOWED},
	{"delete_module", SYS_delete_module, {(long)"none"}, NOT_ALLOWED},
	{"request_key",
	 SYS_request_key,
	 {(long)"user", (long)"none", (long)"made by /sbin/request-key"},
	 NOT_ALLOWED},
	{"bpf", SYS_bpf, {9999}, NOT_ALLOWED},
	{"perf_event_open", SYS_perf_event_open, {0}, NOT_ALLOWED},
	{"swapon", SYS_swapon, {0}, NOT_ALLOWED},
	{"swapoff", SYS_swapoff, {0}, NOT_ALLOWED},
	{"iopl", SYS_iopl, {3}, NOT_ALLOWED},
	{"ioperm", SYS_ioperm, {0x80, 1, 1}, NOT_ALLOWED},
	{"acct", SYS_acct, {0}, STOPPED, STOPPED, ANY},
	{"quotactl", SYS_quotactl, {-1}, STOPPED, STOPPED, ANY},
	{"quotactl_fd", 443, {-1}, STOPPED, STOPPED, ANY},
	{"syslog", SYS_syslog, {10}, NOT_ALLOWED},
	{"vhangup", SYS_vhangup, {0}, NOT_ALLOWED},
	{"settimeofday", SYS_settimeofday, {0}, NOT_ALLOWED},
	{"clock_settime", SYS_clock_settime, {0}, NOT_ALLOWED},
	{"clock_adjtime", SYS_clock_adjtime, {0}, NOT_ALLOWED},
	{"adjtimex", SYS_adjtimex, {0}, NOT_ALLOWED},
	{"open_by_handle_at", SYS_open_by_handle_at, {-1}, NOT_ALLOWED},
	{"userfaultfd(0)", SYS_userfaultfd, {0}, STOPPED, STOPPED, ANY},
	/* becoming the agent's user */
	{"setuid(agent's user)", SYS_setuid, {AGENT_UID}, NOT_ALLOWED},
	{"setuid(agent's user + 2^32)", SYS_setuid, {AGENT_UID | HIGH}, NOT_ALLOWED},
	{"setfsuid(agent's user)", SYS_setfsuid, {AGENT_UID}, NOT_ALLOWED},
	{"setgid(agent's group)", SYS_setgid, {AGENT_UID}, NOT_ALLOWED},
	{"setfsgid(agent's group)", SYS_setfsgid, {AGENT_UID}, NOT_ALLOWED},
	{"setreuid(agent's user, -1)", SYS_setreuid, {AGENT_UID, -1}, NOT_ALLOWED},
	{"setreuid(-1, agent's user)", SYS_setreuid, {-1, AGENT_UID}, NOT_ALLOWED},
	{"setregid(agent's group, -1)", SYS_setregid, {AGENT_UID, -1}, NOT_ALLOWED},
	{"setregid(-1, agent's group)", SYS_setregid, {-1, AGENT_UID}, NOT_ALLOWED},
	{"setresuid(agent's user, -1, -1)", SYS_setresuid, {AGENT_UID, -1, -1}, NOT_ALLOWED},
	{"setresuid(-1, agent's user, -1)", SYS_setresuid, {-1, AGENT_UID, -1}, NOT_ALLOWED},
	{"setresuid(-1, -1, agent's user)", SYS_setresuid, {-1, -1, AGENT_UID}, NOT_ALLOWED},
	{"setresgid(agent's group, -1, -1)", SYS_setresgid, {AGENT_UID, -1, -1}, NOT_ALLOWED},
	{"setresgid(-1, agent's group, -1)", SYS_setresgid, {-1, AGENT_UID, -1}, NOT_ALLOWED},
	{"setresgid(-1, -1, agent's group)", SYS_setresgid, {-1, -1, AGENT_UID}, NOT_ALLOWED},
	/* undoing layer 1 */
	{"mount", SYS_mount, {0}, NOT_ALLOWED},
	{"umount2(/proc/sys)", SYS_umount2, {(long)"/proc/sys", 2}, NOT_ALLOWED},
	{"pivot_root", SYS_pivot_root, {0}, NOT_ALLOWED},
	{"open_tree", SYS_open_tree, {-1}, NOT_ALLOWED},
	{"move_mount", SYS_move_mount, {-1}, NOT_ALLOWED},
	{"fsopen", SYS_fsopen, {(long)"proc"}, NOT_ALLOWED},
	{"fsconfig", SYS_fsconfig, {-1}, NOT_ALLOWED},
	{"fsmount", SYS_fsmount, {-1}, NOT_ALLOWED},
	{"fspick", SYS_fspick, {-1}, NOT_ALLOWED},
	{"mount_setattr", 442, {-1}, NOT_ALLOWED},
	{"#467 (open_tree_attr)", 467, {-1}, STOPPED, STOPPED, ANY},
	{"chroot", SYS_chroot, {(long)"/"}, NOT_ALLOWED},
	{"setns", SYS_setns, {-1}, NOT_ALLOWED},
	{"unshare(CLONE_NEWNS)", SYS_unshare, {CLONE_NEWNS}, NOT_ALLOWED},
	{"unshare(CLONE_NEWNS + 2^32)", SYS_unshare, {CLONE_NEWNS | HIGH}, STOPPED, STOPPED, ANY},
	{"unshare(CLONE_NEWCGROUP)", SYS_unshare, {CLONE_NEWCGROUP}, NOT_ALLOWED},
	{"unshare(CLONE_NEWUTS)", SYS_unshare, {CLONE_NEWUTS}, NOT_ALLOWED},
	{"unshare(CLONE_NEWIPC)", SYS_unshare, {CLONE_NEWIPC}, NOT_ALLOWED},
	{"unshare(CLONE_NEWUSER)", SYS_unshare, {CLONE_NEWUSER}, STOPPED, STOPPED, ANY},
	{"unshare(CLONE_NEWPID)", SYS_unshare, {CLONE_NEWPID}, NOT_ALLOWED},
	{"unshare(CLONE_NEWNET)", SYS_unshare, {CLONE_NEWNET}, NOT_ALLOWED},
	{"unshare(CLONE_NEWTIME)", SYS_unshare, {0x80}, STOPPED, STOPPED, ANY},
	{"clone(CLONE_NEWNS)", SYS_clone, {CLONE_NEWNS | SIGCHLD}, NOT_ALLOWED},
	{"clone(CLONE_NEWUSER)", SYS_clone, {CLONE_NEWUSER | SIGCHLD}, STOPPED, STOPPED, ANY},
	{"clone(CLONE_NEWPID)", SYS_clone, {CLONE_NEWPID | SIGCHLD}, NOT_ALLOWED},
	{"clone3", SYS_clone3, {0}, NOT_ALLOWED},
	/* signals */
	{"kill(agent)", SYS_kill, {AGENT, SIG}, NOT_ALLOWED},
	{"kill(agent + 2^32)", SYS_kill, {AGENT | HIGH, SIG}, NOT_ALLOWED},
	{"kill(-agent)", SYS_kill, {AGENT_GROUP, SIG}, NOT_ALLOWED},
	{"kill(1)", SYS_kill, {1, 0}, UNLESS_OWN},
	{"kill(2)", SYS_kill, {2, 0}, OWN, STOPPED, ANY},
	{"kill(-1)", SYS_kill, {-1, 0}, UNLESS_OWN},
	{"kill(-2)", SYS_kill, {-2, SIG}, OWN, STOPPED, ANY},
	{"tkill(agent)", SYS_tkill, {AGENT, SIG}, NOT_ALLOWED},
	{"tgkill(agent, agent)", SYS_tgkill, {AGENT, AGENT, SIG}, NOT_ALLOWED},
	{"tgkill(-5, agent)", SYS_tgkill, {-5, AGENT, SIG}, OWN, STOPPED, ANY},
	{"rt_sigqueueinfo(agent)", SYS_rt_sigqueueinfo, {AGENT, SIG, (long)queued}, NOT_ALLOWED},
	{"rt_tgsigqueueinfo(agent, agent)",
	 SYS_rt_tgsigqueueinfo,
	 {AGENT, AGENT, SIG, (long)queued},
	 NOT_ALLOWED},
	{"pidfd_open(agent)", SYS_pidfd_open, {AGENT}, NOT_ALLOWED},
	{"pidfd_send_signal(-1)", SYS_pidfd_send_signal, {-1}, UNLESS_OWN},
	{"pidfd_getfd(-1)", SYS_pidfd_getfd, {-1}, UNLESS_OWN},
	{"process_madvise(-1)", SYS_process_madvise, {-1, (long)zeroes, 1, MADV_COLD}, UNLESS_OWN},
	{"process_mrelease(-1)", 448, {-1}, UNLESS_OWN},
	{"fcntl(F_SETOWN, agent)", SYS_fcntl, {0, F_SETOWN, AGENT}, NOT_ALLOWED},
	{"fcntl(F_SETOWN, -agent)", SYS_fcntl, {0, F_SETOWN, AGENT_GROUP}, NOT_ALLOWED},
	{"fcntl(F_SETOWN_EX)", SYS_fcntl, {0, F_SETOWN_EX, 0}, UNLESS_OWN},
	{"ioctl(FIOSETOWN)", SYS_ioctl, {-1, 0x8901, (long)&agent_number}, UNLESS_OWN},
	{"ioctl(SIOCSPGRP)", SYS_ioctl, {-1, SIOCSPGRP, (long)&agent_number}, UNLESS_OWN},
	/* tracing */
	{"ptrace(PTRACE_SEIZE, agent)", SYS_ptrace, {PTRACE_SEIZE, AGENT}, STOPPED, STOPPED, ANY},
	{"ptrace(PTRACE_ATTACH, agent + 2^32)",
	 SYS_ptrace,
	 {PTRACE_PEEKDATA, AGENT | HIGH},
	 STOPPED,
	 STOPPED,
	 ANY},
	{"ptrace(PTRACE_TRACEME)", SYS_ptrace, {PTRACE_TRACEME}, UNLESS_OWN},
	{"process_vm_readv(agent)",
	 SYS_process_vm_readv,
	 {AGENT, (long)&vector, 1, (long)&vector, 1, 0},
	 STOPPED,
	 STOPPED,
	 ANY},
	{"process_vm_writev(agent)",
	 SYS_process_vm_writev,
	 {AGENT, (long)&vector, 1, (long)&vector, 1, 0},
	 STOPPED,
	 STOPPED,
	 ANY},
	{"kcmp(agent, agent)", SYS_kcmp, {AGENT, AGENT}, STOPPED, STOPPED, ANY},
	{"kcmp(1, agent)", SYS_kcmp, {1, AGENT}, STOPPED, STOPPED, ANY},
	/* starving */
	{"prlimit64(agent)", SYS_prlimit64, {AGENT, RLIMIT_NOFILE, 0, (long)zeroes}, NOT_ALLOWED},
	{"sched_setaffinity(agent)",
	 SYS_sched_setaffinity,
	 {AGENT, 8, (long)&one_cpu},
	 NOT_ALLOWED},
	{"sched_setscheduler(agent)",
	 SYS_sched_setscheduler,
	 {AGENT, 0, (long)zeroes},
	 NOT_ALLOWED},
	{"sched_setparam(agent)", SYS_sched_setparam, {AGENT, (long)zeroes}, NOT_ALLOWED},
	{"sched_setattr(agent)", SYS_sched_setattr, {AGENT, (long)zeroes}, NOT_ALLOWED},
	{"migrate_pages(agent)", SYS_migrate_pages, {AGENT, 0, 0, 0}, STOPPED, STOPPED, ANY},
	{"move_pages(agent)", SYS_move_pages, {AGENT, 0, 0, 0, 0, 0}, STOPPED, STOPPED, ANY},
	{"setpriority(PRIO_PROCESS, agent)",
	 SYS_setpriority,
	 {PRIO_PROCESS, AGENT, 0},
	 NOT_ALLOWED},
	{"setpriority(PRIO_PGRP, agent)", SYS_setpriority, {PRIO_PGRP, AGENT, 0}, NOT_ALLOWED},
	{"setpriority(PRIO_USER, root)", SYS_setpriority, {PRIO_USER, 0, 0}, UNLESS_OWN},
	{"ioprio_set(IOPRIO_WHO_PROCESS, agent)", SYS_ioprio_set, {1, AGENT, 0}, NOT_ALLOWED},
	{"ioprio_set(IOPRIO_WHO_PGRP, agent)", SYS_ioprio_set, {2, AGENT, 0}, NOT_ALLOWED},
	{"ioprio_set(IOPRIO_WHO_USER, root)", SYS_ioprio_set, {3, 0, 0}, UNLESS_OWN},
	/* watched: the kernel decides */
	{"sethostname", SYS_sethostname, {(long)"guest", 5}, NOT_ALLOWED},
	{"setdomainname", SYS_setdomainname, {(long)"guest", 5}, NOT_ALLOWED},
	{"mknod(mem)", SYS_mknod, {(long)"/tmp/mem", S_IFCHR | 0600, 1 << 8 | 1}, NOT_ALLOWED},
	{"mknodat(mem)",
	 SYS_mknodat,
	 {AT_FDCWD, (long)"/tmp/mem2", S_IFCHR | 0600, 1 << 8 | 1},
	 NOT_ALLOWED},
	{"socket(AF_INET, SOCK_RAW)", SYS_socket, {AF_INET, SOCK_RAW, 1}, OPEN, OPEN, OPEN},
	{"socket(AF_PACKET)", SYS_socket, {AF_PACKET, SOCK_DGRAM, 0}, OPEN, OPEN, ANY},
	{"socket(AF_NETLINK, NETFILTER)",
	 SYS_socket,
	 {AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER},
	 OPEN,
	 OPEN,
	 ANY},
	{"socket(AF_NETLINK, XFRM)",
	 SYS_socket,
	 {AF_NETLINK, SOCK_RAW, NETLINK_XFRM},
	 OPEN,
	 OPEN,
	 ANY},
	/* ordinary calls beside them */
	{"setuid(another user)", SYS_setuid, {AGENT_UID + 1}, OPEN, OPEN, OPEN},
	{"setgroups", SYS_setgroups, {0, 0}, OPEN, OPEN, OPEN},
	{"capset", SYS_capset, {0, 0}, OPEN, OPEN, OPEN},
	{"bind", SYS_bind, {-1}, OPEN, OPEN, OPEN},
	{"socket(AF_UNIX)", SYS_socket, {AF_UNIX, SOCK_STREAM}, OPEN, OPEN, OPEN},
	{"socket(AF_NETLINK, ROUTE)", SYS_socket, {AF_NETLINK, SOCK_RAW, 0}, OPEN, OPEN, OPEN},
	{"kill(self)", SYS_kill, {0, 0}, OPEN, OPEN, OPEN},
	{"clone(SIGCHLD)", SYS_clone, {SIGCHLD}, OPEN, OPEN, OPEN},
};

/* Files that must not be written; what is written when live. {} is the agent's pid. */
static const struct {
	const char *path, *data;
	enum expect by_default, shared, none;
} files[] = {
	{"/proc/{}/mem", "", STOPPED, STOPPED, ANY},
	{"/proc/{}/oom_score_adj", "1000", NOT_ALLOWED},
	{"/proc/{}/timerslack_ns", "9999999999", STOPPED, STOPPED, ANY},
	{"/proc/{}/clear_refs", "1", STOPPED, STOPPED, ANY},
	{"/proc/1/oom_score_adj", "1000", UNLESS_OWN},
	{"/proc/sys/kernel/core_pattern", "|/tmp/x", NOT_ALLOWED},
	{"/proc/sys/kernel/modprobe", "/tmp/x", NOT_ALLOWED},
	{"/proc/sys/kernel/poweroff_cmd", "/tmp/x", STOPPED, STOPPED, ANY},
	{"/proc/sys/kernel/hotplug", "/tmp/x", STOPPED, STOPPED, ANY},
	{"/proc/sys/kernel/pid_max", "301", NOT_ALLOWED},
	{"/proc/sys/vm/drop_caches", "3", NOT_ALLOWED},
	{"/proc/sys/fs/binfmt_misc/register", "", STOPPED, STOPPED, ANY},
	{"/proc/sysrq-trigger", "h", NOT_ALLOWED},
	{"/sys/kernel/uevent_helper", "/tmp/x", STOPPED, STOPPED, ANY},
	{"/sys/fs/cgroup/agent/cgroup.kill", "1", NOT_ALLOWED},
	{"/sys/fs/cgroup/agent/cgroup.freeze", "1", NOT_ALLOWED},
	{"/sys/fs/cgroup/agent/cgroup.procs", "0", NOT_ALLOWED},
	{"/sys/fs/cgroup/cgroup.procs", "0", NOT_ALLOWED},
	{"/sys/fs/cgroup/agent/memory.max", "0", STOPPED, STOPPED, ANY},
	{"/sys/bus/virtio/drivers/virtio_console/unbind", "virtio0", NOT_ALLOWED},
	{"/sys/bus/pci/rescan", "0", NOT_ALLOWED},
	{"/sys/power/state", "", STOPPED, STOPPED, ANY},
	{"/sys/kernel/mm/ksm/run", "0", STOPPED, STOPPED, ANY},
	{"/dev/mem", "", STOPPED, STOPPED, ANY},
	{"/dev/port", "", STOPPED, STOPPED, ANY},
	{"/dev/kmem", "", STOPPED, STOPPED, ANY},
	{"/dev/userfaultfd", "", STOPPED, STOPPED, ANY},
	{"/dev/input/event0", "", NOT_ALLOWED},
	{"/dev/uinput", "", STOPPED, STOPPED, ANY},
};

static long real_argument(long a)
{
	long high = a & HIGH;

	if (a > 0 && a != -1)
		a &= ~HIGH;
	if (a == AGENT)
		return agent | high;
	if (a == AGENT_GROUP)
		return -(long)agent;
	if (a == SIG)
		return live ? SIGKILL : 0;
	return a | high;
}

static int do_call(const void *p)
{
	const struct call *c = p;
	long a[6], r;

	for (int i = 0; i < 6; i++)
		a[i] = real_argument(c->args[i]);
	r = syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (c->nr == SYS_clone && r == 0)
		_exit(0);
	if (r >= 0)
		return 0;
	return errno == EPERM || errno == ENOSYS || errno == EACCES || errno == ESRCH ? errno
										      : -errno;
}

static int do_file(const void *p)
{
	const char *path = p, *data = path + strlen(path) + 1;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	struct stat st;

	if (fd < 0)
		return errno;
	/* Masked by the null device? */
	if (fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3))
		return ENODEV;
	if (live && *data && write(fd, data, strlen(data)) < 0)
		return errno;
	return 0;
}

/* Routes of more than one call: 0 they are open, else the errno that stopped them. */

static int connect_channel(void)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 9001};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno;
	return 0;
}

static int int_0x80(long nr, long a, long b)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(nr), "b"(a), "c"(b), "d"(0L), "S"(0L), "D"(0L)
			 : "memory", "r8", "r9", "r10", "r11");
	/* A pid is no error. */
	return r < 0 && r > -4096 ? (int)-r : 0;
}

static int i386_socket(void)
{
	return int_0x80(359, AF_VSOCK, SOCK_STREAM);
}

static int i386_kill(void)
{
	return int_0x80(37, agent, live ? SIGKILL : 0);
}

static int i386_getpid(void)
{
	return int_0x80(20, 0, 0);
}

static int x32_socket(void)
{
	return syscall(0x40000000 | SYS_socket, AF_VSOCK, SOCK_STREAM, 0) < 0 ? errno : 0;
}

static int x32_getpid(void)
{
	return syscall(0x40000000 | SYS_getpid) < 0 ? errno : 0;
}

/* One operation by io_uring; its result. */
static int ring_do(struct io_uring_sqe *sqe)
{
	struct io_uring_params p = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 1, &p);
	uint8_t *ring;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqe;

	if (fd < 0)
		return errno;
	ring = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	sqes = mmap(NULL, sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqes == MAP_FAILED)
		return errno;
	sqes[0] = *sqe;
	*(uint32_t *)(ring + p.sq_off.array) = 0;
	*(uint32_t *)(ring + p.sq_off.tail) = 1;
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return errno;
	cqe = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
	return cqe->res < 0 ? -cqe->res : 0;
}

static int ring_socket(void)
{
	return ring_do(&(struct io_uring_sqe){
		.opcode = 45 /* IORING_OP_SOCKET */, .fd = AF_VSOCK, .off = SOCK_STREAM});
}

static int ring_openat(void)
{
	static const char path[] = "/proc/sysrq-trigger";

	return ring_do(&(struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
					      .fd = AT_FDCWD,
					      .addr = (uint64_t)(uintptr_t)path,
					      .open_flags = O_WRONLY});
}

static int ring_connect(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = 9};
	int fd = socket(AF_INET, SOCK_STREAM, 0), r;

	r = ring_do(&(struct io_uring_sqe){.opcode = IORING_OP_CONNECT,
					   .fd = fd,
					   .addr = (uint64_t)(uintptr_t)&addr,
					   .off = sizeof(addr)});
	return r == ECONNREFUSED ? 0 : r;
}

static int inherited(void)
{
	return fcntl(FD_INHERITED, F_GETFD) < 0 ? errno : 0;
}

static int proc_pidfd(void)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d", agent);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	return fd < 0 || syscall(SYS_pidfd_send_signal, fd, live ? SIGKILL : 0, NULL, 0) < 0 ? errno
											     : 0;
}

/* The owner of a descriptor gets the signal that F_SETSIG names, and O_ASYNC sends it. */
static int sigio(void)
{
	int fds[2];

	if (pipe(fds) < 0 || fcntl(fds[0], F_SETOWN, agent) < 0)
		return errno;
	if (!live)
		return 0;
	fcntl(fds[0], 10 /* F_SETSIG */, SIGKILL);
	fcntl(fds[0], F_SETFL, O_ASYNC);
	(void)!write(fds[1], "", 1);
	return 0;
}

static int setns_of_init(void)
{
	int fd = open("/proc/1/ns/mnt", O_RDONLY);

	return fd < 0 || syscall(SYS_setns, fd, CLONE_NEWNS) < 0 ? errno : 0;
}

static int remount_sys(void)
{
	return syscall(SYS_mount, "none", "/sys", 0, 32 /* MS_REMOUNT */, 0) < 0 ? errno : 0;
}

static int memory_of_agent(void)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", agent);
	fd = open(path, O_RDWR);
	return fd < 0 ? errno : 0;
}

static int root_of_init(void)
{
	struct stat st;

	return stat("/proc/1/root" LISTENER_SOCKET_PATH, &st) < 0 ? errno
	       : S_ISSOCK(st.st_mode)				  ? 0
								  : ENOENT;
}

static int listener_socket(void)
{
	struct {
		unsigned short family;
		char path[108];
	} addr = {AF_UNIX, LISTENER_SOCKET_PATH};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? errno : 0;
}

static int replace_listener_socket(void)
{
	if (!live)
		return access(LISTENER_SOCKET_PATH, W_OK) < 0 ? errno : 0;
	return unlink(LISTENER_SOCKET_PATH) < 0 ? errno : 0;
}

static int replace_pid_file(void)
{
	if (!live)
		return access(LISTENER_FOLDER "/agent.pid", W_OK) < 0 ? errno : 0;
	return unlink(LISTENER_FOLDER "/agent.pid") < 0 ? errno : 0;
}

static const struct {
	const char *name;
	int (*f)(void);
	enum expect by_default, shared, none;
} routes[] = {
	{"connect to the channel, port 9001", connect_channel, NOT_ALLOWED},
	{"int 0x80: socket(AF_VSOCK)", i386_socket, STOPPED, STOPPED, ANY},
	{"int 0x80: kill(agent)", i386_kill, STOPPED, STOPPED, ANY},
	{"int 0x80: getpid", i386_getpid, STOPPED, STOPPED, ANY},
	{"x32: socket(AF_VSOCK)", x32_socket, STOPPED, STOPPED, ANY},
	{"x32: getpid", x32_getpid, STOPPED, STOPPED, ANY},
	{"io_uring: IORING_OP_SOCKET(AF_VSOCK)", ring_socket, NOT_ALLOWED},
	{"io_uring: IORING_OP_OPENAT(sysrq-trigger)", ring_openat, NOT_ALLOWED},
	{"io_uring: IORING_OP_CONNECT", ring_connect, NOT_ALLOWED},
	{"inherited descriptor", inherited, NOT_ALLOWED},
	{"pidfd_send_signal(/proc/agent)", proc_pidfd, NOT_ALLOWED},
	{"SIGIO to the agent by F_SETOWN", sigio, NOT_ALLOWED},
	{"setns(/proc/1/ns/mnt)", setns_of_init, NOT_ALLOWED},
	{"remount /sys writable", remount_sys, NOT_ALLOWED},
	{"open /proc/agent/mem", memory_of_agent, STOPPED, STOPPED, ANY},
	{"/proc/1/root", root_of_init, STOPPED, STOPPED, OPEN},
	{"connect to the agent's listener", listener_socket, NOT_ALLOWED},
	{"unlink the agent's listener", replace_listener_socket, NOT_ALLOWED},
	{"unlink the agent's pid file", replace_pid_file, NOT_ALLOWED},
};

static int mode; /* column */
static int surprises, shown;

static int run_route(const void *f)
{
	int (*const *route)(void) = f;

	return (*route)();
}

/* Tries one in a child, prints its line. */
static void attempt(const char *name, int (*f)(const void *), const void *argument,
		    const enum expect expected[3])
{
	static const char *const words[] = {"stopped", "own only", "open", "any", "killed"};
	enum expect want = expected[mode];
	char happened[64];
	bool good, stopped;
	int status, result[2];
	int got = 0;
	pid_t pid;

	fflush(stdout);
	if (pipe(result) < 0)
		exit(101);
	pid = fork();
	if (pid == 0) {
		alarm(10);
		got = f(argument);
		(void)!write(result[1], &got, sizeof(got));
		_exit(0);
	}
	close(result[1]);
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status)) {
		snprintf(happened, sizeof(happened), "killed by signal %d", WTERMSIG(status));
		stopped = false;
		good = (want == DEAD && WTERMSIG(status) == SIGSYS) || want == ANY;
	} else if (read(result[0], &got, sizeof(got)) != sizeof(got)) {
		snprintf(happened, sizeof(happened), "ended without a word");
		good = want == ANY;
	} else {
		/* A negative errno: the call was let in and did not like its arguments. */
		stopped = got > 0;
		if (got == 0)
			snprintf(happened, sizeof(happened), "done");
		else
			snprintf(happened, sizeof(happened), "%s%s",
				 stopped ? "" : "let in: ", strerror(abs(got)));
		good = want == ANY || want == OWN || (want == STOPPED && stopped) ||
		       (want == OPEN && !stopped);
	}
	close(result[0]);
	printf("%-44s | %-8s | %-36s | %s\n", name, words[want], happened, good ? "ok" : "WRONG");
	surprises += !good;
	shown++;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 101;
	mode = !strcmp(argv[1], "default") ? 0 : !strcmp(argv[1], "share-pidns") ? 1 : 2;
	live = mode != 2;
	agent = agent_number = atoi(argv[2]);

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		attempt(calls[i].name, do_call, &calls[i],
			(enum expect[]){calls[i].by_default, calls[i].shared, calls[i].none});
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		const char *hole = strstr(files[i].path, "{}");
		char path[128];
		int n;

		if (hole)
			n = snprintf(path, 100, "%.*s%d%s", (int)(hole - files[i].path),
				     files[i].path, agent, hole + 2);
		else
			n = snprintf(path, 100, "%s", files[i].path);
		snprintf(path + n + 1, sizeof(path) - (size_t)n - 1, "%s", files[i].data);
		attempt(files[i].path, do_file, path,
			(enum expect[]){files[i].by_default, files[i].shared, files[i].none});
	}
	for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++)
		attempt(routes[i].name, run_route, &routes[i].f,
			(enum expect[]){routes[i].by_default, routes[i].shared, routes[i].none});
	printf("%d routes, %d surprises\n", shown, surprises);
	return surprises > 100 ? 100 : surprises;
}
