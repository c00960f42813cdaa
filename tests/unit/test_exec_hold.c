/* SPDX-License-Identifier: MIT */
/* Images of processes and the executions that are held: verdicts, order, limits. */
#include <signal.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/probes/exec_hold.h"
#include "tests/unit/observed.h"
#include "tests/unit/unit.h"

#define PID 0x40000000

static struct exec_holds holds;
static struct image_table *images;
static struct event_queue *queue;
static struct observed observed;

static void setup(void)
{
	memset(&holds, 0, sizeof(holds));
	images = image_table_new();
	queue = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
	observed.n = 0;
}

static void teardown(void)
{
	image_table_free(images);
	event_queue_free(queue);
}

static struct exec_held *begin(pid_t pid, uint64_t now_ns)
{
	struct exec_held *h = exec_hold_begin(&holds, pid, now_ns, now_ns);

	ck_assert_ptr_nonnull(h);
	h->facts = (struct exec_facts){.why = EXEC_RESOLVED, .exe_len = 4, .exe = "/bin"};
	h->image = image_new(images);
	return h;
}

/* Nothing is left of the execution that had the place before: its name would be reported. */
UNIT_TEST(test_a_place_is_used_again)
{
	struct exec_held *h;

	memset(holds.held, 0x7f, sizeof(holds.held));
	for (size_t i = 0; i < EXEC_HOLDS_MAX; i++)
		holds.held[i].pid = 0;
	h = exec_hold_begin(&holds, PID, 1000, 2000);
	ck_assert_ptr_nonnull(h);
	ck_assert_int_eq(h->pid, PID);
	ck_assert_int_eq(h->ppid, 0);
	ck_assert_uint_eq(h->comm_len, 0);
	ck_assert_uint_eq(h->args_len, 0);
	ck_assert_uint_eq(h->looks, 0);
	ck_assert_uint_eq(h->start_ns, 0);
	ck_assert_uint_eq(h->at_ns, 1000);
	ck_assert_uint_eq(h->hold_until_ns, 2000 + EXEC_HOLD_NS);
	ck_assert(!h->has_args && !h->args_cut && !h->silent && !h->ended && !h->untracked);
	ck_assert_int_eq(h->question, EXEC_NOT_ASKED);
}

UNIT_TEST(test_images_are_used_again)
{
	static image_id ids[IMAGES_MAX];
	size_t n = 0, again = 0;

	while ((ids[n] = image_new(images)))
		n++;
	ck_assert_uint_eq(n, IMAGES_MAX - 1);
	for (size_t i = 0; i < n; i++)
		image_unref(images, ids[i]);
	while (image_new(images))
		again++;
	ck_assert_uint_eq(again, n);
}

UNIT_TEST(test_verdicts)
{
	struct exec_held *h = begin(PID, 1000);
	enum exec_why why;

	/* Nothing is certain before the hold has passed and the socket was found empty after it. */
	ck_assert(!exec_hold_over(h, 1000 + EXEC_HOLD_NS, 1000 + EXEC_HOLD_NS - 1, &why));
	ck_assert(exec_hold_over(h, 1000 + EXEC_HOLD_NS, 1000 + EXEC_HOLD_NS, &why));
	ck_assert_int_eq(why, EXEC_RESOLVED);
	/* The reader has not come to it yet. */
	h->question = EXEC_TO_ASK;
	ck_assert(!exec_hold_over(h, 1000 + EXEC_GIVE_UP_NS - 1, 1000 + EXEC_HOLD_NS, &why));
	ck_assert(exec_hold_over(h, 1000 + EXEC_GIVE_UP_NS, 1000 + EXEC_HOLD_NS, &why));
	ck_assert_int_eq(why, EXEC_RESOLVED);
	h->question = EXEC_NOT_ASKED;
	/* A socket that is never empty. */
	ck_assert(!exec_hold_over(h, 1000 + EXEC_GIVE_UP_NS - 1, 0, &why));
	ck_assert(exec_hold_over(h, 1000 + EXEC_GIVE_UP_NS, 0, &why));
	ck_assert_int_eq(why, EXEC_UNSURE);
	h->ended = true;
	ck_assert(exec_hold_over(h, 1001, 0, &why));
	ck_assert_int_eq(why, EXEC_RESOLVED);
	h->question = EXEC_ASKED;
	ck_assert(!exec_hold_over(h, 1001, 0, &why));
	h->question = EXEC_NOT_ASKED;
	h->ended = false;
	h->facts.why = EXEC_TRACED;
	ck_assert(exec_hold_over(h, 1001, 0, &why));
	ck_assert_int_eq(why, EXEC_TRACED);
}

UNIT_TEST(test_report)
{
	struct exec_held *h = begin(PID, 1000);
	const image_id image = image_ref(images, h->image);
	size_t len;

	ck_assert_int_eq(image_state(images, image), IMAGE_HELD);
	exec_hold_release(&holds, h, EXEC_RESOLVED, images, queue);
	ck_assert_int_eq(image_state(images, image), IMAGE_KNOWN);
	ck_assert_mem_eq(image_path(images, image, &len), "/bin", 4);
	ck_assert_uint_eq(len, 4);
	ck_assert_uint_eq(holds.n, 0);

	h = begin(PID + 1, 1000);
	exec_hold_release(&holds, h, EXEC_REPLACED, images, queue);
	h = begin(PID + 2, 1000);
	h->silent = true;
	exec_hold_release(&holds, h, EXEC_RESOLVED, images, queue);

	observed_take(&observed, queue);
	ck_assert_uint_eq(observed.n, 2);
	ck_assert_str_eq(observed.events[0].exe, "/bin");
	ck_assert_uint_eq(observed.events[0].uints[WIRE_KEY_RESOLVED], 1);
	ck_assert(!observed_has(&observed.events[0], WIRE_KEY_WHY));
	ck_assert_str_eq(observed.events[1].exe, "");
	ck_assert_uint_eq(observed.events[1].uints[WIRE_KEY_RESOLVED], 0);
	ck_assert(observed_has(&observed.events[1], WIRE_KEY_WHY));
}

UNIT_TEST(test_limits)
{
	struct connector_event ev = {.kind = CONNECTOR_UID, .tgid = PID}, got;

	for (unsigned i = 0; i < EXEC_HOLDS_MAX; i++)
		begin(PID + (pid_t)i, 1000 + i);
	ck_assert_ptr_null(exec_hold_begin(&holds, PID - 1, 1, 1));
	ck_assert_int_eq(exec_hold_oldest(&holds)->pid, PID);
	exec_hold_release(&holds, exec_hold_oldest(&holds), EXEC_UNSURE, images, queue);
	ck_assert_int_eq(exec_hold_oldest(&holds)->pid, PID + 1);
	ck_assert_ptr_null(exec_hold_find(&holds, PID));
	begin(PID, 1);
	ck_assert_int_eq(exec_hold_oldest(&holds)->pid, PID + 1);

	for (unsigned i = 0; i < EXEC_WAITING_MAX; i++) {
		ev.real = i;
		ck_assert(exec_hold_wait(&holds, &ev));
	}
	ck_assert(!exec_hold_wait(&holds, &ev));
	/* In their order. */
	for (unsigned i = 0; i < EXEC_WAITING_MAX; i++) {
		ck_assert(exec_hold_take(&holds, PID, &got));
		ck_assert_uint_eq(got.real, i);
	}
	ck_assert(!exec_hold_take(&holds, PID, &got));
}

UNIT_TEST(test_arguments)
{
	static char longest[EXEC_TEXT_MAX + 1];
	struct exec_held *h = begin(PID, 1000);

	h->question = EXEC_TO_ASK;
	ck_assert_ptr_eq(exec_hold_to_ask(&holds), h);
	exec_hold_args(h, "a\0b\nc\0", 6, 5000);
	ck_assert(h->has_args);
	ck_assert_uint_eq(h->args_len, 5);
	ck_assert_mem_eq(h->args, "a b?c", 5);
	ck_assert(!h->args_cut);
	ck_assert_uint_ge(h->hold_until_ns, 5000 + EXEC_HOLD_NS);
	/* Nothing is no arguments, not an empty list of them. */
	exec_hold_args(h, "", 0, 5000);
	ck_assert(!h->has_args);
	exec_hold_args(h, "", -3, 5000);
	ck_assert(!h->has_args);
	memset(longest, 'x', sizeof(longest));
	exec_hold_args(h, longest, EXEC_TEXT_MAX, 5000);
	ck_assert(!h->args_cut);
	exec_hold_args(h, longest, EXEC_TEXT_MAX + 1, 5000);
	ck_assert(h->args_cut);
	ck_assert_uint_eq(h->args_len, EXEC_TEXT_MAX);
}

UNIT_TEST(test_images)
{
	image_id a = image_new(images), b = image_new(images), ids[IMAGE_PATHS_MAX];
	size_t len;

	image_settle(images, a, "/same", 5);
	image_settle(images, b, "/same", 5);
	ck_assert_ptr_eq(image_path(images, a, &len), image_path(images, b, &len));
	/* Settled once. */
	image_settle(images, a, "/other", 6);
	ck_assert_uint_eq((image_path(images, a, &len), len), 5);
	image_unref(images, a);
	image_unref(images, b);
	for (unsigned i = 0; i < IMAGE_PATHS_MAX; i++) {
		char path[16];

		ids[i] = image_new(images);
		image_settle(images, ids[i], path,
			     (size_t)snprintf(path, sizeof(path), "/path%u", i));
		ck_assert_int_eq(image_state(images, ids[i]), IMAGE_KNOWN);
	}
	/* No room for another path: not known. With one less, it is. */
	a = image_new(images);
	image_settle(images, a, "/more", 5);
	ck_assert_int_eq(image_state(images, a), IMAGE_UNKNOWN);
	image_unref(images, ids[3]);
	b = image_new(images);
	image_settle(images, b, "/more", 5);
	ck_assert_int_eq(image_state(images, b), IMAGE_KNOWN);
	ck_assert_int_eq(image_state(images, 0), IMAGE_UNKNOWN);
}

UNIT_TEST(test_images_are_bounded)
{
	image_id last = 0;

	for (unsigned i = 1; i < IMAGES_MAX; i++)
		ck_assert_uint_ne((last = image_new(images)), 0);
	ck_assert_uint_eq(image_new(images), 0);
	image_unref(images, last);
	ck_assert_uint_eq(image_new(images), last);
}

static void sleep_on(void)
{
	pause();
}

/* It runs, and has a page fault now and then in its first moments. */
static void spin(void)
{
	static volatile char memory[64 * 4096];
	static size_t turns;

	memory[turns++ % sizeof(memory)]++;
}

/* A child that does this until it is killed. */
static pid_t child(void (*turn)(void))
{
	const pid_t pid = unit_fork();

	while (pid == 0)
		turn();
	return pid;
}

/* A process that runs may be about to say that it executed something else. */
UNIT_TEST(test_rested)
{
	struct exec_held *h;
	struct proc_stat st;
	const pid_t running = child(spin), sleeping = child(sleep_on);

	h = begin(sleeping, 1000);
	do
		ck_assert_int_eq(proc_read_stat(sleeping, &st), 0);
	while (st.state != 'S');
	ck_assert(!exec_hold_rested(h, 0));
	/* What it did before it slept is to be read. */
	ck_assert(!exec_hold_rested(h, h->rested_ns - 1));
	ck_assert(exec_hold_rested(h, h->rested_ns));
	/* However long it takes: by its own processor time only. */
	h = begin(running, 1000);
	do {
		ck_assert_int_eq(proc_read_stat(running, &st), 0);
		ck_assert_int_ne(st.state, 'Z');
	} while (st.cpu_ticks < EXEC_LONG_TICKS || st.faults < EXEC_FAULTS);
	h->facts.stat.cpu_ticks = UINT64_MAX / 2;
	while (st.state != 'R')
		ck_assert_int_eq(proc_read_stat(running, &st), 0);
	ck_assert(!exec_hold_rested(h, 1000));
	ck_assert_uint_eq(h->rested_ns, 0);
	/* The processor may have stood still within execve(2): there are no new page faults. */
	do {
		ck_assert_int_eq(proc_read_stat(running, &st), 0);
		h->facts.stat.cpu_ticks = st.cpu_ticks - EXEC_CPU_TICKS;
		h->facts.stat.faults = st.faults - EXEC_FAULTS + 1;
		h->look_ns = h->rested_ns = 0;
		ck_assert(!exec_hold_rested(h, 1000));
		ck_assert_int_eq(proc_read_stat(running, &st), 0);
	} while (st.cpu_ticks >= h->facts.stat.cpu_ticks + EXEC_LONG_TICKS);
	ck_assert_uint_eq(h->rested_ns, 0);
	h->facts.stat.cpu_ticks = st.cpu_ticks - EXEC_LONG_TICKS;
	h->look_ns = 0;
	ck_assert(!exec_hold_rested(h, 1000));
	ck_assert_uint_ne(h->rested_ns, 0);
	/* With them, a little time is enough. */
	h->rested_ns = 0;
	h->look_ns = 1000 + EXEC_LOOK_NS;
	h->facts.stat.cpu_ticks = st.cpu_ticks - EXEC_CPU_TICKS;
	h->facts.stat.faults--;
	/* It is not looked at again at once. */
	ck_assert(!exec_hold_rested(h, 1000 + EXEC_LOOK_NS - 1));
	ck_assert_uint_eq(h->rested_ns, 0);
	ck_assert(!exec_hold_rested(h, 1000 + EXEC_LOOK_NS));
	ck_assert_uint_ne(h->rested_ns, 0);
	ck_assert(exec_hold_rested(h, UINT64_MAX));
	/* Who has ended executes nothing. */
	h = begin(PID, 1000);
	ck_assert(!exec_hold_rested(h, 1000));
	ck_assert(exec_hold_rested(h, UINT64_MAX));
	for (size_t i = 0; i < 2; i++) {
		kill(i ? sleeping : running, SIGKILL);
		waitpid(i ? sleeping : running, NULL, 0);
	}
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
