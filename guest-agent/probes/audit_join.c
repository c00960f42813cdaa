/* SPDX-License-Identifier: MIT */
/*
 * Records of one audited call: see audit_join.h.
 */
#include "guest-agent/probes/audit_join.h"

#include <string.h>

static struct audit_call *find(struct audit_join *join, uint64_t serial)
{
	for (size_t i = 0; i < AUDIT_JOIN_MAX; i++)
		if (join->calls[i].order && join->calls[i].call.serial == serial)
			return &join->calls[i];
	return NULL;
}

/* A free place, or that of the oldest. */
static struct audit_call *place(struct audit_join *join)
{
	struct audit_call *oldest = &join->calls[0];

	for (size_t i = 0; i < AUDIT_JOIN_MAX; i++) {
		if (!join->calls[i].order)
			return &join->calls[i];
		if (join->calls[i].order < oldest->order)
			oldest = &join->calls[i];
	}
	return oldest;
}

static void keep_address(struct audit_record *call, const struct audit_record *record)
{
	call->sockaddr_len = record->sockaddr_len;
	memcpy(call->sockaddr, record->sockaddr, record->sockaddr_len);
}

/*
 * An operation of io_uring within a call has records besides the call's own. The call's own record
 * has the most fields, so it stays.
 */
static void keep_call(struct audit_call *c, const struct audit_record *record)
{
	const bool uring_connect = record->uring_connect || (c->has_call && c->call.uring_connect);

	if (!c->has_call || record->kind == AUDIT_KIND_SYSCALL) {
		struct audit_record address = c->call;

		c->call = *record;
		keep_address(&c->call, &address);
		c->has_call = true;
	}
	c->call.uring_connect = uring_connect;
}

const struct audit_record *audit_join_add(struct audit_join *join,
					  const struct audit_record *record)
{
	static struct audit_record evicted;
	struct audit_call *c = find(join, record->serial);
	const struct audit_record *ret = NULL;

	if (record->kind == AUDIT_KIND_END) {
		if (!c)
			return NULL;
		c->order = 0;
		return c->has_call ? &c->call : NULL;
	}
	if (!c) {
		c = place(join);
		if (c->order) {
			join->evicted++;
			if (c->has_call) {
				evicted = c->call;
				ret = &evicted;
			}
		}
		c->order = ++join->order;
		c->has_call = false;
		c->call.serial = record->serial;
		c->call.sockaddr_len = 0;
	}
	if (record->kind == AUDIT_KIND_SOCKADDR)
		keep_address(&c->call, record);
	else
		keep_call(c, record);
	return ret;
}
