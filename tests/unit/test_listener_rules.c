/* SPDX-License-Identifier: MIT */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <netinet/in.h>
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

START_TEST(test_limits)
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
END_TEST

START_TEST(test_match)
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
END_TEST

static struct watch_verdict bind_to(uint16_t family, unsigned port, size_t len, uint64_t caps)
{
	struct seccomp_data call = {.nr = __NR_bind};
	struct capability_sets sets = {.effective = caps};
	struct sockaddr_in in = {.sin_family = family, .sin_port = htons((uint16_t)port)};

	return watch_judge(&call, &sets, &in, len, 1024);
}

START_TEST(test_judge_bind)
{
	const size_t full_len = sizeof(struct sockaddr_in);
	struct watch_verdict v = bind_to(AF_INET, 80, full_len, 0);

	ck_assert(v.denied);
	ck_assert_int_eq(v.error, EACCES);
	ck_assert_int_eq(v.capability, CAP_NET_BIND_SERVICE);
	ck_assert(bind_to(AF_INET6, 1023, full_len, 0).denied);
	ck_assert(!bind_to(AF_INET6, 1024, full_len, 0).denied);
	ck_assert(!bind_to(AF_INET, 0, full_len, 0).denied);
	ck_assert(!bind_to(AF_UNIX, 80, full_len, 0).denied);
	ck_assert(!bind_to(AF_INET, 80, full_len, UINT64_C(1) << CAP_NET_BIND_SERVICE).denied);
	ck_assert(bind_to(AF_INET, 80, 4, 0).denied);
	for (size_t len = 0; len < 4; len++)
		ck_assert(!bind_to(AF_INET, 80, len, 0).denied);
}
END_TEST

START_TEST(test_judge_capset)
{
	struct seccomp_data call = {.nr = __NR_capset};
	struct capability_sets sets = {.effective = 1, .permitted = 3, .inheritable = 0};
	struct {
		struct __user_cap_header_struct header;
		struct __user_cap_data_struct data[2];
	} a = {.header = {.version = _LINUX_CAPABILITY_VERSION_3}};

	/* Giving up what one has needs nothing. */
	a.data[0].permitted = 1;
	ck_assert(!watch_judge(&call, &sets, &a, sizeof(a), 1024).denied);
	a.data[0].effective = 2;
	ck_assert(watch_judge(&call, &sets, &a, sizeof(a), 1024).denied);
	a.data[0].effective = 0;
	a.data[1].permitted = 1;
	ck_assert(watch_judge(&call, &sets, &a, sizeof(a), 1024).denied);
	ck_assert_int_eq(watch_judge(&call, &sets, &a, sizeof(a), 1024).capability, -1);
	a.data[1].permitted = 0;
	a.data[0].inheritable = 4;
	ck_assert(watch_judge(&call, &sets, &a, sizeof(a), 1024).denied);
	ck_assert_int_eq(watch_judge(&call, &sets, &a, sizeof(a), 1024).capability, CAP_SETPCAP);
	sets.effective |= UINT64_C(1) << CAP_SETPCAP;
	ck_assert(!watch_judge(&call, &sets, &a, sizeof(a), 1024).denied);
	/* What could not be read is not judged. */
	a.data[1].permitted = 1;
	ck_assert(!watch_judge(&call, &sets, &a, sizeof(a) - 1, 1024).denied);
	ck_assert(!watch_judge(&call, &sets, &a, 0, 1024).denied);
}
END_TEST

START_TEST(test_judge_others)
{
	struct seccomp_data call = {.nr = __NR_sethostname};
	struct capability_sets sets = {.effective = ~(UINT64_C(1) << CAP_SYS_ADMIN)};
	struct watch_verdict v = watch_judge(&call, &sets, NULL, 0, 1024);

	ck_assert(v.denied);
	ck_assert_int_eq(v.capability, CAP_SYS_ADMIN);
	ck_assert_int_eq(v.error, EPERM);
	sets.effective = UINT64_C(1) << CAP_SYS_ADMIN;
	ck_assert(!watch_judge(&call, &sets, NULL, 0, 1024).denied);
	/* Only some sockets and files need one. */
	sets.effective = 0;
	call = (struct seccomp_data){.nr = __NR_socket, .args = {AF_INET, SOCK_STREAM}};
	ck_assert(!watch_judge(&call, &sets, NULL, 0, 1024).denied);
	call.args[1] = SOCK_RAW | SOCK_CLOEXEC | UINT64_C(1) << 32;
	ck_assert(watch_judge(&call, &sets, NULL, 0, 1024).denied);
	call.args[0] = AF_NETLINK;
	ck_assert(!watch_judge(&call, &sets, NULL, 0, 1024).denied);
	call.args[0] = AF_PACKET;
	call.args[1] = SOCK_DGRAM;
	ck_assert(watch_judge(&call, &sets, NULL, 0, 1024).denied);
	call = (struct seccomp_data){.nr = __NR_mknodat, .args = {0, 0, 010644}};
	ck_assert(!watch_judge(&call, &sets, NULL, 0, 1024).denied);
	call.args[2] = 020644;
	ck_assert(watch_judge(&call, &sets, NULL, 0, 1024).denied);
	call.args[2] = 060644;
	ck_assert(watch_judge(&call, &sets, NULL, 0, 1024).denied);
	/* One that implies no capability. */
	call.nr = __NR_read;
	ck_assert(!watch_judge(&call, &sets, NULL, 0, 1024).denied);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("listener_rules");

	tcase_add_test(tc, test_limits);
	tcase_add_test(tc, test_match);
	tcase_add_test(tc, test_judge_bind);
	tcase_add_test(tc, test_judge_capset);
	tcase_add_test(tc, test_judge_others);
	return unit_run("listener_rules", &tc, 1);
}
