/* service_classes.h - the [class.NAME] sections of the configuration. */
#ifndef SERVICE_CLASSES_H
#define SERVICE_CLASSES_H

#include <waybill/config.h>
#include <waybill/outbox.h>

/* For the program's table of settings. */
extern const struct config_key service_class_keys[];
extern const size_t service_class_key_count;

/* All classes, in the order of the file. Constant once read; any thread. */
struct service_classes;

/**
 * Read them all; without a section there are none. WB_INVALID: one message that names the key and
 * where it was set. WB_NOMEM.
 */
wb_err service_classes_read(const struct config *config, struct service_classes **ret_classes,
                            struct wb_why *why);
void service_classes_free(struct service_classes *classes);

/** The array for outbox_use_classes() and the like; valid until service_classes_free(). */
const struct outbox_class *service_classes_list(const struct service_classes *classes,
                                                size_t *ret_count);

/** Have an outbox keep their limits; NULL does nothing. They must outlive it. */
void service_classes_use(const struct service_classes *classes, struct outbox *outbox);

#endif /* SERVICE_CLASSES_H */
