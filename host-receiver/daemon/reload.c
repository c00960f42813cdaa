/* SPDX-License-Identifier: MIT */
/*
 * SIGHUP: the configuration is read again. Before anything changes, the whole file is checked and
 * every step that can fail is done. Loop thread.
 */
#include "common/log.h"
#include "host-receiver/daemon/internal.h"

void daemon_log_config_errors(const struct config_errors *errors)
{
	const char *line = errors->text;

	while (line && *line) {
		const size_t len = strcspn(line, "\n");

		log_error("msg=\"configuration refused\" why=\"%.*s\"", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static void refuse(const char *why)
{
	log_error("msg=\"configuration refused; the old one stays\" why=\"%s\"", why);
}

static bool needs_restart(const struct config *wanted, const struct daemon *d)
{
	const char *section, *name;

	if (!config_needs_restart(&d->config, wanted, &section, &name))
		return false;
	log_error("msg=\"configuration refused; the old one stays\" "
		  "why=\"%s: [%s] %s can only change with a restart\"",
		  d->config_path, section, name);
	return true;
}

int daemon_open_metrics(struct daemon *d, const char *listen, struct metrics_server **ret,
			char why[METRICS_WHY_MAX])
{
	*ret = NULL;
	if (strcmp(listen, "off") == 0)
		return 0;
	return metrics_server_new(listen, pipeline_stats(d->pipeline), d->log, ret, why);
}

/*
 * The new address may need the port of the old server. Then the old server is closed first, and
 * opened again if the new one still fails.
 */
static bool replace_metrics(struct daemon *d, const char *listen)
{
	struct metrics_server *metrics;
	char why[METRICS_WHY_MAX], lost[METRICS_WHY_MAX];
	int r = daemon_open_metrics(d, listen, &metrics, why);

	if (r == -EADDRINUSE) {
		metrics_server_free(take_ptr(d->metrics));
		r = daemon_open_metrics(d, listen, &metrics, why);
	}
	if (r < 0) {
		refuse(why);
		if (!d->metrics &&
		    daemon_open_metrics(d, d->config.metrics_listen, &d->metrics, lost) < 0)
			log_error("msg=\"cannot serve metrics any more\" why=\"%s\"", lost);
		return false;
	}
	metrics_server_free(d->metrics);
	d->metrics = metrics;
	return true;
}

/*
 * A stream has one mode of signing, so another mode needs new streams. *ret is NULL if the streams
 * go on.
 */
static bool stage_streams(struct daemon *d, const struct signer *next, struct stream_change **ret)
{
	int r;

	*ret = NULL;
	if (!next || signer_algorithm(next) == signer_algorithm(d->signer))
		return true;
	r = daemon_stage_streams(d, ret);
	if (r == -EBUSY) {
		d->reload_waits = true;
		log_notice("msg=\"the reload waits\" why=\"the files of cells are being written\"");
	} else if (r < 0) {
		refuse(strerror(-r));
	}
	return r == 0;
}

/* A new signer and the new streams that it needs. */
struct next_signer {
	struct signer *signer;	      /* NULL: the running one stays */
	struct stream_change *change; /* NULL: the streams go on */
};

static void give_up(struct next_signer *next)
{
	daemon_discard_streams(next->change);
	signer_free(next->signer);
}

/* Do every step that can fail. */
static bool prepare(struct daemon *d, const struct config *wanted, struct next_signer *ret)
{
	char why[SIGN_WHY_MAX] = "no memory";

	if (needs_restart(wanted, d))
		return false;
	if (daemon_open_next_signer(d, wanted, &ret->signer, why) < 0) {
		refuse(why);
		return false;
	}
	if (!stage_streams(d, ret->signer, &ret->change)) {
		signer_free(ret->signer);
		return false;
	}
	/* The metrics come last, because the old server may have to be closed for the new one. */
	if (d->metrics && strcmp(d->config.metrics_listen, wanted->metrics_listen) == 0)
		return true;
	if (replace_metrics(d, wanted->metrics_listen))
		return true;
	give_up(ret);
	return false;
}

/* Takes both members of next. */
static void set_signer(struct daemon *d, const struct next_signer *next)
{
	char prefix[LOG_PREFIX_MAX + 1];

	daemon_warn_if_unsigned(next->signer);
	if (next->change)
		daemon_seal_streams(next->change);
	log_origin_prefix(d->config.evidence_origin, d->registry.hostname, prefix);
	log_stream_change_signer(d->log_stream, next->signer, d->signer, prefix,
				 d->registry.stats.cells);
	/* The streams are sealed and cannot be opened again, so there is no way back. */
	if (pipeline_set_signer(d->pipeline, next->signer) < 0)
		abort();
	log_stream_changed(d->log_stream);
	if (next->change)
		daemon_open_streams(next->change);
	d->signer = next->signer;
}

void daemon_set_limits(struct daemon *d, const struct config *config)
{
	const struct ceiling_rates rates = {
		.events = (unsigned)config->rate,
		.bytes = (unsigned)config->rate_bytes,
		.connections = (unsigned)config->rate_connections,
	};

	d->registry.checkpoint_ms = (unsigned)config->checkpoint_ms;
	cell_registry_set_rates(&d->registry, &rates);
}

/*
 * With separate users the parent opens the file, because Landlock may hide a file from this process
 * that replaced the old one.
 */
static int read_again(struct daemon *d, struct config *ret, struct config_errors *errors)
{
	const int fd = d->separate ? sign_client_open_config(d->client) : -1;
	_cleanup_fclose_ FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;

	if (f)
		return config_read_file(f, d->config_path, ret, errors);
	close_fd(fd);
	return config_read(d->config_path, ret, errors);
}

void daemon_reload(struct daemon *d)
{
	struct config_errors errors;
	struct evidence_limits limits;
	struct next_signer next = {0};
	struct config wanted;
	bool forwards_differently;
	bool ok;

	d->reload_waits = false;
	ok = read_again(d, &wanted, &errors) == 0;

	if (!ok)
		daemon_log_config_errors(&errors);
	config_errors_free(&errors);
	if (!ok || !prepare(d, &wanted, &next)) {
		config_free(&wanted);
		return;
	}
	if (next.signer)
		set_signer(d, &next);
	config_limits(&wanted, &limits);
	evidence_log_set_limits(d->log, &limits);
	daemon_set_limits(d, &wanted);
	forwards_differently = config_forward_differs(&d->config, &wanted);
	config_free(&d->config);
	d->config = wanted;
	if (forwarding_hold(&d->config, d->retention.cursors_fd) == 0)
		retention_update(&d->retention, &d->life.loop);
	forwarding_configure(&d->forwarding, &d->config, forwards_differently);
	d->retention.state_dir = d->config.state_dir;
	log_notice("msg=\"configuration applied\" config=%s", d->config_path);
}

void daemon_retry_reload(struct daemon *d)
{
	if (d->reload_waits && !d->tasks && !d->states_staged && !d->life.stopping)
		daemon_reload(d);
}
