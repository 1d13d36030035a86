/*
 * index.c - the index: a trie whose edges all lie in one hash table.
 *
 * A node is found by (parent, token), in one probe; tokens are numbers, their texts are kept once
 * and compared byte by byte when a subject is cut up, so that no hash collision can deliver
 * a message to the wrong place. A match goes down level by level and asks for the memory of all
 * probes of a level before it looks at the first: with a million patterns the time goes into
 * cache misses, and these overlap. Hashes are keyed with random numbers for each index, so nobody
 * can prepare tokens that collide.
 *
 * What a match visits are the patterns' beginnings that match the subject's beginning.
 */
#include <waybill/subject.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "subject_token.h"
#include "table.h"

#define TOKEN_UNKNOWN 0U /* in no pattern */
#define TOKEN_STAR    UINT32_MAX
#define TOKEN_REST    (UINT32_MAX - 1) /* '>' */

#define HAS_STAR (1U << 31) /* in subject_node.children */
#define HAS_REST (1U << 30)
#define LITERALS (HAS_REST - 1)

#define PROBES_MAX 32 /* lookups of one level that are under way together */

struct subject_index {
    uint64_t seed[2];
    size_t size;
    struct subject_node root; /* only its children are used */
    struct subject_table nodes;
    struct subject_table tokens;
};

/* ---- hashing --------------------------------------------------------------------------------- */

__extension__ typedef unsigned __int128 uint128;

/* Multiply and fold: every bit of both factors reaches every bit of the result. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    uint128 product = (uint128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t token_hash(const struct subject_index *index, struct wb_str token)
{
    uint64_t hash = index->seed[0] ^ token.len;
    const char *at = token.ptr;
    size_t left = token.len;
    uint64_t word = 0;

    for (; left >= sizeof(word); at += sizeof(word), left -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        hash = fold(hash ^ word, index->seed[1]);
    }
    word = 0;
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)(unsigned char)at[i] << (8 * i);
    return (uint32_t)fold(hash ^ word, index->seed[1]);
}

static uint32_t node_hash(const struct subject_index *index, uint32_t parent, uint32_t token)
{
    return (uint32_t)fold(index->seed[0] ^ ((uint64_t)parent << 32 | token), index->seed[1]);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static const char *token_text(const struct subject_token *token)
{
    return token->len <= sizeof(token->text.here) ? token->text.here : token->text.away;
}

static struct subject_slot *token_find(const struct subject_index *index, struct wb_str text,
                                       uint32_t hash)
{
    struct subject_slot *slot = subject_table_first(&index->tokens, hash);

    for (; slot->id != 0; slot = subject_table_next(&index->tokens, slot))
        if (slot->hash == hash && slot->u.token.len == text.len &&
            memcmp(token_text(&slot->u.token), text.ptr, text.len) == 0)
            return slot;
    return NULL;
}

/* The token's slot, new and without users if it was not there. NULL when out of memory. */
static struct subject_slot *token_intern(struct subject_index *index, struct wb_str text)
{
    uint32_t hash = token_hash(index, text);
    struct subject_slot *slot = token_find(index, text, hash);
    char *away = NULL;

    if (slot != NULL)
        return slot;
    if (text.len > sizeof(slot->u.token.text.here) && (away = wb_str_dup(text)) == NULL)
        return NULL;
    slot = subject_table_insert(&index->tokens, hash);
    if (slot == NULL) {
        free(away);
        return NULL;
    }
    slot->u.token.len = (uint32_t)text.len;
    if (away != NULL)
        slot->u.token.text.away = away;
    else
        memcpy(slot->u.token.text.here, text.ptr, text.len);
    return slot;
}

static void token_erase(struct subject_index *index, struct subject_slot *slot)
{
    if (slot->u.token.len > sizeof(slot->u.token.text.here))
        free(slot->u.token.text.away);
    subject_table_erase(&index->tokens, slot);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

/* How to find the nodes of one pattern again, although their slots move. */
struct path {
    size_t depth;
    struct step {
        uint32_t parent;
        uint32_t token;
        struct wb_str text;
    } steps[SUBJECT_TOKENS_MAX];
};

static struct subject_slot *node_find_hashed(const struct subject_index *index, uint32_t parent,
                                             uint32_t token, uint32_t hash)
{
    struct subject_slot *slot = subject_table_first(&index->nodes, hash);

    for (; slot->id != 0; slot = subject_table_next(&index->nodes, slot))
        if (slot->u.node.parent == parent && slot->u.node.token == token)
            return slot;
    return NULL;
}

static struct subject_slot *node_find(const struct subject_index *index, uint32_t parent,
                                      uint32_t token)
{
    return node_find_hashed(index, parent, token, node_hash(index, parent, token));
}

/* What one child counts in its parent. */
static uint32_t child_weight(uint32_t token)
{
    return token == TOKEN_STAR ? HAS_STAR : token == TOKEN_REST ? HAS_REST : 1;
}

static uint32_t wildcard_token(struct wb_str text)
{
    return subject_token_is(text, '*')   ? TOKEN_STAR
           : subject_token_is(text, '>') ? TOKEN_REST
                                         : TOKEN_UNKNOWN;
}

/* The node above the last step of the path. */
static struct subject_node *path_parent(struct subject_index *index, const struct path *path)
{
    assert(path->depth > 0);
    if (path->depth == 1)
        return &index->root;
    const struct step *above = &path->steps[path->depth - 2];
    return &node_find(index, above->parent, above->token)->u.node;
}

/* Erase the nodes at the end of the path that lead nowhere. */
static void path_prune(struct subject_index *index, struct path *path)
{
    for (; path->depth > 0; path->depth--) {
        const struct step *last = &path->steps[path->depth - 1];
        struct subject_slot *slot = node_find(index, last->parent, last->token);
        if (slot->u.node.value_count > 0 || slot->u.node.children > 0)
            return;
        subject_table_erase(&index->nodes, slot);
        path_parent(index, path)->children -= child_weight(last->token);
        if (wildcard_token(last->text) != TOKEN_UNKNOWN)
            continue;
        struct subject_slot *token = token_find(index, last->text, token_hash(index, last->text));
        if (--token->u.token.users == 0)
            token_erase(index, token);
    }
}

/* The child of the last node on the path that the text leads to, made if need be, and now last. */
static struct subject_slot *path_extend(struct subject_index *index, struct path *path,
                                        uint32_t parent, struct wb_str text)
{
    uint32_t token = wildcard_token(text);
    struct subject_slot *token_slot = NULL;

    if (token == TOKEN_UNKNOWN) {
        token_slot = token_intern(index, text);
        if (token_slot == NULL)
            return NULL;
        token = token_slot->id;
    }
    struct subject_slot *slot = node_find(index, parent, token);
    bool is_new = slot == NULL;
    if (is_new)
        slot = subject_table_insert(&index->nodes, node_hash(index, parent, token));
    if (slot == NULL) {
        if (token_slot != NULL && token_slot->u.token.users == 0)
            token_erase(index, token_slot);
        return NULL;
    }
    path->steps[path->depth++] = (struct step){parent, token, text};
    if (is_new) {
        slot->u.node.parent = parent;
        slot->u.node.token = token;
        path_parent(index, path)->children += child_weight(token);
        if (token_slot != NULL)
            token_slot->u.token.users++;
    }
    return slot;
}

/* Follow a pattern that may be there; NULL when it is not. */
static struct subject_slot *path_follow(struct subject_index *index, struct path *path,
                                        struct wb_str pattern)
{
    struct subject_slot *slot = NULL;
    struct wb_str text;

    while (subject_token_next(&pattern, &text)) {
        uint32_t parent = slot == NULL ? 0 : slot->id;
        uint32_t token = wildcard_token(text);
        if (token == TOKEN_UNKNOWN) {
            struct subject_slot *found = token_find(index, text, token_hash(index, text));
            token = found == NULL ? TOKEN_UNKNOWN : found->id;
        }
        slot = token == TOKEN_UNKNOWN ? NULL : node_find(index, parent, token);
        if (slot == NULL)
            return NULL;
        path->steps[path->depth++] = (struct step){parent, token, text};
    }
    return slot;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void **node_values(struct subject_node *node)
{
    return node->value_count == 1 ? &node->values.one : node->values.many;
}

static bool node_add_value(struct subject_node *node, void *value)
{
    size_t count = node->value_count;

    if (count == 0) {
        node->values.one = value;
    } else if (count == 1) {
        void **many = malloc(2 * sizeof(*many));
        if (many == NULL)
            return false;
        many[0] = node->values.one;
        many[1] = value;
        node->values.many = many;
    } else {
        if ((count & (count - 1)) == 0) { /* a power of two: full */
            void **many = realloc(node->values.many, 2 * count * sizeof(*many));
            if (many == NULL)
                return false;
            node->values.many = many;
        }
        node->values.many[count] = value;
    }
    node->value_count++;
    return true;
}

static bool node_remove_value(struct subject_node *node, const void *value)
{
    void **values = node_values(node);
    size_t at = 0;

    while (at < node->value_count && values[at] != value)
        at++;
    if (at == node->value_count)
        return false;
    size_t count = --node->value_count;
    if (count == 0)
        return true;
    values[at] = values[count];
    if (count == 1) {
        node->values.one = values[0];
        free(values);
    } else if ((count & (count - 1)) == 0) {
        void **less = realloc(values, count * sizeof(*values));
        node->values.many = less == NULL ? values : less;
    }
    return true;
}

/* ---- the public face ------------------------------------------------------------------------- */

wb_err subject_index_create(struct subject_index **ret_index)
{
    struct subject_index *index = calloc(1, sizeof(*index));

    if (index == NULL)
        return WB_NOMEM;
    wb_random_fill(index->seed, sizeof(index->seed));
    index->seed[1] |= 1; /* a factor of zero would fold everything to zero */
    if (!subject_table_init(&index->nodes) || !subject_table_init(&index->tokens)) {
        subject_index_destroy(index);
        return WB_NOMEM;
    }
    *ret_index = index;
    return WB_OK;
}

void subject_index_destroy(struct subject_index *index)
{
    if (index == NULL)
        return;
    for (size_t i = 0; index->nodes.slots != NULL && i <= index->nodes.mask; i++)
        if (index->nodes.slots[i].u.node.value_count > 1)
            free(index->nodes.slots[i].u.node.values.many);
    for (size_t i = 0; index->tokens.slots != NULL && i <= index->tokens.mask; i++)
        if (index->tokens.slots[i].u.token.len > sizeof(index->tokens.slots[i].u.token.text.here))
            free(index->tokens.slots[i].u.token.text.away);
    subject_table_free(&index->nodes);
    subject_table_free(&index->tokens);
    free(index);
}

wb_err subject_index_add(struct subject_index *index, struct wb_str pattern, void *value)
{
    assert(subject_pattern_check(pattern, NULL) == WB_OK);

    struct path path = {.depth = 0};
    struct subject_slot *slot = NULL;
    struct wb_str text;
    while (subject_token_next(&pattern, &text)) {
        slot = path_extend(index, &path, slot == NULL ? 0 : slot->id, text);
        if (slot == NULL)
            break;
    }
    if (slot == NULL || !node_add_value(&slot->u.node, value)) {
        path_prune(index, &path);
        return WB_NOMEM;
    }
    index->size++;
    return WB_OK;
}

wb_err subject_index_remove(struct subject_index *index, struct wb_str pattern, void *value)
{
    struct path path = {.depth = 0};
    struct subject_slot *slot = path_follow(index, &path, pattern);

    if (slot == NULL || !node_remove_value(&slot->u.node, value))
        return WB_NOT_FOUND;
    index->size--;
    path_prune(index, &path);
    return WB_OK;
}

size_t subject_index_size(const struct subject_index *index)
{
    return index->size;
}

/* ---- matching -------------------------------------------------------------------------------- */

struct match {
    const struct subject_index *index;
    uint32_t tokens[SUBJECT_TOKENS_MAX];
    size_t depth; /* tokens of the subject */
    subject_index_visit visit;
    void *ctx;
    size_t found;
};

/* A lookup whose memory has been asked for. */
struct probe {
    uint32_t parent;
    uint32_t token;
    uint32_t hash;
};

struct probes {
    size_t count;
    struct probe all[PROBES_MAX];
};

static void probe_add(const struct match *match, struct probes *probes, uint32_t parent,
                      uint32_t token)
{
    uint32_t hash = node_hash(match->index, parent, token);

    probes->all[probes->count++] = (struct probe){parent, token, hash};
    __builtin_prefetch(subject_table_first(&match->index->nodes, hash));
}

/* Ask for the children of a node that the subject's token can lead to: three at most. */
static void probe_children(const struct match *match, struct probes *probes, uint32_t parent,
                           uint32_t children, size_t level)
{
    uint32_t token = match->tokens[level];

    if ((children & HAS_REST) != 0)
        probe_add(match, probes, parent, TOKEN_REST);
    if ((children & HAS_STAR) != 0)
        probe_add(match, probes, parent, TOKEN_STAR);
    if ((children & LITERALS) != 0 && token != TOKEN_UNKNOWN)
        probe_add(match, probes, parent, token);
}

static void emit(struct match *match, struct subject_node *node)
{
    void **values = node_values(node);

    for (size_t i = 0; i < node->value_count; i++)
        match->visit(match->ctx, values[i]);
    match->found += node->value_count;
}

/* Look at the probes of one level, then at those of the next. At most SUBJECT_TOKENS_MAX deep. */
static void walk(struct match *match, const struct probes *probes, size_t level)
{
    struct probes below;

    below.count = 0;
    for (size_t i = 0; i < probes->count; i++) {
        struct probe probe = probes->all[i];
        struct subject_slot *slot =
            node_find_hashed(match->index, probe.parent, probe.token, probe.hash);
        if (slot == NULL)
            continue;
        if (probe.token == TOKEN_REST || level == match->depth)
            emit(match, &slot->u.node);
        else
            probe_children(match, &below, slot->id, slot->u.node.children, level);
        if (below.count + 3 > PROBES_MAX) {
            walk(match, &below, level + 1);
            below.count = 0;
        }
    }
    if (below.count > 0)
        walk(match, &below, level + 1);
}

/* Cut the subject up and look its tokens up, all of them under way together. */
static void match_tokens(struct match *match, struct wb_str subject)
{
    const struct subject_index *index = match->index;
    struct wb_str texts[SUBJECT_TOKENS_MAX];
    struct wb_str text;

    while (subject_token_next(&subject, &text)) {
        uint32_t hash = token_hash(index, text);
        __builtin_prefetch(subject_table_first(&index->tokens, hash));
        texts[match->depth] = text;
        match->tokens[match->depth++] = hash;
    }
    for (size_t i = 0; i < match->depth; i++) {
        const struct subject_slot *slot = token_find(index, texts[i], match->tokens[i]);
        match->tokens[i] = slot == NULL ? TOKEN_UNKNOWN : slot->id;
    }
}

size_t subject_index_match(const struct subject_index *index, struct wb_str subject,
                           subject_index_visit visit, void *ctx)
{
    struct match match; /* filled in field by field: its tokens are not worth zeroing */
    struct probes probes;
    uint32_t children = index->root.children;

    match.index = index;
    match.visit = visit;
    match.ctx = ctx;
    match.depth = 0;
    match.found = 0;
    probes.count = 0;
    if (subject.len > SUBJECT_MAX)
        return 0;
    if (subject_is_reserved(subject))
        children &= LITERALS; /* a leading wildcard never matches what belongs to the server */
    match_tokens(&match, subject);
    if (match.depth > 0)
        probe_children(&match, &probes, 0, children, 0);
    walk(&match, &probes, 1);
    return match.found;
}
