/* ledger.h - the rows of ar and the events that tell of them. */
#ifndef AR_LEDGER_H
#define AR_LEDGER_H

#include <waybill/module.h>

#define AR_AMOUNT_MAX  INT64_C(1000000000000) /* cents in one invoice */
#define AR_USER_ID_MAX 64                     /* bytes */

/** 1 to AR_USER_ID_MAX of [A-Za-z0-9_-]. */
bool ar_user_id_valid(struct wb_str user_id);

/**
 * Inside the open transaction: open the user's account and tell of it. A user who has one keeps it,
 * and nothing is told.
 *
 * @param trace  traceparent of what caused it, or {NULL, 0}.
 */
wb_err ar_account_open(struct module_scope *scope, struct wb_str user_id, struct wb_str trace,
                       struct wb_why *why);

/* What a customer shall pay: input that was checked, and what becomes of it. */
struct ar_invoice {
    struct wb_str user_id;
    int64_t amount_cents; /* 1 to AR_AMOUNT_MAX */
    char currency[4];     /* ISO 4217: three capital letters */
    char id[WB_ID_TEXT];
    char issued_at[32];
    char event_id[WB_ID_TEXT];
};

/** Keep an invoice and its event, in one transaction of its own. WB_NOT_FOUND: no account. */
wb_err ar_invoice_issue(struct module_scope *scope, struct ar_invoice *invoice, struct wb_why *why);

/** Append the members of the invoice's JSON object, without braces. */
void ar_invoice_members(const struct ar_invoice *invoice, struct wb_buf *out);

/** Append the newest accounts, at most limit: one JSON object, or a line each for people. */
wb_err ar_account_list(struct db *db, int64_t limit, bool json, struct wb_buf *out,
                       struct wb_why *why);

#endif /* AR_LEDGER_H */
