/* SPDX-License-Identifier: MIT */
/*
 * A process that reads files of /proc: see proc_reader.h.
 */
#include "common/util.h"

#include "guest-agent/probes/proc_reader.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "guest-agent/probes/proc_file.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "no seccomp architecture"
#endif

struct request {
	uint32_t number;
	enum reader_files files;
	pid_t pids[READER_PIDS_MAX]; /* only those that are asked for are sent */
};

/* stat is read last: its start time says whose files the others were. */
static const struct {
	char name[sizeof("cmdline")];
	uint16_t max; /* bytes that are read */
} files[READER_TEXTS] = {
	[READER_STATUS] = {"status", PROC_STATUS_MAX},
	[READER_CMDLINE] = {"cmdline", READER_CMDLINE_MAX},
	[READER_STAT] = {"stat", PROC_STAT_MAX},
};

/* ---- the child ---- */

#define ALLOW(nr)                                                                                  \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1),                                           \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int confine(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(__NR_openat),
		ALLOW(__NR_read),
		ALLOW(__NR_write),
		ALLOW(__NR_close),
		ALLOW(__NR_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	const struct sock_fprog program = {.len = ARRAY_SIZE(filter), .filter = filter};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	data[0].permitted &= 1u << CAP_SYS_PTRACE;
	data[0].effective = data[0].permitted;
	data[1].permitted = data[1].effective = 0;
	data[0].inheritable = data[1].inheritable = 0;
	if (syscall(SYS_capset, &header, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0)
		return -errno;
	return 0;
}

/* The kernel may kill this child first when memory is short: another one is started. */
static void be_expendable(void)
{
	int fd;

	/* Its own files in /proc belong to root while it is not dumpable. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	fd = openat(AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "0", 1);
		close(fd);
	}
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static size_t read_stats(const pid_t *pids, size_t n, struct reader_answer *answer)
{
	struct reader_stat *stats = (struct reader_stat *)answer->data;

	for (size_t i = 0; i < n; i++)
		stats[i].error = proc_read_stat(pids[i], &stats[i].stat);
	memset(answer->len, 0, sizeof(answer->len));
	answer->len[0] = (int32_t)(n * sizeof(*stats));
	return n * sizeof(*stats);
}

static size_t read_files(const struct request *request, struct reader_answer *answer)
{
	size_t used = 0;

	for (size_t i = 0; i < READER_TEXTS; i++) {
		answer->len[i] = 0;
		if (i == READER_CMDLINE && request->files != READER_EXECUTED)
			continue;
		answer->len[i] = proc_read_pid_file(request->pids[0], files[i].name,
						    answer->data + used, files[i].max);
		used += (size_t)MAX(answer->len[i], 0);
	}
	return used;
}

/*
 * Returns when the agent has gone. Not _Noreturn: before a call of such a function a sanitizer
 * makes system calls that are not in the list.
 */
static void serve(int fd)
{
	for (;;) {
		struct request request;
		struct reader_answer answer;
		const ssize_t n = read(fd, &request, sizeof(request));
		size_t used;

		if (n <= (ssize_t)offsetof(struct request, pids))
			return;
		answer.number = request.number;
		used = request.files != READER_STATS
			       ? read_files(&request, &answer)
			       : read_stats(request.pids,
					    ((size_t)n - offsetof(struct request, pids)) /
						    sizeof(pid_t),
					    &answer);
		if (write(fd, &answer, offsetof(struct reader_answer, data) + used) < 0)
			return;
	}
}

_Noreturn static void child(int fd)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	/*
	 * The child keeps no descriptor of the agent: otherwise the other sides would not notice
	 * the agent's end.
	 */
	if ((fd > 0 && syscall(SYS_close_range, 0U, (unsigned)fd - 1, 0U) < 0) ||
	    syscall(SYS_close_range, (unsigned)fd + 1, ~0U, 0U) < 0)
		_exit(1);
	be_expendable();
	if (confine() < 0)
		_exit(1);
	serve(fd);
	_exit(0);
}

/* ---- the agent ---- */

static void reap_dying(struct proc_reader *r)
{
	for (size_t i = 0; i < READER_DYING_MAX; i++)
		if (r->dying[i] && waitpid(r->dying[i], NULL, __WALL | WNOHANG) != 0)
			r->dying[i] = 0;
}

void proc_reader_tend(struct proc_reader *r)
{
	long pid;
	size_t i = 0;

	reap_dying(r);
	if (r->state == READER_IDLE && waitpid(r->child, NULL, __WALL | WNOHANG) == r->child)
		r->state = READER_ABSENT;
	if (r->state != READER_ABSENT)
		return;
	/* A child that cannot be killed must not lead to more and more children. */
	while (i < READER_DYING_MAX && r->dying[i])
		i++;
	if (i == READER_DYING_MAX)
		return;
	pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
	if (pid == 0)
		child(r->child_fd);
	if (pid < 0)
		return;
	r->child = (pid_t)pid;
	r->state = READER_IDLE;
}

static void give_up(struct proc_reader *r, uint64_t now_ns)
{
	size_t i = 0;

	while (i < READER_DYING_MAX - 1 && r->dying[i])
		i++;
	kill(r->child, SIGKILL);
	r->dying[i] = r->child;
	r->skipped[r->next_skipped].pid = r->asked;
	r->skipped[r->next_skipped].until_ns = now_ns + r->skip_ns;
	r->next_skipped = (r->next_skipped + 1) % READER_SKIPPED_MAX;
	r->state = READER_ABSENT;
	/* If none of them answers, the next one has time until the next heartbeat. */
	if (++r->in_vain < READER_IN_VAIN_MAX)
		proc_reader_tend(r);
}

/* Longer on a machine where even a new child needs longer, if nothing waits for the answer. */
static uint64_t deadline(const struct proc_reader *r)
{
	return READER_DEADLINE_NS << (r->skip_ns ? 0 : MIN(r->in_vain, READER_SLOWER_MAX));
}

bool proc_reader_ask(struct proc_reader *r, enum reader_files what, const pid_t *pids, size_t n,
		     uint64_t now_ns, bool *ret_skip)
{
	const size_t bytes = n * sizeof(*pids);
	struct request request = {.files = what};

	*ret_skip = r->state == READER_ABSENT;
	for (size_t i = 0; i < READER_SKIPPED_MAX; i++)
		*ret_skip |= r->skipped[i].pid == pids[0] && now_ns < r->skipped[i].until_ns;
	if (*ret_skip || r->state != READER_IDLE)
		return false;
	request.number = ++r->request;
	memcpy(request.pids, pids, bytes);
	/* It never fills the socket: there is one request at a time. */
	if (write(r->fd, &request, offsetof(struct request, pids) + bytes) < 0) {
		*ret_skip = true;
		return false;
	}
	r->asked = pids[0];
	r->asked_ns = now_ns;
	r->deadline_ns = now_ns + deadline(r);
	r->state = READER_ASKED;
	return true;
}

int proc_reader_answer(struct proc_reader *r, pid_t *ret_pid, struct reader_answer *ret,
		       uint64_t now_ns)
{
	ssize_t n;

	while ((n = recv(r->fd, ret, sizeof(*ret), MSG_DONTWAIT)) >= 0) {
		ssize_t left = n - (ssize_t)offsetof(struct reader_answer, data);

		/* A late answer, of a child that was killed. */
		if (r->state != READER_ASKED || left < 0 || ret->number != r->request)
			continue;
		for (size_t i = 0; i < READER_TEXTS; i++)
			left -= MAX(ret->len[i], 0);
		if (left < 0)
			continue;
		r->state = READER_IDLE;
		r->in_vain = 0;
		*ret_pid = r->asked;
		return 0;
	}
	if (r->state != READER_ASKED || now_ns < r->deadline_ns)
		return -EAGAIN;
	*ret_pid = r->asked;
	give_up(r, now_ns);
	return -ETIMEDOUT;
}

int proc_reader_open(struct proc_reader *r, uint64_t skip_ns)
{
	int fds[2];

	*r = (struct proc_reader){.fd = -1, .child_fd = -1, .skip_ns = skip_ns};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	r->fd = fds[0];
	r->child_fd = fds[1];
	proc_reader_tend(r);
	return r->state == READER_ABSENT ? -EAGAIN : 0;
}

void proc_reader_close(struct proc_reader *r)
{
	close_fd(take_fd(&r->fd));
	close_fd(take_fd(&r->child_fd));
	if (r->state != READER_ABSENT) {
		kill(r->child, SIGKILL);
		waitpid(r->child, NULL, __WALL);
	}
	reap_dying(r);
	r->state = READER_ABSENT;
}
