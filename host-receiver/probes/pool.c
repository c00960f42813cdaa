/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/pool.h"

#include <pthread.h>
#include <signal.h>

#include "common/util.h"

#define CHECK_MS   250u
#define CHECKS_MIN (POOL_GIVE_UP_MS / CHECK_MS)
#define JOIN_MS	   500u

struct job_list {
	struct pool_job *first, *last;
};

struct thread {
	pthread_t id;
	bool used, ended;
	const struct pool_job *job; /* NULL: none */
};

struct pool {
	uv_async_t async;
	uv_timer_t check; /* runs while a job does */
	unsigned open_handles;
	bool abandoned; /* threads that have not ended; one that hangs still uses this memory */

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t work;
	struct job_list waiting, running, finished;
	struct thread threads[POOL_THREADS_MAX];
	unsigned n_threads, n_idle, n_stuck;
	bool closing;
	const struct pool_job *waits; /* the first waiting job at the last check */
};

static void list_push(struct job_list *list, struct pool_job *job)
{
	job->next = NULL;
	job->previous = list->last;
	if (list->last)
		list->last->next = job;
	else
		list->first = job;
	list->last = job;
}

static void list_remove(struct job_list *list, struct pool_job *job)
{
	if (job->previous)
		job->previous->next = job->next;
	else
		list->first = job->next;
	if (job->next)
		job->next->previous = job->previous;
	else
		list->last = job->previous;
	job->next = job->previous = NULL;
}

static struct pool_job *list_shift(struct job_list *list)
{
	struct pool_job *job = list->first;

	if (job)
		list_remove(list, job);
	return job;
}

/* ---- the threads ---- */

/* Called with the lock held. The next job; NULL: the thread must end. */
static struct pool_job *next_job(struct pool *pool)
{
	while (!pool->closing && !pool->waiting.first) {
		/*
		 * There are more threads than needed: a hanging one has come back, or many jobs had
		 * waited.
		 */
		if (pool->n_threads - pool->n_stuck > POOL_THREADS)
			return NULL;
		pool->n_idle++;
		pthread_cond_wait(&pool->work, &pool->lock);
		pool->n_idle--;
	}
	return pool->closing ? NULL : list_shift(&pool->waiting);
}

/* Called with the lock held. */
static struct thread *own_thread(struct pool *pool)
{
	for (size_t i = 0; i < ARRAY_SIZE(pool->threads); i++)
		if (pool->threads[i].used && pthread_equal(pool->threads[i].id, pthread_self()))
			return &pool->threads[i];
	abort();
}

static void *work(void *arg)
{
	struct pool *pool = arg;
	struct thread *self;
	struct pool_job *job;

	/* start_thread() holds the lock until the id is in the table. */
	pthread_mutex_lock(&pool->lock);
	self = own_thread(pool);
	while ((job = next_job(pool))) {
		self->job = job;
		job->started_ns = monotonic_ns();
		job->checks = 0;
		list_push(&pool->running, job);
		pthread_mutex_unlock(&pool->lock);
		job->run(job);
		pthread_mutex_lock(&pool->lock);
		self->job = NULL;
		list_remove(&pool->running, job);
		pool->n_stuck -= job->given_up;
		list_push(&pool->finished, job);
		if (!pool->closing)
			uv_async_send(&pool->async);
	}
	pool->n_threads--;
	self->ended = true;
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Called with the lock held. The loop's thread takes the signals. */
static void start_thread(struct pool *pool)
{
	sigset_t all, before;

	for (size_t i = 0; i < ARRAY_SIZE(pool->threads); i++) {
		struct thread *thread = &pool->threads[i];

		if (thread->used && thread->ended)
			pthread_join(thread->id, NULL);
		else if (thread->used)
			continue;
		*thread = (struct thread){0};
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		thread->used = pthread_create(&thread->id, NULL, work, pool) == 0;
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		pool->n_threads += thread->used;
		return;
	}
}

/* Called with the lock held. */
static void provide_thread(struct pool *pool)
{
	if (pool->waiting.first && pool->n_idle == 0 &&
	    pool->n_threads - pool->n_stuck < POOL_THREADS)
		start_thread(pool);
}

/* Called with the lock held. A job has waited since the last check: start another thread. */
static void relieve(struct pool *pool)
{
	if (pool->waiting.first && pool->waiting.first == pool->waits)
		start_thread(pool);
	pool->waits = pool->waiting.first;
}

/* ---- the loop ---- */

static void on_finished(uv_async_t *async)
{
	struct pool *pool = async->data;
	struct job_list finished;
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	finished = pool->finished;
	pool->finished = (struct job_list){0};
	if (!pool->running.first && !pool->waiting.first)
		uv_timer_stop(&pool->check);
	pthread_mutex_unlock(&pool->lock);
	while ((job = list_shift(&finished)))
		job->done(job, job->given_up ? POOL_LATE : POOL_FINISHED);
}

/*
 * The time of a job counts only as far as there were checks in it: where this process stood still,
 * the job did too.
 */
static void count_check(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	for (struct pool_job *job = pool->running.first; job; job = job->next)
		job->checks++;
	pthread_mutex_unlock(&pool->lock);
}

/* The next job that has run too long, marked as given up; NULL: none. */
static struct pool_job *give_up(struct pool *pool)
{
	const uint64_t now_ns = monotonic_ns();
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	for (job = pool->running.first; job; job = job->next)
		if (!job->given_up && job->checks >= CHECKS_MIN &&
		    now_ns - job->started_ns >= POOL_GIVE_UP_MS * NSEC_PER_MSEC)
			break;
	if (job) {
		job->given_up = true;
		pool->n_stuck++;
		provide_thread(pool);
	}
	pthread_mutex_unlock(&pool->lock);
	return job;
}

/* A job that no thread will take; NULL: none. */
static struct pool_job *refuse(struct pool *pool)
{
	struct pool_job *job = NULL;

	pthread_mutex_lock(&pool->lock);
	if (pool->n_stuck == POOL_THREADS_MAX)
		job = list_shift(&pool->waiting);
	else
		relieve(pool);
	pthread_mutex_unlock(&pool->lock);
	return job;
}

static void on_check(uv_timer_t *timer)
{
	struct pool *pool = timer->data;
	struct pool_job *job;

	count_check(pool);
	while ((job = give_up(pool)))
		job->done(job, POOL_GAVE_UP);
	while ((job = refuse(pool)))
		job->done(job, POOL_REFUSED);
}

void pool_submit(struct pool *pool, struct pool_job *job)
{
	job->given_up = false;
	pthread_mutex_lock(&pool->lock);
	list_push(&pool->waiting, job);
	provide_thread(pool);
	pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	if (!uv_is_active((uv_handle_t *)&pool->check))
		uv_timer_start(&pool->check, on_check, CHECK_MS, CHECK_MS);
}

unsigned pool_hanging(const struct pool *pool)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&pool->lock;
	unsigned n;

	pthread_mutex_lock(lock);
	n = pool->n_stuck;
	pthread_mutex_unlock(lock);
	return n;
}

int pool_new(uv_loop_t *loop, struct pool **ret)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	if (uv_async_init(loop, &pool->async, on_finished) < 0) {
		free(pool);
		return -ENOMEM;
	}
	uv_timer_init(loop, &pool->check);
	pool->async.data = pool->check.data = pool;
	pool->open_handles = 2;
	/* These handles do not keep the loop alive. */
	uv_unref((uv_handle_t *)&pool->async);
	uv_unref((uv_handle_t *)&pool->check);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	*ret = pool;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct pool *pool = handle->data;

	if (--pool->open_handles > 0)
		return;
	if (pool->abandoned)
		return;
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* True if all threads have ended, except those that hang. */
static bool all_ended(struct pool *pool)
{
	bool ended = true;

	pthread_mutex_lock(&pool->lock);
	for (size_t i = 0; i < ARRAY_SIZE(pool->threads); i++) {
		const struct thread *thread = &pool->threads[i];

		if (thread->used && !thread->ended && !(thread->job && thread->job->given_up))
			ended = false;
	}
	pthread_mutex_unlock(&pool->lock);
	return ended;
}

/* A thread that has not ended by now is detached. */
static void join(struct pool *pool, const struct thread *thread)
{
	bool ended;

	pthread_mutex_lock(&pool->lock);
	ended = thread->ended;
	pool->abandoned |= !ended;
	pthread_mutex_unlock(&pool->lock);
	if (ended)
		pthread_join(thread->id, NULL);
	else
		pthread_detach(thread->id);
}

/* Jobs that no thread took, and results that were not reported yet. */
static void give_back(struct pool *pool)
{
	struct job_list waiting, finished;
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	waiting = pool->waiting;
	finished = pool->finished;
	pool->waiting = pool->finished = (struct job_list){0};
	pthread_mutex_unlock(&pool->lock);
	while ((job = list_shift(&waiting)))
		job->done(job, POOL_REFUSED);
	while ((job = list_shift(&finished)))
		job->done(job, job->given_up ? POOL_LATE : POOL_FINISHED);
}

void pool_free(struct pool *pool)
{
	uint64_t deadline_ns;

	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	deadline_ns = monotonic_ns() + JOIN_MS * NSEC_PER_MSEC;
	while (!all_ended(pool) && monotonic_ns() < deadline_ns)
		usleep(1000);
	for (size_t i = 0; i < ARRAY_SIZE(pool->threads); i++)
		if (pool->threads[i].used)
			join(pool, &pool->threads[i]);
	give_back(pool);
	uv_close((uv_handle_t *)&pool->async, on_closed);
	uv_close((uv_handle_t *)&pool->check, on_closed);
}
