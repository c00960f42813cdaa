/* SPDX-License-Identifier: MIT */
/*
 * cell and status: ask the daemon on its control socket, print what it answers for people, or with
 * --json as it is.
 */
#include <getopt.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/cell/options.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/client.h"
#include "host-receiver/verbs/verbs.h"

#define SOCKET_DEFAULT "/run/cellos/host-telemetry.sock"

enum option_id {
	OPT_CONTROL = 256,
	OPT_CONFIG,
	OPT_JSON,
	OPT_HELP,
	OPT_CELL, /* the cell options follow, in their order */
};

struct asking {
	const char *verb;
	const char *socket_path; /* NULL: as the configuration says */
	const char *config_path; /* NULL: the usual one, if it is there */
	bool json;
	json_t *options; /* of a cell; owned */
	const char *argument;
};

static void print_help(const char *verb)
{
	if (strcmp(verb, "status") == 0)
		printf("Usage: cellos-host-telemetry status [--json] [--config FILE]\n"
		       "The daemon, its log, and each cell.\n\n");
	else
		printf("Usage: cellos-host-telemetry cell add --uds BASE --cell-id ID --run-id RUN "
		       "--spec-hash HASH [CELL OPTIONS]\n"
		       "       cellos-host-telemetry cell remove ID\n"
		       "       cellos-host-telemetry cell list [--json]\n"
		       "       cellos-host-telemetry cell show ID [--json]\n"
		       "When add returns, the socket, which it prints, is listening: the VM may be\n"
		       "started.\n\nCell options:\n%s\n",
		       cell_options_help);
	printf("  --json                 the daemon's answer as it is\n"
	       "  --config FILE          of the daemon, names its socket (default %s)\n"
	       "  --control SOCKET       the socket, whatever a configuration says (default %s)\n\n"
	       "Exit status: 0; 1 no such cell or failed; 64 usage; 69 the daemon is not reachable;\n"
	       "73 the socket is in use or the cell exists; 77 not permitted; 78 configuration.\n",
	       CONFIG_FILE_DEFAULT, SOCKET_DEFAULT);
}

static int usage(const struct asking *a, const char *what, const char *why)
{
	fprintf(stderr, "%s: %s: %s; --help says how it is used\n", a->verb, what, why);
	return EX_USAGE;
}

static void fill_options(struct option *longs, size_t size, bool cell_options)
{
	static const struct option own[] = {
		{"config", required_argument, NULL, OPT_CONFIG},
		{"control", required_argument, NULL, OPT_CONTROL},
		{"json", no_argument, NULL, OPT_JSON},
		{"help", no_argument, NULL, OPT_HELP},
	};
	size_t n = 0;

	memset(longs, 0, size * sizeof(*longs));
	for (; n < ARRAY_SIZE(own); n++)
		longs[n] = own[n];
	for (size_t i = 0; cell_options && cell_option_names[i] && n + 1 < size; i++)
		longs[n++] = (struct option){
			.name = cell_option_names[i],
			.has_arg = required_argument,
			.val = OPT_CELL + (int)i,
		};
}

/* Relative paths are this process's, not the daemon's. */
static int set_option(struct asking *a, const char *name, const char *value)
{
	_cleanup_free_ char *cwd = NULL;
	json_t *string;

	if (strcmp(name, "uds") == 0 && *value != '/' && *value) {
		cwd = getcwd(NULL, 0);
		string = cwd ? json_sprintf("%s/%s", cwd, value) : NULL;
	} else {
		string = json_string(value);
	}
	if (!string)
		return usage(a, name, "expected text");
	json_object_set_new(a->options, name, string);
	return EX_OK;
}

/* Returns EX_OK, EX_USAGE after a message, or -1 when --help was answered. */
static int parse(struct asking *a, int argc, char **argv, bool cell_options, bool wants_argument)
{
	struct option longs[64];
	int id;

	fill_options(longs, ARRAY_SIZE(longs), cell_options);
	opterr = 0;
	optind = 1;
	while ((id = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		switch (id) {
		case OPT_CONTROL: a->socket_path = optarg; break;
		case OPT_CONFIG: a->config_path = optarg; break;
		case OPT_JSON: a->json = true; break;
		case OPT_HELP: print_help(a->verb); return -1;
		case ':': return usage(a, argv[optind - 1], "expected a value behind it");
		case '?': return usage(a, argv[optind - 1], "no such option");
		default:
			if (set_option(a, cell_option_names[id - OPT_CELL], optarg) != EX_OK)
				return EX_USAGE;
			break;
		}
	}
	if (wants_argument && optind < argc)
		a->argument = argv[optind++];
	else if (wants_argument)
		return usage(a, a->verb, "expected a cell's id");
	return optind < argc ? usage(a, argv[optind], "unexpected argument") : EX_OK;
}

/* ---- for people ---------------------------------------------------------------------------------
 */

static json_int_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

static const char *age(const json_t *object, const char *key, char out[32])
{
	const json_t *v = json_object_get(object, key);

	if (json_is_integer(v))
		snprintf(out, 32, "%.1fs", (double)json_integer_value(v) / (double)MSEC_PER_SEC);
	else
		snprintf(out, 32, "-");
	return out;
}

static const char *state_of(const json_t *cell)
{
	if (json_is_true(json_object_get(cell, "silent")))
		return "SILENT";
	return json_is_true(json_object_get(cell, "connected")) ? "connected" : "waiting";
}

/* A line for each probe that cannot read. */
static void print_failing(const json_t *cells)
{
	const json_t *cell;
	size_t i;

	json_array_foreach(cells, i, cell)
	{
		const json_t *probe;
		const char *name;

		json_object_foreach(json_object_get(cell, "probes"), name,
				    probe) if (json_is_true(json_object_get(probe, "failing")))
			printf("%s: the probe %s cannot read: %s\n", text(cell, "cellId"), name,
			       text(probe, "error"));
	}
}

static void print_cells(const json_t *answer)
{
	const json_t *cells = json_object_get(answer, "cells");
	char frame[32], heartbeat[32];
	const json_t *cell;
	size_t i;

	printf("%-24s %-10s %10s %10s %9s %9s %6s %8s\n", "CELL", "STATE", "LAST FRAME",
	       "HEARTBEAT", "SEQUENCE", "REJECTED", "GAPS", "DROPPED");
	json_array_foreach(cells, i, cell)
		printf("%-24s %-10s %10s %10s %9lld %9lld %6lld %8lld\n", text(cell, "cellId"),
		       state_of(cell), age(cell, "lastFrameAgeMs", frame),
		       age(cell, "heartbeatAgeMs", heartbeat), number(cell, "sequence"),
		       number(cell, "framesRejected"), number(cell, "gaps"),
		       number(cell, "guestDropped") + number(cell, "guestKernelLost"));
	print_failing(cells);
}

static void print_object(const json_t *object)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		_cleanup_free_ char *s = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

		printf("%-20s %s\n", key,
		       json_is_string(value) ? json_string_value(value)
		       : s		     ? s
					     : "");
	}
}

static void print_cell(const json_t *answer)
{
	print_object(json_object_get(answer, "cell"));
}

static void print_added(const json_t *answer)
{
	printf("%s\n", text(answer, "socket"));
}

static void print_nothing(const json_t *answer)
{
	(void)answer;
}

static void print_status(const json_t *answer)
{
	const json_t *log = json_object_get(answer, "log");
	char up[32];

	printf("daemon     version %s, pid %lld, up %s\n", text(answer, "version"),
	       number(answer, "pid"), age(answer, "uptimeMs", up));
	printf("log        %s: %lld segments, %lld bytes; %s%s\n", text(log, "dir"),
	       number(log, "segments"), number(log, "bytes"),
	       *text(log, "error") ? "CANNOT WRITE: " : "written", text(log, "error"));
	printf("in flight  %lld bytes%s\n", number(log, "inflightBytes"),
	       json_is_true(json_object_get(log, "readsPaused")) ? ", READING PAUSED" : "");
	printf("cells      %lld, %lld connected, %lld silent\n", number(answer, "cellCount"),
	       number(answer, "connected"), number(answer, "silent"));
	printf("losses     %lld dropped and %lld lost in guests, %lld gaps, %lld over the rate, "
	       "%lld contested\n\n",
	       number(answer, "guestDropped"), number(answer, "guestKernelLost"),
	       number(answer, "gaps"), number(answer, "rateLimited"), number(answer, "contested"));
	print_cells(answer);
}

/*
 * The control socket's path, in *config or static. Who may ask the daemon may not be allowed to
 * read its configuration: then, and when there is none, the default serves, unless the file was
 * asked for.
 */
static int find_socket(struct asking *a, struct config *config)
{
	struct config_errors errors = {0};
	const char *path = a->config_path ? a->config_path : CONFIG_FILE_DEFAULT;
	int r;

	if (a->socket_path)
		return EX_OK;
	r = config_read(path, config, &errors);
	a->socket_path = r == 0 ? config->control_socket : SOCKET_DEFAULT;
	if (r < 0 && (a->config_path || (r != -ENOENT && r != -EACCES)))
		fputs(errors.text ? errors.text : "no memory\n", stderr);
	else
		r = 0;
	config_errors_free(&errors);
	return r < 0 ? EX_CONFIG : EX_OK;
}

static int ask(struct asking *a, const char *wanted, void (*print)(const json_t *))
{
	json_t *request = json_pack("{s:s}", "verb", wanted), *answer = NULL;
	int status;

	if (json_object_size(a->options) > 0)
		json_object_set(request, "options", a->options);
	if (a->argument)
		json_object_set_new(request, "cell", json_string(a->argument));
	status = control_ask(a->verb, a->socket_path, request, &answer);
	json_decref(request);
	if (status != EX_OK)
		return status;
	if (a->json) {
		json_dumpf(answer, stdout, JSON_COMPACT | JSON_SORT_KEYS);
		putchar('\n');
	} else {
		print(answer);
	}
	json_decref(answer);
	return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

static int run(const char *verb, int argc, char **argv, const char *wanted, bool cell_options,
	       bool wants_argument, void (*print)(const json_t *))
{
	struct asking a = {.verb = verb, .options = json_object()};
	struct config config = {0};
	int status = parse(&a, argc, argv, cell_options, wants_argument);

	if (status == EX_OK)
		status = find_socket(&a, &config);
	if (status == EX_OK)
		status = ask(&a, wanted, print);
	config_free(&config);
	json_decref(a.options);
	return status < 0 ? EX_OK : status;
}

int cmd_cell(int argc, char **argv)
{
	static const struct {
		const char *name;
		bool cell_options, argument;
		void (*print)(const json_t *);
	} verbs[] = {
		{"add", true, false, print_added},
		{"remove", false, true, print_nothing},
		{"list", false, false, print_cells},
		{"show", false, true, print_cell},
	};

	if (argc >= 2 && strcmp(argv[1], "--help") == 0) {
		print_help("cell");
		return EX_OK;
	}
	for (size_t i = 0; argc >= 2 && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, argv[1]) == 0)
			return run("cell", argc - 1, argv + 1, verbs[i].name, verbs[i].cell_options,
				   verbs[i].argument, verbs[i].print);
	fputs("cell: expected add, remove, list or show; --help says how it is used\n", stderr);
	return EX_USAGE;
}

int cmd_status(int argc, char **argv)
{
	return run("status", argc, argv, "status", false, false, print_status);
}
