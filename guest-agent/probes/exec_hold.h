/* SPDX-License-Identifier: MIT */
/*
 * Executions that are not reported yet, because it is not certain which program they executed.
 *
 * The kernel replaces a process's image before it queues the event, and a process can execute
 * something else at once. So the path that /proc gives after an event may already be the next
 * program's. An execution is held until that can be ruled out:
 *
 *   ends by                                   verdict
 *   HOLD_NS passed (GIVE_UP_NS, while the
 *   reader was not asked for its arguments,
 *   exec_reader.h), then the process was seen
 *   outside of execve(2), then the socket was
 *   empty                                     the path is true
 *   the process ended                         the path is true: it cannot have executed another
 *   it executed something else                `replaced`
 *   GIVE_UP_NS passed, events still queued    `unsure`
 *   REST_NS passed, not seen outside          `unsure`
 *   /proc did not give the path               `gone`, `traced`, `too_long`, `unreadable`: at once
 *   REST_NS passed, the reader of stat and
 *   status was asked LOOKS times and did not
 *   answer                                    `unreadable`
 *
 * A process is outside of execve(2) when it sleeps, or when it has used more processor time since
 * the path was read than the rest of execve(2) takes. Time alone proves nothing: a workload can
 * keep a process of the idle class from running for as long as it likes. And a busy host can stop
 * the processor within execve(2) while the guest's clock goes on (proc(5) then counts that time as
 * used), so a little processor time counts only together with page faults.
 *
 * Later events of that process wait until the execution is reported. A process that ran before the
 * agent did has an image to learn too; that hold reports nothing.
 *
 * Bounded; allocated once; single-threaded. It reads /proc/PID/{exe,cwd} only, and asks for stat
 * and status (proc_facts.h).
 */
#pragma once

#include <stdbool.h>

#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/image_table.h"
#include "guest-agent/probes/proc_facts.h"

#define EXEC_HOLDS_MAX	 64u
#define EXEC_WAITING_MAX 128u
#define EXEC_HOLD_NS	 (20 * NSEC_PER_MSEC)
#define EXEC_GIVE_UP_NS	 (100 * NSEC_PER_MSEC)
#define EXEC_REST_NS	 (1 * NSEC_PER_SEC)
#define EXEC_LOOK_NS	 (20 * NSEC_PER_MSEC)
#define EXEC_CPU_TICKS	 4u  /* at least 20 ms, as two numbers that are rounded down differ */
#define EXEC_FAULTS	 16u /* more than the rest of execve(2) makes */
#define EXEC_LONG_TICKS	 25u /* enough without page faults */
#define EXEC_LOOKS	 8u
#define EXEC_TEXT_MAX	 WIRE_DETAIL_TEXT_MAX

enum exec_why {
	EXEC_RESOLVED,
	EXEC_GONE,
	EXEC_REPLACED,
	EXEC_TRACED,
	EXEC_TOO_LONG,
	EXEC_UNREADABLE,
	EXEC_UNSURE,
	_EXEC_WHY_MAX,
};

/* Static: as on the wire; NULL for EXEC_RESOLVED. */
const char *exec_why_name(enum exec_why why);

/* The question to the reader of executed processes (exec_reader.h). */
enum exec_question {
	EXEC_NOT_ASKED, /* answered, or no answer will come */
	EXEC_TO_ASK,	/* the reader has not been asked yet */
	EXEC_ASKED,
};

/* What /proc says of a process that has just executed something. */
struct exec_facts {
	enum exec_why why;
	struct proc_stat stat;
	struct proc_status status;
	bool there;	    /* stat and status are valid */
	bool pending;	    /* they have not been had yet; why is what it is without them */
	bool other_user;    /* the owner's: the ids in status may be those of later */
	uint64_t learnt_ns; /* when stat and status had been read */
	int exe_error;
	size_t exe_len, cwd_len;
	char exe[EXEC_TEXT_MAX + 1], cwd[EXEC_TEXT_MAX + 1];
};

struct exec_held {
	pid_t pid; /* 0: free */
	pid_t ppid;
	bool silent; /* only the image is wanted */
	bool ended;  /* exit_* is valid */
	image_id image;
	uint64_t start_ns; /* CLOCK_BOOTTIME; 0: not known */
	uint64_t at_ns;
	uint64_t hold_until_ns, give_up_ns, rest_until_ns;
	uint64_t ask_until_ns; /* then proc_facts.h is asked, although the question runs */
	uint64_t look_ns;      /* when to look for that again */
	uint64_t rested_ns;    /* when it was seen outside of execve(2); 0: not yet */
	uint32_t order;	       /* of their beginning */
	uint32_t exit_status;
	uint64_t exit_at_ns;
	enum exec_question question;
	bool untracked; /* nobody knows when it began */
	bool has_args, args_cut;
	uint8_t comm_len;
	uint8_t looks; /* questions for stat and status without an answer */
	uint16_t args_len;
	char comm[PROC_COMM_MAX];
	char args[EXEC_TEXT_MAX];
	struct exec_facts facts;
};

struct exec_waiting {
	pid_t pid; /* 0: free */
	uint32_t order;
	struct connector_event event;
};

struct exec_holds {
	uint32_t order;
	size_t n, n_waiting;
	struct exec_held held[EXEC_HOLDS_MAX];
	struct exec_waiting waiting[EXEC_WAITING_MAX];
};

/* Read the links of /proc. Then the facts are EXEC_GONE, or stat and status are pending. */
void exec_read_links(pid_t pid, struct exec_facts *ret);

/*
 * Draw the conclusion. r is 0 if f->stat and f->status are filled in, or an error of proc_facts.h.
 * start_ns: the process's start on CLOCK_BOOTTIME; 0: not known. EXEC_RESOLVED means that nothing
 * in /proc contradicts the path; the hold decides whether it is true.
 */
void exec_learn(struct exec_facts *f, uint64_t start_ns, int r);

/* Ask proc_facts.h for stat and status. To be repeated while they are pending. */
void exec_look(pid_t pid, uint64_t start_ns, struct exec_facts *f);

/* The links, then the rest. */
void exec_read(pid_t pid, uint64_t start_ns, struct exec_facts *ret);

/* Add to *o what process.executed says of a program. ppid 0: not known. */
void exec_describe(const struct exec_facts *facts, enum exec_why why, pid_t ppid,
		   struct observation *o);

/* NULL when nothing is held of pid, or no such. Borrowed until released. */
struct exec_held *exec_hold_find(struct exec_holds *x, pid_t pid);
struct exec_held *exec_hold_oldest(struct exec_holds *x);

/* A new one, filled but for its facts; pid must have none. NULL when all are in use. */
struct exec_held *exec_hold_begin(struct exec_holds *x, pid_t pid, uint64_t at_ns, uint64_t now_ns);

/*
 * Whether it is over, and how: true with the verdict. empty_ns: when the socket was last found
 * empty.
 */
bool exec_hold_over(const struct exec_held *h, uint64_t now_ns, uint64_t empty_ns,
		    enum exec_why *ret);

/*
 * Of a hold that is over by time: whether every execution before the path was read has queued its
 * event, and that was read. False: ask again later.
 */
bool exec_hold_rested(struct exec_held *h, uint64_t empty_ns);

/* Report it (unless it is silent), settle its image, free it. Events that waited stay there. */
void exec_hold_release(struct exec_holds *x, struct exec_held *h, enum exec_why why,
		       struct image_table *images, struct event_queue *q);

/* Let an event of a held process wait. False when there is no room. */
bool exec_hold_wait(struct exec_holds *x, const struct connector_event *ev);
/* Take the oldest event that waits for pid. */
bool exec_hold_take(struct exec_holds *x, pid_t pid, struct connector_event *ret);

/* The held execution that the reader is to be asked about next, or NULL. */
struct exec_held *exec_hold_to_ask(struct exec_holds *x);
/* Its arguments: raw bytes as the process has them; len < 0: they cannot be had. */
void exec_hold_args(struct exec_held *h, const char *data, ssize_t len, uint64_t now_ns);
