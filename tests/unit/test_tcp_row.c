/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>

#include "common/util.h"
#include "guest-agent/probes/tcp_row.h"
#include "tests/unit/unit.h"

#define HEADING                                                                                    \
	"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  "      \
	"timeout inode"
#define ROW4                                                                                       \
	"   7: 0100007F:D431 0200007F:1F90 01 00000000:00000000 00:00000000 00000000  1000   "     \
	"     0 123456789 1 0000000000000000 20 4 30 10 -1"
#define ROW6                                                                                       \
	"   0: 00000000000000000000000001000000:0050 0000000000000000FFFF00000100007F:0016 02 "    \
	"00000000:00000001 01:00000000 00000000     0        0 77 2 0000000000000000"

static int parse(const char *line, struct tcp_row *row)
{
	return tcp_row_parse(line, strlen(line), row);
}

UNIT_TEST(test_rows)
{
	char text[INET6_ADDRSTRLEN];
	struct tcp_row row;

	ck_assert_int_eq(parse(ROW4, &row), 0);
	ck_assert_int_eq(row.family, AF_INET);
	ck_assert_int_eq(row.state, TCP_ROW_ESTABLISHED);
	ck_assert_uint_eq(row.local_port, 0xd431);
	ck_assert_uint_eq(row.remote_port, 8080);
	ck_assert_uint_eq(row.inode, 123456789);
	ck_assert_str_eq(inet_ntop(AF_INET, row.remote, text, sizeof(text)), "127.0.0.2");

	ck_assert_int_eq(parse(ROW6, &row), 0);
	ck_assert_int_eq(row.family, AF_INET6);
	ck_assert_int_eq(row.state, TCP_ROW_SYN_SENT);
	ck_assert_uint_eq(row.remote_port, 22);
	ck_assert_uint_eq(row.inode, 77);
	ck_assert_str_eq(inet_ntop(AF_INET6, row.remote, text, sizeof(text)), "::ffff:127.0.0.1");
}

UNIT_TEST(test_malformed)
{
	struct tcp_row row = {.inode = 5};
	size_t inode_at = (size_t)(strstr(ROW4, "123456789") - ROW4);

	ck_assert_int_eq(parse(HEADING, &row), -EBADMSG);
	ck_assert_int_eq(parse("", &row), -EBADMSG);
	for (size_t len = 0; len <= inode_at; len++)
		ck_assert_int_eq(tcp_row_parse(ROW4, len, &row), -EBADMSG);
	/* Each byte up to the state replaced by one that belongs nowhere; those behind are skipped.
	 */
	for (size_t i = 0; i < inode_at - 30; i++) {
		char line[] = ROW4;

		line[i] = '~';
		if (ROW4[i] != ' ' && i < 35)
			ck_assert_int_eq(parse(line, &row), -EBADMSG);
		else
			parse(line, &row);
	}
	/* One address of each family; a port too long; an inode too large. */
	ck_assert_int_eq(
		parse("0: 0100007F:0001 00000000000000000000000001000000:0002 01 a b c 0 0 1",
		      &row),
		-EBADMSG);
	ck_assert_int_eq(parse("0: 0100007F:00010 0100007F:0002 01 a b c 0 0 1", &row), -EBADMSG);
	ck_assert_int_eq(
		parse("0: 0100007F0100007F:0001 0100007F0100007F:0002 01 a b c 0 0 1", &row),
		-EBADMSG);
	row.inode = 5;
	ck_assert_int_eq(
		parse("0: 0100007F:0001 0100007F:0002 01 a b c 0 0 18446744073709551616", &row),
		-EBADMSG);
	ck_assert_uint_eq(row.inode, 5);
	ck_assert_int_eq(
		parse("0: 0100007F:0001 0100007F:0002 01 a b c 0 0 18446744073709551615", &row), 0);
	ck_assert_uint_eq(row.inode, UINT64_MAX);
}

UNIT_TEST(test_link)
{
	uint64_t inode = 1;

	ck_assert_int_eq(socket_link_parse("socket:[42]", 11, &inode), 0);
	ck_assert_uint_eq(inode, 42);
	for (size_t len = 0; len < 11; len++)
		ck_assert_int_eq(socket_link_parse("socket:[42]", len, &inode), -EBADMSG);
	ck_assert_int_eq(socket_link_parse("pipe:[42]", 9, &inode), -EBADMSG);
	ck_assert_int_eq(socket_link_parse("socket:[ 42]", 12, &inode), -EBADMSG);
	ck_assert_int_eq(socket_link_parse("socket:[]", 9, &inode), -EBADMSG);
	ck_assert_int_eq(socket_link_parse("socket:[42]x", 12, &inode), -EBADMSG);
	ck_assert_uint_eq(inode, 42);
}
