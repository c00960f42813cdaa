/* SPDX-License-Identifier: MIT */
/* Which of the guest's parts this is, by the name it was started with. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];

	if (strcmp(name, "init") == 0 && getpid() == 1)
		return init_main();
	if (strcmp(name, "vm") == 0 && argc > 1 && strcmp(argv[1], "idle") == 0)
		return idle_main(argc, argv);
	if (strcmp(name, "vm") == 0)
		return ctl_main(argc, argv);
	if (strcmp(name, "vsock-cat") == 0)
		return vsock_cat_main(argc, argv);
	fprintf(stderr, "%s: not init (as PID 1), vm or vsock-cat\n", name);
	return 64;
}
