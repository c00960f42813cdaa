/* SPDX-License-Identifier: MIT */
/*
 * Processes that ended, and processes without an entry: see process_past.h.
 */
#include "guest-agent/probes/process_past.h"

void past_add(struct process_past *p, struct image_table *images, pid_t pid, image_id image,
	      uint64_t from_ns, uint64_t to_ns)
{
	struct past_process *e = &p->ended[p->next++ % PAST_MAX];

	image_unref(images, e->image);
	*e = (struct past_process){.pid = pid, .image = image, .from_ns = from_ns, .to_ns = to_ns};
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
