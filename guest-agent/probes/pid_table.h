/* SPDX-License-Identifier: MIT */
/*
 * A bounded table of the living processes, by pid. It gives an exit its name, and shows that the
 * kernel uses a pid again. Allocated once; with a full table names are lost, never events.
 *
 * Entries stay where they are until removed. Single-threaded, no I/O.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PID_TABLE_SIZE	   4096u /* processes */
#define PID_TABLE_COMM_MAX 16u

struct pid_entry {
	uint64_t start_ns; /* CLOCK_BOOTTIME */
	pid_t pid;
	pid_t ppid;
	uint32_t threads;     /* alive, the first one included */
	uint32_t exit_status; /* the owner's: of the last thread seen to end */
	uint32_t scan;	   /* number of the last /proc scan that saw it, or that it was born in */
	uint16_t image;	   /* the owner's: what it runs */
	uint64_t image_ns; /* since when, CLOCK_MONOTONIC; 0: since before it was known */
	uint64_t user_ns;  /* the owner's: when it last changed its user; 0: not seen */
	uint8_t flags;	   /* the owner's */
	uint8_t comm_len;
	uint16_t chain; /* internal */
	char comm[PID_TABLE_COMM_MAX];
	bool was_gone; /* the owner's: all its threads, at its last look */
};

struct pid_table;

/* NULL when there is no memory. */
struct pid_table *pid_table_new(void);
void pid_table_free(struct pid_table *t);

/* NULL when pid is not there. Borrowed until it is removed. */
struct pid_entry *pid_table_find(struct pid_table *t, pid_t pid);

/* A new entry, zeroed but for pid, which must not be there yet. NULL when the table is full. */
struct pid_entry *pid_table_add(struct pid_table *t, pid_t pid);

void pid_table_remove(struct pid_table *t, struct pid_entry *e);

/*
 * Walk: start with *place = 0. NULL at the end. The entry returned may be removed; entries added
 * meanwhile may or may not be seen.
 */
struct pid_entry *pid_table_next(struct pid_table *t, size_t *place);

size_t pid_table_count(const struct pid_table *t);
/* How often pid_table_add() found it full. */
uint64_t pid_table_refused(const struct pid_table *t);

/* comm is cut to 15 bytes. */
void pid_entry_set_comm(struct pid_entry *e, const char *comm, size_t len);
