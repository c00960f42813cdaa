/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/connection.h"

#include <fcntl.h>
#include <sched.h>

#include "common/util.h"

#define CONNECT_MS 5000

static const struct {
	natsStatus status;
	enum forward_error error;
} status_errors[] = {
	{NATS_CONNECTION_AUTH_FAILED, FORWARD_CREDENTIALS},
	{NATS_NOT_PERMITTED, FORWARD_CREDENTIALS},
	{NATS_INVALID_ARG, FORWARD_CREDENTIALS},
	{NATS_SSL_ERROR, FORWARD_TLS},
	{NATS_SECURE_CONNECTION_WANTED, FORWARD_TLS},
	{NATS_SECURE_CONNECTION_REQUIRED, FORWARD_TLS},
	{NATS_TIMEOUT, FORWARD_TIMEOUT},
};

void connection_library_open(void)
{
	const struct sched_param none = {0};

	/*
	 * Threads inherit the policy; a thread of SCHED_BATCH does not preempt others when it wakes
	 * up (sched(7)).
	 */
	sched_setscheduler(0, SCHED_BATCH, &none);
	nats_Open(-1);
	sched_setscheduler(0, SCHED_OTHER, &none);
}

enum forward_error connection_error(natsStatus status)
{
	for (size_t i = 0; i < ARRAY_SIZE(status_errors); i++)
		if (status_errors[i].status == status)
			return status_errors[i].error;
	return FORWARD_CONNECT;
}

void connection_pick_url(const char *urls, unsigned number, char *out, size_t size)
{
	unsigned n = 1;

	for (const char *c = urls; *c; c++)
		n += *c == ',';
	for (unsigned i = number % n; i > 0; i--)
		urls = strchr(urls, ',') + 1;
	urls += strspn(urls, " ");
	snprintf(out, size, "%.*s", (int)strcspn(urls, ", "), urls);
}

void connection_show_url(const char *url, char *out, size_t size)
{
	const char *at = strrchr(url, '@');
	const char *scheme = strstr(url, "://");

	if (at && scheme)
		snprintf(out, size, "%.*s://%.200s", (int)(scheme - url), url, at + 1);
	else
		snprintf(out, size, "%.250s", at ? at + 1 : url);
}

/* The host of the URL; the server's certificate must name it. */
static void host_of(const char *url, char *out, size_t size)
{
	const char *begin = strstr(url, "://");
	const char *at, *end;

	begin = begin ? begin + 3 : url;
	at = strchr(begin, '@');
	begin = at ? at + 1 : begin;
	if (*begin == '[') {
		begin++;
		end = strchr(begin, ']');
	} else {
		end = strchr(begin, ':');
	}
	snprintf(out, size, "%.*s", (int)(end ? (size_t)(end - begin) : strlen(begin)), begin);
}

static bool wants_tls(const struct forward_settings *s, const char *url)
{
	return *s->tls_ca || *s->tls_cert || strncmp(url, "tls://", 6) == 0;
}

static natsStatus set_tls(natsOptions *opts, const struct forward_settings *s, const char *url)
{
	char host[256];
	natsStatus st = natsOptions_SetSecure(opts, true);

	host_of(url, host, sizeof(host));
	if (st == NATS_OK && *s->tls_ca)
		st = natsOptions_LoadCATrustedCertificates(opts, s->tls_ca);
	if (st == NATS_OK && *s->tls_cert)
		st = natsOptions_LoadCertificatesChain(opts, s->tls_cert, s->tls_key);
	if (st == NATS_OK)
		st = natsOptions_SetExpectedHostname(opts, host);
	return st;
}

/* No pings: their timer would be another thread, but one thread owns the socket. */
static natsStatus set_loop(natsOptions *opts, const struct connection_loop *loop)
{
	natsStatus st = natsOptions_SetEventLoop(opts, loop->owner, loop->attach, loop->read,
						 loop->write, loop->detach);

	if (st == NATS_OK)
		st = natsOptions_SetSendAsap(opts, true);
	return st == NATS_OK ? natsOptions_SetPingInterval(opts, 0) : st;
}

static natsStatus set_options(natsOptions *opts, const struct forward_settings *s, const char *url,
			      const struct connection_loop *loop)
{
	natsStatus st = natsOptions_SetURL(opts, url);

	if (st == NATS_OK)
		st = natsOptions_SetAllowReconnect(opts, false);
	if (st == NATS_OK)
		st = natsOptions_SetTimeout(opts, CONNECT_MS);
	if (st == NATS_OK)
		st = natsOptions_SetWriteDeadline(opts, PUBLISHER_TIMEOUT_MS);
	if (st == NATS_OK)
		st = natsOptions_SetName(opts, "cellos-host-telemetry");
	if (st == NATS_OK && loop)
		st = set_loop(opts, loop);
	if (st == NATS_OK && *s->credentials)
		st = natsOptions_SetUserCredentialsFromFiles(opts, s->credentials, NULL);
	if (st == NATS_OK && wants_tls(s, url))
		st = set_tls(opts, s, url);
	return st;
}

/* Check the files here, because libnats does not say which file it could not read. */
static enum forward_error check_files(const struct forward_settings *s, char why[PUBLISHER_WHY_MAX])
{
	const struct {
		const char *key, *path;
		enum forward_error error;
	} files[] = {
		{"credentials", s->credentials, FORWARD_CREDENTIALS},
		{"tls_ca", s->tls_ca, FORWARD_TLS},
		{"tls_cert", s->tls_cert, FORWARD_TLS},
		{"tls_key", s->tls_key, FORWARD_TLS},
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_close_ int fd =
			*files[i].path ? open(files[i].path, O_RDONLY | O_CLOEXEC) : -1;

		if (!*files[i].path || fd >= 0)
			continue;
		snprintf(why, PUBLISHER_WHY_MAX, "%s = %.200s: %s", files[i].key, files[i].path,
			 strerror(errno));
		return files[i].error;
	}
	return FORWARD_OK;
}

enum forward_error connection_open(const struct forward_settings *s, const char *url,
				   const struct connection_loop *loop, natsConnection **ret,
				   char why[PUBLISHER_WHY_MAX])
{
	enum forward_error error = check_files(s, why);
	natsOptions *opts = NULL;
	const char *text;
	natsStatus st;

	if (error != FORWARD_OK)
		return error;
	st = natsOptions_Create(&opts);
	if (st == NATS_OK)
		st = set_options(opts, s, url, loop);
	if (st == NATS_OK)
		st = natsConnection_Connect(ret, opts);
	natsOptions_Destroy(opts);
	if (st == NATS_OK)
		return FORWARD_OK;
	text = nats_GetLastError(NULL);
	snprintf(why, PUBLISHER_WHY_MAX, "%s%s%.250s", natsStatus_GetText(st), text ? ": " : "",
		 text ? text : "");
	return connection_error(st);
}
