/* SPDX-License-Identifier: MIT */
/*
 * cellos-telemetry, the guest agent: the three ways to start it, and how the caller learns that the
 * agent is ready.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <sysexits.h>

#include "common/handover.h"
#include "common/log.h"
#include "guest-agent/agent.h"
#include "guest-agent/harden.h"
#include "guest-agent/pid_file.h"
#include "guest-agent/probe_report.h"

#define STOP_WAIT_MS 1000u

struct readiness {
	const struct options *options;
	int pid_file_fd; /* locked; -1: none */
	int pipe_fd;	 /* to the parent that waits; -1: none */
	bool detach;	 /* leave the parent's terminal and directory */
};

static void write_pid(int fd)
{
	char line[16];
	int n = snprintf(line, sizeof(line), "%d\n", (int)getpid());

	if (write(fd, line, (size_t)n) != n)
		log_warning("msg=\"cannot write the pid\" errno=%d", errno);
}

static void warn_pid_file(const char *path, int error)
{
	log_warning("msg=\"cannot write the pid file; without it the workload profile must be told "
		    "the pid\" path=%s why=\"%s\"",
		    path, strerror(-error));
}

/* From here on only stderr, which is the log, is shared with the parent. */
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
	const int r = pid_file_write(ready->pid_file_fd);

	if (r < 0)
		warn_pid_file(ready->options->pid_file, r);
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

/* Returns 0, or the exit status if another agent runs already. */
static int lock_pid_file(struct readiness *ready)
{
	const char *path = ready->options->pid_file;
	const int r = pid_file_lock(path);

	if (r == -EWOULDBLOCK) {
		log_error("msg=\"an agent runs already: it has locked the pid file\" path=%s",
			  path);
		return EXIT_RUNNING;
	}
	if (r < 0)
		warn_pid_file(path, r);
	else
		ready->pid_file_fd = r;
	return 0;
}

static void warn_missing_paths(const struct probe_config *config)
{
	for (size_t i = 0; i < config->n_inotify_paths; i++)
		if (access(config->inotify_paths[i], F_OK) < 0)
			log_warning("msg=\"a path to watch is not there yet\" path=%s why=\"%s\"",
				    config->inotify_paths[i], strerror(errno));
}

/* The protections of a running agent, in the order of harden.h. */
static void settle_in(const struct options *o)
{
	char why[HARDEN_WHY_MAX] = "";
	int r = harden_log();

	if (r < 0)
		log_info("msg=\"the log has no open file of its own\" why=\"%s\"", strerror(-r));
	if (harden_limits(!o->keep_sysctls, why) < 0)
		log_warning("msg=\"cannot raise all limits\" why=\"%s\"", why);
	/* A signal to the process group of the caller must not reach the agent. */
	if (setsid() < 0)
		setpgid(0, 0);
	if (chdir("/") < 0)
		log_warning("msg=\"cannot change to /\" errno=%d", errno);
	warn_missing_paths(&o->probes);
	r = harden_identity(o->uid, LISTENER_FOLDER);
	if (r < 0)
		log_warning("msg=\"cannot become the agent's own user; limits of users are shared "
			    "with the workload\" uid=%u why=\"%s\"",
			    o->uid, strerror(-r));
}

static bool is_in_folder(const char *path)
{
	return strncmp(path, LISTENER_FOLDER "/", strlen(LISTENER_FOLDER "/")) == 0;
}

static int run_agent(struct options *o, int pipe_fd, bool detach)
{
	struct readiness ready = {
		.options = o, .pid_file_fd = -1, .pipe_fd = pipe_fd, .detach = detach};
	int status;

	if (is_in_folder(o->pid_file) || is_in_folder(o->probes.listener_socket))
		(void)!mkdir(LISTENER_FOLDER, 0755);
	harden_close_inherited((const int[]){pipe_fd, o->ready_fd}, 2);
	o->probes.self = getpid();
	probe_exclude_now(&o->probes);
	status = lock_pid_file(&ready);
	if (status != 0)
		return status;
	settle_in(o);
	status = agent_run(o, on_ready, &ready);
	pid_file_remove(ready.pid_file_fd, o->pid_file);
	return status;
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
		/* Not exit(): buffered output of the parent belongs to the parent. */
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

/* The agent reads most of its knowledge of a process there. */
static bool has_proc(void)
{
	struct statfs fs;

	return statfs("/proc", &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

int main(int argc, char **argv)
{
	struct options o;
	int r = options_parse(argc, argv, &o);

	if (r != 0)
		return r < 0 ? EX_USAGE : EXIT_SUCCESS;
	log_set_level(o.log_level);
	signal(SIGPIPE, SIG_IGN);
	if (!has_proc()) {
		log_error("msg=\"/proc is not mounted: mount it before the agent starts\"");
		return EXIT_NOT_READY;
	}
	if (o.form == START_PROBE) {
		o.probes.self = getpid();
		probe_exclude_now(&o.probes);
		return probe_report(&o);
	}
	if (geteuid() != 0 && !o.allow_unprivileged) {
		log_error("msg=\"not root: what is left without privileges is no witness; "
			  "--allow-unprivileged starts all the same\" uid=%u",
			  (unsigned)geteuid());
		return EX_NOPERM;
	}
	return o.form == START_FOREGROUND ? run_agent(&o, -1, false) : start(&o);
}
