/* SPDX-License-Identifier: MIT */
#include "guest-agent/options.h"

#include <syslog.h>

#include "common/handover.h"
#include "common/log.h"
#include "common/util.h"

#define PROGRAM "cellos-telemetry"

enum option_id {
	OPT_CONNECT,
	OPT_INOTIFY,
	OPT_HEARTBEAT,
	OPT_QUEUE,
	OPT_READY_TIMEOUT,
	OPT_READY_FD,
	OPT_PID_FILE,
	OPT_CONTENT_VERSION,
	OPT_PROCESS,
	OPT_NET,
	OPT_CAPABILITY,
	OPT_LISTENER_SOCKET,
	OPT_POLL,
	OPT_EXCLUDE_PID,
	OPT_LOCK_AUDIT,
	OPT_PROBE,
	OPT_NO_WAIT,
	OPT_FOREGROUND,
	OPT_LOG_LEVEL,
	OPT_VERSION,
	OPT_HELP,
	_OPT_END,
};

static const struct {
	const char *name, *argument, *help;
	uint64_t min, max; /* of a number */
} table[] = {
#define AT(id) [id - OPT_CONNECT]
	AT(OPT_CONNECT) = {"connect", "ADDR", "vsock:CID:PORT or unix:PATH (default vsock:2:9001)"},
	AT(OPT_INOTIFY) = {"inotify", "PATH", "watch a file or directory; up to 64 times"},
	AT(OPT_HEARTBEAT) = {"heartbeat", "MS", "period of heartbeats (default 3000)", 100, 60000},
	AT(OPT_QUEUE) = {"queue", "N", "events the queue holds (default 1024)", EVENT_QUEUE_MIN,
			 EVENT_QUEUE_MAX},
	AT(OPT_READY_TIMEOUT) = {"ready-timeout", "MS", "fail if not ready by then (default 5000)",
				 1, 3600000},
	AT(OPT_READY_FD) = {"ready-fd", "FD", "write the agent's pid there when ready", 0, 1 << 20},
	AT(OPT_PID_FILE) = {"pid-file", "PATH", "(default /run/cellos-telemetry.pid)"},
	AT(OPT_CONTENT_VERSION) = {"content-version", "1|2", "wire version to write (default 2)", 1,
				   2},
	AT(OPT_PROCESS) = {"process", "SOURCE", "auto, proc-connector, proc-walk, off"},
	AT(OPT_NET) = {"net", "SOURCE", "auto, cgroup-bpf, audit, proc-net, off"},
	AT(OPT_CAPABILITY) = {"capability", "SOURCE", "auto, seccomp-notify, audit, off"},
	AT(OPT_LISTENER_SOCKET) = {"listener-socket", "PATH",
				   "where the profile's launcher hands over its descriptor"},
	AT(OPT_POLL) = {"poll", "MS", "period of the polling sources (default 100)", 10, 60000},
	AT(OPT_EXCLUDE_PID) = {"exclude-pid", "PID", "do not report it; up to 64 times", 1,
			       INT32_MAX},
	AT(OPT_LOCK_AUDIT) = {"lock-audit", NULL,
			      "with an audit source: lock its rules until reboot"},
	AT(OPT_PROBE) = {"probe", NULL, "tell what each source can do on this kernel, then exit"},
	AT(OPT_NO_WAIT) = {"no-wait", NULL, "the parent exits at once"},
	AT(OPT_FOREGROUND) = {"foreground", NULL, "do not fork"},
	AT(OPT_LOG_LEVEL) = {"log-level", "LEVEL", "emerg .. debug (default info)"},
	AT(OPT_VERSION) = {"version", NULL, NULL},
	AT(OPT_HELP) = {"help", NULL, NULL},
};
_Static_assert(ARRAY_SIZE(table) == _OPT_END - OPT_CONNECT, "a row for each option");

static const char *const family_sources[_PROBE_FAMILY_MAX][5] = {
	[PROBE_PROCESS] = {SOURCE_AUTO, "proc-connector", "proc-walk", SOURCE_OFF},
	[PROBE_NET] = {SOURCE_AUTO, "cgroup-bpf", "audit", "proc-net", SOURCE_OFF},
	[PROBE_CAPABILITY] = {SOURCE_AUTO, "seccomp-notify", "audit", SOURCE_OFF},
};

const char *options_family_name(enum probe_family family)
{
	static const char *const names[] = {
		[PROBE_PROCESS] = "--process",
		[PROBE_NET] = "--net",
		[PROBE_CAPABILITY] = "--capability",
		[PROBE_FS] = "--inotify",
	};

	return names[family];
}

static void print_help(void)
{
	printf("Usage: " PROGRAM " [OPTIONS]\n"
	       "       " PROGRAM " [OPTIONS] -- COMMAND [ARG...]\n"
	       "       " PROGRAM " --foreground [OPTIONS]\n"
	       "Declares what this guest's processes do to the host that runs it.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char left[48];

		snprintf(left, sizeof(left), "--%s %s", table[i].name,
			 table[i].argument ? table[i].argument : "");
		printf("  %-24s %s\n", left, table[i].help ? table[i].help : "");
	}
	printf("\nExit status: 0 ready or orderly end, 2 fork failed, 3 not ready in time,\n"
	       "64 usage, 126 or 127 COMMAND cannot be run.\n");
}

static int usage_error(const char *option, const char *value, const char *expected)
{
	fprintf(stderr, PROGRAM ": --%s %s: expected %s\n", option, value, expected);
	return -EINVAL;
}

static int number(int id, const char *value, uint64_t *ret)
{
	const size_t i = (size_t)(id - OPT_CONNECT);
	char expected[64];

	if (parse_u64(value, table[i].min, table[i].max, ret) == 0)
		return 0;
	snprintf(expected, sizeof(expected), "a whole number of %" PRIu64 "..%" PRIu64,
		 table[i].min, table[i].max);
	return usage_error(table[i].name, value, expected);
}

static int choose_source(struct options *o, enum probe_family family, const char *value)
{
	char expected[96] = "one of";

	for (size_t i = 0; i < ARRAY_SIZE(family_sources[family]) && family_sources[family][i];
	     i++) {
		size_t len = strlen(expected);

		if (strcmp(value, family_sources[family][i]) == 0) {
			o->source[family] = value;
			return 0;
		}
		snprintf(expected + len, sizeof(expected) - len, "%s %s", i ? "," : "",
			 family_sources[family][i]);
	}
	return usage_error(options_family_name(family) + 2, value, expected);
}

static int add_inotify(struct options *o, const char *path)
{
	char expected[64];

	if (path[0] != '/')
		return usage_error("inotify", path, "an absolute path");
	if (o->probes.n_inotify_paths == PROBE_INOTIFY_PATHS_MAX) {
		snprintf(expected, sizeof(expected), "at most %u paths", PROBE_INOTIFY_PATHS_MAX);
		return usage_error("inotify", path, expected);
	}
	o->probes.inotify_paths[o->probes.n_inotify_paths++] = path;
	return 0;
}

static int add_excluded(struct options *o, const char *value)
{
	char expected[64];
	uint64_t pid;
	int r = number(OPT_EXCLUDE_PID, value, &pid);

	if (r < 0)
		return r;
	if (o->probes.n_excluded == PROBE_EXCLUDED_PIDS_MAX) {
		snprintf(expected, sizeof(expected), "at most %u pids", PROBE_EXCLUDED_PIDS_MAX);
		return usage_error("exclude-pid", value, expected);
	}
	o->probes.excluded[o->probes.n_excluded++] = (pid_t)pid;
	return 0;
}

static int apply(struct options *o, int id, const char *value)
{
	char why[CHANNEL_WHY_MAX];
	uint64_t v = 0;
	int r = 0;

	switch (id) {
	case OPT_CONNECT:
		r = channel_address_parse(value, &o->address, why);
		o->address_text = value;
		if (r < 0)
			fprintf(stderr, PROGRAM ": --connect %s: %s\n", value, why);
		return r;
	case OPT_INOTIFY: return add_inotify(o, value);
	case OPT_EXCLUDE_PID: return add_excluded(o, value);
	case OPT_PROCESS: return choose_source(o, PROBE_PROCESS, value);
	case OPT_NET: return choose_source(o, PROBE_NET, value);
	case OPT_CAPABILITY: return choose_source(o, PROBE_CAPABILITY, value);
	case OPT_PID_FILE: o->pid_file = value; return 0;
	case OPT_LISTENER_SOCKET: o->probes.listener_socket = value; return 0;
	case OPT_LOCK_AUDIT: o->probes.lock_audit = true; return 0;
	case OPT_NO_WAIT: o->no_wait = true; return 0;
	case OPT_FOREGROUND: o->form = START_FOREGROUND; return 0;
	case OPT_PROBE: o->form = START_PROBE; return 0;
	case OPT_LOG_LEVEL:
		o->log_level = log_level_from_string(value);
		return o->log_level < 0 ? usage_error("log-level", value,
						      "emerg, alert, crit, err, warning, notice, "
						      "info, debug or 0..7")
					: 0;
	case OPT_HELP: print_help(); return 1;
	case OPT_VERSION: printf(PROGRAM " " CELLOS_VERSION "\n"); return 1;
	default: break;
	}
	r = number(id, value, &v);
	if (r < 0)
		return r;
	switch (id) {
	case OPT_HEARTBEAT: o->heartbeat_ms = (unsigned)v; break;
	case OPT_QUEUE: o->queue = (unsigned)v; break;
	case OPT_READY_TIMEOUT: o->ready_timeout_ms = (unsigned)v; break;
	case OPT_READY_FD: o->ready_fd = (int)v; break;
	case OPT_CONTENT_VERSION: o->content_version = (uint16_t)v; break;
	case OPT_POLL: o->probes.poll_ms = (unsigned)v; break;
	default: break;
	}
	return 0;
}

static void set_defaults(struct options *o)
{
	*o = (struct options){
		.form = START_FORK,
		.address = {.len = sizeof(struct sockaddr_vm),
			    .vm = {.svm_family = AF_VSOCK,
				   .svm_cid = WIRE_VSOCK_HOST_CID,
				   .svm_port = WIRE_VSOCK_PORT}},
		.address_text = "vsock:2:9001",
		.source = {SOURCE_AUTO, SOURCE_AUTO, SOURCE_AUTO, SOURCE_AUTO},
		.probes = {.poll_ms = 100, .listener_socket = LISTENER_SOCKET_PATH},
		.heartbeat_ms = 3000,
		.queue = EVENT_QUEUE_DEFAULT,
		.ready_timeout_ms = 5000,
		.ready_fd = -1,
		.pid_file = "/run/" PROGRAM ".pid",
		.content_version = WIRE_VERSION_2,
		.log_level = LOG_INFO,
	};
}

/* argv[at] is the first argument behind the options, or behind the -- that ended them. */
static int check_whole(struct options *o, int at, int argc, char **argv, bool dashes)
{
	const char *path = getenv("CELLOS_TELEMETRY_INOTIFY_PATH");

	if (at < argc && !dashes) {
		fprintf(stderr,
			PROGRAM ": %s: unexpected argument; a command to become stands behind --\n",
			argv[at]);
		return -EINVAL;
	}
	if (dashes && at == argc) {
		fprintf(stderr, PROGRAM ": --: expected a command behind it\n");
		return -EINVAL;
	}
	if (dashes && o->form != START_FORK) {
		fprintf(stderr, PROGRAM ": --foreground and --probe take no command\n");
		return -EINVAL;
	}
	if (dashes) {
		o->form = START_COMMAND;
		o->command = argv + at;
	}
	if (o->probes.n_inotify_paths == 0 && path && *path)
		return add_inotify(o, path);
	return 0;
}

/*
 * The option at *at as --NAME VALUE or --NAME=VALUE; *at goes on behind it. Names are spelt out.
 * getopt_long(3) would be more code than all of this file.
 */
static int parse_option(struct options *o, int *at, int argc, char **argv)
{
	const char *arg = argv[(*at)++], *equals = strchr(arg, '='), *value = NULL;
	const size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
	size_t i = 0;

	while (i < ARRAY_SIZE(table) &&
	       (strncmp(arg, "--", 2) != 0 || strlen(table[i].name) != len - 2 ||
		memcmp(arg + 2, table[i].name, len - 2) != 0))
		i++;
	if (i == ARRAY_SIZE(table)) {
		fprintf(stderr, PROGRAM ": %s: no such option; --help lists them\n", arg);
		return -EINVAL;
	}
	if (!table[i].argument && equals) {
		fprintf(stderr, PROGRAM ": %s: takes no value\n", arg);
		return -EINVAL;
	}
	if (table[i].argument)
		value = equals ? equals + 1 : *at < argc ? argv[(*at)++] : NULL;
	if (table[i].argument && !value) {
		fprintf(stderr, PROGRAM ": %s: expected a value behind it\n", arg);
		return -EINVAL;
	}
	return apply(o, OPT_CONNECT + (int)i, value);
}

int options_parse(int argc, char **argv, struct options *ret)
{
	struct options o;
	bool dashes = false;
	int at = 1, r;

	set_defaults(&o);
	while (at < argc && argv[at][0] == '-') {
		if (strcmp(argv[at], "--") == 0) {
			dashes = true;
			at++;
			break;
		}
		r = parse_option(&o, &at, argc, argv);
		if (r != 0)
			return r;
	}
	r = check_whole(&o, at, argc, argv, dashes);
	if (r < 0)
		return r;
	*ret = o;
	return 0;
}
