/* SPDX-License-Identifier: MIT */
/*
 * Messages of the kernel's process connector: see connector_message.h.
 */
#include "guest-agent/probes/connector_message.h"

#include <linux/cn_proc.h>
#include <linux/connector.h>

#include "common/util.h"
#include "guest-agent/probes/netlink.h"

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
	/* Kernels may append fields, and older ones send fewer: what is missing reads as 0. The
	 * event follows a header of 20 bytes, so it is not aligned. */
	memcpy(&pe, payload + sizeof(cn), MIN((size_t)cn.len, sizeof(pe)));

	ev.cpu = pe.cpu;
	ev.seq = cn.seq;
	ev.at_ns = pe.timestamp_ns;
	switch (pe.what) {
	case PROC_EVENT_NONE:
		ev.kind = CONNECTOR_ACK;
		ev.ack = cn.ack;
		ev.ack_error = pe.event_data.ack.err;
		break;
	case PROC_EVENT_FORK:
		ev.kind = CONNECTOR_FORK;
		ev.tid = pe.event_data.fork.child_pid;
		ev.tgid = pe.event_data.fork.child_tgid;
		ev.parent_tgid = pe.event_data.fork.parent_tgid;
		break;
	case PROC_EVENT_EXEC:
		ev.kind = CONNECTOR_EXEC;
		ev.tid = pe.event_data.exec.process_pid;
		ev.tgid = pe.event_data.exec.process_tgid;
		break;
	case PROC_EVENT_COMM:
		ev.kind = CONNECTOR_COMM;
		ev.tid = pe.event_data.comm.process_pid;
		ev.tgid = pe.event_data.comm.process_tgid;
		memcpy(ev.comm, pe.event_data.comm.comm, sizeof(ev.comm));
		break;
	case PROC_EVENT_EXIT:
		ev.kind = CONNECTOR_EXIT;
		ev.tid = pe.event_data.exit.process_pid;
		ev.tgid = pe.event_data.exit.process_tgid;
		ev.parent_tgid = pe.event_data.exit.parent_tgid;
		ev.exit_status = pe.event_data.exit.exit_code;
		break;
	case PROC_EVENT_UID:
	case PROC_EVENT_GID:
		ev.kind = pe.what == PROC_EVENT_UID ? CONNECTOR_UID : CONNECTOR_GID;
		ev.tid = pe.event_data.id.process_pid;
		ev.tgid = pe.event_data.id.process_tgid;
		ev.real = pe.event_data.id.r.ruid;
		ev.effective = pe.event_data.id.e.euid;
		break;
	case PROC_EVENT_SID:
		ev.kind = CONNECTOR_SID;
		ev.tid = pe.event_data.sid.process_pid;
		ev.tgid = pe.event_data.sid.process_tgid;
		break;
	case PROC_EVENT_PTRACE:
		ev.kind = CONNECTOR_TRACE;
		ev.tid = pe.event_data.ptrace.process_pid;
		ev.tgid = pe.event_data.ptrace.process_tgid;
		ev.tracer = pe.event_data.ptrace.tracer_tgid;
		break;
	case PROC_EVENT_COREDUMP:
		ev.kind = CONNECTOR_CORE;
		ev.tid = pe.event_data.coredump.process_pid;
		ev.tgid = pe.event_data.coredump.process_tgid;
		ev.parent_tgid = pe.event_data.coredump.parent_tgid;
		break;
	default: ev.kind = CONNECTOR_OTHER; break;
	}
	if (ev.kind != CONNECTOR_ACK && ev.kind != CONNECTOR_OTHER && (ev.tid <= 0 || ev.tgid <= 0))
		return -EBADMSG;
	*ret = ev;
	return 0;
}
