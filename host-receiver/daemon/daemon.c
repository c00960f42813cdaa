/* SPDX-License-Identifier: MIT */
/*
 * The daemon's life: the order in which everything is opened, its signals, and its end. SIGHUP
 * reads the configuration again; SIGTERM and SIGINT seal all streams and end the daemon. After any
 * other end, the next start serves the same cells again.
 */
#include "host-receiver/daemon/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/recall.h"
#include "host-receiver/control/notify.h"
#include "host-receiver/daemon/internal.h"
#include "host-receiver/privilege/receiver.h"
#include "host-receiver/sign/keeper.h"

/* ---- the end ------------------------------------------------------------------------------------
 *
 * delivery.md section 4, in the order of the functions below: stop() closes the listeners and stops
 * reading; when all that was read is committed, seal_all() ends the connections and seals the
 * streams; when the seals are committed, is_done() is true and finish() closes the rest.
 */

/* A cell whose seal is not committed yet. */
struct unsealed {
	struct unsealed *next, **link;
	struct daemon *d;
	char id[CELL_ID_MAX + 1];
};

static void on_seal_committed(void *arg)
{
	struct unsealed *u = arg;

	*u->link = u->next;
	if (u->next)
		u->next->link = u->link;
	free(u);
}

static void on_sealed(void *arg)
{
	struct unsealed *u = arg;

	pipeline_defer(u->d->pipeline, on_seal_committed, u);
}

/* Remember the cell until its seal is committed, for on_overdue(). */
static void watch_seal(struct daemon *d, struct cell *cell)
{
	struct unsealed *u = calloc(1, sizeof(*u));

	if (!u)
		return;
	u->d = d;
	snprintf(u->id, sizeof(u->id), "%s", cell->options.cell_id);
	u->next = d->unsealed;
	u->link = &d->unsealed;
	if (u->next)
		u->next->link = &u->next;
	d->unsealed = u;
	cell->on_sealed = on_sealed;
	cell->sealed_ctx = u;
}

static void seal_all(void *arg)
{
	struct daemon *d = arg;
	struct cell *next;

	if (d->life.finished)
		return;
	for (struct cell *cell = d->registry.cells; cell; cell = next) {
		next = cell->next;
		cell_remove(cell, "shutdown");
	}
	pipeline_flush(d->pipeline);
}

static void stop(struct daemon *d)
{
	if (d->life.stopping)
		return;
	d->stopped_cells = d->registry.stats.cells;
	lifecycle_stop(&d->life, (unsigned)d->config.stop_timeout_ms);
	notify_manager("STOPPING=1");
	log_info("msg=\"stopping\" cells=%u", d->registry.stats.cells);
	for (struct cell *cell = d->registry.cells; cell; cell = cell->next) {
		cell_index_remove(&d->cells, cell);
		daemon_forget_added(d, cell);
		watch_seal(d, cell);
		cell_quiesce(cell);
	}
	if (d->registry.cells) {
		pipeline_defer(d->pipeline, seal_all, d);
		pipeline_flush(d->pipeline);
	}
}

static bool is_done(void *ctx)
{
	struct daemon *d = ctx;

	if (!d->pipeline)
		return true;
	pipeline_flush(d->pipeline);
	if (d->tasks || d->states_staged || d->registry.cells || d->registry.ending > 0 ||
	    !pipeline_idle(d->pipeline))
		return false;
	if (!d->log_stream || log_stream_closed(d->log_stream))
		return true;
	/* The last record of all. */
	log_stream_close(d->log_stream, d->stopped_cells);
	pipeline_flush(d->pipeline);
	return false;
}

static void finish(void *ctx)
{
	struct daemon *d = ctx;
	int r;

	control_server_free(take_ptr(d->control));
	/* The thread of the metrics reads what the pipeline owns, so it ends first. */
	metrics_server_free(take_ptr(d->metrics));
	retention_stop(&d->retention);
	forwarding_stop(&d->forwarding);
	r = pipeline_free(take_ptr(d->pipeline));
	log_stream_free(take_ptr(d->log_stream));
	if (r < 0) {
		log_error("msg=\"the last of the evidence may not be on disk\" dir=%s why=\"%s\"",
			  d->config.evidence_dir, strerror(-r));
		d->exit_status = EXIT_FAILURE;
	}
	cell_registry_close(&d->registry);
	uv_close((uv_handle_t *)&d->second, NULL);
}

/* Records that were not committed were not acknowledged: the guests send them to the next run. */
static void on_overdue(void *ctx)
{
	const struct daemon *d = ctx;
	const int error = pipeline_stats(d->pipeline)->sink_error;

	for (const struct unsealed *u = d->unsealed; u; u = u->next)
		log_error("msg=\"not sealed\" cell=%s", u->id);
	log_error("msg=\"the log did not take the rest of the evidence within stop_timeout; "
		  "not all streams are sealed\" stop_timeout_ms=%" PRIu64 " why=\"%s\"",
		  d->config.stop_timeout_ms, error ? strerror(-error) : "the disk is slow");
	_exit(EXIT_FAILURE);
}

/* ---- what happens ---- */

static void on_progress(void *ctx, int error, bool fatal)
{
	struct daemon *d = ctx;

	(void)fatal;
	daemon_report_sink(d, error);
	if (d->log_stream)
		log_stream_progress(d->log_stream);
	cell_registry_progress(&d->registry);
	daemon_sessions_progress(d);
	forwarding_progress(&d->forwarding);
}

static void on_durable(void *ctx, struct pipeline_account *account)
{
	(void)ctx;
	cell_durable(account);
}

static void on_full(void *ctx)
{
	struct daemon *d = ctx;

	cell_registry_full(&d->registry);
}

static void on_signal(void *ctx, int number)
{
	struct daemon *d = ctx;
	char state[128];

	if (number != SIGHUP) {
		stop(d);
		return;
	}
	if (d->life.stopping)
		return;
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 monotonic_ns() / NSEC_PER_USEC);
	notify_manager(state);
	daemon_reload(d);
	notify_manager("READY=1");
}

static const struct lifecycle_ops life_ops = {
	.on_signal = on_signal,
	.is_done = is_done,
	.finish = finish,
	.on_overdue = on_overdue,
};

/* ---- the beginning ---- */

/* One of the daemon's own folders in the state_dir. */
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
	const int fd = open(d->config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int status;

	d->state_dir_fd = fd;
	if (fd < 0) {
		log_error("msg=\"cannot open state_dir\" dir=%s why=\"%s\"", d->config.state_dir,
			  strerror(errno));
		return EX_CANTCREAT;
	}
	status = open_folder(d, fd, "cells", &d->state_fd);
	if (status == EX_OK)
		status = open_folder(d, fd, "cursors", &d->retention.cursors_fd);
	if (status != EX_OK)
		return status;
	if (flock(d->state_fd, LOCK_EX | LOCK_NB) == 0)
		return EX_OK;
	log_error("msg=\"another daemon serves these cells\" dir=%s/cells", d->config.state_dir);
	return EX_CANTCREAT;
}

/*
 * A failure here is only a warning: the forwarder tries the same at its start, and reports the
 * error.
 */
static void hold_for_forwarder(struct daemon *d)
{
	int r = forwarding_hold(&d->config, d->retention.cursors_fd);

	if (r < 0)
		log_warning("msg=\"cannot hold evidence for the forwarder\" why=\"%s\"",
			    strerror(-r));
}

static int start_pipeline(struct daemon *d)
{
	struct pipeline_options options = {
		.max_inflight = d->config.max_inflight,
		.on_progress = on_progress,
		.on_full = on_full,
		.on_durable = on_durable,
		.ctx = d,
	};
	char why[SIGN_WHY_MAX] = "no memory";
	int status, r;

	if (daemon_open_signer(d, &options.signer, why) < 0) {
		log_error("msg=\"signing is not configured\" config=%s why=\"%s\"", d->config_path,
			  why);
		return EX_CONFIG;
	}
	daemon_warn_if_unsigned(options.signer);
	status = daemon_open_log(d, options.signer);
	if (status != EX_OK) {
		signer_free(options.signer);
		if (d->log) {
			options.sink = evidence_log_sink(d->log);
			options.sink->ops->close(options.sink);
		}
		return status;
	}
	hold_for_forwarder(d);
	retention_start(&d->retention, d->log, d->retention.cursors_fd, d->config.state_dir);
	options.sink = evidence_log_sink(d->log);
	d->signer = options.signer;
	r = pipeline_new(&d->life.loop, &options, &d->pipeline);
	if (r == 0)
		r = cell_registry_init(&d->registry, &d->life.loop, d->pipeline,
				       (unsigned)d->config.checkpoint_ms);
	if (r < 0) {
		log_error("msg=\"cannot start the threads that sign and write\" why=\"%s\"",
			  strerror(-r));
		return EX_OSERR;
	}
	d->registry.spare.report = lifecycle_report_shortage;
	d->registry.comes_back = true;
	daemon_set_limits(d, &d->config);
	d->registry.parent = d->client;
	return daemon_start_log_stream(d);
}

static int start_forwarding(struct daemon *d)
{
	forwarding_init(&d->forwarding, &d->life.loop, d->log, d->config_path);
	if (*d->config.nats_url && !*signer_origin(d->signer)) {
		log_error("msg=\"evidence without a signed tree is not forwarded\" config=%s "
			  "why=\"[nats] url needs [signing] algorithm = ed25519-log or ed25519\"",
			  d->config_path);
		return EX_CONFIG;
	}
	forwarding_configure(&d->forwarding, &d->config, false);
	return EX_OK;
}

static int start_metrics(struct daemon *d)
{
	char why[METRICS_WHY_MAX];

	if (daemon_open_metrics(d, d->config.metrics_listen, &d->metrics, why) == 0)
		return EX_OK;
	log_error("msg=\"cannot serve metrics\" why=\"%s\"", why);
	return EX_CANTCREAT;
}

static int start_control(struct daemon *d)
{
	const struct control_server_options options = {
		.path = d->config.control_socket,
		.group = d->config.control_group,
		.handle = daemon_answer,
		.report_shortage = lifecycle_report_shortage,
		.ctx = d,
	};
	char why[CONTROL_WHY_MAX];

	if (control_server_new(&d->life.loop, &options, &d->control, why) == 0)
		return EX_OK;
	log_error("msg=\"cannot open the control socket\" why=\"%s\"", why);
	return EX_CANTCREAT;
}

/* The last step: the start needed more system calls than the daemon needs from now on. */
static int limit_calls(struct daemon *d)
{
	const int r = receiver_limit_calls();

	(void)d;
	if (r == 0)
		return EX_OK;
	log_error("msg=\"cannot limit the system calls\" why=\"%s\"", strerror(-r));
	return EX_OSERR;
}

static int start(struct daemon *d)
{
	static int (*const steps[])(struct daemon * d) = {
		open_state,    start_pipeline, start_forwarding, daemon_readopt_cells,
		start_metrics, start_control,  limit_calls,
	};
	int status = EX_OK;

	for (size_t i = 0; i < ARRAY_SIZE(steps) && status == EX_OK; i++)
		status = steps[i](d);
	return status;
}

static void run(struct daemon *d)
{
	daemon_raise_descriptor_limit(&d->config);
	d->started_ns = monotonic_ns();
	d->watchdog_ms = notify_watchdog_ms();
	uv_timer_init(&d->life.loop, &d->second);
	d->second.data = d;
	d->exit_status = start(d);
	if (d->exit_status == EX_OK) {
		daemon_start_status(d);
		notify_manager("READY=1");
		log_notice("msg=\"ready\" control=%s cells=%u", d->config.control_socket,
			   d->registry.stats.cells);
	} else {
		stop(d);
	}
	lifecycle_run(&d->life);
	cell_registry_done(&d->registry);
	close_fd(d->state_fd);
	recall_free(d->recall);
	close_fd(d->state_dir_fd);
	sign_client_free(d->client);
	retention_done(&d->retention);
	unserved_free(&d->unserved);
}

/* Call it before anything else: all later code then runs in a process without a key. */
static int start_parent(struct daemon *d, const struct daemon_options *o, int *ret_fd,
			pid_t *ret_pid)
{
	struct keeper_options options = {.state = o->signer_state, .config = o->config_path};
	char why[USERS_WHY_MAX];
	int r = users_find(o->user, o->signer_user, &options.users, why);

	if (r < 0) {
		log_error("msg=\"cannot separate the signer\" why=\"%s\"", why);
		return r == -EPERM ? EX_NOPERM : EX_USAGE;
	}
	d->separate = options.users.separate;
	r = keeper_start(&options, ret_fd, ret_pid);
	if (r < 0) {
		log_error("msg=\"cannot start the signer's parent\" why=\"%s\"", strerror(-r));
		return EX_OSERR;
	}
	r = receiver_give_up(&options.users);
	if (r < 0) {
		log_error("msg=\"cannot give up privileges\" why=\"%s\"", strerror(-r));
		close_fd(*ret_fd);
		return EX_OSERR;
	}
	return EX_OK;
}

static int read_config(struct daemon *d)
{
	struct config_errors errors;
	int r = config_read(d->config_path, &d->config, &errors);

	if (r < 0)
		daemon_log_config_errors(&errors);
	config_errors_free(&errors);
	return r < 0 ? EX_CONFIG : EX_OK;
}

/* Takes keeper_fd, the parent's socket, for the client. */
static int run_with(struct daemon *d, const struct daemon_options *o, int keeper_fd,
		    pid_t keeper_pid)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	int status = read_config(d), r;

	if (status == EX_OK)
		status = daemon_hide_keys(d, o->signer_state);
	if (status != EX_OK) {
		close_fd(keeper_fd);
		return status;
	}
	status = daemon_start_client(d, keeper_fd, keeper_pid);
	if (status != EX_OK)
		return status;
	r = lifecycle_init(&d->life, &life_ops, signals, ARRAY_SIZE(signals), d);
	if (r < 0) {
		log_error("msg=\"cannot start the event loop\" why=\"%s\"", strerror(-r));
		return EX_OSERR;
	}
	run(d);
	return d->exit_status;
}

int daemon_run(const struct daemon_options *options)
{
	struct daemon d = {.config_path = options->config_path,
			   .state_dir_fd = -1,
			   .state_fd = -1,
			   .retention.cursors_fd = -1,
			   .forwarding.fd = -1};
	int status, keeper_fd;
	pid_t keeper_pid;

	signal(SIGPIPE, SIG_IGN);
	status = start_parent(&d, options, &keeper_fd, &keeper_pid);
	if (status == EX_OK)
		status = run_with(&d, options, keeper_fd, keeper_pid);
	config_free(&d.config);
	return status;
}
