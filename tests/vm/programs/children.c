/* SPDX-License-Identifier: MIT */
/*
 * `children COUNT FILE`: starts itself COUNT times, one after the other, as fast as one core can;
 * each child ends at once, in a way that its number decides: see leaf(). FILE gets a line "PID
 * NUMBER" for each, standard output "PID COUNT MILLISECONDS".
 *
 * `children fork COUNT FILE`: the same without the execution, which costs most.
 * `children name HEX`: takes the bytes as its name and waits for standard input to end.
 * `children leaf NUMBER`: internal.
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "common/util.h"

/* The test knows these rules too. */
static int leaf(uint64_t number)
{
	const struct rlimit none = {0, 0};

	switch (number % 4) {
	case 0: return 0;
	case 1: return (int)(number % 251);
	case 2:
		setrlimit(RLIMIT_CORE, &none);
		kill(getpid(), SIGTERM);
		break;
	default:
		setrlimit(RLIMIT_CORE, &none);
		kill(getpid(), SIGKILL);
		break;
	}
	return 255;
}

static int name_self(const char *hex)
{
	char name[16] = "", byte[3] = "", c;

	for (size_t i = 0; i < sizeof(name) - 1 && hex[2 * i] && hex[2 * i + 1]; i++) {
		memcpy(byte, hex + 2 * i, 2);
		name[i] = (char)strtoul(byte, NULL, 16);
	}
	if (prctl(PR_SET_NAME, name) < 0)
		return 1;
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

static int spawn_self(char *self, uint64_t i, pid_t *ret_pid)
{
	char number[24];
	char *args[] = {self, "leaf", number, NULL};

	snprintf(number, sizeof(number), "%" PRIu64, i);
	return posix_spawn(ret_pid, "/proc/self/exe", NULL, NULL, args, environ);
}

static int fork_self(uint64_t i, pid_t *ret_pid)
{
	const pid_t pid = fork();

	if (pid == 0)
		_exit(leaf(i));
	*ret_pid = pid;
	return pid < 0 ? errno : 0;
}

int main(int argc, char **argv)
{
	uint64_t count, start = monotonic_ns();
	_cleanup_fclose_ FILE *list = NULL;
	bool only_fork = false;

	if (argc == 3 && !strcmp(argv[1], "leaf") && parse_u64(argv[2], 0, UINT64_MAX, &count) == 0)
		return leaf(count);
	if (argc == 3 && !strcmp(argv[1], "name"))
		return name_self(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "fork")) {
		only_fork = true;
		argv++;
		argc--;
	}
	if (argc != 3 || parse_u64(argv[1], 1, 1000000, &count) < 0) {
		fprintf(stderr, "usage: children [fork] COUNT FILE | name HEX\n");
		return 64;
	}
	list = fopen(argv[2], "we");
	if (!list) {
		fprintf(stderr, "children: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	for (uint64_t i = 0; i < count; i++) {
		int status, r;
		pid_t pid;

		r = only_fork ? fork_self(i, &pid) : spawn_self(argv[0], i, &pid);
		if (r != 0 || waitpid(pid, &status, 0) != pid) {
			fprintf(stderr, "children: child %" PRIu64 ": %s\n", i, strerror(r));
			return 1;
		}
		fprintf(list, "%d %" PRIu64 "\n", pid, i);
	}
	printf("%d %" PRIu64 " %" PRIu64 "\n", getpid(), count,
	       (monotonic_ns() - start) / NSEC_PER_MSEC);
	return 0;
}
