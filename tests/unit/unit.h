/* SPDX-License-Identifier: MIT */
/*
 * What all unit test programs share: the list of their tests, and small helpers. A program is one
 * test_*.c with unit.c.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <check.h>

/*
 * Check writes the place of each assertion that holds into a file, for a report of where a child
 * died; the tests run without its children (CK_FORK=no). In a loop this is most of a test's time.
 */
#define _mark_point(file, line) ((void)0)

/*
 * A test: UNIT_TEST(name) { ... }. It enters itself into the program's list, in the order of the
 * file; unit.c has the main that runs the list. With UNIT_LOOP_TEST it runs n times, and _i counts
 * from 0.
 */
struct unit_test {
	TTest test;
	int n;
	struct unit_test *next;
};

#define UNIT_TEST(name) UNIT_LOOP_TEST(name, 1)
#define UNIT_LOOP_TEST(name, times)                                                                \
	static void name(int _i);                                                                  \
	__attribute__((constructor)) static void name##_enter(void)                                \
	{                                                                                          \
		static struct unit_test row = {{#name, name, __FILE__, __LINE__}, (times), NULL};  \
                                                                                                   \
		unit_enter(&row);                                                                  \
	}                                                                                          \
	static void name(int _i __attribute__((unused)))

void unit_enter(struct unit_test *test);

/* What all tests of a program need. UNIT_SUITE(.setup = f, ...) stands at the end of its file. */
struct unit_suite {
	int (*begin)(void);  /* before all; not 0 is the exit status: 77 skips */
	void (*setup)(void); /* before and after each test */
	void (*teardown)(void);
	void (*setup_once)(void); /* before the first test, and after the last */
	void (*teardown_once)(void);
};

#define UNIT_SUITE(...)                                                                            \
	__attribute__((constructor)) static void unit_suite_enter(void)                            \
	{                                                                                          \
		unit_suite = (struct unit_suite){__VA_ARGS__};                                     \
	}                                                                                          \
	_Static_assert(true, "takes the semicolon")

extern struct unit_suite unit_suite;

/* A suite's begin. The emulator of another architecture's programs lets none confine itself. */
static inline int unit_needs_seccomp(void)
{
	if (prctl(PR_GET_SECCOMP) >= 0)
		return 0;
	printf("SKIP: no seccomp(2) here (an emulator of user programs?)\n");
	return 77;
}

/*
 * fork() for tests. The child ends with this program. Otherwise a child that a failed check leaves
 * would hold the output open, and the reader of that output would wait for ever.
 */
static inline pid_t unit_fork(void)
{
	const pid_t pid = fork();

	/* Not ck_assert: unit_suite.begin forks too, and assertions work only inside a test. */
	if (pid < 0) {
		perror("fork");
		abort();
	}
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* The folder of golden vectors; set by the build. */
static inline const char *unit_vectors(void)
{
	const char *dir = getenv("CELLOS_VECTORS");

	ck_assert_msg(dir != NULL, "CELLOS_VECTORS must name the folder tests/vectors");
	return dir;
}

/* A random seed. It is printed: CELLOS_SEED=N repeats a failure. */
static inline uint64_t unit_seed(void)
{
	const char *given = getenv("CELLOS_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	printf("CELLOS_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* splitmix64: repeatable from its seed. */
static inline uint64_t unit_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}
