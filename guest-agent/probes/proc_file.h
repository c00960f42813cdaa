/* SPDX-License-Identifier: MIT */
/*
 * Bounded readers of /proc for the sources: one open, one or a few reads, one close, into the
 * caller's buffer; no stdio, no allocation. A pid can vanish between any two calls: then they
 * return -ENOENT or -ESRCH and the caller goes on with what it knows.
 *
 * stat and status make the kernel hold the process's address space while it writes them. If the
 * process ends just then, the reader frees all of its memory: tens of milliseconds for each GiB. So
 * the loop asks a reader process for them (proc_facts.h).
 *
 * proc(5). The parsers are pure and accept any bytes. Safe on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROC_COMM_MAX 16u   /* TASK_COMM_LEN, with its NUL */
#define PROC_STAT_MAX 1024u /* a stat line is at most about 600 bytes */
/* Enough for the lines up to the capabilities; only a list of groups before them has no bound. */
#define PROC_STATUS_MAX 4096u

#define PROC_TICK_NS	   UINT64_C(10000000)  /* USER_HZ is 100 on every architecture */
#define PROC_START_SLOP_NS UINT64_C(100000000) /* two readings of one start differ less */

/* The fields of /proc/PID/stat that the sources need. */
struct proc_stat {
	pid_t pid;
	pid_t ppid;
	char state;
	bool kernel_thread; /* its name changes with its work */
	uint32_t threads;
	uint64_t faults;      /* of pages, none of which was read from a disk */
	uint64_t start_ticks; /* since boot, in units of PROC_TICK_NS */
	uint64_t cpu_ticks;   /* processor time of all its threads, in the same unit */
	bool has_stack;	      /* its program's first stack is set up; false also if not permitted */
	size_t comm_len;
	char comm[PROC_COMM_MAX]; /* raw bytes, not terminated */
};

/*
 * A file of /proc/PID in one read(2): the kernel makes these files at once, so the whole text comes
 * if it fits. Returns the bytes read or a negative errno.
 */
int proc_read_pid_file(pid_t pid, const char *name, char *ret_data, size_t size);

/* A stat line -> *ret. comm may hold any byte, also ')' and newline. 0 or -EBADMSG. */
int proc_stat_parse(const char *data, size_t len, struct proc_stat *ret);

/* 0 or a negative errno. Not from the loop. */
int proc_read_stat(pid_t pid, struct proc_stat *ret);

/* Whether two start times (CLOCK_BOOTTIME ns) can belong to the same process. */
static inline bool proc_same_start(uint64_t a, uint64_t b)
{
	return (a > b ? a - b : b - a) <= PROC_START_SLOP_NS;
}

/*
 * What to add to CLOCK_MONOTONIC for the clock of the start times in /proc, CLOCK_BOOTTIME. A wrong
 * one would make a process seem to have begun at another time, and to be another one.
 */
uint64_t proc_clock_offset(void);

/*
 * Whether /proc shows that the whole thread group has ended. A thread that is ending right now may
 * still be in the kernel's count.
 */
bool proc_group_gone(pid_t pid);

/* Raw bytes without the newline; returns their number (0..15) or a negative errno. */
int proc_read_comm(pid_t pid, char ret_comm[static PROC_COMM_MAX]);

/* Raw bytes of the path, cut to size; returns their number or a negative errno. */
int proc_read_exe(pid_t pid, char *ret_exe, size_t size);

/* The same for its working directory. */
int proc_read_cwd(pid_t pid, char *ret_cwd, size_t size);

/* The fields of /proc/PID/status that the sources need. */
struct proc_status {
	uint32_t uid, euid, gid, egid;
	pid_t tracer; /* 0: none */
	bool seccomp; /* it has a filter */
};

/* The text of a status file -> *ret. 0 or -EBADMSG. */
int proc_status_parse(const char *data, size_t len, struct proc_status *ret);

/* 0 or a negative errno. Not from the loop. */
int proc_read_status(pid_t pid, struct proc_status *ret);

/*
 * The effective, or the permitted, capabilities of a thread: a mask of 1 << CAP_*. capget(2). 0 or
 * a negative errno.
 */
int proc_read_capabilities(pid_t tid, uint64_t *ret);
int proc_read_permitted(pid_t tid, uint64_t *ret);

/* The process that a thread belongs to. 0 or a negative errno. */
int proc_read_tgid(pid_t tid, pid_t *ret);

/* Whether pid is in the agent's own network namespace; false when that cannot be known. */
bool proc_same_net(pid_t pid);

/* A small file of /proc, at most size bytes of it. Returns the bytes read or a negative errno. */
int proc_read_file(const char *path, char *ret_data, size_t size);

/*
 * The number in the line "NAME:\tNUMBER" of a status file; base 10 or 16. 0, -ENOENT when there is
 * no such line, -EBADMSG when its value is no such number.
 */
int proc_status_value(const char *data, size_t len, const char *name, unsigned base, uint64_t *ret);

#define PROC_DIR_BUFFER 4096u

/* The numbers that are names in a folder of /proc, a few at a time: pids, descriptors. */
struct proc_dir {
	int fd; /* owned */
	size_t pos;
	size_t len;
	_Alignas(8) char buf[PROC_DIR_BUFFER];
};

/* All pids. 0 or a negative errno. */
int proc_dir_open(struct proc_dir *dir);
/* The descriptors of pid. 0, or a negative errno and dir->fd is -1. */
int proc_dir_open_fds(struct proc_dir *dir, pid_t pid);
/* From the first again. 0 or a negative errno. */
int proc_dir_rewind(struct proc_dir *dir);
/* 1 and a number, 0 at the end, or a negative errno. */
int proc_dir_next(struct proc_dir *dir, pid_t *ret);
void proc_dir_close(struct proc_dir *dir);
