/* SPDX-License-Identifier: MIT */
#include "common/util.h"
#include "guest-agent/probes/pid_table.h"
#include "guest-agent/probes/proc_file.h"
#include "tests/unit/unit.h"

static struct pid_table *t;

static void setup(void)
{
	t = pid_table_new();
	ck_assert_ptr_nonnull(t);
}

static void teardown(void)
{
	pid_table_free(t);
}

UNIT_TEST(test_limit)
{
	/* To the limit, and one more. */
	for (pid_t pid = 1; pid <= (pid_t)PID_TABLE_SIZE; pid++)
		ck_assert_ptr_nonnull(pid_table_add(t, pid));
	ck_assert_uint_eq(pid_table_count(t), PID_TABLE_SIZE);
	ck_assert_uint_eq(pid_table_refused(t), 0);
	ck_assert_ptr_null(pid_table_add(t, 1 << 22));
	ck_assert_uint_eq(pid_table_refused(t), 1);
	/* And a place that comes free is used again. */
	pid_table_remove(t, pid_table_find(t, 77));
	ck_assert_ptr_null(pid_table_find(t, 77));
	ck_assert_ptr_nonnull(pid_table_add(t, 1 << 22));
	ck_assert_ptr_nonnull(pid_table_find(t, 1 << 22));
	for (pid_t pid = 1; pid <= (pid_t)PID_TABLE_SIZE; pid++)
		ck_assert(!pid_table_find(t, pid) == (pid == 77));
}

/* Against a plain array, with pids that share chains. */
UNIT_TEST(test_random)
{
	static bool there[1 << 16];
	uint64_t seed = unit_seed();
	size_t count = 0;

	memset(there, 0, sizeof(there));
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t r = unit_random(&seed);
		pid_t pid = (pid_t)(r % ARRAY_SIZE(there));
		struct pid_entry *e;

		if (!pid)
			continue;
		e = pid_table_find(t, pid);
		ck_assert_int_eq(e != NULL, there[pid]);
		if (e) {
			ck_assert_int_eq(e->ppid, pid + 1);
			pid_table_remove(t, e);
			there[pid] = false;
			count--;
		} else if ((e = pid_table_add(t, pid))) {
			ck_assert_int_eq(e->flags, 0);
			e->ppid = pid + 1;
			e->flags = 0xff;
			there[pid] = true;
			count++;
		} else {
			ck_assert_uint_eq(count, PID_TABLE_SIZE);
		}
		ck_assert_uint_eq(pid_table_count(t), count);
	}
}

UNIT_TEST(test_walk_removes)
{
	struct pid_entry *e;
	size_t place = 0, n = 0;

	for (pid_t pid = 1; pid <= 1000; pid++)
		pid_table_add(t, pid);
	while ((e = pid_table_next(t, &place))) {
		n++;
		if (e->pid % 2)
			pid_table_remove(t, e);
	}
	ck_assert_uint_eq(n, 1000);
	ck_assert_uint_eq(pid_table_count(t), 500);
	for (pid_t pid = 1; pid <= 1000; pid++)
		ck_assert_int_eq(pid_table_find(t, pid) != NULL, pid % 2 == 0);
}

UNIT_TEST(test_comm)
{
	struct pid_entry *e = pid_table_add(t, 5);

	pid_entry_set_comm(e, "0123456789abcdef", 16);
	ck_assert_uint_eq(e->comm_len, PID_TABLE_COMM_MAX - 1);
	pid_entry_set_comm(e, "", 0);
	ck_assert_uint_eq(e->comm_len, 0);
}

UNIT_TEST(test_same_start)
{
	ck_assert(proc_same_start(1000, 1000 + PROC_START_SLOP_NS));
	ck_assert(proc_same_start(1000 + PROC_START_SLOP_NS, 1000));
	ck_assert(!proc_same_start(1000, 1001 + PROC_START_SLOP_NS));
	ck_assert(!proc_same_start(1001 + PROC_START_SLOP_NS, 1000));
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
