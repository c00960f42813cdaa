/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into a program by tests/faults: one call of one function fails, once.
 *
 *	FAULT=CALL:N:ERRNO	the N-th CALL (from 1) of a process fails with ERRNO; N 0: none does
 *	FAULT_PAGE=PATH		a file of one page: what happened, see struct page
 *
 * Each process of the program counts for itself. The page is mapped at the start and shared with
 * every child, so that a process which may make no system call can still count in it. Calls go to
 * the kernel directly; a short write or read is not made up, only a failing one.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Where the page is read: tests/faults/faults.py. */
struct page {
	atomic_uint hits;  /* how many calls were failed */
	atomic_uint calls; /* the most that one process made of this function */
};

enum { CALL_MAX = 32 };

static struct page nowhere, *page = &nowhere;
static char chosen[CALL_MAX];
static unsigned nth;
static int error;
static atomic_uint count;
static int (*real_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

/* A child counts from the start again. */
static void begin_again(void)
{
	count = 0;
}

__attribute__((constructor)) static void begin(void)
{
	const char *fault = getenv("FAULT"), *path = getenv("FAULT_PAGE"), *colon;
	int fd;

	real_pthread_create = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
				       void *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");
	colon = fault ? strchr(fault, ':') : NULL;
	if (!colon || !path || colon - fault >= CALL_MAX)
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		abort();
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		abort();
	syscall(SYS_close, fd);
	pthread_atfork(NULL, NULL, begin_again);
	nth = (unsigned)atoi(colon + 1);
	error = atoi(strchr(colon + 1, ':') + 1);
	memcpy(chosen, fault, (size_t)(colon - fault));
}

/* True, and errno is set: this call fails. */
static int fails(const char *call)
{
	unsigned n;

	if (chosen[0] == '\0' || strcmp(call, chosen) != 0)
		return 0;
	n = ++count;
	for (unsigned most = page->calls; n > most;)
		if (atomic_compare_exchange_weak(&page->calls, &most, n))
			break;
	if (n != nth)
		return 0;
	page->hits++;
	errno = error;
	return 1;
}

/* A pipe and an event descriptor are never full of a disk, and only a disk has errors. */
static int can_fail(int fd)
{
	struct stat st;

	return error == EINTR || (syscall(SYS_fstat, fd, &st) == 0 && S_ISREG(st.st_mode));
}

/* As fails(), of what only some descriptors do. */
static int fails_on(const char *call, int fd)
{
	return strcmp(call, chosen) == 0 && can_fail(fd) && fails(call);
}

ssize_t read(int fd, void *data, size_t size)
{
	return fails_on("read", fd) ? -1 : syscall(SYS_read, fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size)
{
	return fails_on("write", fd) ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
	return fails("pread") ? -1 : syscall(SYS_pread64, fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
	return fails("pwrite") ? -1 : syscall(SYS_pwrite64, fd, data, size, offset);
}

/* With 64-bit offsets, as everything here is built. */
ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t offset)
{
	return fails("pwritev") ? -1 : syscall(SYS_pwritev, fd, iov, n, offset, 0);
}

/* Without O_CREAT and O_TMPFILE there may be no mode, and the kernel ignores it. */
static int open_in(int dir, const char *path, int flags, __builtin_va_list *args)
{
	const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? __builtin_va_arg(*args, mode_t) : 0;

	return fails("open") ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	__builtin_va_list args;
	int fd;

	__builtin_va_start(args, flags);
	fd = open_in(AT_FDCWD, path, flags, &args);
	__builtin_va_end(args);
	return fd;
}

int openat64(int dir, const char *path, int flags, ...)
{
	__builtin_va_list args;
	int fd;

	__builtin_va_start(args, flags);
	fd = open_in(dir, path, flags, &args);
	__builtin_va_end(args);
	return fd;
}

int fsync(int fd)
{
	return fails("fsync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return fails("fdatasync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
	return fails("rename") ? -1 : (int)syscall(SYS_rename, from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return fails("rename") ? -1 : (int)syscall(SYS_renameat, from_dir, from, to_dir, to);
}

int unlink(const char *path)
{
	return fails("unlink") ? -1 : (int)syscall(SYS_unlink, path);
}

int unlinkat(int dir, const char *path, int flags)
{
	return fails("unlink") ? -1 : (int)syscall(SYS_unlinkat, dir, path, flags);
}

int socket(int family, int type, int protocol)
{
	return fails("socket") ? -1 : (int)syscall(SYS_socket, family, type, protocol);
}

int socketpair(int family, int type, int protocol, int fds[2])
{
	return fails("socket") ? -1 : (int)syscall(SYS_socketpair, family, type, protocol, fds);
}

/* As glibc declares them: a union of pointers to each kind of address. */
int accept4(int fd, __SOCKADDR_ARG address, socklen_t *size, int flags)
{
	return fails("accept4") ? -1
				: (int)syscall(SYS_accept4, fd, address.__sockaddr__, size, flags);
}

int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
	return fails("bind") ? -1 : (int)syscall(SYS_bind, fd, address.__sockaddr__, size);
}

int listen(int fd, int backlog)
{
	return fails("listen") ? -1 : (int)syscall(SYS_listen, fd, backlog);
}

int eventfd(unsigned initial, int flags)
{
	return fails("eventfd") ? -1 : (int)syscall(SYS_eventfd2, initial, flags);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	return fails("epoll_ctl") ? -1 : (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
}

int pipe2(int fds[2], int flags)
{
	return fails("pipe2") ? -1 : (int)syscall(SYS_pipe2, fds, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return fails("pthread_create") ? error : real_pthread_create(thread, attr, run, arg);
}

/* glibc's own names of its allocator. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
	return fails("malloc") ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return fails("calloc") ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	return fails("realloc") ? NULL : __libc_realloc(old, size);
}

/* As glibc's, which calls its own realloc and not this one. */
void *reallocarray(void *old, size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, total);
}
