/* SPDX-License-Identifier: MIT */
/*
 * `refuse CALL COMMAND [ARG...]`: becomes COMMAND with a filter under which CALL fails with EPERM,
 * whatever the process may do otherwise. `refuse list` prints the names of all CALLs: what an agent
 * asks of the kernel that needs a privilege, or that an image's policy may refuse it.
 */
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "common/util.h"

#define ANY UINT32_MAX

static const struct {
	const char *name;
	uint32_t nr;
	unsigned arg; /* which argument must be value; ANY: no matter */
	uint32_t value;
} calls[] = {
	{"bpf", SYS_bpf, 0, ANY},
	{"fsopen", SYS_fsopen, 0, ANY},
	{"fsconfig", SYS_fsconfig, 0, ANY},
	{"fsmount", SYS_fsmount, 0, ANY},
	{"socket-netlink", SYS_socket, 0, AF_NETLINK},
	{"socket-inet", SYS_socket, 0, AF_INET},
	{"socket-unix", SYS_socket, 0, AF_UNIX},
	{"bind", SYS_bind, 0, ANY},
	{"listen", SYS_listen, 0, ANY},
	{"setsockopt-rcvbufforce", SYS_setsockopt, 2, SO_RCVBUFFORCE},
	{"getsockopt-meminfo", SYS_getsockopt, 2, 55 /* SO_MEMINFO */},
	{"sendto", SYS_sendto, 0, ANY},
	{"recvmmsg", SYS_recvmmsg, 0, ANY},
	{"clone", SYS_clone, 0, ANY},
	{"prlimit64", SYS_prlimit64, 0, ANY},
	{"mlockall", SYS_mlockall, 0, ANY},
	{"prctl-capbset", SYS_prctl, 0, PR_CAPBSET_DROP},
	{"prctl-dumpable", SYS_prctl, 0, PR_SET_DUMPABLE},
	{"prctl-no-new-privs", SYS_prctl, 0, PR_SET_NO_NEW_PRIVS},
	{"capget", SYS_capget, 0, ANY},
	{"capset", SYS_capset, 0, ANY},
	{"seccomp-filter", SYS_seccomp, 0, SECCOMP_SET_MODE_FILTER},
	{"seccomp-sizes", SYS_seccomp, 0, SECCOMP_GET_NOTIF_SIZES},
	{"inotify_init1", SYS_inotify_init1, 0, ANY},
	{"inotify_add_watch", SYS_inotify_add_watch, 0, ANY},
	{"readlink", SYS_readlink, 0, ANY},
	{"close_range", SYS_close_range, 0, ANY},
	{"chdir", SYS_chdir, 0, ANY},
	{"getrandom", SYS_getrandom, 0, ANY},
	/* Only /proc/self/oom_score_adj is opened so; the last flag is musl's O_LARGEFILE. */
	{"open-write", SYS_open, 1, O_WRONLY | O_CLOEXEC | 0100000},
};

static int install(size_t i)
{
	const uint32_t arg = (uint32_t)(offsetof(struct seccomp_data, args) + 8 * calls[i].arg);
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].value, 0,
			 calls[i].value == ANY ? 0 : 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {.len = ARRAY_SIZE(filter), .filter = filter};

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	size_t i = 0;

	if (argc == 2 && strcmp(argv[1], "list") == 0) {
		for (; i < ARRAY_SIZE(calls); i++)
			puts(calls[i].name);
		return 0;
	}
	if (argc < 3)
		return 64;
	while (i < ARRAY_SIZE(calls) && strcmp(argv[1], calls[i].name) != 0)
		i++;
	if (i == ARRAY_SIZE(calls) || install(i) < 0)
		return 125;
	execvp(argv[2], argv + 2);
	fprintf(stderr, "refuse: %s: %s\n", argv[2], strerror(errno));
	return 127;
}
