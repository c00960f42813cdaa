/* SPDX-License-Identifier: MIT */
/*
 * cellos-host-telemetry, the host receiver: one program with verbs. This file only finds the verb
 * and prints the list of them.
 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "common/options.h"
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
	{"report", cmd_report, "write evidence as one page to look at, with verify's verdict"},
	{"export", cmd_export, "write evidence in the form of other systems: a view"},
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
	fputs("\nVERB --help, or help VERB, says more; so does cellos-host-telemetry(1).\n", f);
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(name, verbs[i].name) == 0)
			return &verbs[i];
	return NULL;
}

static int refuse(const char *name)
{
	struct option_guess guess = {.typed = name, .len = strlen(name)};

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		option_guess_try(&guess, verbs[i].name);
	option_guess_try(&guess, "help");
	option_no_such_verb("cellos-host-telemetry", &guess);
	return EX_USAGE;
}

/* help VERB is VERB --help. */
static int help_of(char *name)
{
	char option[] = "--help", *argv[] = {name, option, NULL};
	const struct verb *verb = find_verb(name);

	return verb ? verb->run(2, argv) : refuse(name);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct verb *verb = find_verb(name);

	if (verb)
		return verb->run(argc - 1, argv + 1);
	if (argc < 2) {
		print_help(stderr);
		return EX_USAGE;
	}
	if (strcmp(name, "--version") == 0) {
		puts("cellos-host-telemetry " CELLOS_VERSION);
		return EX_OK;
	}
	if (strcmp(name, "help") == 0 && argc > 2 && strcmp(argv[2], "-h") != 0 &&
	    strcmp(argv[2], "--help") != 0)
		return help_of(argv[2]);
	if (strcmp(name, "help") != 0 && strcmp(name, "--help") != 0 && strcmp(name, "-h") != 0)
		return refuse(name);
	print_help(stdout);
	return EX_OK;
}
