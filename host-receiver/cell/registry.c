/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/registry.h"

#include <fcntl.h>

#include "common/utf8.h"

static void read_boot_id(char *out, size_t size)
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	out[MAX(n, 0)] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

int cell_registry_init(struct cell_registry *registry, uv_loop_t *loop, struct pipeline *pipeline,
		       unsigned checkpoint_ms)
{
	*registry = (struct cell_registry){
		.loop = loop,
		.pipeline = pipeline,
		.checkpoint_ms = checkpoint_ms,
		.rates = {.events = CELL_RATE_DEFAULT,
			  .bytes = CELL_RATE_BYTES_DEFAULT,
			  .connections = CELL_RATE_CONNECTIONS_DEFAULT},
		.read_buffer = malloc(CONNECTION_READ_SIZE),
	};
	spare_fd_open(&registry->spare);
	turns_init(&registry->turns, loop, pipeline, &cell_turns_ops);
	if (!registry->read_buffer || probe_scheduler_new(loop, &registry->probes) < 0)
		return -ENOMEM;
	if (gethostname(registry->hostname, sizeof(registry->hostname) - 1) < 0 ||
	    !utf8_valid(registry->hostname, strlen(registry->hostname)))
		registry->hostname[0] = '\0';
	read_boot_id(registry->boot_id, sizeof(registry->boot_id));
	return 0;
}

void cell_registry_close(struct cell_registry *registry)
{
	if (registry->loop)
		turns_close(&registry->turns);
	probe_scheduler_free(take_ptr(registry->probes));
}

void cell_registry_done(struct cell_registry *registry)
{
	/* Without a buffer cell_registry_init() was never called. */
	if (registry->read_buffer)
		close_fd(registry->spare.fd);
	free(registry->read_buffer);
}

void cell_registry_set_rates(struct cell_registry *registry, const struct ceiling_rates *rates)
{
	registry->rates = *rates;
	for (struct cell *cell = registry->cells; cell; cell = cell->next) {
		const struct ceiling_rates own = cell_rates(cell);

		ceilings_change(&cell->ceilings, &own, monotonic_ns());
		cell_update(cell);
	}
}

void cell_registry_full(struct cell_registry *registry)
{
	if (registry->paused)
		return;
	registry->paused = true;
	registry->stats.reads_paused++;
	for (struct cell *cell = registry->cells; cell; cell = cell->next)
		cell_update(cell);
}

void cell_registry_progress(struct cell_registry *registry)
{
	if (!registry->paused || pipeline_full(registry->pipeline))
		return;
	registry->paused = false;
	for (struct cell *cell = registry->cells; cell; cell = cell->next)
		cell_update(cell);
}
