/* SPDX-License-Identifier: MIT */
/*
 * Uses up what the kernel counts for each user, as a workload of this user could, and holds it
 * until its standard input ends:
 *
 *   exhaust epoll     all epoll watches
 *   exhaust inotify   all inotify instances and watches
 *
 * Prints how many there were and "held".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <unistd.h>

#define SIDE_MAX 1000

static void hold(unsigned n)
{
	char byte;

	printf("%u held\n", n);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		continue;
}

/* Each of n epoll objects watches each of n eventfds: n * n watches with 2 * n descriptors. */
static int use_epoll(void)
{
	static int events[SIDE_MAX];
	unsigned made = 0;

	for (int i = 0; i < SIDE_MAX; i++)
		if ((events[i] = eventfd(0, 0)) < 0)
			return 1;
	for (int i = 0; i < SIDE_MAX; i++) {
		const int epoll = epoll_create1(0);

		if (epoll < 0)
			return 1;
		for (int j = 0; j < SIDE_MAX; j++) {
			struct epoll_event ev = {.events = EPOLLIN};

			if (epoll_ctl(epoll, EPOLL_CTL_ADD, events[j], &ev) == 0) {
				made++;
				continue;
			}
			if (errno != ENOSPC)
				return 1;
			hold(made);
			return 0;
		}
	}
	return 1;
}

static int use_inotify(void)
{
	char path[64] = "/tmp/w";
	unsigned made = 0;
	int inotify = -1, one;

	while ((one = inotify_init1(0)) >= 0)
		inotify = one;
	if (inotify < 0 || errno != EMFILE)
		return 1;
	for (;; made++) {
		FILE *f;

		snprintf(path, sizeof(path), "/tmp/watched-%u", made);
		f = fopen(path, "w");
		if (!f)
			return 1;
		fclose(f);
		if (inotify_add_watch(inotify, path, IN_MODIFY) < 0)
			break;
	}
	if (errno != ENOSPC)
		return 1;
	hold(made);
	return 0;
}

int main(int argc, char **argv)
{
	const struct rlimit many = {8192, 8192};

	if (setrlimit(RLIMIT_NOFILE, &many) < 0)
		return 1;
	if (argc == 2 && !strcmp(argv[1], "epoll"))
		return use_epoll();
	if (argc == 2 && !strcmp(argv[1], "inotify"))
		return use_inotify();
	return 2;
}
