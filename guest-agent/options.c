/* SPDX-License-Identifier: MIT */
#include "guest-agent/options.h"

#include "common/handover.h"
#include "common/log.h"
#include "common/options.h"
#include "common/util.h"

#define PROGRAM "cellos-telemetry"

static int set_address(void *target, const struct option_row *row, const char *value,
		       char why[OPTION_WHY_MAX])
{
	struct options *o = target;

	(void)row;
	_Static_assert(CHANNEL_WHY_MAX <= OPTION_WHY_MAX, "the channel's reason fits");
	o->address_text = value;
	return channel_address_parse(value, &o->address, why);
}

/* The agent changes to / before it uses a path, so a relative one would name another file. */
static int check_path(const char *path, char why[OPTION_WHY_MAX])
{
	if (path[0] == '/')
		return 0;
	snprintf(why, OPTION_WHY_MAX, "expected an absolute path");
	return -EINVAL;
}

static int set_pid_file(void *target, const struct option_row *row, const char *path,
			char why[OPTION_WHY_MAX])
{
	(void)row;
	((struct options *)target)->pid_file = path;
	return check_path(path, why);
}

static int set_listener_socket(void *target, const struct option_row *row, const char *path,
			       char why[OPTION_WHY_MAX])
{
	(void)row;
	((struct options *)target)->probes.listener_socket = path;
	return check_path(path, why);
}

static int add_inotify(void *target, const struct option_row *row, const char *path,
		       char why[OPTION_WHY_MAX])
{
	struct options *o = target;

	(void)row;
	if (check_path(path, why) < 0)
		return -EINVAL;
	if (o->probes.n_inotify_paths == PROBE_INOTIFY_PATHS_MAX) {
		snprintf(why, OPTION_WHY_MAX, "expected at most %u paths", PROBE_INOTIFY_PATHS_MAX);
		return -EINVAL;
	}
	o->probes.inotify_paths[o->probes.n_inotify_paths++] = path;
	return 0;
}

static int add_excluded(void *target, const struct option_row *row, const char *value,
			char why[OPTION_WHY_MAX])
{
	struct options *o = target;
	uint64_t pid;

	(void)row;
	if (parse_u64(value, 1, INT32_MAX, &pid) < 0) {
		snprintf(why, OPTION_WHY_MAX, "expected a whole number of 1..%d", INT32_MAX);
		return -EINVAL;
	}
	if (o->probes.n_excluded == PROBE_EXCLUDED_PIDS_MAX) {
		snprintf(why, OPTION_WHY_MAX, "expected at most %u pids", PROBE_EXCLUDED_PIDS_MAX);
		return -EINVAL;
	}
	o->probes.excluded[o->probes.n_excluded++] = (pid_t)pid;
	return 0;
}

static const char *const family_words[] = {
	[PROBE_PROCESS] = "process",
	[PROBE_NET] = "net",
	[PROBE_CAPABILITY] = "capability",
	[PROBE_FS] = "fs",
};

/* The name of this length, as this program spells it. */
static const char *known_source(enum probe_family family, const char *name, size_t len)
{
	if (len == strlen(SOURCE_ANY) && memcmp(name, SOURCE_ANY, len) == 0)
		return SOURCE_ANY;
	for (const struct probe_ops *const *p = probe_table; *p; p++)
		if ((*p)->family == family && strlen((*p)->via) == len &&
		    memcmp((*p)->via, name, len) == 0)
			return (*p)->via;
	return NULL;
}

/* FAMILY=SOURCE of this length. */
static int require_one(struct options *o, const char *item, size_t len)
{
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++) {
		const size_t word = strlen(family_words[f]);

		if (len <= word || memcmp(item, family_words[f], word) != 0 || item[word] != '=')
			continue;
		o->required[f] =
			known_source((enum probe_family)f, item + word + 1, len - word - 1);
		return o->required[f] ? 0 : -EINVAL;
	}
	return -EINVAL;
}

static int set_required(void *target, const struct option_row *row, const char *value,
			char why[OPTION_WHY_MAX])
{
	struct options *o = target;

	(void)row;
	memset(o->required, 0, sizeof(o->required));
	if (strcmp(value, "none") == 0)
		return 0;
	for (const char *at = value;; at++) {
		const size_t len = strcspn(at, ",");

		if (require_one(o, at, len) < 0) {
			snprintf(why, OPTION_WHY_MAX,
				 "expected FAMILY=SOURCE,... or none, not %.*s; FAMILY is process, "
				 "net, capability or fs, SOURCE is any or what --probe lists",
				 (int)MIN(len, (size_t)64), at);
			return -EINVAL;
		}
		at += len;
		if (!*at)
			return 0;
	}
}

#define SETS_FLAG(member)		 OPTION_SETS_FLAG(struct options, member)
#define SETS_NUMBER(member, least, most) OPTION_SETS_NUMBER(struct options, member, least, most)
#define SETS_SOURCE(family, list)	 OPTION_SETS_WORD(struct options, source[family], list)
#define SETS_FORM(value)		 OPTION_SETS_CONSTANT(struct options, form, value)

static const struct option_row rows[] = {
	{"connect", "ADDR", "vsock:CID:PORT or unix:PATH (default vsock:2:9001)",
	 OPTION_CALLS(set_address)},
	{"inotify", "PATH", "watch a file or directory; up to 64 times", OPTION_CALLS(add_inotify)},
	{"heartbeat", "MS", "period of heartbeats (default 3000)",
	 SETS_NUMBER(heartbeat_ms, 100, 60000)},
	{"queue", "N", "events the queue holds (default 8192)",
	 SETS_NUMBER(queue, EVENT_QUEUE_MIN, EVENT_QUEUE_MAX)},
	{"ready-timeout", "MS", "fail if not ready after this time (default 5000)",
	 SETS_NUMBER(ready_timeout_ms, 1, 3600000)},
	{"ready-fd", "FD", "write the agent's pid there when ready",
	 OPTION_SETS_INT(struct options, ready_fd, 0, 1 << 20)},
	{"pid-file", "PATH", "(default /run/cellos-telemetry/agent.pid)",
	 OPTION_CALLS(set_pid_file)},
	{"content-version", "1|2", "wire version to write (default 2)",
	 SETS_NUMBER(content_version, 1, 2)},
	{"process", "SOURCE", NULL,
	 SETS_SOURCE(PROBE_PROCESS, "auto, proc-connector, proc-walk, off")},
	{"net", "SOURCE", NULL, SETS_SOURCE(PROBE_NET, "auto, cgroup-bpf, audit, proc-net, off")},
	{"capability", "SOURCE", NULL,
	 SETS_SOURCE(PROBE_CAPABILITY, "auto, seccomp-notify, audit, off")},
	{"fs", "SOURCE", NULL, SETS_SOURCE(PROBE_FS, "auto, fanotify, inotify, off")},
	{"listener-socket", "PATH", "where the profile's launcher hands over its descriptor",
	 OPTION_CALLS(set_listener_socket)},
	{"poll", "MS", "period of the polling sources (default 100)",
	 SETS_NUMBER(probes.poll_ms, 10, 60000)},
	{"exclude-pid", "PID", "do not report it; up to 64 times", OPTION_CALLS(add_excluded)},
	{"lock-audit", NULL, "with an audit source: lock its rules until reboot",
	 SETS_FLAG(probes.lock_audit)},
	{"require", "LIST", "FAMILY=SOURCE,... that must be there, or none\n(default process=any)",
	 OPTION_CALLS(set_required)},
	{"args", "on|off", "arguments of executed programs (default on)",
	 OPTION_SETS_WORD(struct options, args, "on, off")},
	{"uid", "UID", "user and group that the agent takes (default 64042);\n0: none",
	 SETS_NUMBER(uid, 0, INT32_MAX)},
	{"keep-sysctls", NULL, "do not raise limits of the whole guest", SETS_FLAG(keep_sysctls)},
	{"allow-unprivileged", NULL, "start although not root; much is not seen then",
	 SETS_FLAG(allow_unprivileged)},
	{"probe", NULL, "print what each source can do on this kernel, then exit",
	 SETS_FORM(START_PROBE)},
	{"json", NULL, "with --probe: as JSON", SETS_FLAG(json)},
	{"no-wait", NULL, "the parent exits at once", SETS_FLAG(no_wait)},
	{"foreground", NULL, "do not fork", SETS_FORM(START_FOREGROUND)},
	{"log-level", "LEVEL", "emerg .. debug (default info)",
	 OPTION_SETS_LOG_LEVEL(struct options, log_level)},
	OPTION_ROW_VERSION,
	OPTION_ROW_HELP,
};

const char *options_family_name(enum probe_family family)
{
	static const char *const names[] = {
		[PROBE_PROCESS] = "--process",
		[PROBE_NET] = "--net",
		[PROBE_CAPABILITY] = "--capability",
		[PROBE_FS] = "--fs",
	};

	return names[family];
}

const char *options_family_word(enum probe_family family)
{
	return family_words[family];
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
		.pid_file = LISTENER_FOLDER "/agent.pid",
		.content_version = WIRE_VERSION_2,
		.args = "on",
		.uid = AGENT_UID_DEFAULT,
		.log_level = LOG_INFO,
	};
}

/* argv[at] is the first argument after the options, or after the -- that ended them. */
static int check_whole(const struct option_program *program, struct options *o, int at, int argc,
		       char **argv, bool dashes)
{
	const char *path = getenv("CELLOS_TELEMETRY_INOTIFY_PATH");
	char why[OPTION_WHY_MAX];

	if (at < argc && !dashes) {
		snprintf(why, sizeof(why),
			 "%.100s: unexpected argument; put -- before a command to become",
			 argv[at]);
		return option_usage_error(program, why);
	}
	if (dashes && at == argc)
		return option_usage_error(program, "--: expected a command after it");
	if (o->json && o->form != START_PROBE)
		return option_usage_error(program, "--json goes with --probe");
	if (dashes && o->form != START_FORK)
		return option_usage_error(program, "--foreground and --probe take no command");
	if (dashes) {
		o->form = START_COMMAND;
		o->command = argv + at;
	}
	/* Version 1 has no field for a change with its actor. */
	if (o->content_version < WIRE_VERSION_2 && strcmp(o->source[PROBE_FS], SOURCE_AUTO) == 0)
		o->source[PROBE_FS] = "inotify";
	if (o->probes.n_inotify_paths > 0 || !path || !*path ||
	    add_inotify(o, NULL, path, why) == 0)
		return 0;
	fprintf(stderr, PROGRAM ": CELLOS_TELEMETRY_INOTIFY_PATH=%s: %s\n", path, why);
	return -EINVAL;
}

int options_parse(int argc, char **argv, struct options *ret)
{
	static const char nothing_given[] = "";
	struct options o;
	const struct option_program program = {
		.name = PROGRAM,
		.before = "Usage: " PROGRAM " [OPTIONS]\n"
			  "       " PROGRAM " [OPTIONS] -- COMMAND [ARG...]\n"
			  "       " PROGRAM " --foreground [OPTIONS]\n"
			  "Declares what this guest's processes do to the host that runs it.\n",
		.after = "Exit status: 0 ready or orderly end, 2 fork failed, 3 not ready in time\n"
			 "or a required source is missing, 5 an agent runs already, 64 usage,\n"
			 "77 not root, 126 or 127 COMMAND cannot be run.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &o}},
		.command = true,
	};
	bool dashes;
	int at, r;

	set_defaults(&o);
	o.required[PROBE_PROCESS] = nothing_given;
	at = option_parse(&program, argc, argv, &dashes);
	if (at <= 0)
		return at < 0 ? at : 1;
	r = check_whole(&program, &o, at, argc, argv, dashes);
	if (r < 0)
		return r;
	/* The default of --require does not hold for a family that is switched off. */
	if (o.required[PROBE_PROCESS] == nothing_given)
		o.required[PROBE_PROCESS] =
			strcmp(o.source[PROBE_PROCESS], SOURCE_OFF) == 0 ? NULL : SOURCE_ANY;
	o.probes.no_args = strcmp(o.args, "off") == 0;
	*ret = o;
	return 0;
}
