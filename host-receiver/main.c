/* SPDX-License-Identifier: MIT */
/*
 * cellos-host-telemetry, the host receiver: one program with verbs.
 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/verbs/verbs.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{"receive", cmd_receive, "serve one cell; its evidence goes to standard output"},
	{"serve", cmd_serve, "the daemon: many cells, one evidence log"},
	{"cell", cmd_cell, "add, remove, list or show the daemon's cells"},
	{"status", cmd_status, "what the daemon does, and each of its cells"},
	{"log", cmd_log, "acknowledge an alarm of the evidence log, plan a new log"},
	{"tail", cmd_tail, "print the evidence log for people, live"},
	{"check-config", cmd_check_config,
	 "check the daemon's configuration; all errors, file:line"},
	{"dump-config", cmd_dump_config, "print the configuration in effect"},
	{"verify", cmd_verify, "check evidence: signatures and completeness"},
	{"checkpoint", cmd_checkpoint, "print the newest checkpoint of a log, to keep it"},
	{"prove", cmd_prove, "write a proof of one entry, or that a log extends a checkpoint"},
#ifdef HAVE_NATS
	{"forward", cmd_forward, "the forwarder to NATS JetStream: status, send again"},
#endif
	{"keygen", cmd_keygen, "make a signing key"},
};

static void print_help(FILE *f)
{
	fputs("Usage: cellos-host-telemetry VERB [OPTIONS]\n"
	      "Turns what microVMs declare into signed, complete evidence.\n\n",
	      f);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %-14s %s\n", verbs[i].name, verbs[i].help);
	fputs("\nVERB --help says more.\n", f);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_help(stderr);
		return EX_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0) {
		print_help(stdout);
		return EX_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("cellos-host-telemetry " CELLOS_VERSION);
		return EX_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	fprintf(stderr, "cellos-host-telemetry: %s: no such verb; --help lists them\n", argv[1]);
	return EX_USAGE;
}
