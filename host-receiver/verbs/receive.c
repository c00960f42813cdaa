/* SPDX-License-Identifier: MIT */
/*
 * receive: one cell, no configuration, evidence on standard output. Ends on SIGTERM or SIGINT, or
 * with --once when the first connection ended; the stream is always sealed.
 */
#include <getopt.h>
#include <signal.h>
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/cell.h"
#include "host-receiver/daemon/lifecycle.h"
#include "host-receiver/pipeline/stdout_sink.h"
#include "host-receiver/verbs/verbs.h"

#define STOP_WITHIN_MS 5000u

enum option_id {
	OPT_ONCE = 256,
	OPT_CHECKPOINT,
	OPT_SIGN_ALG,
	OPT_SIGN_KID,
	OPT_SIGN_KEY_FILE,
	OPT_LOG_LEVEL,
	OPT_HELP,
	OPT_CELL, /* the cell options follow, in their order */
};

struct receive {
	struct cell_options options;
	struct signer_options signing;
	unsigned checkpoint_ms;
	int log_level;
	bool once;

	struct lifecycle life;
	struct pipeline *pipeline;
	struct cell_host host;
	struct cell *cell;
	bool fatal; /* nobody reads the evidence any more */
	int status;
};

static void print_help(void)
{
	printf("Usage: cellos-host-telemetry receive --uds BASE --cell-id ID --run-id RUN "
	       "--spec-hash HASH [OPTIONS]\n"
	       "Serves one cell at the Unix socket BASE_9001. Evidence goes to standard output, a JSON\n"
	       "line an event; logs go to standard error.\n\n%s"
	       "  --once                 end when the first connection ended\n"
	       "  --checkpoint MS        period of checkpoints (default 60000)\n"
	       "  --sign-alg ALG         off, ed25519 or hmac-sha256\n"
	       "  --sign-kid KID         name of the key in the evidence\n"
	       "  --sign-key-file FILE   base64url of the key, mode 0600\n"
	       "  --log-level LEVEL      emerg .. debug (default info)\n\n"
	       "Without the signing options the environment is used: CELLOS_HOST_TELEMETRY_SIGN_ALG,\n"
	       "..._SIGN_KID, ..._SIGN_ED25519_KEY, ..._SIGN_HMAC_KEY.\n\n"
	       "Exit status: 0 sealed and written; 1 evidence could not be written; 64 usage;\n"
	       "73 the socket cannot be made; 77 not permitted; 78 signing configuration.\n",
	       cell_options_help);
}

static int usage(const char *why)
{
	fprintf(stderr, "receive: %s; --help says how it is used\n", why);
	return EX_USAGE;
}

static size_t fill_options(struct option *longs, size_t size)
{
	static const struct option own[] = {
		{"once", no_argument, NULL, OPT_ONCE},
		{"checkpoint", required_argument, NULL, OPT_CHECKPOINT},
		{"sign-alg", required_argument, NULL, OPT_SIGN_ALG},
		{"sign-kid", required_argument, NULL, OPT_SIGN_KID},
		{"sign-key-file", required_argument, NULL, OPT_SIGN_KEY_FILE},
		{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
		{"help", no_argument, NULL, OPT_HELP},
	};
	size_t n = 0;

	memset(longs, 0, size * sizeof(*longs));
	for (; n < ARRAY_SIZE(own); n++)
		longs[n] = own[n];
	for (size_t i = 0; cell_option_names[i] && n + 1 < size; i++)
		longs[n++] = (struct option){
			.name = cell_option_names[i],
			.has_arg = required_argument,
			.val = OPT_CELL + (int)i,
		};
	return n;
}

/* Returns EX_OK, EX_USAGE after a message, or -1 when --help was answered. */
static int parse(struct receive *r, int argc, char **argv)
{
	struct option longs[64];
	char why[CELL_WHY_MAX];
	uint64_t checkpoint_ms;
	int id;

	cell_options_defaults(&r->options);
	r->checkpoint_ms = CELL_CHECKPOINT_DEFAULT_MS;
	r->log_level = LOG_INFO;
	fill_options(longs, ARRAY_SIZE(longs));
	opterr = 0;
	optind = 1;
	while ((id = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		switch (id) {
		case OPT_ONCE: r->once = true; break;
		case OPT_SIGN_ALG: r->signing.algorithm = optarg; break;
		case OPT_SIGN_KID: r->signing.kid = optarg; break;
		case OPT_SIGN_KEY_FILE: r->signing.key_file = optarg; break;
		case OPT_HELP: print_help(); return -1;
		case OPT_CHECKPOINT:
			if (parse_u64(optarg, 100, 86400000, &checkpoint_ms) < 0)
				return usage("--checkpoint: expected a whole number of "
					     "100..86400000");
			r->checkpoint_ms = (unsigned)checkpoint_ms;
			break;
		case OPT_LOG_LEVEL:
			r->log_level = log_level_from_string(optarg);
			if (r->log_level < 0)
				return usage("--log-level: expected emerg .. debug or 0..7");
			break;
		case ':':
			snprintf(why, sizeof(why), "%.100s: expected a value behind it",
				 argv[optind - 1]);
			return usage(why);
		case '?':
			snprintf(why, sizeof(why), "%.100s: no such option", argv[optind - 1]);
			return usage(why);
		default:
			if (cell_options_set(&r->options, cell_option_names[id - OPT_CELL], optarg,
					     why) < 0)
				return usage(why);
			break;
		}
	}
	if (optind < argc) {
		snprintf(why, sizeof(why), "%.100s: unexpected argument", argv[optind]);
		return usage(why);
	}
	if (cell_options_check(&r->options, why) < 0 || cell_options_look(&r->options, why) < 0)
		return usage(why);
	return EX_OK;
}

/* ---- the end ---- */

static bool is_done(void *ctx)
{
	const struct receive *r = ctx;

	if (!r->pipeline)
		return true;
	/* Without a reader nothing can be committed: then only the probes' end is waited for. */
	return r->host.ending == 0 && (r->fatal || pipeline_idle(r->pipeline));
}

static void finish(void *ctx)
{
	struct receive *r = ctx;

	pipeline_free(take_ptr(r->pipeline));
	cell_host_close(&r->host);
}

/* The reader of our output has stalled: the rest of the evidence cannot be written. */
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
	cell_host_progress(&r->host);
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

	cell_stream_id(stream_id);
	error = cell_add(&r->host, &r->options, false, stream_id, NULL, &r->cell, why);

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

static int start_pipeline(struct receive *r, struct signer *signer)
{
	const struct pipeline_options options = {
		.signer = signer,
		.sink = stdout_sink_new(STDOUT_FILENO),
		.on_progress = on_progress,
		.ctx = r,
	};

	if (!options.sink || pipeline_new(&r->life.loop, &options, &r->pipeline) < 0 ||
	    cell_host_init(&r->host, &r->life.loop, r->pipeline, r->checkpoint_ms) < 0) {
		log_error("msg=\"no memory\"");
		return EX_OSERR;
	}
	r->host.spare.report = lifecycle_report_shortage;
	return EX_OK;
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
	if (r->status != EX_OK)
		stop(r, "shutdown");
	lifecycle_run(&r->life);
	cell_host_done(&r->host);
	return r->status;
}

int cmd_receive(int argc, char **argv)
{
	struct receive r = {0};
	char why[SIGN_WHY_MAX] = "no memory";
	struct signer *signer;
	int status = parse(&r, argc, argv);

	if (status != EX_OK)
		return status < 0 ? EX_OK : status;
	log_set_level(r.log_level);
	signal(SIGPIPE, SIG_IGN);
	if (signer_open(&r.signing, &signer, why) < 0) {
		log_error("msg=\"signing is not configured\" cell=%s why=\"%s\"", r.options.cell_id,
			  why);
		return EX_CONFIG;
	}
	return run(&r, signer);
}
