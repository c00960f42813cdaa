/* SPDX-License-Identifier: MIT */
/* Audit records, how they are joined, and the rules; the kernel itself is asked in the VM. */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/audit_join.h"
#include "guest-agent/probes/audit_record.h"
#include "guest-agent/probes/audit_rules.h"
#include "guest-agent/probes/capability_table.h"
#include "tests/unit/unit.h"

#define STAMP(serial) "audit(1700000000.123:" #serial "): "
#define CALL                                                                                       \
	"arch=c000003e syscall=42 success=no exit=-115 a0=3 a1=7ffd0 a2=10 a3=0 items=0 ppid=1 "   \
	"pid=2 auid=4294967295 uid=0 tty=(none) ses=1 "
#define SYSCALL_TEXT STAMP(456) CALL "comm=\"curl\" exe=\"/usr/bin/curl\" key=\"k\""

static int parse(uint16_t type, const char *text, struct audit_record *r)
{
	return audit_record_parse(type, text, strlen(text), r);
}

UNIT_TEST(test_syscall)
{
	struct audit_record r;

	ck_assert_int_eq(parse(AUDIT_SYSCALL, SYSCALL_TEXT, &r), 0);
	ck_assert_int_eq(r.kind, AUDIT_KIND_SYSCALL);
	ck_assert_uint_eq(r.serial, 456);
	ck_assert_uint_eq(r.arch, AUDIT_ARCH_X86_64);
	ck_assert_int_eq(r.nr, 42);
	ck_assert_int_eq(r.exit, -115);
	ck_assert_uint_eq(r.a0, 3);
	ck_assert_int_eq(r.pid, 2);
	ck_assert_int_eq(r.ppid, 1);
	ck_assert_uint_eq(r.comm_len, 4);
	ck_assert_mem_eq(r.comm, "curl", 4);
	ck_assert_mem_eq(r.exe, "/usr/bin/curl", r.exe_len);
}

/* What a process calls itself cannot forge a field: the kernel writes it in hexadecimal. */
UNIT_TEST(test_untrusted)
{
	struct audit_record r;

	/* `x pid=1`, a quote, a newline, a byte that is no UTF-8. */
	ck_assert_int_eq(
		parse(AUDIT_SYSCALL, STAMP(1) CALL "comm=78207069643D31220AFF exe=(null)", &r), 0);
	ck_assert_uint_eq(r.comm_len, 10);
	ck_assert_mem_eq(r.comm, "x pid=1\"\n\xff", 10);
	ck_assert_uint_eq(r.exe_len, 0);
	ck_assert_int_eq(r.pid, 2);
	/* Longer than there is room for: cut. */
	ck_assert_int_eq(
		parse(AUDIT_SYSCALL, STAMP(1) CALL "comm=\"0123456789abcdefXYZ\" exe=\"x\"", &r),
		0);
	ck_assert_uint_eq(r.comm_len, AUDIT_COMM_MAX);
	ck_assert_int_eq(parse(AUDIT_SYSCALL, STAMP(1) CALL "comm=7 exe=\"x\"", &r), -EBADMSG);
	ck_assert_int_eq(parse(AUDIT_SYSCALL, STAMP(1) CALL "comm=7g exe=\"x\"", &r), -EBADMSG);
}

UNIT_TEST(test_sockaddr_and_end)
{
	static char text[AUDIT_RECORD_MAX + 2];
	struct audit_record r;
	size_t n;

	ck_assert_int_eq(parse(AUDIT_SOCKADDR, STAMP(5) "saddr=02000050C0A80001", &r), 0);
	ck_assert_int_eq(r.kind, AUDIT_KIND_SOCKADDR);
	ck_assert_uint_eq(r.sockaddr_len, 8);
	ck_assert_mem_eq(r.sockaddr, "\x02\x00\x00\x50\xc0\xa8\x00\x01", 8);
	ck_assert_int_eq(parse(AUDIT_SOCKADDR, STAMP(5) "saddr=", &r), 0);
	ck_assert_uint_eq(r.sockaddr_len, 0);
	ck_assert_int_eq(parse(AUDIT_SOCKADDR, STAMP(5) "saddr=020", &r), -EBADMSG);
	ck_assert_int_eq(parse(AUDIT_SOCKADDR, STAMP(5) "saddr=\"02\"", &r), -EBADMSG);
	ck_assert_int_eq(parse(AUDIT_SOCKADDR, STAMP(5) "addr=02", &r), -EBADMSG);
	ck_assert_int_eq(parse(AUDIT_EOE, STAMP(18446744073709551615), &r), 0);
	ck_assert_int_eq(r.kind, AUDIT_KIND_END);
	ck_assert_uint_eq(r.serial, UINT64_MAX);
	ck_assert_int_eq(parse(AUDIT_PATH, STAMP(5) "item=0", &r), -ENOMSG);
	ck_assert_int_eq(
		parse(AUDIT_URINGOP,
		      STAMP(6) "uring_op=16 success=no exit=-111 items=0 ppid=1 pid=9 uid=0", &r),
		0);
	ck_assert_int_eq(r.kind, AUDIT_KIND_URING);
	ck_assert_int_eq(r.pid, 9);

	/* The size of an address, and one more byte; the size of a record, and one more. */
	for (size_t bytes = AUDIT_SOCKADDR_MAX - 1; bytes <= AUDIT_SOCKADDR_MAX + 1; bytes++) {
		n = (size_t)sprintf(text, STAMP(5) "saddr=");
		memset(text + n, 'A', 2 * bytes);
		ck_assert_int_eq(audit_record_parse(AUDIT_SOCKADDR, text, n + 2 * bytes, &r), 0);
		ck_assert_uint_eq(r.sockaddr_len, MIN(bytes, (size_t)AUDIT_SOCKADDR_MAX));
	}
	memset(text, ' ', sizeof(text));
	memcpy(text, STAMP(5), strlen(STAMP(5)));
	ck_assert_int_eq(audit_record_parse(AUDIT_EOE, text, AUDIT_RECORD_MAX - 1, &r), 0);
	ck_assert_int_eq(audit_record_parse(AUDIT_EOE, text, AUDIT_RECORD_MAX, &r), 0);
	ck_assert_int_eq(audit_record_parse(AUDIT_EOE, text, AUDIT_RECORD_MAX + 1, &r), -EBADMSG);
}

UNIT_TEST(test_malformed)
{
	static const char *const bad[] = {
		"",
		"audit",
		"audit(1700000000.123:456",
		"audit(1700000000.123)",
		"audit(1700000000.123:): ",
		"audit(1700000000.123:x): ",
		"audit(1.1:18446744073709551616): ",
		STAMP(1),
		STAMP(1) "arch=c000003e syscall=42 exit=0 a0=0 ppid=1",
		STAMP(1) "arch=1c000003e syscall=42 exit=0 a0=0 ppid=1 pid=2",
		STAMP(1) "arch=c000003e syscall=2147483648 exit=0 a0=0 ppid=1 pid=2",
		STAMP(1) "arch=c000003e syscall=42 exit=-9223372036854775808 a0=0 ppid=1 pid=2",
		STAMP(1) "arch=c000003e syscall=42 exit= a0=0 ppid=1 pid=2",
		STAMP(1) "arch=c000003e syscall=42 exit=- a0=0 ppid=1 pid=2",
		STAMP(1) "arch=c000003e syscall=42 exit=0 a0=0 ppid=1 pid=\"2\"",
		STAMP(1) "arch=c000003e syscall=42 exit=0 a0=0 ppid=1 xpid=2",
	};
	struct audit_record r = {.serial = 3};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(parse(AUDIT_SYSCALL, bad[i], &r) == -EBADMSG, "%s", bad[i]);
	ck_assert_uint_eq(r.serial, 3);
	for (size_t len = 0; len < strlen(SYSCALL_TEXT); len++)
		audit_record_parse(AUDIT_SYSCALL, SYSCALL_TEXT, len, &r);
}

static struct audit_record record(enum audit_kind kind, uint64_t serial)
{
	return (struct audit_record){.kind = kind, .serial = serial, .pid = (pid_t)serial};
}

static const struct audit_record *add(struct audit_join *j, enum audit_kind kind, uint64_t serial)
{
	struct audit_record r = record(kind, serial);

	r.sockaddr_len = kind == AUDIT_KIND_SOCKADDR ? 1 : 0;
	r.sockaddr[0] = (uint8_t)serial;
	return audit_join_add(j, &r);
}

UNIT_TEST(test_join)
{
	static struct audit_join j;
	const struct audit_record *call;

	memset(&j, 0, sizeof(j));
	/* Two calls whose records mix; the address may come first. */
	ck_assert_ptr_null(add(&j, AUDIT_KIND_SYSCALL, 1));
	ck_assert_ptr_null(add(&j, AUDIT_KIND_SOCKADDR, 2));
	ck_assert_ptr_null(add(&j, AUDIT_KIND_SYSCALL, 2));
	ck_assert_ptr_null(add(&j, AUDIT_KIND_SOCKADDR, 1));
	call = add(&j, AUDIT_KIND_END, 2);
	ck_assert_int_eq(call->pid, 2);
	ck_assert_uint_eq(call->sockaddr_len, 1);
	ck_assert_uint_eq(call->sockaddr[0], 2);
	call = add(&j, AUDIT_KIND_END, 1);
	ck_assert_int_eq(call->pid, 1);
	ck_assert_uint_eq(call->sockaddr[0], 1);
	/* A connect that io_uring made within a call: the call's identity, the address of both. */
	for (unsigned late = 0; late < 2; late++) {
		struct audit_record uring = record(AUDIT_KIND_URING, 9);

		uring.uring_connect = true;
		uring.pid = 99;
		if (!late)
			ck_assert_ptr_null(audit_join_add(&j, &uring));
		ck_assert_ptr_null(add(&j, AUDIT_KIND_SYSCALL, 9));
		if (late)
			ck_assert_ptr_null(audit_join_add(&j, &uring));
		ck_assert_ptr_null(add(&j, AUDIT_KIND_SOCKADDR, 9));
		call = add(&j, AUDIT_KIND_END, 9);
		ck_assert_int_eq(call->kind, AUDIT_KIND_SYSCALL);
		ck_assert_int_eq(call->pid, 9);
		ck_assert(call->uring_connect);
		ck_assert_uint_eq(call->sockaddr_len, 1);
	}
	/* An end alone, an address alone, an end twice. */
	ck_assert_ptr_null(add(&j, AUDIT_KIND_END, 1));
	ck_assert_ptr_null(add(&j, AUDIT_KIND_SOCKADDR, 3));
	ck_assert_ptr_null(add(&j, AUDIT_KIND_END, 3));
	/* A call that uses a place again has not the address of the last. */
	ck_assert_ptr_null(add(&j, AUDIT_KIND_SYSCALL, 4));
	ck_assert_uint_eq(add(&j, AUDIT_KIND_END, 4)->sockaddr_len, 0);
}

UNIT_TEST(test_join_limit)
{
	static struct audit_join j;

	memset(&j, 0, sizeof(j));
	for (uint64_t i = 1; i <= AUDIT_JOIN_MAX; i++)
		ck_assert_ptr_null(add(&j, AUDIT_KIND_SYSCALL, i));
	ck_assert_uint_eq(j.evicted, 0);
	/* One more: the oldest goes as it is, and is reported. */
	ck_assert_int_eq(add(&j, AUDIT_KIND_SYSCALL, AUDIT_JOIN_MAX + 1)->pid, 1);
	ck_assert_int_eq(add(&j, AUDIT_KIND_SYSCALL, AUDIT_JOIN_MAX + 2)->pid, 2);
	ck_assert_uint_eq(j.evicted, 2);
	ck_assert_ptr_null(add(&j, AUDIT_KIND_END, 1));
	ck_assert_ptr_null(add(&j, AUDIT_KIND_END, 2));
	ck_assert_int_eq(add(&j, AUDIT_KIND_END, 3)->pid, 3);
	ck_assert_int_eq(add(&j, AUDIT_KIND_END, AUDIT_JOIN_MAX + 1)->pid, AUDIT_JOIN_MAX + 1);
}

UNIT_TEST(test_rules)
{
	union audit_rule rule, other;

	ck_assert_int_eq(audit_rule_build(AUDIT_RULE_CONNECT, 77, &rule), 0);
	ck_assert_uint_eq(rule.data.field_count, 3);
	ck_assert_uint_eq(rule.data.fields[0], AUDIT_ARCH);
	ck_assert_uint_eq(rule.data.values[0], syscall_native_arch());
	ck_assert_uint_eq(rule.data.mask[__NR_connect / 32], 1u << __NR_connect % 32);
	ck_assert_uint_eq(rule.data.fields[1], AUDIT_PID);
	ck_assert_uint_eq(rule.data.fieldflags[1], AUDIT_NOT_EQUAL);
	ck_assert_uint_eq(rule.data.values[1], 77);
	ck_assert(audit_rule_is_ours(rule.bytes, sizeof(rule.bytes)));

	ck_assert_int_eq(audit_rule_build(AUDIT_RULE_EACCES, 77, &rule), 0);
	ck_assert_int_eq((int)rule.data.values[0], -EACCES);
	ck_assert(audit_rule_is_ours(rule.bytes, sizeof(rule.bytes)));
	ck_assert(audit_rule_is_connect(AUDIT_RULE_CONNECT_URING));
	ck_assert(!audit_rule_is_connect(AUDIT_RULE_EPERM));
	ck_assert(!audit_rule_optional(AUDIT_RULE_EPERM));
	ck_assert(audit_rule_optional(AUDIT_RULE_CONNECT_URING));

	/* Other people's, and nonsense. */
	ck_assert(!audit_rule_is_ours(rule.bytes, sizeof(rule.bytes) - 1));
	ck_assert(!audit_rule_is_ours(rule.bytes, 0));
	other = rule;
	other.bytes[sizeof(other.bytes) - 1] ^= 1;
	ck_assert(!audit_rule_is_ours(other.bytes, sizeof(other.bytes)));
	other = rule;
	other.data.field_count = AUDIT_MAX_FIELDS + 1;
	ck_assert(!audit_rule_is_ours(other.bytes, sizeof(other.bytes)));
	other = rule;
	other.data.values[2] = UINT32_MAX;
	ck_assert(!audit_rule_is_ours(other.bytes, sizeof(other.bytes)));
	/* Our key behind another string. */
	other = rule;
	other.data.fields[1] = AUDIT_WATCH;
	other.data.values[1] = 4;
	ck_assert(!audit_rule_is_ours(other.bytes, sizeof(other.bytes)));
}

UNIT_TEST(test_tables)
{
	char buf[SYSCALL_NAME_MAX];

	ck_assert_str_eq(syscall_name(syscall_native_arch(), __NR_mount, buf), "mount");
	ck_assert_str_eq(syscall_name(syscall_native_arch(), 100000, buf), "#100000");
	ck_assert_str_eq(syscall_name(syscall_native_arch(), -1, buf), "#-1");
	ck_assert_str_eq(syscall_name(0, 1, buf), "#1");
#ifdef __x86_64__
	ck_assert_str_eq(syscall_name(AUDIT_ARCH_I386, 102, buf), "socketcall");
	ck_assert_str_eq(syscall_name(AUDIT_ARCH_I386, 362, buf), "connect");
#endif
	ck_assert_int_eq(syscall_number("connect"), __NR_connect);
	ck_assert_int_eq(syscall_number("no such call"), -1);
	ck_assert_int_eq(syscall_number(""), -1);
	ck_assert_str_eq(capability_name(capability_of_syscall(__NR_setuid, 0, EPERM)),
			 "CAP_SETUID");
	ck_assert_str_eq(capability_name(capability_of_syscall(__NR_openat, 0, EACCES)),
			 "CAP_DAC_OVERRIDE");
	ck_assert_int_eq(capability_of_syscall(__NR_openat, 0, EPERM), -1);
	ck_assert_int_eq(capability_of_syscall(__NR_read, 0, EPERM), -1);
	ck_assert_int_eq(capability_of_syscall(__NR_socket, AF_INET, EPERM), CAP_NET_RAW);
	ck_assert_int_eq(capability_of_syscall(__NR_socket, AF_PACKET, EPERM), CAP_NET_RAW);
	ck_assert_int_eq(capability_of_syscall(__NR_socket, AF_VSOCK, EPERM), -1);
	ck_assert_int_eq(capability_of_syscall(__NR_socket, AF_NETLINK, EPERM), -1);
	/* The kernel looks at the lower half only. */
	ck_assert_int_eq(capability_of_syscall(__NR_socket, AF_VSOCK | UINT64_C(1) << 32, EPERM),
			 -1);
	ck_assert_ptr_null(capability_name(-1));
	ck_assert_ptr_null(capability_name(41));
	ck_assert_str_eq(capability_name(40), "CAP_CHECKPOINT_RESTORE");
	for (int i = 0; i <= 40; i++)
		ck_assert_ptr_nonnull(capability_name(i));
	ck_assert_str_eq(error_name(EINPROGRESS), "EINPROGRESS");
	ck_assert_ptr_null(error_name(4000));
}
