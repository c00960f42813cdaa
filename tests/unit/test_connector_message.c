/* SPDX-License-Identifier: MIT */
/* The netlink walk and the process connector's messages. */
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <signal.h>

#include "common/util.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/netlink.h"
#include "tests/unit/unit.h"

#define MESSAGE_SIZE (NLMSG_HDRLEN + sizeof(struct cn_msg) + sizeof(struct proc_event))

struct message {
	_Alignas(8) uint8_t bytes[128];
	struct nlmsghdr nl;
	struct {
		struct cb_id id;
		uint32_t seq, ack;
		uint16_t len, flags;
	} cn; /* struct cn_msg without its flexible end */
	struct proc_event ev;
};
_Static_assert(sizeof(((struct message *)0)->cn) == sizeof(struct cn_msg), "the same layout");

static void build(struct message *m)
{
	memcpy(m->bytes, &m->nl, sizeof(m->nl));
	memcpy(m->bytes + NLMSG_HDRLEN, &m->cn, sizeof(m->cn));
	memcpy(m->bytes + NLMSG_HDRLEN + sizeof(m->cn), &m->ev, sizeof(m->ev));
}

static struct message message(uint32_t what)
{
	struct message m = {.nl = {.nlmsg_len = MESSAGE_SIZE, .nlmsg_type = NLMSG_DONE},
			    .cn = {.id = {CN_IDX_PROC, CN_VAL_PROC},
				   .seq = 9,
				   .len = sizeof(struct proc_event)},
			    .ev = {.what = (enum what)what, .cpu = 3, .timestamp_ns = 1234}};

	return m;
}

static int parse(struct message *m, size_t len, struct connector_event *ev)
{
	struct netlink_walk walk = {.data = m->bytes, .left = len};
	const struct nlmsghdr *h;

	build(m);
	h = netlink_next(&walk);
	return h ? connector_parse(h, ev) : -ENOENT;
}

UNIT_TEST(test_fork)
{
	struct message m = message(PROC_EVENT_FORK);
	struct connector_event ev;

	m.ev.event_data.fork.parent_tgid = 10;
	m.ev.event_data.fork.child_pid = 12;
	m.ev.event_data.fork.child_tgid = 11;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_FORK);
	ck_assert_int_eq(ev.tid, 12);
	ck_assert_int_eq(ev.tgid, 11);
	ck_assert_int_eq(ev.parent_tgid, 10);
	ck_assert_uint_eq(ev.cpu, 3);
	ck_assert_uint_eq(ev.seq, 9);
	ck_assert_uint_eq(ev.at_ns, 1234);
}

UNIT_TEST(test_exit)
{
	struct message m = message(PROC_EVENT_EXIT);
	struct connector_event ev;

	m.ev.event_data.exit.process_pid = m.ev.event_data.exit.process_tgid = 11;
	m.ev.event_data.exit.exit_code = SIGKILL;
	m.ev.event_data.exit.parent_tgid = 10;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_EXIT);
	ck_assert_uint_eq(ev.exit_status, SIGKILL);
	ck_assert_int_eq(ev.parent_tgid, 10);

	/* Before 4.18 it did not tell the parent. */
	m.cn.len = offsetof(struct proc_event, event_data.exit.parent_pid);
	m.nl.nlmsg_len = NLMSG_HDRLEN + sizeof(m.cn) + m.cn.len;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.parent_tgid, 0);
}

UNIT_TEST(test_comm)
{
	struct message m = message(PROC_EVENT_COMM);
	struct connector_event ev;

	m.ev.event_data.comm.process_pid = m.ev.event_data.comm.process_tgid = 11;
	memcpy(m.ev.event_data.comm.comm, "0123456789abcdef", 16);
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_COMM);
	ck_assert_mem_eq(ev.comm, "0123456789abcdef", 16);
}

UNIT_TEST(test_ack_and_others)
{
	struct message m = message(PROC_EVENT_NONE);
	struct connector_event ev;

	m.cn.ack = 6;
	m.ev.event_data.ack.err = EPERM;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_ACK);
	ck_assert_uint_eq(ev.ack, 6);
	ck_assert_uint_eq(ev.ack_error, EPERM);
	/* One that does not exist yet still has its number. */
	m = message(0x00400000);
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_OTHER);
	ck_assert_uint_eq(ev.seq, 9);
}

UNIT_TEST(test_details)
{
	struct message m = message(PROC_EVENT_UID);
	struct connector_event ev;

	m.ev.event_data.id.process_pid = 8;
	m.ev.event_data.id.process_tgid = 7;
	m.ev.event_data.id.r.ruid = 1000;
	m.ev.event_data.id.e.euid = 0;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_UID);
	ck_assert_int_eq(ev.tid, 8);
	ck_assert_int_eq(ev.tgid, 7);
	ck_assert_uint_eq(ev.real, 1000);
	ck_assert_uint_eq(ev.effective, 0);
	m.ev.what = PROC_EVENT_GID;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_GID);

	m = message(PROC_EVENT_SID);
	m.ev.event_data.sid.process_pid = m.ev.event_data.sid.process_tgid = 7;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_SID);

	m = message(PROC_EVENT_PTRACE);
	m.ev.event_data.ptrace.process_pid = m.ev.event_data.ptrace.process_tgid = 7;
	m.ev.event_data.ptrace.tracer_pid = 12;
	m.ev.event_data.ptrace.tracer_tgid = 11;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_TRACE);
	ck_assert_int_eq(ev.tracer, 11);

	m = message(PROC_EVENT_COREDUMP);
	m.ev.event_data.coredump.process_pid = m.ev.event_data.coredump.process_tgid = 7;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), 0);
	ck_assert_int_eq(ev.kind, CONNECTOR_CORE);
	m.ev.event_data.coredump.process_tgid = 0;
	ck_assert_int_eq(parse(&m, MESSAGE_SIZE, &ev), -EBADMSG);
}

UNIT_TEST(test_malformed)
{
	struct connector_event ev = {.seq = 77};
	struct message m;

	for (unsigned i = 0; i < 7; i++) {
		m = message(PROC_EVENT_EXEC);
		m.ev.event_data.exec.process_pid = m.ev.event_data.exec.process_tgid = 5;
		switch (i) {
		case 0: m.nl.nlmsg_type = NLMSG_ERROR; break;
		case 1: m.cn.id.idx = 2; break;
		case 2: m.cn.id.val = 2; break;
		case 3: m.cn.len = sizeof(struct proc_event) + 1; break;
		case 4: m.cn.len = offsetof(struct proc_event, event_data) - 1; break;
		case 5: m.ev.event_data.exec.process_tgid = 0; break;
		case 6: m.ev.event_data.exec.process_pid = -1; break;
		}
		ck_assert_msg(parse(&m, MESSAGE_SIZE, &ev) == -EBADMSG, "case %u", i);
	}
	/* Cut anywhere. */
	for (size_t len = 0; len < MESSAGE_SIZE; len++) {
		m = message(PROC_EVENT_EXEC);
		ck_assert_int_eq(parse(&m, len, &ev), -ENOENT);
		m.nl.nlmsg_len = (uint32_t)len;
		ck_assert_int_lt(parse(&m, MESSAGE_SIZE, &ev), 0);
	}
	ck_assert_uint_eq(ev.seq, 77);
}

UNIT_TEST(test_walk)
{
	_Alignas(8) uint8_t buf[64] = {0};
	struct nlmsghdr h = {.nlmsg_len = NLMSG_HDRLEN + 1};
	struct netlink_walk walk;

	/* Two messages, the first padded, the last without its padding. */
	memcpy(buf, &h, sizeof(h));
	memcpy(buf + NLMSG_ALIGN(h.nlmsg_len), &h, sizeof(h));
	walk = (struct netlink_walk){buf, NLMSG_ALIGN(h.nlmsg_len) + h.nlmsg_len};
	ck_assert_ptr_eq(netlink_next(&walk), buf);
	ck_assert_ptr_eq(netlink_next(&walk), buf + NLMSG_ALIGN(h.nlmsg_len));
	ck_assert_ptr_null(netlink_next(&walk));
	/* Lengths that lie. */
	for (uint32_t len = 0; len < NLMSG_HDRLEN; len++) {
		h.nlmsg_len = len;
		memcpy(buf, &h, sizeof(h));
		walk = (struct netlink_walk){buf, sizeof(buf)};
		ck_assert_ptr_null(netlink_next(&walk));
	}
	h.nlmsg_len = UINT32_MAX;
	memcpy(buf, &h, sizeof(h));
	walk = (struct netlink_walk){buf, sizeof(buf)};
	ck_assert_ptr_null(netlink_next(&walk));
}
