/* SPDX-License-Identifier: MIT */
/*
 * One line of /proc/net/tcp or tcp6. Pure; accepts any bytes. Source: proc(5),
 * net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* include/net/tcp_states.h; those the sources care for. */
enum tcp_row_state {
	TCP_ROW_ESTABLISHED = 1,
	TCP_ROW_SYN_SENT = 2,
	TCP_ROW_LISTEN = 10,
};

struct tcp_row {
	int family;	     /* AF_INET or AF_INET6, by the width of the addresses */
	uint32_t local[4];   /* network byte order */
	uint32_t remote[4];  /* likewise */
	uint16_t local_port; /* host byte order */
	uint16_t remote_port;
	uint8_t state;
	uint64_t inode; /* of the socket; 0: it has no owner any more */
};

/* A line without its newline. 0, or -EBADMSG (also for the heading). */
int tcp_row_parse(const char *line, size_t len, struct tcp_row *ret);

/* The N of "socket:[N]". 0 or -EBADMSG. */
int socket_link_parse(const char *link, size_t len, uint64_t *ret);
