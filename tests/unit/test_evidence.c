/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"
#include "host-receiver/evidence/segment_io.h"
#include "host-receiver/evidence/cursor.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/evidence/reader.h"
#include "tests/unit/unit.h"

static char dir[64];
static atomic_bool syncs_fail, folders_fail, only_folders_fail, reads_fail;
static atomic_int interrupted; /* so many writes */
static atomic_ullong written;  /* bytes of segments */
static atomic_bool garbled;    /* other bytes are written, as many */

/* The same for folders and new segments. */
int fsync(int fd)
{
	struct stat st;

	if (folders_fail || (only_folders_fail && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
	if (reads_fail) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	if (interrupted > 0) {
		interrupted--;
		errno = EINTR;
		return -1;
	}
	for (int i = 0; i < n; i++)
		written += iov[i].iov_len;
	if (garbled)
		return syscall(SYS_pwrite64, fd, "garbage", MIN(iov->iov_len, (size_t)7), offset);
	return syscall(SYS_pwritev, fd, iov, (unsigned long)n, (unsigned long)offset, 0ul);
}

/* With this the log's own thread syncs when the test says so, and at no other time. */
static atomic_bool sync_when_asked;
static sem_t sync_asked;

/*
 * The first sync fails, after another caller has come to the log's syncs: it waits for the first,
 * or is in the kernel at the same time.
 */
static atomic_bool first_sync_waits;
static atomic_int in_sync, most_in_sync;
static sem_t first_sync, another_came;

/* In the place of libc's, for the log as well: a disk that dies and comes back. */
int fdatasync(int fd)
{
	const int n = ++in_sync;
	int r = -1;

	most_in_sync = MAX(most_in_sync, n);
	if (sync_when_asked && n > 1)
		sem_post(&another_came);
	if (atomic_exchange(&first_sync_waits, false)) {
		sem_post(&first_sync);
		sem_wait(&another_came);
		errno = EIO;
	} else if (syncs_fail) {
		errno = EIO;
	} else {
		r = (int)syscall(SYS_fdatasync, fd);
	}
	in_sync--;
	return r;
}

/* The linker puts these three in the place of libc's. */
int __real_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t)
{
	if (!sync_when_asked)
		return __real_pthread_cond_timedwait(c, m, t);
	pthread_mutex_unlock(m);
	sem_wait(&sync_asked);
	pthread_mutex_lock(m);
	return ETIMEDOUT;
}

int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	if (sync_when_asked && in_sync > 0)
		sem_post(&another_came);
	return __real_pthread_cond_wait(c, m);
}

static bool no_memory_for_lists;

DIR *__real_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd)
{
	if (!no_memory_for_lists)
		return __real_fdopendir(fd);
	errno = ENOMEM;
	return NULL;
}

static atomic_int realtime_behind_s;

/* In the place of libc's as well: a wall clock that was set back. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
	const int r = (int)syscall(SYS_clock_gettime, clock, ts);

	if (clock == CLOCK_REALTIME)
		ts->tv_sec -= realtime_behind_s;
	return r;
}

static const struct evidence_limits usual = {.rotate_size = EVIDENCE_ROTATE_SIZE_DEFAULT};

static void make_folder(void)
{
	strcpy(dir, "/tmp/cellos-evidence-XXXXXX");
	ck_assert(mkdtemp(dir) != NULL);
}

static void remove_folder(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static const char *in_folder(const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static const char *segment(unsigned n)
{
	char name[64];

	snprintf(name, sizeof(name), "evidence-%020u.jsonl", n);
	return in_folder(name);
}

static void put_file(const char *path, const char *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static void file_is(const char *path, const char *want)
{
	char data[4096] = "";
	int fd = open(path, O_RDONLY);

	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	ck_assert_int_ge(read(fd, data, sizeof(data) - 1), 0);
	close(fd);
	ck_assert_str_eq(data, want);
}

static struct recover_point no_points[RECOVER_POINTS];

static struct evidence_log *open_log(const struct evidence_limits *limits, uint64_t floor)
{
	struct evidence_log *log;
	char why[EVIDENCE_WHY_MAX] = "";

	ck_assert_msg(evidence_log_open(dir, limits, floor, no_points, &log, why) == 0, "%s", why);
	ck_assert_msg(evidence_log_continue(log, why) == 0, "%s", why);
	return log;
}

/* b may be "": none. */
static int commit(struct evidence_log *log, const char *a, const char *b)
{
	const struct iovec lines[] = {
		{.iov_base = (void *)(uintptr_t)a, .iov_len = strlen(a)},
		{.iov_base = (void *)(uintptr_t)b, .iov_len = strlen(b)},
	};
	const size_t n = *b ? 2 : 1;
	const struct evidence_group group = {.lines = lines, .n = n, .n_lines = n};
	struct evidence_sink *sink = evidence_log_sink(log);

	return sink->ops->commit(sink, &group);
}

/* What the log's own stream does: the entry is durable, so the segments may go. */
static void approve(struct evidence_log *log)
{
	struct evidence_notice notice;

	while (evidence_log_take_notice(log, &notice))
		if (notice.kind == EVIDENCE_PRUNE)
			evidence_log_prune(log, notice.segment);
}

static void close_log(struct evidence_log *log)
{
	struct evidence_sink *sink = evidence_log_sink(log);

	sink->ops->close(sink);
}

UNIT_TEST(appends_and_goes_on_after_a_restart)
{
	for (int sync = 0; sync < _EVIDENCE_SYNC_MAX; sync++) {
		struct evidence_limits limits = usual;
		struct evidence_log *log;
		struct stat st;
		mode_t mask;

		make_folder();
		limits.sync = (enum evidence_sync)sync;
		mask = umask(077);
		log = open_log(&limits, UINT64_MAX);
		ck_assert_int_eq(commit(log, "{1}\n", "{2}\n"), 0);
		ck_assert_uint_eq(evidence_log_bytes(log), 8);
		umask(mask);
		close_log(log);
		log = open_log(&limits, UINT64_MAX);
		ck_assert_int_eq(commit(log, "{3}\n", ""), 0);
		close_log(log);
		file_is(segment(1), "{1}\n{2}\n{3}\n");
		ck_assert_int_eq(stat(segment(1), &st), 0);
		ck_assert_uint_eq(st.st_mode & 07777, 0640);
		remove_folder();
	}
}

UNIT_TEST(has_one_writer)
{
	struct evidence_log *log, *other;
	char why[EVIDENCE_WHY_MAX];
	struct stat st;

	make_folder();
	log = open_log(&usual, UINT64_MAX);
	ck_assert_int_eq(evidence_log_open(dir, &usual, UINT64_MAX, no_points, &other, why),
			 -EBUSY);
	ck_assert_msg(strstr(why, dir) != NULL, "%s", why);
	ck_assert_int_eq(stat(in_folder("lock"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	close_log(log);
	close_log(open_log(&usual, UINT64_MAX));
	remove_folder();
}

UNIT_TEST(refuses_numbers_that_no_writer_reaches)
{
	struct evidence_log *log;
	char why[EVIDENCE_WHY_MAX];

	make_folder();
	put_file(in_folder("evidence-00000001000000000000.jsonl"), "{1}\n", 4);
	log = open_log(&usual, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{2}\n", ""), 0);
	close_log(log);
	put_file(in_folder("evidence-00000001000000000001.jsonl"), "{1}\n", 4);
	ck_assert_int_eq(evidence_log_open(dir, &usual, UINT64_MAX, no_points, &log, why), -ERANGE);
	ck_assert_msg(strstr(why, "evidence-00000001000000000001.jsonl") != NULL, "%s", why);
	remove_folder();
}

UNIT_TEST(moves_a_torn_end_aside)
{
	static const struct {
		const char *data;
		size_t len;
		const char *whole, *torn;
	} cases[] = {
		{"{1}\n{2", 6, "{1}\n", "{2"},
		{"{1", 2, "", "{1"},
		/* Data that never arrived: what stands after it was not committed either. */
		{"{1}\n\0\0\0{2}\n", 11, "{1}\n", ""},
		{"{1}\n{\0\n", 7, "{1}\n", "{"},
		{"{1}\n\0\0\n{2}\n{3}\n", 15, "{1}\n", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const size_t cut = cases[i].len - strlen(cases[i].whole);
		struct evidence_log *log;
		struct stat st;
		char torn[80], want[64];

		make_folder();
		put_file(segment(7), cases[i].data, cases[i].len);
		log = open_log(&usual, UINT64_MAX);
		ck_assert_uint_eq(evidence_log_found(log)->cut_bytes, cut);
		ck_assert_uint_ge(evidence_log_found(log)->cut_lines, 1);
		ck_assert_int_eq(commit(log, "{new}\n", ""), 0);
		close_log(log);
		if (*cases[i].whole) {
			snprintf(want, sizeof(want), "%s{new}\n", cases[i].whole);
			file_is(segment(7), want);
		}
		snprintf(torn, sizeof(torn), "evidence-00000000000000000007.%zu.torn",
			 strlen(cases[i].whole));
		file_is(in_folder(torn), cases[i].torn);
		ck_assert_int_eq(stat(in_folder(torn), &st), 0);
		ck_assert_int_eq(st.st_size, (off_t)cut);
		/* Once repaired, it is whole. */
		log = open_log(&usual, UINT64_MAX);
		ck_assert_uint_eq(evidence_log_found(log)->cut_bytes, 0);
		close_log(log);
		remove_folder();
	}
}

UNIT_TEST(keeps_each_torn_end)
{
	make_folder();
	/* Torn three times at the same place, with a start between that wrote nothing. */
	put_file(segment(7), "{1}\n{2", 6);
	close_log(open_log(&usual, UINT64_MAX));
	close_log(open_log(&usual, UINT64_MAX));
	put_file(segment(7), "{1}\n{3", 6);
	close_log(open_log(&usual, UINT64_MAX));
	put_file(segment(7), "{1}\n{4", 6);
	close_log(open_log(&usual, UINT64_MAX));
	file_is(segment(7), "{1}\n");
	file_is(in_folder("evidence-00000000000000000007.4.torn"), "{2");
	file_is(in_folder("evidence-00000000000000000007.4.1.torn"), "{3");
	file_is(in_folder("evidence-00000000000000000007.4.2.torn"), "{4");
	remove_folder();
}

/* A segment that a rotation had begun, and that has no evidence yet, is begun anew. */
UNIT_TEST(a_segment_without_evidence_is_not_kept)
{
	static const char *const begun[] = {"", "{2"};

	for (size_t i = 0; i < ARRAY_SIZE(begun); i++) {
		struct evidence_log *log;

		make_folder();
		put_file(segment(7), "{1}\n", 4);
		put_file(segment(8), begun[i], strlen(begun[i]));
		log = open_log(&usual, UINT64_MAX);
		ck_assert_int_eq(access(segment(8), F_OK), -1);
		ck_assert_uint_eq(evidence_log_segments(log), 1);
		ck_assert_uint_eq(evidence_log_found(log)->cut_bytes, strlen(begun[i]));
		ck_assert_int_eq(commit(log, "{3}\n", ""), 0);
		close_log(log);
		remove_folder();
	}
}

UNIT_TEST(rotates_by_size_at_the_limit)
{
	struct evidence_limits limits = {.rotate_size = 8};
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", "{}\n"), 0); /* 7 */
	ck_assert_int_eq(commit(log, "\n", ""), 0);	   /* 8 */
	ck_assert_uint_eq(evidence_log_segments(log), 1);
	ck_assert_int_eq(commit(log, "\n", ""), 0); /* would be 9 */
	ck_assert_uint_eq(evidence_log_segments(log), 2);
	ck_assert_int_eq(commit(log, "{longer}\n", "{than}\n"), 0); /* never split */
	close_log(log);
	file_is(segment(1), "{1}\n{}\n\n");
	file_is(segment(2), "\n");
	file_is(segment(3), "{longer}\n{than}\n");
	remove_folder();
}

UNIT_TEST(rotates_by_age)
{
	struct evidence_limits limits = {.rotate_size = 1000, .rotate_age_ms = 50};
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	usleep(60 * 1000);
	ck_assert_int_eq(commit(log, "{2}\n", ""), 0);
	/* While the wall clock is behind, segments get older all the same. */
	realtime_behind_s = 3600;
	usleep(60 * 1000);
	ck_assert_int_eq(commit(log, "{3}\n", ""), 0);
	close_log(log);
	log = open_log(&limits, UINT64_MAX);
	usleep(60 * 1000);
	ck_assert_int_eq(commit(log, "{4}\n", ""), 0);
	close_log(log);
	realtime_behind_s = 0;
	file_is(segment(2), "{2}\n");
	file_is(segment(3), "{3}\n");
	file_is(segment(4), "{4}\n");
	remove_folder();
}

UNIT_TEST(keeps_what_a_reader_needs)
{
	struct evidence_limits limits = {.rotate_size = 4, .retain_size = 8};
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, 2);
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	/* Only the first has been passed, and nothing goes before its entry is durable. */
	ck_assert_uint_eq(evidence_log_segments(log), 6);
	approve(log);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert_uint_eq(evidence_log_segments(log), 6);
	ck_assert_int_ne(access(segment(1), F_OK), 0);
	ck_assert_int_eq(access(segment(2), F_OK), 0);
	evidence_log_set_floor(log, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	approve(log);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert_uint_eq(evidence_log_deleted(log), 6);
	ck_assert_int_ne(access(segment(6), F_OK), 0);
	ck_assert_int_eq(access(segment(7), F_OK), 0);
	close_log(log);
	remove_folder();
}

/* While a reader holds the rest, each new segment is no reason to ask again. */
UNIT_TEST(a_deletion_is_asked_for_once)
{
	struct evidence_limits limits = {.rotate_size = 4, .retain_size = 8};
	struct evidence_notice notice;
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, 2);
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert(evidence_log_take_notice(log, &notice));
	ck_assert(notice.kind == EVIDENCE_PRUNE && notice.segment == 1 && notice.segments == 1);
	ck_assert(!evidence_log_take_notice(log, &notice));
	evidence_log_set_floor(log, 3);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert(evidence_log_take_notice(log, &notice));
	ck_assert(notice.segment == 2 && notice.segments == 2);
	ck_assert(!evidence_log_take_notice(log, &notice));
	close_log(log);
	remove_folder();
}

UNIT_TEST(gives_up_what_a_reader_needs_above_the_hard_size)
{
	struct evidence_limits limits = {
		.rotate_size = 4, .retain_size = 8, .retain_size_hard = 16};
	struct evidence_notice notice;
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, 0);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert(!evidence_log_take_notice(log, &notice));
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert(evidence_log_take_notice(log, &notice));
	ck_assert(notice.kind == EVIDENCE_PRUNE && notice.hard && notice.segment == 1);
	evidence_log_prune(log, notice.segment);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	ck_assert_int_ne(access(segment(1), F_OK), 0);
	ck_assert_int_eq(access(segment(2), F_OK), 0);
	close_log(log);
	remove_folder();
}

/* A write that the kernel cuts short: as much as fits is written, then it fails. */
UNIT_TEST(a_short_write_leaves_nothing)
{
	struct rlimit before, small;
	struct evidence_log *log;

	make_folder();
	log = open_log(&usual, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	small = (struct rlimit){.rlim_cur = 7, .rlim_max = before.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	ck_assert_int_eq(commit(log, "{2}\n", "{3}\n"), -EFBIG);
	ck_assert_int_eq(commit(log, "{2}\n", "{3}\n"), -EFBIG);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
	file_is(segment(1), "{1}\n");
	ck_assert_int_eq(commit(log, "{2}\n", "{3}\n"), 0);
	close_log(log);
	file_is(segment(1), "{1}\n{2}\n{3}\n");
	remove_folder();
}

UNIT_TEST(a_folder_that_cannot_be_synced_begins_no_segment)
{
	struct evidence_limits limits = {.rotate_size = 4};
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	folders_fail = true;
	ck_assert_int_eq(commit(log, "{2}\n", ""), -EIO);
	ck_assert_int_eq(commit(log, "{2}\n", ""), -EIO);
	ck_assert_uint_eq(evidence_log_segments(log), 1);
	ck_assert_int_ne(access(segment(2), F_OK), 0);
	folders_fail = false;
	ck_assert_int_eq(commit(log, "{2}\n", ""), 0);
	close_log(log);
	file_is(segment(1), "{1}\n");
	file_is(segment(2), "{2}\n");
	remove_folder();
}

UNIT_TEST(an_interrupted_write_is_done_again)
{
	struct evidence_log *log;

	make_folder();
	log = open_log(&usual, UINT64_MAX);
	interrupted = 3;
	ck_assert_int_eq(commit(log, "{1}\n", "{2}\n"), 0);
	ck_assert_int_eq(interrupted, 0);
	close_log(log);
	file_is(segment(1), "{1}\n{2}\n");
	remove_folder();
}

/* After an error the tree covers a group only if the file has its bytes. */
UNIT_TEST(after_an_error_the_bytes_are_compared)
{
	struct evidence_log *log;
	int first, second;

	make_folder();
	log = open_log(&usual, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	syncs_fail = true;
	ck_assert_int_eq(commit(log, "{2}\n", ""), -EIO);
	syncs_fail = false;
	garbled = true;
	first = commit(log, "{2}\n", "");
	second = commit(log, "{2}\n", "");
	garbled = false;
	ck_assert_int_eq(first, -EBADMSG);
	ck_assert_int_eq(second, -EBADMSG);
	ck_assert_int_eq(commit(log, "{2}\n", ""), 0);
	close_log(log);
	file_is(segment(1), "{1}\n{2}\n");
	remove_folder();
}

/* A file counts as written when its folder is on disk, and lines as there when they can be read. */
UNIT_TEST(errors_of_the_disk_are_not_taken_for_success)
{
	const struct iovec line = {.iov_base = (char *)"{1}\n", .iov_len = 4};
	int dir_fd, fd;

	make_folder();
	put_file(segment(1), "{1}\n", 4);
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = open(segment(1), O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(segment_compare(fd, &line, 1, 0), 0);
	reads_fail = true;
	ck_assert_int_eq(segment_compare(fd, &line, 1, 0), -EIO);
	reads_fail = false;
	only_folders_fail = true;
	ck_assert_int_eq(durable_write(dir_fd, "state", "x", 1, 0600), -EIO);
	only_folders_fail = false;
	/* What could not be written leaves nothing. */
	folders_fail = true;
	ck_assert_int_eq(durable_write(dir_fd, "another", "x", 1, 0600), -EIO);
	folders_fail = false;
	ck_assert_int_ne(access(in_folder("another"), F_OK), 0);
	ck_assert_int_ne(access(in_folder("another#new"), F_OK), 0);
	ck_assert_int_eq(durable_write(dir_fd, "state", "x", 1, 0600), 0);
	close(fd);
	close(dir_fd);
	remove_folder();
}

#define LARGE (600u * 1024u) /* more than two pieces of a copy */

static int open_large(char *bytes)
{
	int fd;

	for (size_t i = 0; i < LARGE; i++)
		bytes[i] = (char)(i % 251);
	make_folder();
	put_file(segment(1), bytes, LARGE);
	fd = open(segment(1), O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

/* After a failed sync the kernel takes the pages for clean: each byte is written to itself. */
UNIT_TEST(each_byte_is_written_again)
{
	static char bytes[LARGE], after[LARGE];
	const int fd = open_large(bytes);

	written = 0;
	ck_assert_int_eq(segment_write_again(fd, 1000, LARGE), 0);
	ck_assert_uint_eq(written, LARGE - 1000);
	ck_assert_int_eq(syscall(SYS_pread64, fd, after, LARGE, 0), LARGE);
	ck_assert_mem_eq(after, bytes, LARGE);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), LARGE);
	/* What cannot be read is not written, and no success. */
	ck_assert_int_eq(segment_write_again(fd, LARGE - 1, LARGE + 1), -EIO);
	reads_fail = true;
	written = 0;
	ck_assert_int_eq(segment_write_again(fd, 0, LARGE), -EIO);
	reads_fail = false;
	ck_assert_uint_eq(written, 0);
	close(fd);
	remove_folder();
}

UNIT_TEST(lines_are_compared_byte_for_byte)
{
	static char bytes[LARGE];
	const int fd = open_large(bytes);
	const struct iovec lines[] = {
		{.iov_base = bytes, .iov_len = 10},
		{.iov_base = bytes + 10, .iov_len = LARGE - 10},
	};

	ck_assert_int_eq(segment_compare(fd, lines, 2, 0), 0);
	ck_assert_int_eq(segment_compare(fd, lines, 2, 251), -EBADMSG); /* too short there */
	for (size_t i = 0; i < LARGE; i += LARGE - 1) {
		bytes[i] ^= 1;
		ck_assert_int_eq(segment_compare(fd, lines, 2, 0), -EBADMSG);
		bytes[i] ^= 1;
	}
	ck_assert_int_eq(segment_compare(fd, lines + 1, 1, 10), 0);
	close(fd);
	remove_folder();
}

UNIT_TEST(a_log_that_cannot_be_read_is_not_gone_on_with)
{
	struct evidence_log *log;
	char why[EVIDENCE_WHY_MAX] = "";

	make_folder();
	put_file(segment(1), "{1}\n{2", 6);
	reads_fail = true;
	ck_assert_int_eq(evidence_log_open(dir, &usual, UINT64_MAX, no_points, &log, why), -EIO);
	ck_assert_msg(strstr(why, "Input/output error") != NULL, "%s", why);
	reads_fail = false;
	file_is(segment(1), "{1}\n{2");
	log = open_log(&usual, UINT64_MAX);
	close_log(log);
	file_is(segment(1), "{1}\n");
	remove_folder();
}

static void next_is(struct evidence_reader *reader, const char *want)
{
	const char *line = NULL;
	size_t len = 0;
	int r = evidence_reader_next(reader, &line, &len);

	if (!want) {
		ck_assert_int_eq(r, 0);
		return;
	}
	ck_assert_msg(r == 1, "%s: %d", want, r);
	ck_assert_msg(len == strlen(want) && memcmp(line, want, len) == 0, "%.*s instead of %s",
		      (int)len, line, want);
}

UNIT_TEST(a_reader_follows_the_writer)
{
	struct evidence_limits limits = {.rotate_size = 8};
	struct evidence_position at;
	struct evidence_reader *reader, *again;
	struct evidence_log *log;

	make_folder();
	ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
	next_is(reader, NULL);
	log = open_log(&limits, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", "{2}\n"), 0);
	next_is(reader, "{1}");
	at = evidence_reader_position(reader);
	ck_assert_uint_eq(at.segment, 1);
	ck_assert_uint_eq(at.offset, 4);
	next_is(reader, "{2}");
	next_is(reader, NULL);
	ck_assert_int_eq(commit(log, "{3}\n", ""), 0);
	ck_assert_int_eq(commit(log, "{44444}\n", ""), 0);
	next_is(reader, "{3}");
	next_is(reader, "{44444}");
	next_is(reader, NULL);
	ck_assert_int_eq(evidence_reader_open(dir, &at, &again), 0);
	next_is(again, "{2}");
	next_is(again, "{3}");
	ck_assert_int_eq(evidence_reader_seek_end(again), 0);
	next_is(again, NULL);
	ck_assert_int_eq(commit(log, "{5}\n", ""), 0);
	next_is(again, "{5}");
	evidence_reader_close(again);
	evidence_reader_close(reader);
	close_log(log);
	remove_folder();
}

static void end_is(struct evidence_log *log, uint64_t segment_number, uint64_t offset)
{
	const struct evidence_position end = evidence_log_end(log);

	ck_assert_uint_eq(end.segment, segment_number);
	ck_assert_uint_eq(end.offset, offset);
}

UNIT_TEST(a_forwarder_sees_only_what_is_on_disk)
{
	struct evidence_limits limits = {.rotate_size = 8};
	struct evidence_position end;
	struct evidence_reader *reader;
	struct evidence_log *log;

	make_folder();
	log = open_log(&limits, UINT64_MAX);
	end_is(log, 0, 0);
	ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
	end = evidence_log_end(log);
	evidence_reader_set_end(reader, &end);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	end_is(log, 1, 4);
	next_is(reader, NULL);
	end = evidence_log_end(log);
	evidence_reader_set_end(reader, &end);
	next_is(reader, "{1}");
	next_is(reader, NULL);
	/* In the file, whole, but the sync says no: it does not count. */
	syncs_fail = true;
	ck_assert_int_eq(commit(log, "{2}\n", ""), -EIO);
	end_is(log, 1, 4);
	syncs_fail = false;
	ck_assert_int_eq(commit(log, "{2}\n", ""), 0);
	next_is(reader, NULL);
	ck_assert_int_eq(commit(log, "{3}\n", ""), 0); /* the next segment */
	next_is(reader, NULL);
	end = evidence_log_end(log);
	ck_assert_uint_eq(end.segment, 2);
	evidence_reader_set_end(reader, &(struct evidence_position){.segment = 2, .offset = 0});
	next_is(reader, "{2}");
	next_is(reader, NULL);
	evidence_reader_set_end(reader, &end);
	next_is(reader, "{3}");
	next_is(reader, NULL);
	evidence_reader_close(reader);
	close_log(log);
	remove_folder();
}

/* Waits until the log's background error is this. */
static void wait_error(struct evidence_log *log, int want)
{
	for (int i = 0; i < 6000 && evidence_log_background_error(log) != want; i++)
		usleep(10 * 1000);
	ck_assert_int_eq(evidence_log_background_error(log), want);
}

UNIT_TEST(the_interval_recovers_by_itself)
{
	const struct evidence_limits limits = {
		.rotate_size = 8,
		.sync = EVIDENCE_SYNC_INTERVAL,
	};
	struct evidence_log *log;
	struct stat before, after;

	make_folder();
	log = open_log(&limits, UINT64_MAX);
	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	end_is(log, 1, 0);
	syncs_fail = true;
	wait_error(log, -EIO);
	end_is(log, 1, 0);
	/* Rotation may not leave it behind either, and a commit goes on meanwhile. */
	ck_assert_int_eq(commit(log, "{2}\n", ""), 0);
	ck_assert_int_eq(commit(log, "{3}\n", ""), -EIO);
	ck_assert_uint_eq(evidence_log_segments(log), 1);
	ck_assert_int_eq(stat(segment(1), &before), 0);
	syncs_fail = false;
	wait_error(log, 0);
	end_is(log, 1, 8);
	/* The kernel took the pages for clean: they were written again. */
	ck_assert_int_eq(stat(segment(1), &after), 0);
	ck_assert(after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
		  after.st_mtim.tv_nsec != before.st_mtim.tv_nsec);
	ck_assert_int_eq(commit(log, "{3}\n", ""), 0);
	close_log(log);
	file_is(segment(1), "{1}\n{2}\n");
	file_is(segment(2), "{3}\n");
	remove_folder();
}

static struct evidence_log *open_interval_log(void)
{
	const struct evidence_limits limits = {.rotate_size = 8, .sync = EVIDENCE_SYNC_INTERVAL};

	make_folder();
	ck_assert_int_eq(sem_init(&sync_asked, 0, 0), 0);
	sync_when_asked = true;
	return open_log(&limits, UINT64_MAX);
}

static void close_interval_log(struct evidence_log *log)
{
	sync_when_asked = false;
	sem_post(&sync_asked);
	close_log(log);
	sem_destroy(&sync_asked);
}

/*
 * The kernel reports an error to one of two syncs only. So the second waits for the first, and then
 * writes again what the first could not.
 */
UNIT_TEST(one_sync_at_a_time)
{
	struct evidence_log *log = open_interval_log();
	struct evidence_position end;
	uint64_t bytes;
	int r;

	ck_assert_int_eq(sem_init(&first_sync, 0, 0), 0);
	ck_assert_int_eq(sem_init(&another_came, 0, 0), 0);
	ck_assert_int_eq(commit(log, "{1}\n", "{2}\n"), 0);
	end_is(log, 1, 0);
	written = 0;
	most_in_sync = 0;
	first_sync_waits = true;
	sem_post(&sync_asked);
	sem_wait(&first_sync);
	/* The rotation makes the first segment durable. */
	r = commit(log, "{3}\n", "");
	end = evidence_log_end(log);
	bytes = written;
	close_interval_log(log);
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(most_in_sync, 1);
	ck_assert_uint_eq(bytes, 8 + 4);
	ck_assert(end.segment == 2 && end.offset == 0);
	file_is(segment(1), "{1}\n{2}\n");
	file_is(segment(2), "{3}\n");
	sem_destroy(&first_sync);
	sem_destroy(&another_came);
	remove_folder();
}

/* Nothing more of a segment that is lost can become durable: its end is no reason to wait. */
UNIT_TEST(a_lost_segment_is_at_its_end)
{
	struct evidence_log *log = open_interval_log();
	struct evidence_notice notice = {0}, another;
	struct evidence_position lost, next;
	bool noticed, again;
	int r[2];

	ck_assert_int_eq(commit(log, "{1}\n", ""), 0);
	end_is(log, 1, 0);
	ck_assert_int_eq(unlink(segment(1)), 0);
	folders_fail = true;
	r[0] = commit(log, "{2}\n", "");
	folders_fail = false;
	lost = evidence_log_end(log);
	noticed = evidence_log_take_notice(log, &notice);
	r[1] = commit(log, "{2}\n", "");
	next = evidence_log_end(log);
	again = evidence_log_take_notice(log, &another);
	close_interval_log(log);
	ck_assert(r[0] == -EIO && r[1] == 0);
	ck_assert(lost.segment == 1 && lost.offset == 4);
	ck_assert(noticed && notice.kind == EVIDENCE_SEGMENT_LOST && notice.segment == 1);
	ck_assert_str_eq(notice.reason, "unlinked");
	ck_assert(next.segment == 2 && next.offset == 0);
	ck_assert(!again);
	file_is(segment(2), "{2}\n");
	remove_folder();
}

UNIT_TEST(a_reader_takes_whole_lines_only)
{
	struct evidence_reader *reader;

	make_folder();
	put_file(segment(1), "{1}\n{2", 6);
	ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
	next_is(reader, "{1}");
	next_is(reader, NULL);
	/* The writer takes it back and writes something else. */
	put_file(segment(1), "{1}\n[3]\n", 8);
	next_is(reader, "[3]");
	put_file(segment(1), "{1}\n[3]\n{to", 11);
	next_is(reader, NULL);
	put_file(segment(2), "{5}\n", 4);
	next_is(reader, "{5}");
	evidence_reader_close(reader);
	remove_folder();
}

UNIT_TEST(a_reader_passes_lines_that_are_too_long)
{
	static char data[6 * EVIDENCE_LINE_MAX];
	static const size_t sizes[] = {
		EVIDENCE_LINE_MAX - 1,
		EVIDENCE_LINE_MAX,
		EVIDENCE_LINE_MAX + 1,
		5 * EVIDENCE_LINE_MAX,
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const bool fits = sizes[i] <= EVIDENCE_LINE_MAX;
		struct evidence_reader *reader;
		const char *line;
		size_t len;

		make_folder();
		memset(data, 'x', sizeof(data));
		data[sizes[i] - 1] = '\n';
		memcpy(data + sizes[i], "{1}\n", 4);
		put_file(segment(1), data, sizes[i] + 4);
		ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
		ck_assert_int_eq(evidence_reader_next(reader, &line, &len), fits ? 1 : -EMSGSIZE);
		if (fits)
			ck_assert_uint_eq(len, sizes[i] - 1);
		next_is(reader, "{1}");
		next_is(reader, NULL);
		evidence_reader_close(reader);
		remove_folder();
	}
}

/* Many lines of all lengths, so that some of them lie across the end of the reader's buffer. */
UNIT_TEST(a_reader_joins_lines_across_its_buffer)
{
	const size_t size = 9 * EVIDENCE_LINE_MAX;
	char *data = malloc(size + EVIDENCE_LINE_MAX), *at;

	for (size_t step = 1; step < 60000; step = step * 5 + 1) {
		struct evidence_reader *reader;
		size_t used = 0, len;
		const char *line;
		unsigned n = 0, read = 0;

		make_folder();
		while (used < size) {
			const size_t length = 20 + (n * step) % (EVIDENCE_LINE_MAX - 40);

			memset(data + used, 'a' + n % 26, length);
			used += length;
			data[used++] = '\n';
			n++;
		}
		put_file(segment(1), data, used);
		ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
		at = data;
		while (evidence_reader_next(reader, &line, &len) == 1) {
			ck_assert_msg(memcmp(line, at, len + 1) == 0, "line %u, step %zu", read,
				      step);
			at += len + 1;
			read++;
		}
		ck_assert_uint_eq(read, n);
		ck_assert_uint_eq((size_t)(at - data), used);
		evidence_reader_close(reader);
		remove_folder();
	}
	free(data);
}

/* A FIFO or a folder with a segment's name is refused; it never holds the reader up. */
UNIT_TEST(a_reader_refuses_what_is_no_file)
{
	struct evidence_reader *reader;
	const char *line;
	size_t len;

	make_folder();
	ck_assert_int_eq(mkfifo(segment(1), 0600), 0);
	ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
	ck_assert_int_eq(evidence_reader_next(reader, &line, &len), -EINVAL);
	ck_assert_int_eq(evidence_reader_seek_end(reader), -EINVAL);
	evidence_reader_close(reader);
	remove_folder();
}

UNIT_TEST(a_reader_tells_of_segments_that_are_gone)
{
	const struct evidence_position at = {.segment = 3, .offset = 2};
	struct evidence_reader *reader;
	const char *line;
	size_t len;

	make_folder();
	put_file(segment(5), "{5}\n", 4);
	ck_assert_int_eq(evidence_reader_open(dir, &at, &reader), 0);
	ck_assert_int_eq(evidence_reader_next(reader, &line, &len), -ENODATA);
	next_is(reader, "{5}");
	put_file(segment(7), "{7}\n", 4);
	ck_assert_int_eq(evidence_reader_next(reader, &line, &len), -ENODATA);
	next_is(reader, "{7}");
	evidence_reader_close(reader);
	remove_folder();
}

/* No writer makes it, but whoever lists the folder sees it: it is the oldest segment. */
UNIT_TEST(a_reader_begins_with_a_segment_numbered_0)
{
	struct evidence_reader *reader;
	const char *line;
	size_t len;

	make_folder();
	put_file(segment(0), "{0}\n", 4);
	ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
	next_is(reader, "{0}");
	ck_assert_int_eq(evidence_reader_next(reader, &line, &len), 0);
	put_file(segment(1), "{1}\n", 4);
	next_is(reader, "{1}");
	evidence_reader_close(reader);
	ck_assert_int_eq(unlink(segment(1)), 0);
	ck_assert_int_eq(evidence_reader_open(dir, NULL, &reader), 0);
	ck_assert_int_eq(evidence_reader_seek_end(reader), 0);
	ck_assert_int_eq(evidence_reader_next(reader, &line, &len), 0);
	evidence_reader_close(reader);
	remove_folder();
}

UNIT_TEST(a_cursor_is_whole_or_refused)
{
	const struct evidence_position at = {.segment = UINT64_MAX, .offset = 5};
	struct evidence_position got = {0};
	int fd;

	make_folder();
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(evidence_cursor_load(fd, "c", &got), -ENOENT);
	ck_assert_int_eq(evidence_cursor_store(fd, "c", &at), 0);
	ck_assert_int_eq(evidence_cursor_load(fd, "c", &got), 0);
	ck_assert(got.segment == at.segment && got.offset == at.offset);
	ck_assert_int_ne(access(in_folder("c#new"), F_OK), 0);
	put_file(in_folder("c"), "cellos-evidence-cursor 1 00000000000000000001 000", 49);
	ck_assert_int_eq(evidence_cursor_load(fd, "c", &got), -EBADMSG);
	put_file(in_folder("c"), "", 0);
	ck_assert_int_eq(evidence_cursor_load(fd, "c", &got), -EBADMSG);
	close(fd);
	remove_folder();
}

UNIT_TEST(the_slowest_cursor_is_the_floor)
{
	const struct evidence_position at[] = {
		{.segment = 9, .offset = 1},
		{.segment = 4, .offset = 100},
		{.segment = 5, .offset = 0},
	};
	static const char *const names[] = {"a", "b", "c"};
	char bad[CURSOR_NAME_MAX];
	uint64_t floor = 0;
	int fd;

	make_folder();
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(evidence_cursor_floor(fd, &floor, bad), 0);
	ck_assert_uint_eq(floor, UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		ck_assert_int_eq(evidence_cursor_store(fd, names[i], &at[i]), 0);
	put_file(in_folder("b#new"), "cut", 3);
	ck_assert_int_eq(evidence_cursor_floor(fd, &floor, bad), 0);
	ck_assert_uint_eq(floor, 4);
	ck_assert_str_eq(bad, "");
	ck_assert_int_eq(unlink(in_folder("b")), 0);
	ck_assert_int_eq(evidence_cursor_floor(fd, &floor, bad), 0);
	ck_assert_uint_eq(floor, 5);
	put_file(in_folder("d"), "nonsense", 8);
	ck_assert_int_eq(evidence_cursor_floor(fd, &floor, bad), 0);
	ck_assert_uint_eq(floor, 0);
	ck_assert_str_eq(bad, "d");
	close(fd);
	remove_folder();
}

static int next_descriptor(void)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	close(fd);
	return fd;
}

/* Without memory there is no floor: no segment may be deleted for it, and no descriptor is lost. */
UNIT_TEST(without_memory_no_folder_is_empty)
{
	char bad[CURSOR_NAME_MAX], why[EVIDENCE_WHY_MAX];
	struct evidence_log *log;
	uint64_t floor = 3;
	int fd, next;

	make_folder();
	put_file(segment(1), "{1}\n", 4);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	next = next_descriptor();
	no_memory_for_lists = true;
	ck_assert_int_eq(evidence_cursor_floor(fd, &floor, bad), -ENOMEM);
	ck_assert_uint_eq(floor, 3);
	ck_assert_int_eq(evidence_log_open(dir, &usual, UINT64_MAX, no_points, &log, why), -ENOMEM);
	no_memory_for_lists = false;
	ck_assert_int_eq(next_descriptor(), next);
	close(fd);
	remove_folder();
}
