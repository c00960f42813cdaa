/* SPDX-License-Identifier: MIT */
/*
 * cellos-telemetry, the guest agent: the three ways to start it, and how the one who started it
 * learns that it is ready.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>

#include "common/handover.h"
#include "common/log.h"
#include "guest-agent/agent.h"
#include "guest-agent/harden.h"

#define STOP_WAIT_MS 1000u

struct readiness {
	const struct options *options;
	int pipe_fd; /* to the parent that waits; -1: none */
	bool detach; /* leave the parent's terminal and directory */
};

static void write_pid(int fd)
{
	char line[16];
	int n = snprintf(line, sizeof(line), "%d\n", (int)getpid());

	if (write(fd, line, (size_t)n) != n)
		log_warning("msg=\"cannot write the pid\" errno=%d", errno);
}

static void write_pid_file(const char *path)
{
	/* Not through a link that somebody planted. */
	_cleanup_close_ int fd = open(
		path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);

	if (fd < 0)
		log_warning(
			"msg=\"cannot write the pid file; without it the workload profile must be "
			"told the pid\" path=%s errno=%d",
			path, errno);
	else
		write_pid(fd);
}

/* From here on nothing of the parent's is used but stderr, which is the log. */
static void detach_stdio(void)
{
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
}

static void on_ready(void *ctx)
{
	struct readiness *ready = ctx;

	write_pid_file(ready->options->pid_file);
	if (ready->detach)
		detach_stdio();
	if (ready->options->ready_fd >= 0) {
		write_pid(ready->options->ready_fd);
		close_fd(ready->options->ready_fd);
	}
	if (ready->pipe_fd >= 0) {
		if (write(ready->pipe_fd, "", 1) != 1)
			log_warning("msg=\"nobody waits for ready\" errno=%d", errno);
		close_fd(take_fd(&ready->pipe_fd));
	}
}

static int run_agent(struct options *o, int pipe_fd, bool detach)
{
	struct readiness ready = {.options = o, .pipe_fd = pipe_fd, .detach = detach};

	/* Of the pid file and of the launcher's socket; later the agent may not make it any more.
	 */
	(void)!mkdir(LISTENER_FOLDER, 0755);
	harden_close_inherited((const int[]){pipe_fd, o->ready_fd}, 2);
	o->probes.self = getpid();
	probe_exclude_now(&o->probes);
	/* A signal to the group of whoever started it must not reach the agent. */
	if (setsid() < 0)
		setpgid(0, 0);
	if (chdir("/") < 0)
		log_warning("msg=\"cannot change to /\" errno=%d", errno);
	return agent_run(o, on_ready, &ready);
}

/* The child's own failure code, or 3 where it has none. */
static int child_failure(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_NOT_READY;
	if (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_SUCCESS)
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		log_error("msg=\"the agent was killed before it was ready\" signal=%d",
			  WTERMSIG(status));
	return EXIT_NOT_READY;
}

static int become(char **command, pid_t agent)
{
	int error;

	execvp(command[0], command);
	error = errno;
	log_error("msg=\"cannot run the command\" command=\"%s\" why=\"%s\"", command[0],
		  strerror(error));
	kill(agent, SIGTERM);
	for (unsigned i = 0; i < STOP_WAIT_MS / 10; i++) {
		if (waitpid(agent, NULL, WNOHANG) != 0)
			break;
		usleep(10 * 1000);
	}
	return error == ENOENT ? 127 : 126;
}

static int start(struct options *o)
{
	int fds[2] = {-1, -1};
	ssize_t n;
	pid_t child;
	char byte;

	if (!o->no_wait && pipe2(fds, O_CLOEXEC) < 0) {
		log_error("msg=\"cannot make a pipe\" errno=%d", errno);
		return EXIT_FORK_FAILED;
	}
	child = fork();
	if (child < 0) {
		log_error("msg=\"fork failed\" errno=%d", errno);
		return EXIT_FORK_FAILED;
	}
	if (child == 0) {
		close_fd(fds[0]);
		/* Not exit(): what the parent had buffered is the parent's. */
		_exit(run_agent(o, fds[1], true));
	}
	close_fd(fds[1]);
	if (!o->no_wait) {
		do
			n = read(fds[0], &byte, 1);
		while (n < 0 && errno == EINTR);
		if (n != 1)
			return child_failure(child);
	}
	close_fd(fds[0]);
	return o->form == START_COMMAND ? become(o->command, child) : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct options o;
	int r = options_parse(argc, argv, &o);

	if (r != 0)
		return r < 0 ? EX_USAGE : EXIT_SUCCESS;
	log_set_level(o.log_level);
	signal(SIGPIPE, SIG_IGN);
	switch (o.form) {
	case START_PROBE:
		o.probes.self = getpid();
		probe_exclude_now(&o.probes);
		return agent_probe(&o);
	case START_FOREGROUND: return run_agent(&o, -1, false);
	default: return start(&o);
	}
}
