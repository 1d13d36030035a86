#!/usr/bin/env bash
# Old rows of an outbox go by hand: what, into which archive, and what is left alone.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

cat >waybill.conf <<'EOF'
[class.audit]
subjects = "audit.>"
keep_age = "720h"
archive = true
[class.noise]
subjects = "noise.*"
keep_rows = 2
archive = true
EOF

run outbox add audit.first '{"n":1}' --db o.db
day=86400000
for n in 2 3 4 5 6 7 8; do
    subject=noise.x age=$day
    [ $n -ne 7 ] || subject=other.x age=$((2 * day))
    [ $n -ne 8 ] || subject=other.y age=0
    sqlite3 o.db "INSERT INTO outbox(subject, created, payload)
        SELECT '$subject', created - $age, 'n$n' FROM outbox WHERE id = 1"
done
is 'rows before' "$(sqlite3 o.db 'SELECT count(*) FROM outbox')" 8

# ---- nothing goes that was not read back -----------------------------------------------------------
run outbox purge --db o.db --config waybill.conf
exits 0
says 'purged 0 rows'
sqlite3 o.db "INSERT INTO outbox_cursor(stream, last_id, verified_id) VALUES('S', 8, 8)"

# ---- a dry run ---------------------------------------------------------------------------------------
run outbox purge --db o.db --config waybill.conf --dry-run --json
exits 0
keeps outbox.purge
says '"dry_run":true,"rows":6'
is 'rows after a dry run' "$(sqlite3 o.db 'SELECT count(*) FROM outbox')" 8
[ ! -e o.db-archive ] || flunk 'a dry run made an archive'

# ---- for good ------------------------------------------------------------------------------------------
run outbox purge --db o.db --config waybill.conf --json
exits 0
keeps outbox.purge
says '"rows":6'
says '"class":"noise","rows":5'
is 'rows left' "$(sqlite3 o.db 'SELECT group_concat(id) FROM outbox')" 1,8
run outbox ls --db o.db-archive --json
exits 0
keeps outbox.ls 5
is 'lines of the archive' "$(wc -l <.out)" 5
run outbox ls --db o.db-archive --after 5
says 'noise.x'
says 'published'
run outbox show 3 --db o.db-archive --json
exits 0
keeps outbox.show
says '"subject":"noise.x"'
run outbox show 7 --db o.db-archive
exits 3
is 'rights of the archive' "$(stat -c %a o.db-archive)" 600
run operator log --db o.db
exits 0
says 'outbox purge'

# ---- by age alone --------------------------------------------------------------------------------------
run outbox purge --db o.db --config waybill.conf --older-than 1ms
exits 0
says 'purged 1 rows'
is 'the newest stays' "$(sqlite3 o.db 'SELECT group_concat(id) FROM outbox')" 8
is 'audit rows are archived' "$(sqlite3 o.db-archive \
    "SELECT payload FROM outbox_archive WHERE subject = 'audit.first'")" '{"n":1}'

# ---- limits of what waits ------------------------------------------------------------------------------
printf '[class.few]\nsubjects = "few.>"\nmax_pending_rows = 2\n' >few.conf
for _ in 1 2; do
    run outbox add few.x '{}' --db few.db --config few.conf
    exits 0
done
run outbox add few.x '{}' --db few.db --config few.conf
[ "$status" -ne 0 ] || flunk 'a third event is taken'
complains 'few'
run outbox add other.x '{}' --db few.db --config few.conf
exits 0

# ---- refusals --------------------------------------------------------------------------------------------
run outbox purge
exits 2
complains '--db'
run outbox purge --db missing.db
exits 3
run outbox purge --db o.db --older-than soon
exits 2
printf '[class.a]\nsubjects = "a..b"\n' >bad.conf
run outbox purge --db o.db --config bad.conf
exits 7
complains 'bad.conf:2' 'class.a.subjects'
finish
