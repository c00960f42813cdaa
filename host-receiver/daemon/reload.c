/* SPDX-License-Identifier: MIT */
/*
 * SIGHUP: the configuration is read again. All of it is checked, and whatever can fail is done,
 * before anything changes. Loop thread.
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

/* Everything that can fail. ret_signer: NULL if the running signer stays. */
static bool prepare(struct daemon *d, const struct config *wanted, struct signer **ret_signer)
{
	char why[SIGN_WHY_MAX] = "no memory";

	if (needs_restart(wanted, d))
		return false;
	if (daemon_open_next_signer(d, wanted, ret_signer, why) < 0) {
		refuse(why);
		return false;
	}
	/* The metrics come last, because the old server may have to be closed for the new one. */
	if (d->metrics && strcmp(d->config.metrics_listen, wanted->metrics_listen) == 0)
		return true;
	if (replace_metrics(d, wanted->metrics_listen))
		return true;
	signer_free(take_ptr(*ret_signer));
	return false;
}

/* Takes the signer. */
static bool set_signer(struct daemon *d, struct signer *signer)
{
	char prefix[LOG_PREFIX_MAX + 1];

	if (!signer)
		return true;
	daemon_warn_if_unsigned(signer);
	log_origin_prefix(d->config.evidence_origin, d->registry.hostname, prefix);
	log_stream_change_signer(d->log_stream, signer, d->signer, prefix, d->registry.stats.cells);
	if (pipeline_set_signer(d->pipeline, signer) < 0) {
		refuse("no memory");
		return false;
	}
	log_stream_changed(d->log_stream);
	d->signer = signer;
	return true;
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

/* With separate users the parent opens it: a file that was put in its place after the start may be
 * out of this process's sight. */
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
	struct signer *signer = NULL;
	struct config wanted;
	bool forwards_differently;
	bool ok = read_again(d, &wanted, &errors) == 0;

	if (!ok)
		daemon_log_config_errors(&errors);
	config_errors_free(&errors);
	if (!ok || !prepare(d, &wanted, &signer) || !set_signer(d, signer)) {
		config_free(&wanted);
		return;
	}
	config_limits(&wanted, &limits);
	evidence_log_set_limits(d->log, &limits);
	daemon_set_limits(d, &wanted);
	forwards_differently = config_forward_differs(&d->config, &wanted);
	config_free(&d->config);
	d->config = wanted;
	forwarding_configure(&d->forwarding, &d->config, forwards_differently);
	d->retention.state_dir = d->config.state_dir;
	log_notice("msg=\"configuration applied\" config=%s", d->config_path);
}
