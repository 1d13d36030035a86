#!/usr/bin/env bash
# What the server has lost comes back; a database put back from a copy is noticed.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start_nats main
cat >waybill.conf <<END
bus = "nats"
[nats]
url = "$url"
[stream.ORDERS]
subjects = "orders.>"
[stream.BILLING]
subjects = "billing.>"
END

# ---- refusals --------------------------------------------------------------------------------------
run outbox repair -s "$url"
exits 2
complains '--db'
run outbox repair --db none.db -s "$url"
exits 3
run outbox incidents --db none.db
exits 3
run outbox add orders.first 1 --db o.db
run outbox repair --db o.db
exits 2
complains 'holds nothing'
run outbox repair --db o.db --plan -s "$url"
exits 3
complains 'published nothing yet'
run outbox orphans --db o.db
exits 0

# ---- nothing to do ---------------------------------------------------------------------------------
sqlite3 o.db "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO outbox(subject, key, payload) SELECT 'orders.placed', 'k' || (i % 7), i FROM n;
    INSERT INTO outbox(subject) VALUES('billing.one'), ('billing.two');"
run outbox run --db o.db --once --config waybill.conf
exits 0
run outbox repair --db o.db --stream NONE --plan --config waybill.conf
exits 3
complains 'published nothing to stream NONE'
run outbox repair --db o.db --plan --config waybill.conf
exits 0
is 'streams with nothing to do' "$(grep -c 'nothing to repair' <<<"$out")" 2
run outbox repair --db o.db --config waybill.conf
exits 0
says 'nothing to repair'
run outbox repair --db o.db --config waybill.conf --json
exits 0
keeps outbox.repair
says '"rows":0'

# ---- holes, that only a comparison finds -----------------------------------------------------------
lose ORDERS 17 18
run outbox verify --db o.db --config waybill.conf
exits 1
run outbox repair --db o.db --plan --config waybill.conf
exits 0
says 'hole: '
says '2  rows: 17* 18*'
run outbox repair --db o.db --plan --config waybill.conf --json
exits 0
keeps outbox.repair.plan 2
says '"list":[{"row":17,"late":true},{"row":18,"late":true}]'
run outbox incidents --db o.db --json
is 'incidents after a plan' "$(wc -l <.out)" 0
run outbox repair --db o.db --config waybill.conf
exits 0
says 'stream ORDERS  hole: 2 rows, 0 cannot come back'
run outbox verify --db o.db --config waybill.conf
exits 0
run outbox incidents --db o.db --json
exits 0
keeps outbox.incidents
says '"kind":"hole"'
run outbox incidents --db o.db
says 'rows 2  gone 0'

# ---- rows that are kept no longer ------------------------------------------------------------------
sqlite3 o.db 'DELETE FROM outbox WHERE id <= 5'
[[ $(js DELETE.ORDERS '') == *'"success":true'* ]] || die 'cannot delete ORDERS'
run outbox repair --db o.db --plan --config waybill.conf --stream ORDERS
exits 3
run outbox repair --db o.db --config waybill.conf
exits 8
says 'stream ORDERS  made-anew: 35 rows, 5 cannot come back'
run outbox verify --db o.db --config waybill.conf
exits 0

# ---- somebody else publishes -----------------------------------------------------------------------
start runner outbox run --db o.db --config waybill.conf
runner=$started
await runner.err 'publishing o.db'
run outbox add orders.more 1 --db o.db
for _ in $(seq 500); do
    run outbox status --db o.db
    [[ $out == *'pending         0'* ]] && break
done
run outbox repair --db o.db --config waybill.conf
exits 6
complains 'another process publishes'
run outbox repair --db o.db --plan --config waybill.conf
exits 0
kill -TERM "$runner"
ends "$runner" 0

# ---- a copy of the database is put back ------------------------------------------------------------
sqlite3 o.db "VACUUM INTO 'copy.db'"
run outbox add orders.undone 1 --db o.db
run outbox run --db o.db --once --config waybill.conf
exits 0
rm -f o.db o.db-wal o.db-shm
cp copy.db o.db
run outbox add orders.new 1 --db o.db
run outbox repair --db o.db --plan --config waybill.conf --stream ORDERS --json
exits 0
keeps outbox.repair.plan
says '"kind":"restored"'
says '"orphans":1'
run outbox run --db o.db --once --config waybill.conf
exits 0
says 'published 1'
run outbox orphans --db o.db --json
exits 0
keeps outbox.orphans
says '"subject":"orders.undone"'
run outbox orphans --db o.db
says 'orders.undone'
run outbox incidents --db o.db --after 2 --json
is 'incidents after the repairs' "$(wc -l <.out)" 1
says '"kind":"restored"'
finish
