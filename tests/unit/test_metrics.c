/* SPDX-License-Identifier: MIT */
/* The pages of the metrics server, over its socket: each number in its place, and clients that
 * wait. */
#include "host-receiver/metrics/http.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/unit/unit.h"

#define PATIENCE_MS 60000
#define PAGE_MAX    65536u
#define PREFIX	    "cellos_host_telemetry_"
#define STALL_NS    (METRICS_LOOP_STALL_MS * NSEC_PER_MSEC)

static char dir[64], path[96], where[128], page[PAGE_MAX];
static struct evidence_log *evidence;
static struct pipeline_stats pipeline_numbers;
static struct cell_registry registry;
static struct metrics_health health;
static struct metrics_server *server;

/* The monotonic clock of this program stands still, so far ahead of some instant. */
static _Atomic uint64_t ahead_ns;

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	if (clock != CLOCK_MONOTONIC)
		return __real_clock_gettime(clock, ret);
	*ret = (struct timespec){.tv_sec = 1000 + (time_t)(ahead_ns / NSEC_PER_SEC),
				 .tv_nsec = (long)(ahead_ns % NSEC_PER_SEC)};
	return 0;
}

static void open_log(void)
{
	static struct recover_point points[RECOVER_POINTS];
	const struct evidence_limits limits = {.rotate_size = EVIDENCE_ROTATE_SIZE_DEFAULT};
	char why[EVIDENCE_WHY_MAX];

	ck_assert_int_eq(evidence_log_open(dir, &limits, UINT64_MAX, points, &evidence, why), 0);
}

static int open_server(char why[METRICS_WHY_MAX])
{
	return metrics_server_new(where, &pipeline_numbers, evidence, &server, why);
}

static void set_up(void)
{
	char why[METRICS_WHY_MAX] = "";

	strcpy(dir, "/tmp/cellos-metrics-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(where, sizeof(where), "unix:%s", path);
	memset(&pipeline_numbers, 0, sizeof(pipeline_numbers));
	memset(&registry, 0, sizeof(registry));
	memset(&health, 0, sizeof(health));
	ahead_ns = 0;
	open_log();
	ck_assert_msg(open_server(why) == 0, "%s", why);
}

static void tear_down(void)
{
	char command[96];

	metrics_server_free(server);
	ck_assert_int_ne(access(path, F_OK), 0);
	evidence_log_sink(evidence)->ops->close(evidence_log_sink(evidence));
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static int connect_to_server(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Put the whole answer into page. Returns its length; 0: the server closed without one. */
static size_t ask_once(const char *request)
{
	const int fd = connect_to_server();
	size_t len = 0;
	ssize_t n;

	send(fd, request, strlen(request), MSG_NOSIGNAL);
	while ((n = recv(fd, page + len, sizeof(page) - 1 - len, 0)) > 0)
		len += (size_t)n;
	close(fd);
	page[len] = '\0';
	return len;
}

/*
 * Returns the status of the answer; 0: there is none. libmicrohttpd has a clock of its own: if this
 * process stood still before it sent its request, the connection is gone, and it asks again.
 */
static int ask(const char *method, const char *url)
{
	char request[128];

	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, url);
	for (int tries = 0; tries < 10; tries++)
		if (ask_once(request) > 0)
			return atoi(page + strlen("HTTP/1.1 "));
	return 0;
}

static const char *body(void)
{
	const char *end = strstr(page, "\r\n\r\n");

	ck_assert_ptr_nonnull(end);
	return end + 4;
}

static void publish(bool per_cell)
{
	metrics_server_publish(server, &registry, &health, per_cell);
}

/* ---- numbers ---- */

static unsigned expected;

/* The page has this sample, once. */
static _printf_(1, 2) void expect(const char *format, ...)
{
	char sample[160] = "\n" PREFIX;
	const size_t len = strlen(sample);
	const char *found;
	va_list ap;

	va_start(ap, format);
	vsnprintf(sample + len, sizeof(sample) - len - 1, format, ap);
	va_end(ap);
	strcat(sample, "\n");
	found = strstr(page, sample);
	ck_assert_msg(found != NULL, "no%s", sample);
	ck_assert_msg(strstr(found + 1, sample) == NULL, "twice:%s", sample);
	expected++;
}

/* The page has the samples that were expected, and no other. */
static void expect_no_more(void)
{
	unsigned samples = 0;

	for (const char *at = strchr(body() - 1, '\n'); at; at = strchr(at + 1, '\n'))
		samples += at[1] != '#' && at[1] != '\0';
	ck_assert_uint_eq(samples, expected);
}

static const struct cell_registry_stats registry_numbers = {
	.frames = 101,
	.bytes = 102,
	.connections = 103,
	.contested = 104,
	.gaps = 105,
	.reads_paused = 106,
	.no_descriptor = 107,
	.repeated = 108,
	.sessions_evicted = 109,
	.guest_dropped = 110,
	.guest_kernel_lost = 111,
	.probes_stuck = 112,
	.cells = 113,
	.active = 114,
	.silent = 115,
};

static void expect_registry(void)
{
	expect("frames_received_total 101");
	expect("bytes_received_total 102");
	expect("connections_total 103");
	expect("connections_contested_total 104");
	expect("sequence_gaps_total 105");
	expect("reads_paused_total 106");
	expect("connections_no_descriptor_total 107");
	expect("frames_repeated_total 108");
	expect("sessions_evicted_total 109");
	expect("guest_dropped_total 110");
	expect("guest_kernel_lost_total 111");
	expect("probe_readings_stuck 112");
	expect("cells 113");
	expect("connections_active 114");
	expect("cells_silent 115");
}

static void set_tables(struct cell_registry_stats *s)
{
	for (unsigned i = 0; i < _WIRE_ERROR_MAX; i++)
		s->rejected[i] = 1000 + i;
	for (unsigned i = 0; i < _EVENT_TYPE_MAX; i++)
		s->events[i] = 2000 + i;
	for (unsigned i = 0; i < _PROBE_KIND_MAX; i++) {
		s->probe_readings[i] = 3000 + i;
		s->probe_failures[i] = 4000 + i;
	}
	for (unsigned i = 0; i < _CEILING_MAX; i++)
		s->limit_hits[i] = 5000 + i;
}

static void expect_tables(void)
{
	for (unsigned i = WIRE_OK + 1; i < _WIRE_ERROR_MAX; i++)
		expect("frames_rejected_total{reason=\"%s\"} %u",
		       wire_error_name((enum wire_error)i), 1000 + i);
	for (unsigned i = 0; i < _EVENT_TYPE_MAX; i++)
		if (i != EVENT_GUEST_FIRST + WIRE_TELEMETRY_HEARTBEAT)
			expect("events_total{type=\"%s\"} %u", event_short_name((enum event_type)i),
			       2000 + i);
	for (unsigned i = 0; i < _PROBE_KIND_MAX; i++) {
		expect("probe_readings_total{probe=\"%s\"} %u", host_probe_table[i]->name,
		       3000 + i);
		expect("probe_failures_total{probe=\"%s\"} %u", host_probe_table[i]->name,
		       4000 + i);
	}
	for (unsigned i = 0; i < _CEILING_MAX; i++)
		expect("rate_limited_total{limit=\"%s\"} %u", ceiling_name((enum ceiling)i),
		       5000 + i);
}

static void set_pipeline(void)
{
	pipeline_numbers.inflight_bytes = 201;
	pipeline_numbers.bytes = 202;
	pipeline_numbers.lines = 203;
	for (size_t i = 0; i < PIPELINE_BUCKETS; i++) {
		pipeline_numbers.commit.count[i] = i + 1;
		pipeline_numbers.sign.count[i] = 100;
	}
	pipeline_numbers.commit.sum_us = 1500000;
	pipeline_numbers.sign.sum_us = 7;
}

/* The buckets are cumulative; their bounds are seconds. */
static void expect_pipeline(void)
{
	size_t n = 0;

	expect("inflight_bytes 201");
	expect("log_bytes_total 202");
	expect("log_lines_total 203");
	for (size_t i = 0; i < PIPELINE_BUCKETS - 1; i++) {
		const double bound = (double)pipeline_bucket_us[i] / 1e6;

		expect("commit_seconds_bucket{le=\"%g\"} %zu", bound, n += i + 1);
		expect("sign_seconds_bucket{le=\"%g\"} %zu", bound, (i + 1) * 100);
	}
	expect("commit_seconds_bucket{le=\"+Inf\"} %zu", n + PIPELINE_BUCKETS);
	expect("sign_seconds_bucket{le=\"+Inf\"} %u", PIPELINE_BUCKETS * 100);
	expect("commit_seconds_sum 1.500000");
	expect("commit_seconds_count %zu", n + PIPELINE_BUCKETS);
	expect("sign_seconds_sum 0.000007");
	expect("sign_seconds_count %u", PIPELINE_BUCKETS * 100);
}

static void set_health(void)
{
	health = (struct metrics_health){
		.cells_unserved = 301,
		.oldest_inflight_ms = 1302,
		.algorithm = "ed25519",
		.kid = "k1",
		.fingerprint = "f1",
		.alarm = true,
		.forwards = true,
		.forward_restarts = 303,
		.forward = {.state = FORWARD_CONNECTED,
			    .read = 304,
			    .published = 305,
			    .acked = 306,
			    .duplicates = 307,
			    .retries = 308,
			    .skipped = 309,
			    .cursor_lost = 310,
			    .lag_events = 311,
			    .lag_ms = 1312,
			    .unacked_ms = 1313},
	};
	for (unsigned i = 0; i < _FORWARD_ERROR_MAX; i++)
		health.forward.errors[i] = 6000 + i;
}

static void expect_health(void)
{
	expect("cells_unserved 301");
	expect("inflight_oldest_seconds 1.302");
	expect("signing_info{algorithm=\"ed25519\",kid=\"k1\",fingerprint=\"f1\"} 1");
	expect("alarm 1");
	expect("build_info{version=\"" CELLOS_VERSION "\"} 1");
	expect("log_segments 0");
	expect("log_segments_deleted_total 0");
	expect("log_segments_lost_total 0");
	expect("log_size 0");
}

static void expect_forward(void)
{
	expect("forward_restarts_total 303");
	expect("forward_read_total 304");
	expect("forward_published_total 305");
	expect("forwarded_total 306");
	expect("forward_duplicates_total 307");
	expect("forward_retries_total 308");
	expect("forward_skipped_total 309");
	expect("forward_cursor_lost_total 310");
	expect("forward_lag_events 311");
	expect("forward_lag_seconds 1.312");
	expect("forward_oldest_unacked_seconds 1.313");
	expect("forward_connected 1");
	for (unsigned i = FORWARD_OK + 1; i < _FORWARD_ERROR_MAX; i++)
		expect("forward_errors_total{reason=\"%s\"} %u",
		       forward_error_name((enum forward_error)i), 6000 + i);
}

UNIT_TEST(each_number_is_in_its_place)
{
	for (int forwards = 0; forwards < 2; forwards++) {
		registry.stats = registry_numbers;
		set_tables(&registry.stats);
		set_pipeline();
		set_health();
		health.forwards = forwards;
		publish(true);
		ck_assert_int_eq(ask("GET", "/metrics"), 200);
		ck_assert_ptr_nonnull(strstr(
			page, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
		expected = 0;
		expect_registry();
		expect_tables();
		expect_pipeline();
		expect_health();
		if (forwards)
			expect_forward();
		expect_no_more();
	}
	health.forward.state = FORWARD_WAITING;
	health.alarm = false;
	publish(false);
	ck_assert_int_eq(ask("GET", "/metrics"), 200);
	expect("forward_connected 0");
	expect("alarm 0");
}

/* Each series of a cell, with the number of that cell. */
static void expect_cell(const char *id, unsigned from, bool connected, bool silent)
{
	static const char *const names[] = {"events_total",	      "frames_received_total",
					    "frames_rejected_total",  "bytes_received_total",
					    "sequence_gaps_total",    "guest_dropped_total",
					    "guest_kernel_lost_total"};

	expect("cell_connected{cell=\"%s\"} %d", id, connected);
	expect("cell_silent{cell=\"%s\"} %d", id, silent);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		expect("cell_%s{cell=\"%s\"} %u", names[i], id, from + i);
}

static void set_cell(struct cell *cell, const char *id, unsigned from)
{
	cell->options.cell_id = id;
	cell->stream.sequence = from;
	cell->frames = from + 1;
	cell->frames_rejected = from + 2;
	cell->bytes = from + 3;
	cell->gaps = from + 4;
	cell->guest.counted[GUEST_DROPPED] = from + 5;
	cell->guest.counted[GUEST_KERNEL_LOST] = from + 6;
}

UNIT_TEST(cells_have_their_own_numbers_if_wanted)
{
	static struct cell a, b;

	a.next = &b;
	set_cell(&a, "web-7", 10);
	set_cell(&b, "db.1:x_y", 30);
	/* Only whether there is one is looked at. */
	a.active = (struct connection *)&a;
	b.keepalive.silent = true;
	registry.cells = &a;
	registry.stats.cells = 2;
	for (int times = 0; times < 2; times++) {
		publish(true);
		ck_assert_int_eq(ask("GET", "/metrics"), 200);
		expect_cell("web-7", 10, true, false);
		expect_cell("db.1:x_y", 30, false, true);
	}
	publish(false);
	ck_assert_int_eq(ask("GET", "/metrics"), 200);
	ck_assert_ptr_null(strstr(page, "{cell="));
	ck_assert_ptr_null(strstr(page, PREFIX "cell_"));
	/* The server frees them at its end, too. */
	publish(true);
}

/* ---- health ---- */

UNIT_TEST(a_healthy_daemon_says_so)
{
	publish(false);
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
	ck_assert_str_eq(body(), "ok\n");
	ck_assert_int_eq(ask("GET", "/readyz"), 200);
	ck_assert_str_eq(body(), "ok\n");
	ck_assert_int_eq(ask("HEAD", "/metrics"), 200);
	ck_assert_str_eq(body(), "");
	ck_assert_int_eq(ask("GET", "/metricsz"), 404);
	ck_assert_str_eq(body(), "there are /metrics, /healthz and /readyz\n");
	ck_assert_int_eq(ask("POST", "/metrics"), 0);
}

UNIT_TEST(each_reason_is_a_line_of_readyz)
{
	strcpy(health.reasons, "an alarm stands\nthe signer is down\n");
	publish(false);
	ck_assert_int_eq(ask("GET", "/readyz"), 503);
	ck_assert_str_eq(body(), "an alarm stands\nthe signer is down\n");
	pipeline_numbers.sink_error = -ENOSPC;
	ck_assert_int_eq(ask("GET", "/readyz"), 503);
	ck_assert_str_eq(body(), "the evidence log: No space left on device\n"
				 "an alarm stands\nthe signer is down\n");
	*health.reasons = '\0';
	publish(false);
	ck_assert_int_eq(ask("GET", "/readyz"), 503);
	ck_assert_str_eq(body(), "the evidence log: No space left on device\n");
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
	pipeline_numbers.sink_error = 0;
	ck_assert_int_eq(ask("GET", "/readyz"), 200);
}

UNIT_TEST(a_loop_that_stands_still_shows)
{
	publish(false);
	ahead_ns = STALL_NS - 1;
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
	ahead_ns = STALL_NS;
	ck_assert_int_eq(ask("GET", "/healthz"), 503);
	ck_assert_str_eq(body(), "the loop does not turn\n");
	ck_assert_int_eq(ask("GET", "/readyz"), 503);
	ck_assert_str_eq(body(), "the loop does not turn\n");
	ck_assert_int_eq(ask("GET", "/metrics"), 200);
	publish(false);
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
}

/* ---- clients ---- */

/* Send a byte now and then, until the server closes. */
static void expect_cut(int fd)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	char byte;

	for (int ms = 0; poll(&wait, 1, 100) == 0; ms += 100) {
		ck_assert_int_lt(ms, PATIENCE_MS);
		send(fd, "x", 1, MSG_NOSIGNAL);
	}
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

UNIT_TEST(slow_clients_are_cut)
{
	static const char part[] = "GET /metrics HTTP/1.1\r\nX: ";
	int slow[3];

	for (size_t i = 0; i < ARRAY_SIZE(slow); i++) {
		slow[i] = connect_to_server();
		send(slow[i], part, strlen(part), MSG_NOSIGNAL);
	}
	/* Connections are accepted in their order: with this answer the server has all of them. */
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
	/* One that leaves by itself is not among them any more. */
	close(slow[1]);
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
	ahead_ns = METRICS_REQUEST_MS * NSEC_PER_MSEC;
	publish(false);
	expect_cut(slow[0]);
	expect_cut(slow[2]);
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
}

/* ---- the socket ---- */

UNIT_TEST(the_path_is_taken_or_stale)
{
	struct metrics_server *first = server;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char why[METRICS_WHY_MAX] = "", want[METRICS_WHY_MAX];
	int fd;

	ck_assert_int_eq(open_server(why), -EADDRINUSE);
	snprintf(want, sizeof(want), "[metrics] listen = %s: Address already in use", where);
	ck_assert_str_eq(why, want);
	ck_assert_int_eq(access(path, F_OK), 0);
	metrics_server_free(first);
	ck_assert_int_ne(access(path, F_OK), 0);
	/* A file belongs to somebody else. */
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(open_server(why), -EEXIST);
	ck_assert_int_eq(rmdir(path), 0);
	/* Nobody listens on this socket: it was left from an earlier run. */
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	ck_assert_msg(open_server(why) == 0, "%s", why);
	publish(false);
	ck_assert_int_eq(ask("GET", "/healthz"), 200);
}

UNIT_TEST(addresses_that_cannot_be)
{
	static const struct {
		const char *where;
		int error;
	} cases[] = {
		{"nowhere", -EADDRNOTAVAIL},
		{"127.0.0.1", -EADDRNOTAVAIL},
		{"unix:/nonexistent/sock", -ENOENT},
		{"unix:/tmp/"
		 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		 "xxxxxxxxxxxxxxxxxxxxxxxx",
		 -ENAMETOOLONG},
	};
	struct metrics_server *none = NULL;
	char why[METRICS_WHY_MAX], want[METRICS_WHY_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		*why = '\0';
		ck_assert_int_eq(
			metrics_server_new(cases[i].where, &pipeline_numbers, evidence, &none, why),
			cases[i].error);
		ck_assert_ptr_null(none);
		snprintf(want, sizeof(want), "[metrics] listen = %s: %s", cases[i].where,
			 strerror(-cases[i].error));
		ck_assert_str_eq(why, want);
	}
	metrics_server_free(NULL);
	metrics_server_publish(NULL, &registry, &health, true);
}

UNIT_SUITE(.setup = set_up, .teardown = tear_down);
