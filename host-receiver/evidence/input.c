/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <zlib.h>
#include <zstd.h>

#include "common/util.h"

#define RAW_SIZE    (64u * 1024u)
#define BUFFER_SIZE (256u * 1024u)
/* zstd needs as much memory as the window has bytes; `zstd -19` uses 8 MiB. */
#define ZSTD_WINDOW_LOG_MAX 23

_Static_assert(BUFFER_SIZE > INPUT_LINE_MAX + 1, "a whole line fits");

enum format {
	FORMAT_UNKNOWN, /* no byte was read yet */
	FORMAT_PLAIN,
	FORMAT_GZIP,
	FORMAT_ZSTD,
};

struct input {
	int fd;
	enum format format;
	uint64_t size, read_bytes;
	bool raw_end;  /* read(2) has reported the end */
	bool skipping; /* inside a line that is too long */
	/* Compressed bytes, as the file has them. */
	size_t raw_first, raw_len;
	bool open_frame; /* inside compressed data */
	z_stream gzip;
	bool gzip_ready;
	ZSTD_DStream *zstd;
	/* Decompressed bytes: lines. */
	size_t first, len;
	char raw[RAW_SIZE];
	char buf[BUFFER_SIZE];
};

static int fail(char *why, int r, const char *text)
{
	snprintf(why, INPUT_WHY_MAX, "%s", text);
	return r;
}

static int open_file(struct input *input, const char *path, char *why)
{
	struct stat st;

	input->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (input->fd < 0 || fstat(input->fd, &st) < 0)
		return fail(why, -errno, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return fail(why, -EISDIR, strerror(EISDIR));
	if (!S_ISREG(st.st_mode))
		return fail(why, -EINVAL, "not a regular file");
	input->size = (uint64_t)st.st_size;
	return 0;
}

int input_open(const char *path, struct input **ret, char why[INPUT_WHY_MAX])
{
	struct input *input = malloc(sizeof(*input));
	int r;

	if (!input)
		return fail(why, -ENOMEM, "no memory");
	/* Do not clear the buffers: most of their pages are never used. */
	memset(input, 0, offsetof(struct input, raw));
	if (strcmp(path, "-") == 0) {
		input->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
		r = input->fd < 0 ? fail(why, -errno, strerror(errno)) : 0;
	} else {
		r = open_file(input, path, why);
	}
	if (r < 0)
		input_close(input);
	else
		*ret = input;
	return r;
}

void input_close(struct input *input)
{
	if (!input)
		return;
	close_fd(input->fd);
	if (input->gzip_ready)
		inflateEnd(&input->gzip);
	ZSTD_freeDStream(input->zstd);
	free(input);
}

/* Returns the bytes, 0 at the end. */
static ssize_t read_some(struct input *input, char *to, size_t size, char *why)
{
	ssize_t n;

	do {
		n = read(input->fd, to, size);
		/* Another program may have made standard input non-blocking. */
		if (n < 0 && errno == EAGAIN)
			poll(&(struct pollfd){.fd = input->fd, .events = POLLIN}, 1, -1);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return fail(why, -errno, strerror(errno));
	input->read_bytes += (uint64_t)n;
	input->raw_end = n == 0;
	return n;
}

/* ---- compressed data ---- */

static int begin_gzip(struct input *input, char *why)
{
	/* 15 is the largest window, +16: a gzip header. */
	if (inflateInit2(&input->gzip, 15 + 16) != Z_OK)
		return fail(why, -ENOMEM, "no memory");
	input->gzip_ready = true;
	return 0;
}

static int begin_zstd(struct input *input, char *why)
{
	input->zstd = ZSTD_createDStream();
	if (!input->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(input->zstd, ZSTD_d_windowLogMax,
								ZSTD_WINDOW_LOG_MAX)))
		return fail(why, -ENOMEM, "no memory");
	return 0;
}

static int inflate_some(struct input *input, char *to, size_t size, size_t *ret_n, char *why)
{
	z_stream *z = &input->gzip;
	int r;

	/* A file may contain several compressed streams, one after another. */
	if (!input->open_frame && inflateReset(z) != Z_OK)
		return fail(why, -EBADMSG, "damaged gzip data");
	input->open_frame = true;
	z->next_in = (Bytef *)input->raw + input->raw_first;
	z->avail_in = (uInt)input->raw_len;
	z->next_out = (Bytef *)to;
	z->avail_out = (uInt)size;
	r = inflate(z, Z_NO_FLUSH);
	*ret_n = size - z->avail_out;
	input->raw_first += input->raw_len - z->avail_in;
	input->raw_len = z->avail_in;
	if (r == Z_STREAM_END)
		input->open_frame = false;
	else if (r == Z_MEM_ERROR)
		return fail(why, -ENOMEM, "no memory");
	else if (r != Z_OK && r != Z_BUF_ERROR)
		return fail(why, -EBADMSG, "damaged gzip data");
	return 0;
}

static int unzstd_some(struct input *input, char *to, size_t size, size_t *ret_n, char *why)
{
	ZSTD_inBuffer in = {.src = input->raw + input->raw_first, .size = input->raw_len};
	ZSTD_outBuffer out = {.dst = to, .size = size};
	const size_t r = ZSTD_decompressStream(input->zstd, &out, &in);

	if (ZSTD_isError(r)) {
		snprintf(why, INPUT_WHY_MAX, "zstd: %s", ZSTD_getErrorName(r));
		return -EBADMSG;
	}
	*ret_n = out.pos;
	input->raw_first += in.pos;
	input->raw_len -= in.pos;
	input->open_frame = r != 0;
	return 0;
}

/* Returns the bytes, 0 at the end. */
static ssize_t expand(struct input *input, char *to, size_t size, char *why)
{
	for (;;) {
		size_t n = 0;
		ssize_t got;
		int r = 0;

		if (input->raw_len > 0 || input->open_frame)
			r = input->format == FORMAT_GZIP ? inflate_some(input, to, size, &n, why)
							 : unzstd_some(input, to, size, &n, why);
		if (r < 0)
			return r;
		if (n > 0)
			return (ssize_t)n;
		if (input->raw_len > 0)
			continue;
		if (input->raw_end)
			return input->open_frame
				       ? fail(why, -EBADMSG, "the compressed data are cut")
				       : 0;
		input->raw_first = 0;
		got = read_some(input, input->raw, RAW_SIZE, why);
		if (got < 0)
			return got;
		input->raw_len = (size_t)got;
	}
}

static bool begins_with(const struct input *input, const char *magic, size_t len)
{
	return input->raw_len >= len && memcmp(input->raw, magic, len) == 0;
}

/* Decide by the first bytes: no line of evidence begins with these. */
static int detect(struct input *input, char *why)
{
	while (input->raw_len < 4 && !input->raw_end) {
		ssize_t n = read_some(input, input->raw + input->raw_len, RAW_SIZE - input->raw_len,
				      why);

		if (n < 0)
			return (int)n;
		input->raw_len += (size_t)n;
	}
	if (begins_with(input, "\x1f\x8b", 2)) {
		input->format = FORMAT_GZIP;
		return begin_gzip(input, why);
	}
	if (begins_with(input, "\x28\xb5\x2f\xfd", 4)) {
		input->format = FORMAT_ZSTD;
		return begin_zstd(input, why);
	}
	input->format = FORMAT_PLAIN;
	memcpy(input->buf, input->raw, input->raw_len);
	input->len = input->raw_len;
	input->raw_len = 0;
	return 0;
}

/* ---- lines ---- */

/* Read more bytes to the end of buf. Returns how many, 0 at the end. */
static ssize_t fill(struct input *input, char *why)
{
	ssize_t n;

	if (input->format == FORMAT_UNKNOWN) {
		int r = detect(input, why);

		if (r < 0)
			return r;
		if (input->len > 0)
			return (ssize_t)input->len;
	}
	if (input->first > 0) {
		memmove(input->buf, input->buf + input->first, input->len);
		input->first = 0;
	}
	if (input->format != FORMAT_PLAIN)
		n = expand(input, input->buf + input->len, BUFFER_SIZE - input->len, why);
	else
		n = input->raw_end ? 0
				   : read_some(input, input->buf + input->len,
					       BUFFER_SIZE - input->len, why);
	if (n > 0)
		input->len += (size_t)n;
	return n;
}

static void drop(struct input *input, size_t n)
{
	input->first += n;
	input->len -= n;
}

static void give(struct input *input, size_t len, bool cut, struct input_line *ret)
{
	*ret = (struct input_line){.data = input->buf + input->first, .len = len, .cut = cut};
	if (input->skipping || len > INPUT_LINE_MAX) {
		ret->too_long = true;
		ret->len = 0;
	}
	input->skipping = false;
	drop(input, cut ? len : len + 1);
}

int input_next(struct input *input, struct input_line *ret, char why[INPUT_WHY_MAX])
{
	size_t searched = 0;

	for (;;) {
		const char *begin = input->buf + input->first;
		const char *newline = memchr(begin + searched, '\n', input->len - searched);
		ssize_t n;

		if (newline) {
			give(input, (size_t)(newline - begin), false, ret);
			return 1;
		}
		searched = input->len;
		if (input->len > INPUT_LINE_MAX) {
			input->skipping = true;
			drop(input, input->len);
			searched = 0;
		}
		n = fill(input, why);
		if (n < 0)
			return (int)n;
		if (n == 0) {
			if (input->len == 0 && !input->skipping)
				return 0;
			give(input, input->len, true, ret);
			return 1;
		}
	}
}

uint64_t input_read_bytes(const struct input *input)
{
	return input->read_bytes;
}

uint64_t input_size(const struct input *input)
{
	return input->size;
}
