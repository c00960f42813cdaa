/* SPDX-License-Identifier: MIT */
/*
 * The launcher runs between its caller and the workload: it passes signals down to the workload,
 * and the workload's exit status up to the caller.
 */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "seccomp/launcher/launch.h"

int supervise(pid_t child, bool reap, int *ret_status)
{
	sigset_t all;

	/* If SIGCHLD is ignored, the kernel drops the exit status of children. */
	signal(SIGCHLD, SIG_DFL);
	sigfillset(&all);
	for (;;) {
		siginfo_t info;
		int status;
		pid_t pid;

		while ((pid = waitpid(reap ? -1 : child, &status, WNOHANG)) > 0) {
			if (pid == child) {
				*ret_status = status;
				return 0;
			}
		}
		if (pid < 0 && errno != EINTR)
			return -errno;
		/* The pid belongs to the child until wait(2). */
		if (sigwaitinfo(&all, &info) > 0 && info.si_signo != SIGCHLD)
			kill(child, info.si_signo);
	}
}

_Noreturn void supervise_exit_as(int status)
{
	if (WIFSIGNALED(status)) {
		const struct rlimit none = {0};
		const int sig = WTERMSIG(status);
		sigset_t set;

		/* Only the child may leave a core file. */
		setrlimit(RLIMIT_CORE, &none);
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		signal(sig, SIG_DFL);
		sigemptyset(&set);
		sigaddset(&set, sig);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		raise(sig);
		/* As PID 1 of a namespace this process survives its own signal. */
		_exit(128 + sig);
	}
	_exit(WEXITSTATUS(status));
}
