/* SPDX-License-Identifier: MIT */
/*
 * receive: serves one cell without a configuration and writes its evidence to standard output. It
 * ends on SIGTERM or SIGINT, or with --once when the first connection has ended. It always seals
 * the stream.
 *
 * It is `serve` for one cell: the same registry, pipeline and life cycle (lifecycle.h), but without
 * a control socket, metrics and a folder of evidence.
 */
#include <signal.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/options.h"
#include "host-receiver/cell/registry.h"
#include "host-receiver/daemon/lifecycle.h"
#include "host-receiver/pipeline/stdout_sink.h"
#include "host-receiver/privilege/receiver.h"
#include "host-receiver/privilege/hidden.h"
#include "host-receiver/sign/keeper.h"
#include "host-receiver/verbs/verbs.h"

#define STOP_WITHIN_MS 5000u

struct receive {
	struct cell_options options;
	struct signing_options signing;
	unsigned checkpoint_ms;
	int log_level;
	bool once, allow_unlocked;

	struct lifecycle life;
	struct pipeline *pipeline;
	struct sign_client *client;
	struct log_stream *log_stream; /* NULL: a mode without a tree */
	struct cell_registry registry;
	struct cell *cell;
	bool fatal; /* the reader of standard output has closed it */
	int status;
};

static const struct option_row rows[] = {
	{"once", NULL, "end when the first connection ended",
	 OPTION_SETS_FLAG(struct receive, once)},
	{"checkpoint", "MS", "period of checkpoints (default 60000)",
	 OPTION_SETS_NUMBER(struct receive, checkpoint_ms, 100, 86400000)},
	{"sign-alg", "ALG", "off, ed25519-log, ed25519 or hmac-sha256",
	 OPTION_SETS_TEXT(struct receive, signing.algorithm)},
	{"sign-kid", "KID", "name of the key in the evidence",
	 OPTION_SETS_TEXT(struct receive, signing.kid)},
	{"sign-key-file", "FILE", "base64url of the key, mode 0600",
	 OPTION_SETS_TEXT(struct receive, signing.key_file)},
	{"allow-unlocked", NULL, "use a key that cannot be locked in memory",
	 OPTION_SETS_FLAG(struct receive, allow_unlocked)},
	{"log-level", "LEVEL", "emerg .. debug (default info)",
	 OPTION_SETS_LOG_LEVEL(struct receive, log_level)},
	OPTION_ROW_HELP,
};

/* Returns EX_OK, EX_USAGE after a message, or -1 if --help was answered. */
static int parse(struct receive *r, int argc, char **argv)
{
	const struct option_program program = {
		.name = "receive",
		.before =
			"Usage: cellos-host-telemetry receive --uds BASE --cell-id ID --run-id RUN "
			"--spec-hash HASH [OPTIONS]\n"
			"Serves one cell at the Unix socket BASE_9001. Evidence goes to standard "
			"output, a JSON\nline an event; logs go to standard error.\n",
		.after = "Without the signing options the environment is used: "
			 "CELLOS_HOST_TELEMETRY_SIGN_ALG,\n"
			 "..._SIGN_KID, ..._SIGN_ED25519_KEY, ..._SIGN_HMAC_KEY.\n\n"
			 "Exit status: 0 sealed and written; 1 evidence could not be written; 64 "
			 "usage;\n73 the socket cannot be made; 77 not permitted; 78 signing "
			 "configuration.\n",
		.groups = {{NULL, cell_option_rows, CELL_OPTION_ROWS, &r->options},
			   {NULL, rows, ARRAY_SIZE(rows), r}},
	};
	char why[CELL_WHY_MAX];
	int at;

	cell_options_defaults(&r->options);
	r->checkpoint_ms = CELL_CHECKPOINT_DEFAULT_MS;
	r->log_level = LOG_INFO;
	at = option_parse(&program, argc, argv, NULL);
	if (at <= 0)
		return at < 0 ? EX_USAGE : -1;
	if (cell_options_check(&r->options, why) < 0 || cell_options_look(&r->options, why) < 0) {
		option_usage_error(&program, why);
		return EX_USAGE;
	}
	return EX_OK;
}

/* ---- the end ---- */

static bool is_done(void *ctx)
{
	struct receive *r = ctx;

	if (!r->pipeline)
		return true;
	/* Without a reader nothing can be committed, so it only waits for the probes. */
	if (r->registry.ending > 0 || r->fatal)
		return r->registry.ending == 0;
	if (!pipeline_idle(r->pipeline))
		return false;
	if (!r->log_stream || log_stream_closed(r->log_stream))
		return true;
	/* The last record of all. */
	log_stream_close(r->log_stream, 1);
	pipeline_flush(r->pipeline);
	return false;
}

static void finish(void *ctx)
{
	struct receive *r = ctx;

	pipeline_free(take_ptr(r->pipeline));
	log_stream_free(take_ptr(r->log_stream));
	cell_registry_close(&r->registry);
}

/* The reader of standard output does not read: the rest of the evidence cannot be written. */
static void on_overdue(void *ctx)
{
	struct receive *r = ctx;

	log_error(
		"msg=\"standard output does not take the rest of the evidence; it is not sealed\" "
		"cell=%s",
		r->options.cell_id);
	_exit(EXIT_FAILURE);
}

static void stop(struct receive *r, const char *reason)
{
	if (r->life.stopping)
		return;
	lifecycle_stop(&r->life, STOP_WITHIN_MS);
	if (r->cell)
		cell_remove(take_ptr(r->cell), reason);
}

static void on_progress(void *ctx, int error, bool fatal)
{
	struct receive *r = ctx;

	if (fatal) {
		log_error("msg=\"nobody reads the evidence any more\" cell=%s errno=%d",
			  r->options.cell_id, -error);
		r->status = EXIT_FAILURE;
		r->fatal = true;
		stop(r, "shutdown");
		return;
	}
	if (error < 0)
		log_error(
			"msg=\"cannot write evidence; trying again each second, nothing is lost\" "
			"cell=%s why=\"%s\"",
			r->options.cell_id, strerror(-error));
	cell_registry_progress(&r->registry);
}

static void on_durable(void *ctx, struct pipeline_account *account)
{
	(void)ctx;
	cell_durable(account);
}

static void on_full(void *ctx)
{
	struct receive *r = ctx;

	cell_registry_full(&r->registry);
}

static void on_signal(void *ctx, int number)
{
	(void)number;
	stop(ctx, "shutdown");
}

static const struct lifecycle_ops life_ops = {
	.on_signal = on_signal,
	.is_done = is_done,
	.finish = finish,
	.on_overdue = on_overdue,
};

static void on_connection_ended(void *ctx)
{
	struct receive *r = ctx;

	if (r->once)
		stop(r, "once");
}

/* ---- the beginning ---- */

static int start_cell(struct receive *r)
{
	char why[CELL_WHY_MAX] = "no memory";
	uint8_t stream_id[UUID_SIZE];
	int error;

	stream_id_generate(stream_id);
	error = cell_add(&r->registry, &r->options, false, stream_id, NULL, &r->cell, why);

	if (error < 0) {
		log_error("msg=\"cannot serve the cell\" cell=%s why=\"%s\"", r->options.cell_id,
			  why);
		return error == -EPERM || error == -EACCES ? EX_NOPERM : EX_CANTCREAT;
	}
	r->cell->on_connection_ended = on_connection_ended;
	r->cell->ctx = r;
	log_info("msg=\"listening\" cell=%s socket=%s_%u", r->options.cell_id, r->options.uds_base,
		 WIRE_VSOCK_PORT);
	return EX_OK;
}

static int start_log(struct log_start *start, struct signer *signer)
{
	char hostname[256] = "localhost", prefix[LOG_PREFIX_MAX + 1];

	gethostname(hostname, sizeof(hostname) - 1);
	log_origin_prefix("", hostname, prefix);
	return log_start_alone(signer, prefix, start);
}

/* The log lives as long as the process. Without a tree it has no name. */
static int start_log_stream(struct receive *r, const struct log_start *start)
{
	const struct log_stream_options options = {
		.pipeline = r->pipeline,
		.hostname = r->registry.hostname,
		.boot_id = r->registry.boot_id,
	};

	if (!*start->origin)
		return EX_OK;
	r->log_stream = log_stream_new(&options, start);
	r->registry.log_stream = r->log_stream;
	if (!r->log_stream)
		log_error("msg=\"no memory\"");
	return r->log_stream ? EX_OK : EX_OSERR;
}

static int start_pipeline(struct receive *r, struct signer *signer)
{
	struct log_start start;
	const struct pipeline_options options = {
		.signer = signer,
		.sink = stdout_sink_new(STDOUT_FILENO),
		.on_progress = on_progress,
		.on_full = on_full,
		.on_durable = on_durable,
		.ctx = r,
	};

	r->registry.log_stream = NULL;
	if (!options.sink || start_log(&start, signer) < 0 ||
	    pipeline_new(&r->life.loop, &options, &r->pipeline) < 0 ||
	    cell_registry_init(&r->registry, &r->life.loop, r->pipeline, r->checkpoint_ms) < 0) {
		log_error("msg=\"no memory\"");
		return EX_OSERR;
	}
	r->registry.spare.report = lifecycle_report_shortage;
	r->registry.parent = r->client;
	return start_log_stream(r, &start);
}

static int run(struct receive *r, struct signer *signer)
{
	static const int signals[] = {SIGTERM, SIGINT};
	int error = lifecycle_init(&r->life, &life_ops, signals, ARRAY_SIZE(signals), r);

	if (error < 0) {
		log_error("msg=\"cannot start the event loop\" cell=%s why=\"%s\"",
			  r->options.cell_id, strerror(-error));
		signer_free(signer);
		return EX_OSERR;
	}
	r->status = start_pipeline(r, signer);
	if (r->status == EX_OK)
		r->status = start_cell(r);
	if (r->status == EX_OK && receiver_limit_calls() < 0) {
		log_error("msg=\"cannot limit the system calls\"");
		r->status = EX_OSERR;
	}
	if (r->status != EX_OK)
		stop(r, "shutdown");
	lifecycle_run(&r->life);
	cell_registry_done(&r->registry);
	sign_client_free(r->client);
	return r->status;
}

static void on_signer_lost(const char *why)
{
	log_line(LOG_CRIT, "msg=\"nothing can be signed any more\" why=\"%s\"", why);
	_exit(EX_OSERR);
}

/* The signer keeps no state on disk, because this log ends with the process. */
static int start_client(struct receive *r, int keeper_fd, pid_t keeper_pid)
{
	const long processors = sysconf(_SC_NPROCESSORS_ONLN);
	const struct sign_client_options options = {
		.keeper_fd = keeper_fd,
		.keeper_pid = keeper_pid,
		.state = "",
		.channels = 1 + (unsigned)MAX(processors, 1L),
		.allow_unlocked = r->allow_unlocked,
		.on_lost = on_signer_lost,
	};

	return sign_client_new(&options, &r->client);
}

int cmd_receive(int argc, char **argv)
{
	struct receive r = {0};
	char why[SIGN_WHY_MAX] = "no memory";
	struct signer *signer;
	int status = parse(&r, argc, argv), keeper_fd;
	const struct keeper_options keeper = {0};
	pid_t keeper_pid;
	bool landlock;

	if (status != EX_OK)
		return status < 0 ? EX_OK : status;
	/* Do this first: all later code runs in a process without a key. */
	if (keeper_start(&keeper, &keeper_fd, &keeper_pid) < 0) {
		log_error("msg=\"cannot start the signer's parent\"");
		return EX_OSERR;
	}
	if (receiver_give_up(&keeper.users) < 0) {
		log_error("msg=\"cannot give up privileges\"");
		return EX_OSERR;
	}
	landlock = hidden_enter(NULL, 0);
	log_set_level(r.log_level);
	signal(SIGPIPE, SIG_IGN);
	if (start_client(&r, keeper_fd, keeper_pid) < 0 ||
	    signer_open(r.client, &r.signing, &signer, why) < 0) {
		log_error("msg=\"signing is not configured\" cell=%s why=\"%s\"", r.options.cell_id,
			  why);
		sign_client_free(r.client);
		return EX_CONFIG;
	}
	if (signer_algorithm(signer) == SIGN_OFF)
		log_warning("msg=\"evidence is not signed: whoever can write it can change it; "
			    "keygen and --sign-alg ed25519-log sign it\" cell=%s",
			    r.options.cell_id);
	else
		log_warning("msg=\"receiver and signer are the same user\" uid=%u landlock=%s "
			    "why=\"whoever takes the receiver over could read the key file; serve "
			    "has --user and --signer-user\"",
			    (unsigned)geteuid(), landlock ? "yes" : "no");
	return run(&r, signer);
}
