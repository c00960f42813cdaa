/* SPDX-License-Identifier: MIT */
/*
 * serve: the daemon. Many cells, one evidence log, a control socket. SIGHUP reads the configuration
 * again; SIGTERM and SIGINT seal all streams and end it; whatever else ends it, the next start
 * serves the same cells again.
 */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/state.h"
#include "host-receiver/control/notify.h"
#include "host-receiver/serve.h"
#include "host-receiver/verbs.h"

#define STOP_WITHIN_MS 4500u /* 5 s are promised */

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

/* ---- the end ------------------------------------------------------------------------------------
 */

static void finish(struct daemon *d)
{
	if (d->finished)
		return;
	d->finished = true;
	control_server_free(take_ptr(d->control));
	/* It reads what the pipeline owns. */
	metrics_server_free(take_ptr(d->metrics));
	pipeline_free(take_ptr(d->pipeline));
	cell_host_close(&d->host);
	for (size_t i = 0; i < ARRAY_SIZE(d->signals); i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
	uv_close((uv_handle_t *)&d->second, NULL);
	uv_close((uv_handle_t *)&d->stop_timer, NULL);
}

static void on_stop_timer(uv_timer_t *timer)
{
	(void)timer;
	log_error("msg=\"the log does not take the rest of the evidence; not all is sealed\"");
	_exit(EXIT_FAILURE);
}

static void stop(struct daemon *d)
{
	struct cell *next;

	if (d->stopping)
		return;
	d->stopping = true;
	notify_manager("STOPPING=1");
	log_info("msg=\"stopping\" cells=%u", d->host.stats.cells);
	uv_timer_start(&d->stop_timer, on_stop_timer, STOP_WITHIN_MS, 0);
	for (struct cell *cell = d->host.cells; cell; cell = next) {
		next = cell->next;
		daemon_forget_cell(d, cell);
		cell_remove(cell, "shutdown");
	}
	pipeline_flush(d->pipeline);
	if (d->host.ending == 0 && pipeline_idle(d->pipeline))
		finish(d);
}

static void tell_sink(struct daemon *d, int error)
{
	if (error == d->sink_error)
		return;
	if (error < 0)
		log_error(
			"msg=\"cannot write evidence; trying again each second, nothing is lost\" "
			"dir=%s why=\"%s\"",
			d->config.evidence_dir, strerror(-error));
	else
		log_notice("msg=\"evidence is written again\" dir=%s", d->config.evidence_dir);
	d->sink_error = error;
}

static void on_progress(void *ctx, int error, bool fatal)
{
	struct daemon *d = ctx;

	(void)fatal;
	tell_sink(d, error);
	cell_host_progress(&d->host);
	if (d->stopping && d->host.ending == 0 && pipeline_idle(d->pipeline))
		finish(d);
}

/* ---- reload -------------------------------------------------------------------------------------
 */

static int open_signer(const struct config *config, struct signer **ret, char why[SIGN_WHY_MAX])
{
	/* What the file does not say is taken from the environment. */
	const struct signer_options options = {
		.algorithm = *config->sign_algorithm ? config->sign_algorithm : NULL,
		.kid = *config->sign_kid ? config->sign_kid : NULL,
		.key_file = *config->sign_key_file ? config->sign_key_file : NULL,
	};

	return signer_open(&options, ret, why);
}

static bool same_signing(const struct config *a, const struct config *b)
{
	return !*a->sign_algorithm && !*b->sign_algorithm;
}

/* Each of the errors as a line. */
static void log_errors(const struct config_errors *errors)
{
	const char *line = errors->text;

	while (line && *line) {
		const size_t len = strcspn(line, "\n");

		log_error("msg=\"configuration refused\" why=\"%.*s\"", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static bool refuse_reload(const struct config *wanted, const struct daemon *d)
{
	const char *section, *name;

	if (config_needs_restart(&d->config, wanted, &section, &name)) {
		log_error("msg=\"configuration refused; the old one stays\" "
			  "why=\"%s: [%s] %s can only change with a restart\"",
			  d->config_path, section, name);
		return true;
	}
	return false;
}

/* NULL with "off". */
static int open_metrics(struct daemon *d, const char *listen, struct metrics_server **ret)
{
	char why[METRICS_WHY_MAX];

	*ret = NULL;
	if (strcmp(listen, "off") == 0 ||
	    metrics_server_new(listen, pipeline_stats(d->pipeline), d->log, ret, why) == 0)
		return 0;
	log_error("msg=\"cannot serve metrics\" why=\"%s\"", why);
	return -EADDRINUSE;
}

/* All is checked, and whatever can fail is done, before anything changes. */
static bool reload(struct daemon *d)
{
	struct config_errors errors;
	struct evidence_limits limits;
	struct metrics_server *metrics = NULL;
	struct signer *signer = NULL;
	struct config wanted;
	bool new_metrics;
	char why[SIGN_WHY_MAX] = "no memory";
	bool ok = config_read(d->config_path, &wanted, &errors) == 0;

	if (!ok)
		log_errors(&errors);
	config_errors_free(&errors);
	ok = ok && !refuse_reload(&wanted, d);
	/* The environment's key was wiped at the start: with it the signer stays. */
	if (ok && !same_signing(&d->config, &wanted) && open_signer(&wanted, &signer, why) < 0) {
		log_error("msg=\"configuration refused; the old one stays\" why=\"%s\"", why);
		ok = false;
	}
	new_metrics = ok && strcmp(d->config.metrics_listen, wanted.metrics_listen) != 0;
	if (new_metrics && open_metrics(d, wanted.metrics_listen, &metrics) < 0)
		ok = false;
	if (!ok && signer)
		signer_free(signer);
	if (ok && signer && pipeline_set_signer(d->pipeline, signer) < 0)
		ok = false;
	if (!ok) {
		metrics_server_free(metrics);
		config_free(&wanted);
		return false;
	}
	if (new_metrics) {
		metrics_server_free(d->metrics);
		d->metrics = metrics;
	}
	config_limits(&wanted, &limits);
	evidence_log_set_limits(d->log, &limits);
	d->host.checkpoint_ms = (unsigned)wanted.checkpoint_ms;
	config_free(&d->config);
	d->config = wanted;
	log_notice("msg=\"configuration applied\" config=%s", d->config_path);
	return true;
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;
	char state[128];

	if (number != SIGHUP) {
		stop(d);
		return;
	}
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 monotonic_ns() / NSEC_PER_USEC);
	notify_manager(state);
	reload(d);
	notify_manager("READY=1");
}

/* ---- the beginning ------------------------------------------------------------------------------
 */

static void on_second(uv_timer_t *timer)
{
	struct daemon *d = timer->data;
	const uint64_t now_ns = monotonic_ns();

	if (d->finished)
		return;
	d->host.stats.probes_stuck = probe_host_stuck(d->host.probes);
	metrics_server_publish(d->metrics, &d->host.stats);
	tell_sink(d, pipeline_stats(d->pipeline)->sink_error);
	if (d->watchdog_ms == 0 || now_ns < d->watchdog_due_ns)
		return;
	notify_manager("WATCHDOG=1");
	d->watchdog_due_ns = now_ns + d->watchdog_ms * NSEC_PER_MSEC / 2;
}

static int open_state(struct daemon *d)
{
	_cleanup_close_ int fd = open(d->config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		log_error("msg=\"cannot open state_dir\" dir=%s why=\"%s\"", d->config.state_dir,
			  strerror(errno));
		return EX_CANTCREAT;
	}
	if ((mkdirat(fd, "cells", 0700) < 0 && errno != EEXIST) ||
	    (d->state_fd = openat(fd, "cells", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) <
		    0) {
		log_error("msg=\"cannot open the folder of cells\" dir=%s/cells why=\"%s\"",
			  d->config.state_dir, strerror(errno));
		return EX_CANTCREAT;
	}
	if (flock(d->state_fd, LOCK_EX | LOCK_NB) == 0)
		return EX_OK;
	log_error("msg=\"another daemon serves these cells\" dir=%s/cells", d->config.state_dir);
	return EX_CANTCREAT;
}

static int open_log(struct daemon *d)
{
	struct evidence_limits limits;
	struct evidence_repair repair;
	char why[EVIDENCE_WHY_MAX];

	config_limits(&d->config, &limits);
	if (evidence_log_open(d->config.evidence_dir, &limits, UINT64_MAX, &d->log, &repair, why) <
	    0) {
		log_error("msg=\"cannot open the evidence log\" why=\"%s\"", why);
		return EX_CANTCREAT;
	}
	if (repair.bytes > 0)
		log_warning("msg=\"a torn line was moved aside; no whole record is lost\" "
			    "segment=%" PRIu64 " bytes=%" PRIu64 " suffix=" EVIDENCE_TORN_SUFFIX,
			    repair.segment, repair.bytes);
	return EX_OK;
}

static int start_pipeline(struct daemon *d)
{
	struct pipeline_options options = {
		.max_inflight = d->config.max_inflight,
		.on_progress = on_progress,
		.ctx = d,
	};
	char why[SIGN_WHY_MAX] = "no memory";
	int status;

	if (open_signer(&d->config, &options.signer, why) < 0) {
		log_error("msg=\"signing is not configured\" config=%s why=\"%s\"", d->config_path,
			  why);
		return EX_CONFIG;
	}
	status = open_log(d);
	if (status != EX_OK) {
		signer_free(options.signer);
		return status;
	}
	options.sink = evidence_log_sink(d->log);
	if (pipeline_new(&d->loop, &options, &d->pipeline) < 0 ||
	    cell_host_init(&d->host, &d->loop, d->pipeline, (unsigned)d->config.checkpoint_ms) <
		    0) {
		log_error("msg=\"no memory\"");
		return EX_OSERR;
	}
	return EX_OK;
}

/* A cell of before: its socket again, a new stream that names the last. */
static void readopt(void *ctx, const char *file, const json_t *options,
		    const uint8_t stream_id[UUID_SIZE], const char *problem)
{
	struct daemon *d = ctx;
	struct cell_options o;
	struct cell *cell;
	char why[CELL_WHY_MAX] = "no memory";
	int r = -EINVAL;

	if (problem) {
		log_error("msg=\"a cell's file cannot be understood; left alone\" "
			  "file=%s/cells/%s why=\"%s\"",
			  d->config.state_dir, file, problem);
		return;
	}
	daemon_cell_defaults(d, &o);
	if (cell_options_from_json(&o, options, why) == 0)
		r = cell_add(&d->host, &o, true, stream_id, &cell, why);
	if (r < 0) {
		log_error("msg=\"cannot serve a cell again; its file stays\" file=%s/cells/%s "
			  "why=\"%s\"",
			  d->config.state_dir, file, why);
		return;
	}
	if (!daemon_index_cell(d, cell))
		abort();
	r = cell_state_stage(d->state_fd, o.cell_id, options, cell->stream->stream_id);
	if (r < 0)
		log_error("msg=\"cannot remember a cell's new stream\" cell=%s why=\"%s\"",
			  o.cell_id, strerror(-r));
}

static int readopt_all(struct daemon *d)
{
	int r = cell_state_each(d->state_fd, readopt, d);

	if (r < 0) {
		log_error("msg=\"cannot list the cells\" dir=%s/cells why=\"%s\"",
			  d->config.state_dir, strerror(-r));
		return EXIT_FAILURE;
	}
	if (d->host.stats.cells == 0)
		return EX_OK;
	r = cell_state_sync(d->state_fd);
	for (struct cell *cell = d->host.cells; cell && r == 0; cell = cell->next) {
		r = cell_state_publish(d->state_fd, cell->options.cell_id);
		/* Told when it could not be staged. */
		if (r == -ENOENT)
			r = 0;
	}
	if (r == 0)
		r = cell_state_sync(d->state_fd);
	if (r < 0)
		log_error("msg=\"cannot remember the cells' new streams\" why=\"%s\"",
			  strerror(-r));
	log_notice("msg=\"serving the cells of before\" cells=%u", d->host.stats.cells);
	return EX_OK;
}

static int start_control(struct daemon *d)
{
	const struct control_server_options options = {
		.path = d->config.control_socket,
		.group = d->config.control_group,
		.handle = daemon_answer,
		.ctx = d,
	};
	char why[CONTROL_WHY_MAX];

	if (control_server_new(&d->loop, &options, &d->control, why) == 0)
		return EX_OK;
	log_error("msg=\"cannot open the control socket\" why=\"%s\"", why);
	return EX_CANTCREAT;
}

/* A cell needs a descriptor for its socket, one for the folder and one for its connection. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int start(struct daemon *d)
{
	int status = open_state(d);

	if (status == EX_OK)
		status = start_pipeline(d);
	if (status == EX_OK)
		status = readopt_all(d);
	if (status == EX_OK)
		status = open_metrics(d, d->config.metrics_listen, &d->metrics) < 0 ? EX_CANTCREAT
										    : EX_OK;
	if (status == EX_OK)
		status = start_control(d);
	return status;
}

static int run(struct daemon *d)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	d->state_fd = -1;
	d->started_ns = monotonic_ns();
	d->watchdog_ms = notify_watchdog_ms();
	uv_loop_init(&d->loop);
	for (size_t i = 0; i < ARRAY_SIZE(d->signals); i++) {
		uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
		uv_signal_start(&d->signals[i], on_signal, numbers[i]);
	}
	uv_timer_init(&d->loop, &d->second);
	uv_timer_init(&d->loop, &d->stop_timer);
	d->second.data = d->stop_timer.data = d;
	d->status = start(d);
	if (d->status == EX_OK) {
		uv_timer_start(&d->second, on_second, 0, 1000);
		notify_manager("READY=1");
		log_notice("msg=\"ready\" control=%s cells=%u", d->config.control_socket,
			   d->host.stats.cells);
	} else if (d->pipeline) {
		stop(d);
	} else {
		finish(d);
	}
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
	cell_host_done(&d->host);
	close_fd(d->state_fd);
	config_free(&d->config);
	return d->status;
}

/* Returns EX_OK, EX_USAGE after a message, or -1 when --help was answered. */
static int parse(struct daemon *d, int argc, char **argv)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"log-level", required_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int id, level;

	d->config_path = CONFIG_FILE_DEFAULT;
	optind = 1;
	while ((id = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (id) {
		case 'c': d->config_path = optarg; break;
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
	struct config_errors errors;
	struct daemon d = {0};
	int status = parse(&d, argc, argv);

	if (status != EX_OK)
		return status < 0 ? EX_OK : status;
	signal(SIGPIPE, SIG_IGN);
	raise_limits();
	if (config_read(d.config_path, &d.config, &errors) < 0) {
		log_errors(&errors);
		config_errors_free(&errors);
		config_free(&d.config);
		return EX_CONFIG;
	}
	config_errors_free(&errors);
	return run(&d);
}
