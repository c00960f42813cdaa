/* SPDX-License-Identifier: MIT */
#include "guest-agent/probe_report.h"

#include <linux/capability.h>

#include "common/util.h"
#include "guest-agent/agent.h"
#include "guest-agent/families.h"
#include "guest-agent/kernel_options.h"

static const struct {
	uint64_t bit;
	const char *name;
} capability_names[] = {
	{UINT64_C(1) << CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{UINT64_C(1) << CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{UINT64_C(1) << CAP_BPF, "CAP_BPF"},
	{UINT64_C(1) << CAP_AUDIT_CONTROL, "CAP_AUDIT_CONTROL"},
	{UINT64_C(1) << CAP_AUDIT_READ, "CAP_AUDIT_READ"},
	{UINT64_C(1) << CAP_SYS_PTRACE, "CAP_SYS_PTRACE"},
	{UINT64_C(1) << CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"},
};

/* The result of trying one source. */
struct trial {
	const struct probe_ops *ops;
	int error; /* 0: available */
	bool taken;
	char why[PROBE_WHY_MAX];
};

static bool is_refusal(int error)
{
	return error == -EPERM || error == -EACCES;
}

/*
 * The missing condition: a privilege if the kernel refused, a kernel option if it does not know the
 * call.
 */
static void print_needs(const struct trial *t, const char *separator, const char *quote)
{
	const char *options = probe_kernel_options(t->ops->family, t->ops->via);
	const char *between = "";

	if (is_refusal(t->error)) {
		for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++) {
			if (!(t->ops->capabilities & capability_names[i].bit))
				continue;
			printf("%s%s%s%s", between, quote, capability_names[i].name, quote);
			between = separator;
		}
		if (*between)
			return;
	}
	while (*options) {
		const size_t len = strcspn(options, " ");

		printf("%s%s%.*s%s", between, quote, (int)len, options, quote);
		between = separator;
		options += len + strspn(options + len, " ");
	}
}

/* Our own texts are ASCII; a reason can contain a path. */
static void print_json_text(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		const unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c < 0x20 ? c : 0xfffdu);
		else
			putchar(c);
	}
	putchar('"');
}

static const char *vsock_transport(void)
{
	if (access("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport", F_OK) == 0)
		return "virtio";
	if (access("/sys/module/vmw_vsock_vmci_transport", F_OK) == 0)
		return "vmci";
	if (access("/sys/module/hv_sock", F_OK) == 0)
		return "hyperv";
	return access("/sys/module/vsock_loopback", F_OK) == 0 ? "loopback" : "none";
}

static void print_line(const struct trial *t)
{
	const char *family = options_family_word(t->ops->family);

	if (t->error == 0) {
		printf("%-10s %-14s available%s: %s; misses: %s%s\n", family, t->ops->via,
		       t->taken ? ", taken" : "", t->ops->uses, t->ops->misses,
		       t->ops->opt_in ? "; only when asked for" : "");
		return;
	}
	printf("%-10s %-14s not available: %s (%s); needs ", family, t->ops->via, t->why,
	       strerror(-t->error));
	print_needs(t, " ", "");
	printf("\n");
}

static void print_object(const struct trial *t, const char *before)
{
	printf("%s{\"family\":\"%s\",\"source\":\"%s\",\"available\":%s,\"taken\":%s,\"onlyWhenAsked\":%s,",
	       before, options_family_word(t->ops->family), t->ops->via,
	       t->error == 0 ? "true" : "false", t->taken ? "true" : "false",
	       t->ops->opt_in ? "true" : "false");
	printf("\"uses\":");
	print_json_text(t->ops->uses);
	printf(",\"misses\":");
	print_json_text(t->ops->misses);
	if (t->error < 0) {
		printf(",\"why\":");
		print_json_text(t->why);
		printf(",\"error\":");
		print_json_text(strerror(-t->error));
		printf(",\"needs\":[");
		print_needs(t, ",", "\"");
		printf("]");
	}
	printf("}");
}

static bool wanted(const struct options *o, const struct probe_ops *ops)
{
	const char *choice = o->source[ops->family];

	return strcmp(choice, SOURCE_AUTO) == 0 ? !ops->opt_in : strcmp(choice, ops->via) == 0;
}

static void print_vsock(bool json)
{
	const bool device = access("/dev/vsock", F_OK) == 0;
	const char *transport = vsock_transport();

	if (json)
		printf("],\"vsock\":{\"device\":%s,\"transport\":\"%s\",\"host\":\"not tried\"}",
		       device ? "true" : "false", transport);
	else
		printf("%-10s device: %s; transport: %s; whether a host listens is not tried\n",
		       "vsock", device ? "/dev/vsock" : "none", transport);
}

int probe_report(const struct options *o)
{
	const struct probe_ops *taken[_PROBE_FAMILY_MAX] = {NULL};
	const char *before = "{\"sources\":[";
	bool holds = true;

	for (const struct probe_ops *const *p = probe_table; *p; p++) {
		struct trial t = {.ops = *p};
		struct probe *probe = NULL;

		t.error = (*p)->open(&o->probes, &probe, t.why);
		if (t.error == 0)
			(*p)->close(probe);
		t.taken = t.error == 0 && !taken[(*p)->family] && wanted(o, *p);
		if (t.taken)
			taken[(*p)->family] = *p;
		if (o->json)
			print_object(&t, before);
		else
			print_line(&t);
		before = ",";
	}
	print_vsock(o->json);
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++) {
		if (families_satisfy(o->required[f], taken[f]))
			continue;
		holds = false;
		if (!o->json)
			printf("required:  %s=%s is not available\n",
			       options_family_word((enum probe_family)f), o->required[f]);
	}
	if (o->json)
		printf(",\"requirementsHold\":%s}\n", holds ? "true" : "false");
	return holds ? EXIT_SUCCESS : EXIT_NOT_READY;
}
