/* SPDX-License-Identifier: MIT */
/*
 * A workload that wants the agent to wait, or to miss something:
 *
 *   hostile freeze SECONDS  calls that each source looks at, with arguments in a page that
 *                           userfaultfd holds back, across two pages; "held" if a page fault of
 *                           another process is held
 *   hostile starve SECONDS [MIB]
 *                           two threads keep mmap_lock with mprotect(2) over a large mapping,
 *                           others make calls that each source looks at; prints how many
 *   hostile files           opens files until the machine's table is full, then makes one refused
 *                           and one watched call; ends with standard input
 *   hostile flood SECONDS   refused calls from four processes; prints how many
 *
 * Written to is /tmp/w/file, if it is there.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"

#define THREADS_MAX 16u
#define STARVE_MIB  1024u
#define HOLDERS_MAX 64
#define WATCHED	    "/tmp/w/file"
#ifndef MADV_POPULATE_READ /* linux/mman.h, Linux 5.14 */
#define MADV_POPULATE_READ 22
#endif

static char *pages;
static size_t page_size, starve_bytes;
static int uffd;
static atomic_bool stop, held;
static _Atomic pid_t threads[THREADS_MAX];
static _Atomic unsigned n_threads;
static _Atomic uint64_t refused;

static void start(void *(*f)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, f, NULL) != 0)
		exit(1);
}

static void remember_thread(void)
{
	threads[n_threads++] = (pid_t)syscall(SYS_gettid);
}

static bool is_own_thread(uint32_t tid)
{
	for (unsigned i = 0; i < n_threads; i++)
		if ((uint32_t)threads[i] == tid)
			return true;
	return false;
}

/* Resolves the faults of this process; leaves others waiting for ever. */
static void *handle_faults(_unused_ void *arg)
{
	struct uffd_msg m;

	while (read(uffd, &m, sizeof(m)) == sizeof(m)) {
		struct uffdio_zeropage zero = {
			.range = {.start = m.arg.pagefault.address & ~(page_size - 1),
				  .len = page_size}};

		if (!is_own_thread(m.arg.pagefault.feat.ptid))
			held = true;
		else
			ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
	}
	return NULL;
}

/* The first page comes and goes, so that a check and a use see different things. */
static void *flip_page(_unused_ void *arg)
{
	remember_thread();
	while (!stop) {
		*(volatile char *)pages = 0;
		*(volatile char *)(pages + page_size) = 0;
		usleep(2000);
		madvise(pages, page_size, MADV_DONTNEED);
	}
	return NULL;
}

static void *call_with_pages(_unused_ void *arg)
{
	char *across = pages + page_size - 8;

	remember_thread();
	while (!stop) {
		int fd = socket(AF_INET, SOCK_DGRAM, 0);

		syscall(SYS_bind, fd, across, 16);
		syscall(SYS_connect, fd, across, 16);
		close(fd);
		fd = open(WATCHED, O_WRONLY | O_CLOEXEC);
		(void)!write(fd, across, 16);
		close(fd);
		syscall(SYS_capset, across, across);
		syscall(SYS_sethostname, across, 8);
		syscall(SYS_chroot, across);
	}
	return NULL;
}

static int freeze(unsigned seconds)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID};
	struct uffdio_register area = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	page_size = (size_t)getpagesize();
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) {
		perror("userfaultfd");
		return 2;
	}
	pages = mmap(NULL, 2 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	area.range.start = (uintptr_t)pages;
	area.range.len = 2 * page_size;
	if (pages == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &area) < 0)
		return 3;
	start(handle_faults);
	start(flip_page);
	for (int i = 0; i < 4; i++)
		start(call_with_pages);
	sleep(seconds);
	puts(held ? "held" : "free");
	fflush(stdout);
	_exit(0); /* threads may wait for their pages */
}

static void *flip_protection(_unused_ void *arg)
{
	while (!stop) {
		mprotect(pages, starve_bytes, PROT_NONE);
		mprotect(pages, starve_bytes, PROT_READ);
	}
	return NULL;
}

static void *call_refused(_unused_ void *arg)
{
	while (!stop) {
		syscall(SYS_chroot, "/");
		refused++;
	}
	return NULL;
}

/* What the other sources look at: the system calls themselves need no lock of the mapping. */
static void *call_others(_unused_ void *arg)
{
	static const struct sockaddr_in low = {.sin_family = AF_INET, .sin_port = 0x5100};
	const struct sockaddr *to = (const struct sockaddr *)&low;

	while (!stop) {
		int fd = socket(AF_INET, SOCK_DGRAM, 0);

		bind(fd, to, sizeof(low));
		sendto(fd, "x", 1, 0, to, sizeof(low));
		connect(fd, to, sizeof(low));
		close(fd);
		fd = open(WATCHED, O_WRONLY | O_CLOEXEC);
		(void)!write(fd, "x", 1);
		close(fd);
	}
	return NULL;
}

static int starve(unsigned seconds, size_t mib)
{
	char sum = 0;

	starve_bytes = mib << 20;
	pages = mmap(NULL, starve_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		     0);
	if (pages == MAP_FAILED)
		return 2;
	madvise(pages, starve_bytes, MADV_NOHUGEPAGE);
	/* All of it is the zero page. Before Linux 5.14 it is read instead. */
	if (madvise(pages, starve_bytes, MADV_POPULATE_READ) < 0)
		for (size_t i = 0; i < starve_bytes; i += 4096)
			sum = (char)(sum + ((volatile char *)pages)[i]);
	start(flip_protection);
	start(flip_protection);
	start(call_refused);
	start(call_refused);
	start(call_others);
	sleep(seconds);
	printf("%" PRIu64 "\n", refused + (uint64_t)sum);
	fflush(stdout);
	_exit(0);
}

/* Opens until it fails; returns the error. */
static int open_all(void)
{
	while (open("/dev/null", O_RDONLY) >= 0)
		;
	return errno;
}

static int files(void)
{
	struct rlimit limit;
	char byte;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (int i = 0; i < HOLDERS_MAX; i++) {
		/* Its own table is full first: the next process goes on. */
		if (open_all() == ENFILE) {
			int r = syscall(SYS_chroot, "/") < 0 ? errno : 0;
			int w = sethostname("x", 1) < 0 ? errno : 0;

			printf("full %d %d\n", r, w);
			fflush(stdout);
			/* What others free is taken, too. */
			for (struct timespec t = {.tv_nsec = 2000000};;) {
				if (open("/dev/null", O_RDONLY) < 0)
					nanosleep(&t, NULL);
				fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
				if (read(STDIN_FILENO, &byte, 1) == 0)
					return 0;
			}
		}
		if (fork() != 0) {
			wait(NULL);
			return 0;
		}
	}
	puts("not full");
	return 1;
}

static int flood(unsigned seconds)
{
	const uint64_t until = monotonic_ns() + seconds * NSEC_PER_SEC;
	int report[2];
	uint64_t n, all = 0;

	if (pipe(report) < 0)
		return 1;
	for (int i = 0; i < 4; i++) {
		if (fork() != 0)
			continue;
		for (n = 0; monotonic_ns() < until; n++)
			syscall(SYS_chroot, "/");
		_exit(write(report[1], &n, sizeof(n)) != sizeof(n));
	}
	for (int i = 0; i < 4; i++)
		if (read(report[0], &n, sizeof(n)) == sizeof(n))
			all += n;
	while (wait(NULL) > 0)
		;
	printf("%" PRIu64 "\n", all);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t seconds = 0, mib;

	if (argc >= 3 && parse_u64(argv[2], 1, 600, &seconds) < 0)
		return 64;
	if (argc == 3 && !strcmp(argv[1], "freeze"))
		return freeze((unsigned)seconds);
	if (argc == 3 && !strcmp(argv[1], "starve"))
		return starve((unsigned)seconds, STARVE_MIB);
	if (argc == 4 && !strcmp(argv[1], "starve") && parse_u64(argv[3], 1, STARVE_MIB, &mib) == 0)
		return starve((unsigned)seconds, mib);
	if (argc == 3 && !strcmp(argv[1], "flood"))
		return flood((unsigned)seconds);
	if (argc == 2 && !strcmp(argv[1], "files"))
		return files();
	return 64;
}
