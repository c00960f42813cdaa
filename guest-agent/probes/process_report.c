/* SPDX-License-Identifier: MIT */
/*
 * The reports of one process: see process_report.h.
 */
#include "guest-agent/probes/process_report.h"

#include <sys/wait.h>

#include "guest-agent/observation.h"
#include "guest-agent/probes/proc_file.h"

static bool excluded(const struct probe_config *config, const struct pid_entry *e)
{
	return probe_excludes_start(config, e->pid, e->start_ns);
}

bool process_report_name(struct pid_entry *e)
{
	char comm[PROC_COMM_MAX];
	const int n = proc_read_comm(e->pid, comm);

	if (n >= 0)
		pid_entry_set_comm(e, comm, (size_t)n);
	return n >= 0;
}

void process_report_spawned(const struct probe_config *config, struct event_queue *q,
			    const struct pid_entry *e, uint64_t at_ns)
{
	struct observation o;

	if (excluded(config, e))
		return;
	observation_init(&o, WIRE_PROCESS_SPAWNED, e->pid, e->comm, e->comm_len, at_ns);
	declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	event_queue_observe(q, &o.d);
}

void process_report_exited(const struct probe_config *config, struct event_queue *q,
			   const struct pid_entry *e, const uint32_t *status, uint64_t at_ns)
{
	struct observation o;

	if (excluded(config, e))
		return;
	observation_init(&o, WIRE_PROCESS_EXITED, e->pid, e->comm, e->comm_len, at_ns);
	if (status && WIFSIGNALED((int)*status)) {
		declaration_add_uint(&o.d, WIRE_KEY_SIGNAL, (uint64_t)WTERMSIG((int)*status));
		declaration_add_bool(&o.d, WIRE_KEY_CORE, WCOREDUMP((int)*status));
	} else if (status) {
		declaration_add_uint(&o.d, WIRE_KEY_EXIT_CODE, (uint64_t)WEXITSTATUS((int)*status));
	}
	if (e->ppid)
		declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	event_queue_observe(q, &o.d);
}

static void add_exe(struct image_table *images, struct observation *o, const struct pid_entry *e)
{
	const char *path;
	size_t len;

	if (image_state(images, e->image) != IMAGE_KNOWN)
		return;
	path = image_path(images, e->image, &len);
	observation_add_bytes(o, WIRE_KEY_EXE, path, len);
}

void process_report_detail(const struct probe_config *config, struct event_queue *q,
			   struct pid_table *table, struct image_table *images,
			   const struct connector_event *ev)
{
	static const enum wire_source sources[] = {
		[CONNECTOR_UID] = WIRE_PROCESS_IDENTITY_CHANGED,
		[CONNECTOR_GID] = WIRE_PROCESS_IDENTITY_CHANGED,
		[CONNECTOR_SID] = WIRE_PROCESS_SESSION_STARTED,
		[CONNECTOR_TRACE] = WIRE_PROCESS_TRACED,
		[CONNECTOR_CORE] = WIRE_PROCESS_CORE_DUMPED,
	};
	struct pid_entry untracked = {.pid = ev->tgid}, *tracer;
	struct pid_entry *e = pid_table_find(table, ev->tgid);
	struct observation o;

	if (!e) {
		e = &untracked;
		process_report_name(e);
	}
	/* No tracer: it has detached. */
	if (excluded(config, e) || (ev->kind == CONNECTOR_TRACE && ev->tracer == 0))
		return;
	observation_init(&o, sources[ev->kind], e->pid, e->comm, e->comm_len, ev->at_ns);
	if (ev->kind == CONNECTOR_UID || ev->kind == CONNECTOR_GID) {
		observation_add_name(&o, WIRE_KEY_KIND, ev->kind == CONNECTOR_UID ? "uid" : "gid");
		declaration_add_uint(&o.d, WIRE_KEY_REAL, ev->real);
		declaration_add_uint(&o.d, WIRE_KEY_EFFECTIVE, ev->effective);
		add_exe(images, &o, e);
	} else if (ev->kind == CONNECTOR_SID && e->ppid) {
		declaration_add_uint(&o.d, WIRE_KEY_PPID, (uint32_t)e->ppid);
	} else if (ev->kind == CONNECTOR_TRACE) {
		declaration_add_uint(&o.d, WIRE_KEY_TRACER_PID, (uint32_t)ev->tracer);
		tracer = pid_table_find(table, ev->tracer);
		if (tracer)
			observation_add_bytes(&o, WIRE_KEY_TRACER_COMM, tracer->comm,
					      tracer->comm_len);
	}
	event_queue_observe(q, &o.d);
}
