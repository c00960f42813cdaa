/* SPDX-License-Identifier: MIT */
/*
 * serve: parses the command line, then runs the daemon (host-receiver/daemon) until its end.
 * Everything after the command line, also the logging, is the daemon's.
 */
#include <sysexits.h>

#include "common/log.h"
#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/daemon/daemon.h"
#include "host-receiver/verbs/verbs.h"

struct serve_options {
	struct daemon_options daemon;
	int log_level;
};

static const struct option_row rows[] = {
	{"config", "FILE", "default " CONFIG_FILE_DEFAULT,
	 OPTION_SETS_TEXT(struct serve_options, daemon.config_path)},
	{"user", "NAME", "user of the process that receives (needs a start as root)",
	 OPTION_SETS_TEXT(struct serve_options, daemon.user)},
	{"signer-user", "NAME", "user of the process that signs; with --user",
	 OPTION_SETS_TEXT(struct serve_options, daemon.signer_user)},
	{"signer-state", "DIR", "the signer's folder (default signer in state_dir)",
	 OPTION_SETS_TEXT(struct serve_options, daemon.signer_state)},
	{"log-level", "LEVEL", "emerg .. debug (default info)",
	 OPTION_SETS_LOG_LEVEL(struct serve_options, log_level)},
	OPTION_ROW_HELP,
};

/* Returns EX_OK, EX_USAGE after a message, or -1 if --help was answered. */
static int parse(struct daemon_options *ret, int argc, char **argv)
{
	struct serve_options o = {.daemon.config_path = CONFIG_FILE_DEFAULT, .log_level = LOG_INFO};
	const struct option_program program = {
		.name = "serve",
		.before = "Usage: cellos-host-telemetry serve [--config FILE] [--log-level LEVEL]\n"
			  "           [--user NAME --signer-user NAME [--signer-state DIR]]\n"
			  "The daemon: receives from many cells, writes their evidence to the log. "
			  "Cells are\nadded and removed with the verb cell.\n",
		.after =
			"SIGHUP: read the configuration again; SIGTERM: seal all streams and end.\n"
			"Exit status: 0 sealed and written; 1 failed; 64 usage; 73 the control socket "
			"or the\nevidence folder is in use; 78 configuration.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &o}},
	};
	int at = option_parse(&program, argc, argv, NULL);

	if (at <= 0)
		return at < 0 ? EX_USAGE : -1;
	*ret = o.daemon;
	log_set_level(o.log_level);
	return EX_OK;
}

int cmd_serve(int argc, char **argv)
{
	struct daemon_options options;
	int status = parse(&options, argc, argv);

	if (status != EX_OK)
		return status < 0 ? EX_OK : status;
	return daemon_run(&options);
}
