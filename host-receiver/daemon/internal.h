/* SPDX-License-Identifier: MIT */
/*
 * The struct and the functions that the files of this room share. daemon.c starts and stops,
 * reload.c applies a new configuration, signing.c opens signers, status.c reports once a second,
 * answers.c answers the control socket, cells.c adds and removes cells, restart.c serves the last
 * run's cells again. All functions run on the loop thread, except those named work_*.
 */
#pragma once

#include "host-receiver/cell/registry.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/server.h"
#include "host-receiver/daemon/cell_index.h"
#include "host-receiver/daemon/daemon.h"
#include "host-receiver/daemon/forwarding.h"
#include "host-receiver/daemon/lifecycle.h"
#include "host-receiver/daemon/retention.h"
#include "host-receiver/daemon/unserved.h"
#include "host-receiver/metrics/http.h"
#include "host-receiver/pipeline/log_stream.h"

/* The longest time that an add or a removal waits for the log. Then its client gets a refusal. */
#define DAEMON_TASK_MS 10000u

#define DAEMON_ALARM_MAX 512u

struct cell_task;
struct recall;

struct daemon {
	const char *config_path; /* borrowed */
	struct config config;

	struct lifecycle life;
	uv_timer_t second;
	struct evidence_log *log; /* the sink of the pipeline, which frees it */
	struct pipeline *pipeline;
	const struct signer *signer; /* borrowed from the pipeline; signs the next event */
	struct sign_client *client;  /* owned; the signer process */
	uv_work_t ping;		     /* asks the signer for a sign of life */
	bool pinging;
	bool separate; /* the signer has a user of its own */
	bool landlock; /* this process is in a Landlock domain of its own */
	struct log_start log_start;
	struct log_stream *log_stream; /* owned */
	unsigned stopped_cells;
	char alarm[DAEMON_ALARM_MAX]; /* "": none */
	struct cell_registry registry;
	struct control_server *control;
	struct metrics_server *metrics; /* NULL: off */
	struct cell_index cells;
	struct unserved unserved;
	struct cell_task *tasks;   /* adds and removals under way */
	struct unsealed *unsealed; /* at the end: cells whose seal is not committed */
	bool states_staged; /* cells of the last run wait until their opened records are durable */
	bool reload_waits;  /* until the files of cells are written; only reload.c writes it */
	int state_dir_fd;   /* of state_dir */
	int state_fd;	    /* of state_dir/cells, which it locks */
	struct retention retention;
	struct forwarding forwarding;
	uint64_t started_ns, watchdog_ms, watchdog_due_ns;
	struct recall *recall;			   /* owned: sessions of the last run */
	uint64_t sessions_bytes, sessions_segment; /* when sessions were written last */
	int sink_error;				   /* the error that was logged last */
	char status_line[128]; /* the last one that was sent to the service manager */
	int exit_status;
};

/* ---- descriptors.c ---- */

/* The number of file descriptors that max_cells cells and all clients need. */
uint64_t daemon_descriptors_needed(const struct config *config);
/*
 * Check that one more cell leaves enough descriptors for all connections and clients. Returns 0, or
 * -EMFILE with a sentence in why.
 */
int daemon_check_descriptors(const struct daemon *d, char why[CELL_WHY_MAX]);
/* RLIMIT_NOFILE, which the start raises to its hard limit. */
uint64_t daemon_descriptor_limit(void);
/* Raise the limit, and warn if max_cells needs more. */
void daemon_raise_descriptor_limit(const struct config *config);

/* ---- signing.c ---- */

/*
 * Open the signer of the configuration. Values that the file does not set come from the
 * environment, which is wiped then. Returns 0 or a negative errno with a sentence in why.
 */
int daemon_open_signer(const struct daemon *d, struct signer **ret, char why[SIGN_WHY_MAX]);
/*
 * Read the key as the signer would, for check-config only: a process that serves never has the key.
 */
int daemon_check_key(const struct config *config, const struct process_users *users,
		     struct signing_key **ret, char why[SIGN_WHY_MAX]);
/*
 * From now on this process cannot read the key, credentials and the signer's folder (state; NULL:
 * it is in state_dir). It tries to open them: if that succeeds, it returns EX_CONFIG after a
 * message. Without separate users it only logs how the processes are separated.
 */
int daemon_hide_keys(struct daemon *d, const char *state);
/* Whether this process could open the file. */
bool daemon_can_open(const char *path);
/*
 * Start the client of the signer process. Takes keeper_fd, the parent's socket. Returns an exit
 * status.
 */
int daemon_start_client(struct daemon *d, int keeper_fd, pid_t keeper_pid);
/*
 * Open the signer for a new configuration. *ret is NULL if the running one stays, because its key
 * came from the environment, which was wiped. A reload whose file omits the algorithm never makes
 * the evidence unsigned.
 */
int daemon_open_next_signer(const struct daemon *d, const struct config *wanted,
			    struct signer **ret, char why[SIGN_WHY_MAX]);
void daemon_warn_if_unsigned(const struct signer *signer);
/*
 * Call it each second: it asks the signer for a sign of life. So a dead signer is replaced and a
 * stopped one is noticed even while there is nothing to sign.
 */
void daemon_ping_signer(struct daemon *d);
#define DAEMON_FINGERPRINT_MAX 64u
/*
 * The fingerprint of the public key, in the form of ssh-keygen(1): SHA256:<base64>; "": there is no
 * key.
 */
void daemon_key_fingerprint(const struct signer *signer, char ret[static DAEMON_FINGERPRINT_MAX]);

/* ---- log_opening.c ---- */

/*
 * Open the evidence log: continue the old one or begin a new one. It logs the result. Returns an
 * exit status.
 */
int daemon_open_log(struct daemon *d, struct signer *signer);
/* Begin the log's own stream, once the pipeline runs. Returns an exit status. */
int daemon_start_log_stream(struct daemon *d);
/* Raise an alarm: the text is added to the alarm that stands, if there is one. */
void daemon_raise_alarm(struct daemon *d, const char *text);
/*
 * Acknowledge the alarm, in the name of this uid. Returns 0, -ENOENT if there is no alarm, or
 * another negative errno.
 */
int daemon_acknowledge_alarm(struct daemon *d, uint64_t uid);

/* ---- reload.c ---- */

/* Read the configuration again and apply it. If any part of it is refused, nothing changes. */
void daemon_reload(struct daemon *d);
/* Call it each second: makes the reload that waited, once the files of cells are written. */
void daemon_retry_reload(struct daemon *d);
/* Apply the limits that all cells share, also to the cells that are served already. */
void daemon_set_limits(struct daemon *d, const struct config *config);
/* Begin to serve metrics; *ret is NULL if listen is "off". Returns 0 or a negative errno with a
 * sentence in why. */
int daemon_open_metrics(struct daemon *d, const char *listen, struct metrics_server **ret,
			char why[METRICS_WHY_MAX]);
/* Log each error in a line of its own. */
void daemon_log_config_errors(const struct config_errors *errors);

/* ---- status.c ---- */

void daemon_start_status(struct daemon *d);
/* The age of the oldest event that is not committed; 0: none is in flight. */
uint64_t daemon_oldest_inflight_ms(const struct daemon *d);
/* Log the sink's error (0: none) if it differs from the last one. */
void daemon_report_sink(struct daemon *d, int error);

/* ---- cell_share.c ---- */

/* Call it each second: raises the alarm for a cell that fills more than retain_cell_share. */
void daemon_check_cell_shares(struct daemon *d);

/* ---- answers.c ---- */

/* Answers the control socket; ctx is the daemon. */
json_t *daemon_answer(void *ctx, const json_t *request);

/* ---- cells.c ---- */

/* The refusal that there is no such cell; id may be NULL. */
json_t *daemon_no_cell(const char *id);
/* The defaults for options that a cell does not set. */
void daemon_cell_defaults(const struct daemon *d, struct cell_options *o);
/* Answers to add and remove: a refusal, or NULL and the answer comes later. */
json_t *daemon_add_cell(struct daemon *d, const json_t *request);
json_t *daemon_remove_cell(struct daemon *d, const json_t *request);
/* Call it each second: refuses clients whose task has waited longer than DAEMON_TASK_MS. */
void daemon_check_tasks(struct daemon *d);
/* Forget the cell in a task that adds it, because another request removes it. */
void daemon_forget_added(struct daemon *d, const struct cell *cell);
/* The cell could not be served: log it, list it, try again later. */
void daemon_cell_unserved(struct daemon *d, const char *id, const char *why);
/* Call it each second: tries to serve a cell again whose time has come. */
void daemon_retry_unserved(struct daemon *d);
/* Removals that waited for the last run's states (states_staged) go on. */
void daemon_resume_removals(struct daemon *d);

/* ---- sessions.c ---- */

/* Call it in on_progress(): writes the cells' sessions into the log when they are due. */
void daemon_sessions_progress(struct daemon *d);
/* Read the sessions back from the log, before cells are served. Returns 0 or a negative errno. */
int daemon_recall_sessions(struct daemon *d);
/*
 * Fill in the end of this stream from the lines that were read. daemon_give_sessions() restores the
 * cell's sessions from them.
 */
void daemon_find_end(const struct daemon *d, const uint8_t stream_id[static UUID_SIZE],
		     struct stream_end *ret);
/*
 * Without a sync of each group a power cut may take a stream whose cell's file is on disk already.
 * Then the next stream does not name it.
 */
bool daemon_was_lost(const struct daemon *d, const struct stream_end *end);
void daemon_give_sessions(const struct daemon *d, struct cell *cell);

/* ---- restart.c ---- */

/* Serve the last run's cells again. Returns EX_OK, or an exit status after a message. */
int daemon_readopt_cells(struct daemon *d);

/* ---- streams.c ---- */

struct stream_change;

/*
 * Stage the cells' next streams. Returns 0 or a negative errno; -EBUSY: cells are being added or
 * removed.
 */
int daemon_stage_streams(struct daemon *d, struct stream_change **ret);
/* Give the change up; NULL: does nothing. */
void daemon_discard_streams(struct stream_change *change);
/*
 * Seal the old streams, under the old signer. Then open the new ones, under the new signer: this
 * takes the change.
 */
void daemon_seal_streams(struct stream_change *change);
void daemon_open_streams(struct stream_change *change);
