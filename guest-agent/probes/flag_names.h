/* SPDX-License-Identifier: MIT */
/*
 * The names of the flags in a mask of file events, joined by commas in the order of the table.
 * Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct flag_name {
	uint64_t bits; /* one of them is enough */
	char name[12];
};

/* out must have room for all names. Returns the length without the NUL. */
size_t flag_names_join(const struct flag_name *names, size_t n, uint64_t mask, char *out,
		       size_t size);
