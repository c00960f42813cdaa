/* SPDX-License-Identifier: MIT */
/*
 * cell and status: send one request to the daemon's control socket and print the answer, for people
 * or as JSON (--json). The protocol is in docs/control-protocol.md.
 */
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/cell/options.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/client.h"
#include "host-receiver/verbs/shared.h"
#include "host-receiver/verbs/verbs.h"

struct asking {
	const char *verb;
	const char *socket_path, *config_path; /* as shared_find_socket() takes them */
	bool json;
	json_t *options;      /* of a cell, for add; owned */
	const char *argument; /* the cell's id, for actions that take one */
};

static const char status_before[] = "Usage: cellos-host-telemetry status [--json] [--config FILE]\n"
				    "The daemon, its log, and each cell.\n";
static const char cell_before[] =
	"Usage: cellos-host-telemetry cell add --uds BASE --cell-id ID --run-id RUN "
	"--spec-hash HASH [CELL OPTIONS]\n"
	"       cellos-host-telemetry cell remove ID\n"
	"       cellos-host-telemetry cell list [--json]\n"
	"       cellos-host-telemetry cell show ID [--json]\n"
	"When add returns, the socket, which it prints, is listening: the VM may be started.\n";
static const char after[] =
	"Exit status: 0; 1 no such cell or failed; 64 usage; 69 the daemon is not reachable;\n"
	"73 the socket is in use or the cell exists; 77 not permitted; 78 configuration.\n";

static const struct option_row rows[] = {
	{"json", NULL, "the daemon's answer as it is", OPTION_SETS_FLAG(struct asking, json)},
	{"config", "FILE", "of the daemon, names its socket (default " CONFIG_FILE_DEFAULT ")",
	 OPTION_SETS_TEXT(struct asking, config_path)},
	{"control", "SOCKET",
	 "the socket, whatever a configuration says (default " SOCKET_DEFAULT ")",
	 OPTION_SETS_TEXT(struct asking, socket_path)},
	OPTION_ROW_HELP,
};

/*
 * Turn an option of a cell into a member of the request. A relative path is relative to this
 * process and not to the daemon, so it is made absolute.
 */
static int set_option(void *target, const struct option_row *row, const char *value,
		      char why[OPTION_WHY_MAX])
{
	_cleanup_free_ char *cwd = NULL;
	struct asking *a = target;
	json_t *string;

	if (strcmp(row->name, "uds") == 0 && *value != '/' && *value) {
		cwd = getcwd(NULL, 0);
		string = cwd ? json_sprintf("%s/%s", cwd, value) : NULL;
	} else {
		string = json_string(value);
	}
	if (string)
		return json_object_set_new(a->options, row->name, string);
	snprintf(why, OPTION_WHY_MAX, "expected text");
	return -EINVAL;
}

/*
 * Parse the command line. The values of a cell's options become JSON here; the daemon checks them.
 * Returns EX_OK, EX_USAGE after a message, or -1 if --help was answered.
 */
static int parse(struct asking *a, int argc, char **argv, bool cell_options, bool wants_argument)
{
	static const struct {
		const char *name, *missing;
	} mandatory[] = {
		{"uds", "--uds is missing"},
		{"cell-id", "--cell-id is missing"},
		{"run-id", "--run-id is missing"},
		{"spec-hash", "--spec-hash is missing"},
	};
	struct option_row passed[CELL_OPTION_ROWS];
	struct option_program program = {
		.name = a->verb,
		.before = strcmp(a->verb, "status") == 0 ? status_before : cell_before,
		.after = after,
		.groups = {{NULL, rows, ARRAY_SIZE(rows), a},
			   {"Cell options:", passed, cell_options ? CELL_OPTION_ROWS : 0, a}},
		.operands_max = wants_argument ? 1 : 0,
	};
	int at;

	for (size_t i = 0; i < CELL_OPTION_ROWS; i++) {
		passed[i] = cell_option_rows[i];
		passed[i].kind = OPTION_CALL;
		passed[i].set = set_option;
	}
	at = option_parse(&program, argc, argv, NULL);
	if (at <= 0)
		return at < 0 ? EX_USAGE : -1;
	if (wants_argument && at == argc) {
		option_usage_error(&program, "expected a cell's id");
		return EX_USAGE;
	}
	for (size_t i = 0; cell_options && i < ARRAY_SIZE(mandatory); i++)
		if (!json_object_get(a->options, mandatory[i].name)) {
			option_usage_error(&program, mandatory[i].missing);
			return EX_USAGE;
		}
	a->argument = wants_argument ? argv[at] : NULL;
	return EX_OK;
}

/* ---- for people ---- */

/* A time in milliseconds as seconds, or "-" for null. */
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

/* Print a line for each probe that fails. */
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
			printf("%s: the probe %s cannot read: %s\n", shared_text(cell, "cellId"),
			       name, shared_text(probe, "error"));
	}
}

/* Print a line for each cell of the last run that cannot be served. */
static void print_unserved(const json_t *unserved)
{
	const json_t *cell;
	size_t i;

	json_array_foreach(unserved, i, cell)
		printf("%s: UNSERVED, tried again in %.1fs: %s\n", shared_text(cell, "cellId"),
		       (double)shared_number(cell, "nextTryMs") / (double)MSEC_PER_SEC,
		       shared_text(cell, "unserved"));
}

static void print_cells(const json_t *answer)
{
	const json_t *cells = json_object_get(answer, "cells");
	char frame[32], heartbeat[32];
	const json_t *cell;
	size_t i;

	printf("%-24s %-10s %10s %10s %9s %9s %6s %8s\n", "CELL", "STATE", "LAST FRAME",
	       "HEARTBEAT", "SEQUENCE", "REJECTED", "GAPS", "DROPPED");
	json_array_foreach(cells, i, cell) printf(
		"%-24s %-10s %10s %10s %9lld %9lld %6lld %8lld\n", shared_text(cell, "cellId"),
		state_of(cell), age(cell, "lastFrameAgeMs", frame),
		age(cell, "heartbeatAgeMs", heartbeat), shared_number(cell, "sequence"),
		shared_number(cell, "framesRejected"), shared_number(cell, "gaps"),
		shared_number(cell, "guestDropped") + shared_number(cell, "guestKernelLost"));
	print_failing(cells);
	print_unserved(json_object_get(answer, "unserved"));
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
	printf("%s\n", shared_text(answer, "socket"));
}

static void print_nothing(const json_t *answer)
{
	(void)answer;
}

static void print_status(const json_t *answer)
{
	const json_t *log = json_object_get(answer, "log");
	const json_t *signing = json_object_get(answer, "signing");
	char up[32], oldest[32];

	printf("daemon     version %s, pid %lld, up %s\n", shared_text(answer, "version"),
	       shared_number(answer, "pid"), age(answer, "uptimeMs", up));
	printf("log        %s: %lld segments, %lld bytes; %s%s\n", shared_text(log, "dir"),
	       shared_number(log, "segments"), shared_number(log, "bytes"),
	       *shared_text(log, "error") ? "CANNOT WRITE: " : "written",
	       shared_text(log, "error"));
	printf("signing    %s %s %s\n",
	       strcmp(shared_text(signing, "algorithm"), "off") == 0
		       ? "OFF"
		       : shared_text(signing, "algorithm"),
	       shared_text(signing, "kid"), shared_text(signing, "fingerprint"));
	if (*shared_text(answer, "alarm"))
		printf("ALARM      %s\n", shared_text(answer, "alarm"));
	printf("in flight  %lld bytes, the oldest for %s%s\n", shared_number(log, "inflightBytes"),
	       age(log, "oldestInflightMs", oldest),
	       json_is_true(json_object_get(log, "readsPaused")) ? ", READING PAUSED" : "");
	printf("cells      %lld, %lld connected, %lld silent\n", shared_number(answer, "cellCount"),
	       shared_number(answer, "connected"), shared_number(answer, "silent"));
	printf("losses     %lld dropped and %lld lost in guests, %lld gaps, %lld over the rate, "
	       "%lld contested\n\n",
	       shared_number(answer, "guestDropped"), shared_number(answer, "guestKernelLost"),
	       shared_number(answer, "gaps"), shared_number(answer, "rateLimited"),
	       shared_number(answer, "contested"));
	print_cells(answer);
}

/* Send the request and print the answer. Returns an exit status. */
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

/* All actions: wanted is the request's verb. */
static int run(const char *verb, int argc, char **argv, const char *wanted, bool cell_options,
	       bool wants_argument, void (*print)(const json_t *))
{
	struct asking a = {.verb = verb, .options = json_object()};
	struct config config = {0};
	int status = parse(&a, argc, argv, cell_options, wants_argument);

	if (status == EX_OK)
		status = shared_find_socket(a.socket_path, a.config_path, &config, &a.socket_path);
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

	struct option_guess guess = {.typed = argc >= 2 ? argv[1] : ""};

	/* `cell --help` prints the help of add, because it has all options. */
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return run("cell", argc, argv, "add", true, false, print_added);
	for (size_t i = 0; argc >= 2 && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, argv[1]) == 0)
			return run("cell", argc - 1, argv + 1, verbs[i].name, verbs[i].cell_options,
				   verbs[i].argument, verbs[i].print);
	guess.len = strlen(guess.typed);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		option_guess_try(&guess, verbs[i].name);
	if (argc >= 2)
		option_no_such_verb("cell", &guess);
	else
		fputs("cell: expected add, remove, list or show; --help says how it is used\n",
		      stderr);
	return EX_USAGE;
}

int cmd_status(int argc, char **argv)
{
	return run("status", argc, argv, "status", false, false, print_status);
}
