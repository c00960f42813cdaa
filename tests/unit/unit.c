/* SPDX-License-Identifier: MIT */
/*
 * The main of every unit test program: it runs the tests that entered themselves (unit.h).
 */
#include "tests/unit/unit.h"

/* The build sets CK_FORK=no; this is for who runs a test by hand. */
#define TIMEOUT_S 300

struct unit_suite unit_suite;

static struct unit_test *tests;

/* Constructors run in no certain order: the line decides. */
void unit_enter(struct unit_test *test)
{
	struct unit_test **at = &tests;

	while (*at && (*at)->test.line < test->test.line)
		at = &(*at)->next;
	test->next = *at;
	*at = test;
}

int main(void)
{
	Suite *suite = suite_create("unit");
	TCase *all = tcase_create("all");
	SRunner *runner;
	int failed;
	const int r = unit_suite.begin ? unit_suite.begin() : 0;

	if (r != 0)
		return r;
	tcase_set_timeout(all, TIMEOUT_S);
	tcase_add_unchecked_fixture(all, unit_suite.setup_once, unit_suite.teardown_once);
	tcase_add_checked_fixture(all, unit_suite.setup, unit_suite.teardown);
	for (const struct unit_test *t = tests; t; t = t->next)
		tcase_add_loop_test(all, &t->test, 0, t->n);
	suite_add_tcase(suite, all);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
