#!/usr/bin/env bash
# A consumer's dead letter, from the handler that could not to the handler that can: in a running
# service, by another process. And letters taken out of a file and in again.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

start service serve --data var --http 127.0.0.1:0
await service.err 'waybill serves: http://'
http=$(sed -nE 's,.*waybill serves: http://([0-9.:]+)\, bus memory.*,\1,p' service.err)
letters() { # FILTER: how many letters there are
    "$waybill" dlq ls --db var/ar.db --json --where "$1" | wc -l
}
await_letters() { # FILTER COUNT
    for _ in $(seq 600); do
        [ "$(letters "$1")" -ne "$2" ] || return 0
        sleep 0.1
    done
    flunk "never $2 letters where $1"
}

run pub auth.events.user.created '{"user_id":5}' --http "$http"
exits 0
run pub auth.events.user.created '{"user_id":6}' --http "$http"
exits 0
await_letters 'state = parked' 2
run dlq ls --db var/ar.db --json
exits 0
keeps dlq.ls 2
run dlq groups --db var/ar.db --json --consumer ar_accounts
keeps dlq.groups 1
says '"count":2'
run dlq show c1 --db var/ar.db --json
exits 0
keeps dlq.show
says '"consumer":"ar_accounts"'
says '"failures":10'

# ---- out of the file and in again ------------------------------------------------------------------------
run dlq export --db var/ar.db
exits 0
keeps dlq.export 2
cp .out letters
run dlq import letters --db var/ar.db --json
exits 0
keeps dlq.import
says '"taken":0,"known":2'
run dlq discard c2 --db var/ar.db --reason 'by mistake'
exits 0
input=letters run dlq import - --db var/ar.db
exits 0
says 'took 1 letters in, 1 were known'
run outbox add orders.x 1 --db other.db
run dlq import letters --db other.db
says 'took 2 letters in, 0 were known'
run dlq import letters --db other.db
says 'took 0 letters in, 2 were known'
run dlq ls --db other.db --json --consumer ar_accounts
keeps dlq.ls 2
head -n 1 letters >bad
echo '{"id":"c9"' >>bad
run dlq import bad --db other.db
exits 7
complains 'line 2'
sed 's/"redacted":false/"redacted":true/' letters >hidden
run dlq import hidden --db other.db
exits 7
complains '--reveal'
run dlq import missing --db other.db
exits 3

# ---- mended, while the service runs ------------------------------------------------------------------------
run dlq edit c1 '{"user_id":"mended"}' --db var/ar.db --reason 'the sender wrote a number'
exits 0
await_letters 'state = parked and id = 1' 0
await_letters 'state = retry' 0
run dlq retry --consumer ar_accounts --db var/ar.db
exits 0
says 'retried 1 of 1'
await_letters 'state = parked and failures > 10' 1
run dlq discard --where 'failures > 10' --db var/ar.db --reason 'nobody knows user 6'
exits 0
run operator log --db var/ar.db
exits 0
says 'the sender wrote a number'
is 'accounts opened' "$(sqlite3 var/ar.db "SELECT count(*) FROM ar_account WHERE user_id = 'mended'")" 1
kill -TERM "$started"
ends "$started" 0
finish
