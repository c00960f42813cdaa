/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz harness over stored inputs, as an ordinary test: each file of the folders (or the
 * files) named, whole, cut anywhere, and with each byte inverted. Prints how many; fails when there
 * is none.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "common/util.h"

#define INPUT_MAX 65536u
/* Beyond, a file is cut and changed at so many places only. */
#define VARIANTS_MAX 2048u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs, files;

/* In memory of its very size, so that a sanitizer sees a read beyond the end. */
static void run(const uint8_t *data, size_t size)
{
	_cleanup_free_ uint8_t *copy = malloc(size ? size : 1);

	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	inputs++;
}

static int run_file(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	static uint8_t data[INPUT_MAX];
	ssize_t size = fd < 0 ? -1 : read(fd, data, sizeof(data));
	size_t step;

	if (size < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -errno;
	}
	files++;
	run(data, (size_t)size);
	step = (size_t)size / VARIANTS_MAX + 1;
	for (size_t i = 0; i < (size_t)size; i += step) {
		run(data, i);
		data[i] ^= 0xff;
		run(data, (size_t)size);
		data[i] ^= 0xff;
	}
	return 0;
}

static int run_path(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *e;
	int r = 0;

	if (!dir)
		return run_file(path);
	while (r == 0 && (e = readdir(dir))) {
		char name[PATH_MAX];

		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		r = run_file(name);
	}
	closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (run_path(argv[i]) < 0)
			return EXIT_FAILURE;
	printf("%lu inputs from %lu files\n", inputs, files);
	return files ? EXIT_SUCCESS : EXIT_FAILURE;
}
