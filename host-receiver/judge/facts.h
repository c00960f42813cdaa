/* SPDX-License-Identifier: MIT */
/*
 * The facts of one line of evidence: an entry and its own signature, a segment line, or a
 * checkpoint line. This code decides everything that needs no other line. So many threads may read
 * lines at the same time, each with its own reader. tree_run.h and streams.h judge lines together.
 */
#pragma once

#include "host-receiver/evidence/tree.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/sign/keyring.h"

#define FACTS_LINE_MAX	    65535u /* without '\n' */
#define FACTS_STREAM_ID_MAX 64u
#define FACTS_TEXT_MAX	    255u /* bytes kept of a text that people read */

#define EVIDENCE_TYPE_PREFIX	 "dev.cellos.events.cell.observability."
#define EVIDENCE_TYPE_SEGMENT	 "dev.cellos.events.log_segment.v1"
#define EVIDENCE_TYPE_CHECKPOINT "dev.cellos.events.log_checkpoint.v1"

enum line_class {
	CLASS_MALFORMED, /* still an entry: the tree has the hash of every line */
	CLASS_ENTRY,
	CLASS_SEGMENT,
	CLASS_CHECKPOINT,
};

/* An entry's own signature. */
enum line_proof {
	PROOF_NONE, /* an event without a signature of its own */
	PROOF_SIGNED,
	PROOF_UNKNOWN_KEY,
	PROOF_WRONG,
};

/* The events that the judge evaluates. */
enum fact_kind {
	FACT_OTHER,
	FACT_STREAM_OPENED,
	FACT_STREAM_CHECKPOINT,
	FACT_STREAM_SEALED,
	FACT_LOG_OPENED,
	FACT_LOG_RESUMED,
	FACT_LOG_CLOSED,
	FACT_LOG_PRUNED,
	FACT_GAP,
	FACT_RECEIPT, /* telemetry.dropped */
	FACT_SILENCED,
	FACT_CONTESTED,
	FACT_UNWITNESSED,
	_FACT_KIND_MAX,
};

enum fact_text {
	TEXT_STREAM,
	TEXT_CELL,
	TEXT_RUN,
	TEXT_HOST,     /* of opened */
	TEXT_PREVIOUS, /* previousStreamId, or previousOrigin */
	TEXT_ORIGIN,   /* of opened and pruned */
	TEXT_REASON,
	_FACT_TEXT_MAX,
};

enum fact_number {
	NUMBER_SEQUENCE,
	NUMBER_PREVIOUS, /* previousSequence, or previousSize */
	NUMBER_FIRST,	 /* firstMissing, or firstIndex of pruned */
	NUMBER_LAST,	 /* lastMissing */
	NUMBER_DROPPED,
	NUMBER_KERNEL_LOST,
	NUMBER_COUNT, /* of contests; cutLines */
	_FACT_NUMBER_MAX,
};

struct event_facts {
	enum fact_kind kind;
	int64_t time_ms; /* 0: none */
	struct wire_text texts[_FACT_TEXT_MAX];
	uint64_t numbers[_FACT_NUMBER_MAX];
	bool has_previous; /* the event has NUMBER_PREVIOUS */
};

struct note_facts {
	enum keyring_verdict verdict;
	const char *kid;       /* borrowed from the keyring; NULL: none */
	struct wire_text name; /* signerKid */
	struct wire_text origin;
	bool present; /* false: a segment line at index 0 has none */
	uint64_t size;
	struct tree_hash root;
	/* Of a segment line. */
	uint64_t first_index;
	const struct tree_hash *frontier; /* tree_frontier_count(first_index) hashes */
};

struct line_facts {
	enum line_class class;
	enum line_proof proof;
	/* Why the line is malformed, or its signature not good. Static; NULL: nothing is wrong. */
	const char *why;
	uint64_t why_offset;	   /* with CLASS_MALFORMED: the byte; UINT64_MAX: none */
	struct wire_text why_name; /* the unknown kid */
	struct tree_hash leaf;	   /* of all lines except segment and checkpoint lines */
	struct event_facts event;
	struct note_facts note;
};

/* Memory for the texts of facts: as many bytes as the lines have, and FACTS_ARENA_SPARE. */
#define FACTS_ARENA_SPARE 4096u

struct facts_arena {
	char *data; /* borrowed */
	size_t used, size;
};

struct facts_reader;

/* The keyring is borrowed. NULL when there is no memory. */
struct facts_reader *facts_reader_new(const struct keyring *ring);
void facts_reader_free(struct facts_reader *reader);

/*
 * Read one line of at most FACTS_LINE_MAX, without its '\n'. Facts point into the arena. Returns 0,
 * -ENOMEM, or -EIO when libcrypto failed.
 */
int facts_read(struct facts_reader *reader, const char *line, size_t len, struct facts_arena *arena,
	       struct line_facts *ret);
