/* SPDX-License-Identifier: MIT */
/*
 * What the process tracker makes of the connector's events, without a connector. The pids are such
 * as no kernel gives, so /proc knows none of them: their programs are `gone`, their groups too.
 * What /proc says of living ones is tested with this process and its children.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"

#include "guest-agent/probes/process_tracker.h"
#include "tests/unit/observed.h"
#include "tests/unit/unit.h"

#define PID    0x40000000
#define PARENT 0x40001000

static struct probe_config config;
static struct process_tracker tracker;
static struct event_queue *queue;
static struct observed observed;

/* The next so many readings of CLOCK_BOOTTIME are followed by a pause, which takes no real time. */
static unsigned pauses;
static uint64_t paused_ns;

/* Replaces the C library's. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
	const long r = syscall(SYS_clock_gettime, clock, ret);
	const uint64_t ns = (uint64_t)ret->tv_nsec + paused_ns;

	ret->tv_sec += (time_t)(ns / NSEC_PER_SEC);
	ret->tv_nsec = (long)(ns % NSEC_PER_SEC);
	if (clock == CLOCK_BOOTTIME && pauses > 0) {
		pauses--;
		paused_ns += 3 * PROC_START_SLOP_NS;
	}
	return (int)r;
}

static void setup(void)
{
	config = (struct probe_config){.self = 0x40002000};
	observed.n = 0;
	queue = event_queue_new(EVENT_QUEUE_MAX, WIRE_VERSION_2);
	ck_assert_int_eq(process_tracker_init(&tracker, &config), 0);
}

static void teardown(void)
{
	process_tracker_done(&tracker);
	event_queue_free(queue);
}

static void feed(struct connector_event ev)
{
	if (!ev.at_ns)
		ev.at_ns = monotonic_ns();
	if (!ev.tid)
		ev.tid = ev.tgid;
	process_tracker_event(&tracker, queue, &ev);
}

static void born(pid_t pid, pid_t parent)
{
	feed((struct connector_event){.kind = CONNECTOR_FORK, .tgid = pid, .parent_tgid = parent});
}

/* A child that waits to be killed; *ret_at_ns is when it began, as an event would say. */
static pid_t child(uint64_t *ret_at_ns)
{
	const pid_t pid = unit_fork();
	struct proc_stat st;

	while (pid == 0)
		pause();
	ck_assert_int_eq(proc_read_stat(pid, &st), 0);
	*ret_at_ns =
		st.start_ticks * (NSEC_PER_SEC / 100) - (clock_ns(CLOCK_BOOTTIME) - monotonic_ns());
	return pid;
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void born_at(pid_t pid, uint64_t at_ns)
{
	feed((struct connector_event){
		.kind = CONNECTOR_FORK, .tgid = pid, .parent_tgid = getpid(), .at_ns = at_ns});
}

static void named(pid_t pid, const char *comm)
{
	struct connector_event ev = {.kind = CONNECTOR_COMM, .tgid = pid};

	strncpy(ev.comm, comm, sizeof(ev.comm) - 1);
	feed(ev);
}

static void ended(pid_t pid, pid_t tid, uint32_t status)
{
	feed((struct connector_event){
		.kind = CONNECTOR_EXIT, .tgid = pid, .tid = tid, .exit_status = status});
}

static const struct observed_event *only(enum wire_source source, pid_t pid)
{
	const struct observed_event *found = NULL;

	observed_take(&observed, queue);
	for (size_t i = 0; i < observed.n; i++) {
		if (observed.events[i].source != source || observed.events[i].pid != (uint32_t)pid)
			continue;
		ck_assert_msg(!found, "%s twice", wire_source_name(source));
		found = &observed.events[i];
	}
	return found;
}

UNIT_TEST(test_life)
{
	const struct observed_event *e;

	born(PARENT, 1);
	named(PARENT, "parent");
	born(PID, PARENT);
	e = only(WIRE_PROCESS_SPAWNED, PID);
	ck_assert_str_eq(e->comm, "parent");
	ck_assert_uint_eq(e->uints[WIRE_KEY_PPID], PARENT);
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = PID});
	e = only(WIRE_PROCESS_EXECUTED, PID);
	ck_assert_uint_eq(e->uints[WIRE_KEY_RESOLVED], 0);
	ck_assert_str_eq(e->exe, "");
	ck_assert(observed_has(e, WIRE_KEY_WHY));
	named(PID, "child");
	ended(PID, PID, 7 << 8);
	e = only(WIRE_PROCESS_EXITED, PID);
	ck_assert_str_eq(e->comm, "child");
	ck_assert_uint_eq(e->uints[WIRE_KEY_EXIT_CODE], 7);
	ck_assert_uint_eq(e->uints[WIRE_KEY_PPID], PARENT);
	ck_assert_ptr_null(pid_table_find(tracker.table, PID));
	ended(PARENT, PARENT, SIGSEGV | 0x80);
	e = only(WIRE_PROCESS_EXITED, PARENT);
	ck_assert_uint_eq(e->uints[WIRE_KEY_SIGNAL], SIGSEGV);
	ck_assert_uint_eq(e->uints[WIRE_KEY_CORE], 1);
}

/* The last thread's end is the process's, with its status. */
UNIT_TEST(test_threads)
{
	born(PID, PARENT);
	for (pid_t tid = PID + 1; tid <= PID + 2; tid++)
		feed((struct connector_event){.kind = CONNECTOR_FORK, .tgid = PID, .tid = tid});
	ended(PID, PID + 1, 1 << 8);
	ended(PID, PID, 0);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, PID));
	ended(PID, PID + 2, 42 << 8);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, PID)->uints[WIRE_KEY_EXIT_CODE], 42);
	/* A thread's birth is no process's. */
	ck_assert_ptr_null(only(WIRE_PROCESS_SPAWNED, PID + 1));
}

/* A pid that is used again although its owner's end was not seen: the end is reported first. */
UNIT_TEST(test_reuse)
{
	const uint64_t now = monotonic_ns();

	feed((struct connector_event){
		.kind = CONNECTOR_FORK, .tgid = PID, .parent_tgid = PARENT, .at_ns = now});
	feed((struct connector_event){.kind = CONNECTOR_FORK,
				      .tgid = PID,
				      .parent_tgid = PARENT + 1,
				      .at_ns = now + NSEC_PER_SEC});
	observed_take(&observed, queue);
	ck_assert_uint_eq(observed.n, 3);
	ck_assert_int_eq(observed.events[1].source, WIRE_PROCESS_EXITED);
	ck_assert(!observed_has(&observed.events[1], WIRE_KEY_EXIT_CODE));
	ck_assert_uint_eq(observed.events[2].uints[WIRE_KEY_PPID], PARENT + 1);
}

/* The agent is preempted between its readings of two clocks: it is the same process all the same.
 */
UNIT_TEST(test_a_pause_between_two_clocks)
{
	const struct connector_event ev = {.kind = CONNECTOR_FORK,
					   .tgid = PID,
					   .parent_tgid = PARENT,
					   .at_ns = monotonic_ns()};

	feed(ev);
	for (unsigned n = 1; n <= 3; n++) {
		pauses = n;
		feed(ev);
		ck_assert_uint_eq(pauses, 0);
	}
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, PID));
}

UNIT_TEST(test_own_children_are_left_out)
{
	born(PID, config.self);
	feed((struct connector_event){
		.kind = CONNECTOR_EXIT, .tgid = PID, .parent_tgid = config.self});
	observed_take(&observed, queue);
	ck_assert_uint_eq(observed.n, 0);
}

/* A process that the full table has no entry for: a loss, and one end, of its last thread. */
UNIT_TEST(test_full_table)
{
	const uint64_t before = event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN];
	pid_t pid = PID;

	while (pid_table_add(tracker.table, pid))
		pid++;
	tracker.refused_told = pid_table_refused(tracker.table);
	born(pid, PARENT);
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_SPAWNED, pid));
	ck_assert_uint_eq(event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN], before + 1);
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXECUTED, pid));
	/* /proc says that all of it has gone; the last event that is read is the last thread's. */
	ended(pid, pid + 5, 1 << 8);
	ended(pid, pid, 2 << 8);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, pid));
	ended(pid, pid + 6, 3 << 8);
	process_tracker_settle(&tracker, queue, monotonic_ns(), 0);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, pid)->uints[WIRE_KEY_EXIT_CODE], 3);
	/* Its number begins anew with the next process. */
	born(pid, PARENT);
	ended(pid, pid, 4 << 8);
	process_tracker_settle(&tracker, queue, monotonic_ns(), 0);
	observed_take(&observed, queue);
	ck_assert_uint_eq(observed.events[observed.n - 1].uints[WIRE_KEY_EXIT_CODE], 4);
}

UNIT_TEST(test_orphans_are_bounded)
{
	struct process_past *p = tracker.past;
	bool lost;

	for (pid_t pid = PID; pid < PID + (pid_t)ORPHANS_MAX; pid++) {
		orphan_get(p, pid, &lost);
		ck_assert(!lost);
	}
	ck_assert_int_eq(orphan_get(p, PID, &lost)->pid, PID);
	ck_assert(!lost);
	orphan_get(p, PID - 1, &lost);
	ck_assert(lost);
	orphan_find(p, PID + 1)->reported = true;
	orphan_get(p, PID - 2, &lost);
	ck_assert(!lost);
}

UNIT_TEST(test_details)
{
	const struct observed_event *e;

	born(PARENT, 1);
	named(PARENT, "tracer");
	born(PID, PARENT);
	feed((struct connector_event){
		.kind = CONNECTOR_UID, .tgid = PID, .real = 1000, .effective = 0});
	e = only(WIRE_PROCESS_IDENTITY_CHANGED, PID);
	ck_assert_uint_eq(e->uints[WIRE_KEY_REAL], 1000);
	ck_assert_uint_eq(e->uints[WIRE_KEY_EFFECTIVE], 0);
	ck_assert_uint_eq(pid_table_find(tracker.table, PID)->user_ns, e->at_ns);
	feed((struct connector_event){.kind = CONNECTOR_SID, .tgid = PID});
	ck_assert_uint_eq(only(WIRE_PROCESS_SESSION_STARTED, PID)->uints[WIRE_KEY_PPID], PARENT);
	feed((struct connector_event){.kind = CONNECTOR_TRACE, .tgid = PID, .tracer = PARENT});
	/* It detaches. */
	feed((struct connector_event){.kind = CONNECTOR_TRACE, .tgid = PID});
	ck_assert_uint_eq(only(WIRE_PROCESS_TRACED, PID)->uints[WIRE_KEY_TRACER_PID], PARENT);
	feed((struct connector_event){.kind = CONNECTOR_CORE, .tgid = PID});
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_CORE_DUMPED, PID));
}

/* A real child: its execution is held, what it did waits, its end ends the hold. */
UNIT_TEST(test_hold)
{
	const struct observed_event *e;
	const char *exe;
	uint64_t began, now, early;
	size_t len;
	const pid_t pid = child(&began);

	born_at(pid, began);
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	feed((struct connector_event){.kind = CONNECTOR_SID, .tgid = pid});
	now = monotonic_ns();
	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	ck_assert_ptr_null(only(WIRE_PROCESS_SESSION_STARTED, pid));
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, pid, now, &exe, &len), EXE_WAIT);
	early = exec_hold_find(tracker.holds, pid)->hold_until_ns - 1;
	process_tracker_settle(&tracker, queue, early, early);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	/* Its user was read before this. */
	feed((struct connector_event){.kind = CONNECTOR_UID, .tgid = pid, .real = 1});
	ended(pid, pid, 0);
	e = only(WIRE_PROCESS_EXECUTED, pid);
	ck_assert_ptr_nonnull(e);
	ck_assert_uint_eq(e->uints[WIRE_KEY_RESOLVED], 1);
	/* An emulator of user programs is what the kernel executed. */
	ck_assert_msg(strstr(e->exe, "test_process_tracker") || strstr(e->exe, "qemu-"), "%s",
		      e->exe);
	ck_assert_uint_eq(e->uints[WIRE_KEY_UID], getuid());
	/* In their order. */
	ck_assert_int_eq(observed.events[observed.n - 1].source, WIRE_PROCESS_EXITED);
	ck_assert_int_eq(observed.events[observed.n - 2].source, WIRE_PROCESS_IDENTITY_CHANGED);
	ck_assert_int_eq(observed.events[observed.n - 3].source, WIRE_PROCESS_SESSION_STARTED);
	/* What it did before its end still has its program; what came later does not. */
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, pid, now, &exe, &len), EXE_KNOWN);
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, pid, monotonic_ns() + NSEC_PER_SEC,
					     &exe, &len),
			 EXE_UNKNOWN);
	end_child(pid);
}

/* It gave its privilege up before it was looked at: as whom it executed is not known. */
UNIT_TEST(test_another_user_by_then)
{
	const struct observed_event *e;
	uint64_t began, at_ns;
	const pid_t pid = child(&began);

	for (unsigned pending = 0; pending < 2; pending++) {
		born_at(pid, began);
		at_ns = monotonic_ns();
		feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid, .at_ns = at_ns});
		/* As if the reader had not answered yet. */
		exec_hold_find(tracker.holds, pid)->facts.pending = pending;
		feed((struct connector_event){.kind = CONNECTOR_UID,
					      .tgid = pid,
					      .real = 1,
					      .at_ns = pending ? 0 : at_ns + 1});
		exec_hold_find(tracker.holds, pid)->facts.pending = false;
		ended(pid, pid, 0);
		e = only(WIRE_PROCESS_EXECUTED, pid);
		ck_assert_uint_eq(e->uints[WIRE_KEY_RESOLVED], 1);
		ck_assert(observed_has(e, WIRE_KEY_CWD));
		ck_assert(!observed_has(e, WIRE_KEY_UID) && !observed_has(e, WIRE_KEY_EUID));
		ck_assert_uint_eq(only(WIRE_PROCESS_IDENTITY_CHANGED, pid)->uints[WIRE_KEY_REAL],
				  1);
		observed.n = 0;
	}
	end_child(pid);
}

UNIT_TEST(test_replaced)
{
	const char *exe;
	uint64_t began, between;
	size_t len;
	const pid_t pid = child(&began);

	born_at(pid, began);
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	between = monotonic_ns();
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	ck_assert_uint_eq(only(WIRE_PROCESS_EXECUTED, pid)->uints[WIRE_KEY_RESOLVED], 0);
	/* Who connected before it executed something else: not by the later program. */
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, pid, between, &exe, &len),
			 EXE_UNKNOWN);
	/* After a loss nobody's program is known. */
	process_tracker_repair(&tracker, queue);
	ck_assert_uint_eq(tracker.holds->n, 0);
	ck_assert_uint_eq(pid_table_find(tracker.table, pid)->image, 0);
	end_child(pid);
}

UNIT_TEST(test_excluded)
{
	const struct pid_entry *e;

	born(PID, PARENT);
	e = pid_table_find(tracker.table, PID);
	config.n_excluded = 1;
	config.excluded[0] = PID;
	config.excluded_start_ns[0] = e->start_ns;
	ended(PID, PID, 0);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, PID));
	/* The next of that number is another process. */
	feed((struct connector_event){
		.kind = CONNECTOR_FORK, .tgid = PID, .at_ns = monotonic_ns() + NSEC_PER_SEC});
	ended(PID, PID, 0);
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, PID));
}

/* After a loss: who is there and was not reported, who has gone and was. */
UNIT_TEST(test_repair)
{
	uint64_t began;
	uint32_t threads;
	const pid_t pid = child(&began);

	born(PID, PARENT);
	process_tracker_repair(&tracker, queue);
	while (process_tracker_turn(&tracker, queue, 64))
		;
	ck_assert_uint_eq(only(WIRE_PROCESS_SPAWNED, pid)->uints[WIRE_KEY_PPID],
			  (uint64_t)getpid());
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, PID));
	/* Its late event says nothing again. */
	born_at(pid, began);
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_SPAWNED, pid));
	end_child(pid);
	/* An emulator of user programs has threads of its own. */
	threads = pid_table_find(tracker.table, pid)->threads;
	for (uint32_t i = 1; i < threads; i++)
		ended(pid, pid + (pid_t)i, SIGKILL);
	ended(pid, pid, SIGKILL);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, pid)->uints[WIRE_KEY_SIGNAL], SIGKILL);
}

/* The name of a living process, of one that has ended, and of nobody. */
UNIT_TEST(test_names)
{
	char comm[PROC_COMM_MAX] = "untouched";

	ck_assert_int_eq(process_tracker_comm(&tracker, PID, comm), 0);
	ck_assert_str_eq(comm, "untouched");
	born(PID, PARENT);
	named(PID, "alive");
	ck_assert_int_eq(process_tracker_comm(&tracker, PID, comm), 5);
	ck_assert_mem_eq(comm, "alive", 5);
	named(PID, "at last");
	ended(PID, PID, 0);
	ck_assert_ptr_null(pid_table_find(tracker.table, PID));
	ck_assert_int_eq(process_tracker_comm(&tracker, PID, comm), 7);
	ck_assert_mem_eq(comm, "at last", 7);
}

/* A process that has executed nothing since it was known: its program is read when it is asked for,
 * and is an answer once the hold is over. The hold itself says nothing. */
UNIT_TEST(test_program_read_late)
{
	const char *exe = NULL;
	uint64_t began;
	size_t len = 0;
	const pid_t pid = child(&began);
	struct exec_held *h;

	born_at(pid, began);
	ck_assert_uint_eq(pid_table_find(tracker.table, pid)->image, 0);
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, pid, monotonic_ns(), &exe, &len),
			 EXE_WAIT);
	h = exec_hold_find(tracker.holds, pid);
	ck_assert_ptr_nonnull(h);
	/* Asked again, it is the same hold. */
	ck_assert_int_eq(
		process_tracker_exe_since(&tracker, queue, pid, monotonic_ns(), &exe, &len),
		EXE_WAIT);
	ck_assert_uint_eq(tracker.holds->n, 1);
	/* Until the child has been seen outside of execve(2), which takes it as long as it takes.
	 */
	for (unsigned i = 0; tracker.holds->n && i < 6000; i++) {
		const uint64_t empty = MAX(h->hold_until_ns, monotonic_ns());

		process_tracker_settle(&tracker, queue, h->hold_until_ns, empty);
		nanosleep(&(struct timespec){.tv_nsec = 5 * (long)NSEC_PER_MSEC}, NULL);
	}
	ck_assert_uint_eq(tracker.holds->n, 0);
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, pid, monotonic_ns(), &exe, &len),
			 EXE_KNOWN);
	ck_assert_ptr_nonnull(memmem(exe, len, "test_process_tracker", 20)
				      ? memmem(exe, len, "test_process_tracker", 20)
				      : memmem(exe, len, "qemu-", 5));
	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	/* What it did before this is not certain to be of the same program. */
	ck_assert_int_eq(process_tracker_exe_since(&tracker, queue, pid, 0, &exe, &len),
			 EXE_UNKNOWN);
	end_child(pid);
}

/* The look of /proc comes before the event of the last thread's end, which has the exit status. */
UNIT_TEST(test_check_before_the_event)
{
	born(PID, PARENT);
	feed((struct connector_event){.kind = CONNECTOR_FORK, .tgid = PID, .tid = PID + 1});
	ended(PID, PID, 5 << 8);
	process_tracker_check(&tracker, queue);
	ended(PID, PID + 1, 6 << 8);
	process_tracker_check(&tracker, queue);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, PID)->uints[WIRE_KEY_EXIT_CODE], 6);
}

/* The first thread ends before the others, whose ends the kernel forgot: /proc says when all of it
 * has gone, and the end is reported once. */
UNIT_TEST(test_check)
{
	born(PID, PARENT);
	feed((struct connector_event){.kind = CONNECTOR_FORK, .tgid = PID, .tid = PID + 1});
	process_tracker_check(&tracker, queue);
	ended(PID, PID, 5 << 8);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, PID));
	process_tracker_check(&tracker, queue);
	process_tracker_check(&tracker, queue);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, PID)->uints[WIRE_KEY_EXIT_CODE], 5);
	ck_assert_ptr_null(pid_table_find(tracker.table, PID));
}

/* A process's end is reported after its execution, even if a walk finds that the process is gone.
 */
UNIT_TEST(test_an_end_waits)
{
	uint64_t began;
	const pid_t pid = child(&began);
	struct exec_held *h;

	born_at(pid, began);
	process_tracker_repair(&tracker, queue);
	ck_assert(process_tracker_turn(&tracker, queue, 64));
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	h = exec_hold_find(tracker.holds, pid);
	ck_assert_ptr_nonnull(h);
	h->question = EXEC_ASKED;
	end_child(pid);
	ended(pid, pid, SIGKILL);
	process_tracker_check(&tracker, queue);
	while (process_tracker_turn(&tracker, queue, 64))
		;
	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, pid));
	h->question = EXEC_NOT_ASKED;
	process_tracker_settle(&tracker, queue, h->hold_until_ns, h->hold_until_ns);
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXECUTED, pid));
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, pid)->uints[WIRE_KEY_SIGNAL], SIGKILL);
	ck_assert_int_eq(observed.events[observed.n - 1].source, WIRE_PROCESS_EXITED);
	ck_assert_ptr_null(pid_table_find(tracker.table, pid));
}

static unsigned count(enum wire_source source, pid_t pid)
{
	unsigned n = 0;

	observed_take(&observed, queue);
	for (size_t i = 0; i < observed.n; i++)
		n += observed.events[i].source == source && observed.events[i].pid == (uint32_t)pid;
	return n;
}

static void walk(void)
{
	while (process_tracker_turn(&tracker, queue, 64))
		;
}

/* A child whose other name a walk has seen. */
static pid_t renamed_child(void)
{
	uint64_t began;
	const pid_t pid = child(&began);

	born_at(pid, began);
	named(pid, "before");
	process_tracker_repair(&tracker, queue);
	walk();
	return pid;
}

/* Its start was lost: the execution is reported, and the end. */
UNIT_TEST(test_an_execution_without_a_start)
{
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = PID});
	ck_assert_ptr_null(only(WIRE_PROCESS_SPAWNED, PID));
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXECUTED, PID));
	ck_assert_ptr_nonnull(pid_table_find(tracker.table, PID));
	ended(PID, PID, 2 << 8);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, PID)->uints[WIRE_KEY_EXIT_CODE], 2);
}

/* An execution ends the other threads, without an event for each. */
UNIT_TEST(test_an_execution_leaves_one_thread)
{
	born(PID, PARENT);
	for (pid_t tid = PID + 1; tid <= PID + 2; tid++)
		feed((struct connector_event){.kind = CONNECTOR_FORK, .tgid = PID, .tid = tid});
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = PID});
	ended(PID, PID, 0);
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, PID));
}

UNIT_TEST(test_a_thread_has_a_name_of_its_own)
{
	struct connector_event ev = {
		.kind = CONNECTOR_COMM, .tgid = PID, .tid = PID + 1, .comm = "thread"};

	born(PID, PARENT);
	named(PID, "process");
	feed(ev);
	ended(PID, PID, 0);
	ck_assert_str_eq(only(WIRE_PROCESS_EXITED, PID)->comm, "process");
}

/* The parent that was alive at the end. */
UNIT_TEST(test_an_end_has_its_last_parent)
{
	born(PID, PARENT);
	feed((struct connector_event){
		.kind = CONNECTOR_EXIT, .tgid = PID, .parent_tgid = PARENT + 1});
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, PID)->uints[WIRE_KEY_PPID], PARENT + 1);
}

/* The first thread's end was seen: its status is the best that is known. */
UNIT_TEST(test_reuse_after_the_first_thread)
{
	born(PID, PARENT);
	feed((struct connector_event){.kind = CONNECTOR_FORK, .tgid = PID, .tid = PID + 1});
	ended(PID, PID, 9 << 8);
	born_at(PID, monotonic_ns() + NSEC_PER_SEC);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, PID)->uints[WIRE_KEY_EXIT_CODE], 9);
	ck_assert_uint_eq(count(WIRE_PROCESS_SPAWNED, PID), 2);
}

/* A child has its parent's program until it executes another. */
UNIT_TEST(test_a_child_has_its_parent_s_program)
{
	const char *exe;
	uint64_t began;
	size_t len;
	const pid_t pid = child(&began);

	born_at(pid, began);
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	born(PID, pid);
	ck_assert_uint_ne(pid_table_find(tracker.table, PID)->image, 0);
	ck_assert_uint_eq(pid_table_find(tracker.table, PID)->image,
			  pid_table_find(tracker.table, pid)->image);
	ck_assert_int_eq(process_tracker_exe(&tracker, queue, PID, monotonic_ns(), &exe, &len),
			 EXE_WAIT);
	ck_assert_uint_eq(tracker.holds->n, 1);
	end_child(pid);
}

/* More than can wait for an execution: it is reported before its time, and they follow it. */
UNIT_TEST(test_what_waits_is_bounded)
{
	uint64_t began;
	const pid_t pid = child(&began);

	born_at(pid, began);
	feed((struct connector_event){.kind = CONNECTOR_EXEC, .tgid = pid});
	for (unsigned i = 0; i < EXEC_WAITING_MAX; i++)
		feed((struct connector_event){.kind = CONNECTOR_UID, .tgid = pid, .real = i});
	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	feed((struct connector_event){
		.kind = CONNECTOR_UID, .tgid = pid, .real = EXEC_WAITING_MAX});
	ck_assert_uint_eq(only(WIRE_PROCESS_EXECUTED, pid)->uints[WIRE_KEY_RESOLVED], 0);
	ck_assert_uint_eq(observed.n, EXEC_WAITING_MAX + 3);
	ck_assert_int_eq(observed.events[1].source, WIRE_PROCESS_EXECUTED);
	for (unsigned i = 0; i <= EXEC_WAITING_MAX; i++)
		ck_assert_uint_eq(observed.events[2 + i].uints[WIRE_KEY_REAL], i);
	end_child(pid);
}

/* A walk that sees another name reports an execution. The late event of that execution is not
 * reported again. A second execution is reported. */
UNIT_TEST(test_a_walk_finds_an_execution)
{
	const pid_t pid = renamed_child();

	ck_assert_ptr_nonnull(exec_hold_find(tracker.holds, pid));
	feed((struct connector_event){
		.kind = CONNECTOR_EXEC, .tgid = pid, .at_ns = tracker.told_ns});
	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	feed((struct connector_event){
		.kind = CONNECTOR_EXEC, .tgid = pid, .at_ns = tracker.told_ns});
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXECUTED, pid));
	end_child(pid);
}

/* What happened after the walk is news. */
UNIT_TEST(test_an_execution_after_a_walk)
{
	const pid_t pid = renamed_child();

	ck_assert_ptr_null(only(WIRE_PROCESS_EXECUTED, pid));
	feed((struct connector_event){
		.kind = CONNECTOR_EXEC, .tgid = pid, .at_ns = tracker.told_ns + 1});
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXECUTED, pid));
	end_child(pid);
}

/* The pid has another owner, whose start is not that of the table: the last one has ended, and a
 * second walk finds the new one. */
UNIT_TEST(test_a_walk_finds_another_owner)
{
	uint64_t began;
	const pid_t pid = child(&began);

	born_at(pid, began - 10 * NSEC_PER_SEC);
	process_tracker_repair(&tracker, queue);
	walk();
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, pid));
	ck_assert_uint_eq(count(WIRE_PROCESS_SPAWNED, pid), 2);
	for (size_t i = observed.n; observed.events[--i].source != WIRE_PROCESS_EXITED;)
		ck_assert_uint_ne(i, 0);
	end_child(pid);
}

/* A loss during a walk: what the walk has passed is not certain, so another one follows. */
UNIT_TEST(test_repair_during_a_walk)
{
	const uint32_t scan = tracker.scan;

	process_tracker_repair(&tracker, queue);
	process_tracker_repair(&tracker, queue);
	ck_assert(process_tracker_turn(&tracker, queue, 64));
	process_tracker_repair(&tracker, queue);
	walk();
	ck_assert_uint_eq(tracker.scan, scan + 2);
}

/* A start and an execution at most, beyond the budget. */
UNIT_TEST(test_a_walk_s_report_has_a_budget)
{
	size_t before;

	for (pid_t pid = PID; pid < PID + 5; pid++)
		born(pid, PARENT);
	process_tracker_repair(&tracker, queue);
	do {
		observed_take(&observed, queue);
		before = observed.n;
		process_tracker_turn(&tracker, queue, 1);
		observed_take(&observed, queue);
		ck_assert_uint_le(observed.n, before + 2);
	} while (tracker.state != TRACKER_STEADY);
	for (pid_t pid = PID; pid < PID + 5; pid++)
		ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, pid));
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/* A process without an entry lives on when another thread than its first has ended. */
UNIT_TEST(test_an_unknown_process_lives_on)
{
	uint64_t began;
	const pid_t pid = child(&began);

	ended(pid, pid + 1, 0);
	process_tracker_settle(&tracker, queue, monotonic_ns(), 0);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, pid));
	end_child(pid);
	ended(pid, pid, SIGKILL);
	process_tracker_settle(&tracker, queue, monotonic_ns(), 0);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, pid)->uints[WIRE_KEY_SIGNAL], SIGKILL);
}

/* More of them end at once than have a place: those before are reported first. */
UNIT_TEST(test_many_unknown_processes_end)
{
	const uint64_t before = event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN];
	const pid_t last = PID + 3 * (pid_t)ORPHANS_MAX;

	for (pid_t pid = PID; pid < last; pid++)
		ended(pid, pid, 0);
	process_tracker_settle(&tracker, queue, monotonic_ns(), 0);
	for (pid_t pid = PID; pid < last; pid++)
		ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, pid));
	ck_assert_uint_eq(event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN], before);
}

/* The end of a process that was never seen: only /proc says which of its threads is the last. */
UNIT_TEST(test_an_unknown_process_ends)
{
	pthread_t thread;
	char byte;
	int fds[2];
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = unit_fork();
	if (pid == 0) {
		if (pthread_create(&thread, NULL, wait_for_ever, NULL) != 0 ||
		    write(fds[1], "", 1) != 1)
			_exit(1);
		wait_for_ever(NULL);
	}
	ck_assert_int_eq(read(fds[0], &byte, 1), 1);
	ended(pid, pid + 1, 6 << 8);
	process_tracker_check(&tracker, queue);
	ck_assert_ptr_null(only(WIRE_PROCESS_EXITED, pid));
	end_child(pid);
	process_tracker_check(&tracker, queue);
	process_tracker_check(&tracker, queue);
	ck_assert_uint_eq(only(WIRE_PROCESS_EXITED, pid)->uints[WIRE_KEY_EXIT_CODE], 6);
	/* Its last thread's event says nothing new. */
	ended(pid, pid, 6 << 8);
	ck_assert_ptr_nonnull(only(WIRE_PROCESS_EXITED, pid));
	close(fds[0]);
	close(fds[1]);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
