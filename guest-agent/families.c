/* SPDX-License-Identifier: MIT */
#include "guest-agent/families.h"

#include <sys/epoll.h>

#include "common/log.h"
#include "common/util.h"
#include "guest-agent/kernel_options.h"

/*
 * The order in which a turn drains them. System calls wait for the capability source's answers, so
 * it is first.
 */
static const enum probe_family drain_order[_PROBE_FAMILY_MAX] = {
	PROBE_CAPABILITY,
	PROBE_PROCESS,
	PROBE_NET,
	PROBE_FS,
};

void families_init(struct families *f, const struct options *options, struct event_queue *q,
		   int epoll_fd)
{
	*f = (struct families){.options = options, .queue = q, .epoll_fd = epoll_fd};
}

static int watch(struct families *f, int op, struct probe *p)
{
	/* Before the agent is ready nothing is drained, and must not keep it awake. */
	struct epoll_event ev = {.events = f->observing ? EPOLLIN : 0, .data.ptr = p};

	return epoll_ctl(f->epoll_fd, op, p->fd, &ev) < 0 ? -errno : 0;
}

static bool chosen(const struct options *o, const struct probe_ops *ops)
{
	const char *choice = o->source[ops->family];

	if (strcmp(choice, SOURCE_AUTO) == 0)
		return !ops->opt_in;
	return strcmp(choice, ops->via) == 0;
}

/* Open the first available source of the family, from *table on. */
static void open_family(struct families *f, enum probe_family family,
			const struct probe_ops *const *table)
{
	const struct options *o = f->options;
	const bool automatic = strcmp(o->source[family], SOURCE_AUTO) == 0;

	for (; *table; table++) {
		char why[PROBE_WHY_MAX] = "";
		int r;

		if ((*table)->family != family || !chosen(o, *table))
			continue;
		r = (*table)->open(&o->probes, &f->probes[family], why);
		if (r == 0)
			r = watch(f, EPOLL_CTL_ADD, f->probes[family]);
		if (r == 0)
			return;
		if (f->probes[family]) {
			(*table)->close(f->probes[family]);
			f->probes[family] = NULL;
		}
		log_line(automatic ? LOG_INFO : LOG_ERR,
			 "msg=\"source not available\" option=%s source=%s errno=%d why=\"%s\"",
			 options_family_name(family), (*table)->via, -r, why);
	}
}

bool families_satisfy(const char *required, const struct probe_ops *ops)
{
	if (!required)
		return true;
	return ops && (strcmp(required, SOURCE_ANY) == 0 || strcmp(required, ops->via) == 0);
}

static int check_required(const struct families *f, enum probe_family family)
{
	const struct probe *p = f->probes[family];
	const char *required = f->options->required[family];

	if (families_satisfy(required, p ? p->ops : NULL))
		return 0;
	log_error("msg=\"a required source is not available; --probe says what this kernel lacks\" "
		  "required=%s=%s taken=%s needs=\"%s\"",
		  options_family_word(family), required, p ? p->ops->via : "none",
		  probe_kernel_options(family, required));
	return -ENODEV;
}

static int check_choice(const struct families *f, enum probe_family family)
{
	const char *choice = f->options->source[family];

	if (f->probes[family] || strcmp(choice, SOURCE_AUTO) == 0)
		return 0;
	log_error("msg=\"the source that was asked for is not available\" option=%s source=%s",
		  options_family_name(family), choice);
	return -ENODEV;
}

int families_open(struct families *f)
{
	int r = 0;

	for (int i = 0; i < _PROBE_FAMILY_MAX && r == 0; i++) {
		const enum probe_family family = (enum probe_family)i;

		if (strcmp(f->options->source[family], SOURCE_OFF) != 0 &&
		    (family != PROBE_FS || f->options->probes.n_inotify_paths > 0)) {
			open_family(f, family, probe_table);
			r = check_choice(f, family);
		}
		if (r == 0)
			r = check_required(f, family);
	}
	return r;
}

void families_close(struct families *f)
{
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		if (f->probes[i])
			f->probes[i]->ops->close(f->probes[i]);
}

void families_observe(struct families *f)
{
	f->observing = true;
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		if (f->probes[i])
			watch(f, EPOLL_CTL_MOD, f->probes[i]);
	families_all_due(f);
}

void families_ready(struct families *f, const void *tag)
{
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		if (tag == f->probes[i])
			f->due[i] = true;
}

void families_all_due(struct families *f)
{
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		f->due[i] = true;
}

bool families_any_due(const struct families *f)
{
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		if (f->due[i])
			return true;
	return false;
}

static void flush(struct families *f, struct probe *p)
{
	if (p && p->ops->flush)
		p->ops->flush(p, f->queue);
}

/* The source is dead: take the next source of its family. */
static void replace_source(struct families *f, enum probe_family family, int error)
{
	const struct probe_ops *dead = f->probes[family]->ops;
	const struct probe_ops *const *next = probe_table;

	log_warning("msg=\"source failed\" source=%s errno=%d", dead->via, -error);
	flush(f, f->probes[family]);
	dead->close(f->probes[family]);
	f->probes[family] = NULL;
	event_queue_kernel_lost(f->queue, family, 1);
	while (*next != dead)
		next++;
	open_family(f, family, next + 1);
	check_choice(f, family);
	/* One cause can kill two sources. */
	families_all_due(f);
}

/* Returns what drain() says: 1 if more is left, 0, or a negative errno. */
static int drain_one(struct families *f, struct probe *p)
{
	const uint64_t until_ns = monotonic_ns() + FAMILY_BUDGET_NS;
	unsigned done = 0;
	int r;

	do {
		r = p->ops->drain(p, f->queue, FAMILY_STEP);
		done += FAMILY_STEP;
	} while (r > 0 && done < FAMILY_BUDGET_EVENTS && monotonic_ns() < until_ns);
	return r;
}

void families_drain(struct families *f, struct turn_watch *watch)
{
	for (size_t i = 0; i < ARRAY_SIZE(drain_order); i++) {
		const enum probe_family family = drain_order[i];
		struct probe *p = f->probes[family];
		int r;

		if (!f->due[family])
			continue;
		f->due[family] = false;
		if (!p)
			continue;
		r = drain_one(f, p);
		turn_watch_part(watch, p->ops->via);
		if (r > 0)
			f->due[family] = true;
		else if (r < 0)
			replace_source(f, family, r);
	}
}

void families_flush(struct families *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(drain_order); i++) {
		const enum probe_family family = drain_order[i];

		flush(f, f->probes[family]);
		if (f->probes[family] && f->due[family])
			event_queue_kernel_lost(f->queue, family, 1);
	}
}

bool families_check(struct families *f)
{
	bool process_ok = false;

	for (int i = 0; i < _PROBE_FAMILY_MAX; i++) {
		struct probe *p = f->probes[i];
		const bool ok = p && (!p->ops->check || p->ops->check(p, f->queue) > 0);

		if (i == PROBE_PROCESS)
			process_ok = ok;
	}
	/* A check may leave events for the drain that follows. */
	families_all_due(f);
	return process_ok;
}

void families_via(const struct families *f, const char *ret[_PROBE_FAMILY_MAX])
{
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++) {
		const struct probe *p = f->probes[i];

		ret[i] = !p ? "none" : p->ops->announce ? p->ops->announce(p) : p->ops->via;
	}
}

bool families_news(struct families *f)
{
	const char *now[_PROBE_FAMILY_MAX];
	bool news = false;

	families_via(f, now);
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++) {
		if (!f->announced[i] || strcmp(f->announced[i], now[i]) != 0)
			news = true;
		f->announced[i] = now[i];
	}
	return news;
}
