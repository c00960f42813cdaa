/* SPDX-License-Identifier: MIT */
/* What every unit test program repeats otherwise: its main, and where the vectors are. */
#pragma once

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <check.h>

/* Run the cases, print the failures, return the exit status for main. */
static inline int unit_run(const char *name, TCase *const *cases, size_t n)
{
	Suite *suite = suite_create(name);
	SRunner *runner;
	int failed;

	for (size_t i = 0; i < n; i++)
		suite_add_tcase(suite, cases[i]);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * fork() for tests. The child ends with this program: one that a failed check left behind would
 * hold its output open, and whoever reads it would wait for ever.
 */
static inline pid_t unit_fork(void)
{
	const pid_t pid = fork();

	/* Not ck_assert: a main() forks too, and there are no assertions outside a test. */
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

/* A random seed, printed so that a failure can be had again with CELLOS_SEED=N. */
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
