/* SPDX-License-Identifier: MIT */
/*
 * check-config and dump-config: what the daemon would make of its configuration. They read the file
 * and nothing else; the signing key is opened by serve.
 */
#include <getopt.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/verbs/verbs.h"

static void print_help(const char *verb)
{
	printf("Usage: cellos-host-telemetry %s [--config FILE]\n%s"
	       "  --config FILE  default %s\n\n"
	       "Exit status: 0 the configuration is good; 64 usage; 78 it is not, and each error\n"
	       "stands on standard error as FILE:LINE: reason.\n",
	       verb,
	       strcmp(verb, "check-config") == 0
		       ? "Checks the daemon's configuration and tells all errors.\n\n"
		       : "Prints the configuration in effect, defaults included. Keys are in files of\n"
			 "their own and are never printed.\n\n",
	       CONFIG_FILE_DEFAULT);
}

static int run(int argc, char **argv, bool dump)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *path = CONFIG_FILE_DEFAULT;
	struct config_errors errors;
	struct config config;
	int id, r;

	optind = 1;
	while ((id = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (id == 'c') {
			path = optarg;
		} else if (id == 'h') {
			print_help(argv[0]);
			return EX_OK;
		} else {
			return EX_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "%s: %s: unexpected argument; --help says how it is used\n",
			argv[0], argv[optind]);
		return EX_USAGE;
	}
	r = config_read(path, &config, &errors);
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
