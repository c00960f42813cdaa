/* SPDX-License-Identifier: MIT */
/*
 * The process source against this machine's own connector: the test forks, the source must tell.
 * Other processes of the machine come and go meanwhile; only the test's own are looked at.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/netlink.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/sources.h"
#include "tests/unit/observed.h"
#include "tests/unit/refuse_call.h"
#include "tests/unit/unit.h"

#define QUIET_MS    100
#define REST_NS	    (20 * NSEC_PER_SEC)
#define BUSY_NS	    (2 * NSEC_PER_SEC)
#define BURST	    400
#define DRAIN_STEPS 10000

static struct probe_config config;
static struct probe *probe;
static struct event_queue *queue;
static struct observed observed;
static char open_why[PROBE_WHY_MAX];

/* The test is a child of the agent's pid as it is told here, so its own children are not left out.
 */
static void setup(void)
{
	config = (struct probe_config){.self = getppid()};
	observed.n = 0;
	/* The machine has other things to do. */
	observed.children_of = (uint32_t)getpid();
	queue = event_queue_new(EVENT_QUEUE_MAX, WIRE_VERSION_2);
	ck_assert_int_eq(proc_connector_ops.open(&config, &probe, open_why), 0);
}

static void teardown(void)
{
	proc_connector_ops.close(probe);
	event_queue_free(queue);
}

/* The netlink sockets that are open here: only the source has some. Returns their number. */
static unsigned netlink_sockets(int fds[static 4])
{
	unsigned n = 0;

	for (int fd = 0; fd < 256 && n < 4; fd++) {
		int domain = 0;
		socklen_t len = sizeof(domain);

		if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
		    domain == AF_NETLINK)
			fds[n++] = fd;
	}
	return n;
}

static const struct observed_event *find(enum wire_source source, pid_t pid, unsigned nth)
{
	for (size_t i = 0; i < observed.n; i++)
		if (observed.events[i].source == source &&
		    observed.events[i].pid == (uint32_t)pid && nth-- == 0)
			return &observed.events[i];
	return NULL;
}

static unsigned count(enum wire_source source, pid_t pid)
{
	unsigned n = 0;

	while (find(source, pid, n))
		n++;
	return n;
}

static pid_t child(void (*body)(void))
{
	pid_t pid = unit_fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		body();
		_exit(0);
	}
	return pid;
}

static void body_kill(void)
{
	raise(SIGKILL);
}

/*
 * Drain until all that the test did before is reported: nothing comes for a while, or, where other
 * programs start all the time, a child of now is reported as well.
 */
static void drain_all(void)
{
	uint64_t marked_ns = monotonic_ns();
	pid_t marker = 0;

	for (unsigned i = 0; i < DRAIN_STEPS; i++) {
		struct pollfd pfd = {probe->fd, POLLIN, 0};
		int r = proc_connector_ops.drain(probe, queue, 256);

		ck_assert_int_ge(r, 0);
		observed_take(&observed, queue);
		if (marker && count(WIRE_PROCESS_EXITED, marker))
			break;
		if (monotonic_ns() - marked_ns > BUSY_NS) {
			/* A loss may have hidden the one before. */
			marked_ns = monotonic_ns();
			marker = child(body_kill);
			waitpid(marker, NULL, 0);
		}
		if (r == 0 && poll(&pfd, 1, QUIET_MS) == 0)
			break;
	}
	observed_take(&observed, queue);
}

static void body_exec(void)
{
	execl("/bin/sleep", "sleep", "0.2", (char *)NULL);
}

static int gate[2];

/* When told to; then until it is killed. */
static void body_exec_when_told(void)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(gate[0], &c, 1) == 1)
		execl("/bin/sleep", "sleep", "1000", (char *)NULL);
}

static void body_exit(void)
{
	prctl(PR_SET_NAME, "n\xff \"\n)");
	_exit(7);
}

static void drain_until(enum wire_source source, pid_t pid)
{
	for (unsigned i = 0; i < DRAIN_STEPS && !count(source, pid); i++) {
		struct pollfd pfd = {probe->fd, POLLIN, 0};

		ck_assert_int_ge(proc_connector_ops.drain(probe, queue, 256), 0);
		observed_take(&observed, queue);
		if (!count(source, pid))
			poll(&pfd, 1, QUIET_MS);
	}
}

/* The kernel wakes the parent before it reports the end, which on a busy machine comes much later.
 */
static void wait_for_end(pid_t pid)
{
	waitpid(pid, NULL, 0);
	drain_until(WIRE_PROCESS_EXITED, pid);
}

UNIT_TEST(test_life)
{
	pid_t pid, exits, killed;
	const struct observed_event *e;

	/* Before it executes and while it runs, so that comm and exe can be read. */
	ck_assert_int_eq(pipe(gate), 0);
	pid = child(body_exec_when_told);
	drain_until(WIRE_PROCESS_SPAWNED, pid);
	ck_assert_int_eq(write(gate[1], "", 1), 1);
	drain_until(WIRE_PROCESS_EXECUTED, pid);
	kill(pid, SIGTERM);
	wait_for_end(pid);
	exits = child(body_exit);
	wait_for_end(exits);
	killed = child(body_kill);
	wait_for_end(killed);
	drain_all();

	e = find(WIRE_PROCESS_SPAWNED, pid, 0);
	ck_assert_ptr_nonnull(e);
	ck_assert_uint_eq(e->uints[WIRE_KEY_PPID], (uint32_t)getpid());
	ck_assert_str_eq(e->comm, "test_proc_conne");
	e = find(WIRE_PROCESS_EXECUTED, pid, 0);
	ck_assert_ptr_nonnull(e);
	ck_assert_str_eq(e->comm, "sleep");
	ck_assert_msg(strstr(e->exe, "/sleep") != NULL, "%s", e->exe);
	ck_assert(e->uints[WIRE_KEY_RESOLVED]);
	e = find(WIRE_PROCESS_EXITED, pid, 0);
	ck_assert_ptr_nonnull(e);
	ck_assert_str_eq(e->comm, "sleep");
	ck_assert_uint_eq(e->uints[WIRE_KEY_SIGNAL], SIGTERM);

	/* The name it gave itself, though it is long gone. */
	e = find(WIRE_PROCESS_EXITED, exits, 0);
	ck_assert_uint_eq(e->uints[WIRE_KEY_EXIT_CODE], 7);
	ck_assert_str_eq(e->comm, "n\xef\xbf\xbd \"\n)");
	e = find(WIRE_PROCESS_EXITED, killed, 0);
	ck_assert_uint_eq(e->uints[WIRE_KEY_SIGNAL], SIGKILL);
	ck_assert(!observed_has(e, WIRE_KEY_EXIT_CODE));
	ck_assert_uint_eq(count(WIRE_PROCESS_SPAWNED, pid), 1);
	ck_assert_uint_eq(count(WIRE_PROCESS_EXITED, pid), 1);
}

static void *thread_sleep(void *usec)
{
	usleep((useconds_t)(uintptr_t)usec);
	return NULL;
}

static void *thread_exec(void *unused)
{
	usleep(20000);
	execl("/bin/true", "true", (char *)NULL);
	return unused;
}

static void *thread_exit7(_unused_ void *unused)
{
	usleep(20000);
	_exit(7);
}

static void *thread_exit0(_unused_ void *unused)
{
	usleep(100000);
	_exit(0);
}

static void body_threads(void)
{
	pthread_t t[8];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		pthread_create(&t[i], NULL, thread_sleep, (void *)(uintptr_t)(1000 * i));
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
}

static void body_leader_first(void)
{
	pthread_t t;

	pthread_create(&t, NULL, thread_exit0, NULL);
	pthread_exit(NULL);
}

static void body_exec_by_thread(void)
{
	pthread_t t;

	pthread_create(&t, NULL, thread_exec, NULL);
	for (;;)
		pause();
}

static void body_exit_by_thread(void)
{
	pthread_t t[8];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		pthread_create(&t[i], NULL, thread_sleep, (void *)(uintptr_t)10000000);
	pthread_create(&t[0], NULL, thread_exit7, NULL);
	pthread_exit(NULL);
}

static void *thread_exit_when_told(_unused_ void *arg)
{
	char c;

	(void)!read(gate[0], &c, 1);
	_exit(42);
}

static void body_exit_when_told(void)
{
	pthread_t t;

	pthread_create(&t, NULL, thread_exit_when_told, NULL);
	pthread_exit(NULL);
}

/* The look of /proc gives no verdict while the last thread's end waits to be read. */
UNIT_TEST(test_check_before_the_last_event)
{
	pid_t pid;

	ck_assert_int_eq(pipe(gate), 0);
	pid = child(body_exit_when_told);
	for (struct proc_stat st = {0}; st.state != 'Z';)
		ck_assert_int_eq(proc_read_stat(pid, &st), 0);
	drain_all();
	ck_assert_uint_eq(count(WIRE_PROCESS_EXITED, pid), 0);
	ck_assert_int_eq(write(gate[1], "", 1), 1);
	waitpid(pid, NULL, 0);
	proc_connector_ops.check(probe, queue);
	drain_all();
	ck_assert_uint_eq(count(WIRE_PROCESS_EXITED, pid), 1);
	ck_assert_uint_eq(find(WIRE_PROCESS_EXITED, pid, 0)->uints[WIRE_KEY_EXIT_CODE], 42);
	close(gate[0]);
	close(gate[1]);
}

/* A process is its threads: born with the first, gone with the last. */
UNIT_TEST(test_threads)
{
	static const struct {
		void (*body)(void);
		unsigned execs, code;
	} cases[] = {
		{body_threads, 0, 0},
		{body_leader_first, 0, 0},
		{body_exec_by_thread, 1, 0},
		{body_exit_by_thread, 0, 7},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t before = monotonic_ns();
		pid_t pid = child(cases[i].body);
		const struct observed_event *e;

		wait_for_end(pid);
		drain_all();
		ck_assert_msg(count(WIRE_PROCESS_SPAWNED, pid) == 1, "case %zu", i);
		ck_assert_msg(count(WIRE_PROCESS_EXECUTED, pid) == cases[i].execs, "case %zu", i);
		ck_assert_msg(count(WIRE_PROCESS_EXITED, pid) == 1, "case %zu: %u", i,
			      count(WIRE_PROCESS_EXITED, pid));
		e = find(WIRE_PROCESS_EXITED, pid, 0);
		ck_assert_uint_eq(e->uints[WIRE_KEY_EXIT_CODE], cases[i].code);
		if (cases[i].body == body_leader_first)
			ck_assert_uint_ge(e->at_ns - before, 90 * NSEC_PER_MSEC);
	}
}

static void body_stay(void)
{
	prctl(PR_SET_NAME, "stays");
	for (;;)
		pause();
}

/*
 * A buffer of a few events: what does not fit is counted, to the last one, and afterwards /proc
 * tells who is there. The machine's other processes are in the count too: so at least.
 */
UNIT_TEST(test_overrun)
{
	const int tiny = 1;
	int fds[4];
	unsigned n_fds;
	pid_t before = child(body_stay), stays, pids[BURST];
	uint64_t lost;
	size_t told = 0;

	drain_all();
	ck_assert_uint_eq(count(WIRE_PROCESS_SPAWNED, before), 1);
	n_fds = netlink_sockets(fds);
	ck_assert_uint_gt(n_fds, 0);
	for (unsigned i = 0; i < n_fds; i++)
		ck_assert_int_eq(
			setsockopt(fds[i], SOL_SOCKET, SO_RCVBUFFORCE, &tiny, sizeof(tiny)), 0);
	for (unsigned i = 0; i < BURST; i++) {
		pids[i] = child(body_kill);
		waitpid(pids[i], NULL, 0);
	}
	kill(before, SIGKILL);
	waitpid(before, NULL, 0);
	stays = child(body_stay);
	drain_all();

	lost = event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN];
	for (unsigned i = 0; i < BURST; i++)
		told += count(WIRE_PROCESS_SPAWNED, pids[i]) + count(WIRE_PROCESS_EXITED, pids[i]);
	ck_assert_uint_gt(lost, BURST);
	ck_assert_uint_ge(lost + told, 2 * BURST);
	/* Who ended and who began unseen. */
	ck_assert_uint_eq(count(WIRE_PROCESS_EXITED, before), 1);
	ck_assert(!observed_has(find(WIRE_PROCESS_EXITED, before, 0), WIRE_KEY_EXIT_CODE) ||
		  told > 0);
	ck_assert_uint_eq(count(WIRE_PROCESS_SPAWNED, stays), 1);
	ck_assert_uint_eq(find(WIRE_PROCESS_SPAWNED, stays, 0)->uints[WIRE_KEY_PPID],
			  (uint32_t)getpid());
	/* And the table is right again: its end has its name. */
	kill(stays, SIGKILL);
	wait_for_end(stays);
	drain_all();
	ck_assert_uint_eq(count(WIRE_PROCESS_EXITED, stays), 1);
	ck_assert_str_eq(find(WIRE_PROCESS_EXITED, stays, 0)->comm, "stays");
}

UNIT_TEST(test_excluded)
{
	pid_t pid;

	config.n_excluded = 1;
	config.excluded[0] = pid = child(body_stay);
	probe_exclude_now(&config);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	drain_all();
	ck_assert_uint_eq(count(WIRE_PROCESS_SPAWNED, pid), 0);
	ck_assert_uint_eq(count(WIRE_PROCESS_EXITED, pid), 0);
}

UNIT_TEST(test_health)
{
	/* The children of check() itself are not reported: here the test is the agent. */
	config.self = getpid();
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(proc_connector_ops.check(probe, queue), 1);
		drain_all();
	}
	for (size_t i = 0; i < observed.n; i++)
		ck_assert_uint_ne(observed.events[i].uints[WIRE_KEY_PPID], (uint32_t)getpid());
}

/* What check() says after the self-test's period, as its exit status. */
static int check_after_a_period(bool can_fork)
{
	int status;
	const pid_t pid = unit_fork();

	if (pid == 0) {
		if (!can_fork)
			ck_assert_int_eq(refuse_call(__NR_clone, EAGAIN), 0);
		_exit(proc_connector_ops.check(probe, queue));
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A self-test that cannot begin is not passed. A time namespace lets its period pass at once. */
UNIT_TEST(test_health_without_a_fork)
{
	const int fd = unshare(CLONE_NEWTIME) == 0
			       ? open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC)
			       : -1;

	if (fd < 0)
		return; /* a kernel without them */
	ck_assert_int_gt(write(fd, "monotonic 60 0", 14), 0);
	close(fd);
	ck_assert_int_eq(check_after_a_period(true), 1);
	ck_assert_int_eq(check_after_a_period(false), 0);
}

/* What the events of one process are on a socket, as bits of their kinds. */
static unsigned kinds_on(int fd, pid_t pid)
{
	_Alignas(8) uint8_t buf[512];
	unsigned kinds = 0;
	ssize_t n;

	/* ENOBUFS: an overrun. What is queued comes after it. */
	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0 || errno == ENOBUFS) {
		struct netlink_walk walk = {.data = buf, .left = (size_t)MAX(n, 0)};
		const struct nlmsghdr *h;
		struct connector_event ev;

		while ((h = netlink_next(&walk)))
			if (connector_parse(h, &ev) == 0 && ev.tgid == pid)
				kinds |= 1u << ev.kind;
	}
	return kinds;
}

/*
 * Only an exec wakes at once under load: one socket holds nothing else, the other everything. On a
 * busy machine a socket can overrun and lose the events of a child. Then the next child is tried.
 */
UNIT_TEST(test_bell)
{
	const unsigned exec = 1u << CONNECTOR_EXEC;
	const unsigned all = exec | 1u << CONNECTOR_FORK | 1u << CONNECTOR_EXIT;
	unsigned kinds[2] = {0};
	int fds[4];

	ck_assert_uint_eq(netlink_sockets(fds), 2);
	for (unsigned i = 0; i < 100 && MIN(kinds[0], kinds[1]) != exec; i++) {
		const pid_t pid = child(body_exec);

		waitpid(pid, NULL, 0);
		for (unsigned k = 0; k < 2; k++)
			kinds[k] = kinds_on(fds[k], pid);
		ck_assert(!(kinds[0] & ~exec) || !(kinds[1] & ~exec));
		if (MAX(kinds[0], kinds[1]) != all)
			kinds[0] = kinds[1] = 0;
	}
	ck_assert_uint_eq(MIN(kinds[0], kinds[1]), exec);
	ck_assert_uint_eq(MAX(kinds[0], kinds[1]), all);
}

static bool ticks(void)
{
	for (int fd = 0; fd < 256; fd++) {
		struct itimerspec spec;

		if (timerfd_gettime(fd, &spec) == 0 && spec.it_interval.tv_nsec > 0)
			return true;
	}
	return false;
}

/* How many processes and threads this machine has started since its boot. */
static unsigned long long forks(void)
{
	unsigned long long n = 0;
	char line[8192];
	FILE *f = fopen("/proc/stat", "r");

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f) && sscanf(line, "processes %llu", &n) != 1)
		;
	fclose(f);
	return n;
}

/* Once nothing happens any more nothing wakes the agent: the tick ends with the load. */
UNIT_TEST(test_rests)
{
	const uint64_t began_ns = monotonic_ns();
	const pid_t pid = child(body_exit);
	unsigned long long forked = forks();
	uint64_t fork_ns = began_ns;
	bool ticked = false;

	waitpid(pid, NULL, 0);
	while (monotonic_ns() - began_ns < REST_NS) {
		struct pollfd pfd = {probe->fd, POLLIN, 0};
		const unsigned long long now = forks();

		ck_assert_int_ge(proc_connector_ops.drain(probe, queue, 256), 0);
		/* Also those that are not reported. */
		if (now != forked)
			fork_ns = monotonic_ns();
		forked = now;
		if (ticked && !ticks())
			return;
		ticked |= ticks();
		poll(&pfd, 1, 1000);
	}
	ck_assert_msg(ticked, "it never ticked");
	if (fork_ns - began_ns < REST_NS / 2)
		ck_abort_msg("it ticks for ever");
	printf("skipped: rests: other programs start here all the time\n");
}

static int begin(void)
{
	char why[PROBE_WHY_MAX];
	struct probe *p;

	config = (struct probe_config){.self = getppid()};
	if (proc_connector_ops.open(&config, &p, why) < 0) {
		printf("SKIP: %s\n", why);
		return 77;
	}
	proc_connector_ops.close(p);
	return 0;
}

UNIT_SUITE(.setup = setup, .teardown = teardown, .begin = begin);
