#!/usr/bin/env bash
# Dead letters as an operator meets them: found, understood, mended, tried again, given up.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start_nats main 'max_payload: 65536'
cat >waybill.conf <<END
bus = "nats"
[nats]
url = "$url"
[stream.ORDERS]
subjects = "orders.>"
[dead_letter]
redact = "card.number authorization"
END
export WAYBILL_OPERATOR=alice

# publish UNTIL: run the outbox until this is the state of all rows that are not published.
publish() {
    for _ in $(seq 200); do
        run outbox run --db o.db --once --config waybill.conf
        [ "$(sqlite3 o.db "SELECT group_concat(id || state, ' ') FROM (SELECT id, state
            FROM outbox_exception ORDER BY id)")" != "$1" ] || return 0
    done
    flunk "the rows never came to be: $1"
}

# ---- a publisher's letters: a row the bus refuses, and those of its key behind it ----------------------
run outbox add orders.placed '{"n":1}' --db o.db --key k1
sqlite3 o.db "INSERT INTO outbox(subject, key, headers, payload) VALUES
    ('orders..placed', 'k1', 'Authorization: Bearer t0ken' || char(10) || 'x-a: 1',
     '{\"n\":2,\"card\":{\"number\":\"4111\"}}'),
    ('orders.placed', 'k1', '', '{\"n\":3}'),
    ('orders.placed', 'k2', '', '{\"n\":4}'),
    ('orders..lost', '', '', x'00ff'),
    ('orders..lost', '', '', 'seven')"
publish '2parked 3blocked 5parked 6parked'
exits 8
run dlq ls --db o.db
exits 0
says 'p2'
says 'blocked'
run dlq ls --db o.db --json
exits 0
keeps dlq.ls 4
run dlq ls --db o.db --json --where "state = parked and subject ~ '..lost' and age < 1h"
is 'letters meant by the filter' "$(wc -l <.out)" 2
run dlq ls --db o.db --where 'reson ~ x'
exits 7
complains 'column 1' "did you mean 'reason'?"
run dlq groups --db o.db --json
exits 0
keeps dlq.groups 2
is 'letters of the largest group' "$(head -n 1 .out | grep -o '"count":[0-9]*')" '"count":3'
run dlq show p3 --db o.db
exits 0
says 'behind   p2'
run dlq show p5 --db o.db --json
keeps dlq.show
says '"payload_base64":"AP8="'
run dlq show p9 --db o.db
exits 3
run dlq show 17 --db o.db
exits 7
complains 'p17'

# What is marked is not seen, unless it is asked for, which is written down.
run dlq show p2 --db o.db --config waybill.conf
exits 0
says 'Authorization: ***'
says '"number":"***"'
[[ $out != *4111* && $out != *t0ken* ]] || flunk 'a marked field is shown'
run dlq export --db o.db --config waybill.conf
exits 0
keeps dlq.export 4
[[ $out != *4111* && $out != *t0ken* ]] || flunk 'a marked field is exported'
run operator log --db o.db
[[ $out != *alice* ]] || flunk 'looking at what is hidden was logged as revealing'
run dlq show p2 --db o.db --config waybill.conf --reveal --raw
exits 0
is 'the payload revealed' "$out" '{"n":2,"card":{"number":"4111"}}'
run operator log --db o.db --json
exits 0
keeps operator.log
says '"command":"dlq show --reveal"'
says 'alice ('

# Mended, it goes out, and what waited behind it follows in the order of the key.
run dlq edit p3 '{}' --db o.db
exits 6
complains 'waits'
run dlq retry p3 --db o.db
exits 6
complains 'p2'
run dlq edit p2 --db o.db
exits 2
run dlq edit p2 '{"card":{"number":"***"}}' --subject orders.placed --db o.db --config waybill.conf
exits 7
complains '--reveal'
run dlq edit p2 --subject 'a b' --db o.db
exits 7
printf '{"n":2,"card":{"number":"4222"}}' >body
run dlq edit p2 @body --subject orders.placed -H 'x-a: 2' --no-header authorization --db o.db \
    --config waybill.conf --reason 'typo in the subject' --json
exits 0
keeps dlq.change
publish '5parked 6parked'
run sub 'orders.>' --all --count 4 --json --config waybill.conf
exits 0
is 'what came out' "$(grep -o '"payload":"[^}]*n\\":[0-9]' .out | grep -o '[0-9]$' | tr -d '\n')" 1423
says '"x-a":["2"]'
says '4222'
[[ $out != *t0ken* ]] || flunk 'a removed header was sent'
run operator log --db o.db --json --where 'command = "dlq edit"'
is 'entries of the edit' "$(wc -l <.out)" 1
says 'typo in the subject'
says 'orders..placed'
[[ $out != *4111* ]] || flunk 'the log tells a marked field'

# Many at once only when told so.
run dlq retry --db o.db
exits 2
run dlq retry --db o.db --where 'subject ~ lost'
exits 2
complains '2 letters' '--yes'
run dlq retry --db o.db --where 'subject ~ lost' --dry-run
exits 0
says 'p5 p6'
run outbox retry 5 --db o.db
exits 0
says 'retried 1 of 1'
publish '5parked 6parked'
run dlq ls --db o.db --json --where 'id = 5'
is 'it is parked again' "$(wc -l <.out)" 1
run dlq discard p5 --db o.db
exits 2
complains '--reason'
run dlq discard --where 'subject ~ lost' --db o.db --yes --reason 'nobody wants them' --json
exits 0
keeps dlq.change
says '"changed":2'
run dlq ls --db o.db --json
is 'letters left' "$(wc -l <.out)" 0
run outbox run --db o.db --once --config waybill.conf
exits 0
run operator log --db o.db --where 'reason ~ nobody'
says '2 letters of p5 to p6'

# ---- files without letters -----------------------------------------------------------------------------
run dlq ls --db missing.db
exits 3
sqlite3 plain.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(x)' >/dev/null
run dlq ls --db plain.db
exits 3
complains 'neither an outbox nor an inbox'
finish
