/* SPDX-License-Identifier: MIT */
/*
 * Once a second the daemon publishes its numbers for the thread of the metrics, sends its status
 * and the watchdog message to the service manager, and checks the tasks that wait. Loop thread.
 */
#include <stdarg.h>

#include "common/log.h"
#include "host-receiver/control/notify.h"
#include "host-receiver/daemon/internal.h"

void daemon_report_sink(struct daemon *d, int error)
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

/* The status line is sent to the service manager only when it has changed. */
static void notify_status(struct daemon *d)
{
	char status[sizeof(d->status_line)];

	if (d->sink_error < 0)
		snprintf(status, sizeof(status), "STATUS=cannot write evidence: %s",
			 strerror(-d->sink_error));
	else
		snprintf(status, sizeof(status), "STATUS=%u cells, %u connected, %u silent",
			 d->registry.stats.cells, d->registry.stats.active,
			 d->registry.stats.silent);
	if (strcmp(status, d->status_line) == 0)
		return;
	memcpy(d->status_line, status, sizeof(status));
	notify_manager(status);
}

static void notify_alive(struct daemon *d, uint64_t now_ns)
{
	if (d->watchdog_ms == 0 || now_ns < d->watchdog_due_ns)
		return;
	notify_manager("WATCHDOG=1");
	d->watchdog_due_ns = now_ns + d->watchdog_ms * NSEC_PER_MSEC / 2;
}

static _printf_(2, 3) void add_reason(struct metrics_health *health, const char *fmt, ...)
{
	const size_t used = strlen(health->reasons);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(health->reasons + used, sizeof(health->reasons) - used, fmt, ap);
	va_end(ap);
}

#define READY_INFLIGHT_MS 5000u
#define READY_SIGNER_MS	  2000u
#define NAMED_MAX	  8u  /* unserved cells that /readyz names */
#define SHOWN_MAX	  80u /* bytes of each name */

static void add_unserved(const struct unserved *u, struct metrics_health *health)
{
	char shown[SHOWN_MAX];
	unsigned named = 0;

	add_reason(health, "unserved cells:");
	for (const struct unserved_cell *cell = u->first; cell && named < NAMED_MAX;
	     cell = cell->next, named++)
		add_reason(health, " %s",
			   log_escape(shown, sizeof(shown), cell->shown, strlen(cell->shown)));
	if (u->n > named)
		add_reason(health, " and %u more", u->n - named);
	add_reason(health, "\n");
}

uint64_t daemon_oldest_inflight_ms(const struct daemon *d)
{
	const uint64_t oldest_ns = pipeline_oldest_ns(d->pipeline);

	return oldest_ns ? (monotonic_ns() - oldest_ns) / NSEC_PER_MSEC : 0;
}

/* Collect the reasons why /readyz must fail. */
static void judge_health(const struct daemon *d, struct metrics_health *ret)
{
	const uint64_t waiting_ns = sign_client_waiting_ns(d->client);
	char why[256], down[SIGN_WHY_MAX];

	*ret = (struct metrics_health){
		.cells_unserved = d->unserved.n,
		.oldest_inflight_ms = daemon_oldest_inflight_ms(d),
	};
	snprintf(ret->algorithm, sizeof(ret->algorithm), "%s",
		 sign_algorithm_name(signer_algorithm(d->signer)));
	daemon_key_fingerprint(d->signer, ret->fingerprint);
	snprintf(ret->kid, sizeof(ret->kid), "%s", signer_kid(d->signer));
	/* A disk that hangs reports no error. */
	if (ret->oldest_inflight_ms > READY_INFLIGHT_MS)
		add_reason(ret, "the oldest event in flight is %" PRIu64 ".%" PRIu64 " s old\n",
			   ret->oldest_inflight_ms / MSEC_PER_SEC,
			   ret->oldest_inflight_ms % MSEC_PER_SEC / 100);
	if (evidence_log_lost(d->log) > 0)
		add_reason(ret, "%" PRIu64 " %s lost\n", evidence_log_lost(d->log),
			   plural(evidence_log_lost(d->log), "segment of the evidence log was",
				  "segments of the evidence log were"));
	ret->alarm = *d->alarm;
	if (*d->alarm && d->config.sign_required)
		add_reason(ret, "an alarm stands: %s\n", d->alarm);
	ret->forwards = d->forwarding.wanted;
	ret->forward = d->forwarding.status;
	ret->forward_restarts = d->forwarding.restarts;
	if (!forwarding_is_ready(&d->forwarding, why))
		add_reason(ret, "%s\n", why);
	if (waiting_ns && monotonic_ns() - waiting_ns > READY_SIGNER_MS * NSEC_PER_MSEC)
		add_reason(ret, "the signer (pid %d) has not answered for %" PRIu64 " s\n",
			   sign_client_pid(d->client),
			   (monotonic_ns() - waiting_ns) / NSEC_PER_SEC);
	sign_client_down(d->client, down);
	if (*down)
		add_reason(ret, "the signer is down: %s\n", down);
	if (d->unserved.n > 0)
		add_unserved(&d->unserved, ret);
}

static void on_second(uv_timer_t *timer)
{
	struct daemon *d = timer->data;
	struct metrics_health health;

	if (d->life.finished)
		return;
	d->registry.stats.probes_stuck = probe_scheduler_hanging(d->registry.probes);
	judge_health(d, &health);
	metrics_server_publish(d->metrics, &d->registry, &health, d->config.metrics_per_cell);
	daemon_report_sink(d, pipeline_stats(d->pipeline)->sink_error);
	daemon_check_tasks(d);
	daemon_retry_reload(d);
	daemon_retry_unserved(d);
	daemon_ping_signer(d);
	daemon_check_cell_shares(d);
	retention_update(&d->retention, &d->life.loop);
	forwarding_update(&d->forwarding);
	notify_status(d);
	notify_alive(d, monotonic_ns());
}

void daemon_start_status(struct daemon *d)
{
	/* A third of the watchdog's period, if that is shorter than a second. */
	uv_timer_start(&d->second, on_second, 0,
		       d->watchdog_ms ? MAX(MIN(d->watchdog_ms / 3, MSEC_PER_SEC), UINT64_C(1))
				      : MSEC_PER_SEC);
}
