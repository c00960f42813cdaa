/* SPDX-License-Identifier: MIT */
/*
 * A cell (one microVM) as the receiver serves it: its socket, its one active connection, its
 * stream, and what it knows of the guest. And the registry: what all cells share; its functions are
 * in registry.h.
 *
 * Everything here belongs to the loop thread. cell.c writes it; connections.c writes
 * what concerns connections, and frames.c what frames say. A cell that was removed is freed once
 * its handles are closed and its last event is reported.
 */
#pragma once

#include "common/spare_fd.h"
#include "host-receiver/cell/connection.h"
#include "host-receiver/cell/gap.h"
#include "host-receiver/cell/host_view.h"
#include "host-receiver/cell/keepalive.h"
#include "host-receiver/cell/kept.h"
#include "host-receiver/cell/limited.h"
#include "host-receiver/cell/limiter.h"
#include "host-receiver/cell/options.h"
#include "host-receiver/cell/socket.h"
#include "host-receiver/cell/turns.h"
#include "host-receiver/pipeline/log_stream.h"

#define CELL_CONTEST_MS		   250u /* a connection that does not answer in this time lives */
#define CELL_CHECKPOINT_DEFAULT_MS 60000u
#define CELL_ACCEPTS_PER_TURN	   64u
/* A cell above its rate of connections is accepted from once in this time. */
#define CELL_ACCEPT_PAUSE_MS 5u
/* With less than this in flight a cell is quiet, and its next bytes wait for no backlog. */
#define CELL_QUIET_BYTES (16u * 1024u)
/* A frame and a read cost time even if they make no evidence; charged for the turns. */
#define CELL_FRAME_COST 256u
#define CELL_READ_COST	1024u
/*
 * If all that has arrived ends inside a frame, the next read waits so long. While that goes on the
 * time doubles up to the maximum: each piece costs the kernel and the loop as much as many frames.
 * An agent sends whole frames, and a part of one only when its socket is full.
 */
#define CELL_PIECE_PAUSE_MS	2u
#define CELL_PIECE_PAUSE_MAX_MS 64u
/* An acknowledgement is sent at latest so long after it became true. */
#define CELL_ACK_MS	  100u
#define CELL_ACK_FRACTION 8u /* or for this part of the agent's queue */

/* Totals of all cells; plain numbers of the loop thread. */
struct cell_registry_stats {
	uint64_t frames, bytes, connections, contested, gaps, reads_paused;
	uint64_t no_descriptor; /* connections closed because no descriptor was left */
	uint64_t rejected[_WIRE_ERROR_MAX], repeated;
	uint64_t sessions_evicted; /* their numbers are forgotten: a cell keeps SESSIONS_KEPT */
	uint64_t limit_hits[_CEILING_MAX]; /* pauses; connections that were closed */
	uint64_t guest_dropped, guest_kernel_lost;
	uint64_t events[_EVENT_TYPE_MAX];
	uint64_t probe_readings[_PROBE_KIND_MAX], probe_failures[_PROBE_KIND_MAX];
	unsigned probes_stuck;
	unsigned cells, active, silent;
};

struct cell_registry {
	uv_loop_t *loop;		/* borrowed */
	struct pipeline *pipeline;	/* borrowed */
	struct log_stream *log_stream;	/* borrowed; NULL: there is none */
	struct sign_client *parent;	/* borrowed; binds sockets of other owners */
	struct probe_scheduler *probes; /* owned */
	unsigned checkpoint_ms;
	struct ceiling_rates rates; /* of cells whose options say nothing */
	char hostname[256], boot_id[64];
	struct cell *cells; /* list */
	unsigned ending;    /* removed, and not sealed yet */
	bool comes_back;    /* the next run serves the same cells */
	bool paused;	    /* nothing is read: too much is in flight */
	struct turns turns; /* who is read next */
	struct cell_registry_stats stats;
	struct spare_fd spare;
	uint8_t *read_buffer; /* CONNECTION_READ_SIZE; used within one callback */
};

/* The connections of a cell. The table of these states is at the top of connections.c. */
enum cell_link {
	CELL_ALONE,
	CELL_CONNECTED,
	CELL_ASKING,
	CELL_ASK_LATER,
	CELL_SUCCEEDING,
	CELL_SETTLING,
	_CELL_LINK_MAX,
};

struct cell {
	struct cell *next, **link;	/* in the registry's list */
	struct cell_registry *registry; /* borrowed */
	struct stream stream;
	struct cell_options options; /* its strings are owned or the stream's */
	char *uds_base;		     /* owned */
	struct cell_socket socket;
	uv_poll_t listen_poll;
	uv_timer_t timer;
	uint64_t timer_at_ns; /* what the timer is set to; 0: not set */
	unsigned open_handles;
	bool listening, removed;
	bool quiet;				/* cell_quiesce() was called */
	void (*on_connection_ended)(void *ctx); /* optional */
	void *ctx;

	enum cell_link state;
	struct connection *active, *newcomer; /* as the state says; else NULL */
	uint64_t answer_until_ns;	      /* in CELL_ASKING */
	const char *settling_reason;	      /* in CELL_SETTLING: why the connection ends */
	uint64_t n_connections, n_accepted;   /* that became active; all */
	struct host_view *view;		      /* NULL: no probes */
	const char *end_reason;
	uint64_t unread_bytes;	      /* of the last connection, when it ended */
	void (*on_sealed)(void *ctx); /* optional */
	void *sealed_ctx;

	uint64_t checkpoint_sequence, checkpoint_at_ns;
	uint64_t frames, frames_rejected, bytes, gaps, repeated;

	struct keepalive keepalive;
	uint64_t heartbeat_ns; /* of the last; 0: none yet */

	/* Numbers and acknowledgements (delivery.md sections 1 and 2). */
	struct sessions sessions;
	struct numbering numbering;    /* of the active connection */
	bool acks, hurry;	       /* it wants acknowledgements; at once */
	uint64_t ack_step, ack_due_ns; /* how many at least; or when (0: nothing is due) */
	char boot_id[64];	       /* of the last hello */
	bool lie_noted;		       /* of the active connection */
	struct guest_totals guest;

	/* What it may cost (section 5). */
	struct ceilings ceilings;
	struct fair_flow flow;
	bool may_read;
	uint64_t charged_events, charged_bytes;
	uint64_t eventless;	  /* frames that made no event */
	uint64_t accept_again_ns; /* no connection is accepted before; 0: now */
	uint64_t read_again_ns;	  /* nothing is read before; 0: now */
	unsigned piece_pause_ms;  /* after the last read; 0: it brought whole frames */

	struct limited limited; /* reports */

	/* The daemon's: what of the evidence that is kept is the cell's. */
	struct kept kept;
	bool fills_log; /* more than its share, and reported */
};

/* The cells' part in the order of reading; for cell_registry_init(). */
extern const struct turns_ops cell_turns_ops;

/* What happens on a connection; for connections.c, which makes them. */
extern const struct connection_ops cell_connection_ops;

/* Poll what the state and the registry allow, and set the timer: what cell.c says at its top. */
void cell_update(struct cell *cell);

/* The cell's ceilings: its own, or the registry's. */
struct ceiling_rates cell_rates(const struct cell *cell);

/* For the pipeline's on_durable(): acknowledges what is durable, and ends what waited for it. */
void cell_durable(struct pipeline_account *account);

/*
 * Bind the cell's socket and open its stream; when it returns 0 the VM may be started. options and
 * stream_id are copied. previous: the stream of the same cell before a restart, or NULL. Returns 0
 * or a negative errno with a sentence in why (see cell_socket_bind()).
 */
int cell_add(struct cell_registry *registry, const struct cell_options *options,
	     bool replace_socket, const uint8_t stream_id[static UUID_SIZE],
	     const struct stream_end *previous, struct cell **ret, char why[CELL_WHY_MAX]);

/*
 * Seal the stream for this reason (static) and give the cell another one, whose totals begin at
 * zero; its connection goes on. Then cell_open_stream() before anything else happens: it writes the
 * new stream's first record. ret_end: what the new one names as its predecessor. 0 or -ENOMEM.
 */
int cell_seal_stream(struct cell *cell, const char *reason,
		     const uint8_t stream_id[static UUID_SIZE], struct stream_end *ret_end);
void cell_open_stream(struct cell *cell, const struct stream_end *previous);

/*
 * The first step of the receiver's end (delivery.md section 4): the socket is closed and unlinked,
 * nothing is accepted or read any more. What was read is still committed and acknowledged. Then
 * cell_remove() reads nothing: the guest sends again what nobody acknowledged.
 */
void cell_quiesce(struct cell *cell);

/*
 * Unlink the socket, end the connection, seal the stream with this reason (static: "removed",
 * "shutdown", "once") and free the cell later.
 *
 * What has arrived is still read, unless the cell is quiet, or this is a shutdown, the agent waits
 * for acknowledgements, and the next run serves the cell: then it sends that again. Before its
 * connection ends, what was read is committed and acknowledged. With probes the seal comes after
 * their last readings, at most POOL_GIVE_UP_MS later. Until the seal registry->ending counts the
 * cell. on_sealed may be called from within.
 */
void cell_remove(struct cell *cell, const char *reason);
