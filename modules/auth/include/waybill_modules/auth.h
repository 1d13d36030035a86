/*
 * waybill_modules/auth.h - users: who there is. Tells the others by auth.events.user.created.
 */
#ifndef WAYBILL_MODULES_AUTH_H
#define WAYBILL_MODULES_AUTH_H

#include <waybill/module.h>

extern const struct module auth_module;

#endif /* WAYBILL_MODULES_AUTH_H */
