/* SPDX-License-Identifier: MIT */
/*
 * Rules for the kernel's audit: see audit_rules.h.
 */
#include "guest-agent/probes/audit_rules.h"

#include <asm/unistd.h>
#include <linux/io_uring.h>

#include "common/util.h"
#include "guest-agent/probes/capability_table.h"

#define SOCKETCALL_CONNECT 3 /* SYS_CONNECT of linux/net.h */

/* Numbers of 32-bit calls: arch/x86/entry/syscalls/syscall_32.tbl, asm/unistd32.h of arm64. */
#if defined(__x86_64__)
#define COMPAT_CONNECT	  362
#define COMPAT_SOCKETCALL 102
#else
#define COMPAT_CONNECT	  283
#define COMPAT_SOCKETCALL -1
#endif

static void add_field(union audit_rule *r, uint32_t field, uint32_t op, uint32_t value)
{
	const uint32_t i = r->data.field_count++;

	r->data.fields[i] = field;
	r->data.fieldflags[i] = op;
	r->data.values[i] = value;
}

static void add_call(union audit_rule *r, int nr)
{
	r->data.mask[AUDIT_WORD(nr)] |= AUDIT_BIT(nr);
}

bool audit_rule_optional(enum audit_rule_id id)
{
	return id != AUDIT_RULE_CONNECT && id != AUDIT_RULE_EPERM && id != AUDIT_RULE_EACCES;
}

bool audit_rule_is_connect(enum audit_rule_id id)
{
	return id != AUDIT_RULE_EPERM && id != AUDIT_RULE_EACCES;
}

int audit_rule_build(enum audit_rule_id id, pid_t self, union audit_rule *ret)
{
	union audit_rule r = {.data = {.flags = AUDIT_FILTER_EXIT, .action = AUDIT_ALWAYS}};

	switch (id) {
	case AUDIT_RULE_CONNECT:
		add_field(&r, AUDIT_ARCH, AUDIT_EQUAL, syscall_native_arch());
		add_call(&r, __NR_connect);
		break;
	case AUDIT_RULE_CONNECT_COMPAT:
		add_field(&r, AUDIT_ARCH, AUDIT_EQUAL, syscall_compat_arch());
		add_call(&r, COMPAT_CONNECT);
		break;
	case AUDIT_RULE_SOCKETCALL_COMPAT:
		if (COMPAT_SOCKETCALL < 0)
			return -EOPNOTSUPP;
		add_field(&r, AUDIT_ARCH, AUDIT_EQUAL, syscall_compat_arch());
		add_field(&r, AUDIT_ARG0, AUDIT_EQUAL, SOCKETCALL_CONNECT);
		add_call(&r, COMPAT_SOCKETCALL);
		break;
	case AUDIT_RULE_CONNECT_URING:
		r.data.flags = AUDIT_FILTER_URING_EXIT;
		add_call(&r, IORING_OP_CONNECT);
		break;
	case AUDIT_RULE_EPERM:
	case AUDIT_RULE_EACCES:
		memset(r.data.mask, 0xff, sizeof(r.data.mask));
		add_field(&r, AUDIT_EXIT, AUDIT_EQUAL,
			  (uint32_t)(id == AUDIT_RULE_EPERM ? -EPERM : -EACCES));
		break;
	default: return -EINVAL;
	}
	add_field(&r, AUDIT_PID, AUDIT_NOT_EQUAL, (uint32_t)self);
	add_field(&r, AUDIT_FILTERKEY, AUDIT_EQUAL, sizeof(AUDIT_RULE_KEY) - 1);
	r.data.buflen = sizeof(AUDIT_RULE_KEY) - 1;
	memcpy(r.bytes + sizeof(r.data), AUDIT_RULE_KEY, sizeof(AUDIT_RULE_KEY) - 1);
	*ret = r;
	return 0;
}

bool audit_rule_is_ours(const void *data, size_t len)
{
	const struct audit_rule_data *r = data;
	size_t at = 0;

	if (len < sizeof(*r) || r->field_count > AUDIT_MAX_FIELDS || r->buflen > len - sizeof(*r))
		return false;
	for (uint32_t i = 0; i < r->field_count; i++) {
		const uint32_t field = r->fields[i], size = r->values[i];

		/* These have their value in buf, one after the other. */
		if (field != AUDIT_FILTERKEY && field != AUDIT_WATCH && field != AUDIT_DIR &&
		    field != AUDIT_EXE && !(field >= AUDIT_SUBJ_USER && field <= AUDIT_SUBJ_CLR) &&
		    !(field >= AUDIT_OBJ_USER && field <= AUDIT_OBJ_LEV_HIGH))
			continue;
		if (size > r->buflen - at)
			return false;
		if (field == AUDIT_FILTERKEY)
			return size == sizeof(AUDIT_RULE_KEY) - 1 &&
			       !memcmp(r->buf + at, AUDIT_RULE_KEY, size);
		at += size;
	}
	return false;
}
