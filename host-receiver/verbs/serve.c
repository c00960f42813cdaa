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
#include "host-receiver/control/notify.h"
#include "host-receiver/daemon/daemon.h"
#include "host-receiver/verbs/verbs.h"

#define STOP_WITHIN_MS 4500u /* 5 s are promised */
#define STOP_DRAIN_MS  1000u /* of which so many for reading what has arrived */

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
	int r;

	if (d->finished)
		return;
	d->finished = true;
	control_server_free(take_ptr(d->control));
	/* It reads what the pipeline owns. */
	metrics_server_free(take_ptr(d->metrics));
	r = pipeline_free(take_ptr(d->pipeline));
	if (r < 0) {
		log_error("msg=\"the last of the evidence may not be on disk\" dir=%s why=\"%s\"",
			  d->config.evidence_dir, strerror(-r));
		d->status = EXIT_FAILURE;
	}
	cell_host_close(&d->host);
	for (size_t i = 0; i < ARRAY_SIZE(d->signals); i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
	uv_close((uv_handle_t *)&d->second, NULL);
	uv_close((uv_handle_t *)&d->stop_timer, NULL);
}

void daemon_finish_if_done(struct daemon *d)
{
	if (!d->stopping || d->finished)
		return;
	/* What a task had to say on its way out. */
	pipeline_flush(d->pipeline);
	if (!d->tasks && !d->states_staged && d->host.ending == 0 && pipeline_idle(d->pipeline))
		finish(d);
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
	d->host.drain_until_ns = monotonic_ns() + STOP_DRAIN_MS * NSEC_PER_MSEC;
	for (struct cell *cell = d->host.cells; cell; cell = next) {
		next = cell->next;
		daemon_forget_cell(d, cell);
		daemon_forget_added(d, cell);
		cell_remove(cell, "shutdown");
	}
	daemon_finish_if_done(d);
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
	daemon_finish_if_done(d);
}

/* ---- reload -------------------------------------------------------------------------------------
 */

/* What is empty is taken from the environment, which is wiped then. */
static int open_signer(const char *algorithm, const char *kid, const char *key_file,
		       struct signer **ret, char why[SIGN_WHY_MAX])
{
	const struct signer_options options = {
		.algorithm = *algorithm ? algorithm : NULL,
		.kid = *kid ? kid : NULL,
		.key_file = *key_file ? key_file : NULL,
	};

	return signer_open(&options, ret, why);
}

/* Nobody looks at a daemon's lines as they come. */
static void warn_if_unsigned(const struct signer *signer)
{
	if (signer_algorithm(signer) == SIGN_OFF)
		log_warning("msg=\"evidence is not signed: whoever can write it can change it "
			    "unseen; see [signing]\"");
}

/* What the file never said was said at the start, by the environment. */
static const char *said(const char *wanted, const char *was, const char *runs)
{
	return *wanted || *was ? wanted : runs;
}

/*
 * The signer for a new configuration; NULL: the one that runs, because its key is nowhere any more.
 * Nothing falls back to evidence that is not signed: that takes a word in the file.
 */
static int open_next_signer(const struct daemon *d, const struct config *wanted,
			    struct signer **ret, char why[SIGN_WHY_MAX])
{
	const bool is_signed = signer_algorithm(d->signer) != SIGN_OFF;
	const char *runs = is_signed ? sign_algorithm_name(signer_algorithm(d->signer)) : "";
	const char *algorithm = said(wanted->sign_algorithm, d->config.sign_algorithm, runs);
	const char *kid = said(wanted->sign_kid, d->config.sign_kid, signer_kid(d->signer));
	const bool same = strcmp(algorithm, runs) == 0 && strcmp(kid, signer_kid(d->signer)) == 0;
	int r;

	*ret = NULL;
	if (is_signed && !*algorithm) {
		snprintf(why, SIGN_WHY_MAX,
			 "[signing] algorithm is gone: say algorithm = off for evidence that is "
			 "not signed, or restart");
		return -EINVAL;
	}
	r = open_signer(algorithm, kid, wanted->sign_key_file, ret, why);
	if (r != -ENOKEY)
		return r;
	if (same && !*d->config.sign_key_file)
		return 0;
	snprintf(
		why, SIGN_WHY_MAX,
		"[signing] there is no key for algorithm %s, kid %s: give key_file, or restart with "
		"the key in the environment",
		algorithm, kid);
	return r;
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
static int open_metrics(struct daemon *d, const char *listen, struct metrics_server **ret,
			char why[METRICS_WHY_MAX])
{
	*ret = NULL;
	if (strcmp(listen, "off") == 0)
		return 0;
	return metrics_server_new(listen, pipeline_stats(d->pipeline), d->log, ret, why);
}

static bool start_metrics(struct daemon *d)
{
	char why[METRICS_WHY_MAX];

	if (open_metrics(d, d->config.metrics_listen, &d->metrics, why) == 0)
		return true;
	log_error("msg=\"cannot serve metrics\" why=\"%s\"", why);
	return false;
}

/* To another address of the same port only one of the two can listen: then the old one goes first,
 * and comes back when that was not it. */
static bool replace_metrics(struct daemon *d, const char *listen)
{
	struct metrics_server *metrics;
	char why[METRICS_WHY_MAX];
	int r = open_metrics(d, listen, &metrics, why);

	if (r == -EADDRINUSE) {
		metrics_server_free(take_ptr(d->metrics));
		r = open_metrics(d, listen, &metrics, why);
	}
	if (r < 0) {
		log_error("msg=\"configuration refused; the old one stays\" why=\"%s\"", why);
		if (!d->metrics)
			start_metrics(d);
		return false;
	}
	metrics_server_free(d->metrics);
	d->metrics = metrics;
	return true;
}

/* All is checked, and whatever can fail is done, before anything changes. */
static bool reload(struct daemon *d)
{
	struct config_errors errors;
	struct evidence_limits limits;
	struct signer *signer = NULL;
	struct config wanted;
	char why[SIGN_WHY_MAX] = "no memory";
	bool ok = config_read(d->config_path, &wanted, &errors) == 0;

	if (!ok)
		log_errors(&errors);
	config_errors_free(&errors);
	ok = ok && !refuse_reload(&wanted, d);
	if (ok && open_next_signer(d, &wanted, &signer, why) < 0) {
		log_error("msg=\"configuration refused; the old one stays\" why=\"%s\"", why);
		ok = false;
	}
	/* The last that can fail, because it may have to change something. */
	if (ok && (!d->metrics || strcmp(d->config.metrics_listen, wanted.metrics_listen) != 0))
		ok = replace_metrics(d, wanted.metrics_listen);
	if (!ok)
		signer_free(signer);
	if (ok && signer) {
		warn_if_unsigned(signer);
		ok = pipeline_set_signer(d->pipeline, signer) == 0;
		if (ok)
			d->signer = signer;
	}
	if (!ok) {
		config_free(&wanted);
		return false;
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

static void work_floor(uv_work_t *work)
{
	struct daemon *d = work->data;

	d->floor_error = evidence_cursor_floor(d->cursors_fd, &d->floor, d->floor_bad);
}

/* Retention waits for the slowest cursor; what cannot be read may be the slowest. */
static void apply_floor(struct daemon *d)
{
	const bool bad = d->floor_error < 0 || *d->floor_bad;

	evidence_log_set_floor(d->log, d->floor_error < 0 ? 0 : d->floor);
	if (bad && !d->floor_told)
		log_error("msg=\"a cursor cannot be understood; no evidence is deleted\" "
			  "file=%s/cursors/%s why=\"%s\"",
			  d->config.state_dir, d->floor_bad,
			  d->floor_error < 0 ? strerror(-d->floor_error) : "not a cursor");
	else if (!bad && d->floor_told)
		log_notice("msg=\"the cursors are understood again\"");
	d->floor_told = bad;
}

static void on_floor(uv_work_t *work, int status)
{
	struct daemon *d = work->data;

	(void)status;
	d->floor_busy = false;
	if (!d->finished)
		apply_floor(d);
}

static void update_floor(struct daemon *d)
{
	if (d->floor_busy)
		return;
	d->floor_work.data = d;
	d->floor_busy = uv_queue_work(&d->loop, &d->floor_work, work_floor, on_floor) == 0;
}

/* For who asks the service manager; sent when it says something new. */
static void tell_status(struct daemon *d)
{
	char status[sizeof(d->status_line)];

	if (d->sink_error < 0)
		snprintf(status, sizeof(status), "STATUS=cannot write evidence: %s",
			 strerror(-d->sink_error));
	else
		snprintf(status, sizeof(status), "STATUS=%u cells, %u connected, %u silent",
			 d->host.stats.cells, d->host.stats.active, d->host.stats.silent);
	if (strcmp(status, d->status_line) == 0)
		return;
	memcpy(d->status_line, status, sizeof(status));
	notify_manager(status);
}

static void on_second(uv_timer_t *timer)
{
	struct daemon *d = timer->data;
	const uint64_t now_ns = monotonic_ns();

	if (d->finished)
		return;
	d->host.stats.probes_stuck = probe_scheduler_hanging(d->host.probes);
	metrics_server_publish(d->metrics, &d->host, d->config.metrics_per_cell);
	tell_sink(d, pipeline_stats(d->pipeline)->sink_error);
	daemon_check_tasks(d);
	update_floor(d);
	tell_status(d);
	if (d->watchdog_ms == 0 || now_ns < d->watchdog_due_ns)
		return;
	notify_manager("WATCHDOG=1");
	d->watchdog_due_ns = now_ns + d->watchdog_ms * NSEC_PER_MSEC / 2;
}

/* A folder of ours in the state_dir. */
static int open_folder(const struct daemon *d, int fd, const char *name, int *ret)
{
	if ((mkdirat(fd, name, 0700) == 0 || errno == EEXIST) &&
	    (*ret = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) >= 0)
		return EX_OK;
	log_error("msg=\"cannot open a folder of the state\" dir=%s/%s why=\"%s\"",
		  d->config.state_dir, name, strerror(errno));
	return EX_CANTCREAT;
}

static int open_state(struct daemon *d)
{
	_cleanup_close_ int fd = open(d->config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int status;

	if (fd < 0) {
		log_error("msg=\"cannot open state_dir\" dir=%s why=\"%s\"", d->config.state_dir,
			  strerror(errno));
		return EX_CANTCREAT;
	}
	status = open_folder(d, fd, "cells", &d->state_fd);
	if (status == EX_OK)
		status = open_folder(d, fd, "cursors", &d->cursors_fd);
	if (status != EX_OK)
		return status;
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
	/* Until the cursors are read nothing is deleted. */
	if (evidence_log_open(d->config.evidence_dir, &limits, 0, &d->log, &repair, why) < 0) {
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

	if (open_signer(d->config.sign_algorithm, d->config.sign_kid, d->config.sign_key_file,
			&options.signer, why) < 0) {
		log_error("msg=\"signing is not configured\" config=%s why=\"%s\"", d->config_path,
			  why);
		return EX_CONFIG;
	}
	warn_if_unsigned(options.signer);
	status = open_log(d);
	if (status != EX_OK) {
		signer_free(options.signer);
		return status;
	}
	d->floor_error = evidence_cursor_floor(d->cursors_fd, &d->floor, d->floor_bad);
	apply_floor(d);
	options.sink = evidence_log_sink(d->log);
	d->signer = options.signer;
	if (pipeline_new(&d->loop, &options, &d->pipeline) < 0 ||
	    cell_host_init(&d->host, &d->loop, d->pipeline, (unsigned)d->config.checkpoint_ms) <
		    0) {
		log_error("msg=\"no memory\"");
		return EX_OSERR;
	}
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
		status = daemon_readopt_cells(d);
	if (status == EX_OK)
		status = start_metrics(d) ? EX_OK : EX_CANTCREAT;
	if (status == EX_OK)
		status = start_control(d);
	return status;
}

static int run(struct daemon *d)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	d->state_fd = d->cursors_fd = -1;
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
		/* A manager that wants to hear of it more often does. */
		uv_timer_start(&d->second, on_second, 0,
			       d->watchdog_ms ? MAX(MIN(d->watchdog_ms / 3, 1000u), 1u) : 1000);
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
	close_fd(d->cursors_fd);
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
