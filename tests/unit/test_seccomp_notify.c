/* SPDX-License-Identifier: MIT */
/*
 * The notification source against real filters: the test plays the launcher, its children carry the
 * filter and call what it asks about.
 */
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "common/handover.h"
#include "common/util.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/seccomp_notify_stale.h"
#include "guest-agent/probes/sources.h"
#include "tests/unit/observed.h"
#include "tests/unit/unit.h"

#define WAIT_MS	      60000u
#define REFUSED_ERRNO 71 /* EPROTO: no kernel gives it for these calls */
/* Any that is not the channel's: tools/mutants refuses that one itself. */
#define REFUSED_FAMILY AF_APPLETALK
#define RUBBISH	       (UINT64_C(1) << 32)

static char folder[32], socket_path[64];
static struct probe_config config;
static struct probe *probe;
static struct event_queue *queue;
static struct observed observed;

static void setup(void)
{
	char why[PROBE_WHY_MAX] = "";

	/* Its own folder: another pid namespace with the same /tmp may have this pid, too. */
	strcpy(folder, "/tmp/test-notify-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(socket_path, sizeof(socket_path), "%s/sock", folder);
	config = (struct probe_config){.self = getpid(), .listener_socket = socket_path};
	observed.n = 0;
	queue = event_queue_new(4096, WIRE_VERSION_2);
	ck_assert_msg(seccomp_notify_ops.open(&config, &probe, why) == 0, "%s", why);
}

static void teardown(void)
{
	struct stat st;

	seccomp_notify_ops.close(probe);
	event_queue_free(queue);
	ck_assert_int_ne(stat(socket_path, &st), 0);
	ck_assert_int_eq(rmdir(folder), 0);
}

static struct listener_message table(void)
{
	return (struct listener_message){
		.magic = LISTENER_MAGIC,
		.version = LISTENER_VERSION,
		.arch = syscall_native_arch(),
		.n_rules = 4,
		.rules =
			{
				/* Before the next: the first that matches counts. */
				{.nr = __NR_socket,
				 .action = LISTENER_REFUSE,
				 .error = REFUSED_ERRNO,
				 .n_conditions = 1,
				 .conditions =
					 {{.arg = 0, .mask = UINT32_MAX, .value = REFUSED_FAMILY}}},
				{.nr = __NR_socket, .action = LISTENER_WATCH},
				{.nr = __NR_sethostname, .action = LISTENER_WATCH},
				{.nr = __NR_mknodat, .action = LISTENER_WATCH},
			},
	};
}

/* linux/seccomp.h has it since 5.19. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Notify socket, sethostname, mknodat and (no rule in the table) setdomainname. */
static int install_filter(unsigned long flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_sethostname, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mknodat, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_setdomainname, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			    SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, &program);
}

static int connect_agent(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, socket_path);
	return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : fd;
}

static int read_reply(int fd)
{
	struct listener_reply r = {0};

	if (recv(fd, &r, sizeof(r), 0) != sizeof(r) || r.magic != LISTENER_MAGIC)
		return -EIO;
	return r.status;
}

static void send_message(int fd, const void *data, size_t len, int pass)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)data, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (pass >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), &pass, sizeof(pass));
	}
	(void)!sendmsg(fd, &msg, MSG_NOSIGNAL);
}

/* What a launcher does; exits the child at the first thing that goes wrong. */
static void confine_with_table(struct listener_message m, unsigned long flags)
{
	int fd = connect_agent(), listener;

	if (fd < 0 || read_reply(fd) != 0)
		_exit(101);
	listener = install_filter(flags);
	if (listener < 0)
		_exit(102);
	send_message(fd, &m, LISTENER_MESSAGE_SIZE(m.n_rules), listener);
	if (read_reply(fd) != 0)
		_exit(103);
	close(listener);
	close(fd);
}

static void confine_with(unsigned long flags)
{
	confine_with_table(table(), flags);
}

static void confine_self(void)
{
	confine_with(0);
}

/* How often something was seen: equal observations may be folded into one. */
static uint64_t occurrences(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < observed.n; i++)
		n += observed_has(&observed.events[i], WIRE_KEY_REPEAT)
			     ? observed.events[i].uints[WIRE_KEY_REPEAT]
			     : 1;
	return n;
}

/* Run the source until pid ends. Returns its exit status. */
static int serve_until_exit(pid_t pid)
{
	uint64_t until = monotonic_ns() + WAIT_MS * NSEC_PER_MSEC;
	int status;

	while (monotonic_ns() < until) {
		struct pollfd pfd = {.fd = probe->fd, .events = POLLIN};

		poll(&pfd, 1, 5);
		ck_assert_int_ge(seccomp_notify_ops.drain(probe, queue, 64), 0);
		if (waitpid(pid, &status, WNOHANG) == pid) {
			/* POLLHUP */
			poll(&pfd, 1, 50);
			seccomp_notify_ops.drain(probe, queue, 64);
			observed_take(&observed, queue);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		}
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ck_abort_msg("the child waited for an answer in vain");
}

static void drop_capabilities(void)
{
	if (setresuid(65534, 65534, 65534) < 0)
		_exit(104);
}

UNIT_TEST(test_refused)
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		confine_self();
		prctl(PR_SET_NAME, "n\xff\n\"me");
		/* Also with rubbish in the half that the kernel does not look at. */
		if (syscall(SYS_socket, RUBBISH | REFUSED_FAMILY, SOCK_STREAM, 0) != -1 ||
		    errno != REFUSED_ERRNO)
			_exit(1);
		/* No rule for it: the safe answer. */
		if (syscall(SYS_setdomainname, "x", 1) != -1 || errno != EPERM)
			_exit(2);
		_exit(0);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
	ck_assert_uint_eq(observed.n, 2);
	ck_assert_int_eq(observed.events[0].source, WIRE_CAPABILITY_DENIED);
	ck_assert_uint_eq(observed.events[0].pid, (uint32_t)pid);
	ck_assert_str_eq(observed.events[0].comm, "n\xef\xbf\xbd\n\"me");
	ck_assert_str_eq(observed.events[0].syscall, "socket");
	ck_assert_str_eq(observed.events[0].via, "profile");
	ck_assert(!observed_has(&observed.events[0], WIRE_KEY_CAPABILITY));
	ck_assert_str_eq(observed.events[1].syscall, "setdomainname");
	ck_assert_str_eq(observed.events[1].error, "EPERM");
	ck_assert_str_eq(observed.events[1].capability, "CAP_SYS_ADMIN");
	ck_assert(strstr(observed.events[1].exe, "test_seccomp_notify") != NULL);
}

/* Is killed, and has ended, when the agent asks whether its call still waits. 0: none. */
static pid_t ends_unanswered;

/* Replaces the C library's. */
int ioctl(int fd, unsigned long request, ...)
{
	siginfo_t info;
	va_list args;
	void *argument;

	va_start(args, request);
	argument = va_arg(args, void *);
	va_end(args);
	if (ends_unanswered && (uint32_t)request == SECCOMP_IOCTL_NOTIF_ID_VALID) {
		kill(ends_unanswered, SIGKILL);
		waitid(P_PID, (id_t)ends_unanswered, &info, WEXITED | WNOWAIT);
		ends_unanswered = 0;
	}
	return (int)syscall(SYS_ioctl, fd, request, argument);
}

static void *call_refused(_unused_ void *arg)
{
	syscall(SYS_socket, REFUSED_FAMILY, SOCK_STREAM, 0);
	return NULL;
}

/* The pid is the process's, not the thread's. Nothing else is certain of who has ended. */
UNIT_TEST(test_a_thread_that_ends_unanswered)
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		pthread_t thread;

		confine_self();
		if (pthread_create(&thread, NULL, call_refused, NULL) == 0)
			pthread_join(thread, NULL);
		_exit(1);
	}
	ends_unanswered = pid;
	ck_assert_int_eq(serve_until_exit(pid), 1000 + SIGKILL);
	ck_assert_uint_eq(observed.n, 1);
	ck_assert_int_eq(observed.events[0].source, WIRE_CAPABILITY_DENIED);
	ck_assert_uint_eq(observed.events[0].pid, (uint32_t)pid);
	ck_assert_str_eq(observed.events[0].comm, "");
	ck_assert(!observed_has(&observed.events[0], WIRE_KEY_EXE));
}

UNIT_TEST(test_watched)
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		int fd;

		/* In a namespace of its own, so that what the kernel lets through does no harm. */
		if (unshare(CLONE_NEWUTS | CLONE_NEWNET) < 0)
			_exit(100);
		confine_self();
		fd = socket(AF_INET, SOCK_STREAM, 0); /* watched, but ordinary */
		if (sethostname("test", 4) < 0 || fd < 0)
			_exit(1); /* it has the capability: goes on, no event */
		if (socket(AF_PACKET, SOCK_RAW, 0) < 0 ||
		    socket(AF_NETLINK, SOCK_RAW, 12 /* NETLINK_NETFILTER */) < 0)
			_exit(5);
		drop_capabilities();
		if (sethostname("test", 4) == 0 || errno != EPERM)
			_exit(2);
		if (mknod("/tmp/test-notify-device", S_IFCHR | 0600, 0x103) == 0 || errno != EPERM)
			_exit(3);
		_exit(0);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
	/* socket(AF_INET, SOCK_STREAM) is in the test's table without a condition: root had the
	 * capability. */
	ck_assert_uint_eq(observed.n, 4);
	ck_assert_int_eq(observed.events[0].source, WIRE_NET_SOCKET_CREATED);
	ck_assert_str_eq(observed.events[0].family, "packet");
	ck_assert_int_eq(observed.events[1].source, WIRE_NET_SOCKET_CREATED);
	ck_assert_str_eq(observed.events[1].family, "netlink");
	ck_assert_str_eq(observed.events[2].syscall, "sethostname");
	ck_assert_str_eq(observed.events[2].error, "EPERM");
	ck_assert_str_eq(observed.events[2].capability, "CAP_SYS_ADMIN");
	ck_assert_str_eq(observed.events[2].via, "seccomp-notify");
	ck_assert_str_eq(observed.events[3].syscall, "mknodat");
	ck_assert_str_eq(observed.events[3].capability, "CAP_MKNOD");
}

static void on_signal(_unused_ int sig)
{
}

#define INTERRUPTED_CALLS 300u

/* A process sends signals to the caller as fast as it can, while the caller makes refused calls. */
static void torment(int sa_flags, unsigned long filter_flags, unsigned calls)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = sa_flags};
	pid_t pid, tormentor;
	sigset_t set;

	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pid = unit_fork();
	if (pid == 0) {
		confine_with(filter_flags);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		/* Without SA_RESTART some attempts end with EINTR. */
		for (unsigned i = 0; i < calls; i += errno == EPERM)
			if (syscall(SYS_setdomainname, "x", 7) != -1 ||
			    (errno != EPERM && errno != EINTR))
				_exit(2);
		_exit(0);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	tormentor = unit_fork();
	if (tormentor == 0) {
		while (kill(pid, SIGUSR1) == 0)
			;
		_exit(0);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
	kill(tormentor, SIGKILL);
	waitpid(tormentor, NULL, 0);
}

/* With the launcher's flag a signal does not repeat a call that the agent has seen. */
UNIT_TEST(test_interrupted_is_reported_once)
{
	struct utsname uts;
	int major, minor;

	ck_assert(uname(&uts) == 0 && sscanf(uts.release, "%d.%d", &major, &minor) == 2);
	if (major < 5 || (major == 5 && minor < 19))
		return;
	torment(SA_RESTART, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, INTERRUPTED_CALLS);
	ck_assert_uint_eq(occurrences(), INTERRUPTED_CALLS);
}

/*
 * Before Linux 5.19 a signal interrupts also a call that the agent has seen, and the program or the
 * kernel makes it again. Each refusal that the program got is reported.
 */
UNIT_TEST(test_interrupted_attempts_are_not_hidden)
{
	torment(0, 0, INTERRUPTED_CALLS);
	ck_assert_uint_ge(occurrences(), INTERRUPTED_CALLS);
}

#ifdef __x86_64__
/* A filter that asks for all calls of another ABI. */
static int install_foreign_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			    &program);
}

UNIT_TEST(test_foreign_calls_say_their_abi)
{
	pid_t pid = unit_fork();
	int status;

	if (pid == 0) {
		struct listener_message m = table();
		int fd = connect_agent(), listener;
		long r;

		if (fd < 0 || read_reply(fd) != 0)
			_exit(101);
		listener = install_foreign_filter();
		send_message(fd, &m, LISTENER_MESSAGE_SIZE(m.n_rules), listener);
		if (read_reply(fd) != 0)
			_exit(103);
		close(listener);
		__asm__ volatile("int $0x80" /* 20: getpid */
				 : "=a"(r)
				 : "a"(20)
				 : "memory", "r8", "r9", "r10", "r11");
		_exit(r == -ENOSYS ? 0 : 1);
	}
	status = serve_until_exit(pid);
	if (status == 1000 + SIGSEGV)
		return; /* this kernel has no 32-bit calls */
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(observed.n, 1);
	ck_assert_str_eq(observed.events[0].syscall, "i386:getpid");
	ck_assert_str_eq(observed.events[0].error, "ENOSYS");
	ck_assert_str_eq(observed.events[0].via, "profile");
	ck_assert(!observed_has(&observed.events[0], WIRE_KEY_CAPABILITY));
}
#endif

UNIT_TEST(test_announced_and_forgotten)
{
	bool seen = false, ended = false;
	int hold[2], status = -1;
	pid_t pid;
	char c;

	ck_assert_str_eq(seccomp_notify_ops.announce(probe), "none");
	ck_assert_int_eq(pipe(hold), 0);
	pid = unit_fork();
	if (pid == 0) {
		close(hold[1]);
		confine_self();
		/* Lives until it was seen. */
		_exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	for (unsigned i = 0; i < WAIT_MS / 5 && !ended; i++) {
		usleep(5000);
		seccomp_notify_ops.drain(probe, queue, 64);
		if (!seen && !strcmp(seccomp_notify_ops.announce(probe), "seccomp-notify")) {
			seen = true;
			close(hold[1]);
		}
		ended = waitpid(pid, &status, WNOHANG) == pid;
	}
	ck_assert(seen);
	ck_assert_int_eq(status, 0);
	seccomp_notify_ops.drain(probe, queue, 64);
	/* The last process under the filter is gone. */
	ck_assert_str_eq(seccomp_notify_ops.announce(probe), "none");
}

/* A launcher that has a pending place. */
static int open_place(void)
{
	int fd = connect_agent();

	ck_assert_int_ge(fd, 0);
	seccomp_notify_ops.drain(probe, queue, 64);
	return fd;
}

UNIT_TEST(test_pending_places)
{
	int fds[LISTENER_PENDING_MAX + 1];
	struct stat st;

	ck_assert_int_eq(stat(socket_path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	for (unsigned i = 0; i < LISTENER_PENDING_MAX; i++) {
		fds[i] = open_place();
		ck_assert_int_eq(read_reply(fds[i]), 0);
	}
	/* One more than there are places. */
	fds[LISTENER_PENDING_MAX] = open_place();
	ck_assert_int_eq(read_reply(fds[LISTENER_PENDING_MAX]), -EMFILE);
	close(fds[LISTENER_PENDING_MAX]);
	/* A place comes free. */
	close(fds[0]);
	seccomp_notify_ops.drain(probe, queue, 64);
	fds[0] = open_place();
	ck_assert_int_eq(read_reply(fds[0]), 0);
	for (unsigned i = 0; i < LISTENER_PENDING_MAX; i++)
		close(fds[i]);
	seccomp_notify_ops.drain(probe, queue, 64);
	ck_assert_str_eq(seccomp_notify_ops.announce(probe), "none");
}

/* Workloads that hold their places until they are released. */
struct workloads {
	unsigned n;
	int hold[2], ready[2];
	pid_t pids[LISTENER_MAX];
};

static void workloads_begin(struct workloads *w)
{
	w->n = 0;
	ck_assert(pipe2(w->hold, O_CLOEXEC) == 0 && pipe2(w->ready, O_CLOEXEC) == 0);
}

static void workloads_add(struct workloads *w, const struct listener_message *m)
{
	struct pollfd pfd = {.fd = w->ready[0], .events = POLLIN};
	const pid_t pid = unit_fork();
	char byte;

	if (pid == 0) {
		close(w->hold[1]);
		confine_with_table(*m, 0);
		(void)!write(w->ready[1], "", 1);
		(void)!read(w->hold[0], &byte, 1);
		_exit(0);
	}
	w->pids[w->n++] = pid;
	while (poll(&pfd, 1, 1) == 0)
		seccomp_notify_ops.drain(probe, queue, 64);
	ck_assert_int_eq(read(w->ready[0], &byte, 1), 1);
}

/* From the first-th on: the others are gone already. */
static void workloads_end(struct workloads *w, unsigned first)
{
	close(w->hold[1]);
	for (unsigned i = first; i < w->n; i++)
		ck_assert_int_eq(waitpid(w->pids[i], NULL, 0), w->pids[i]);
	close(w->hold[0]);
	close(w->ready[0]);
	close(w->ready[1]);
}

/* LISTENER_MAX workloads are served; the next launcher has no place until one of them ends. */
UNIT_TEST(test_listeners)
{
	const struct listener_message m = table();
	struct workloads w;
	int fd;

	workloads_begin(&w);
	for (unsigned i = 0; i < LISTENER_MAX; i++)
		workloads_add(&w, &m);
	fd = open_place();
	ck_assert_int_eq(read_reply(fd), -EMFILE);
	close(fd);
	kill(w.pids[0], SIGKILL);
	ck_assert_int_eq(serve_until_exit(w.pids[0]), 1000 + SIGKILL);
	fd = open_place();
	ck_assert_int_eq(read_reply(fd), 0);
	close(fd);
	workloads_end(&w, 1);
}

/* Workloads with the same table share it; one table more than there is room for is refused. */
UNIT_TEST(test_tables)
{
	struct listener_message m = table();
	struct workloads w;
	pid_t pid;

	workloads_begin(&w);
	for (unsigned i = 0; i < LISTENER_TABLES_MAX; i++) {
		m.rules[0].error = 1 + i;
		workloads_add(&w, &m);
		if (i < 2)
			workloads_add(&w, &m);
	}
	m.rules[0].error = 1000;
	pid = unit_fork();
	if (pid == 0) {
		int fd = connect_agent();

		if (fd < 0 || read_reply(fd) != 0)
			_exit(1);
		send_message(fd, &m, LISTENER_MESSAGE_SIZE(m.n_rules), install_filter(0));
		_exit(read_reply(fd) == -ENOSPC ? 0 : 2);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
	workloads_end(&w, 0);
}

/* What is left of `cellos-workload-exec --share-pidns` under an earlier agent. */
static pid_t start_stale_workload(bool with_mount, bool with_filter)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {.len = 1, .filter = &allow};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	int ready[2];
	pid_t pid;
	char byte;

	ck_assert_int_eq(pipe(ready), 0);
	pid = unit_fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 ||
		    (with_mount && mount(PROFILE_MOUNT_SOURCE, "/mnt", "tmpfs", 0, NULL) < 0))
			_exit(1);
		syscall(SYS_capget, &header, data);
		data[0].effective = data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
		if (syscall(SYS_capset, &header, data) < 0 ||
		    (with_filter &&
		     (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)))
			_exit(2);
		(void)!write(ready[1], "", 1);
		pause();
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static const char *announced_by_the_next_agent(void)
{
	char why[PROBE_WHY_MAX] = "";

	seccomp_notify_ops.close(probe);
	ck_assert_msg(seccomp_notify_ops.open(&config, &probe, why) == 0, "%s", why);
	return seccomp_notify_ops.announce(probe);
}

UNIT_TEST(test_workloads_of_an_earlier_agent)
{
	/* In a container the test has a filter, and so have all its children. */
	const bool filtered = prctl(PR_GET_SECCOMP) != 0;
	pid_t pids[2];

	/* Both signs are needed: others have filters, or lack the capability. */
	pids[0] = start_stale_workload(false, true);
	pids[1] = start_stale_workload(!filtered, false);
	ck_assert_str_eq(announced_by_the_next_agent(), "none");
	for (unsigned i = 0; i < 2; i++)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < 2; i++)
		waitpid(pids[i], NULL, 0);

	for (unsigned i = 0; i < 2; i++)
		pids[i] = start_stale_workload(true, true);
	ck_assert_str_eq(announced_by_the_next_agent(), "seccomp-notify-stale");
	for (unsigned i = 0; i < 2; i++) {
		seccomp_notify_ops.check(probe, queue);
		ck_assert_str_eq(seccomp_notify_ops.announce(probe), "seccomp-notify-stale");
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	/* A search of all processes takes several checks. */
	for (unsigned i = 0; i < 3; i++)
		seccomp_notify_ops.check(probe, queue);
	ck_assert_str_eq(seccomp_notify_ops.announce(probe), "none");
}

/* Without a free descriptor the agent neither spins nor forgets the launcher. */
UNIT_TEST(test_no_descriptor_left)
{
	struct rlimit old, none;
	int fd;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	fd = connect_agent();
	ck_assert_int_ge(fd, 0);
	none = (struct rlimit){(rlim_t)fd + 1, old.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	seccomp_notify_ops.drain(probe, queue, 64);
	/* Paused: nothing more to do until the next check. */
	ck_assert_int_eq(seccomp_notify_ops.drain(probe, queue, 64), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	seccomp_notify_ops.check(probe, queue);
	seccomp_notify_ops.drain(probe, queue, 64);
	ck_assert_int_eq(read_reply(fd), 0);
	close(fd);
}

/* Each is answered and forgotten; none of them hurts. */
UNIT_TEST(test_bad_messages)
{
	struct listener_message good = table(), m;
	const size_t len = LISTENER_MESSAGE_SIZE(good.n_rules);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	for (unsigned i = 0; i < 12; i++) {
		int fd = connect_agent(), expected = -EPROTO, pass = null;
		size_t send_len = len;

		seccomp_notify_ops.drain(probe, queue, 64);
		ck_assert_int_eq(read_reply(fd), 0);
		m = good;
		switch (i) {
		case 0: m.magic++; break;
		case 1: m.version++; break;
		case 2: m.arch ^= 1; break;
		case 3: m.n_rules = 0; break;
		case 4: m.n_rules = LISTENER_RULES_MAX + 1; break;
		case 5: send_len--; break;
		case 6: send_len = 1; break;
		case 7: m.rules[0].error = LISTENER_ERRNO_MAX + 1; break;
		case 8: m.rules[0].n_conditions = LISTENER_CONDITIONS_MAX + 1; break;
		case 9: m.rules[0].conditions[0].arg = 6; break;
		case 10: expected = -EBADF; break; /* /dev/null is no notification descriptor */
		case 11:
			expected = -EBADF;
			pass = -1;
			break;
		}
		send_message(fd, &m, send_len, pass);
		seccomp_notify_ops.drain(probe, queue, 64);
		ck_assert_msg(read_reply(fd) == expected, "case %u", i);
		close(fd);
	}
	close(null);
	ck_assert_str_eq(seccomp_notify_ops.announce(probe), "none");
}

UNIT_TEST(test_strangers)
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		int fd;

		drop_capabilities();
		fd = connect_agent();
		_exit(fd == -EACCES ? 0 : 1);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
	/* Root, but a workload under a profile: a filter, and no CAP_SYS_PTRACE. */
	pid = unit_fork();
	if (pid == 0) {
		struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
		struct sock_fprog program = {.len = 1, .filter = &allow};
		struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
		struct __user_cap_data_struct data[2];
		int fd;

		syscall(SYS_capget, &header, data);
		for (unsigned i = 0; i < 2; i++)
			data[i].effective = data[i].permitted &=
				i ? UINT32_MAX : ~(1u << CAP_SYS_PTRACE);
		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ||
		    syscall(SYS_capset, &header, data) < 0)
			_exit(1);
		fd = connect_agent();
		_exit(fd >= 0 && read_reply(fd) == -EACCES ? 0 : 2);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
	/* Root, but confined to another pid namespace. */
	pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		int fd = connect_agent();

		_exit(fd >= 0 && read_reply(fd) == -EACCES ? 0 : 1);
	}
	ck_assert_int_eq(serve_until_exit(pid), 0);
}

/* Nobody can say what a process was that has gone. It is no launcher: that waits for its answer. */
UNIT_TEST(test_who_has_gone_is_no_launcher)
{
	const pid_t pid = unit_fork();

	if (pid == 0)
		_exit(0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert(is_profile_workload(pid));
	ck_assert(!is_profile_workload(getpid()));
}

UNIT_TEST(test_second_agent)
{
	char why[PROBE_WHY_MAX] = "";
	struct probe *second;

	ck_assert_int_eq(seccomp_notify_ops.open(&config, &second, why), -EADDRINUSE);
	ck_assert_msg(strstr(why, "another agent") != NULL, "%s", why);
	/* And the first still has its socket. */
	int fd = connect_agent();
	seccomp_notify_ops.drain(probe, queue, 64);
	ck_assert_int_eq(read_reply(fd), 0);
	close(fd);
}

static int wait_for(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/*
 * A pid namespace with a /proc of its own. Returns in the process that runs the tests. The process
 * that unshares ends with _exit(): it can make no thread any more, which LeakSanitizer needs.
 */
static void enter_own_namespaces(void)
{
	pid_t pid = unit_fork();

	if (pid != 0)
		exit(wait_for(pid));
	if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0) {
		puts("SKIP: no namespaces here");
		fflush(stdout);
		_exit(77);
	}
	pid = unit_fork();
	if (pid != 0)
		_exit(wait_for(pid));
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", 0, NULL) < 0)
		_exit(1);
}

static int begin(void)
{
	struct seccomp_notif_sizes sizes;

	if (geteuid() != 0) {
		puts("SKIP: needs root");
		return 77;
	}
	if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0 && errno == ENOSYS) {
		puts("SKIP: no seccomp(2) here (an emulator of user programs?)");
		return 77;
	}
	/* Workloads of other tests on this machine are not visible from here. */
	enter_own_namespaces();
	return 0;
}

UNIT_SUITE(.setup = setup, .teardown = teardown, .begin = begin);
