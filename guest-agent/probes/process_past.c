/* SPDX-License-Identifier: MIT */
/*
 * Processes that ended, and processes without an entry: see process_past.h.
 */
#include "guest-agent/probes/process_past.h"

#include <string.h>

void past_add(struct process_past *p, struct image_table *images, const struct pid_entry *e,
	      uint64_t to_ns)
{
	struct past_process *past = &p->ended[p->next++ % PAST_MAX];

	image_unref(images, past->image);
	*past = (struct past_process){.pid = e->pid,
				      .image = e->image,
				      .from_ns = e->image_ns,
				      .to_ns = to_ns,
				      .comm_len = e->comm_len};
	memcpy(past->comm, e->comm, e->comm_len);
}

const struct past_process *past_last(const struct process_past *p, pid_t pid)
{
	const struct past_process *last = NULL;

	for (size_t i = 0; i < PAST_MAX; i++)
		if (p->ended[i].pid == pid && (!last || p->ended[i].to_ns > last->to_ns))
			last = &p->ended[i];
	return last;
}

const struct past_process *past_find(const struct process_past *p, pid_t pid, uint64_t at_ns)
{
	for (size_t i = 0; i < PAST_MAX; i++) {
		const struct past_process *e = &p->ended[i];

		if (e->pid == pid && e->from_ns <= at_ns && at_ns <= e->to_ns)
			return e;
	}
	return NULL;
}

void past_forget(struct process_past *p, struct image_table *images)
{
	for (size_t i = 0; i < PAST_MAX; i++) {
		image_unref(images, p->ended[i].image);
		p->ended[i] = (struct past_process){0};
	}
}

struct orphan *orphan_find(struct process_past *p, pid_t pid)
{
	for (size_t i = 0; i < ORPHANS_MAX; i++)
		if (p->orphans[i].pid == pid)
			return &p->orphans[i];
	return NULL;
}

struct orphan *orphan_get(struct process_past *p, pid_t pid, bool *ret_lost)
{
	struct orphan *o = orphan_find(p, pid);

	*ret_lost = false;
	if (o)
		return o;
	o = &p->orphans[p->next_orphan++ % ORPHANS_MAX];
	*ret_lost = o->pid && !o->reported;
	*o = (struct orphan){.pid = pid};
	return o;
}
