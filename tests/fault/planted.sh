#!/usr/bin/env bash
# planted.sh [PATTERN] - plant bugs into a copy of the tree, one at a time; the tests named must turn
# red on each. By hand: `tests/fault/planted.sh`, or only those whose name matches PATTERN.
# planted.sh --plantable - only see that each could be planted still, and that its tests are there.
#
# A bug that no longer can be planted, because the line has changed, is a failure, too: mend the list.
set -euo pipefail
cd "$(dirname "$0")/../.."
pattern=${1:-}
tree=${TMPDIR:-/tmp}/waybill-planted/tree
publisher=platform/outbox_publisher/src
consumer=platform/event_consumer/src

if [ "$pattern" != --plantable ]; then
    # Times are kept, so that only what has changed is built again.
    mkdir -p "$tree"
    find "$tree" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
    git ls-files -z | tar --null --files-from=- -cf - | tar -xf - -C "$tree"
    cd "$tree"
    export CCACHE_BASEDIR=$tree
    cmake --preset dev -DWAYBILL_WERROR=OFF >configure.txt
fi
caught=0 missed=0

# Of a test the target that builds it: unit.x_test -> unit_x_test, fault.power -> fault.
target_of() {
    case $1 in
    fault.* | model.*) echo "${1%%.*}" ;;
    *) echo "${1/./_}" ;;
    esac
}

verdict() { # WORD NAME DETAIL
    printf '%-7s %-52s %s\n' "$1" "$2" "$3"
    if [ "$1" = caught ]; then caught=$((caught + 1)); else missed=$((missed + 1)); fi
}

# plantable NAME FILE SED TEST...: does SED still change FILE, and are there such tests?
plantable() {
    local name=$1 file=$2 edit=$3 test
    shift 3
    if sed -E "$edit" "$file" | cmp -s - "$file"; then
        verdict MISSED "$name" "it cannot be planted any more: $file has changed"
        return 0
    fi
    for test in "$@"; do
        case $test in
        unit.* | integration.*)
            [ -f "tests/${test/.//}.c" ] || verdict MISSED "$name" "no $test"
            ;;
        esac
    done
}

is_green() { # TEST
    ctest --test-dir build/dev -R "^$1\$" --no-tests=error --timeout 120 >ctest.txt 2>&1
}

# plant NAME FILE SED TEST...: with SED done to FILE at least one of the TESTs must fail.
plant() {
    local name=$1 file=$2 edit=$3 targets=() test red="" before=$missed
    if [ "$pattern" = --plantable ]; then
        plantable "$@"
        return 0
    fi
    [[ $name == *$pattern* ]] || return 0
    plantable "$@"
    [ "$missed" -eq "$before" ] || return 0
    shift 3
    cp "$file" original
    sed -i -E "$edit" "$file"
    for test in "$@"; do targets+=("$(target_of "$test")"); done
    if ! ninja -C build/dev "${targets[@]}" >ninja.txt 2>&1; then
        verdict MISSED "$name" "it does not build: $(grep -m1 error: ninja.txt)"
        cp original "$file"
        return 0
    fi
    for test in "$@"; do
        is_green "$test" || red=$test
        [ -z "$red" ] || break
    done
    cp original "$file"
    if [ -z "$red" ]; then
        verdict MISSED "$name" "all green: $*"
    elif ninja -C build/dev "$(target_of "$red")" >ninja.txt 2>&1 && is_green "$red"; then
        verdict caught "$name" "by $red"
    else
        verdict MISSED "$name" "$red is red without it, too"
    fi
}

# ---- publishing ----
plant "a lane falls asleep beside an answer" $publisher/outbox_publisher_flight.c \
    's/atomic_store\(&flight->awaited, slot\);/if (!atomic_load(\&slot->answered)) { atomic_store(\&flight->awaited, slot); return true; }/' \
    unit.outbox_publisher_flight_test
plant "a full window sleeps until many are answered" $publisher/outbox_publisher_drain.c \
    's/now \+ ANSWERS_IN_NS/now + ANSWERS_IN_NS * 1000/' unit.outbox_publisher_manual_test
plant "a row is marked before its ack" $publisher/outbox_publisher_drain.c \
    's/open = outbox_publisher_flight_oldest\(lane->flight\);/open = 0;/' \
    unit.outbox_publisher_late_test unit.outbox_publisher_manual_test unit.outbox_publisher_property_test
plant "no expected sequence" $publisher/outbox_publisher_send.c \
    's/\.expect_last_seq = true/.expect_last_seq = false/' \
    unit.outbox_publisher_late_test unit.outbox_publisher_property_test model.small
plant "no durability barrier" $publisher/outbox_publisher_drain.c \
    's/if \(db_barrier_sync\(lane->barrier, &why\) != WB_OK\)/if (lane->barrier == NULL)/' \
    fault.power
plant "a sync holds for rows that come after it" $publisher/outbox_publisher_drain.c \
    's/lane->synced_id = last_id;/lane->synced_id = INT64_MAX;/' \
    unit.outbox_publisher_barrier_test fault.power
plant "a sync holds for the note of a suspect" $publisher/outbox_publisher_drain.c \
    's/^    if \(lane->cursor\.suspect_id != 0\)$/    if (lane->index > 99)/' \
    unit.outbox_publisher_barrier_test
plant "a sync holds for what was decided since" $publisher/outbox_publisher_claim.c \
    's/^    outbox_publisher_unsynced\(lane\);.*$//' \
    unit.outbox_publisher_barrier_test
plant "a sync holds for a source that is new" $publisher/outbox_publisher_restore.c \
    's/^    outbox_publisher_unsynced\(lane\);.*$//' \
    unit.outbox_publisher_barrier_test
plant "a sync holds for a row that is gone" $publisher/outbox_publisher_read.c \
    's/^    outbox_publisher_unsynced\(lane\);.*$//' \
    unit.outbox_publisher_barrier_test
plant "a sync holds for what is said of a row later" $publisher/outbox_publisher_drain.c \
    's/item->exception \|\| item->unclaimed \|\|/item->row.id < 0 ||/' \
    unit.outbox_publisher_barrier_test
plant "the barrier keeps to a log that was replaced" platform/db/src/db_barrier.c \
    's/if \(log_current\(barrier\)\)/if (barrier->fd >= 0)/' unit.db_barrier_test fault.power
plant "rows are read in another order" $publisher/outbox_publisher_store_private.h \
    's/WHERE o\.id > \?1 ORDER BY o\.id LIMIT \?2/WHERE o.id > ?1 ORDER BY o.msg_id LIMIT ?2/' \
    unit.outbox_publisher_manual_test fault.memory
plant "exceptions are not written" $publisher/outbox_publisher_store.c \
    's/size_t left = exceptions->dirty;/size_t left = 0 * exceptions->dirty;/' \
    unit.outbox_publisher_manual_test unit.outbox_publisher_policy_test fault.io
plant "a refused row does not stop its key" $publisher/outbox_publisher_exceptions.c \
    's/\*ret_stop = outbox_publisher_keys_has/*ret_stop = key_hash == 0 \&\& outbox_publisher_keys_has/' \
    unit.outbox_publisher_policy_test unit.outbox_publisher_policy_property_test
plant "'duplicate' is believed without a look" $publisher/outbox_publisher_answer.c \
    's/bool in_place = sent\.err == WB_OK && !sent\.duplicate && sent\.stream_right &&/bool in_place = sent.err == WB_OK \&\& sent.stream_right \&\& sent.duplicate ? true : sent.err == WB_OK \&\&/' \
    unit.outbox_publisher_late_test unit.outbox_publisher_manual_test unit.outbox_publisher_property_test unit.outbox_publisher_repair_test
plant "the cursor moves for whoever asks" $publisher/outbox_publisher_store_private.h \
    '/X\(cursor_write/,/X\(exception_write/s/AND holder = \?2/AND ?2 = ?2/' \
    unit.outbox_publisher_rivals_test unit.outbox_publisher_property_test
plant "one who was away does not ask who is the holder" $publisher/outbox_publisher_fence.c \
    's/bool away = now - lane->alive_mono_ns > AWAY_NS;/bool away = now < 0;/' \
    unit.outbox_publisher_fence_test model.fence
plant "lost rows wait behind new ones" $publisher/outbox_publisher_read.c \
    's/bool losing = lane->lost_left \|\|/bool losing = lane->index > 99 \&\&/; s/\(lane->exceptions\.count == 0 \|\| lane->exception_due_ms > now_ms\)\)/lane->index < 99)/' \
    unit.outbox_publisher_repair_test unit.outbox_publisher_property_test
plant "expired rows are sent" $publisher/outbox_publisher_read.c \
    's/if \(expires_ms > 0 && expires_ms <= reading->now_ms\)/if (expires_ms > 0 \&\& reading->now_ms < 0)/' \
    unit.outbox_publisher_schedule_test unit.outbox_publisher_manual_test
plant "cancelled rows are sent" $publisher/outbox_publisher_store_private.h \
    "s/state IN \('waiting', 'retry', 'blocked'\)\"  /state IN ('waiting', 'retry', 'blocked', 'cancelled')\"/; s/\" WHERE state <> 'cancelled'\"\)/\"\")/" \
    unit.outbox_publisher_cancel_test unit.outbox_publisher_schedule_test
plant "an outage counts against the row" $publisher/outbox_publisher_answer.c \
    's/return OUTBOX_PUBLISHER_OF_STREAM;/return OUTBOX_PUBLISHER_OF_ROW;/' \
    unit.outbox_publisher_errors_test unit.outbox_publisher_policy_test

# ---- reading back ----
plant "settling does not know its own rows" $publisher/outbox_publisher_origin.c \
    's/origin\.kind = OUTBOX_PUBLISHER_STORED;/origin.kind = OUTBOX_PUBLISHER_FOREIGN;/' \
    fault.memory
plant "settling does not look at msg_id" $publisher/outbox_publisher_origin.c \
    's/if \(found && same_event\(msg, row_msg_id\)\)/if (found || same_event(msg, row_msg_id))/' \
    unit.outbox_publisher_restore_test unit.outbox_publisher_manual_test
plant "a stream written over is not noticed" $publisher/outbox_publisher_check.c \
    's/^    bool same = delivery != NULL &&$/    bool same = true || delivery != NULL \&\&/' \
    unit.outbox_publisher_repair_test
plant "a stream made anew is not noticed" $publisher/outbox_publisher_check.c \
    's/if \(cursor->stream_created == info->created_wall_ns\)/if (cursor->stream_created > 0)/' \
    unit.outbox_publisher_repair_test
plant "a repair forgets holes" $publisher/outbox_publisher_survey_rows.c \
    's/bool lost = row->id <= survey->last_id;/bool lost = row->id < 0;/' \
    unit.outbox_publisher_repair_test
plant "a restore keeps the source" $publisher/outbox_publisher_restore.c \
    's/if \(survey->orphan_low == 0\)/if (survey->orphan_low >= 0)/' \
    unit.outbox_publisher_restore_test
plant "verify does not look at msg_id" platform/outbox_verify/src/outbox_verify.c \
    's/memcmp\(row->msg_id, mark->msg_id, WB_ID_SIZE\) == 0/memcmp(row->msg_id, row->msg_id, WB_ID_SIZE) == 0/' \
    unit.outbox_verify_test

# ---- the table ----
plant "rows are purged before they are confirmed" platform/outbox_retention/src/outbox_retention.c \
    's/"\(o\.id <= CASE o\.stream WHEN/"(o.id > 0 OR o.id <= CASE o.stream WHEN/' \
    unit.outbox_retention_test unit.outbox_retention_property_test
plant "rows go without a copy in the archive" platform/outbox_retention/src/retention_purge.c \
    's/if \(lane->class != NULL && lane->class->archive\)/if (lane->class == NULL \&\& lane->rows > 0)/' \
    fault.memory
plant "the archive is not synced" platform/outbox_retention/src/retention_archive.c \
    's/\.sync = DB_SYNC_FULL/.sync = DB_SYNC_NORMAL/' fault.power
plant "what is on its way can be cancelled" platform/outbox/src/outbox_cancel.c \
    's/case OUTBOX_EXCEPTION_EXPIRED: /case OUTBOX_EXCEPTION_LOST: case OUTBOX_EXCEPTION_EXPIRED: /; /^    case OUTBOX_EXCEPTION_LOST:$/,/row_id\);/d' \
    fault.memory
plant "a wake-up is lost" platform/outbox/src/outbox.c \
    's/outbox->written = true;/outbox->written = false;/' unit.outbox_wake_test
plant "a commit of unknown outcome counts as done" platform/db/src/db.c \
    's/err = wb_fail\(why, WB_UNKNOWN,/err = WB_OK, (void)wb_fail(why, WB_UNKNOWN,/' \
    fault.io
plant "a commit of unknown outcome counts as failed" platform/db/src/db.c \
    's/if \(!commit_surely_failed\(code\)\)/if (code < 0)/' fault.io unit.db_transaction_test
plant "a source of any length is taken" $publisher/outbox_publisher_store.c \
    's/if \(source == NULL \|\| sqlite3_column_bytes\(stmt, 1\) != OUTBOX_SOURCE_SIZE\)/if (sources->count > 99)/' \
    unit.outbox_publisher_rivals_test

# ---- the connection ----
wire=platform/event_bus_nats/src/wire.c
wire_test=integration.event_bus_nats_wire_test
plant "a message is left behind when the socket is taken" $wire \
    's/^ {8}if \(atomic_load\(&wire->unwritten\)\)$/        if (false)/' $wire_test
plant "the last of a stream is left behind" $wire \
    's/bool left = atomic_load\(&wire->unwritten\);/bool left = false;/' $wire_test
plant "a peer that answers no ping is kept" $wire \
    's/if \(is_dead\(wire\)\)/if (false \&\& is_dead(wire))/' $wire_test
plant "a slow sender leaves what others rely on it for" $wire \
    's/^    atomic_fetch_sub\(&wire->senders, 1\);$//; s/(mode = count_send\(wire, &begins\);)/\1 if (wire->batch_count % 10 == 0) (void)usleep(3000); atomic_fetch_sub(\&wire->senders, 1);/' \
    $wire_test
plant "a peer that is slow counts as dead" $wire \
    's/idle = takes_more\(wire, &taken\) \? 0 : idle \+ 1;/idle = takes_more(wire, \&taken) ? idle + 1 : idle + 1;/' \
    $wire_test
plant "who sends waits for the reader to write" $wire \
    's/pthread_mutex_trylock\(&wire->turn\) == 0/false/' $wire_test
plant "a cut connection counts as a fault of ours" platform/event_bus_nats/src/link.c \
    's/return NATS_CONNECTION_CLOSED;/return s;/' integration.event_bus_nats_cut_test

# ---- handling ----
plant "the claim is committed before the handler" $consumer/event_consumer_apply.c \
    's/WB_CRASH_POINT\("event_consumer\.claimed"\);/if (inbox_batch_keep(consumer->inbox, why) != WB_OK || inbox_batch_end(consumer->inbox, why) != WB_OK || db_commit(consumer->db, why) != WB_OK || db_begin(consumer->db, why) != WB_OK || inbox_batch_begin(consumer->inbox, why) != WB_OK) return WB_IO; WB_CRASH_POINT("event_consumer.claimed");/' \
    fault.memory unit.event_consumer_crash_test
plant "the effect is committed before the claim" $consumer/event_consumer_handle.c \
    's/WB_CRASH_POINT\("event_consumer\.handled"\);/if (db_commit(consumer->db, why) != WB_OK || db_begin(consumer->db, why) != WB_OK) return WB_IO; WB_CRASH_POINT("event_consumer.handled");/' \
    fault.memory unit.event_consumer_crash_test
plant "the position stays behind" $consumer/event_consumer_apply.c \
    's/wb_err err = advance\(consumer, count, why\);/wb_err err = count > 0 ? WB_OK : advance(consumer, count, why);/' \
    unit.event_consumer_step_test unit.event_consumer_crash_test unit.event_consumer_loss_test
plant "the inbox notes a wrong bit" platform/inbox/src/inbox_page.c \
    's/\| 1U << \(bit % 8\)\);/| 1U << (bit % 7));/' \
    unit.inbox_claim_test unit.inbox_points_test
plant "kills condemn the event at hand" $consumer/event_consumer_suspect.c \
    's/CRASHES_MAX = 5 /CRASHES_MAX = 1 /' unit.event_consumer_poison_test

[ "$pattern" = --plantable ] || echo "planted bugs: $caught caught, $missed missed"
[ "$missed" -eq 0 ]
