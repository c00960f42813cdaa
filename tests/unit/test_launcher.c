/* SPDX-License-Identifier: MIT */
/*
 * The parts of the workload's launcher. What changes the process runs in a child. The wrapper of
 * syscall(2) refuses what an older kernel does not have.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/handover.h"
#include "seccomp/launcher/launch.h"
#include "tests/unit/unit.h"

#define SKIPPED	      77
#define PATIENT_MS    300000u
#define AGENT_UID     64042u
#define WAIT_KILLABLE (1 << 5) /* SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, since Linux 5.19 */
#define GET_ACTION    SECCOMP_GET_ACTION_AVAIL
#define SET_FILTER    SECCOMP_SET_MODE_FILTER
#define HEAD(n)                                                                                    \
	{                                                                                          \
		LISTENER_MAGIC, LISTENER_VERSION, AGENT_UID, n                                     \
	}
#define FORBID(n, e) (deny = (struct deny){.nr = (n), .error = (e)})

/* The call that fails, if all that is not 0 here is true of it. */
static struct deny {
	long nr, flags;
	int op;
	uint32_t action; /* of SECCOMP_GET_ACTION_AVAIL */
	int error;	 /* default EINVAL */
} deny;

static char folder[64], path[96];

long __wrap_syscall(long nr, ...);
long __real_syscall(long nr, ...);

long __wrap_syscall(long nr, ...)
{
	long a[5];
	va_list ap;

	va_start(ap, nr);
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (deny.nr && nr == deny.nr && (!deny.op || (int)a[0] == deny.op) &&
	    (!deny.flags || a[1] & deny.flags) &&
	    (!deny.action || *(const uint32_t *)a[2] == deny.action)) {
		errno = deny.error ? deny.error : EINVAL;
		return -1;
	}
	return __real_syscall(nr, a[0], a[1], a[2], a[3], a[4]);
}

/* Its exit status. */
static int in_child(int (*f)(int i), int i)
{
	const pid_t pid = unit_fork();
	int status;

	if (pid == 0)
		_exit(f(i));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "status 0x%x", (unsigned)status);
	return WEXITSTATUS(status);
}

/* Mounts of its own, with an empty /run. */
static bool enter_mounts(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", "/run", "tmpfs", 0, NULL) == 0;
}

static void expect_child(int (*f)(int i), int i)
{
	const int status = in_child(f, i);

	if (status == SKIPPED)
		puts("skipped: needs root, and no filter with a listener");
	else
		ck_assert_int_eq(status, 0);
}

static void set_up(void)
{
	snprintf(folder, sizeof(folder), "/tmp/cellos-launcher-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
}

static void clean_up(void)
{
	deny = (struct deny){0};
	unlink(path);
	rmdir(folder);
}

UNIT_TEST(capabilities_by_name)
{
	ck_assert_int_eq(confine_capability("CAP_CHOWN"), CAP_CHOWN);
	ck_assert_int_eq(confine_capability("sys_admin"), CAP_SYS_ADMIN);
	ck_assert_int_eq(confine_capability("CAP_"), -ENOENT);
	ck_assert_int_eq(confine_capability("CAP_WISH"), -ENOENT);
	for (int i = 0; i <= CAP_CHECKPOINT_RESTORE; i++)
		ck_assert_int_eq(confine_capability(confine_capability_name(i)), i);
	ck_assert_ptr_null(confine_capability_name(CAP_CHECKPOINT_RESTORE + 1));
	ck_assert_ptr_null(confine_capability_hole(CAP_CHECKPOINT_RESTORE + 1));
	ck_assert_ptr_null(confine_capability_hole(CAP_CHOWN));
	ck_assert_ptr_nonnull(confine_capability_hole(CAP_SYS_ADMIN));
}

static int keep_two(int i)
{
	const int keep[] = {7, -1, 4, 1};
	struct step step;

	(void)i;
	for (int fd = 3; fd < 10; fd++)
		if (dup2(STDOUT_FILENO, fd) != fd)
			return 1;
	if (confine_descriptors(keep, ARRAY_SIZE(keep), &step) != 0)
		return 2;
	for (int fd = 0; fd < 64; fd++)
		if ((fcntl(fd, F_GETFD) >= 0) != (fd < 3 || fd == 4 || fd == 7))
			return fd + 100;
	FORBID(SYS_close_range, ENOSYS);
	return confine_descriptors(keep, ARRAY_SIZE(keep), &step) == -ENOSYS ? 0 : 3;
}

UNIT_TEST(only_these_descriptors_stay)
{
	ck_assert_int_eq(in_child(keep_two, 0), 0);
}

/* The agent. */

static int listen_at(bool accepts)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	if (accepts)
		ck_assert_int_eq(listen(fd, 8), 0);
	return fd;
}

/* Gives each launcher the next answer, of size bytes. */
static pid_t start_agent(int fd, const struct listener_reply *replies, size_t n, size_t size)
{
	const pid_t pid = unit_fork();

	if (pid > 0)
		return pid;
	for (size_t i = 0; i < n; i++)
		if (send(accept(fd, NULL, NULL), &replies[i], size, 0) < 0)
			_exit(1);
	for (;;)
		pause();
}

/* In some containers this process is one that the launcher must not trust. */
static bool looks_like_a_workload(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

	return prctl(PR_GET_SECCOMP) != 0 && (syscall(SYS_capget, &head, sets) < 0 ||
					      !(sets[0].permitted & CAP_TO_MASK(CAP_SYS_PTRACE)));
}

/* The name is the reason that a user reads. */
UNIT_TEST(an_agent_that_is_not_there_is_waited_for)
{
	struct launch_options o = {.listener = path, .ready_timeout_ms = 1};
	struct agent agent = {.connection = -1};
	struct step step;
	char below[128], longer[512];

	ck_assert_int_eq(handover_connect(&o, &agent, &step), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(step.name, " within 1 ms"));
	ck_assert_ptr_nonnull(strstr(step.name, path));
	/* A socket that a former agent has left. */
	close(listen_at(false));
	ck_assert_int_eq(handover_connect(&o, &agent, &step), -ETIMEDOUT);
	/* What waiting does not mend. */
	o.ready_timeout_ms = PATIENT_MS;
	snprintf(below, sizeof(below), "%s/below", path);
	o.listener = below;
	ck_assert_int_eq(handover_connect(&o, &agent, &step), -ENOTDIR);
	ck_assert_ptr_null(strstr(step.name, " within "));
	memset(longer, 'x', sizeof(longer));
	longer[108] = '\0';
	o.listener = longer;
	ck_assert_int_eq(handover_connect(&o, &agent, &step), -ENAMETOOLONG);
	longer[107] = '\0';
	o.ready_timeout_ms = 1;
	ck_assert_int_eq(handover_connect(&o, &agent, &step), -ETIMEDOUT);
	ck_assert_int_eq(agent.connection, -1);
}

static const struct {
	struct listener_reply replies[2];
	size_t n, size;
	int result;
	const char *step;
} answers[] = {
	{{HEAD(0)}, 1, 16, 0, "accept the connection"},
	{{HEAD(-EMFILE), HEAD(0)}, 2, 16, 0, "accept the connection"},
	{{HEAD(-EACCES)}, 1, 16, -EACCES, "accept the connection"},
	{{HEAD(0)}, 1, 15, -EPROTO, "answer to the connection"},
	{{{LISTENER_MAGIC + 1, LISTENER_VERSION, 0, 0}}, 1, 16, -EPROTO, "answer to"},
	{{{LISTENER_MAGIC, LISTENER_VERSION + 1, 0, 0}}, 1, 16, -EPROTO, "answer to"},
};

UNIT_LOOP_TEST(the_agent_answers, ARRAY_SIZE(answers))
{
	const struct launch_options o = {
		.listener = path, .ready_timeout_ms = PATIENT_MS, .agent_uid = geteuid()};
	struct agent agent = {.connection = -1};
	struct step step;
	int fd;
	pid_t pid;

	if (looks_like_a_workload()) {
		puts("skipped: this process has a seccomp filter and no CAP_SYS_PTRACE");
		return;
	}
	fd = listen_at(true);
	pid = start_agent(fd, answers[_i].replies, answers[_i].n, answers[_i].size);
	ck_assert_int_eq(handover_connect(&o, &agent, &step), answers[_i].result);
	ck_assert_msg(strstr(step.name, answers[_i].step), "%s", step.name);
	if (answers[_i].result == 0) {
		ck_assert_int_eq(agent.pid, getpid()); /* who listens */
		ck_assert_uint_eq(agent.uid, AGENT_UID);
	}
	ck_assert_int_eq(agent.connection >= 0, answers[_i].result == 0);
	close_fd(agent.connection);
	close_fd(fd);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static void interrupt(_unused_ int signal)
{
}

/* However often a signal comes before it is over. */
UNIT_TEST(an_agent_that_never_answers_is_given_up)
{
	const struct launch_options o = {
		.listener = path, .ready_timeout_ms = 1000, .agent_uid = geteuid()};
	const struct timeval often = {.tv_usec = 10000};
	const struct sigaction action = {.sa_handler = interrupt};
	struct agent agent = {.connection = -1};
	struct step step;
	int fd;

	if (looks_like_a_workload()) {
		puts("skipped: this process has a seccomp filter and no CAP_SYS_PTRACE");
		return;
	}
	fd = listen_at(true);
	ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
	ck_assert_int_eq(setitimer(ITIMER_REAL, &(struct itimerval){often, often}, NULL), 0);
	ck_assert_int_eq(handover_connect(&o, &agent, &step), -ETIMEDOUT);
	ck_assert_int_eq(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL), 0);
	ck_assert_msg(strstr(step.name, " within 1000 ms"), "%s", step.name);
	close_fd(fd);
}

/* The filter, and its descriptor at the other end of the connection. */

static int received_fd(int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	static struct listener_message m;
	struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	const ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);
	int got;

	if (n < 0 || (size_t)n != LISTENER_MESSAGE_SIZE(m.n_rules) || m.n_rules == 0 ||
	    !CMSG_FIRSTHDR(&msg))
		return -1;
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	return got;
}

/* i: with a listener; 1: on a kernel from before Linux 5.19 */
static int install(int i)
{
	const struct listener_reply reply = HEAD(0);
	const struct filter_options o = {.notify = i < 2};
	struct step step;
	int pair[2] = {-1, -1}, r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return 1;
	if (o.notify && (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0 ||
			 send(pair[1], &reply, sizeof(reply), 0) < 0))
		return 2;
	if (i == 1)
		deny = (struct deny){.nr = SYS_seccomp, .flags = WAIT_KILLABLE};
	r = filter_install(launch_table(false), &o, pair[0], &step);
	if (r == -EBUSY)
		return SKIPPED; /* this process is the workload of another listener already */
	if (r < 0)
		return 3;
	if (prctl(PR_GET_SECCOMP) != SECCOMP_MODE_FILTER)
		return 4;
	return o.notify && received_fd(pair[1]) < 0 ? 5 : 0;
}

UNIT_LOOP_TEST(the_filter_is_installed, 3)
{
	expect_child(install, _i);
}

UNIT_TEST(a_filter_that_is_refused_is_named)
{
	struct filter_options o = {.notify = true};
	struct step step;

	FORBID(SYS_seccomp, EPERM);
	ck_assert_int_eq(filter_install(launch_table(false), &o, 0, &step), -EPERM);
	ck_assert_str_eq(step.name, "install the seccomp filter with a listener");
	ck_assert_int_eq(filter_install(launch_table(false), &o, -1, &step), -EINVAL);
	o.notify = false;
	ck_assert_int_eq(filter_install(launch_table(false), &o, -1, &step), -EPERM);
	ck_assert_str_eq(step.name, "install the seccomp filter");
	ck_assert_int_eq(filter_install(launch_table(false), &o, 0, &step), -EINVAL);
}

/* Children. */

/* COMMAND beside an orphan: only the signal that is meant for it reaches it. */
static int command_with_an_orphan(void)
{
	sigset_t urgent, child, pending;
	int pids[2], sig;
	pid_t pid, orphan;

	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	if (pipe(pids) < 0)
		return 1;
	pid = unit_fork();
	if (pid == 0) {
		orphan = fork();
		_exit(orphan == 0 || write(pids[1], &orphan, sizeof(orphan)) == sizeof(orphan) ? 0
											       : 1);
	}
	if (read(pids[0], &orphan, sizeof(orphan)) != sizeof(orphan) ||
	    waitpid(pid, NULL, 0) != pid || sigwait(&child, &sig) != 0)
		return 2;
	/* Once the orphan is reaped its parent has got SIGCHLD, which comes before SIGURG. */
	while (kill(orphan, 0) == 0)
		sched_yield();
	kill(getppid(), SIGURG);
	if (sigwait(&urgent, &sig) != 0 || sigpending(&pending) < 0)
		return 3;
	return sigismember(&pending, SIGCHLD) ? 4 : 7;
}

static int watch_a_command(int i)
{
	sigset_t all;
	int status;
	pid_t pid;

	(void)i;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return 10;
	pid = unit_fork();
	if (pid == 0)
		_exit(command_with_an_orphan());
	if (supervise(pid, true, &status) < 0 || !WIFEXITED(status))
		return 11;
	return WEXITSTATUS(status) == 7 && supervise(pid, false, &status) == -ECHILD
		       ? 0
		       : WEXITSTATUS(status);
}

UNIT_TEST(an_init_reaps_and_passes_signals_on)
{
	ck_assert_int_eq(in_child(watch_a_command, 0), 0);
}

UNIT_TEST(ends_as_the_command_ended)
{
	static const int statuses[] = {0, 7 << 8, 255 << 8, SIGUSR1, SIGTERM};

	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		const pid_t pid = unit_fork();
		int status;

		if (pid == 0)
			supervise_exit_as(statuses[i]);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, statuses[i]);
	}
}

/* Mounts. */

/* A mask that fails ends the launcher: nothing runs with half a profile. */
static int mask_fails(int i)
{
	const struct launch_options o = {.share_pidns = true,
					 .listener = i ? "/run/s" : "/etc/passwd/s"};
	struct step step;

	if (!enter_mounts())
		return SKIPPED;
	if (i && mount("/dev/zero", "/dev/null", NULL, MS_BIND, NULL) < 0)
		return 1;
	if (confine_mounts(&o, &step) != (i ? -ENODEV : -ENOTDIR))
		return 2;
	return strncmp(step.name, "mask /", strlen("mask /")) == 0 ? 0 : 3;
}

UNIT_LOOP_TEST(a_mask_that_fails_is_an_error, 2)
{
	expect_child(mask_fails, _i);
}

static bool is_read_only(const char *name)
{
	struct statvfs st;

	return statvfs(name, &st) == 0 && st.f_flag & ST_RDONLY;
}

/* Mounts are found by their type, whatever their path is, and keep their other flags. */
static int treats(int i)
{
	static const char odd[] = "/run/a b\\c";
	const struct launch_options o = {.share_pidns = true, .listener = "/run/s"};
	struct statvfs st;
	struct step step;

	(void)i;
	if (!enter_mounts() || mkdir(odd, 0755) < 0 || mkdir("/run/p", 0755) < 0 ||
	    mkdir("/run/over", 0755) < 0 ||
	    mount("s", odd, "sysfs", MS_NOSUID | MS_NOEXEC | MS_NOATIME, NULL) < 0 ||
	    mount("p", "/run/p", "proc", 0, NULL) < 0 ||
	    mount("s", "/run/over", "sysfs", 0, NULL) < 0 ||
	    mount("t", "/run/over", "tmpfs", 0, NULL) < 0)
		return SKIPPED;
	if (confine_mounts(&o, &step) != 0)
		return 1;
	if (!is_read_only(odd) || statvfs(odd, &st) < 0 || !(st.f_flag & ST_NOSUID) ||
	    !(st.f_flag & ST_NOEXEC) || !(st.f_flag & ST_NOATIME) || st.f_flag & ST_NODEV)
		return 2;
	if (access("/run/p/self", F_OK) == 0 || access("/proc/self/stat", F_OK) < 0)
		return 3;
	if (is_read_only("/run/over") || access("/run/over/kernel", F_OK) == 0)
		return 4;
	return is_read_only("/proc/sys") && is_read_only("/proc/1") ? 0 : 5;
}

UNIT_TEST(mounts_are_found_by_their_type)
{
	expect_child(treats, 0);
}

/* --check. */

static int check_without(int i)
{
	static const struct {
		struct deny deny;
		int result;
	} cases[] = {
		{{0}, 0},
		{{.nr = SYS_seccomp, .op = GET_ACTION, .action = SECCOMP_RET_USER_NOTIF}, 0},
		{{.nr = SYS_seccomp, .op = GET_ACTION, .action = SECCOMP_RET_KILL_PROCESS}, 125},
		{{.nr = SYS_seccomp, .op = SET_FILTER}, 125},
		{{.nr = SYS_unshare}, 125},
		{{.nr = SYS_close_range}, 125},
		{{.nr = SYS_capset}, 125},
	};
	const struct launch_options o = {.listener = "/run/s"};

	if (!enter_mounts() || explain_check(&o) != 0)
		return SKIPPED;
	for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
		deny = cases[k].deny;
		if (explain_check(&o) != cases[k].result)
			return (int)k + 1;
	}
	return i;
}

UNIT_TEST(check_says_what_is_missing)
{
	expect_child(check_without, 0);
}

UNIT_SUITE(.begin = unit_needs_seccomp, .setup = set_up, .teardown = clean_up);
