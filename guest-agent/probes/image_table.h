/* SPDX-License-Identifier: MIT */
/*
 * The program that each process runs: images, shared by processes that inherited them with fork(2).
 * An image is held until the file is certain; then its path is known, or it stays unknown. Equal
 * paths are stored once.
 *
 * Bounded: without room for another path an image is unknown. Allocated once; single-threaded; no
 * I/O.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define IMAGES_MAX	4608u
#define IMAGE_PATHS_MAX 128u
#define IMAGE_PATH_MAX	1024u

enum image_state {
	IMAGE_UNKNOWN,
	IMAGE_HELD,
	IMAGE_KNOWN,
};

/* 0: no image; it counts as unknown. */
typedef uint16_t image_id;

struct image_table;

/* NULL when there is no memory. */
struct image_table *image_table_new(void);
void image_table_free(struct image_table *t);

/* A held image with one reference; 0 if there are too many. */
image_id image_new(struct image_table *t);
/* One reference more; returns id. */
image_id image_ref(struct image_table *t, image_id id);
void image_unref(struct image_table *t, image_id id);

/* Its path is this one (1..IMAGE_PATH_MAX bytes, copied), or with len 0: it stays unknown. */
void image_settle(struct image_table *t, image_id id, const char *path, size_t len);

enum image_state image_state(const struct image_table *t, image_id id);

/* The path of a known image: borrowed until the image is unreferenced. */
const char *image_path(const struct image_table *t, image_id id, size_t *ret_len);
