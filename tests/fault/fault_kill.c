/*
 * fault_kill.c - processes of their own around a real nats-server; each is killed again and again,
 * stopped and set going again, and the server, too.
 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <waybill/outbox_publisher.h>

#include "fault_processes.h"

/* ---- at random ------------------------------------------------------------------------------- */

static enum fault_role any_role(struct fault_processes *self)
{
    return (enum fault_role)wb_rng_below(&self->rng, FAULT_ROLES);
}

/* Mostly short; now and then longer than the duplicate window. */
static void rest_a_while(struct fault_processes *self)
{
    uint64_t most_ms = wb_rng_below(&self->rng, 4) == 0 ? 700 : 150;

    fault_rest((int64_t)wb_rng_below(&self->rng, most_ms) * WB_MS);
}

static void kill_server(struct fault_processes *self)
{
    test_nats_kill(&self->server);
    rest_a_while(self);
    test_nats_restart(&self->server);
    self->report.server_kills++;
}

static void pause_server(struct fault_processes *self)
{
    test_nats_pause(&self->server);
    rest_a_while(self);
    test_nats_resume(&self->server);
    self->report.pauses++;
}

/* A role stands still while the others go on, and one more may be killed meanwhile. */
static void pause_role(struct fault_processes *self, enum fault_role role)
{
    enum fault_role other = any_role(self);

    fault_process_pause(self, role);
    rest_a_while(self);
    if (other != role) {
        fault_process_kill(self, other);
        fault_process_start(self, other, NULL);
        rest_a_while(self);
    }
    fault_process_resume(self, role);
}

static void kill_at_random(struct fault_processes *self, uint64_t kills)
{
    while (self->report.kills < kills) {
        enum fault_role role = any_role(self);
        fault_rest((int64_t)(5 + wb_rng_below(&self->rng, 120)) * WB_MS);
        switch (wb_rng_below(&self->rng, 40)) {
        case 0:
            kill_server(self);
            break;
        case 1:
            pause_server(self);
            break;
        case 2:
        case 3:
            pause_role(self, role);
            break;
        default:
            break;
        }
        fault_process_kill(self, role);
        if (wb_rng_below(&self->rng, 25) == 0)
            rest_a_while(self);
        fault_process_start(self, role, NULL);
    }
}

/* ---- at named points ------------------------------------------------------------------------- */

/* The role whose code has the point: "event_consumer.claimed" is the consumer's. */
static enum fault_role role_of(const char *point)
{
    if (strncmp(point, "event_consumer.", 15) == 0)
        return FAULT_CONSUMER;
    return strncmp(point, "outbox_retention.", 17) == 0 ? FAULT_RETENTION : FAULT_PUBLISHER;
}

/* The role does not run afterwards. */
static void crash_at(struct fault_processes *self, const char *point, unsigned passage)
{
    enum fault_role role = role_of(point);
    int64_t until = fault_now_ns() + 20 * WB_SEC;
    char crash[100];
    int status = 0;

    fault_process_kill(self, role);
    (void)snprintf(crash, sizeof(crash), "%s:%u", point, passage);
    fault_process_start(self, role, crash);
    while (waitpid(self->pids[role], &status, WNOHANG) == 0) {
        fault_must(fault_now_ns() < until, "crash point %s was not reached", crash);
        fault_rest(5 * WB_MS);
    }
    fault_must(WIFEXITED(status) && WEXITSTATUS(status) == 137, "crash point %s: status %d", crash,
               status);
    self->pids[role] = 0;
    self->report.points++;
}

static void crash_everywhere(struct fault_processes *self)
{
    fault_process_kill(self, FAULT_STANDBY); /* or it would have the role, and pass the points */
    for (size_t i = 0; i < fault_point_count; i++) {
        const struct fault_point *point = &fault_points[i];
        crash_at(self, point->name, 1);
        if (point->later > 0)
            crash_at(self, point->name, point->later);
        if (i + 1 == fault_point_count || role_of(point[1].name) != role_of(point->name))
            fault_process_start(self, role_of(point->name), NULL);
    }
}

struct fault_report fault_kill(const char *program, uint64_t seed, uint64_t kills)
{
    struct fault_processes self;

    fault_processes_begin(&self, program, seed, &(struct fault_processes_options){.dir = NULL});
    kill_at_random(&self, kills);
    crash_everywhere(&self);
    fault_processes_end(&self);
    return self.report;
}

/* ---- fencing --------------------------------------------------------------------------------- */

static int64_t cursor_of(struct fault_processes *self, const char *column)
{
    char sql[80];
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t value = -1;

    (void)snprintf(sql, sizeof(sql), "SELECT %s FROM outbox_cursor", column);
    if (sqlite3_open_v2(self->paths.producer, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
        sqlite3_busy_timeout(db, 5000) == SQLITE_OK &&
        sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return value;
}

/* Somebody publishes: the cursor passes `id`. */
static void wait_for_cursor(struct fault_processes *self, int64_t id)
{
    int64_t until = fault_now_ns() + 20 * WB_SEC;

    while (cursor_of(self, "last_id") <= id) {
        fault_must(fault_now_ns() < until, "fence: nobody publishes any more");
        fault_rest(WB_MS);
    }
}

/*
 * The publisher is stopped in the midst of its work and put out; the other takes over and gets on;
 * then the first moves again, and finishes what it had begun to send, if it can.
 */
static void fence_once(struct fault_processes *self, enum fault_role *active)
{
    enum fault_role other = *active == FAULT_PUBLISHER ? FAULT_STANDBY : FAULT_PUBLISHER;
    struct wb_why why = {""};

    fault_rest((int64_t)wb_rng_below(&self->rng, 20 * (uint64_t)WB_MS));
    fault_process_pause(self, *active);
    wb_err err = outbox_publisher_fence(self->paths.producer, FAULT_STREAM, &why);
    if (err == WB_BUSY) { /* stopped inside a transaction: only ending it helps */
        fault_process_kill(self, *active);
        fault_process_start(self, *active, NULL);
    } else {
        fault_must(err == WB_OK, "fence: %s", why.text);
        self->report.fences++;
    }
    wait_for_cursor(self, cursor_of(self, "last_id") + (int64_t)wb_rng_below(&self->rng, 3));
    if (err == WB_OK)
        fault_process_resume(self, *active);
    *active = other;
}

struct fault_report fault_fence(const char *program, uint64_t seed, uint64_t fences)
{
    enum fault_role active = FAULT_PUBLISHER;
    struct fault_processes self;

    fault_processes_begin(&self, program, seed, &(struct fault_processes_options){.dir = NULL});
    fault_process_kill(&self, FAULT_STANDBY);
    wait_for_cursor(&self, 0);
    fault_process_start(&self, FAULT_STANDBY, NULL);
    fault_rest(300 * WB_MS); /* until it stands by */
    while (self.report.fences < fences)
        fence_once(&self, &active);
    fault_processes_end(&self);
    return self.report;
}
