/* SPDX-License-Identifier: MIT */
#include "common/listen_address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "common/util.h"

static bool parse_ip4(const char *host, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		return false;
	*ret = (struct sockaddr_storage){0};
	memcpy(ret, &address, sizeof(address));
	return true;
}

static bool parse_ip6(const char *host, uint16_t port, struct sockaddr_storage *ret)
{
	const struct addrinfo hints = {
		.ai_family = AF_INET6,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST,
	};
	struct addrinfo *found;
	struct sockaddr_in6 address;

	/* Unlike inet_pton(3) it reads the interface of a link-local address. */
	if (getaddrinfo(host, NULL, &hints, &found) != 0)
		return false;
	memcpy(&address, found->ai_addr, sizeof(address));
	freeaddrinfo(found);
	address.sin6_port = htons(port);
	*ret = (struct sockaddr_storage){0};
	memcpy(ret, &address, sizeof(address));
	return true;
}

bool listen_address_parse(const char *text, struct sockaddr_storage *ret)
{
	const char *colon = strrchr(text, ':');
	const bool brackets = *text == '[' && colon && colon[-1] == ']';
	const size_t len = colon ? (size_t)(colon - text) : 0;
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 3]; /* also '%' and the brackets */
	uint64_t port;

	if (len == 0 || len >= sizeof(host) || parse_u64(colon + 1, 1, 65535, &port) < 0)
		return false;
	memcpy(host, text, len);
	host[len - brackets] = '\0';
	return brackets ? parse_ip6(host + 1, (uint16_t)port, ret)
			: parse_ip4(host, (uint16_t)port, ret);
}
