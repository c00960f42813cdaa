/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/crew.h"

#include <pthread.h>
#include <sched.h>

#include "common/util.h"

#define BATCH_TEXT  (128u * 1024u)
#define BATCH_LINES 512u

_Static_assert(BATCH_TEXT > FACTS_LINE_MAX, "a batch holds any line");

struct batch {
	const struct source *source;
	bool begins; /* the first batch of a source */
	uint64_t first_line;
	unsigned n;
	size_t used;
	bool done; /* under the crew's lock */
	int error;
	struct batch_line {
		uint32_t offset, len;
		bool too_long, cut;
	} lines[BATCH_LINES];
	struct line_facts facts[BATCH_LINES];
	char text[BATCH_TEXT];
	char arena[BATCH_TEXT + FACTS_ARENA_SPARE];
};

struct crew {
	const struct crew_options *options;
	struct verifier *verifier;
	struct batch **batches; /* a ring */
	size_t n_batches;
	/*
	 * How many batches were filled, taken by a thread, and judged. Only the caller writes
	 * filled and judged.
	 */
	uint64_t filled, taken, judged;
	uint64_t bytes;
	pthread_mutex_t lock; /* protects filled, taken, batch->done and stop */
	pthread_cond_t work, ready;
	bool stop;
	pthread_t threads[CREW_THREADS_MAX];
	unsigned n_threads;
	struct facts_reader *own; /* used if there are no threads */
};

static void find_facts(struct facts_reader *reader, struct batch *batch)
{
	struct facts_arena arena = {.data = batch->arena, .size = sizeof(batch->arena)};

	batch->error = 0;
	for (unsigned i = 0; i < batch->n && batch->error == 0; i++) {
		const struct batch_line *line = &batch->lines[i];

		if (!line->too_long)
			batch->error = facts_read(reader, batch->text + line->offset, line->len,
						  &arena, &batch->facts[i]);
	}
}

/* ---- the threads ---- */

struct thread_start {
	struct crew *crew;
	struct facts_reader *reader;
};

static void *thread_main(void *data)
{
	struct thread_start start = *(struct thread_start *)data;
	struct crew *crew = start.crew;

	free(data);
	pthread_mutex_lock(&crew->lock);
	for (;;) {
		struct batch *batch;

		while (crew->taken == crew->filled && !crew->stop)
			pthread_cond_wait(&crew->work, &crew->lock);
		if (crew->stop)
			break;
		batch = crew->batches[crew->taken++ % crew->n_batches];
		pthread_mutex_unlock(&crew->lock);
		find_facts(start.reader, batch);
		pthread_mutex_lock(&crew->lock);
		batch->done = true;
		pthread_cond_signal(&crew->ready);
	}
	pthread_mutex_unlock(&crew->lock);
	facts_reader_free(start.reader);
	return NULL;
}

static int start_thread(struct crew *crew)
{
	struct thread_start *start = malloc(sizeof(*start));
	struct facts_reader *reader = start ? facts_reader_new(crew->options->ring) : NULL;
	int r = reader ? 0 : -ENOMEM;

	if (r == 0) {
		*start = (struct thread_start){.crew = crew, .reader = reader};
		r = -pthread_create(&crew->threads[crew->n_threads], NULL, thread_main, start);
	}
	if (r < 0) {
		facts_reader_free(reader);
		free(start);
		return r;
	}
	crew->n_threads++;
	return 0;
}

static unsigned processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static void crew_free(struct crew *crew)
{
	pthread_mutex_lock(&crew->lock);
	crew->stop = true;
	pthread_cond_broadcast(&crew->work);
	pthread_mutex_unlock(&crew->lock);
	for (unsigned i = 0; i < crew->n_threads; i++)
		pthread_join(crew->threads[i], NULL);
	for (size_t i = 0; crew->batches && i < crew->n_batches; i++)
		free(crew->batches[i]);
	free(crew->batches);
	facts_reader_free(crew->own);
	pthread_cond_destroy(&crew->ready);
	pthread_cond_destroy(&crew->work);
	pthread_mutex_destroy(&crew->lock);
}

/* Fewer threads than requested are enough. Without any thread the caller does the work. */
static int crew_start(struct crew *crew)
{
	const unsigned wanted = MIN(crew->options->threads ? crew->options->threads : processors(),
				    CREW_THREADS_MAX);

	crew->n_batches = wanted * 2 + 1;
	crew->batches = calloc(crew->n_batches, sizeof(*crew->batches));
	for (size_t i = 0; crew->batches && i < crew->n_batches; i++) {
		crew->batches[i] = malloc(sizeof(struct batch));
		if (!crew->batches[i])
			return -ENOMEM;
	}
	if (!crew->batches)
		return -ENOMEM;
	for (unsigned i = 0; i < wanted; i++)
		if (start_thread(crew) < 0)
			break;
	if (crew->n_threads > 0)
		return 0;
	crew->own = facts_reader_new(crew->options->ring);
	return crew->own ? 0 : -ENOMEM;
}

/* ---- the caller's thread ---- */

static int judge_batch(struct crew *crew, struct batch *batch)
{
	int r = batch->error;

	if (r < 0)
		return r;
	if (batch->begins)
		verifier_begin_input(crew->verifier, strcmp(batch->source->path, "-") == 0);
	for (unsigned i = 0; i < batch->n && r == 0; i++) {
		const struct batch_line *line = &batch->lines[i];
		const struct verifier_line judged = {
			.at = {.file = batch->source->path, .line = batch->first_line + i},
			.bytes = line->len,
			.too_long = line->too_long,
			.cut = line->cut,
			.facts = &batch->facts[i],
		};

		r = verifier_line(crew->verifier, &judged);
	}
	if (r == 0 && crew->options->progress)
		crew->options->progress(crew->options->data, crew->bytes);
	return r;
}

/* Judge the oldest batch that is not judged yet. */
static int judge_oldest(struct crew *crew)
{
	struct batch *batch = crew->batches[crew->judged % crew->n_batches];

	if (crew->n_threads == 0) {
		find_facts(crew->own, batch);
	} else {
		pthread_mutex_lock(&crew->lock);
		while (!batch->done)
			pthread_cond_wait(&crew->ready, &crew->lock);
		pthread_mutex_unlock(&crew->lock);
	}
	crew->judged++;
	return judge_batch(crew, batch);
}

/* Take an empty batch. */
static int take_batch(struct crew *crew, const struct source *source, uint64_t line, bool begins,
		      struct batch **ret)
{
	struct batch *batch;

	if (crew->filled - crew->judged == crew->n_batches) {
		int r = judge_oldest(crew);

		if (r < 0)
			return r;
	}
	batch = crew->batches[crew->filled % crew->n_batches];
	batch->source = source;
	batch->begins = begins;
	batch->first_line = line;
	batch->n = 0;
	batch->used = 0;
	batch->done = false;
	*ret = batch;
	return 0;
}

static void give_batch(struct crew *crew)
{
	pthread_mutex_lock(&crew->lock);
	crew->filled++;
	pthread_cond_signal(&crew->work);
	pthread_mutex_unlock(&crew->lock);
}

static void add_line(struct batch *batch, const struct input_line *line)
{
	batch->lines[batch->n++] = (struct batch_line){.offset = (uint32_t)batch->used,
						       .len = (uint32_t)line->len,
						       .too_long = line->too_long,
						       .cut = line->cut};
	memcpy(batch->text + batch->used, line->data, line->len);
	batch->used += line->len;
}

static int read_lines(struct crew *crew, const struct source *source, struct input *input,
		      char reason[INPUT_WHY_MAX])
{
	const uint64_t before = crew->bytes;
	struct batch *batch;
	uint64_t number = 1;
	int r = take_batch(crew, source, number, true, &batch);

	while (r == 0) {
		struct input_line line;

		r = input_next(input, &line, reason);
		if (r <= 0)
			break;
		r = 0;
		if (batch->n == BATCH_LINES || batch->used + line.len > BATCH_TEXT) {
			give_batch(crew);
			crew->bytes = before + input_read_bytes(input);
			r = take_batch(crew, source, number, false, &batch);
			if (r < 0)
				break;
		}
		add_line(batch, &line);
		number++;
	}
	if (r == 0)
		give_batch(crew);
	crew->bytes = before + input_read_bytes(input);
	return r;
}

static int read_source(struct crew *crew, const struct source *source, char *why)
{
	char reason[INPUT_WHY_MAX] = "";
	struct input *input = NULL;
	int r = input_open(source->path, &input, reason);

	if (r == 0)
		r = read_lines(crew, source, input, reason);
	else if (r == -ENOENT && source->listed)
		r = -ESTALE;
	input_close(input);
	if (r < 0)
		snprintf(why, SOURCES_WHY_MAX, "%s: %s", source->path,
			 *reason ? reason : strerror(-r));
	return r;
}

int crew_judge(const struct crew_options *options, const struct sources *sources,
	       struct verifier *verifier, char why[SOURCES_WHY_MAX])
{
	struct crew crew = {.options = options,
			    .verifier = verifier,
			    .lock = PTHREAD_MUTEX_INITIALIZER,
			    .work = PTHREAD_COND_INITIALIZER,
			    .ready = PTHREAD_COND_INITIALIZER};
	int r = crew_start(&crew);

	snprintf(why, SOURCES_WHY_MAX, "no memory");
	for (size_t i = 0; i < sources->n && r == 0; i++)
		r = read_source(&crew, &sources->list[i], why);
	while (r == 0 && crew.judged < crew.filled) {
		r = judge_oldest(&crew);
		if (r < 0)
			snprintf(why, SOURCES_WHY_MAX, "%s", strerror(-r));
	}
	crew_free(&crew);
	return r;
}
