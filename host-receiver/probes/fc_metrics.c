/* SPDX-License-Identifier: MIT */
/*
 * host.fc_metrics: the metrics that the VMM writes to a file or a FIFO, one JSON document in each
 * line. Its counters are deltas, so every line is needed. Lines that are cut, or that run into the
 * next one, are counted.
 *
 * The VMM opens a file without O_APPEND and without O_TRUNC: after its restart it writes over the
 * old content, and after a rotation that truncates it leaves a hole. follow() notices both. The
 * folder may be a jailed VMM's own, so it is not trusted: no symbolic link is followed, and only a
 * file or a FIFO is opened.
 */
#include "host-receiver/probes/fc_metrics.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/probes/fc_api.h"
#include "host-receiver/probes/probe_file.h"

#define READ_SIZE (64u * 1024u)

struct fc_metrics {
	char *path, *api;	     /* api: NULL: the VMM is not asked to flush */
	unsigned api_skip, api_wait; /* readings to skip the API: now; after the next time-out */
	int fd;			     /* -1: the file does not exist yet */
	bool is_fifo;
	dev_t dev;
	ino_t ino;

	/* The position in a file, and the file's state when it was last read. */
	off_t offset, accepted_end; /* accepted_end: the end of the newest document */
	off_t old_end;		    /* while overwriting: lines that begin here or later are new */
	struct timespec seen_mtime;
	bool at_end;	    /* the last reading came to the end of the file */
	bool rescanning;    /* the file is read from its beginning again */
	bool overwriting;   /* older documents may follow */
	bool older_follows; /* an older document comes after the newest one */
	uint64_t older_than_ms, newest_ms;

	char *line; /* the beginning of a line; FC_DOCUMENT_MAX bytes, allocated only while there is
		       one */
	size_t line_len;
	bool discarding; /* the line is too long */
	char *held;	 /* from a FIFO: bytes that came too late for this reading */
	size_t held_len;
	uint64_t until_ns; /* the reading takes lines until this time */
	bool has_more;	   /* the source has more bytes than this reading took */

	struct fc_totals totals;
	uint64_t documents, bad_lines, reported_documents, reported_bad_lines;
	uint64_t vmm_connections, vmm_bytes;
	/* The newest document of this reading. */
	char *newest;
	size_t newest_len;
	struct json_document *doc, *scratch; /* only while reading */
};

static bool wanted(const struct probe_options *options)
{
	return options->fc_metrics != NULL;
}

static void close_probe(struct host_probe *probe)
{
	struct fc_metrics *fc = (struct fc_metrics *)probe;

	if (!fc)
		return;
	close_fd(fc->fd);
	fc_totals_done(&fc->totals);
	free(fc->path);
	free(fc->api);
	free(fc->line);
	free(fc->held);
	free(fc->newest);
	free(fc);
}

static struct host_probe *open_probe(const struct probe_options *options)
{
	struct fc_metrics *fc = calloc(1, sizeof(*fc));

	if (!fc)
		return NULL;
	fc->fd = -1;
	/* The old content of the file does not belong to this cell. */
	fc->older_than_ms = clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC;
	fc->path = strdup(options->fc_metrics);
	fc->api = options->fc_api ? strdup(options->fc_api) : NULL;
	if (!fc->path || (options->fc_api && !fc->api)) {
		close_probe((struct host_probe *)fc);
		return NULL;
	}
	return (struct host_probe *)fc;
}

/* ---- lines ---- */

static uint64_t total_of(const struct json_document *doc, const struct json_node *vsock,
			 const char *key)
{
	uint64_t v = 0;

	json_member_uint(doc, vsock, key, &v);
	return v;
}

static void keep_newest(struct fc_metrics *fc, const char *line, size_t len)
{
	char *copy = malloc(len);

	if (!copy)
		return;
	memcpy(copy, line, len);
	free(fc->newest);
	fc->newest = copy;
	fc->newest_len = len;
}

/* Remains of older lines do not count. */
static bool counts_bad(const struct fc_metrics *fc)
{
	return !fc->rescanning && !fc->overwriting;
}

/* True if a line of evidence can hold it and verify can read it back. */
static bool is_plain(const struct json_document *doc, const struct json_node *node, unsigned depth)
{
	if (memchr(node->key.data ? node->key.data : "", '\0', node->key.len))
		return false;
	if (node->type == JSON_INTEGER_NODE)
		return node->text.len <= FC_DIGITS_MAX;
	if (depth == FC_DEPTH_MAX)
		return node->type != JSON_OBJECT_NODE && node->type != JSON_ARRAY_NODE;
	for (const struct json_node *n = json_child(doc, node); n; n = json_sibling(doc, n))
		if (!is_plain(doc, n, depth + 1))
			return false;
	return true;
}

/* Returns 1 if the line was a document, counted or not; 0 if it was none; or -ENOMEM. */
static int take_document(struct fc_metrics *fc, const char *line, size_t len)
{
	const struct json_node *root, *vsock;
	const char *what;
	uint64_t at_ms = 0;
	int r = json_document_try(fc->doc, line, len);

	if (r <= 0)
		return r;
	root = json_document_root(fc->doc);
	if (root->type != JSON_OBJECT_NODE ||
	    !json_member_uint(fc->doc, root, "utc_timestamp_ms", &at_ms) ||
	    !is_plain(fc->doc, root, 0))
		return 0;
	/*
	 * Appended documents are new, even if the VMM's clock was set back. fc->offset is after the
	 * newline of this line.
	 */
	if (fc->overwriting && fc->offset - 1 - (off_t)len < fc->old_end &&
	    at_ms < MAX(fc->older_than_ms, fc->newest_ms)) {
		fc->older_follows = true;
		return 1;
	}
	r = fc_totals_add(&fc->totals, fc->doc, fc->scratch, &what);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	fc->documents++;
	fc->newest_ms = MAX(fc->newest_ms, at_ms);
	fc->older_follows = false;
	vsock = json_member(fc->doc, root, "vsock");
	fc->vmm_connections += total_of(fc->doc, vsock, "conns_added");
	fc->vmm_bytes += total_of(fc->doc, vsock, "tx_bytes_count");
	keep_newest(fc, line, len);
	return 1;
}

static bool is_blank(const char *line, size_t len)
{
	while (len > 0 && strchr(" \t\r", line[len - 1]))
		len--;
	return len == 0;
}

/*
 * A full FIFO can cut a line, which then runs into the next one. The next one begins where a
 * document begins. Returns 0 or -ENOMEM.
 */
static int take_line(struct fc_metrics *fc, const char *line, size_t len)
{
	static const char begin[] = "{\"utc_timestamp_ms\"";
	const char *end = line + len, *next;
	int r;

	if (is_blank(line, len))
		return 0;
	r = take_document(fc, line, (size_t)(end - line));
	if (r == 0) {
		fc->bad_lines += counts_bad(fc);
		next = line + 1 < end ? memmem(line + 1, (size_t)(end - line) - 1, begin,
					       sizeof(begin) - 1)
				      : NULL;
		r = next ? take_document(fc, next, (size_t)(end - next)) : 0;
	}
	if (r > 0)
		fc->accepted_end = fc->older_follows ? fc->accepted_end : fc->offset;
	return MIN(r, 0);
}

/*
 * Take bytes. fc->offset is after the last line taken. Returns how many bytes were taken (all of
 * them, or whole lines until the time was over), or -ENOMEM: then the next reading of a file begins
 * with the same line.
 */
static ssize_t take_bytes(struct fc_metrics *fc, const char *const data, const size_t size)
{
	const char *at = data, *const end = data + size;
	int r;

	while (at < end) {
		/* A hole: the file was truncated under its writer. */
		while (at < end && *at == '\0' && fc->line_len == 0 && !fc->discarding) {
			at++;
			fc->offset++;
		}
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const size_t n = (size_t)((newline ? newline : end) - at);

		if (!fc->line && !fc->discarding) {
			fc->line = malloc(FC_DOCUMENT_MAX);
			if (!fc->line)
				return -ENOMEM;
			fc->line_len = 0;
		}
		if (!fc->discarding && n > FC_DOCUMENT_MAX - fc->line_len) {
			fc->bad_lines += counts_bad(fc);
			fc->discarding = true;
			fc->line_len = 0;
		}
		if (!fc->discarding) {
			memcpy(fc->line + fc->line_len, at, n);
			fc->line_len += n;
		}
		fc->offset += (off_t)n + (newline ? 1 : 0);
		at += n + (newline ? 1 : 0);
		if (!newline)
			break;
		r = fc->discarding ? 0 : take_line(fc, fc->line, fc->line_len);
		if (r < 0)
			fc->offset -= (off_t)fc->line_len + 1;
		fc->discarding = false;
		fc->line_len = 0;
		if (r < 0)
			return r;
		if (monotonic_ns() >= fc->until_ns)
			break;
	}
	return at - data;
}

/* Drop the beginning of a line that will not end. */
static void drop_partial(struct fc_metrics *fc)
{
	fc->bad_lines += fc->line_len > 0 && counts_bad(fc);
	fc->line_len = 0;
	fc->discarding = false;
}

/* ---- the file ---- */

/* Bytes of a FIFO cannot be read again. */
static int hold(struct fc_metrics *fc, const char *data, size_t len)
{
	fc->held = malloc(len);
	if (!fc->held)
		return -ENOMEM;
	memcpy(fc->held, data, len);
	fc->held_len = len;
	return 0;
}

static int take_held(struct fc_metrics *fc)
{
	_cleanup_free_ char *held = take_ptr(fc->held);
	const size_t len = fc->held_len;
	const ssize_t taken = take_bytes(fc, held, len);

	if (taken < 0 || (size_t)taken == len)
		return taken < 0 ? (int)taken : 0;
	fc->has_more = true;
	return hold(fc, held + taken, len - (size_t)taken);
}

/*
 * Read to the end, or as much as one reading may take: FC_READ_MAX, until until_ns at the latest.
 */
static int drain(struct fc_metrics *fc)
{
	_cleanup_free_ char *buf = malloc(READ_SIZE);
	size_t left = FC_READ_MAX;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	if (fc->held)
		r = take_held(fc);
	while (r == 0 && !fc->has_more) {
		const ssize_t n = fc->is_fifo
					  ? read(fc->fd, buf, MIN(left, READ_SIZE))
					  : pread(fc->fd, buf, MIN(left, READ_SIZE), fc->offset);
		ssize_t taken;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0) {
			fc->at_end = true;
			return 0;
		}
		taken = take_bytes(fc, buf, (size_t)n);
		if (taken < 0)
			return (int)taken;
		left -= (size_t)n;
		fc->has_more = taken < n || left == 0;
		if (taken < n && fc->is_fifo)
			r = hold(fc, buf + taken, (size_t)(n - taken));
	}
	return r;
}

/* Read from the beginning again, and skip documents that were counted already. */
static void rescan(struct fc_metrics *fc)
{
	drop_partial(fc);
	if (!fc->overwriting)
		fc->old_end = fc->offset;
	fc->offset = fc->accepted_end = 0;
	fc->rescanning = fc->overwriting = true;
	fc->older_follows = false;
	if (fc->documents)
		fc->older_than_ms = MAX(fc->older_than_ms, fc->newest_ms + 1);
}

/* Holes are skipped, whatever their size. */
static int drain_from_data(struct fc_metrics *fc, off_t size)
{
	off_t data = lseek(fc->fd, fc->offset, SEEK_DATA);

	if (data < 0 && errno == ENXIO)
		data = size;
	if (data > fc->offset) {
		drop_partial(fc);
		fc->offset = data;
	}
	fc->at_end = false;
	return drain(fc);
}

/* Go to the end of the file, where the VMM will write. */
static void settle(struct fc_metrics *fc)
{
	if (!fc->at_end)
		return;
	fc->rescanning = false;
	if (fc->overwriting && fc->older_follows) {
		fc->line_len = 0;
		fc->discarding = false;
		fc->offset = fc->accepted_end;
	} else {
		fc->overwriting = false;
	}
}

/*
 * Read what was added to a file. Usually it has grown. If it is shorter, it was truncated. If it
 * was written to and has not grown, or if the new bytes are not whole lines, a restarted VMM writes
 * over it from the beginning.
 */
static int follow(struct fc_metrics *fc)
{
	const uint64_t documents = fc->documents, bad_lines = fc->bad_lines;
	uint64_t appended;
	off_t began;
	struct stat st;
	bool changed;
	int r;

	if (fstat(fc->fd, &st) < 0)
		return -errno;
	changed = st.st_mtim.tv_sec != fc->seen_mtime.tv_sec ||
		  st.st_mtim.tv_nsec != fc->seen_mtime.tv_nsec;
	if (fc->at_end && !changed && (fc->overwriting || st.st_size == fc->offset))
		return 0;
	if (st.st_size < fc->offset) {
		drop_partial(fc);
		fc->offset = fc->accepted_end = 0;
		fc->rescanning = fc->overwriting = false;
	} else if (fc->at_end && st.st_size == fc->offset) {
		rescan(fc);
	}
	/* The state before the reading: changes during the reading show next time. */
	fc->seen_mtime = st.st_mtim;
	began = fc->offset;
	r = drain_from_data(fc, st.st_size);
	if (r == 0 && began > 0 && fc->at_end && !fc->rescanning &&
	    (fc->bad_lines > bad_lines || (fc->overwriting && fc->documents == documents))) {
		appended = fc->documents;
		rescan(fc);
		r = drain_from_data(fc, st.st_size);
		/*
		 * Newer documents are at the beginning; these bytes are the rest of an older line.
		 */
		if (fc->documents > appended)
			fc->bad_lines = bad_lines;
	}
	settle(fc);
	return r;
}

static int read_file(struct fc_metrics *fc)
{
	return fc->fd < 0 ? 0 : fc->is_fifo ? drain(fc) : follow(fc);
}

static int open_file(struct fc_metrics *fc, int path_fd, const struct stat *st)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	drop_partial(fc);
	close_fd(fc->fd);
	fc->fd = fd;
	fc->is_fifo = S_ISFIFO(st->st_mode);
	fc->dev = st->st_dev;
	fc->ino = st->st_ino;
	fc->offset = fc->accepted_end = 0;
	fc->seen_mtime = (struct timespec){0};
	/*
	 * The file may hold documents of an earlier VMM; the documents of this one come after them.
	 */
	fc->overwriting = fc->rescanning = !fc->is_fifo;
	fc->old_end = st->st_size;
	fc->at_end = fc->older_follows = false;
	return 0;
}

/* Read the open file; then, if the path names another file by now, that one too. */
static int look(struct fc_metrics *fc, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int path_fd = probe_open_path(fc->path, O_PATH);
	struct stat st;
	int r = read_file(fc);

	if (r < 0)
		return probe_explain(why, -r, fc->path, "reading");
	if (fc->has_more)
		return 0;
	/* Renamed and not made again: the VMM still writes to it. */
	if (path_fd == -ENOENT && fc->fd >= 0)
		return 0;
	if (path_fd < 0 || fstat(path_fd, &st) < 0)
		return probe_explain(why, path_fd < 0 ? -path_fd : errno, fc->path, "");
	if (fc->fd >= 0 && st.st_dev == fc->dev && st.st_ino == fc->ino)
		return 0;
	if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode)) {
		snprintf(why, PROBE_WHY_MAX, "%.200s: neither a file nor a FIFO", fc->path);
		return -EINVAL;
	}
	/* A rotation made the new file, and it is empty: the VMM still writes to the old one. */
	if (fc->fd >= 0 && S_ISREG(st.st_mode) && st.st_size == 0)
		return 0;
	r = open_file(fc, path_fd, &st);
	if (r == 0)
		r = read_file(fc);
	return r < 0 ? probe_explain(why, -r, fc->path, "reading") : 0;
}

/* ---- the reading ---- */

struct cursor {
	const struct fc_metrics *fc;
	bool has_metrics;
	const struct json_document *metrics, *totals;
	const struct json_node *metric, *total; /* members that come next */
};

static void rewind_members(void *ctx)
{
	struct cursor *c = ctx;

	c->metric = c->has_metrics ? json_child(c->metrics, json_document_root(c->metrics)) : NULL;
	c->total = c->fc->totals.json ? json_child(c->totals, json_document_root(c->totals)) : NULL;
}

/* Members from *next on, as many as fit. */
static void put_members(struct json_writer *w, const struct json_document *doc,
			const struct json_node **next)
{
	json_put_begin_object(w);
	for (; *next; *next = json_sibling(doc, *next)) {
		const struct json_writer before = *w;

		json_put_key_text(w, (*next)->key);
		json_write_canonical(doc, *next, w);
		if (w->overflow || w->len + 128 > w->size) {
			*w = before;
			break;
		}
	}
	json_put_end_object(w);
}

static enum probe_part put_part(void *ctx, size_t part, size_t parts, struct json_writer *w)
{
	struct cursor *c = ctx;
	const struct json_node *metric = c->metric, *total = c->total;

	json_put_begin_object(w);
	json_put_kv_uint(w, "badLines", c->fc->bad_lines);
	json_put_kv_uint(w, "documents", c->fc->documents);
	json_put_key(w, "metrics");
	if (c->has_metrics)
		put_members(w, c->metrics, &c->metric);
	else
		json_put_null(w);
	probe_part_number(w, part, parts);
	json_put_key(w, "totals");
	if (c->metric) {
		json_put_begin_object(w);
		json_put_end_object(w);
	} else {
		put_members(w, c->totals, &c->total);
	}
	json_put_end_object(w);
	if (!c->metric && !c->total)
		return PROBE_PART_LAST;
	return c->metric != metric || c->total != total ? PROBE_PART_MORE : PROBE_PART_STUCK;
}

static char *write_inputs(const struct fc_metrics *fc)
{
	const size_t size = 4 * PROBE_PATH_MAX + 64;
	char *text = malloc(size);
	struct json_writer w;
	size_t len;

	if (!text)
		return NULL;
	json_writer_init(&w, text, size - 1);
	json_put_begin_object(&w);
	if (fc->api)
		json_put_kv_string(&w, "api", fc->api);
	json_put_kv_string(&w, "path", fc->path);
	json_put_end_object(&w);
	if (json_writer_done(&w, &len) < 0) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

static int write_reading(struct fc_metrics *fc, struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	struct probe_reading reading = {
		.taken_ns = ret->taken_ns,
		.vmm_connections = fc->vmm_connections,
		.vmm_bytes = fc->vmm_bytes,
	};
	struct cursor cursor = {
		.fc = fc,
		.has_metrics = fc->newest != NULL,
		.metrics = fc->doc,
		.totals = fc->scratch,
	};
	const char *what;
	size_t offset;
	int r = 0;

	if (fc->newest)
		r = json_document_read(fc->doc, fc->newest, fc->newest_len, &what, &offset);
	if (r == 0 && fc->totals.json)
		r = json_document_read(fc->scratch, fc->totals.json, fc->totals.len, &what,
				       &offset);
	reading.inputs = write_inputs(fc);
	if (r == 0)
		r = reading.inputs ? probe_reading_put(&reading, put_part, rewind_members, &cursor)
				   : -ENOMEM;
	if (r < 0) {
		if (r == -EFBIG)
			snprintf(why, PROBE_WHY_MAX,
				 "%.200s: the metrics of one device are more than a line of "
				 "evidence holds",
				 fc->path);
		probe_reading_done(&reading);
		return r;
	}
	*ret = reading;
	return 1;
}

/* Ask the VMM to write now. A slow VMM is asked less often, because other readings wait for it. */
static int flush(struct fc_metrics *fc, char why[PROBE_WHY_MAX])
{
	int r;

	if (fc->api_skip > 0) {
		fc->api_skip--;
		snprintf(why, PROBE_WHY_MAX,
			 "%.200s: the VMM's API does not answer; asked again later", fc->api);
		return -ETIMEDOUT;
	}
	r = fc_api_flush(fc->api, why);
	fc->api_wait = r == -ETIMEDOUT ? MIN(2 * fc->api_wait + 1, FC_API_SKIP_MAX) : 0;
	fc->api_skip = fc->api_wait;
	return r;
}

static int read_now(struct fc_metrics *fc, struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	const int flushed = fc->api ? flush(fc, why) : 0;
	char other[PROBE_WHY_MAX];
	int r;

	fc->has_more = false;
	fc->until_ns = monotonic_ns() + FC_TAKE_MS * NSEC_PER_MSEC;
	/*
	 * The lines that were read are evidence even if something failed. The first error is
	 * reported.
	 */
	r = look(fc, flushed < 0 ? other : why);
	if (r == 0 && fc->has_more && flushed == 0)
		snprintf(
			why, PROBE_WHY_MAX,
			"%.200s: more than one reading takes in (%u MiB, %u ms); the rest comes with the "
			"next",
			fc->path, FC_READ_MAX >> 20, FC_TAKE_MS);
	if (fc->documents == fc->reported_documents && fc->bad_lines == fc->reported_bad_lines)
		return flushed < 0 ? flushed : r;
	r = write_reading(fc, ret, why);
	if (r > 0) {
		fc->reported_documents = fc->documents;
		fc->reported_bad_lines = fc->bad_lines;
	}
	return r;
}

static int read_probe(struct host_probe *probe, struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	struct fc_metrics *fc = (struct fc_metrics *)probe;
	int r = -ENOMEM;

	ret->taken_ns = monotonic_ns();
	fc->doc = json_document_new(FC_DOCUMENT_MAX);
	fc->scratch = json_document_new(FC_DOCUMENT_MAX);
	if (fc->doc && fc->scratch)
		r = read_now(fc, ret, why);
	json_document_free(take_ptr(fc->doc));
	json_document_free(take_ptr(fc->scratch));
	free(take_ptr(fc->newest));
	if (fc->line_len == 0)
		free(take_ptr(fc->line));
	return r;
}

const struct host_probe_ops probe_fc_metrics = {
	.name = "fc_metrics",
	.source = "host.fc_metrics",
	.needs = "the file or FIFO to which the VMM writes its metrics",
	.event = EVENT_HOST_FC_METRICS,
	.is_history = true,
	.wanted = wanted,
	.open = open_probe,
	.read = read_probe,
	.close = close_probe,
};
