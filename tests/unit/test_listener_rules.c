/* SPDX-License-Identifier: MIT */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <sys/socket.h>

#include "common/util.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/listener_rules.h"
#include "tests/unit/unit.h"

static struct listener_message full;

static struct listener_message *message(uint32_t n_rules)
{
	full = (struct listener_message){.magic = LISTENER_MAGIC,
					 .version = LISTENER_VERSION,
					 .arch = syscall_native_arch(),
					 .n_rules = n_rules};
	for (uint32_t i = 0; i < LISTENER_RULES_MAX; i++)
		full.rules[i] = (struct listener_rule){.nr = i, .action = LISTENER_WATCH};
	return &full;
}

static int check(size_t n_rules)
{
	return listener_message_check(&full, LISTENER_MESSAGE_SIZE(n_rules));
}

UNIT_TEST(test_limits)
{
	struct listener_rule *r = &full.rules[0];

	message(0);
	ck_assert_int_eq(check(0), -EPROTO);
	message(1);
	ck_assert_int_eq(check(1), 0);
	ck_assert_int_eq(check(2), -EPROTO);
	ck_assert_int_eq(listener_message_check(&full, LISTENER_MESSAGE_SIZE(1) - 1), -EPROTO);
	ck_assert_int_eq(listener_message_check(&full, 0), -EPROTO);
	message(LISTENER_RULES_MAX - 1);
	ck_assert_int_eq(check(LISTENER_RULES_MAX - 1), 0);
	message(LISTENER_RULES_MAX);
	ck_assert_int_eq(check(LISTENER_RULES_MAX), 0);
	message(LISTENER_RULES_MAX + 1);
	ck_assert_int_eq(check(LISTENER_RULES_MAX + 1), -EPROTO);
	message(UINT32_MAX);
	ck_assert_int_eq(check(1), -EPROTO);

	message(1);
	r->error = 1; /* with watch */
	ck_assert_int_eq(check(1), -EPROTO);
	r->action = LISTENER_REFUSE;
	ck_assert_int_eq(check(1), 0);
	r->error = LISTENER_ERRNO_MAX;
	ck_assert_int_eq(check(1), 0);
	r->error = LISTENER_ERRNO_MAX + 1;
	ck_assert_int_eq(check(1), -EPROTO);
	r->error = 0;
	ck_assert_int_eq(check(1), -EPROTO);
	r->error = 1;
	r->action = 3;
	ck_assert_int_eq(check(1), -EPROTO);
	r->action = LISTENER_REFUSE;
	r->n_conditions = LISTENER_CONDITIONS_MAX;
	r->conditions[LISTENER_CONDITIONS_MAX - 1].arg = 5;
	ck_assert_int_eq(check(1), 0);
	r->conditions[LISTENER_CONDITIONS_MAX - 1].arg = 6;
	ck_assert_int_eq(check(1), -EPROTO);
	r->n_conditions = LISTENER_CONDITIONS_MAX + 1;
	ck_assert_int_eq(check(1), -EPROTO);
}

UNIT_TEST(test_match)
{
	const struct listener_rule rules[] = {
		{.nr = __NR_socket,
		 .action = LISTENER_REFUSE,
		 .error = EPERM,
		 .n_conditions = 2,
		 .conditions = {{0, UINT32_MAX, AF_NETLINK}, {2, UINT32_MAX, 11}}},
		{.nr = __NR_clone,
		 .action = LISTENER_REFUSE,
		 .error = EPERM,
		 .n_conditions = 1,
		 .conditions = {{0, 0x10000000, 0x10000000}}},
		{.nr = __NR_socket, .action = LISTENER_WATCH},
	};
	struct seccomp_data call = {.nr = __NR_socket, .args = {AF_NETLINK, 3, 11}};

	ck_assert_ptr_eq(listener_match(rules, 3, &call), &rules[0]);
	/* Low halves only: the kernel does not look at the others either. */
	call.args[0] |= UINT64_C(1) << 32;
	call.args[2] |= UINT64_C(0xffffffff) << 32;
	ck_assert_ptr_eq(listener_match(rules, 3, &call), &rules[0]);
	call.args[2] = 10;
	ck_assert_ptr_eq(listener_match(rules, 3, &call), &rules[2]);
	ck_assert_ptr_null(listener_match(rules, 2, &call));
	call = (struct seccomp_data){.nr = __NR_clone, .args = {0x10000011}};
	ck_assert_ptr_eq(listener_match(rules, 3, &call), &rules[1]);
	call.args[0] = 0x11;
	ck_assert_ptr_null(listener_match(rules, 3, &call));
	ck_assert_ptr_null(listener_match(rules, 0, &call));
}

UNIT_TEST(test_judge)
{
	struct seccomp_data call = {.nr = __NR_sethostname};
	struct watch_verdict v = watch_judge(&call, ~(UINT64_C(1) << CAP_SYS_ADMIN));

	ck_assert(v.denied);
	ck_assert_int_eq(v.capability, CAP_SYS_ADMIN);
	ck_assert_int_eq(v.error, EPERM);
	ck_assert(!watch_judge(&call, UINT64_C(1) << CAP_SYS_ADMIN).denied);
	/* Only some sockets and files need one. */
	call = (struct seccomp_data){.nr = __NR_socket, .args = {AF_INET, SOCK_STREAM}};
	ck_assert(!watch_judge(&call, 0).denied);
	call.args[1] = SOCK_RAW | SOCK_CLOEXEC | UINT64_C(1) << 32;
	ck_assert(watch_judge(&call, 0).denied);
	call.args[0] = AF_NETLINK;
	ck_assert(!watch_judge(&call, 0).denied);
	call.args[0] = AF_PACKET;
	call.args[1] = SOCK_DGRAM;
	ck_assert(watch_judge(&call, 0).denied);
	call = (struct seccomp_data){.nr = __NR_mknodat, .args = {0, 0, 010644}};
	ck_assert(!watch_judge(&call, 0).denied);
	call.args[2] = 020644;
	ck_assert(watch_judge(&call, 0).denied);
	call.args[2] = 060644;
	ck_assert(watch_judge(&call, 0).denied);
	/* One that implies no capability. */
	call.nr = __NR_read;
	ck_assert(!watch_judge(&call, 0).denied);
}

static const struct {
	uint64_t family, type, protocol;
	const char *text; /* NULL: not described */
} sockets[] = {
	{AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0x0300, "packet raw 0x0003"},
	{AF_PACKET, SOCK_DGRAM, 0, "packet dgram 0x0000"},
	{AF_PACKET | UINT64_C(1) << 32, SOCK_PACKET, 0, "packet packet 0x0000"},
	{AF_NETLINK, SOCK_RAW, 12, "netlink raw netfilter"},
	{AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, 6, "netlink dgram xfrm"},
	{AF_NETLINK, 15, -1, "netlink 15 -1"},
	{AF_INET, SOCK_RAW, 1, "inet raw icmp"},
	{AF_INET6, SOCK_RAW | SOCK_CLOEXEC, 253, "inet6 raw 253"},
	{AF_INET, SOCK_STREAM, 0, NULL},
	{AF_INET6, SOCK_DGRAM, 0, NULL},
	{AF_UNIX, SOCK_STREAM, 0, NULL},
};

UNIT_LOOP_TEST(test_describe, ARRAY_SIZE(sockets))
{
	const struct seccomp_data call = {
		.nr = __NR_socket,
		.args = {sockets[_i].family, sockets[_i].type, sockets[_i].protocol}};
	char type[SOCKET_TEXT_MAX], protocol[SOCKET_TEXT_MAX], text[80];
	const char *family;

	ck_assert_int_eq(socket_describe(&call, &family, type, protocol), sockets[_i].text != NULL);
	if (!sockets[_i].text)
		return;
	snprintf(text, sizeof(text), "%s %s %s", family, type, protocol);
	ck_assert_str_eq(text, sockets[_i].text);
}

#ifdef __x86_64__
UNIT_TEST(test_foreign)
{
	const uint32_t native = syscall_native_arch(), compat = syscall_compat_arch();
	char buf[SYSCALL_NAME_MAX];

	ck_assert_str_eq(syscall_name_abi(native, 41, buf), "socket");
	ck_assert_str_eq(syscall_name_abi(compat, 359, buf), "i386:socket");
	ck_assert_str_eq(syscall_name_abi(native, 41 | 0x40000000, buf), "x32:socket");
	ck_assert_str_eq(syscall_name_abi(native, 0x7fffffff, buf), "x32:#1073741823");
	ck_assert_str_eq(syscall_name_abi(1, 7, buf), "foreign:#7");
	ck_assert(!syscall_is_foreign(native, 41, native));
	ck_assert(!syscall_is_foreign(native, -1, native));
	ck_assert(syscall_is_foreign(compat, 41, native));
	ck_assert(syscall_is_foreign(native, 41 | 0x40000000, native));
}
#endif
