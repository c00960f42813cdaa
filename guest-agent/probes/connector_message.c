/* SPDX-License-Identifier: MIT */
/*
 * Messages of the kernel's process connector: see connector_message.h.
 */
#include "guest-agent/probes/connector_message.h"

#include <linux/cn_proc.h>
#include <linux/connector.h>

#include "common/util.h"
#include "guest-agent/probes/netlink.h"

/* The fields of ret that depend on the kind of the event. */
static void read_event(const struct proc_event *pe, struct connector_event *ret)
{
	switch (pe->what) {
	case PROC_EVENT_NONE:
		ret->kind = CONNECTOR_ACK;
		ret->ack_error = pe->event_data.ack.err;
		break;
	case PROC_EVENT_FORK:
		ret->kind = CONNECTOR_FORK;
		ret->tid = pe->event_data.fork.child_pid;
		ret->tgid = pe->event_data.fork.child_tgid;
		ret->parent_tgid = pe->event_data.fork.parent_tgid;
		break;
	case PROC_EVENT_EXEC:
		ret->kind = CONNECTOR_EXEC;
		ret->tid = pe->event_data.exec.process_pid;
		ret->tgid = pe->event_data.exec.process_tgid;
		break;
	case PROC_EVENT_COMM:
		ret->kind = CONNECTOR_COMM;
		ret->tid = pe->event_data.comm.process_pid;
		ret->tgid = pe->event_data.comm.process_tgid;
		memcpy(ret->comm, pe->event_data.comm.comm, sizeof(ret->comm));
		break;
	case PROC_EVENT_EXIT:
		ret->kind = CONNECTOR_EXIT;
		ret->tid = pe->event_data.exit.process_pid;
		ret->tgid = pe->event_data.exit.process_tgid;
		ret->parent_tgid = pe->event_data.exit.parent_tgid;
		ret->exit_status = pe->event_data.exit.exit_code;
		break;
	case PROC_EVENT_UID:
	case PROC_EVENT_GID:
		ret->kind = pe->what == PROC_EVENT_UID ? CONNECTOR_UID : CONNECTOR_GID;
		ret->tid = pe->event_data.id.process_pid;
		ret->tgid = pe->event_data.id.process_tgid;
		ret->real = pe->event_data.id.r.ruid;
		ret->effective = pe->event_data.id.e.euid;
		break;
	case PROC_EVENT_SID:
		ret->kind = CONNECTOR_SID;
		ret->tid = pe->event_data.sid.process_pid;
		ret->tgid = pe->event_data.sid.process_tgid;
		break;
	case PROC_EVENT_PTRACE:
		ret->kind = CONNECTOR_TRACE;
		ret->tid = pe->event_data.ptrace.process_pid;
		ret->tgid = pe->event_data.ptrace.process_tgid;
		ret->tracer = pe->event_data.ptrace.tracer_tgid;
		break;
	case PROC_EVENT_COREDUMP:
		ret->kind = CONNECTOR_CORE;
		ret->tid = pe->event_data.coredump.process_pid;
		ret->tgid = pe->event_data.coredump.process_tgid;
		ret->parent_tgid = pe->event_data.coredump.parent_tgid;
		break;
	default: ret->kind = CONNECTOR_OTHER; break;
	}
}

int connector_parse(const struct nlmsghdr *h, struct connector_event *ret)
{
	const uint8_t *payload = netlink_payload(h);
	struct connector_event ev = {0};
	struct proc_event pe = {0};
	struct cn_msg cn;

	if (h->nlmsg_type != NLMSG_DONE || netlink_payload_len(h) < sizeof(cn))
		return -EBADMSG;
	memcpy(&cn, payload, sizeof(cn));
	if (cn.id.idx != CN_IDX_PROC || cn.id.val != CN_VAL_PROC ||
	    cn.len > netlink_payload_len(h) - sizeof(cn) ||
	    cn.len < offsetof(struct proc_event, event_data))
		return -EBADMSG;
	/*
	 * Kernels may append fields, and older ones send fewer: missing fields read as 0. The event
	 * follows a header of 20 bytes, so it is not aligned.
	 */
	memcpy(&pe, payload + sizeof(cn), MIN((size_t)cn.len, sizeof(pe)));

	ev.cpu = pe.cpu;
	ev.seq = cn.seq;
	ev.at_ns = pe.timestamp_ns;
	ev.ack = pe.what == PROC_EVENT_NONE ? cn.ack : 0;
	read_event(&pe, &ev);
	if (ev.kind != CONNECTOR_ACK && ev.kind != CONNECTOR_OTHER && (ev.tid <= 0 || ev.tgid <= 0))
		return -EBADMSG;
	*ret = ev;
	return 0;
}
