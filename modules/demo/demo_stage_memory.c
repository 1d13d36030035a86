/* demo_stage_memory.c - the service in this process, on the in-memory bus. */
#include "demo.h"

#include <stdlib.h>
#include <unistd.h>

#include <waybill/event_bus_memory.h>

struct memory_stage {
    struct demo_stage base; /* first */
    struct service *service;
};

static wb_err bus_down(struct demo_stage *stage, struct wb_why *why)
{
    (void)why;
    event_bus_memory_set_down(stage->bus, true);
    return WB_OK;
}

static wb_err bus_up(struct demo_stage *stage, struct wb_why *why)
{
    (void)why;
    event_bus_memory_set_down(stage->bus, false);
    return WB_OK;
}

static wb_err kill_publisher(struct demo_stage *stage, struct wb_why *why)
{
    return service_crash_publisher(((struct memory_stage *)stage)->service, "webhooks", why);
}

static wb_err open_bus(struct demo_stage *stage, struct wb_why *why)
{
    (void)stage;
    (void)why;
    return WB_OK; /* it is open all the time */
}

static void destroy(struct demo_stage *stage)
{
    service_stop(((struct memory_stage *)stage)->service);
    event_bus_destroy(stage->bus);
    demo_stage_finish(stage);
}

wb_err demo_stage_memory_create(struct demo_stage **ret_stage, struct wb_why *why)
{
    struct memory_stage *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return WB_NOMEM;
    self->base = (struct demo_stage){.kill_text = "a crash of the publisher of webhooks",
                                     .bus_down = bus_down,
                                     .bus_up = bus_up,
                                     .kill_publisher = kill_publisher,
                                     .open_bus = open_bus,
                                     .destroy = destroy};
    wb_log_setup(STDERR_FILENO, WB_LOG_LOGFMT, WB_LOG_ERROR); /* the story tells itself */
    wb_err err = demo_stage_prepare(&self->base, "memory", why);
    if (err == WB_OK)
        err = event_bus_memory_create(NULL, &self->base.bus);
    if (err == WB_OK)
        err = service_start(self->base.config, self->base.bus, program_modules,
                            program_module_count, &self->service, why);
    if (err != WB_OK) {
        destroy(&self->base);
        return err;
    }
    *ret_stage = &self->base;
    return WB_OK;
}
