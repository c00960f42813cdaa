/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/host_probe.h"

#include "common/util.h"

#define PART_END 16u /* bytes that close a part */

const struct host_probe_ops *const host_probe_table[] = {
	[PROBE_CGROUP] = &probe_cgroup,
	[PROBE_TAP_LINK] = &probe_tap_link,
	[PROBE_NFTABLES] = &probe_nftables,
	[PROBE_FC_METRICS] = &probe_fc_metrics,
};
_Static_assert(ARRAY_SIZE(host_probe_table) == _PROBE_KIND_MAX, "a row for each kind");

void probe_reading_done(struct probe_reading *reading)
{
	free(reading->inputs);
	free(reading->outputs);
	*reading = (struct probe_reading){0};
}

void probe_part_number(struct json_writer *w, size_t part, size_t parts)
{
	if (parts < 2)
		return;
	json_put_kv_uint(w, "part", part);
	json_put_kv_uint(w, "parts", parts);
}

bool probe_part_full(const struct json_writer *w)
{
	return w->overflow || w->len + PART_END > w->size;
}

static int append(struct probe_reading *reading, const struct json_writer *w)
{
	const size_t used = reading->n_parts ? reading->part_end[reading->n_parts - 1] : 0;
	char *outputs;
	size_t len;

	if (json_writer_done(w, &len) < 0)
		return -EFBIG;
	outputs = realloc(reading->outputs, used + len);
	if (!outputs)
		return -ENOMEM;
	memcpy(outputs + used, w->buf, len);
	reading->outputs = outputs;
	reading->part_end[reading->n_parts++] = used + len;
	return 0;
}

int probe_reading_put(struct probe_reading *reading,
		      enum probe_part (*put)(void *ctx, size_t part, size_t parts,
					     struct json_writer *w),
		      void (*rewind)(void *ctx), void *ctx)
{
	_cleanup_free_ char *scratch = malloc(PROBE_OUTPUT_MAX);
	enum probe_part state = PROBE_PART_MORE;
	struct json_writer w;
	size_t parts;

	if (!scratch)
		return -ENOMEM;
	/* Most readings have one part. */
	rewind(ctx);
	json_writer_init(&w, scratch, PROBE_OUTPUT_MAX);
	state = put(ctx, 1, 1, &w);
	if (state == PROBE_PART_LAST)
		return append(reading, &w);
	/*
	 * Count the parts while each has the largest possible part numbers, so that they still fit
	 * with the real ones.
	 */
	rewind(ctx);
	for (parts = 0; state == PROBE_PART_MORE; parts++) {
		if (parts == PROBE_PARTS_MAX)
			return -EFBIG;
		json_writer_init(&w, scratch, PROBE_OUTPUT_MAX);
		state = put(ctx, parts + 1, PROBE_PARTS_MAX, &w);
	}
	if (state == PROBE_PART_STUCK)
		return -EFBIG;
	rewind(ctx);
	for (size_t part = 1; part <= parts; part++) {
		int r;

		json_writer_init(&w, scratch, PROBE_OUTPUT_MAX);
		put(ctx, part, parts, &w);
		r = append(reading, &w);
		if (r < 0)
			return r;
	}
	return 0;
}
