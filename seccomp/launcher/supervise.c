/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a child in the name of those who wait for us: signals go down, the end goes up.
 */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "seccomp/launcher/launch.h"

int supervise(pid_t child, bool reap, int *ret_status)
{
	sigset_t all;

	/* Ignored, its children would vanish without a status. */
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
		/* It is one of ours until it is waited for, so the pid is still its own. */
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

		/* The core, if any, is the child's. */
		setrlimit(RLIMIT_CORE, &none);
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		signal(sig, SIG_DFL);
		sigemptyset(&set);
		sigaddset(&set, sig);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		raise(sig);
		/* The PID 1 of a namespace survives it. */
		_exit(128 + sig);
	}
	_exit(WEXITSTATUS(status));
}
