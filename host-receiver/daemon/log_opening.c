/* SPDX-License-Identifier: MIT */
/*
 * Opens the daemon's evidence log at the start. It continues the old log or begins a new one, and
 * reports its decision with the reason. If the operator must know of it, it raises an alarm, which
 * stays until it is acknowledged. Loop thread.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/utf8.h"
#include "host-receiver/daemon/internal.h"
#include "host-receiver/evidence/durable.h"

#define ALARM_FILE "alarm"

/* ---- the alarm ---- */

static void load_alarm(struct daemon *d)
{
	if (durable_read(d->state_dir_fd, ALARM_FILE, d->alarm, sizeof(d->alarm)) > 0)
		log_error("msg=\"an alarm stands: cellos-host-telemetry log acknowledge\" "
			  "why=\"%s\"",
			  d->alarm);
}

void daemon_raise_alarm(struct daemon *d, const char *text)
{
	int r;

	const size_t used = strlen(d->alarm);

	/* A second alarm does not replace the first one. */
	snprintf(d->alarm + used, sizeof(d->alarm) - used, "%s%s", used ? "; " : "", text);
	r = durable_write(d->state_dir_fd, ALARM_FILE, d->alarm, strlen(d->alarm), 0600);
	if (r < 0)
		log_error("msg=\"cannot keep the alarm over a restart\" why=\"%s\"", strerror(-r));
}

int daemon_acknowledge_alarm(struct daemon *d, uint64_t uid)
{
	int r;

	if (!*d->alarm)
		return -ENOENT;
	r = durable_remove(d->state_dir_fd, ALARM_FILE);
	if (r < 0 && r != -ENOENT)
		return r;
	log_stream_acknowledged(d->log_stream, d->alarm, uid);
	log_notice("msg=\"the alarm is acknowledged\" uid=%" PRIu64 " why=\"%s\"", uid, d->alarm);
	*d->alarm = '\0';
	return 0;
}

/* ---- the log ---- */

static void report_continued(const struct daemon *d)
{
	const struct log_start *start = &d->log_start;

	if (start->cut_bytes > 0)
		log_warning(
			"msg=\"bytes that no checkpoint covers were moved aside\" bytes=%" PRIu64
			" lines=%" PRIu64 " suffix=" EVIDENCE_TORN_SUFFIX,
			start->cut_bytes, start->cut_lines);
	if (start->abandoned)
		log_warning("msg=\"a signature was never written; the log goes on before it\" "
			    "size=%" PRIu64,
			    start->abandoned_size);
}

static void report_begun(struct daemon *d)
{
	const struct log_start *start = &d->log_start;
	char text[DAEMON_ALARM_MAX];

	if (!start->alarm) {
		log_notice("msg=\"a new log begins\" origin=%s reason=%s", start->origin,
			   log_reason_name(start->reason));
		return;
	}
	snprintf(text, sizeof(text), "%s: %s%sprevious log %.255s of size %" PRIu64,
		 log_reason_name(start->reason), start->why ? start->why : "",
		 start->why ? "; " : "", start->previous_origin, start->previous_size);
	log_error("msg=\"a new log begins\" origin=%s why=\"%s\"", start->origin, text);
	daemon_raise_alarm(d, text);
}

/* Take the file that `log new` wrote: the operator wants a new log, so there is no alarm. */
static bool take_plan(struct daemon *d, char ret[static LOG_PLAN_MAX + 1])
{
	char reason[LOG_PLAN_MAX + 1];
	const ssize_t n = durable_read(d->state_dir_fd, DAEMON_PLAN_FILE, reason, sizeof(reason));

	if (n < 0)
		return false;
	ret[utf8_sanitize(reason, (size_t)n, ret, LOG_PLAN_MAX)] = '\0';
	log_notice("msg=\"a new log was asked for\" why=\"%s\"", ret);
	return durable_remove(d->state_dir_fd, DAEMON_PLAN_FILE) == 0;
}

static int decide(struct daemon *d, struct signer *signer, struct recover_point *points)
{
	const enum evidence_sync sync = (enum evidence_sync)d->config.sync;
	char prefix[LOG_PREFIX_MAX + 1], hostname[256] = "localhost", why[EVIDENCE_WHY_MAX];
	char plan[LOG_PLAN_MAX + 1] = "";
	bool planned;
	int r;

	gethostname(hostname, sizeof(hostname) - 1);
	log_origin_prefix(d->config.evidence_origin, hostname, prefix);
	planned = take_plan(d, plan);
	r = log_start_decide(d->log, signer, prefix, sync, points, planned, &d->log_start, why);
	if (r < 0) {
		/* The operator's plan is for the next start that succeeds. */
		if (planned)
			durable_write(d->state_dir_fd, DAEMON_PLAN_FILE, plan, strlen(plan), 0644);
		log_error("msg=\"cannot begin the evidence log\" dir=%s why=\"%s\"",
			  d->config.evidence_dir, why);
		return r == -EKEYREJECTED ? EX_CONFIG : EX_CANTCREAT;
	}
	memcpy(d->log_start.plan, plan, sizeof(plan));
	if (d->log_start.reason == LOG_RESUMED)
		report_continued(d);
	else
		report_begun(d);
	return EX_OK;
}

int daemon_open_log(struct daemon *d, struct signer *signer)
{
	struct recover_point points[RECOVER_POINTS];
	struct evidence_limits limits;
	char why[EVIDENCE_WHY_MAX];

	load_alarm(d);
	if (log_start_points(signer, points) < 0) {
		log_error("msg=\"the signer does not answer\"");
		return EX_CANTCREAT;
	}
	config_limits(&d->config, &limits);
	/* Nothing is deleted before the cursors are read. */
	if (evidence_log_open(d->config.evidence_dir, &limits, 0, points, &d->log, why) < 0) {
		log_error("msg=\"cannot open the evidence log\" why=\"%s\"", why);
		return EX_CANTCREAT;
	}
	return decide(d, signer, points);
}

static void on_lost(void *ctx, uint64_t segment, const char *reason)
{
	char text[128];

	snprintf(text, sizeof(text), "segment %" PRIu64 " was %s while it was written", segment,
		 reason);
	log_error("msg=\"evidence was changed by somebody else; it goes on in a new segment\" "
		  "segment=%" PRIu64 " reason=%s",
		  segment, reason);
	daemon_raise_alarm(ctx, text);
}

int daemon_start_log_stream(struct daemon *d)
{
	const struct log_stream_options options = {
		.pipeline = d->pipeline,
		.log = d->log,
		.hostname = d->registry.hostname,
		.boot_id = d->registry.boot_id,
		.on_lost = on_lost,
		.ctx = d,
	};

	d->log_stream = log_stream_new(&options, &d->log_start);
	if (!d->log_stream) {
		log_error("msg=\"no memory\"");
		return EX_OSERR;
	}
	d->registry.log_stream = d->log_stream;
	return EX_OK;
}
