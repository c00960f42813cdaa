/* SPDX-License-Identifier: MIT */
/*
 * A source of observations, as the agent sees it: one pollable descriptor and a drain function.
 * A source with several descriptors keeps them in an epoll instance of its own, a polling source
 * owns a timerfd; so the agent's loop treats all alike. Sources are chosen at run time by trying
 * open() in the order of probe_table, never by kernel version.
 *
 * Single-threaded. A source allocates in open() only, never blocks, and gives up its turn after
 * its budget. Whatever the guest's processes do must not make it fail: a vanished pid, a file that
 * cannot be read, a malformed record are counted or skipped, never fatal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct event_queue;

/* The four fields of telemetry.hello: process_via, net_via, capability_via, fs_via. */
enum probe_family {
	PROBE_PROCESS,
	PROBE_NET,
	PROBE_CAPABILITY,
	PROBE_FS,
	_PROBE_FAMILY_MAX,
};

#define PROBE_INOTIFY_PATHS_MAX 64u
#define PROBE_EXCLUDED_PIDS_MAX 64u
#define PROBE_WHY_MAX		256u

/* What the command line says of the sources. Borrowed for the life of the agent. */
struct probe_config {
	pid_t self; /* the agent's pid: never reported */
	unsigned poll_ms;
	const char *inotify_paths[PROBE_INOTIFY_PATHS_MAX];
	size_t n_inotify_paths;
	pid_t excluded[PROBE_EXCLUDED_PIDS_MAX];
	uint64_t
		excluded_start_ns[PROBE_EXCLUDED_PIDS_MAX]; /* CLOCK_BOOTTIME; 0: no such process */
	size_t n_excluded;
	const char *listener_socket;
	bool no_args; /* do not read the arguments of executed programs */
	bool lock_audit;
};

/* Learn when the excluded processes started; a number without a process excludes nothing. */
void probe_exclude_now(struct probe_config *config);

/* Whether it is the agent or an excluded process, and not a later one of that number: asks /proc.
 */
bool probe_excludes(const struct probe_config *config, pid_t pid);

/* The same where its start is known (CLOCK_BOOTTIME). */
bool probe_excludes_start(const struct probe_config *config, pid_t pid, uint64_t start_ns);

struct probe_ops;

struct probe {
	const struct probe_ops *ops;
	int fd; /* readable when there is something to drain; owned by the source */
};

struct probe_ops {
	const char *via; /* the name in hello and on the command line */
	enum probe_family family;
	bool opt_in;	       /* never chosen by auto */
	uint64_t capabilities; /* mask of 1 << CAP_*: needed after open() */
	const char *uses;      /* for --probe: a phrase */
	const char *misses;    /* for --probe: what it cannot see, a phrase */

	/*
	 * Try it for real and arm it. Returns 0, or a negative errno with a sentence in why that
	 * names the step which failed. On error nothing stays open. Events may queue up in the
	 * kernel from here on, but none is reported before the first drain().
	 */
	int (*open)(const struct probe_config *config, struct probe **ret, char why[PROBE_WHY_MAX]);

	/*
	 * Report what is there to q, at most about budget events. Returns 1 if more is left, 0 if
	 * drained, or a negative errno if the source is dead: the agent closes it, tries the next
	 * of its family and announces that in another hello.
	 */
	int (*drain)(struct probe *probe, struct event_queue *q, unsigned budget);

	/*
	 * Called at each heartbeat; optional. Returns 1 if the source is healthy (its self-test
	 * passed or it needs none), 0 if not.
	 */
	int (*check)(struct probe *probe, struct event_queue *q);

	/*
	 * Report what waits for something else; called before close(). Optional: most sources let
	 * nothing wait.
	 */
	void (*flush)(struct probe *probe, struct event_queue *q);

	/* Undo what open() did and free the probe. */
	void (*close)(struct probe *probe);

	/* What hello says instead of via while the source is armed but idle (the listener socket
	 * without a listener); NULL: always via. Optional. */
	const char *(*announce)(const struct probe *probe);
};

/* Every source compiled in, by family, in the order of preference; NULL-terminated. */
extern const struct probe_ops *const probe_table[];
