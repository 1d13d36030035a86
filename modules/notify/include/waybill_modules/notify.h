/*
 * waybill_modules/notify.h - one notification for everything that was created or issued, anywhere.
 */
#ifndef WAYBILL_MODULES_NOTIFY_H
#define WAYBILL_MODULES_NOTIFY_H

#include <waybill/module.h>

extern const struct module notify_module;

#endif /* WAYBILL_MODULES_NOTIFY_H */
