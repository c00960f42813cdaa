/* SPDX-License-Identifier: MIT */
/*
 * forward: status and rewind ask the daemon over its control socket. run is the forwarder process
 * itself (host-receiver/forward): only the daemon starts it.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>

#include "common/log.h"
#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/client.h"
#include "host-receiver/forward/forwarder.h"
#include "host-receiver/verbs/shared.h"
#include "host-receiver/verbs/verbs.h"

struct forward_options {
	const char *socket_path, *config_path;
	const char *index, *since;
	bool json;
};

static const char before[] =
	"Usage: cellos-host-telemetry forward status [--json] [--config FILE]\n"
	"       cellos-host-telemetry forward rewind (--index N | --since TIME) [--config FILE]\n"
	"       cellos-host-telemetry forward run --config FILE\n"
	"The forwarder to NATS JetStream: how far it is, or send again from an entry on. run is for\n"
	"the daemon, which starts it.\n";
static const char after[] =
	"TIME is RFC 3339 in UTC, as in the evidence: 2026-11-21T10:00:00Z.\n"
	"Exit status: 0; 1 failed, or no forwarder is configured; 64 usage; 69 the daemon is not\n"
	"reachable; 77 not permitted; 78 configuration.\n";

static const struct option_row rows[] = {
	{"json", NULL, "the daemon's answer as it is",
	 OPTION_SETS_FLAG(struct forward_options, json)},
	{"index", "N", "rewind: the first entry to send again",
	 OPTION_SETS_TEXT(struct forward_options, index)},
	{"since", "TIME", "rewind: entries received from then on",
	 OPTION_SETS_TEXT(struct forward_options, since)},
	{"config", "FILE", "of the daemon (default " CONFIG_FILE_DEFAULT ")",
	 OPTION_SETS_TEXT(struct forward_options, config_path)},
	{"control", "SOCKET", "the daemon's socket, whatever a configuration says",
	 OPTION_SETS_TEXT(struct forward_options, socket_path)},
	OPTION_ROW_HELP,
};

static const struct option_program program = {
	.name = "forward",
	.before = before,
	.after = after,
};

/* ---- run ---- */

/*
 * Whether the daemon started this process: it passes a socket as LINK_FD. Without it the forwarder
 * would not know the durable end of the log.
 */
static bool has_link(void)
{
	int type;
	socklen_t len = sizeof(type);

	return getsockopt(LINK_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

static int run(const struct forward_options *o)
{
	struct forward_settings settings;
	struct config config;
	sigset_t signals;
	int r, status = shared_read_config(o->config_path, &config);

	if (status == EX_OK && !has_link()) {
		fputs("forward: run is for the daemon: it starts the forwarder if [nats] url is "
		      "set\n",
		      stderr);
		status = EX_USAGE;
	}
	if (status == EX_OK) {
		signal(SIGPIPE, SIG_IGN);
		fcntl(LINK_FD, F_SETFD, FD_CLOEXEC);
		sigemptyset(&signals);
		sigaddset(&signals, SIGTERM);
		sigaddset(&signals, SIGINT);
		sigaddset(&signals, SIGHUP);
		/* The threads of libnats inherit the mask. */
		sigprocmask(SIG_BLOCK, &signals, NULL);
		config_forward(&config, &settings);
		r = forwarder_run(&settings, LINK_FD);
		status = r < 0 ? EXIT_FAILURE : r == 1 ? LINK_EXIT_AGAIN : EX_OK;
	}
	config_free(&config);
	return status;
}

/* ---- status, rewind ---- */

static int ask(const struct forward_options *o, json_t *request, json_t **ret)
{
	struct config config = {0};
	const char *socket_path;
	int status = shared_find_socket(o->socket_path, o->config_path, &config, &socket_path);

	if (status == EX_OK)
		status = control_ask("forward", socket_path, request, ret);
	config_free(&config);
	json_decref(request);
	return status;
}

/* Of a process that has not said anything yet, there is nothing else to tell. */
static void print_starting(const json_t *f)
{
	const json_int_t restarts = shared_number(f, "restarts");

	printf("starting: how far it is, is not known yet\n");
	if (restarts > 0)
		printf("started again %" JSON_INTEGER_FORMAT
		       " times: the log of the daemon says why\n",
		       restarts);
}

static void print_status(const json_t *f)
{
	const char *name;
	const json_t *count;

	if (!strcmp(shared_text(f, "state"), "starting")) {
		print_starting(f);
		return;
	}
	printf("%s %s\n", shared_text(f, "state"), shared_text(f, "server"));
	if (*shared_text(f, "why"))
		printf("reason: %s: %s\n", shared_text(f, "reason"), shared_text(f, "why"));
	if (*shared_text(f, "warnings"))
		printf("stream: %s\n", shared_text(f, "warnings"));
	printf("acknowledged up to entry %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
	       " behind, oldest %.1f s\n",
	       shared_number(f, "index"), shared_number(f, "lagEvents"),
	       (double)shared_number(f, "lagMs") / 1000.0);
	printf("published %" JSON_INTEGER_FORMAT " messages, acknowledged %" JSON_INTEGER_FORMAT
	       ", duplicates %" JSON_INTEGER_FORMAT ", sent again %" JSON_INTEGER_FORMAT
	       ", skipped %" JSON_INTEGER_FORMAT "\n",
	       shared_number(f, "published"), shared_number(f, "acked"),
	       shared_number(f, "duplicates"), shared_number(f, "retries"),
	       shared_number(f, "skipped"));
	json_object_foreach(json_object_get(f, "errors"), name, count)
		printf("errors: %s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(count));
}

static int show_status(const struct forward_options *o)
{
	json_t *answer = NULL;
	const json_t *forward;
	int status = ask(o, json_pack("{s:s}", "verb", "status"), &answer);

	if (status != EX_OK)
		return status;
	forward = json_object_get(answer, "forward");
	if (!json_is_object(forward)) {
		fputs("forward: the daemon forwards nothing: [nats] url is not set\n", stderr);
		status = EXIT_FAILURE;
	} else if (o->json) {
		json_dumpf(forward, stdout, JSON_COMPACT | JSON_SORT_KEYS);
		putchar('\n');
	} else {
		print_status(forward);
	}
	json_decref(answer);
	return status;
}

/* RFC 3339 in UTC, with or without a fraction of a second, which is ignored. */
static bool parse_time(const char *s, json_int_t *ret)
{
	struct tm tm = {0};
	const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);

	if (!end || !*end || strcmp(end + strcspn(end, "Z"), "Z") != 0)
		return false;
	*ret = (json_int_t)timegm(&tm) * 1000;
	return true;
}

static int rewind_forwarder(const struct forward_options *o)
{
	json_t *request = json_pack("{s:s}", "verb", "forward_rewind"), *answer = NULL;
	json_int_t ms = 0;
	uint64_t index = 0;
	int status;

	if (!o->index == !o->since || (o->index && parse_u64(o->index, 0, INT64_MAX, &index) < 0) ||
	    (o->since && !parse_time(o->since, &ms))) {
		json_decref(request);
		option_usage_error(&program, "expected --index N or --since TIME");
		return EX_USAGE;
	}
	if (o->index)
		json_object_set_new(request, "index", json_integer((json_int_t)index));
	else
		json_object_set_new(request, "sinceMs", json_integer(ms));
	status = ask(o, request, &answer);
	if (status == EX_OK)
		puts("sent again from there on; the stream drops what it holds already only within "
		     "its duplicate window");
	json_decref(answer);
	return status;
}

int cmd_forward(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct forward_options *o);
	} actions[] = {
		{"run", run},
		{"status", show_status},
		{"rewind", rewind_forwarder},
	};
	struct forward_options o = {0};
	struct option_program p = program;
	struct option_guess guess = {0};
	int at;

	p.groups[0] = (struct option_group){NULL, rows, ARRAY_SIZE(rows), &o};
	p.operands_max = 1;
	at = option_parse(&p, argc, argv, NULL);
	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	for (size_t i = 0; at < argc && i < ARRAY_SIZE(actions); i++) {
		if (strcmp(argv[at], actions[i].name) == 0)
			return actions[i].run(&o);
		guess.len = strlen(argv[at]);
		guess.typed = argv[at];
		option_guess_try(&guess, actions[i].name);
	}
	if (at < argc)
		option_no_such_verb("forward", &guess);
	else
		option_usage_error(&p, "expected status, rewind or run");
	return EX_USAGE;
}
