/* SPDX-License-Identifier: MIT */
/*
 * Bounded readers of /proc: see proc_file.h.
 */
#include "guest-agent/probes/proc_file.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"

#define CLOCK_READINGS_MAX 8u
#define CLOCK_PAUSE_NS	   NSEC_PER_MSEC

/* A path below /proc/PID: "/proc/4194304/status" and the like. */
#define PROC_PATH_MAX 64u

/* Room for the first names of a folder of threads: ".", ".." and one or two numbers. */
#define TASK_DIR_BUFFER 128u

/* "net:[4026531840]" */
#define NS_LINK_MAX 64u

/* PF_KTHREAD of the kernel's linux/sched.h, as the flags field tells it. */
#define TASK_KERNEL_THREAD UINT64_C(0x00200000)

/* The kernel's layout; libc wraps it in readdir(3) only, which allocates. getdents64(2). */
struct dirent64_raw {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static int parse_number(const char **p, const char *end, uint64_t *ret)
{
	const char *s = *p;
	uint64_t v = 0;

	if (s < end && *s == '-')
		return -ERANGE;
	if (s == end || *s < '0' || *s > '9')
		return -EBADMSG;
	for (; s < end && *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -EBADMSG;
	*p = s;
	*ret = v;
	return 0;
}

/* Fields of /proc/PID/stat: proc(5). */
enum {
	STAT_PPID = 4,
	STAT_FLAGS = 9,
	STAT_MINFLT = 10,
	STAT_UTIME = 14,
	STAT_STIME = 15,
	STAT_THREADS = 20,
	STAT_START = 22,
	STAT_START_STACK = 28,
};

#define STAT_WANTED                                                                                \
	(1u << STAT_PPID | 1u << STAT_FLAGS | 1u << STAT_MINFLT | 1u << STAT_UTIME |               \
	 1u << STAT_STIME | 1u << STAT_THREADS | 1u << STAT_START | 1u << STAT_START_STACK)

/* False when the value cannot be. */
static bool stat_field(struct proc_stat *st, unsigned field, uint64_t v)
{
	switch (field) {
	case STAT_PPID: st->ppid = (pid_t)v; return v <= INT_MAX;
	case STAT_FLAGS: st->kernel_thread = v & TASK_KERNEL_THREAD; return true;
	case STAT_MINFLT: st->faults = v; return true;
	case STAT_UTIME:
	case STAT_STIME: return !__builtin_add_overflow(st->cpu_ticks, v, &st->cpu_ticks);
	case STAT_THREADS: st->threads = (uint32_t)v; return v <= UINT32_MAX;
	case STAT_START: st->start_ticks = v; return true;
	default: st->has_stack = v != 0; return true;
	}
}

int proc_stat_parse(const char *data, size_t len, struct proc_stat *ret)
{
	const char *end = data + len, *p = data, *open, *close;
	struct proc_stat st = {0};
	uint64_t v;

	if (parse_number(&p, end, &v) < 0 || v == 0 || v > INT_MAX)
		return -EBADMSG;
	st.pid = (pid_t)v;
	if (end - p < 2 || p[0] != ' ' || p[1] != '(')
		return -EBADMSG;
	open = p + 2;
	/* comm may hold anything; what follows it holds no ')'. */
	close = memrchr(open, ')', (size_t)(end - open));
	if (!close)
		return -EBADMSG;
	st.comm_len = MIN((size_t)(close - open), (size_t)PROC_COMM_MAX - 1);
	memcpy(st.comm, open, st.comm_len);
	p = close + 1;
	if (end - p < 3 || p[0] != ' ' || p[2] != ' ')
		return -EBADMSG;
	st.state = p[1];
	p += 2;

	/* What follows the start time can be missing, and the rest is not needed. */
	for (unsigned field = STAT_PPID; field <= STAT_START_STACK; field++) {
		if (field > STAT_START && (p == end || *p == '\n'))
			break;
		if (p == end || *p != ' ')
			return -EBADMSG;
		p++;
		if (STAT_WANTED >> field & 1) {
			if (parse_number(&p, end, &v) < 0 || !stat_field(&st, field, v))
				return -EBADMSG;
		}
		while (p < end && *p != ' ' && *p != '\n')
			p++;
	}
	*ret = st;
	return 0;
}

/* The agent may be preempted between the readings. Then they are read again. */
uint64_t proc_clock_offset(void)
{
	uint64_t offset = 0, shortest = UINT64_MAX;

	for (unsigned i = 0; i < CLOCK_READINGS_MAX && shortest > CLOCK_PAUSE_NS; i++) {
		const uint64_t before = monotonic_ns(), boottime = clock_ns(CLOCK_BOOTTIME),
			       pause = monotonic_ns() - before;

		if (pause >= shortest)
			continue;
		shortest = pause;
		offset = boottime - before;
	}
	return offset;
}

int proc_read_file(const char *path, char *ret_data, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t used = 0;

	if (fd < 0)
		return -errno;
	while (used < size) {
		ssize_t n = read(fd, ret_data + used, size - used);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			break;
		used += (size_t)n;
	}
	return (int)used;
}

int proc_read_pid_file(pid_t pid, const char *name, char *ret_data, size_t size)
{
	char path[PROC_PATH_MAX];
	_cleanup_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	/* Not open(3): musl's follows it by an fcntl(2) for O_CLOEXEC's sake. */
	fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	n = read(fd, ret_data, size);
	return n < 0 ? -errno : (int)n;
}

int proc_read_stat(pid_t pid, struct proc_stat *ret)
{
	char data[PROC_STAT_MAX];
	int n = proc_read_pid_file(pid, "stat", data, sizeof(data));

	if (n < 0)
		return n;
	return proc_stat_parse(data, (size_t)n, ret);
}

bool proc_group_gone(pid_t pid)
{
	char path[PROC_PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	/* Its links are "..", "." and the threads: fs/proc/base.c, proc_task_getattr(). */
	if (stat(path, &st) < 0)
		return errno == ENOENT || errno == ESRCH;
	return st.st_nlink <= 2 + 1;
}

int proc_read_comm(pid_t pid, char ret_comm[static PROC_COMM_MAX])
{
	int n = proc_read_pid_file(pid, "comm", ret_comm, PROC_COMM_MAX);

	if (n < 0)
		return n;
	/* The kernel ends it with one newline; others belong to the name. */
	if (n > 0 && ret_comm[n - 1] == '\n')
		n--;
	return n;
}

/*
 * The kernel holds the file while it writes the path. The agent would free a deleted file if it
 * were interrupted there until the process has ended; docs/threat-model.md says why that is left.
 */
static int read_pid_link(pid_t pid, const char *name, char *ret_data, size_t size)
{
	char path[PROC_PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	n = readlink(path, ret_data, size);
	return n < 0 ? -errno : (int)n;
}

int proc_read_exe(pid_t pid, char *ret_exe, size_t size)
{
	return read_pid_link(pid, "exe", ret_exe, size);
}

int proc_read_cwd(pid_t pid, char *ret_cwd, size_t size)
{
	return read_pid_link(pid, "cwd", ret_cwd, size);
}

bool proc_same_net(pid_t pid)
{
	char ours[NS_LINK_MAX], theirs[NS_LINK_MAX];
	const int n = read_pid_link(pid, "ns/net", theirs, sizeof(theirs));

	return n > 0 && readlink("/proc/self/ns/net", ours, sizeof(ours)) == n &&
	       !memcmp(ours, theirs, (size_t)n);
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return INT_MAX;
}

static int parse_value(const char *p, const char *end, unsigned base, uint64_t *ret)
{
	uint64_t v = 0;

	while (p < end && (*p == '\t' || *p == ' '))
		p++;
	if (p == end)
		return -EBADMSG;
	for (; p < end; p++) {
		unsigned digit = (unsigned)digit_of(*p);

		if (digit >= base || __builtin_mul_overflow(v, base, &v) ||
		    __builtin_add_overflow(v, digit, &v))
			return -EBADMSG;
	}
	*ret = v;
	return 0;
}

/* What follows "NAME:" in its line, and in *ret_end where the line ends; NULL: no such line. */
static const char *status_line(const char *data, size_t len, const char *name, const char **ret_end)
{
	const char *end = data + len;
	const size_t name_len = strlen(name);

	for (const char *line = data; line < end;) {
		const char *eol = memchr(line, '\n', (size_t)(end - line));
		const char *stop = eol ? eol : end;

		if ((size_t)(stop - line) > name_len && !memcmp(line, name, name_len) &&
		    line[name_len] == ':') {
			*ret_end = stop;
			return line + name_len + 1;
		}
		if (!eol)
			break;
		line = eol + 1;
	}
	return NULL;
}

int proc_status_value(const char *data, size_t len, const char *name, unsigned base, uint64_t *ret)
{
	const char *end, *value = status_line(data, len, name, &end);

	return value ? parse_value(value, end, base, ret) : -ENOENT;
}

/* The first two numbers of a line "NAME:\tA\tB\t...": real and effective. */
static int parse_ids(const char *data, size_t len, const char *name, uint32_t *ret_real,
		     uint32_t *ret_effective)
{
	const char *end, *line = status_line(data, len, name, &end);
	uint64_t real, effective;

	if (!line || line == end || *line++ != '\t')
		return -EBADMSG;
	if (parse_number(&line, end, &real) < 0 || line == end || *line != '\t')
		return -EBADMSG;
	line++;
	if (parse_number(&line, end, &effective) < 0 || real > UINT32_MAX || effective > UINT32_MAX)
		return -EBADMSG;
	*ret_real = (uint32_t)real;
	*ret_effective = (uint32_t)effective;
	return 0;
}

int proc_status_parse(const char *data, size_t len, struct proc_status *ret)
{
	struct proc_status st = {0};
	uint64_t tracer, seccomp = 0;

	/* The name comes first and its newlines are escaped, so no name can look like a line. */
	if (parse_ids(data, len, "Uid", &st.uid, &st.euid) < 0 ||
	    parse_ids(data, len, "Gid", &st.gid, &st.egid) < 0 ||
	    proc_status_value(data, len, "TracerPid", 10, &tracer) < 0 || tracer > INT_MAX)
		return -EBADMSG;
	/* A kernel without seccomp has no such line. */
	(void)!proc_status_value(data, len, "Seccomp", 10, &seccomp);
	st.tracer = (pid_t)tracer;
	st.seccomp = seccomp != 0;
	*ret = st;
	return 0;
}

int proc_read_status(pid_t pid, struct proc_status *ret)
{
	char data[PROC_STATUS_MAX];
	int n = proc_read_pid_file(pid, "status", data, sizeof(data));

	if (n < 0)
		return n;
	return proc_status_parse(data, (size_t)n, ret);
}

static int read_capabilities(pid_t tid, uint64_t *ret_effective, uint64_t *ret_permitted)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3,
						  .pid = tid};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	/* To capget(2), 0 is the caller. */
	if (tid <= 0)
		return -ESRCH;
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	*ret_effective = data[0].effective | (uint64_t)data[1].effective << 32;
	*ret_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return 0;
}

int proc_read_capabilities(pid_t tid, uint64_t *ret)
{
	uint64_t permitted;

	return read_capabilities(tid, ret, &permitted);
}

int proc_read_permitted(pid_t tid, uint64_t *ret)
{
	uint64_t effective;

	return read_capabilities(tid, &effective, ret);
}

int proc_read_tgid(pid_t tid, pid_t *ret)
{
	char path[PROC_PATH_MAX];
	_Alignas(8) char buf[TASK_DIR_BUFFER];
	_cleanup_close_ int fd = -1;
	long n;

	snprintf(path, sizeof(path), "/proc/%d/task", tid);
	fd = openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* The kernel lists the group's first thread first: fs/proc/base.c, first_tid(). */
	n = syscall(SYS_getdents64, fd, buf, sizeof(buf));
	if (n < 0)
		return -errno;
	for (size_t pos = 0; pos < (size_t)n;) {
		const struct dirent64_raw *e = (const struct dirent64_raw *)(buf + pos);
		uint64_t number;

		if (parse_u64(e->name, 1, INT_MAX, &number) == 0) {
			*ret = (pid_t)number;
			return 0;
		}
		if (e->reclen == 0)
			return -EBADMSG;
		pos += e->reclen;
	}
	return -ESRCH;
}

static int dir_open(struct proc_dir *dir, const char *path)
{
	dir->pos = dir->len = 0;
	dir->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir->fd < 0 ? -errno : 0;
}

int proc_dir_open(struct proc_dir *dir)
{
	return dir_open(dir, "/proc");
}

int proc_dir_open_fds(struct proc_dir *dir, pid_t pid)
{
	char path[PROC_PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	return dir_open(dir, path);
}

int proc_dir_rewind(struct proc_dir *dir)
{
	dir->pos = dir->len = 0;
	return lseek(dir->fd, 0, SEEK_SET) < 0 ? -errno : 0;
}

int proc_dir_next(struct proc_dir *dir, pid_t *ret)
{
	for (;;) {
		const struct dirent64_raw *e;
		uint64_t number;

		if (dir->pos == dir->len) {
			long n = syscall(SYS_getdents64, dir->fd, dir->buf, sizeof(dir->buf));

			if (n < 0)
				return -errno;
			if (n == 0)
				return 0;
			dir->pos = 0;
			dir->len = (size_t)n;
		}
		e = (const struct dirent64_raw *)(dir->buf + dir->pos);
		if (e->reclen == 0 || e->reclen > dir->len - dir->pos)
			return -EBADMSG;
		dir->pos += e->reclen;
		if (parse_u64(e->name, 0, INT_MAX, &number) < 0)
			continue;
		*ret = (pid_t)number;
		return 1;
	}
}

void proc_dir_close(struct proc_dir *dir)
{
	close_fd(take_fd(&dir->fd));
}
