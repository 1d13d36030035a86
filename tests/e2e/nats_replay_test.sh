#!/usr/bin/env bash
# Published events are sent once more, over a real server.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start_nats server
cat >waybill.conf <<'EOF'
[stream.ORDERS]
subjects = "orders.>"
duplicate_window = "5m"
EOF
for n in 1 2 3 4; do
    run outbox add "orders.s$((n % 2))" "{\"n\":$n}" --db o.db --key "k$n" -H "x-n: $n"
done
run outbox run --once --db o.db --config waybill.conf -s "$url"
exits 0
says 'published 4'

# ---- a dry run -----------------------------------------------------------------------------------------
run outbox replay --db o.db --subject orders.s1 --dry-run --json --config waybill.conf -s "$url"
exits 0
keeps outbox.replay
says '"rows":2,"bytes":14'
says '"first_id":1,"last_id":3'
says '"duplicate_window_seconds":300.000,"in_duplicate_window":2'
run outbox replay --db o.db --id 1-4 --dry-run
exits 0
says 'would send 4 rows'
says 'rows     1 to 4'
says 'name a server'
is 'rows after a dry run' "$(sqlite3 o.db 'SELECT count(*) FROM outbox')" 4

# ---- for good --------------------------------------------------------------------------------------------
run outbox replay --db o.db --where 'key in (k2, k4)' --json
exits 2
complains '--yes'
run outbox replay --db o.db --where 'key in (k2, k4)' --yes --reason 'shop was down' --json
exits 0
keeps outbox.replay
says '"rows":2'
says '"last_id":4,"done":true'
run outbox run --once --db o.db --config waybill.conf -s "$url"
says 'published 2'
run sub 'orders.>' --all --count 6 --json -s "$url"
exits 0
is 'messages in the stream' "$(wc -l <.out)" 6
is 'repeated ones' "$(grep -c '"waybill-replay-of":\["[0-9a-f]*/[24]"\]' .out)" 2
is 'payloads' "$(grep -oE '"x-n":\["[0-9]' .out | tr -dc '0-9')" 123424
is 'identities' "$(grep -oE '"msg_id":"[0-9a-f]{32}"' .out | sort -u | wc -l)" 6
run operator log --db o.db --json
says '"command":"outbox replay","target":"--where key in (k2, k4)","reason":"shop was down"'

# ---- to another subject, paced, interrupted ------------------------------------------------------------
run outbox replay --db o.db --id 1 --to-subject orders.copy --yes
exits 0
says 'sent 1 rows'
is 'the copy' \
    "$(sqlite3 o.db "SELECT CAST(payload AS TEXT) FROM outbox WHERE subject = 'orders.copy'")" \
    '{"n":1}'
start slow outbox replay --db o.db --id 1-4 --rate 1/s --yes --json
slow=$started
for _ in $(seq 500); do
    [ "$(sqlite3 o.db 'SELECT count(*) FROM outbox')" -ge 8 ] && break
    sleep 0.02
done
kill -INT "$slow"
ends "$slow" 8
grep -q '"done":false' slow.out || flunk 'an interrupted replay says that it is not done'
is 'nothing is held any longer' "$(sqlite3 o.db 'SELECT count(*) FROM outbox_hold')" 0

# ---- refusals ----------------------------------------------------------------------------------------------
run outbox replay --db o.db --yes
exits 2
complains 'which events?'
run outbox replay --db o.db --id 4-1 --yes
exits 2
run outbox replay --db o.db --id 1 --rate fast --yes
exits 2
run outbox replay --db o.db --since tomorrow --yes
exits 2
run outbox replay --db o.db --where 'colour = red' --yes
exits 7
complains 'colour'
run outbox replay --db o.db --id 1 --to-subject 'a..b' --yes
exits 7
run outbox replay --db o.db --id 999 --yes
exits 3
complains 'no published event' '--archive'
run outbox replay --db missing.db --id 1 --yes
exits 3
run outbox replay --db o.db --archive o.db --id 1 --yes
exits 3
complains 'no archive'
finish
