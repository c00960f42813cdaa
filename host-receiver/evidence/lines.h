/* SPDX-License-Identifier: MIT */
/*
 * The two kinds of lines in a log that are not entries (evidence-log.md section 3): the first line
 * of a segment, and the checkpoint lines. This code writes them in canonical form and reads them
 * strictly. It checks their form only; the caller checks signatures and roots.
 *
 * Pure functions; a json_document belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host-receiver/event/json_document.h"
#include "host-receiver/evidence/note.h"
#include "host-receiver/evidence/tree.h"

#define LINE_TYPE_SEGMENT    "dev.cellos.events.log_segment.v1"
#define LINE_TYPE_CHECKPOINT "dev.cellos.events.log_checkpoint.v1"
#define LINE_SOURCE_LOG	     "cellos-host-telemetry/log"

/* bytes of a note that this project writes: two signature lines */
#define LINE_NOTE_MAX 2048u
/* bytes of such a line, with '\n' */
#define LINE_OWN_MAX 8192u
#define LINE_KID_MAX 128u

enum line_kind {
	LINE_ENTRY,
	LINE_SEGMENT,
	LINE_CHECKPOINT,
};

/* Decide by the parsed top-level type; root may be NULL. */
enum line_kind line_kind_of(const struct json_document *doc, const struct json_node *root);

/*
 * The same for a line in canonical form, without parsing it. The top-level type stands last there.
 * A text in the line cannot imitate it, because its quotes are escaped.
 */
enum line_kind line_kind_of_canonical(const char *line, size_t len);

/*
 * Write the first line of a segment, '\n' included. frontier->size is its first index; note is the
 * checkpoint of exactly that size, and NULL at index 0. Returns the length or -ENOBUFS.
 */
int line_write_segment(const char *origin, const struct tree_frontier *frontier, const char *note,
		       size_t note_len, uint64_t realtime_ms, char ret[static LINE_OWN_MAX]);

/* Write a checkpoint line, '\n' included. Returns the length or -ENOBUFS. */
int line_write_checkpoint(const char *origin, uint64_t size, const char *kid, const char *note,
			  size_t note_len, uint64_t realtime_ms, char ret[static LINE_OWN_MAX]);

struct line_segment {
	char origin[NOTE_ORIGIN_MAX + 1];
	struct tree_frontier frontier; /* its size is the first index */
	size_t note_len;	       /* 0: null, at index 0 only */
	char note_text[NOTE_TEXT_MAX];
	struct note note; /* valid with note_len > 0 */
};

struct line_checkpoint {
	char kid[LINE_KID_MAX + 1];
	size_t note_len;
	char note_text[NOTE_TEXT_MAX];
	struct note note;
};

/*
 * Read a line that was parsed into doc. Returns 0, or -EBADMSG with a phrase in *ret_why (static):
 * a member is missing or not expected, or the line contradicts its note.
 */
int line_read_segment(const struct json_document *doc, const struct json_node *root,
		      struct line_segment *ret, const char **ret_why);
int line_read_checkpoint(const struct json_document *doc, const struct json_node *root,
			 struct line_checkpoint *ret, const char **ret_why);
