#!/usr/bin/env bash
# Events that the server has lost, or holds twice, are found by number.
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
run outbox verify -s "$url"
exits 2
complains '--db'
run outbox verify --db none.db -s "$url"
exits 3
run outbox add orders.first 1 --db o.db
run outbox verify --db o.db
exits 2
complains 'holds nothing'
run outbox verify --db o.db --from-seq 5 -s "$url"
exits 2
complains '--stream'
run outbox verify --db o.db -s "$url"
exits 3
complains 'published nothing yet'

# ---- all there -------------------------------------------------------------------------------------
sqlite3 o.db "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO outbox(subject, key, payload) SELECT 'orders.placed', 'k' || (i % 7), i FROM n;
    INSERT INTO outbox(subject) VALUES('billing.one'), ('billing.two');"
run outbox run --db o.db --once --config waybill.conf
exits 0
run outbox verify --db o.db --config waybill.conf
exits 0
says 'stream ORDERS  sequences 1 to 3000  rows up to 3002'
says 'stream BILLING  sequences 1 to 2'
is 'missing' "$(grep -c 'missing *0' <<<"$out")" 2
run outbox verify --db o.db --config waybill.conf --json
exits 0
keeps outbox.verify 2
says '"found":3000'

# ---- lost ------------------------------------------------------------------------------------------
lose ORDERS 17 18 1500 2999
run outbox verify --db o.db --config waybill.conf --stream ORDERS
exits 1
says 'missing             4  rows: 17 18 1500 2999'
says 'found            2996  of 3000 rows'
complains 'lacks 4 events' 'waybill outbox repair --db o.db'
run outbox verify --db o.db --config waybill.conf --stream ORDERS --json
exits 1
keeps outbox.verify
says '"missing_rows":{"truncated":false,"list":[17,18,1500,2999]}'
run outbox verify --db o.db --config waybill.conf --stream BILLING
exits 0
run outbox verify --db o.db --config waybill.conf --stream ORDERS --from-seq 1000 --json
exits 1
says '"list":[1500,2999]'
says '"gone":999'
run outbox verify --db o.db --config waybill.conf --stream NONE
exits 3

# ---- doubled, and of others ------------------------------------------------------------------------
source_number=$(sqlite3 o.db "SELECT lower(hex(source)) FROM outbox_source")
msg_id=$(sqlite3 o.db "SELECT lower(hex(msg_id)) FROM outbox WHERE id = 40")
run pub orders.placed again --id "$msg_id-1" -H "waybill-source:$source_number" -H 'waybill-row:40' \
    --config waybill.conf
exits 0
run pub orders.placed foreign --config waybill.conf
exits 0
run outbox verify --db o.db --config waybill.conf --stream ORDERS
exits 1
says 'doubled             1  rows: 40'
says 'foreign             1'
complains 'more than once'

kill -KILL "$nats_pid"
wait "$nats_pid" 2>/dev/null
run outbox verify --db o.db --config waybill.conf --timeout 2s
exits 4
complains "${url#nats://}"
finish
