/*
 * waybill/dead_letter.h - the events of a database file that need a person, of both kinds.
 *
 *   publisher's  rows of the outbox that the bus refused for good or too often ("parked"), and
 *                those that wait behind one of their key ("blocked"). Ids: p17, by the row.
 *   consumers'   events whose handler failed too often (table dead_letter of the inbox): "parked",
 *                and "retry" while the consumer has not yet handled them anew. Ids: c4.
 *
 * What changes letters is done in IMMEDIATE transactions of at most 250 letters each, oldest
 * letters first, and writes the operator log in the same transaction. A letter that somebody else
 * has changed meanwhile is left alone and counted. Interrupted, a change is done in part; the same
 * call does the rest.
 *
 * Bounds    A table that is full takes no more, and the flow in front of it stops (see
 * inbox_park()); no letter is ever dropped to make room. Threads   As the connection: one at a
 * time. Errors    As db.h. WB_NOT_FOUND: the file has neither outbox nor inbox, or no such letter.
 *           WB_UNSUPPORTED: its tables are of another version.
 */
#ifndef WAYBILL_DEAD_LETTER_H
#define WAYBILL_DEAD_LETTER_H

#include <waybill/base.h>
#include <waybill/filter.h>
#include <waybill/message.h>

#ifdef __cplusplus
extern "C" {
#endif

struct db;

typedef enum dead_letter_kind { DEAD_LETTER_PUBLISHER, DEAD_LETTER_CONSUMER } dead_letter_kind;

#define DEAD_LETTER_ID_TEXT 24 /* bytes of "p9223372036854775807" and a NUL, with some to spare */

/** 'p' or 'c' and the number. */
void dead_letter_id_format(dead_letter_kind kind, int64_t number, char out[DEAD_LETTER_ID_TEXT]);

/** WB_INVALID. */
wb_err dead_letter_id_parse(struct wb_str text, dead_letter_kind *ret_kind, int64_t *ret_number,
                            struct wb_why *why);

/* One letter. Views are valid during the call that hands it out. */
struct dead_letter {
    dead_letter_kind kind;
    int64_t number;
    struct wb_str state;    /* "parked", "blocked", "retry" */
    struct wb_str consumer; /* empty for a publisher's */
    struct wb_str stream, subject;
    struct wb_str key;     /* a consumer's as it stands in waybill-key */
    struct wb_str headers; /* lines 'Name: value', see message.h; may be malformed */
    struct wb_str msg_id;
    struct wb_str source; /* 16 hex digits: the outbox that wrote it; empty: foreign */
    int64_t row_id;       /* in that outbox; 0: foreign */
    uint64_t sequence;    /* in the stream; 0 for a publisher's */
    uint32_t failures;
    int64_t created_wall_ns; /* when the row was written, or the stream took the message */
    int64_t at_wall_ns;      /* a consumer's: when it was parked; a publisher's: as created */
    int64_t next_wall_ns;    /* when it is tried again; 0: not by itself, or at once */
    struct wb_str reason;
    char fingerprint[WB_FINGERPRINT_TEXT]; /* the same for reasons of a kind */
    bool edited;                           /* subject, headers, payload are a person's */
    int64_t behind;                        /* only dead_letter_show(): the row a blocked one waits
                                              for; 0: none */
    size_t size;                           /* of the payload, in bytes */
    struct wb_bytes payload;               /* empty unless the query asks for it */
    bool redacted;                         /* something in it is hidden */
};

/* What a filter may ask of a letter: id (the number), kind, state, consumer, stream, subject, key,
 * msg_id, source, row, reason, fingerprint, failures, at, age, size, headers, payload. */
extern const struct filter_field dead_letter_fields[];
extern const size_t dead_letter_field_count;

/* ---- what is not to be seen ------------------------------------------------------------------ */

/*
 * Names of fields that are shown as "***": "password card.number". A name is looked for at any
 * depth of a JSON payload, without regard to case; card.number is a number inside a card, or inside
 * the elements of a list of cards. Headers of such a name are hidden too. A payload that is no JSON
 * and mentions the last part of a name is hidden whole, for what is hidden must not depend on
 * how broken a payload is.
 */
struct dead_letter_redaction;

#define DEAD_LETTER_REDACT_NAMES 32 /* names in one list */
#define DEAD_LETTER_REDACT_PARTS 8  /* parts of one name */

/**
 * @param names  separated by blanks or commas; copied.
 * @param db     borrowed until the end: SQLite's JSON functions do the reading.
 * @return WB_INVALID (more or longer names than that, empty parts), WB_NOMEM.
 */
wb_err dead_letter_redaction_create(struct db *db, struct wb_str names,
                                    struct dead_letter_redaction **ret_redaction,
                                    struct wb_why *why);
/** NULL does nothing. Before the connection is closed. */
void dead_letter_redaction_destroy(struct dead_letter_redaction *redaction);

/**
 * Append the payload with hidden fields. *ret_hidden tells whether something was hidden. A
 * redaction of NULL hides nothing.
 */
wb_err dead_letter_redact_payload(struct dead_letter_redaction *redaction, struct wb_bytes payload,
                                  struct wb_buf *out, bool *ret_hidden, struct wb_why *why);

/** Append header lines with hidden values. */
void dead_letter_redact_headers(const struct dead_letter_redaction *redaction,
                                struct wb_str headers, struct wb_buf *out, bool *ret_hidden);

/* ---- reading --------------------------------------------------------------------------------- */

/* Which letters. All zeros: the first 100 of all. */
struct dead_letter_query {
    struct wb_str id;            /* only this one; empty: all */
    bool whole_key;              /* with id: and all of its kind, consumer and key */
    struct wb_str consumer;      /* only this consumer's */
    bool only_publisher;         /* only the publisher's */
    const struct filter *filter; /* of dead_letter_fields; NULL: all */
    struct wb_str after;         /* only letters that follow this id in the order of the list */
    size_t limit;                /* 0: 100 */
    bool payload;                /* hand out payloads */
    struct dead_letter_redaction *redaction; /* NULL: everything is shown */
    int64_t now_wall_ns;                     /* what ages are counted from */
};

/** Return false to stop. */
typedef bool (*dead_letter_visit)(void *ctx, const struct dead_letter *letter);

/** The publisher's letters, then the consumers', each by rising number. WB_INVALID for a bad id. */
wb_err dead_letter_list(struct db *db, const struct dead_letter_query *query,
                        dead_letter_visit visit, void *ctx, struct wb_why *why);

/** One letter, with payload and what it waits for. WB_NOT_FOUND, WB_INVALID. */
wb_err dead_letter_show(struct db *db, struct wb_str id, struct dead_letter_redaction *redaction,
                        dead_letter_visit visit, void *ctx, struct wb_why *why);

/* Letters whose reasons are of a kind. */
struct dead_letter_group {
    char fingerprint[WB_FINGERPRINT_TEXT];
    uint64_t count;
    uint64_t blocked; /* of them, those that only wait for another one */
    int64_t oldest_wall_ns, newest_wall_ns;
    char example[DEAD_LETTER_ID_TEXT]; /* the oldest letter, and what it says */
    struct wb_str subject, reason;
};

#define DEAD_LETTER_GROUPS_MAX 10000 /* further ones are not made; WB_FULL says so */

typedef bool (*dead_letter_group_visit)(void *ctx, const struct dead_letter_group *group);

/** The largest group first. query->limit bounds the groups, not the letters looked at. */
wb_err dead_letter_groups(struct db *db, const struct dead_letter_query *query,
                          dead_letter_group_visit visit, void *ctx, struct wb_why *why);

/* ---- choosing and changing ------------------------------------------------------------------- */

#define DEAD_LETTER_SELECTION_MAX 1000000 /* letters */

struct dead_letter_ref {
    dead_letter_kind kind;
    int64_t number;
};

/* The letters a query meant at one moment. Begin with zeros. */
struct dead_letter_selection {
    struct dead_letter_ref *refs;
    size_t count;
    size_t capacity;
};

/**
 * Choose the letters a change may be made to: "blocked" ones are left out, unless named by id:
 * WB_CONFLICT then says which one they wait for. query->limit 0: DEAD_LETTER_SELECTION_MAX.
 * Free with dead_letter_selection_free(). WB_NOT_FOUND for an id that is not there.
 */
wb_err dead_letter_select(struct db *db, const struct dead_letter_query *query,
                          struct dead_letter_selection *ret_selection, struct wb_why *why);
/** Empty it; it can be used again. */
void dead_letter_selection_free(struct dead_letter_selection *selection);

/* Who does it and why, for the operator log. */
struct dead_letter_act {
    struct wb_str command; /* "dlq retry" */
    struct wb_str what;    /* how the letters were chosen: the filter, or "" */
    struct wb_str reason;  /* the operator's words */
    const struct wb_clock *clock;
};

struct dead_letter_result {
    size_t changed;
    size_t left; /* somebody else has changed them meanwhile */
};

/**
 * Try the letters again, oldest first, attempts counted anew. The publisher sends a row as soon as
 * no older row of its key is in the way; the consumer handles its letters in their order.
 */
wb_err dead_letter_retry(struct db *db, const struct dead_letter_selection *selection,
                         const struct dead_letter_act *act, struct dead_letter_result *ret_result,
                         struct wb_why *why);

/**
 * Give the letters up. act->reason must not be empty: WB_INVALID. A publisher's row that is parked
 * becomes 'cancelled' and stays in the outbox; a consumer's letter, parked or in retry, is deleted.
 * Rows that were blocked by it go on.
 */
wb_err dead_letter_discard(struct db *db, const struct dead_letter_selection *selection,
                           const struct dead_letter_act *act, struct dead_letter_result *ret_result,
                           struct wb_why *why);

/* What to change in a letter; NULL and 0 leave things as they are. */
struct dead_letter_edit {
    const struct wb_str *subject;
    const struct wb_bytes *payload;
    const struct message_header *set; /* take the place of all headers of their name */
    size_t set_count;
    const struct wb_str *remove; /* names */
    size_t remove_count;
    struct dead_letter_redaction *redaction; /* hides fields in what the log keeps */
};

/**
 * Mend one parked letter and try it again, in one transaction. The event keeps its identity, key
 * and place; the operator log keeps what it was, up to OPERATOR_LOG_DETAIL_MAX.
 * @return WB_CONFLICT (it is not parked), WB_INVALID (subject, headers; a hidden "***" that would
 *         become the value), WB_TOO_BIG, WB_NOT_FOUND.
 */
wb_err dead_letter_edit(struct db *db, struct wb_str id, const struct dead_letter_edit *edit,
                        const struct dead_letter_act *act, struct wb_why *why);

/* ---- taking letters in ----------------------------------------------------------------------- */

struct dead_letter_import_result {
    size_t taken;
    size_t known; /* they were here already, or had been taken in before */
};

/**
 * Take letters in, parked, in one transaction: those of another file, or those of this one that
 * were discarded. An event is known by its identity (source and row, else msg_id), so that doing it
 * twice is doing it once. A consumer's letter counts as handled from then on, as if it had been
 * parked here. A publisher's gets a new row, with its old msg_id, unless the row is of this file.
 *
 * @param letters  at most 250, with payloads, none of them redacted; the tables are made if absent.
 * @return WB_INVALID (a redacted letter, names that are none), WB_FULL; nothing was taken then.
 */
wb_err dead_letter_import(struct db *db, const struct dead_letter *letters, size_t count,
                          const struct dead_letter_act *act,
                          struct dead_letter_import_result *ret_result, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_DEAD_LETTER_H */
