/* SPDX-License-Identifier: MIT */
/* serve: parse the command line, then run the daemon. */
#include <sysexits.h>

#include "common/log.h"
#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/daemon/daemon.h"
#include "host-receiver/verbs/verbs.h"

struct serve_options {
	const char *config_path;
	int log_level;
};

static const struct option_row rows[] = {
	{"config", "FILE", "default " CONFIG_FILE_DEFAULT,
	 OPTION_SETS_TEXT(struct serve_options, config_path)},
	{"log-level", "LEVEL", "emerg .. debug (default info)",
	 OPTION_SETS_LOG_LEVEL(struct serve_options, log_level)},
	OPTION_ROW_HELP,
};

/* Returns EX_OK, EX_USAGE after a message, or -1 if --help was answered. */
static int parse(const char **config_path, int argc, char **argv)
{
	struct serve_options o = {.config_path = CONFIG_FILE_DEFAULT, .log_level = LOG_INFO};
	const struct option_program program = {
		.name = "serve",
		.before = "Usage: cellos-host-telemetry serve [--config FILE] [--log-level LEVEL]\n"
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
	*config_path = o.config_path;
	log_set_level(o.log_level);
	return EX_OK;
}

int cmd_serve(int argc, char **argv)
{
	const char *config_path;
	int status = parse(&config_path, argc, argv);

	if (status != EX_OK)
		return status < 0 ? EX_OK : status;
	return daemon_run(config_path);
}
