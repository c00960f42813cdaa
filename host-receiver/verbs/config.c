/* SPDX-License-Identifier: MIT */
/*
 * check-config and dump-config: what the daemon would make of its configuration. They read the file
 * and nothing else; the signing key is opened by serve.
 */
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
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
			       "Checks the daemon's configuration and prints all errors.\n",
		.after =
			"Exit status: 0 the configuration is good; 64 usage; 78 it is not, and each "
			"error\nstands on standard error as FILE:LINE: reason.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &reading}},
	};
	struct config_errors errors;
	struct config config;
	int at = option_parse(&program, argc, argv, NULL), r;

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	r = config_read(reading.path, &config, &errors);
	if (r < 0)
		fputs(errors.text ? errors.text : "no memory\n", stderr);
	else if (dump)
		config_dump(&config, stdout);
	config_errors_free(&errors);
	config_free(&config);
	return r < 0 ? EX_CONFIG : EX_OK;
}

int cmd_check_config(int argc, char **argv)
{
	return run(argc, argv, false);
}

int cmd_dump_config(int argc, char **argv)
{
	return run(argc, argv, true);
}
