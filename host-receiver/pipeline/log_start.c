/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/log_start.h"

#include "common/util.h"

static const char *const reason_names[] = {
	[LOG_RESUMED] = "resumed",
	[LOG_NEW] = "new",
	[LOG_SHORTER_THAN_SIGNED] = "log_shorter_than_signed",
	[LOG_DAMAGED] = "damaged",
	[LOG_STATE_LOST] = "state_lost",
	[LOG_UNSYNCED] = "unsynced",
	[LOG_SIGNING_CHANGED] = "signing_changed",
	[LOG_PLANNED] = "planned",
};
_Static_assert(ARRAY_SIZE(reason_names) == _LOG_REASON_MAX, "a name for each reason");

const char *log_reason_name(enum log_reason reason)
{
	return reason_names[reason];
}

/* ---- the origin ---- */

static bool is_origin_byte(char c)
{
	return note_origin_valid(&c, 1);
}

bool log_origin_prefix_valid(const char *prefix)
{
	const size_t len = strlen(prefix);

	return len <= LOG_PREFIX_MAX && note_origin_valid(prefix, len);
}

void log_origin_prefix(const char *prefix, const char *hostname,
		       char ret[static LOG_PREFIX_MAX + 1])
{
	snprintf(ret, LOG_PREFIX_MAX + 1, "%s%s", *prefix ? "" : "cellos/",
		 *prefix ? prefix : hostname);
	for (char *c = ret; *c; c++)
		if (!is_origin_byte(*c))
			*c = '_';
}

static void begin(struct log_start *start, struct signer *signer, const char *prefix,
		  enum log_reason reason)
{
	struct uuid_source source = {0};
	char text[UUID_STRING_MAX];

	start->reason = reason;
	start->sequence = 0;
	*start->origin = '\0';
	uuid_generate(&source, start->uuid);
	uuid_format(start->uuid, text);
	if (!signer_tree(signer))
		return;
	snprintf(start->origin, sizeof(start->origin), "%.*s/%s", (int)LOG_PREFIX_MAX, prefix,
		 text);
	signer_set_origin(signer, start->origin);
}

int log_start_alone(struct signer *signer, const char *prefix, struct log_start *ret)
{
	*ret = (struct log_start){0};
	begin(ret, signer, prefix, LOG_NEW);
	return 0;
}

int log_start_follow(struct signer *signer, const char *prefix, const char *previous_origin,
		     uint64_t previous_size, struct log_start *ret)
{
	*ret = (struct log_start){.previous_size = previous_size};
	snprintf(ret->previous_origin, sizeof(ret->previous_origin), "%s", previous_origin);
	begin(ret, signer, prefix, LOG_SIGNING_CHANGED);
	return 0;
}

/* ---- the signer's memory ---- */

static int root_of(const struct tree_frontier *frontier, struct tree_hash *ret)
{
	struct tree_hasher *hasher = tree_hasher_new();
	int r = hasher ? tree_frontier_root(hasher, frontier, ret) : -ENOMEM;

	tree_hasher_free(hasher);
	return r;
}

static int point_of(const struct sign_point *p, struct recover_point *ret)
{
	memcpy(ret->origin, p->origin, sizeof(ret->origin));
	memcpy(ret->note, p->note, p->note_len + 1);
	ret->note_len = p->note_len;
	ret->frontier = p->frontier;
	ret->size = p->frontier.size;
	return root_of(&p->frontier, &ret->root);
}

int log_start_points(struct signer *signer, struct recover_point ret[static RECOVER_POINTS])
{
	struct sign_memory *memory;
	int r;

	memset(ret, 0, RECOVER_POINTS * sizeof(*ret));
	if (!signer_tree(signer))
		return 0;
	memory = malloc(sizeof(*memory));
	if (!memory)
		return -ENOMEM;
	r = sign_client_memory(signer_client(signer), memory);
	if (r == 0)
		r = point_of(&memory->last, &ret[RECOVER_LAST]);
	if (r == 0)
		r = point_of(&memory->before, &ret[RECOVER_BEFORE]);
	if (r == 0)
		r = point_of(&memory->synced, &ret[RECOVER_SYNCED]);
	free(memory);
	return r;
}

/* ---- the decision ---- */

struct decision {
	const struct recovered *found;
	struct signer *signer;
	const char *prefix;
	enum evidence_sync sync;
	const struct recover_point *last, *before, *synced;
	struct sign_memory memory;
	struct log_start *ret;
	char *why; /* EVIDENCE_WHY_MAX */
};

/* The log has a segment and no entry: its own stream begins now. */
static void begin_stream(struct decision *d)
{
	const char *origin = d->found->origin;

	recover_uuid(origin, d->ret->uuid);
	if (strcmp(d->before->origin, origin) == 0)
		return;
	memcpy(d->ret->previous_origin, d->before->origin, sizeof(d->ret->previous_origin));
	d->ret->previous_size = d->before->size;
}

static int resume(struct decision *d)
{
	const struct recovered *found = d->found;
	struct log_start *ret = d->ret;

	ret->reason = LOG_RESUMED;
	memcpy(ret->origin, found->origin, sizeof(ret->origin));
	if (found->own)
		memcpy(ret->uuid, found->uuid, UUID_SIZE);
	else
		begin_stream(d);
	ret->sequence = found->own_sequence;
	ret->unclean = !found->own_closed || found->cut_bytes > 0;
	ret->cut_bytes = found->cut_bytes;
	ret->cut_lines = found->cut_lines;
	ret->size = found->frontier.size;
	signer_set_origin(d->signer, ret->origin);
	return 0;
}

static int begin_new(struct decision *d, enum log_reason reason)
{
	struct log_start *ret = d->ret;
	const bool known = d->last->size > 0;

	begin(ret, d->signer, d->prefix, reason);
	ret->alarm = reason == LOG_SHORTER_THAN_SIGNED || reason == LOG_DAMAGED ||
		     reason == LOG_STATE_LOST;
	ret->why = reason == LOG_DAMAGED ? d->found->why : NULL;
	memcpy(ret->previous_origin, known ? d->last->origin : d->found->origin,
	       sizeof(ret->previous_origin));
	ret->previous_size = known ? d->last->size : d->found->frontier.size;
	return 0;
}

/* The log's newest note, signed by the newest key or by the current one. */
static bool note_is_ours(const struct decision *d)
{
	const uint8_t *const keys[] = {d->memory.public_key, signer_public_key(d->signer)};
	struct tree_hasher *hasher = tree_hasher_new();
	uint8_t id[NOTE_KEY_ID_SIZE];
	struct note note;
	const char *why;
	bool ok = false;

	if (hasher && note_parse(d->found->note, d->found->note_len, &note, &why) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(keys) && !ok; i++)
			ok = note_key_id(hasher, note.checkpoint.origin, keys[i], id) == 0 &&
			     note_check(&note, id, keys[i]) == NOTE_SIGNED;
	tree_hasher_free(hasher);
	return ok;
}

/*
 * The log has a newer signature than the signer's state, because the state was not synced in time.
 */
static int extend(struct decision *d)
{
	const struct recovered *found = d->found;
	int r;

	if (!note_is_ours(d))
		return begin_new(d, LOG_STATE_LOST);
	r = sign_client_extend(signer_client(d->signer), found->leaves, found->n_leaves,
			       found->note, found->note_len);
	if (r == -ESTALE)
		return begin_new(d, LOG_STATE_LOST);
	return r < 0 ? r : resume(d);
}

/*
 * The last signature was never written to the log, so no event that it covered was acknowledged. Or
 * the power was cut, and lines that were written and not synced are lost.
 */
static int abandon(struct decision *d, uint64_t size)
{
	int r = sign_client_retreat(signer_client(d->signer), d->found->origin, size);

	if (r < 0)
		return r;
	d->ret->abandoned = true;
	d->ret->abandoned_size = d->last->size;
	d->ret->abandoned_root = d->last->root;
	return d->found->frontier.size > size ? extend(d) : resume(d);
}

static int decide_with_tree(struct decision *d)
{
	const struct recovered *found = d->found;
	const struct recover_point *last = d->last, *before = d->before;

	if (d->memory.lost || !*last->origin)
		return begin_new(d, found->any || d->memory.lost ? LOG_STATE_LOST : LOG_NEW);
	/* A match after the newest checkpoint is a group whose checkpoint line is torn. */
	if (found->any && found->own && last->matches && found->frontier.size >= last->size)
		return found->frontier.size == last->size ? resume(d) : extend(d);
	if (found->any && strcmp(found->origin, last->origin) == 0 && found->frontier.size == 0 &&
	    (strcmp(before->origin, last->origin) != 0 || before->size == 0))
		return abandon(d, 0);
	if (found->any && (found->own || found->frontier.size == 0) &&
	    found->frontier.size < last->size) {
		if (before->matches && found->frontier.size == before->size)
			return abandon(d, before->size);
		if (d->synced->matches && found->frontier.size >= d->synced->size)
			return abandon(d, d->synced->size);
	}
	if (!found->any && last->size == 0)
		return begin_new(d, LOG_NEW);
	return begin_new(d, d->sync == EVIDENCE_SYNC_OFF ? LOG_UNSYNCED : LOG_SHORTER_THAN_SIGNED);
}

static int decide(struct decision *d, bool planned)
{
	const bool tree = signer_tree(d->signer) != NULL;
	const struct recovered *found = d->found;

	if (planned)
		return begin_new(d, LOG_PLANNED);
	if (found->damaged)
		return begin_new(d, LOG_DAMAGED);
	if (found->any && tree != found->tree)
		return begin_new(d, LOG_SIGNING_CHANGED);
	if (tree)
		return decide_with_tree(d);
	return found->any && found->own ? resume(d) : begin_new(d, LOG_NEW);
}

static void note_key_change(struct decision *d)
{
	struct log_start *ret = d->ret;

	snprintf(ret->kid, sizeof(ret->kid), "%s", signer_kid(d->signer));
	memcpy(ret->public_key, signer_public_key(d->signer), sizeof(ret->public_key));
	snprintf(ret->retired_kid, sizeof(ret->retired_kid), "%s", d->memory.kid);
	memcpy(ret->retired_key, d->memory.public_key, sizeof(ret->retired_key));
}

/* A kid names one key for ever. */
static int check_key(struct decision *d)
{
	int r;

	if (!signer_tree(d->signer))
		return 0;
	r = sign_client_memory(signer_client(d->signer), &d->memory);
	if (r < 0) {
		snprintf(d->why, EVIDENCE_WHY_MAX, "the signer does not answer: %s", strerror(-r));
		return r;
	}
	d->ret->key_changed = *d->memory.kid && strcmp(d->memory.kid, signer_kid(d->signer)) != 0;
	if (d->ret->key_changed)
		note_key_change(d);
	if (!*d->memory.kid || d->ret->key_changed ||
	    memcmp(d->memory.public_key, signer_public_key(d->signer), 32) == 0)
		return 0;
	snprintf(d->why, EVIDENCE_WHY_MAX,
		 "kid %.128s had another key until now: give the new key a kid of its own",
		 d->memory.kid);
	return -EKEYREJECTED;
}

int log_start_decide(struct evidence_log *log, struct signer *signer, const char *prefix,
		     enum evidence_sync sync,
		     const struct recover_point points[static RECOVER_POINTS], bool planned,
		     struct log_start *ret, char why[EVIDENCE_WHY_MAX])
{
	struct decision *d = calloc(1, sizeof(*d));
	int r;

	snprintf(why, EVIDENCE_WHY_MAX, "no memory");
	if (!d)
		return -ENOMEM;
	*ret = (struct log_start){0};
	*d = (struct decision){
		.found = evidence_log_found(log),
		.signer = signer,
		.prefix = prefix,
		.sync = sync,
		.last = &points[RECOVER_LAST],
		.before = &points[RECOVER_BEFORE],
		.synced = &points[RECOVER_SYNCED],
		.ret = ret,
		.why = why,
	};
	r = check_key(d);
	if (r == 0) {
		r = decide(d, planned);
		if (r < 0)
			snprintf(why, EVIDENCE_WHY_MAX, "the signer's state: %s", strerror(-r));
	}
	free(d);
	if (r < 0)
		return r;
	if (ret->reason == LOG_RESUMED)
		return evidence_log_continue(log, why);
	evidence_log_begin(log);
	return 0;
}
