/* SPDX-License-Identifier: MIT */
/*
 * The agent's command line: a table of options, each with its range. Nothing is opened or started
 * here. A mistake is written to stderr with the option's name and the expected value.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "guest-agent/channel.h"
#include "guest-agent/probes/probe.h"

enum start_form {
	START_FORK,	  /* fork; the parent waits for ready and exits */
	START_COMMAND,	  /* fork; the parent waits for ready and becomes COMMAND */
	START_FOREGROUND, /* no fork */
	START_PROBE,	  /* print what each source can do, then exit */
};

/* A family's choice: "auto" tries, "off" does not, anything else is the via name to force. */
#define SOURCE_AUTO "auto"
#define SOURCE_OFF  "off"
/* --require: any source of the family. */
#define SOURCE_ANY "any"

/* Strings are borrowed from argv and the environment. */
struct options {
	int form;	/* enum start_form */
	char **command; /* START_COMMAND: NULL-terminated */
	struct channel_address address;
	const char *address_text;
	const char *source[_PROBE_FAMILY_MAX];
	struct probe_config probes;
	unsigned heartbeat_ms, queue, ready_timeout_ms;
	int ready_fd; /* -1: none */
	const char *pid_file;
	unsigned content_version;
	/* The required source of each family: NULL: none; SOURCE_ANY, or a via name. */
	const char *required[_PROBE_FAMILY_MAX];
	const char *args; /* "on" or "off" */
	unsigned uid;	  /* user and group that the agent takes; 0: it stays what it is */
	int log_level;
	bool no_wait, allow_unprivileged, keep_sysctls, json;
};

/* Returns 0; 1 when --help or --version was answered; -EINVAL after a message. */
int options_parse(int argc, char **argv, struct options *ret);

/* "net", as --require and --probe call it. */
const char *options_family_word(enum probe_family family);
/* The option's name, for messages: "--net". */
const char *options_family_name(enum probe_family family);
