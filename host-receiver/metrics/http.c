/* SPDX-License-Identifier: MIT */
/*
 * Two threads meet here. The loop thread calls metrics_server_publish() once a second, which copies
 * the numbers into struct metrics_server. The thread of libmicrohttpd calls on_request() and
 * on_client(), and prints pages from that copy. The atomic counters of the pipeline and of the log
 * are read directly. Each lock is held for a short time, except cells_lock: the printing thread
 * holds it for a whole page, so the loop only tries to take it.
 */
#include "host-receiver/metrics/http.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/stat.h>

#include "common/listen_address.h"
#include "common/unix_path.h"

#define PREFIX	 "cellos_host_telemetry_"
#define US_PER_S 1000000.0

/* A connection, from its accept to its close. Guarded by clients_lock. */
struct http_client {
	struct http_client *next, **link;
	int fd; /* libmicrohttpd owns and closes it */
	uint64_t since_ns;
};

/* A cell's numbers, copied by the loop thread. */
struct cell_numbers {
	char id[CELL_ID_MAX + 1];
	bool connected, silent;
	uint64_t sequence, frames, frames_rejected, bytes, gaps, guest_dropped, guest_kernel_lost;
};

struct metrics_server {
	struct MHD_Daemon *http;
	const struct pipeline_stats *stats; /* borrowed; atomic */
	struct evidence_log *log;	    /* borrowed */
	char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];

	pthread_mutex_t lock; /* guards the three fields below; held only while they are copied */
	struct cell_registry_stats loop;
	struct metrics_health health;
	uint64_t published_ns;

	pthread_mutex_t clients_lock;
	struct http_client *clients; /* list */

	pthread_mutex_t cells_lock; /* guards the two fields below; held while they are printed */
	struct cell_numbers *cells; /* owned; NULL: per_cell is off, or there are none */
	size_t n_cells;
};

/* ---- the pages ---- */

/*
 * The format is Prometheus' text format 0.0.4. docs/reference/metrics.md has the same list, and a
 * test compares the two.
 */
static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void put(FILE *f, const char *name, const char *type, const char *help, uint64_t v)
{
	head(f, name, type, help);
	fprintf(f, PREFIX "%s %" PRIu64 "\n", name, v);
}

/* Prometheus wants cumulative buckets, in seconds. */
static void put_histogram(FILE *f, const char *name, const char *help,
			  const struct pipeline_histogram *h)
{
	uint64_t n = 0;

	head(f, name, "histogram", help);
	for (size_t i = 0; i < PIPELINE_BUCKETS; i++) {
		n += h->count[i];
		if (i < PIPELINE_BUCKETS - 1)
			fprintf(f, PREFIX "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name,
				(double)pipeline_bucket_us[i] / US_PER_S, n);
		else
			fprintf(f, PREFIX "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, n);
	}
	fprintf(f, PREFIX "%s_sum %.6f\n" PREFIX "%s_count %" PRIu64 "\n", name,
		(double)h->sum_us / US_PER_S, name, n);
}

static void put_by_kind(FILE *f, const struct cell_registry_stats *s)
{
	head(f, "frames_rejected_total", "counter", "Frames that became no declaration.");
	for (int i = WIRE_OK + 1; i < _WIRE_ERROR_MAX; i++)
		fprintf(f, PREFIX "frames_rejected_total{reason=\"%s\"} %" PRIu64 "\n",
			wire_error_name((enum wire_error)i), s->rejected[i]);
	head(f, "events_total", "counter", "Events of the evidence.");
	for (int i = 0; i < _EVENT_TYPE_MAX; i++)
		/* Heartbeats make no event. */
		if (i != EVENT_GUEST_FIRST + WIRE_TELEMETRY_HEARTBEAT)
			fprintf(f, PREFIX "events_total{type=\"%s\"} %" PRIu64 "\n",
				event_short_name((enum event_type)i), s->events[i]);
}

static void put_by_probe(FILE *f, const char *name, const char *help,
			 const uint64_t counts[_PROBE_KIND_MAX])
{
	head(f, name, "counter", help);
	for (int i = 0; i < _PROBE_KIND_MAX; i++)
		fprintf(f, PREFIX "%s{probe=\"%s\"} %" PRIu64 "\n", name, host_probe_table[i]->name,
			counts[i]);
}

static void put_by_ceiling(FILE *f, const uint64_t hits[_CEILING_MAX])
{
	head(f, "rate_limited_total", "counter",
	     "Times that a cell's ceiling paused its reading; connections above the rate.");
	for (enum ceiling i = 0; i < _CEILING_MAX; i++)
		fprintf(f, PREFIX "rate_limited_total{limit=\"%s\"} %" PRIu64 "\n", ceiling_name(i),
			hits[i]);
}

static void put_seconds(FILE *f, const char *name, const char *help, uint64_t ms)
{
	head(f, name, "gauge", help);
	fprintf(f, PREFIX "%s %.3f\n", name, (double)ms / (double)MSEC_PER_SEC);
}

static void put_forward(FILE *f, const struct metrics_health *health)
{
	const struct forward_status *s = &health->forward;

	if (!health->forwards)
		return;
	put(f, "forward_connected", "gauge", "The forwarder has its server and stream.",
	    s->state == FORWARD_CONNECTED);
	put(f, "forward_read_total", "counter", "Entries that the forwarder read.", s->read);
	put(f, "forward_published_total", "counter", "Messages sent.", s->published);
	put(f, "forwarded_total", "counter", "Messages acknowledged.", s->acked);
	put(f, "forward_duplicates_total", "counter", "Messages that the stream held already.",
	    s->duplicates);
	put(f, "forward_retries_total", "counter", "Messages that were sent again.", s->retries);
	put(f, "forward_skipped_total", "counter", "Entries that the server never takes.",
	    s->skipped);
	put(f, "forward_cursor_lost_total", "counter",
	    "Times that the forwarder had to begin at the oldest segment.", s->cursor_lost);
	put(f, "forward_restarts_total", "counter", "Times that the forwarder's process ended.",
	    health->forward_restarts);
	head(f, "forward_errors_total", "counter", "Errors that stopped the forwarding.");
	for (int i = FORWARD_OK + 1; i < _FORWARD_ERROR_MAX; i++)
		fprintf(f, PREFIX "forward_errors_total{reason=\"%s\"} %" PRIu64 "\n",
			forward_error_name((enum forward_error)i), s->errors[i]);
	put(f, "forward_lag_events", "gauge", "Durable entries that are not acknowledged.",
	    s->lag_events);
	put_seconds(f, "forward_lag_seconds", "Age of the oldest entry not acknowledged.",
		    s->lag_ms);
	put_seconds(f, "forward_oldest_unacked_seconds",
		    "How long the oldest message waits for its acknowledgement.", s->unacked_ms);
}

/* Everything except the numbers of single cells. */
static void put_all(FILE *f, const struct metrics_server *m, const struct cell_registry_stats *s,
		    const struct metrics_health *health)
{
	put(f, "frames_received_total", "counter", "Frames read from guests.", s->frames);
	put(f, "bytes_received_total", "counter", "Bytes read from guests.", s->bytes);
	put_by_kind(f, s);
	put(f, "frames_repeated_total", "counter",
	    "Frames that came again after a reconnect and were in the evidence already.",
	    s->repeated);
	put(f, "sessions_evicted_total", "counter",
	    "Sessions whose numbers were forgotten for a newer one of the same cell.",
	    s->sessions_evicted);
	put_by_ceiling(f, s->limit_hits);
	put(f, "connections_active", "gauge", "Cells whose agent is connected.", s->active);
	put(f, "connections_total", "counter", "Connections that became active.", s->connections);
	put(f, "connections_contested_total", "counter",
	    "Connections refused: a second one, or a peer with the wrong credentials.",
	    s->contested);
	put(f, "connections_no_descriptor_total", "counter",
	    "Connections closed because no file descriptor was left.", s->no_descriptor);
	put(f, "cells", "gauge", "Cells served.", s->cells);
	put(f, "cells_unserved", "gauge", "Cells of the last run that cannot be served.",
	    health->cells_unserved);
	put(f, "cells_silent", "gauge", "Cells whose agent is silent.", s->silent);
	put(f, "guest_dropped_total", "counter", "Observations that agents say they dropped.",
	    s->guest_dropped);
	put(f, "guest_kernel_lost_total", "counter", "Losses before the agents, by their word.",
	    s->guest_kernel_lost);
	put(f, "sequence_gaps_total", "counter", "Gaps in the numbers of the guests' frames.",
	    s->gaps);
	put(f, "reads_paused_total", "counter",
	    "Times that reading stopped because too much was in flight.", s->reads_paused);
	put_by_probe(f, "probe_readings_total", "Readings of host probes.", s->probe_readings);
	put_by_probe(f, "probe_failures_total", "Readings of host probes that failed.",
		     s->probe_failures);
	put(f, "probe_readings_stuck", "gauge", "Readings that hang, and hold a thread each.",
	    s->probes_stuck);
	put(f, "inflight_bytes", "gauge", "Memory of the events that are not committed yet.",
	    m->stats->inflight_bytes);
	head(f, "inflight_oldest_seconds", "gauge", "Age of the oldest event not committed yet.");
	fprintf(f, PREFIX "inflight_oldest_seconds %.3f\n",
		(double)health->oldest_inflight_ms / (double)MSEC_PER_SEC);
	put(f, "log_bytes_total", "counter", "Bytes of evidence committed.", m->stats->bytes);
	put(f, "log_lines_total", "counter", "Records of evidence committed.", m->stats->lines);
	put(f, "log_segments", "gauge", "Segments of the evidence log.",
	    evidence_log_segments(m->log));
	put(f, "log_segments_deleted_total", "counter", "Segments that retention deleted.",
	    evidence_log_deleted(m->log));
	put(f, "log_segments_lost_total", "counter",
	    "Segments that somebody removed, replaced or changed.", evidence_log_lost(m->log));
	put(f, "log_size", "gauge", "Entries in the log's signed tree.", evidence_log_size(m->log));
	put_histogram(f, "commit_seconds", "From a frame read to its evidence on disk, by batch.",
		      &m->stats->commit);
	put_histogram(f, "sign_seconds", "Writing and signing a batch.", &m->stats->sign);
	head(f, "signing_info", "gauge", "How evidence is signed.");
	fprintf(f, PREFIX "signing_info{algorithm=\"%s\",kid=\"%s\",fingerprint=\"%s\"} 1\n",
		health->algorithm, health->kid, health->fingerprint);
	put(f, "alarm", "gauge", "An alarm of the evidence log stands.", health->alarm);
	put_forward(f, health);
	head(f, "build_info", "gauge", "The version that runs.");
	fputs(PREFIX "build_info{version=\"" CELLOS_VERSION "\"} 1\n", f);
}

/* The series with a label for the cell; only with per_cell. */
static const struct {
	const char *name, *type, *help;
	size_t offset; /* in struct cell_numbers */
	bool boolean;
} cell_series[] = {
#define NUMBER(member) .offset = offsetof(struct cell_numbers, member)
	{"cell_connected", "gauge", "The cell's agent is connected.", NUMBER(connected), true},
	{"cell_silent", "gauge", "The cell's agent is silent.", NUMBER(silent), true},
	{"cell_events_total", "counter", "Events of the cell's stream.", NUMBER(sequence)},
	{"cell_frames_received_total", "counter", "Frames read from the cell.", NUMBER(frames)},
	{"cell_frames_rejected_total", "counter", "Frames of the cell that became no declaration.",
	 NUMBER(frames_rejected)},
	{"cell_bytes_received_total", "counter", "Bytes read from the cell.", NUMBER(bytes)},
	{"cell_sequence_gaps_total", "counter", "Gaps in the numbers of the guest's frames.",
	 NUMBER(gaps)},
	{"cell_guest_dropped_total", "counter", "Observations that the agent says it dropped.",
	 NUMBER(guest_dropped)},
	{"cell_guest_kernel_lost_total", "counter", "Losses before the agent, by its word.",
	 NUMBER(guest_kernel_lost)},
#undef NUMBER
};

/* A cell's id needs no escape in a label: cell/options.c allows only [A-Za-z0-9._:-]. */
static void put_cells(FILE *f, struct metrics_server *m)
{
	pthread_mutex_lock(&m->cells_lock);
	for (size_t i = 0; i < ARRAY_SIZE(cell_series) && m->n_cells > 0; i++) {
		head(f, cell_series[i].name, cell_series[i].type, cell_series[i].help);
		for (size_t j = 0; j < m->n_cells; j++) {
			const char *at = (const char *)&m->cells[j] + cell_series[i].offset;

			fprintf(f, PREFIX "%s{cell=\"%s\"} %" PRIu64 "\n", cell_series[i].name,
				m->cells[j].id,
				cell_series[i].boolean ? (uint64_t) * (const bool *)at
						       : *(const uint64_t *)at);
		}
	}
	pthread_mutex_unlock(&m->cells_lock);
}

/*
 * Copy the numbers that the loop published last. Returns false if they are older than
 * METRICS_LOOP_STALL_MS: then the loop hangs.
 */
static bool loop_turns(struct metrics_server *m, struct cell_registry_stats *ret,
		       struct metrics_health *ret_health)
{
	uint64_t published_ns;

	pthread_mutex_lock(&m->lock);
	*ret = m->loop;
	*ret_health = m->health;
	published_ns = m->published_ns;
	pthread_mutex_unlock(&m->lock);
	return monotonic_ns() - published_ns < METRICS_LOOP_STALL_MS * NSEC_PER_MSEC;
}

/* Write the reasons why the daemon is not ready. Returns false if it is ready. */
static bool put_reasons(FILE *f, struct metrics_server *m, const struct metrics_health *health)
{
	const int sink = m->stats->sink_error, background = evidence_log_background_error(m->log);

	if (sink || background)
		fprintf(f, "the evidence log: %s\n", strerror(-(sink ? sink : background)));
	fputs(health->reasons, f);
	return sink || background || *health->reasons;
}

/*
 * Write the body of the answer to f. Returns the HTTP status. /metrics is answered even if the loop
 * hangs, with the last numbers.
 */
static unsigned answer_to(struct metrics_server *m, const char *url, FILE *f)
{
	struct cell_registry_stats stats;
	struct metrics_health health;
	const bool turns = loop_turns(m, &stats, &health);

	if (strcmp(url, "/metrics") == 0) {
		put_all(f, m, &stats, &health);
		put_cells(f, m);
		return MHD_HTTP_OK;
	}
	if (strcmp(url, "/healthz") != 0 && strcmp(url, "/readyz") != 0) {
		fputs("there are /metrics, /healthz and /readyz\n", f);
		return MHD_HTTP_NOT_FOUND;
	}
	if (!turns) {
		fputs("the loop does not turn\n", f);
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	}
	if (strcmp(url, "/readyz") == 0 && put_reasons(f, m, &health))
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	fputs("ok\n", f);
	return MHD_HTTP_OK;
}

/* libmicrohttpd calls it for each request. MHD_NO closes the connection without an answer. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **state)
{
	struct MHD_Response *response;
	enum MHD_Result result;
	unsigned status;
	size_t len = 0;
	char *body = NULL;
	FILE *f;

	(void)version;
	(void)upload;
	(void)upload_size;
	(void)state;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return MHD_NO;
	f = open_memstream(&body, &len);
	if (!f)
		return MHD_NO;
	status = answer_to(ctx, url, f);
	if (fclose(f) != 0 || !body) {
		free(body);
		return MHD_NO;
	}
	response = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(body);
		return MHD_NO;
	}
	/* Each connection has one request, so that METRICS_REQUEST_MS limits the request. */
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
				"text/plain; version=0.0.4; charset=utf-8");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

/* ---- clients ---- */

static void remember_client(struct metrics_server *m, struct MHD_Connection *connection, void **ret)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct http_client *c = info ? calloc(1, sizeof(*c)) : NULL;

	*ret = c;
	if (!c)
		return;
	c->fd = info->connect_fd;
	c->since_ns = monotonic_ns();
	c->next = m->clients;
	c->link = &m->clients;
	if (c->next)
		c->next->link = &c->next;
	m->clients = c;
}

static void forget_client(struct http_client *c)
{
	if (!c)
		return;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	free(c);
}

/*
 * libmicrohttpd calls it after the accept, and again before it closes the descriptor. So a
 * descriptor in the list is always open.
 */
static void on_client(void *ctx, struct MHD_Connection *connection, void **client,
		      enum MHD_ConnectionNotificationCode what)
{
	struct metrics_server *m = ctx;

	pthread_mutex_lock(&m->clients_lock);
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		remember_client(m, connection, client);
	else
		forget_client(*client);
	pthread_mutex_unlock(&m->clients_lock);
}

/*
 * Shut slow connections down. libmicrohttpd only limits the time between two bytes, so a client
 * could send one byte now and then for ever.
 */
static void cut_slow_clients(struct metrics_server *m)
{
	const uint64_t now_ns = monotonic_ns();

	pthread_mutex_lock(&m->clients_lock);
	for (const struct http_client *c = m->clients; c; c = c->next)
		if (now_ns - c->since_ns >= METRICS_REQUEST_MS * NSEC_PER_MSEC)
			shutdown(c->fd, SHUT_RDWR);
	pthread_mutex_unlock(&m->clients_lock);
}

/* ---- the socket ---- */

static int explain(char why[METRICS_WHY_MAX], int error, const char *where)
{
	snprintf(why, METRICS_WHY_MAX, "[metrics] listen = %.200s: %s", where, strerror(error));
	return -error;
}

static int listen_unix(struct metrics_server *m, const char *path, int *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int alive;

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return fd < 0 ? -errno : -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	/*
	 * A socket at the path may be left from an earlier run. It is removed only if nobody
	 * listens on it.
	 */
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return -EEXIST;
		alive = unix_path_is_alive(&address);
		if (alive != 0)
			return alive < 0 ? alive : -EADDRINUSE;
		unlink(path);
	}
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		return -errno;
	strcpy(m->socket_path, path);
	*ret = take_fd(&fd);
	return 0;
}

/*
 * Without SO_REUSEADDR a restart would have to wait for old connections in TIME_WAIT (socket(7)).
 */
static int listen_inet(const char *where, int *ret)
{
	struct sockaddr_storage address;
	_cleanup_close_ int fd = -1;
	const int one = 1;

	if (!listen_address_parse(where, &address))
		return -EADDRNOTAVAIL;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address,
		 address.ss_family == AF_INET ? sizeof(struct sockaddr_in)
					      : sizeof(struct sockaddr_in6)) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		return -errno;
	*ret = take_fd(&fd);
	return 0;
}

int metrics_server_new(const char *where, const struct pipeline_stats *stats,
		       struct evidence_log *log, struct metrics_server **ret,
		       char why[METRICS_WHY_MAX])
{
	struct metrics_server *m = calloc(1, sizeof(*m));
	int fd, r;

	if (!m)
		return explain(why, ENOMEM, where);
	m->stats = stats;
	m->log = log;
	m->published_ns = monotonic_ns();
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->cells_lock, NULL);
	pthread_mutex_init(&m->clients_lock, NULL);
	r = strncmp(where, "unix:", 5) == 0 ? listen_unix(m, where + 5, &fd)
					    : listen_inet(where, &fd);
	if (r < 0) {
		explain(why, -r, where);
		metrics_server_free(m);
		return r;
	}
	/* epoll(7) and not select(2): with thousands of cells, descriptors are above FD_SETSIZE. */
	m->http = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, m,
				   MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
				   METRICS_CLIENTS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
				   METRICS_PER_ADDRESS, MHD_OPTION_CONNECTION_TIMEOUT,
				   (unsigned)(METRICS_REQUEST_MS / MSEC_PER_SEC),
				   MHD_OPTION_NOTIFY_CONNECTION, on_client, m, MHD_OPTION_END);
	if (!m->http) {
		close_fd(fd);
		metrics_server_free(m);
		return explain(why, EAGAIN, where);
	}
	*ret = m;
	return 0;
}

/* An owned array. NULL: no memory, and then no cell is shown. */
static struct cell_numbers *copy_cells(const struct cell_registry *registry, size_t *ret_n)
{
	struct cell_numbers *cells = calloc(MAX(registry->stats.cells, 1u), sizeof(*cells));
	size_t n = 0;

	for (const struct cell *cell = registry->cells; cells && cell; cell = cell->next) {
		struct cell_numbers *to = &cells[n++];

		snprintf(to->id, sizeof(to->id), "%s", cell->options.cell_id);
		to->connected = cell->active != NULL;
		to->silent = cell->keepalive.silent;
		to->sequence = cell->stream.sequence;
		to->frames = cell->frames;
		to->frames_rejected = cell->frames_rejected;
		to->bytes = cell->bytes;
		to->gaps = cell->gaps;
		to->guest_dropped = cell->guest.counted[GUEST_DROPPED];
		to->guest_kernel_lost = cell->guest.counted[GUEST_KERNEL_LOST];
	}
	*ret_n = n;
	return cells;
}

void metrics_server_publish(struct metrics_server *m, const struct cell_registry *registry,
			    const struct metrics_health *health, bool per_cell)
{
	struct cell_numbers *cells;
	size_t n = 0;

	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->loop = registry->stats;
	m->health = *health;
	m->published_ns = monotonic_ns();
	pthread_mutex_unlock(&m->lock);
	cut_slow_clients(m);
	/*
	 * If a page is being printed now, the loop does not wait for it: it publishes again in a
	 * second.
	 */
	if (pthread_mutex_trylock(&m->cells_lock) != 0)
		return;
	cells = per_cell ? copy_cells(registry, &n) : NULL;
	free(m->cells);
	m->cells = cells;
	m->n_cells = n;
	pthread_mutex_unlock(&m->cells_lock);
}

void metrics_server_free(struct metrics_server *m)
{
	if (!m)
		return;
	if (m->http)
		MHD_stop_daemon(m->http);
	if (*m->socket_path)
		unlink(m->socket_path);
	pthread_mutex_destroy(&m->clients_lock);
	pthread_mutex_destroy(&m->cells_lock);
	pthread_mutex_destroy(&m->lock);
	free(m->cells);
	free(m);
}
