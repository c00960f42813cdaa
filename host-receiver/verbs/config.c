/* SPDX-License-Identifier: MIT */
/*
 * check-config and dump-config: what the daemon would make of its configuration. check-config also
 * looks at what a start would find; dump-config reads the file and nothing else.
 */
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/daemon/check.h"
#include "host-receiver/verbs/verbs.h"

struct reading {
	const char *path;
};

static const struct option_row rows[] = {
	{"config", "FILE", "default " CONFIG_FILE_DEFAULT, OPTION_SETS_TEXT(struct reading, path)},
	OPTION_ROW_HELP,
};

static int run(int argc, char **argv, bool dump)
{
	struct reading reading = {.path = CONFIG_FILE_DEFAULT};
	const struct option_program program = {
		.name = argv[0],
		.before =
			dump ? "Usage: cellos-host-telemetry dump-config [--config FILE]\n"
			       "Prints the configuration in effect, defaults included. Keys are in "
			       "files of\ntheir own and are never printed.\n"
			     : "Usage: cellos-host-telemetry check-config [--config FILE]\n"
			       "Checks the daemon's configuration and what a start would find: key, "
			       "groups,\nfolders, free space, ports. Root checks as the user who owns "
			       "state_dir.\n",
		.after =
			"Exit status: 0 the configuration is good; 64 usage; 78 it is not, and each "
			"error\nis on standard error: FILE:LINE: reason, or FILE: [SECTION] KEY: "
			"reason.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &reading}},
	};
	struct config_errors errors;
	struct config config;
	int at = option_parse(&program, argc, argv, NULL), r, status = EX_OK;

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	r = config_read(reading.path, &config, &errors);
	if (r < 0) {
		fputs(errors.text ? errors.text : "no memory\n", stderr);
		status = EX_CONFIG;
	} else if (dump) {
		config_dump(&config, stdout);
	} else {
		status = daemon_check(reading.path, &config);
	}
	config_errors_free(&errors);
	config_free(&config);
	return status;
}

int cmd_check_config(int argc, char **argv)
{
	return run(argc, argv, false);
}

int cmd_dump_config(int argc, char **argv)
{
	return run(argc, argv, true);
}
