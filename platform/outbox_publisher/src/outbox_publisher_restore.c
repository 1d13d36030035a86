/*
 * RESTORE: our own database has gone back in time. Beyond the cursor the stream holds events of
 * ours whose rows are gone, or whose numbers have been given to other events since.
 *
 * What lies there is read: rows of the table under their own msg_id are stored; the others are
 * orphans - the event is out, its transaction is undone - and are listed for a person. Their
 * numbers will be used again, so from there on rows go out under a new source: (source, row) names
 * one event for ever. The state works as REPAIR does, in outbox_publisher_repair.c, and ends in the
 * same transaction; a crash before it finds the orphans again, and notes none twice.
 *
 * Numbers are shared by all streams of the table. So at the start no lane sends before each has
 * looked at its stream once: a row that was written after the restore must not go out under an old
 * source whose number an orphan in another stream has. A lane that cannot look for long holds back
 * nobody.
 */
#include "outbox_publisher_private.h"

#define LOOK_WITHIN_NS (10 * WB_SEC)

void outbox_publisher_restore_begin(struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_survey wanted = {
        .phase = OUTBOX_PUBLISHER_PHASE_BEGIN,
        .kind = "restored",
        .created = lane->cursor.stream_created,
        .first = lane->cursor.last_seq + 1,
        .from = lane->cursor.last_seq + 1,
        .last = lane->stream_last,
    };
    struct wb_why why;

    if (outbox_publisher_survey_start(lane, &wanted, &why) != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return;
    }
    (void)wb_fail(&why, WB_CONFLICT,
                  "stream %s holds events of this outbox behind sequence %llu whose rows are gone: "
                  "the database has gone back in time",
                  lane->stream, (unsigned long long)lane->cursor.last_seq);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_RESTORE, why.text);
}

/*
 * Below lie the rows that the restored database knew already, as far as cursors tell: they keep
 * their source, under which they may have been handled. No orphan's number does.
 */
int64_t outbox_publisher_restore_source(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_survey *survey = lane->survey;
    int64_t known = lane->cursor.last_id;

    if (survey->orphan_low == 0)
        return 0;
    known = survey->last_id > known ? survey->last_id : known;
    known = survey->bounds.other_last_id > known ? survey->bounds.other_last_id : known;
    return known + 1 < survey->orphan_low ? known + 1 : survey->orphan_low;
}

void outbox_publisher_restore_tell(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher *publisher = lane->publisher;

    for (size_t i = 0; i < publisher->lane_count; i++) {
        atomic_store(&publisher->lanes[i]->sources_stale, true);
        if (i != lane->index)
            outbox_publisher_lane_kick(publisher->lanes[i]);
    }
}

/* ---- looking before sending ------------------------------------------------------------------ */

void outbox_publisher_looked(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher *publisher = lane->publisher;

    if (atomic_exchange(&lane->looked, true))
        return;
    for (size_t i = 0; i < publisher->lane_count; i++)
        if (i != lane->index)
            outbox_publisher_lane_kick(publisher->lanes[i]);
}

bool outbox_publisher_may_send(struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher *publisher = lane->publisher;
    bool late = outbox_publisher_now_ns(lane) >= publisher->started_mono_ns + LOOK_WITHIN_NS;

    for (size_t i = 0; !lane->may_send && !late && i < publisher->lane_count; i++)
        if (!atomic_load(&publisher->lanes[i]->looked))
            return false;
    lane->may_send = true;
    return true;
}

bool outbox_publisher_sources_fresh(struct outbox_publisher_lane *lane)
{
    struct wb_why why;

    if (!atomic_exchange(&lane->sources_stale, false))
        return true;
    if (outbox_publisher_store_sources(lane->store, &lane->sources, &why) != WB_OK) {
        atomic_store(&lane->sources_stale, true);
        outbox_publisher_lane_ours(lane, why.text);
        return false;
    }
    outbox_publisher_unsynced(lane); /* nothing leaves under a source that may be forgotten */
    return true;
}
