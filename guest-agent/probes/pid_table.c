/* SPDX-License-Identifier: MIT */
/*
 * The table of living processes: see pid_table.h. A fixed array of entries, hashed into chains.
 */
#include "guest-agent/probes/pid_table.h"

#include "common/util.h"

#define NOWHERE UINT16_MAX

_Static_assert(PID_TABLE_SIZE < NOWHERE, "a place is 16 bits");
_Static_assert((PID_TABLE_SIZE & (PID_TABLE_SIZE - 1)) == 0, "a power of two");

struct pid_table {
	size_t count;
	uint64_t refused;
	uint16_t free;	/* a list of entries that were used; NOWHERE: none */
	uint16_t fresh; /* the first entry that never was: memory beyond it is untouched */
	uint16_t heads[PID_TABLE_SIZE];
	struct pid_entry entries[PID_TABLE_SIZE]; /* pid 0: unused */
};

static uint16_t *head_of(struct pid_table *t, pid_t pid)
{
	/* Fibonacci hashing: pids that differ in their high bits only must not share a chain. */
	uint32_t hash = (uint32_t)pid * UINT32_C(2654435769);

	return &t->heads[hash >> 20];
}
_Static_assert(PID_TABLE_SIZE == 1u << (32 - 20), "the hash covers the table");

struct pid_table *pid_table_new(void)
{
	struct pid_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	for (size_t i = 0; i < PID_TABLE_SIZE; i++)
		t->heads[i] = NOWHERE;
	t->free = NOWHERE;
	return t;
}

void pid_table_free(struct pid_table *t)
{
	free(t);
}

struct pid_entry *pid_table_find(struct pid_table *t, pid_t pid)
{
	for (uint16_t i = *head_of(t, pid); i != NOWHERE; i = t->entries[i].chain)
		if (t->entries[i].pid == pid)
			return &t->entries[i];
	return NULL;
}

struct pid_entry *pid_table_add(struct pid_table *t, pid_t pid)
{
	uint16_t place = t->free, *head = head_of(t, pid);
	struct pid_entry *e;

	if (place != NOWHERE) {
		t->free = t->entries[place].chain;
	} else if (t->fresh < PID_TABLE_SIZE) {
		place = t->fresh++;
	} else {
		t->refused++;
		return NULL;
	}
	e = &t->entries[place];
	*e = (struct pid_entry){.pid = pid, .chain = *head};
	*head = place;
	t->count++;
	return e;
}

void pid_table_remove(struct pid_table *t, struct pid_entry *e)
{
	uint16_t place = (uint16_t)(e - t->entries), *link = head_of(t, e->pid);

	while (*link != place)
		link = &t->entries[*link].chain;
	*link = e->chain;
	e->pid = 0;
	e->chain = t->free;
	t->free = place;
	t->count--;
}

struct pid_entry *pid_table_next(struct pid_table *t, size_t *place)
{
	while (*place < t->fresh) {
		struct pid_entry *e = &t->entries[(*place)++];

		if (e->pid)
			return e;
	}
	return NULL;
}

size_t pid_table_count(const struct pid_table *t)
{
	return t->count;
}

uint64_t pid_table_refused(const struct pid_table *t)
{
	return t->refused;
}

void pid_entry_set_comm(struct pid_entry *e, const char *comm, size_t len)
{
	e->comm_len = (uint8_t)MIN(len, (size_t)PID_TABLE_COMM_MAX - 1);
	memcpy(e->comm, comm, e->comm_len);
}
