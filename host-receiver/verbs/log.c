/* SPDX-License-Identifier: MIT */
/*
 * log: an operator's decisions about the evidence log. acknowledge ends the alarm of the running
 * daemon, over its control socket. new writes a file with the operator's reason into state_dir; the
 * daemon's next start then begins a new log without an alarm.
 */
#include <fcntl.h>
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/client.h"
#include "host-receiver/daemon/daemon.h"
#include "host-receiver/evidence/durable.h"
#include "host-receiver/verbs/shared.h"
#include "host-receiver/verbs/verbs.h"

#define REASON_MAX 200u

struct log_options {
	const char *socket_path, *config_path, *reason;
};

static const char before[] =
	"Usage: cellos-host-telemetry log acknowledge [--config FILE]\n"
	"       cellos-host-telemetry log new --reason TEXT [--config FILE]\n"
	"acknowledge: the alarm of the evidence log was seen; a signed entry says by whom.\n"
	"new: the daemon's next start begins a new log without an alarm, for moves and restores.\n";
static const char after[] =
	"Exit status: 0; 1 failed, or no alarm stands; 64 usage; 69 the daemon is not reachable;\n"
	"77 not permitted; 78 configuration.\n";

static const struct option_row rows[] = {
	{"reason", "TEXT", "new: why, at most 200 bytes",
	 OPTION_SETS_TEXT(struct log_options, reason)},
	{"config", "FILE", "of the daemon (default " CONFIG_FILE_DEFAULT ")",
	 OPTION_SETS_TEXT(struct log_options, config_path)},
	{"control", "SOCKET", "the daemon's socket, whatever a configuration says",
	 OPTION_SETS_TEXT(struct log_options, socket_path)},
	OPTION_ROW_HELP,
};

static int acknowledge(const struct log_options *o, struct config *config)
{
	json_t *request = json_pack("{s:s}", "verb", "acknowledge"), *answer = NULL;
	const char *socket_path;
	int status = shared_find_socket(o->socket_path, o->config_path, config, &socket_path);

	if (status == EX_OK)
		status = control_ask("log", socket_path, request, &answer);
	json_decref(answer);
	json_decref(request);
	return status;
}

static int plan_new(const struct log_options *o, struct config *config)
{
	const int status = shared_read_config(o->config_path, config);
	_cleanup_close_ int fd = -1;
	int r;

	if (status != EX_OK)
		return status;
	fd = open(config->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? -errno : 0;
	if (r == 0)
		/*
		 * Mode 0644, because the receiver's user must read the file that root may write.
		 * The folder is closed to others.
		 */
		r = durable_write(fd, DAEMON_PLAN_FILE, o->reason, strlen(o->reason), 0644);
	if (r < 0) {
		fprintf(stderr, "log: %s/" DAEMON_PLAN_FILE ": %s\n", config->state_dir,
			strerror(-r));
		return r == -EACCES || r == -EPERM ? EX_NOPERM : EXIT_FAILURE;
	}
	puts("The daemon's next start begins a new log.");
	return EX_OK;
}

/* The action is missing or unknown. */
static int refuse(const struct option_program *program, const char *what)
{
	struct option_guess guess = {.typed = what, .len = strlen(what)};

	option_guess_try(&guess, "acknowledge");
	option_guess_try(&guess, "new");
	if (*what && *what != '-')
		option_no_such_verb("log", &guess);
	else
		option_usage_error(program, "expected acknowledge or new");
	return EX_USAGE;
}

int cmd_log(int argc, char **argv)
{
	struct log_options o = {0};
	const struct option_program program = {
		.name = "log",
		.before = before,
		.after = after,
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &o}},
	};
	struct config config = {0};
	const char *what = argc > 1 ? argv[1] : "";
	const bool is_new = strcmp(what, "new") == 0;
	int at = 1, status = EX_OK;

	if (*what && *what != '-') {
		argc--;
		argv++;
	}
	at = option_parse(&program, argc, argv, NULL);
	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	if (!is_new && strcmp(what, "acknowledge") != 0)
		return refuse(&program, what);
	if (is_new && (!o.reason || !*o.reason || strlen(o.reason) > REASON_MAX)) {
		option_usage_error(&program, "new: expected --reason TEXT of 1..200 bytes");
		return EX_USAGE;
	}
	if (!is_new)
		status = acknowledge(&o, &config);
	else
		status = plan_new(&o, &config);
	config_free(&config);
	return status;
}
