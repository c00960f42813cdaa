/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/retention.h"

/* This much of the log's end stays in the page cache, for programs that follow the log. */
#define CACHED_MAX (UINT64_C(16) * 1024 * 1024)

static struct folder_segment *newest(struct evidence_log *log)
{
	return folder_newest(&log->folder);
}

/* False: the queue is full, and the caller tries again later. */
static bool notify(struct evidence_log *log, const struct evidence_notice *notice)
{
	bool room;

	pthread_mutex_lock(&log->lock);
	room = log->n_notices < EVIDENCE_NOTICES_MAX;
	if (room)
		log->notices[log->n_notices++] = *notice;
	pthread_mutex_unlock(&log->lock);
	return room;
}

/* ---- sync ---- */

static bool is_behind(const struct evidence_position *a, const struct evidence_position *b)
{
	return a->segment < b->segment || (a->segment == b->segment && a->offset < b->offset);
}

/* Make the committed lines durable. Called with the lock held; releases it during the sync. */
static int sync_written(struct evidence_log *log)
{
	struct evidence_position from, to;
	uint64_t to_size;
	int fd, r = 0;

	while (log->syncing)
		pthread_cond_wait(&log->wake, &log->lock);
	from = log->durable;
	to = log->written;
	to_size = log->written_size;
	if (!is_behind(&from, &to))
		return 0;
	fd = fcntl(log->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	log->syncing = true;
	pthread_mutex_unlock(&log->lock);
	if (log->sync_error != 0)
		r = segment_write_again(fd, from.offset, to.offset);
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	close_fd(fd);
	pthread_mutex_lock(&log->lock);
	log->syncing = false;
	log->sync_error = r;
	if (r == 0) {
		log->durable = to;
		log->durable_size = to_size;
	}
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
	log->written_size = log->chain.frontier.size;
	if (durable) {
		log->durable = log->written;
		log->durable_size = log->written_size;
	}
	pthread_mutex_unlock(&log->lock);
}

/* With EVIDENCE_SYNC_OFF durable means written. */
static uint64_t durable_size(struct evidence_log *log)
{
	uint64_t size;

	if (log->limits.sync == EVIDENCE_SYNC_OFF)
		return log->chain.frontier.size;
	pthread_mutex_lock(&log->lock);
	size = log->durable_size;
	pthread_mutex_unlock(&log->lock);
	return size;
}

static void replace_fd(struct evidence_log *log, int fd)
{
	pthread_mutex_lock(&log->lock);
	while (log->syncing)
		pthread_cond_wait(&log->wake, &log->lock);
	close_fd(log->fd);
	log->fd = fd;
	pthread_mutex_unlock(&log->lock);
	if (fd >= 0)
		segment_read_access(fd, &log->access);
}

/* ---- segments ---- */

/* Sync the newest segment before another begins, in every sync mode. */
static int sync_newest(struct evidence_log *log)
{
	int r;

	if (log->fd < 0 || log->limits.sync == EVIDENCE_SYNC_BATCH)
		return 0;
	pthread_mutex_lock(&log->lock);
	r = sync_written(log);
	pthread_mutex_unlock(&log->lock);
	return r;
}

/* Write the first line, if the log has a tree, and make the segment durable. */
static int fill_segment(struct evidence_log *log, int fd, uint64_t *ret_size)
{
	char line[LINE_OWN_MAX];
	int len = 0, r;

	/* The umask must not change the mode. */
	if (fchmod(fd, EVIDENCE_SEGMENT_MODE) < 0)
		return -errno;
	if (*log->chain.origin) {
		struct iovec iov = {.iov_base = line};

		len = chain_segment_line(&log->chain, line);
		if (len < 0)
			return len;
		iov.iov_len = (size_t)len;
		r = segment_write(fd, &iov, 1, 0);
		if (r < 0)
			return r;
		if (fsync(fd) < 0)
			return -errno;
	}
	if (fsync(log->folder.fd) < 0)
		return -errno;
	*ret_size = (uint64_t)len;
	return 0;
}

static int begin_segment(struct evidence_log *log)
{
	_cleanup_close_ int fd = -1;
	char name[SEGMENT_NAME_MAX];
	uint64_t size = 0;
	int r = sync_newest(log);

	if (r < 0)
		return r;
	fd = segment_create(log->folder.fd, &log->next_number, name);
	if (fd < 0)
		return fd;
	r = fill_segment(log, fd, &size);
	if (r == 0)
		r = folder_add(&log->folder, log->next_number, log->chain.origin,
			       log->chain.frontier.size);
	if (r < 0) {
		unlinkat(log->folder.fd, name, 0);
		return r;
	}
	newest(log)->size = size;
	log->next_number++;
	replace_fd(log, take_fd(&fd));
	set_written(log, true);
	log->age_since_ns = monotonic_ns();
	log->age_before_ms = 0;
	log->uncached = 0;
	log->torn = false;
	log->retain_due = true;
	return 0;
}

static bool rotation_due(struct evidence_log *log, uint64_t more)
{
	const struct folder_segment *last = newest(log);
	const uint64_t age_ms =
		log->age_before_ms + (monotonic_ns() - log->age_since_ns) / NSEC_PER_MSEC;

	if (log->fd < 0)
		return true;
	if (last->size == 0 ||
	    (*log->chain.origin && log->chain.frontier.size == last->first_index))
		return false;
	return last->size + more > log->limits.rotate_size ||
	       (log->limits.rotate_age_ms > 0 && age_ms >= log->limits.rotate_age_ms);
}

/* If somebody else changed the newest segment, the next lines go into another one. */
static void watch(struct evidence_log *log)
{
	const struct folder_segment *last = newest(log);
	struct evidence_notice notice = {.kind = EVIDENCE_SEGMENT_LOST};

	if (log->fd < 0)
		return;
	notice.segment = last->number;
	notice.reason = segment_find_loss(log->folder.fd, log->fd, last->number, last->size,
					  log->torn, &log->access);
	if (!notice.reason || !notify(log, &notice))
		return;
	log->lost++;
	log->torn = false;
	/* Nothing more in it can become durable. */
	set_written(log, true);
	replace_fd(log, -1);
}

/* ---- retention ---- */

static void show(struct evidence_log *log)
{
	log->shown_segments = log->folder.n;
	log->shown_bytes = folder_bytes(&log->folder);
	log->shown_size = *log->chain.origin ? log->chain.frontier.size : 0;
}

/* Delete the segments whose deletion is recorded in the log. */
static void unlink_pruned(struct evidence_log *log)
{
	int error;
	const size_t n = retention_unlink(&log->folder, log->prune, &error);

	if (n == 0 && error == 0)
		return;
	log->retain_error = error;
	log->deleted += n;
	log->retain_due = true;
}

static void want_prune(struct evidence_log *log)
{
	struct evidence_notice notice;

	if (retention_choose(&log->folder, &log->limits, log->floor, log->noticed, &notice) > 0 &&
	    notify(log, &notice))
		log->noticed = notice.segment;
}

static void retain(struct evidence_log *log)
{
	unlink_pruned(log);
	if (!log->retain_due)
		return;
	log->retain_due = false;
	if (log->limits.retain_size > 0)
		want_prune(log);
}

/* ---- commit ---- */

static int cut_torn(struct evidence_log *log)
{
	if (log->torn && ftruncate(log->fd, (off_t)newest(log)->size) < 0)
		return -errno;
	log->torn = false;
	return 0;
}

/*
 * Drop durable lines from the page cache. They are read once, soon, or years later, and other
 * programs need the memory. Writing to pages that are used again is also cheaper than to new ones.
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
	struct folder_segment *last = newest(log);
	int r;

	log->torn = true;
	r = segment_write(log->fd, lines, n, last->size);
	/* If this fails, the next try writes all lines again: see segment_write_again(). */
	if (r == 0 && sync && fdatasync(log->fd) < 0)
		r = -errno;
	/* The tree covers the bytes that the file really has. So compare them after an error. */
	if (r == 0 && log->doubt)
		r = segment_compare(log->fd, lines, n, last->size);
	if (r < 0) {
		log->doubt = true;
		cut_torn(log);
		return r;
	}
	log->torn = log->doubt = false;
	last->size += bytes;
	if (sync)
		drop_cached(log);
	return 0;
}

static const char *origin_of(const struct evidence_group *group)
{
	return group->signer ? group->signer->origin : "";
}

/* Make sure that the newest segment has room for the group. */
static int make_room(struct evidence_log *log, const struct evidence_group *group, uint64_t bytes)
{
	int r;

	watch(log);
	if (log->fd >= 0) {
		r = cut_torn(log);
		if (r < 0)
			return r;
	}
	if (log->new_log || strcmp(origin_of(group), log->chain.origin) != 0) {
		r = sync_newest(log);
		if (r < 0)
			return r;
		chain_begin(&log->chain, origin_of(group));
		r = begin_segment(log);
		/* The origin is set now. If this failed, the next try is an ordinary rotation. */
		log->new_log = r < 0;
		return r;
	}
	return rotation_due(log, bytes) ? begin_segment(log) : 0;
}

static void mark_own(struct evidence_log *log)
{
	struct own_mark mark;

	pthread_mutex_lock(&log->lock);
	mark = log->mark;
	pthread_mutex_unlock(&log->lock);
	if (mark.segment > 0)
		own_mark_write(log->folder.fd, &mark, &log->marked);
}

static int log_commit(struct evidence_sink *sink, const struct evidence_group *group)
{
	struct evidence_log *log = (struct evidence_log *)sink;
	struct iovec lines[IOV_MAX];
	size_t n = group->n;
	uint64_t bytes = 0;
	bool sync;
	int r;

	if (n >= IOV_MAX)
		return -EINVAL;
	pthread_mutex_lock(&log->lock);
	log->limits = log->next_limits;
	pthread_mutex_unlock(&log->lock);
	sync = log->limits.sync == EVIDENCE_SYNC_BATCH;
	for (size_t i = 0; i < n; i++)
		bytes += group->lines[i].iov_len;
	r = make_room(log, group, bytes);
	if (r == 0 && group->signer)
		r = chain_sign(&log->chain, group, durable_size(log));
	if (r < 0)
		return r;
	memcpy(lines, group->lines, n * sizeof(*lines));
	if (group->signer) {
		lines[n++] = (struct iovec){
			.iov_base = log->chain.line,
			.iov_len = log->chain.line_len,
		};
		bytes += log->chain.line_len;
	}
	r = append(log, lines, n, bytes, sync);
	if (r < 0)
		return r;
	if (group->signer) {
		chain_accept(&log->chain);
		if (group->ret_checkpoint_len)
			*group->ret_checkpoint_len = log->chain.line_len;
	}
	set_written(log, sync);
	mark_own(log);
	retain(log);
	show(log);
	return 0;
}

/*
 * The thread of EVIDENCE_SYNC_INTERVAL. It syncs its own descriptor, so commits continue meanwhile.
 */
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

/* ---- begin and end ---- */

static void free_log(struct evidence_log *log)
{
	close_fd(log->fd);
	folder_close(&log->folder);
	chain_done(&log->chain);
	recovered_free(&log->found);
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
		unlink_pruned(log);
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
	log->sink.ops = &log_ops;
	log->folder = FOLDER_NONE;
	log->fd = -1;
	log->limits = log->next_limits = *limits;
	log->floor = floor;
	pthread_mutex_init(&log->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&log->wake, &attr);
	pthread_condattr_destroy(&attr);
	return log;
}

static int explain(char why[EVIDENCE_WHY_MAX], int error, const char *what)
{
	snprintf(why, EVIDENCE_WHY_MAX, "%s: %s", what, strerror(-error));
	return error;
}

int evidence_log_open(const char *dir, const struct evidence_limits *limits, uint64_t floor,
		      struct recover_point points[static RECOVER_POINTS], struct evidence_log **ret,
		      char why[EVIDENCE_WHY_MAX])
{
	struct evidence_log *log = new_log(limits, floor);
	int r;

	if (!log)
		return explain(why, -ENOMEM, "cannot open the evidence log");
	r = folder_open(&log->folder, dir, why);
	if (r == 0 && (r = chain_init(&log->chain)) < 0)
		explain(why, r, "cannot open the evidence log");
	if (r == 0 && (r = recover_read(&log->folder, points, &log->found)) < 0)
		explain(why, r, "cannot read the newest evidence");
	if (r == 0 && limits->sync == EVIDENCE_SYNC_INTERVAL) {
		r = -pthread_create(&log->syncer, NULL, syncer_main, log);
		log->has_syncer = r == 0;
		if (r < 0)
			explain(why, r, "cannot start a thread");
	}
	if (r < 0) {
		free_log(log);
		return r;
	}
	log->next_number = newest(log) ? newest(log)->number + 1 : 1;
	log->new_log = true;
	show(log);
	*ret = log;
	return 0;
}

const struct recovered *evidence_log_found(const struct evidence_log *log)
{
	return &log->found;
}

/* The process died during a rotation: the segment has no evidence yet. */
static int move_unbegun(struct evidence_log *log)
{
	char name[SEGMENT_NAME_MAX];
	const uint64_t number = newest(log)->number;
	_cleanup_close_ int fd = -1;
	int r = 0;

	segment_format_name(number, name);
	fd = openat(log->folder.fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (newest(log)->size > 0)
		r = segment_move_aside(log->folder.fd, fd, number, 0);
	if (r == 0 && (unlinkat(log->folder.fd, name, 0) < 0 || fsync(log->folder.fd) < 0))
		r = -errno;
	if (r == 0)
		folder_drop_newest(&log->folder);
	return r;
}

static int reopen_newest(struct evidence_log *log)
{
	struct folder_segment *last = newest(log);
	uint64_t birth_ms, now_ms;
	char name[SEGMENT_NAME_MAX];
	_cleanup_close_ int fd = -1;
	int r = 0;

	if (!last)
		return 0;
	segment_format_name(last->number, name);
	fd = openat(log->folder.fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (last->size > log->found.end)
		r = segment_move_aside(log->folder.fd, fd, last->number, log->found.end);
	/* Lines that a process wrote before it died are evidence; make them durable now. */
	else if (fdatasync(fd) < 0)
		r = -errno;
	if (r < 0)
		return r;
	last->size = log->found.end;
	birth_ms = segment_birth_ms(fd);
	now_ms = clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC;
	log->age_since_ns = monotonic_ns();
	log->age_before_ms = now_ms > birth_ms ? now_ms - birth_ms : 0;
	replace_fd(log, take_fd(&fd));
	set_written(log, true);
	return 0;
}

int evidence_log_continue(struct evidence_log *log, char why[EVIDENCE_WHY_MAX])
{
	const struct recovered *found = &log->found;
	int r = 0;

	if (found->no_first_line)
		r = move_unbegun(log);
	if (r == 0)
		r = reopen_newest(log);
	if (r < 0)
		return explain(why, r, "cannot repair the newest segment");
	if (found->tree)
		chain_resume(&log->chain, found->origin, &found->frontier, found->note,
			     found->note_len);
	log->new_log = !newest(log);
	show(log);
	return 0;
}

void evidence_log_begin(struct evidence_log *log)
{
	/* If it stays, verify names a log without entries, and nothing is lost. */
	if (log->found.no_first_line)
		move_unbegun(log);
	log->new_log = true;
}

struct evidence_sink *evidence_log_sink(struct evidence_log *log)
{
	return &log->sink;
}
