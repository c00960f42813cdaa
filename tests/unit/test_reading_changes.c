/* SPDX-License-Identifier: MIT */
/* What tail shows of a probe's reading: what changed since the last one. */
#include "host-receiver/verbs/reading_changes.h"

#include <string.h>

#include "common/util.h"
#include "host-receiver/verbs/period.h"
#include "tests/unit/unit.h"

static char printed[1024];

static void print(const char *name, const char *text)
{
	const size_t len = strlen(printed);

	snprintf(printed + len, sizeof(printed) - len, "%s=%s;", name, text);
}

static bool read_it(struct reading_changes *readings, const char *cell, const char *source,
		    const char *output)
{
	char text[1024];
	json_t *data;
	bool any;

	snprintf(text, sizeof(text), "{\"cellId\":\"%s\",\"probeSource\":\"%s\",\"output\":%s}",
		 cell, source, output);
	data = json_loads(text, 0, NULL);
	ck_assert_msg(data != NULL, "%s", text);
	*printed = '\0';
	any = reading_changes_print(readings, data, print);
	json_decref(data);
	return any;
}

/* Readings of one cell and probe, one after the other. */
static const struct {
	const char *output, *printed;
} steps[] = {
	{"{\"a\":3,\"b\":0,\"link\":\"up\",\"none\":null,\"r\":1.0}", "a=3;link=up;r=1;"},
	{"{\"a\":3,\"b\":0,\"link\":\"up\",\"none\":null,\"r\":1.0}", ""},
	{"{\"a\":5,\"b\":2,\"link\":\"down\",\"none\":null,\"r\":3.5}",
	 "a=+2;b=+2;link=up -> down;r=+2;"},
	{"{\"a\":1,\"link\":null}", "a=-4;link=down -> none;"},
	/* A part of a reading changes nothing of the other parts. */
	{"{\"b\":2,\"r\":3.5}", ""},
	{"{\"link\":\"up\",\"none\":\"some\"}", "link=none -> up;none=none -> some;"},
	{"{\"a\":\"word\"}", "a=? -> word;"},
	{"{\"a\":true}", "a=word -> ?;"},
	/* Members of members by their path. The VMM's last document and numbers of parts are left.
	 */
	{"{\"m\":{\"n\":{\"o\":7},\"p\":1},\"metrics\":{\"x\":9},\"part\":2,\"parts\":3}",
	 "m.n.o=7;m.p=1;"},
	{"{\"m\":{\"n\":{\"o\":8},\"p\":1}}", "m.n.o=+1;"},
	{"{\"rules\":[{\"chain\":\"in\",\"handle\":4,\"packets\":1,\"bytes\":60},"
	 "{\"chain\":\"in\",\"handle\":5,\"packets\":0,\"bytes\":0}]}",
	 "in#4.packets=1;in#4.bytes=60;"},
	{"{\"rules\":[{\"chain\":\"in\",\"handle\":5,\"packets\":2,\"bytes\":9},"
	 "{\"chain\":\"in\",\"handle\":4,\"packets\":1,\"bytes\":60}]}",
	 "in#5.packets=+2;in#5.bytes=+9;"},
};

UNIT_TEST(only_changes_are_printed)
{
	struct reading_changes *readings = reading_changes_new();

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		ck_assert_int_eq(read_it(readings, "web-7", "host.x", steps[i].output),
				 *steps[i].printed != '\0');
		ck_assert_str_eq(printed, steps[i].printed);
	}
	reading_changes_free(readings);
	reading_changes_free(NULL);
}

UNIT_TEST(each_cell_and_probe_has_its_own_readings)
{
	struct reading_changes *readings = reading_changes_new();

	ck_assert(read_it(readings, "web-7", "host.x", "{\"a\":3}"));
	ck_assert(read_it(readings, "web-7", "host.y", "{\"a\":3}"));
	ck_assert(read_it(readings, "web-70", "host.x", "{\"a\":3}"));
	ck_assert(!read_it(readings, "web-7", "host.x", "{\"a\":3}"));
	reading_changes_forget(readings, "web-7");
	ck_assert(read_it(readings, "web-7", "host.x", "{\"a\":3}"));
	ck_assert(read_it(readings, "web-7", "host.y", "{\"a\":3}"));
	ck_assert(!read_it(readings, "web-70", "host.x", "{\"a\":3}"));
	reading_changes_free(readings);
}

UNIT_TEST(both_ends_of_a_period_belong_to_it)
{
	struct period p;

	period_init(&p);
	ck_assert(!period_is_limited(&p));
	ck_assert(period_has(&p, INT64_MIN) && period_has(&p, INT64_MAX));
	p.since_ms = 5;
	ck_assert(period_is_limited(&p));
	ck_assert(!period_has(&p, 4) && period_has(&p, 5));
	p.until_ms = 5;
	ck_assert(period_has(&p, 5) && !period_has(&p, 6));
	p.since_ms = INT64_MIN;
	ck_assert(period_is_limited(&p));
}
