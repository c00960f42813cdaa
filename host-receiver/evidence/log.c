/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"
#include "host-receiver/evidence/segment.h"

#define SCAN_SIZE (256u * 1024u)
/* So much of the log's end stays in the page cache, for those who read along. */
#define CACHED_MAX (UINT64_C(16) * 1024 * 1024)

struct segment {
	uint64_t number, size;
};

struct evidence_log {
	struct evidence_sink sink; /* first */
	int dir_fd;		   /* holds the lock */

	/* The committer's. */
	struct evidence_limits limits; /* for this commit */
	struct segment *segments;      /* ascending; the last one is the newest */
	size_t n_segments, size_segments;
	uint64_t begun_ms; /* CLOCK_REALTIME when the newest segment began */
	uint64_t uncached; /* bytes of the newest segment that were dropped from the page cache */
	bool torn;	   /* behind the newest segment's size there may be bytes */

	/* Read and written by anybody, without waiting for a disk. */
	_Atomic uint64_t floor, shown_segments, shown_bytes, deleted;
	_Atomic int retain_error;
	_Atomic int sync_error; /* of the newest segment; 0 once a sync behind it was fine */

	/* Under the lock, which nobody holds during I/O. */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct evidence_limits next_limits;
	int fd; /* the newest segment; -1: none yet. Only the committer changes it */
	/* The end of the committed lines, and of those that a crash cannot take back. Both are in
	 * the newest segment: it is synced before another begins. */
	struct evidence_position written, durable;
	bool syncing; /* one at a time: an error is reported to one fdatasync(2) only */
	bool stop;

	bool has_syncer;
	pthread_t syncer;
};

static struct segment *newest(struct evidence_log *log)
{
	return log->n_segments > 0 ? &log->segments[log->n_segments - 1] : NULL;
}

static uint64_t realtime_ms(void)
{
	return clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC;
}

static int add_segment(struct evidence_log *log, uint64_t number, uint64_t size)
{
	if (log->n_segments == log->size_segments) {
		const size_t n = MAX(log->size_segments * 2, (size_t)64);
		struct segment *p = reallocarray(log->segments, n, sizeof(*p));

		if (!p)
			return -ENOMEM;
		log->segments = p;
		log->size_segments = n;
	}
	log->segments[log->n_segments++] = (struct segment){.number = number, .size = size};
	return 0;
}

/* ---- the start ----------------------------------------------------------------------------------
 */

static int compare_segments(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static int scan_folder(struct evidence_log *log)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int fd = openat(log->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(fd);
		return -ENOMEM;
	}
	while ((errno = 0, entry = readdir(dir))) {
		struct stat st;
		uint64_t number;

		if (!segment_parse_name(entry->d_name, &number))
			continue;
		if (fstatat(log->dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		if (!S_ISREG(st.st_mode))
			return -EMEDIUMTYPE;
		if (add_segment(log, number, (uint64_t)st.st_size) < 0)
			return -ENOMEM;
	}
	if (errno != 0)
		return -errno;
	if (log->n_segments > 0)
		qsort(log->segments, log->n_segments, sizeof(*log->segments), compare_segments);
	return 0;
}

/*
 * Where the whole lines end: after a crash of the process the last line may be cut, after one of
 * the machine there may be zeros where data never arrived.
 */
static int find_whole_lines(int fd, uint64_t *ret_end)
{
	_cleanup_free_ char *buf = malloc(SCAN_SIZE);
	uint64_t offset = 0, end = 0;
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	while ((n = pread(fd, buf, SCAN_SIZE, (off_t)offset)) > 0) {
		const char *zero = memchr(buf, 0, (size_t)n);
		const size_t len = zero ? (size_t)(zero - buf) : (size_t)n;
		const char *last = memrchr(buf, '\n', len);

		if (last)
			end = offset + (uint64_t)(last - buf) + 1;
		if (zero)
			break;
		offset += (uint64_t)n;
	}
	if (n < 0)
		return -errno;
	*ret_end = end;
	return 0;
}

#define TORN_NAME_MAX (SEGMENT_NAME_MAX + sizeof(EVIDENCE_TORN_SUFFIX))

static void torn_name(uint64_t number, char out[static TORN_NAME_MAX])
{
	snprintf(out, TORN_NAME_MAX, SEGMENT_PREFIX "%020" PRIu64 EVIDENCE_TORN_SUFFIX, number);
}

static bool was_torn(const struct evidence_log *log, uint64_t number)
{
	char name[TORN_NAME_MAX];

	torn_name(number, name);
	return faccessat(log->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Move what is behind end to a file of its own; only when it is safe there is it cut off here. */
static int move_aside(struct evidence_log *log, int fd, uint64_t number, uint64_t end)
{
	_cleanup_close_ int torn_fd = -1;
	_cleanup_free_ char *buf = malloc(SCAN_SIZE);
	char name[TORN_NAME_MAX];
	uint64_t offset = end;
	ssize_t n;
	int r;

	if (!buf)
		return -ENOMEM;
	torn_name(number, name);
	/* One that is there already is from a start that was cut short here: the same bytes. */
	torn_fd = openat(log->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
			 EVIDENCE_SEGMENT_MODE);
	if (torn_fd < 0)
		return -errno;
	while ((n = pread(fd, buf, SCAN_SIZE, (off_t)offset)) > 0) {
		r = write_all(torn_fd, buf, (size_t)n);
		if (r < 0)
			return r;
		offset += (uint64_t)n;
	}
	if (n < 0 || fsync(torn_fd) < 0 || fsync(log->dir_fd) < 0 ||
	    ftruncate(fd, (off_t)end) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

static uint64_t birth_ms(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0 || !(stx.stx_mask & STATX_BTIME))
		return realtime_ms();
	return (uint64_t)stx.stx_btime.tv_sec * MSEC_PER_SEC +
	       stx.stx_btime.tv_nsec / NSEC_PER_MSEC;
}

/*
 * Go on in the newest segment, unless it had a torn end, now or at a start that wrote nothing: then
 * the next commit begins another. So a segment is torn once at most.
 */
static int resume(struct evidence_log *log, struct evidence_repair *ret)
{
	struct segment *last = newest(log);
	_cleanup_close_ int fd = -1;
	char name[SEGMENT_NAME_MAX];
	uint64_t end = 0;
	int r;

	if (!last)
		return 0;
	segment_format_name(last->number, name);
	fd = openat(log->dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = find_whole_lines(fd, &end);
	if (r < 0)
		return r;
	if (end == last->size) {
		/* Whole lines that a process wrote and died are evidence: no crash takes them now.
		 */
		if (fdatasync(fd) < 0)
			return -errno;
		if (was_torn(log, last->number))
			return 0;
		log->begun_ms = birth_ms(fd);
		log->fd = take_fd(&fd);
		return 0;
	}
	r = move_aside(log, fd, last->number, end);
	if (r < 0)
		return r;
	*ret = (struct evidence_repair){.segment = last->number, .bytes = last->size - end};
	last->size = end;
	return 0;
}

/* ---- sync ---------------------------------------------------------------------------------------
 */

/*
 * After a sync that failed the kernel takes the pages for clean, and a next sync would succeed
 * without a write: only writing them again makes it say something.
 */
static int write_again(int fd, uint64_t from, uint64_t to)
{
	_cleanup_free_ char *buf = malloc(SCAN_SIZE);

	if (!buf)
		return -ENOMEM;
	while (from < to) {
		const size_t want = (size_t)MIN(to - from, (uint64_t)SCAN_SIZE);
		ssize_t n = pread(fd, buf, want, (off_t)from);

		if (n > 0)
			n = pwrite(fd, buf, (size_t)n, (off_t)from);
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from += (uint64_t)n;
	}
	return 0;
}

static bool is_behind(const struct evidence_position *a, const struct evidence_position *b)
{
	return a->segment < b->segment || (a->segment == b->segment && a->offset < b->offset);
}

/* Make what is committed durable. Under the lock, which is given up meanwhile. */
static int sync_written(struct evidence_log *log)
{
	struct evidence_position from, to;
	int fd, r = 0;

	while (log->syncing)
		pthread_cond_wait(&log->wake, &log->lock);
	from = log->durable;
	to = log->written;
	if (!is_behind(&from, &to))
		return 0;
	fd = fcntl(log->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	log->syncing = true;
	pthread_mutex_unlock(&log->lock);
	if (log->sync_error != 0)
		r = write_again(fd, from.offset, to.offset);
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	close_fd(fd);
	pthread_mutex_lock(&log->lock);
	log->syncing = false;
	log->sync_error = r;
	if (r == 0)
		log->durable = to;
	pthread_cond_broadcast(&log->wake);
	return r;
}

static void set_written(struct evidence_log *log, bool durable)
{
	pthread_mutex_lock(&log->lock);
	log->written = (struct evidence_position){
		.segment = newest(log)->number,
		.offset = newest(log)->size,
	};
	if (durable)
		log->durable = log->written;
	pthread_mutex_unlock(&log->lock);
}

/* ---- segments -----------------------------------------------------------------------------------
 */

static int begin_segment(struct evidence_log *log)
{
	const struct segment *last = newest(log);
	const uint64_t number = last ? last->number + 1 : 1;
	_cleanup_close_ int fd = -1;
	char name[SEGMENT_NAME_MAX];
	int r;

	/* What the other sync modes have left is not left for ever. */
	if (log->fd >= 0 && log->limits.sync != EVIDENCE_SYNC_BATCH) {
		pthread_mutex_lock(&log->lock);
		r = sync_written(log);
		pthread_mutex_unlock(&log->lock);
		if (r < 0)
			return r;
	}
	segment_format_name(number, name);
	fd = openat(log->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    EVIDENCE_SEGMENT_MODE);
	if (fd < 0)
		return -errno;
	/* Whatever the umask. */
	if (fchmod(fd, EVIDENCE_SEGMENT_MODE) < 0 || fsync(log->dir_fd) < 0)
		r = -errno;
	else
		r = add_segment(log, number, 0);
	if (r < 0) {
		unlinkat(log->dir_fd, name, 0);
		return r;
	}
	pthread_mutex_lock(&log->lock);
	close_fd(log->fd);
	log->fd = take_fd(&fd);
	pthread_mutex_unlock(&log->lock);
	set_written(log, true);
	log->begun_ms = realtime_ms();
	log->uncached = 0;
	return 0;
}

static bool rotation_due(struct evidence_log *log, uint64_t more)
{
	const struct segment *last = newest(log);
	const uint64_t now_ms = realtime_ms();

	if (log->fd < 0)
		return true;
	if (last->size == 0)
		return false;
	return last->size + more > log->limits.rotate_size ||
	       (log->limits.rotate_age_ms > 0 && now_ms > log->begun_ms &&
		now_ms - log->begun_ms >= log->limits.rotate_age_ms);
}

static uint64_t total_size(const struct evidence_log *log)
{
	uint64_t total = 0;

	for (size_t i = 0; i < log->n_segments; i++)
		total += log->segments[i].size;
	return total;
}

static void show(struct evidence_log *log)
{
	log->shown_segments = log->n_segments;
	log->shown_bytes = total_size(log);
}

/* Whole segments, the oldest first, and none that a reader still needs. */
static void retain(struct evidence_log *log)
{
	uint64_t total = total_size(log);
	size_t n = 0;
	int error = 0;

	if (log->limits.retain_size == 0)
		return;
	while (n + 1 < log->n_segments && total > log->limits.retain_size &&
	       log->segments[n].number < log->floor) {
		char name[SEGMENT_NAME_MAX];

		segment_format_name(log->segments[n].number, name);
		if (unlinkat(log->dir_fd, name, 0) < 0 && errno != ENOENT) {
			error = -errno;
			break;
		}
		total -= log->segments[n++].size;
	}
	if (n > 0 && fsync(log->dir_fd) < 0)
		error = -errno;
	log->retain_error = error;
	if (n == 0)
		return;
	log->n_segments -= n;
	log->deleted += n;
	memmove(log->segments, log->segments + n, log->n_segments * sizeof(*log->segments));
}

/* ---- commit -------------------------------------------------------------------------------------
 */

/* All of the lines from offset on. */
static int write_lines(int fd, const struct iovec *lines, size_t n, uint64_t offset)
{
	struct iovec left[IOV_MAX];
	size_t first = 0;

	memcpy(left, lines, n * sizeof(*left));
	while (first < n) {
		ssize_t written = pwritev(fd, left + first, (int)(n - first), (off_t)offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		offset += (uint64_t)written;
		while (written > 0) {
			const size_t take = MIN((size_t)written, left[first].iov_len);

			left[first].iov_base = (char *)left[first].iov_base + take;
			left[first].iov_len -= take;
			written -= (ssize_t)take;
			if (left[first].iov_len == 0)
				first++;
		}
	}
	return 0;
}

static int cut_torn(struct evidence_log *log)
{
	if (log->torn && ftruncate(log->fd, (off_t)newest(log)->size) < 0)
		return -errno;
	log->torn = false;
	return 0;
}

/*
 * What is on disk is read once, soon, or years later: it need not push what others use out of the
 * page cache. And pages that come back are cheaper to write to than ever new ones.
 */
static void drop_cached(struct evidence_log *log)
{
	const uint64_t size = newest(log)->size;

	if (size - log->uncached < 2 * CACHED_MAX)
		return;
	posix_fadvise(log->fd, (off_t)log->uncached, (off_t)(size - CACHED_MAX - log->uncached),
		      POSIX_FADV_DONTNEED);
	log->uncached = size - CACHED_MAX;
}

static int append(struct evidence_log *log, const struct iovec *lines, size_t n, uint64_t bytes,
		  bool sync)
{
	struct segment *last = newest(log);
	int r;

	log->torn = true;
	r = write_lines(log->fd, lines, n, last->size);
	/* When this fails the next try writes all of them again: see write_again(). */
	if (r == 0 && sync && fdatasync(log->fd) < 0)
		r = -errno;
	if (r < 0) {
		cut_torn(log);
		return r;
	}
	log->torn = false;
	last->size += bytes;
	if (sync)
		drop_cached(log);
	return 0;
}

static int log_commit(struct evidence_sink *sink, const struct iovec *lines, size_t n,
		      uint64_t n_lines)
{
	struct evidence_log *log = (struct evidence_log *)sink;
	uint64_t bytes = 0;
	int r;

	(void)n_lines;
	if (n > IOV_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		bytes += lines[i].iov_len;
	pthread_mutex_lock(&log->lock);
	log->limits = log->next_limits;
	pthread_mutex_unlock(&log->lock);
	r = cut_torn(log);
	if (r == 0 && rotation_due(log, bytes)) {
		r = begin_segment(log);
		if (r == 0)
			retain(log);
	}
	if (r == 0)
		r = append(log, lines, n, bytes, log->limits.sync == EVIDENCE_SYNC_BATCH);
	if (r == 0)
		set_written(log, log->limits.sync == EVIDENCE_SYNC_BATCH);
	show(log);
	return r;
}

/* The interval's thread. It syncs a descriptor of its own, so that commits go on meanwhile. */
static void *syncer_main(void *arg)
{
	struct evidence_log *log = arg;

	pthread_mutex_lock(&log->lock);
	while (!log->stop) {
		const uint64_t until = monotonic_ns() + EVIDENCE_SYNC_INTERVAL_MS * NSEC_PER_MSEC;
		const struct timespec ts = {
			.tv_sec = (time_t)(until / NSEC_PER_SEC),
			.tv_nsec = (long)(until % NSEC_PER_SEC),
		};

		while (!log->stop &&
		       pthread_cond_timedwait(&log->wake, &log->lock, &ts) != ETIMEDOUT)
			;
		if (!log->stop && log->fd >= 0)
			sync_written(log);
	}
	pthread_mutex_unlock(&log->lock);
	return NULL;
}

static void free_log(struct evidence_log *log)
{
	close_fd(log->fd);
	close_fd(log->dir_fd);
	free(log->segments);
	pthread_cond_destroy(&log->wake);
	pthread_mutex_destroy(&log->lock);
	free(log);
}

static int log_close(struct evidence_sink *sink)
{
	struct evidence_log *log = (struct evidence_log *)sink;
	int r = 0;

	if (log->has_syncer) {
		pthread_mutex_lock(&log->lock);
		log->stop = true;
		pthread_cond_broadcast(&log->wake);
		pthread_mutex_unlock(&log->lock);
		pthread_join(log->syncer, NULL);
	}
	if (log->fd >= 0) {
		cut_torn(log);
		pthread_mutex_lock(&log->lock);
		r = sync_written(log);
		pthread_mutex_unlock(&log->lock);
	}
	free_log(log);
	return r;
}

static const struct evidence_sink_ops log_ops = {.commit = log_commit, .close = log_close};

static struct evidence_log *new_log(const struct evidence_limits *limits, uint64_t floor)
{
	struct evidence_log *log = calloc(1, sizeof(*log));
	pthread_condattr_t attr;

	if (!log)
		return NULL;
	*log = (struct evidence_log){
		.sink.ops = &log_ops,
		.dir_fd = -1,
		.fd = -1,
		.limits = *limits,
		.next_limits = *limits,
		.floor = floor,
	};
	pthread_mutex_init(&log->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&log->wake, &attr);
	pthread_condattr_destroy(&attr);
	return log;
}

static int explain(char why[EVIDENCE_WHY_MAX], int error, const char *dir, const char *what)
{
	snprintf(why, EVIDENCE_WHY_MAX, "%.300s: %s: %s", dir, what, strerror(-error));
	return error;
}

static int open_folder(struct evidence_log *log, const char *dir, char why[EVIDENCE_WHY_MAX])
{
	log->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->dir_fd < 0)
		return explain(why, -errno, dir, "cannot open the evidence folder");
	if (flock(log->dir_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return explain(why, -errno, dir, "cannot lock the evidence folder");
	snprintf(why, EVIDENCE_WHY_MAX, "%.300s: another process writes this evidence log", dir);
	return -EBUSY;
}

int evidence_log_open(const char *dir, const struct evidence_limits *limits, uint64_t floor,
		      struct evidence_log **ret, struct evidence_repair *ret_repair,
		      char why[EVIDENCE_WHY_MAX])
{
	struct evidence_log *log = new_log(limits, floor);
	struct evidence_repair repair = {0};
	int r;

	if (!log)
		return explain(why, -ENOMEM, dir, "cannot open the evidence log");
	r = open_folder(log, dir, why);
	if (r < 0)
		goto fail;
	r = scan_folder(log);
	if (r < 0) {
		explain(why, r, dir, "cannot list the segments");
		goto fail;
	}
	r = resume(log, &repair);
	if (r < 0) {
		explain(why, r, dir, "cannot repair the newest segment");
		goto fail;
	}
	if (log->n_segments > 0)
		set_written(log, true);
	if (limits->sync == EVIDENCE_SYNC_INTERVAL) {
		r = -pthread_create(&log->syncer, NULL, syncer_main, log);
		if (r < 0) {
			explain(why, r, dir, "cannot start a thread");
			goto fail;
		}
		log->has_syncer = true;
	}
	show(log);
	*ret_repair = repair;
	*ret = log;
	return 0;
fail:
	free_log(log);
	return r;
}

struct evidence_sink *evidence_log_sink(struct evidence_log *log)
{
	return &log->sink;
}

void evidence_log_set_limits(struct evidence_log *log, const struct evidence_limits *limits)
{
	pthread_mutex_lock(&log->lock);
	log->next_limits.rotate_size = limits->rotate_size;
	log->next_limits.rotate_age_ms = limits->rotate_age_ms;
	log->next_limits.retain_size = limits->retain_size;
	pthread_mutex_unlock(&log->lock);
}

void evidence_log_set_floor(struct evidence_log *log, uint64_t floor)
{
	log->floor = floor;
}

uint64_t evidence_log_segments(struct evidence_log *log)
{
	return log->shown_segments;
}

uint64_t evidence_log_bytes(struct evidence_log *log)
{
	return log->shown_bytes;
}

uint64_t evidence_log_deleted(struct evidence_log *log)
{
	return log->deleted;
}

int evidence_log_background_error(struct evidence_log *log)
{
	const int error = log->sync_error;

	return error ? error : log->retain_error;
}

struct evidence_position evidence_log_end(struct evidence_log *log)
{
	struct evidence_position end;

	pthread_mutex_lock(&log->lock);
	end = log->next_limits.sync == EVIDENCE_SYNC_OFF ? log->written : log->durable;
	pthread_mutex_unlock(&log->lock);
	return end;
}
