/*
 * demo.h - `waybill demo`: the whole story in a quarter of a minute, unattended.
 *
 * Real GitHub deliveries go in over HTTP, users and invoices are made, the bus is stopped for a few
 * seconds, the publisher is killed in the middle; then everything that was committed is compared
 * with what the streams hold and what each module did. The demo is part of the program, not of a
 * module: it may know them all.
 */
#ifndef DEMO_H
#define DEMO_H

#include <waybill/service.h>

extern const struct service_command demo_command;

/* The modules of the program, in modules/main.c. */
extern const struct module *const program_modules[];
extern const size_t program_module_count;

/* ---- demo_stage_*.c: a running service that can be hurt -------------------------------------- */

struct demo_stage {
    struct config *config;
    char dir[256]; /* everything of the demo; removed at the end */
    uint16_t http_port;
    const char *kill_text; /* what kill_publisher does, for the audience */
    struct event_bus *bus; /* to read the streams back; set by open_bus */
    wb_err (*bus_down)(struct demo_stage *stage, struct wb_why *why);
    wb_err (*bus_up)(struct demo_stage *stage, struct wb_why *why);
    wb_err (*kill_publisher)(struct demo_stage *stage, struct wb_why *why);
    wb_err (*open_bus)(struct demo_stage *stage, struct wb_why *why);
    void (*destroy)(struct demo_stage *stage); /* stops all, frees stage; the directory stays */
};

wb_err demo_stage_memory_create(struct demo_stage **ret_stage, struct wb_why *why);
wb_err demo_stage_nats_create(struct demo_stage **ret_stage, struct wb_why *why);

/* Directory, configuration with a free HTTP port; for the two above. */
wb_err demo_stage_prepare(struct demo_stage *stage, const char *bus, struct wb_why *why);
void demo_stage_finish(struct demo_stage *stage); /* removes the directory, frees the rest */
/* A free TCP port on loopback; 0: none. */
uint16_t demo_free_port(void);

/* ---- demo_client.c --------------------------------------------------------------------------- */

/* One POST to the stage. *ret_status is the answer's; WB_UNREACHABLE when there was none. */
wb_err demo_post(uint16_t port, const char *path, const char *headers, struct wb_str body,
                 int *ret_status);

/* ---- demo_check.c ---------------------------------------------------------------------------- */

/* One publishing module, and what became of its events. */
struct demo_row {
    const char *module;
    const char *stream;
    int64_t committed, published, stored, audited, notified, accounts; /* -1: does not apply */
    int64_t lost, doubled, out_of_order;
};

#define DEMO_ROWS 3

/* True once nothing is pending and every module has handled all that is stored. */
bool demo_settled(struct demo_stage *stage);
/* Rows waiting in all outboxes. */
int64_t demo_pending(struct demo_stage *stage);
/* Ids of the users, in the order they were made; how many there are. */
int demo_user_ids(struct demo_stage *stage, char ids[][64], int max);
wb_err demo_check(struct demo_stage *stage, struct demo_row rows[DEMO_ROWS], struct wb_why *why);

#endif /* DEMO_H */
