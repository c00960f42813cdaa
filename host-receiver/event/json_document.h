/* SPDX-License-Identifier: MIT */
/*
 * A strict, bounded reader of one JSON value (RFC 8259) that can write any part of it again in
 * canonical form (RFC 8785). Evidence must be read exactly as it was signed: integers keep every
 * digit. A duplicate key is an error, and so are bad UTF-8, lone surrogates and numbers that are
 * not plain integers: a forger could hide something in them.
 *
 * One document is read at a time into memory that is reused; not shared between threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host-receiver/event/json_writer.h"

#define JSON_DOCUMENT_MAX (256u * 1024u) /* bytes of text; an evidence line is at most 64 KiB */
#define JSON_DEPTH_MAX	  32u

enum json_type {
	JSON_OBJECT_NODE,
	JSON_ARRAY_NODE,
	JSON_STRING_NODE,
	JSON_INTEGER_NODE,
	JSON_TRUE_NODE,
	JSON_FALSE_NODE,
	JSON_NULL_NODE,
};

struct json_node {
	enum json_type type;
	struct wire_text key;  /* of a member of an object; unescaped */
	struct wire_text text; /* of a string, unescaped; of an integer, its digits */
	uint32_t first, next;  /* child and sibling; 0: none. Members are in canonical order */
};

struct json_document;

/* For texts of at most max bytes, < 4 GiB. NULL when there is no memory. */
struct json_document *json_document_new(size_t max);
void json_document_free(struct json_document *doc);

/*
 * Read data as one value. Returns 0, -EBADMSG with a phrase in *ret_why (static) and the byte in
 * *ret_offset, -E2BIG above the document's size, or -ENOMEM. Nodes are valid until the next read.
 */
int json_document_read(struct json_document *doc, const char *data, size_t len,
		       const char **ret_why, size_t *ret_offset);

/*
 * The same for callers that only ask whether the text is a JSON value. Returns 1, 0, or -ENOMEM,
 * which says nothing about the text.
 */
int json_document_try(struct json_document *doc, const char *data, size_t len);

const struct json_node *json_document_root(const struct json_document *doc);

/* The first member or element, and the next one after node. NULL: there is none. */
const struct json_node *json_child(const struct json_document *doc, const struct json_node *node);
const struct json_node *json_sibling(const struct json_document *doc, const struct json_node *node);

/* The member of an object, or NULL: there is none, or node is NULL or no object. */
const struct json_node *json_member(const struct json_document *doc, const struct json_node *node,
				    const char *key);

/* The member's string. False: it is missing or no string. */
bool json_member_string(const struct json_document *doc, const struct json_node *node,
			const char *key, struct wire_text *ret);

/* The member's integer if it fits into u64; false otherwise. */
bool json_member_uint(const struct json_document *doc, const struct json_node *node,
		      const char *key, uint64_t *ret);

/* Whether a text is this string. */
static inline bool json_text_is(struct wire_text text, const char *s)
{
	return text.len == strlen(s) && memcmp(text.data, s, text.len) == 0;
}

/* The canonical order of keys: <0, 0, >0. */
int json_compare_keys(struct wire_text a, struct wire_text b);

/* Write node in canonical form. It is never longer than its text was. */
void json_write_canonical(const struct json_document *doc, const struct json_node *node,
			  struct json_writer *w);
