/*
 * waybill_modules/webhooks.h - takes signed deliveries from GitHub and passes them on as events,
 * byte for byte, each delivery once.
 *
 * POST /webhooks/github with the headers GitHub sends. The subject is webhooks.github.<event>, or
 * webhooks.github.<event>.<action> when the body has a string "action" of 1 to 64 [A-Za-z0-9_-].
 * The signature covers the body only: the delivery id is believed because the sender is.
 */
#ifndef WAYBILL_MODULES_WEBHOOKS_H
#define WAYBILL_MODULES_WEBHOOKS_H

#include <waybill/module.h>

extern const struct module webhooks_module;

#endif /* WAYBILL_MODULES_WEBHOOKS_H */
