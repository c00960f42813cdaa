/* SPDX-License-Identifier: MIT */
/*
 * What a tick of the host probes costs: bench_probes KIND N TICKS FORMAT reads N probes of a kind
 * one behind the other, TICKS times. FORMAT names what the n-th one reads, with %u for n. Prints
 * wall and CPU of a tick. bench_probes.py makes what is read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/util.h"
#include "host-receiver/probes/nftables.h"
#include "host-receiver/probes/host_probe.h"

static uint64_t bytes;

static void take(struct probe_reading *reading)
{
	bytes += reading->n_parts ? reading->part_end[reading->n_parts - 1] : 0;
	probe_reading_done(reading);
}

static void fail(const char *why)
{
	fprintf(stderr, "bench_probes: %s\n", why);
	exit(EXIT_FAILURE);
}

static void read_all(enum probe_kind kind, struct host_probe **probes, unsigned n)
{
	char why[PROBE_WHY_MAX] = "";
	struct nft_dump dump = {0};

	if (kind == PROBE_NFTABLES && nft_dump_read(&dump, why) < 0)
		fail(why);
	for (unsigned i = 0; i < n; i++) {
		struct probe_reading reading = {0};
		const int r = kind == PROBE_NFTABLES
				      ? nft_reading(&dump, probes[i], &reading, why)
				      : host_probe_table[kind]->read(probes[i], &reading, why);

		if (r < 0)
			fail(why);
		if (r > 0)
			take(&reading);
	}
	nft_dump_done(&dump);
}

int main(int argc, char **argv)
{
	struct host_probe **probes;
	enum probe_kind kind = 0;
	unsigned n, ticks;
	uint64_t wall_ns, cpu_ns;

	if (argc != 5)
		fail("KIND N TICKS FORMAT");
	while (kind < _PROBE_KIND_MAX && strcmp(host_probe_table[kind]->name, argv[1]) != 0)
		kind++;
	n = (unsigned)strtoul(argv[2], NULL, 10);
	ticks = (unsigned)strtoul(argv[3], NULL, 10);
	probes = calloc(n, sizeof(struct host_probe *));
	if (kind == _PROBE_KIND_MAX || n == 0 || ticks == 0 || !probes)
		fail("KIND N TICKS FORMAT");
	for (unsigned i = 0; i < n; i++) {
		const char *percent = strstr(argv[4], "%u");
		char what[256];
		const struct probe_options options = {
			.cgroup = what, .tap = what, .nft_table = what, .fc_metrics = what};

		if (!percent)
			fail("FORMAT has no %u");
		snprintf(what, sizeof(what), "%.*s%u%s", (int)(percent - argv[4]), argv[4], i,
			 percent + 2);
		probes[i] = host_probe_table[kind]->open(&options);
	}
	/* The first tick opens what stays open. */
	read_all(kind, probes, n);
	bytes = 0;
	wall_ns = monotonic_ns();
	cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (unsigned tick = 0; tick < ticks; tick++) {
		/* Whoever writes does so now. */
		puts("tick");
		fflush(stdout);
		if (getchar() == EOF)
			fail("nobody answers");
		if (tick == 0) {
			wall_ns = monotonic_ns();
			cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
		}
		read_all(kind, probes, n);
	}
	wall_ns = monotonic_ns() - wall_ns;
	cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
	printf("done %.3f %.3f %.0f\n", (double)wall_ns / ticks / 1e6, (double)cpu_ns / ticks / 1e6,
	       (double)bytes / ticks / n);
	for (unsigned i = 0; i < n; i++)
		host_probe_table[kind]->close(probes[i]);
	free(probes);
	return 0;
}
