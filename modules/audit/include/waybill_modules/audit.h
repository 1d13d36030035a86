/*
 * waybill_modules/audit.h - an append-only record of every event of every stream, chained by
 * hashes.
 *
 * Changing, swapping, inserting or removing an entry breaks the chain. Whoever can write the file
 * can compute a whole new chain, or cut its end and the note of it: against that, keep what
 * `audit verify` prints elsewhere, and give it back as --anchor.
 */
#ifndef WAYBILL_MODULES_AUDIT_H
#define WAYBILL_MODULES_AUDIT_H

#include <waybill/module.h>

extern const struct module audit_module;

#endif /* WAYBILL_MODULES_AUDIT_H */
