/* SPDX-License-Identifier: MIT */
/*
 * A cell (one microVM) as the receiver serves it: its socket, its one active connection, its
 * stream, and the state of the guest as far as the receiver knows it. The registry has the parts
 * that all cells share; its functions are in registry.h.
 *
 * Everything here belongs to the loop thread. connections.c writes the fields about connections,
 * frames.c the fields that frames change, cell.c all others. A removed cell is freed once its
 * handles are closed and its last event is reported.
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

#define CELL_CHECKPOINT_DEFAULT_MS 60000u
#define CELL_ACCEPTS_PER_TURN	   64u
/* A connection that gives no answer in this time counts as alive. */
#define CELL_CONTEST_MS 250u
/* A cell above its rate of connections gets one connection accepted in this time. */
#define CELL_ACCEPT_PAUSE_MS 5u
/*
 * A cell with less than this in flight is quiet: its next bytes do not wait for the backlog of
 * other cells.
 */
#define CELL_QUIET_BYTES (16u * 1024u)
/*
 * A frame and a read cost time even if they make no evidence. Both are charged as bytes in fair.h.
 */
#define CELL_FRAME_COST 256u
#define CELL_READ_COST	1024u
/*
 * If the arrived bytes end inside a frame, the next read waits for this time. Each further read
 * that ends inside a frame doubles the time, up to the maximum: a small piece costs the kernel and
 * the loop as much as many frames. An agent sends whole frames, and a part of a frame only when its
 * socket is full.
 */
#define CELL_PIECE_PAUSE_MS	2u
#define CELL_PIECE_PAUSE_MAX_MS 64u
/*
 * An acknowledgement is sent at most this long after its frames became durable, or as soon as it
 * covers one part in CELL_ACK_FRACTION of the agent's queue.
 */
#define CELL_ACK_MS	  100u
#define CELL_ACK_FRACTION 8u

/* Totals of all cells; plain numbers of the loop thread. */
struct cell_registry_stats {
	uint64_t frames, bytes, connections, contested, gaps, reads_paused;
	uint64_t no_descriptor; /* connections closed because no descriptor was left */
	uint64_t rejected[_WIRE_ERROR_MAX], repeated;
	uint64_t sessions_evicted;	   /* forgotten, because a cell keeps SESSIONS_KEPT */
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
	struct connection *active, *newcomer; /* NULL where the state has none */
	uint64_t answer_until_ns;	      /* in CELL_ASKING */
	const char *settling_reason;	      /* in CELL_SETTLING: why the connection ends */
	uint64_t n_connections;		      /* connections that became active */
	uint64_t n_accepted;		      /* all connections */
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
	struct numbering numbering; /* of the active connection */
	bool acks, hurry;    /* the agent wants acknowledgements; send the next one at once */
	uint64_t ack_step;   /* frames that one acknowledgement covers at least */
	uint64_t ack_due_ns; /* when the next is due; 0: none */
	char boot_id[64];    /* of the last hello */
	bool lie_noted;	     /* of the active connection */
	struct guest_totals guest;

	/* The ceilings of its cost (section 5). */
	struct ceilings ceilings;
	struct fair_flow flow;
	bool may_read;
	uint64_t charged_events, charged_bytes;
	uint64_t eventless;	  /* frames that made no event */
	uint64_t accept_again_ns; /* no connection is accepted before; 0: now */
	uint64_t read_again_ns;	  /* nothing is read before; 0: now */
	unsigned piece_pause_ms;  /* after the last read; 0: it brought whole frames */

	struct limited limited; /* reports */

	/* Written by the daemon only: the cell's part of the evidence that is kept. */
	struct kept kept;
	bool fills_log; /* it has more than its share, and that was reported */
};

/* The calls by which turns.c reads a cell; for cell_registry_init(). */
extern const struct turns_ops cell_turns_ops;

/*
 * The calls by which a connection reaches its cell; connections.c passes them to connection_new().
 */
extern const struct connection_ops cell_connection_ops;

/* Derive the polls and the timer from the state: see the top of cell.c. */
void cell_update(struct cell *cell);

/* The cell's ceilings: its own, or the registry's. */
struct ceiling_rates cell_rates(const struct cell *cell);

/*
 * For the pipeline's on_durable(): acknowledges durable frames, and ends a connection or a removal
 * that waited for them.
 */
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
 * zero, except those of the guest; its connection goes on. The caller then calls cell_open_stream() before anything else
 * happens: it writes the new stream's first record, which names *ret_end as its predecessor.
 * Returns 0 or -ENOMEM.
 */
int cell_seal_stream(struct cell *cell, const char *reason,
		     const uint8_t stream_id[static UUID_SIZE], struct stream_end *ret_end);
void cell_open_stream(struct cell *cell, const struct stream_end *previous);

/*
 * The first step of the receiver's end (delivery.md section 4): the socket is closed and unlinked,
 * nothing is accepted or read any more. Frames that were read are still committed and acknowledged.
 * A later cell_remove() reads nothing: the guest sends its unacknowledged frames again.
 */
void cell_quiesce(struct cell *cell);

/*
 * Unlink the socket, end the connection, seal the stream with this reason (static: "removed",
 * "shutdown", "once") and free the cell later.
 *
 * Bytes that have arrived are still read, with two exceptions: after cell_quiesce(), and at a
 * shutdown after which the next run serves the cell and the agent waits for acknowledgements (it
 * sends them again). Frames that were read are committed and acknowledged before the connection
 * ends. With probes the seal comes after their last readings, at most POOL_GIVE_UP_MS later. Until
 * the seal, registry->ending counts the cell. on_sealed may be called before this function returns.
 */
void cell_remove(struct cell *cell, const char *reason);
