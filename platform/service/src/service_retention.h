/* service_retention.h - lets old rows of the modules' outboxes go while the service runs. */
#ifndef SERVICE_RETENTION_H
#define SERVICE_RETENTION_H

#include <waybill/base.h>

struct service;
struct service_retention; /* one thread for all files */

/** For every module that publishes. WB_NOMEM; a file that fails later is tried again. */
wb_err service_retention_start(struct service *service, struct service_retention **ret_retention,
                               struct wb_why *why);
/** NULL does nothing. */
void service_retention_stop(struct service_retention *retention);

#endif /* SERVICE_RETENTION_H */
