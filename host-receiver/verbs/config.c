/* SPDX-License-Identifier: MIT */
/*
 * check-config and dump-config read the configuration as the daemon does. check-config also checks
 * the machine, to find out whether a start with this file would succeed (daemon/check.h).
 * dump-config prints the values in effect and reads nothing but the file.
 */
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/daemon/check.h"
#include "host-receiver/verbs/shared.h"
#include "host-receiver/verbs/verbs.h"

/* The command line of both verbs. user and signer_user: NULL: not given. */
struct reading {
	const char *path, *user, *signer_user;
};

static const struct option_row rows[] = {
	{"config", "FILE", "default " CONFIG_FILE_DEFAULT, OPTION_SETS_TEXT(struct reading, path)},
	OPTION_ROW_HELP,
};

static const struct option_row check_rows[] = {
	{"config", "FILE", "default " CONFIG_FILE_DEFAULT, OPTION_SETS_TEXT(struct reading, path)},
	{"user", "NAME", "as serve would be started", OPTION_SETS_TEXT(struct reading, user)},
	{"signer-user", "NAME", "as serve would be started",
	 OPTION_SETS_TEXT(struct reading, signer_user)},
	OPTION_ROW_HELP,
};

static int check(const struct reading *reading, const struct config *config)
{
	struct process_users users;
	char why[USERS_WHY_MAX];

	if (users_find(reading->user, reading->signer_user, &users, why) == 0)
		return daemon_check(reading->path, config, &users);
	fprintf(stderr, "check-config: %s\n", why);
	return EX_USAGE;
}

/* Both verbs. Mistakes in the file go to stderr, a line each. */
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
			       "           [--user NAME --signer-user NAME]\n"
			       "Checks the daemon's configuration and what a start would find: key, "
			       "groups,\nfolders, free space, ports. Root checks as --user, or as the "
			       "user who owns\nstate_dir.\n",
		.after =
			"Exit status: 0 the configuration is good; 64 usage; 78 it is not, and each "
			"error\nis on standard error: FILE:LINE: reason, or FILE: [SECTION] KEY: "
			"reason.\n",
		.groups = {{NULL, dump ? rows : check_rows,
			    dump ? ARRAY_SIZE(rows) : ARRAY_SIZE(check_rows), &reading}},
	};
	struct config config;
	int at = option_parse(&program, argc, argv, NULL), status;

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	status = shared_read_config(reading.path, &config);
	if (status == EX_OK && dump)
		config_dump(&config, stdout);
	else if (status == EX_OK)
		status = check(&reading, &config);
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
