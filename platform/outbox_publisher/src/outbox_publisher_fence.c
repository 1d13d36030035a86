/*
 * Overtaking a publisher that does not move.
 *
 * Its marks name the holder it was, and the cursor has another one. When the clock says that it was
 * away, it looks who is the holder before it sends on. What lay in its buffers then goes out all
 * the same: a burst of messages, each expecting the sequence after the last one's. The first are
 * too late as soon as the successor has stored anything, but one further back could find just the
 * sequence it expects while the successor passes there. So each message of a burst also expects the
 * id of the one before it, and for as long as such a burst can reach, the successor's ids have an
 * ending of its own.
 */
#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "outbox_publisher_private.h"

#include <waybill/operator_log.h>

/* As long as a successor waits before it sends. */
#define AWAY_NS OUTBOX_PUBLISHER_TAKEOVER_GRACE_NS

void outbox_publisher_role_path(struct wb_buf *buf, const char *path, const char *stream)
{
    wb_buf_printf(buf, "%s-%s-publisher", path, stream);
}

/* ---- the one who is overtaken ---------------------------------------------------------------- */

bool outbox_publisher_overtaken(struct outbox_publisher_lane *lane)
{
    int64_t now = outbox_publisher_now_ns(lane);
    bool away = now - lane->alive_mono_ns > AWAY_NS;
    struct outbox_publisher_cursor cursor;
    struct wb_why why;

    lane->alive_mono_ns = now;
    if (!away)
        return false;
    wb_err err = outbox_publisher_store_cursor(lane->store, lane->stream, &cursor, &why);
    if (err == WB_OK && cursor.holder == lane->cursor.holder)
        return false;
    if (err == WB_OK)
        (void)wb_fail(&why, WB_CONFLICT,
                      "another publisher has taken over stream %s (holder %lld, we were %lld)",
                      lane->stream, (long long)cursor.holder, (long long)lane->cursor.holder);
    if (err == WB_OK || err == WB_CONFLICT) {
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        return true;
    }
    lane->alive_mono_ns = 0; /* not known: ask again */
    outbox_publisher_lane_ours(lane, why.text);
    return true;
}

/* ---- the one who fences ---------------------------------------------------------------------- */

static wb_err holder_raise(struct db *db, const char *stream, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db,
                            "UPDATE outbox_cursor SET holder = holder + 1,"
                            " fenced_seq = max(fenced_seq, last_seq + ?2) WHERE stream = ?1",
                            &stmt, why);

    if (err != WB_OK)
        return err;
    db_bind_text(stmt, 1, wb_str(stream));
    (void)sqlite3_bind_int64(stmt, 2, OUTBOX_PUBLISHER_WINDOW_MAX);
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE)
        err = db_error(db_handle(db), rc, "raise the holder of a stream's cursor", why);
    else if (sqlite3_changes(db_handle(db)) == 0)
        err = wb_fail(why, WB_NOT_FOUND,
                      "nobody has ever published to stream %s from %s; `waybill outbox status` "
                      "shows the streams",
                      stream, db_path(db));
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err log_it(struct db *db, const char *stream, struct wb_why *why)
{
    const struct operator_log_entry entry = {.command = wb_str("outbox fence"),
                                             .target = wb_str(stream)};

    return operator_log_add(db_handle(db), &entry, why);
}

static wb_err role_remove(const char *path, const char *stream, struct wb_why *why)
{
    struct wb_buf role = {0};
    wb_err err = WB_OK;

    outbox_publisher_role_path(&role, path, stream);
    if (role.failed)
        err = wb_fail(why, WB_NOMEM, "fence the publisher of stream %s: out of memory", stream);
    else if (unlink(role.ptr) != 0 && errno != ENOENT)
        err = wb_fail(why, errno == EACCES || errno == EPERM ? WB_DENIED : WB_IO,
                      "remove the role file %s: %s", role.ptr, strerror(errno));
    wb_buf_free(&role);
    return err;
}

wb_err outbox_publisher_fence(const char *path, const char *stream, struct wb_why *why)
{
    struct db *db = NULL;
    wb_err err =
        db_open(path, &(struct db_options){.must_exist = true, .sync = DB_SYNC_NORMAL}, &db, why);

    if (err != WB_OK)
        return err;
    err = outbox_schema_require(db_handle(db), why);
    if (err == WB_OK)
        err = db_begin(db, why);
    /* A successor takes the new file at once, yet becomes holder only after this commit: so that it
     * is not fenced in its turn. */
    if (err == WB_OK)
        err = holder_raise(db, stream, why);
    if (err == WB_OK)
        err = log_it(db, stream, why);
    if (err == WB_OK)
        err = role_remove(path, stream, why);
    if (err == WB_OK)
        err = db_commit(db, why);
    db_close(db);
    return err;
}
