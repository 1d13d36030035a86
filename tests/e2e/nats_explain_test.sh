#!/usr/bin/env bash
# The life of one event, as outbox explain tells it.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start_nats main
main=$url
cat >waybill.conf <<END
bus = "nats"
data = "$dir/var"
[nats]
url = "$main"
[http]
listen = "127.0.0.1:0"
[stream.ORDERS]
subjects = "orders.>"
END

# The lines of the text, without what differs from run to run.
lines() { sed -E 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z/TIME/; s/[0-9a-f]{32}/ID/; s/[0-9a-f]{16}/SOURCE/' <<<"$out"; }

# ---- before and after it is published ------------------------------------------------------------
run outbox add orders.placed '{"id":1}' --db o.db --key k1
run outbox explain 1 --db o.db
exits 0
is 'a row that waits' "$(lines)" 'row      1
id       ID
subject  orders.placed
key      k1
bytes    8
written  TIME
state    pending
source   SOURCE
stream   not asked: name its server with -s URL'
run outbox explain 1 --db o.db --json
keeps outbox.explain
says '"sent":null'
for n in 2 3 4; do run outbox add orders.placed "$n" --db o.db; done
sqlite3 o.db "INSERT INTO outbox(subject, payload) VALUES('not a subject', 'x')"
run outbox run --db o.db --once --config waybill.conf
exits 8
run outbox explain 3 --db o.db --config waybill.conf
exits 0
is 'a row that is published' "$(lines)" 'row      3
id       ID
subject  orders.placed
bytes    1
written  TIME
state    published
source   SOURCE
stored   TIME  sequence 3 of stream ORDERS
verified not yet'
id=$(sed -nE 's/^id +//p' <<<"$out")
run outbox explain "$id" --db o.db --config waybill.conf --json
keeps outbox.explain
says '"stored":[{"sequence":3,'
says "\"msg_id\":\"$id\"}]"

# ---- what goes wrong -------------------------------------------------------------------------------
run outbox explain 5 --db o.db --config waybill.conf
exits 0
says 'state    parked'
says 'error    '
says 'stored   not found in stream ORDERS between sequences 1 and 4'
source_number=$(sed -nE 's/^source +//p' <<<"$out")
sqlite3 o.db "INSERT INTO outbox(subject, headers, payload) VALUES('orders.placed', 'waybill-replay-of: $source_number/3', 'x')"
sqlite3 o.db "INSERT INTO outbox_edit VALUES(3, 'orders.mended', '', 1, 'x')"
sqlite3 o.db "INSERT INTO outbox_incident(at, stream, kind, first_seq, last_seq, rows, detail) SELECT created + 1, 'ORDERS', 'hole', 3, 3, 1, 'sequence 3 was gone' FROM outbox WHERE id = 3"
run pub orders.placed again -H "waybill-source:$source_number" -H waybill-row:3 -s "$main"
exits 0
run outbox explain 3 --db o.db --config waybill.conf
exits 0
says 'edited   1970'
says 'sequence 5 of stream ORDERS  again'
says 'replayed by row 6'
says 'hole  sequence 3 was gone'
run outbox explain 3 --db o.db --config waybill.conf --json
keeps outbox.explain
says '"replays":[6]'

# In a long stream the neighbourhood is found, not the whole read.
run outbox add orders.placed 0 --db long.db
sqlite3 long.db "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) INSERT INTO outbox(subject, payload) SELECT 'orders.n', i FROM n"
run outbox run --db long.db --once --config waybill.conf
exits 0
run outbox explain 9000 --db long.db --config waybill.conf --json
keeps outbox.explain
says '"stored":[{"sequence":9005,'
from=$(sed -nE 's/.*"from":([0-9]+),.*/\1/p' <<<"$out")
[ "$from" -gt 4000 ] || flunk "read from sequence $from on"

# ---- its consumers ---------------------------------------------------------------------------------
start serve serve --config waybill.conf
serve=$started
await serve.err 'waybill serves: http://'
run auth add ada@example.org Ada --config waybill.conf
exits 0
for _ in $(seq 200); do
    run outbox explain 1 --db var/auth.db --config waybill.conf
    [[ $out == *'in audit.db  handled'* ]] && break
done
exits 0
says 'of stream AUTH'
says 'consumer audit_record in audit.db  handled'
run outbox explain 1 --db var/auth.db --config waybill.conf --json
keeps outbox.explain
says '"consumer":"audit_record","handled":true,"failures":0'
kill -TERM "$serve"
ends "$serve" 0

# ---- refusals --------------------------------------------------------------------------------------
run outbox explain 99 --db o.db
exits 3
run outbox explain nonsense --db o.db
exits 7
run outbox explain --db o.db
exits 2
run outbox explain 1
exits 2
run outbox explain 1 --db o.db --data nowhere
exits 3
complains 'nowhere'
run outbox explain 1 --db o.db -s nats://127.0.0.1:1 --timeout 1s
exits 4
finish
