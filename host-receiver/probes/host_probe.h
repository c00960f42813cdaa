/* SPDX-License-Identifier: MIT */
/*
 * The interface of the host's probes, which read a cell's state without asking the guest
 * (host-receiver.md section 6). Each probe is a file: cgroup.c, tap_link.c, nftables.c,
 * fc_metrics.c.
 *
 * A probe has the name of its source and the position in it. The loop thread opens and closes a
 * probe without I/O. A thread of the pool reads it, one reading at a time. This room knows neither
 * cells nor streams.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host-receiver/event/event.h"
#include "host-receiver/event/json_writer.h"

#define PROBE_WHY_MAX	 384u
#define PROBE_OUTPUT_MAX (48u * 1024u) /* bytes of one part: an evidence line is at most 64 KiB */
#define PROBE_PARTS_MAX	 64u
#define PROBE_PATH_MAX	 1024u /* bytes of a path given as an option */

enum probe_kind {
	PROBE_CGROUP,
	PROBE_TAP_LINK,
	PROBE_NFTABLES,
	PROBE_FC_METRICS,
	_PROBE_KIND_MAX,
};

/* The sources of a cell's probes. Strings are borrowed from the parser's caller; NULL: no probe. */
struct probe_options {
	const char *cgroup;	/* absolute path of the cgroup v2 leaf */
	const char *tap;	/* name of the interface */
	const char *nft_table;	/* [FAMILY/]TABLE */
	const char *fc_metrics; /* absolute path of the VMM's metrics file or FIFO */
	const char *fc_api;	/* absolute path of the VMM's API socket; asks for a flush */
	unsigned interval_ms;
};

/*
 * One reading: its inputs and its output as canonical JSON. An output too large for a line
 * of evidence comes in parts, each an object of its own that says "part" and "parts".
 */
struct probe_reading {
	char *inputs;  /* owned; an object */
	char *outputs; /* owned; the parts, one after the other */
	size_t n_parts;
	size_t part_end[PROBE_PARTS_MAX];
	uint64_t taken_ns; /* CLOCK_MONOTONIC when the reading began */
	/* For the cross-witness (section 7). */
	uint64_t packets;	  /* tap_link: from the guest; nftables: of all the table's rules */
	uint64_t vmm_connections; /* fc_metrics: vsock.conns_added since the probe was opened */
	uint64_t vmm_bytes;	  /* fc_metrics: vsock.tx_bytes_count since then */
};

void probe_reading_done(struct probe_reading *reading);

/*
 * How an output is cut into parts: put() writes one part, an object that begins with its number and
 * ends before it is full. The next call goes on after it. rewind() starts again at the first part:
 * each part has the number of all parts, so the parts are counted once before they are written.
 */
enum probe_part {
	PROBE_PART_MORE,
	PROBE_PART_LAST,
	PROBE_PART_STUCK, /* the next item does not fit into a part */
};

/* Write "part" and "parts", if there is more than one part. */
void probe_part_number(struct json_writer *w, size_t part, size_t parts);

/* True if the item that was just put does not fit: the caller must take it back. */
bool probe_part_full(const struct json_writer *w);

/*
 * Fill outputs and part_end. Returns 0, -ENOMEM, or -EFBIG: it needs more than PROBE_PARTS_MAX
 * parts.
 */
int probe_reading_put(struct probe_reading *reading,
		      enum probe_part (*put)(void *ctx, size_t part, size_t parts,
					     struct json_writer *w),
		      void (*rewind)(void *ctx), void *ctx);

struct host_probe; /* each has its own */

struct host_probe_ops {
	const char *name;   /* as in metrics and status */
	const char *source; /* probeSource */
	const char *needs;  /* for people: the source that must exist, and the rights */
	enum event_type event;
	/* A reading reports what happened since the previous one, so a late one still counts. */
	bool is_history;

	bool (*wanted)(const struct probe_options *options);
	/* NULL: no memory. Copies what it needs of the options. */
	struct host_probe *(*open)(const struct probe_options *options);
	/*
	 * Returns 1 and a reading to be freed with probe_reading_done(); 0: nothing has happened
	 * since the last one; or a negative errno. why names the file (and line) of an error. With
	 * a reading, why is empty, or names a part that failed.
	 */
	int (*read)(struct host_probe *probe, struct probe_reading *ret, char why[PROBE_WHY_MAX]);
	void (*close)(struct host_probe *probe);
};

/* A row for each kind. read is NULL if one reading serves all cells (nftables.h). */
extern const struct host_probe_ops *const host_probe_table[_PROBE_KIND_MAX];

extern const struct host_probe_ops probe_cgroup, probe_tap_link, probe_nftables, probe_fc_metrics;
