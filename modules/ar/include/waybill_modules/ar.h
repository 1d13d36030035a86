/*
 * waybill_modules/ar.h - accounts receivable: opens an account for every user, issues invoices.
 */
#ifndef WAYBILL_MODULES_AR_H
#define WAYBILL_MODULES_AR_H

#include <waybill/module.h>

extern const struct module ar_module;

#endif /* WAYBILL_MODULES_AR_H */
