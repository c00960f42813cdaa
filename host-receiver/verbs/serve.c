/* SPDX-License-Identifier: MIT */
/* serve: parse the command line, then run the daemon. */
#include <getopt.h>
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/config/config.h"
#include "host-receiver/daemon/daemon.h"
#include "host-receiver/verbs/verbs.h"

static void print_help(void)
{
	printf("Usage: cellos-host-telemetry serve [--config FILE] [--log-level LEVEL]\n"
	       "The daemon: receives from many cells, writes their evidence to the log. Cells are\n"
	       "added and removed with the verb cell.\n\n"
	       "  --config FILE      default %s\n"
	       "  --log-level LEVEL  emerg .. debug (default info)\n\n"
	       "SIGHUP: read the configuration again; SIGTERM: seal all streams and end.\n"
	       "Exit status: 0 sealed and written; 1 failed; 64 usage; 73 the control socket or the\n"
	       "evidence folder is in use; 78 configuration.\n",
	       CONFIG_FILE_DEFAULT);
}

/* Returns EX_OK, EX_USAGE after a message, or -1 when --help was answered. */
static int parse(const char **config_path, int argc, char **argv)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"log-level", required_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int id, level;

	*config_path = CONFIG_FILE_DEFAULT;
	optind = 1;
	while ((id = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (id) {
		case 'c': *config_path = optarg; break;
		case 'h': print_help(); return -1;
		case 'l':
			level = log_level_from_string(optarg);
			if (level < 0) {
				fputs("serve: --log-level: expected emerg .. debug or 0..7\n",
				      stderr);
				return EX_USAGE;
			}
			log_set_level(level);
			break;
		default: return EX_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "serve: %s: unexpected argument; --help says how it is used\n",
			argv[optind]);
		return EX_USAGE;
	}
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
