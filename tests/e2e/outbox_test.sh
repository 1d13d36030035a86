#!/usr/bin/env bash
# The outbox in a file, without a bus: add, status, ls, show, and files that are none.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

# ---- success -----------------------------------------------------------------------------------------
run outbox add orders.placed '{"id":1}' --db o.db --key k1 -H 'x-a: 1' -H x-a:2
exits 0
says 'added row 1'
is 'rights of the file' "$(stat -c %a o.db)" 600
run outbox add orders.placed - --db o.db --json
exits 0
keeps outbox.add
printf 'from a file\n' >body
run outbox add orders.paid @body --db o.db --stream ORDERS
exits 0
printf '\000\377bytes' >bytes
input=bytes run outbox add orders.bytes - --db o.db
exits 0
sqlite3 o.db "INSERT INTO outbox(subject, payload) VALUES('orders.by.sql', 'x')"

run outbox status --db o.db
exits 0
says 'rows            5'
says 'pending         5'
run outbox status --db o.db --json
exits 0
keeps outbox.status
says '"pending":5'
run outbox ls --db o.db
exits 0
says 'orders.by.sql'
run outbox ls --db o.db --json
exits 0
keeps outbox.ls 5
is 'lines of ls --json' "$(wc -l <.out)" 5
run outbox ls --db o.db --json --pattern 'orders.*' --limit 2 --after 1
is 'lines behind row 1' "$(wc -l <.out)" 2
run outbox ls --db o.db --json --state published
exits 0
is 'published rows' "$(wc -l <.out)" 0
run outbox show 1 --db o.db
exits 0
says 'orders.placed'
says 'x-a: 1'
says '{"id":1}'
run outbox show 1 --db o.db --json
exits 0
keeps outbox.show
says '"x-a":["1","2"]'
run outbox show 4 --db o.db --json
keeps outbox.show
says '"payload_base64":"AP9ieXRlcw=="'
run outbox show 4 --db o.db
[[ $out == *'\x00'* ]] || flunk 'a NUL is printed as it is'
run outbox show 4 --db o.db --raw
cmp -s .out bytes || flunk 'show --raw changes the payload'
id=$("$waybill" outbox show 1 --db o.db | awk '$1 == "id" { print $2 }')
run outbox show "$id" --db o.db
exits 0

# ---- later, until, once, and not at all ----------------------------------------------------------------
run outbox add a.later x --db t.db --delay 1h --expires +2h --json
exits 0
keeps outbox.add
run outbox add a.later x --db t.db --at 2199-01-02T03:04:05Z
exits 0
run outbox add a.later x --db t.db --at +30m
exits 0
run outbox add a.once x --db t.db --caller shop --idempotency-key order-7
exits 0
says 'added row 4'
run outbox add a.once y --db t.db --caller shop --idempotency-key order-7
exits 0
says 'there already: row 4'
run outbox add a.once y --db t.db --caller shop --idempotency-key order-7 --json
keeps outbox.add
says '"existed":true'
is 'rows' "$(sqlite3 t.db 'SELECT count(*) FROM outbox')" 4
is 'minutes of the delay' "$(sqlite3 t.db 'SELECT (due_at - created + 30000) / 60000, (expires_at - created + 30000) / 60000 FROM outbox WHERE id = 1')" '60|120'
run outbox ls --db t.db
says 'due 2199-01-02T03:04:05'
run outbox show 1 --db t.db
says 'expires '
run outbox cancel 1 --db t.db --reason 'wrong price'
exits 0
says 'cancelled row 1'
run outbox cancel 2 --db t.db --json
exits 0
keeps outbox.cancel
run outbox cancel 1 --db t.db
exits 0
run outbox ls --db t.db --state cancelled --json
is 'cancelled rows' "$(wc -l <.out)" 2
run outbox show 1 --db t.db
says 'state    cancelled'
run outbox status --db t.db
says 'cancelled       2'
run operator log --db t.db
says 'outbox cancel' 'wrong price'
run outbox cancel 4 --db t.db
exits 6
complains 'no due time'
run outbox cancel 99 --db t.db
exits 3
run outbox cancel x --db t.db
exits 7
run outbox cancel 1 --db missing.db
exits 3
[ ! -e missing.db ] || flunk 'outbox cancel makes a file'
for options in '--delay 5' '--delay -5s' '--delay 1h --at +1h' '--at tomorrow' '--at +x' '--expires now' \
    '--delay 2h --expires +1h' '--at 2199-01-01T00:00:00Z --expires 2198-01-01T00:00:00Z' \
    '--caller shop' '--idempotency-key k'; do
    # shellcheck disable=SC2086 # words
    run outbox add a.b x --db new.db $options
    exits 7
    silent
done
[ ! -e new.db ] || flunk 'a refused event left a file behind'

# ---- refusals ------------------------------------------------------------------------------------------
for subject in '' 'a..b' 'a.*' 'a b' "\$JS.x"; do
    run outbox add "$subject" x --db new.db
    exits 7
    silent
done
[ ! -e new.db ] || flunk 'a refused event left a file behind'
run outbox add a.b x --db o.db -H 'Nats-Msg-Id: 1'
exits 7
complains 'Nats-'
run outbox add a.b x --db o.db -H $'x: a\r\nb: c'
exits 7
run outbox add a.b @no-such-file --db o.db
exits 3
complains 'no-such-file'
head -c 1200000 /dev/zero | tr '\0' x >large
run outbox add a.b @large --db o.db
exits 7
complains '1048576'
run outbox add a.b x --db no/such/dir/o.db
exits 3
complains 'no/such/dir'
run outbox add a.b --db o.db
exits 2
complains 'SUBJECT BODY'
run outbox ls --db o.db --state pendign
exits 2
complains "did you mean 'pending'?"
run outbox ls --db o.db --pattern 'a..b'
exits 7
run outbox show 99 --db o.db
exits 3
complains '99'
run outbox show x --db o.db
exits 7
run outbox show 99 --db o.db --json
exits 3
keeps_error
run outbox run --db o.db --once
exits 2
complains '-s URL' 'forget'
run outbox status --db o.db
says 'rows            5'

# ---- files that are no outbox ----------------------------------------------------------------------------
for command in 'outbox status' 'outbox ls' 'outbox show 1' 'outbox run --once --bus memory'; do
    # shellcheck disable=SC2086 # words
    run $command --db missing.db
    exits 3
    complains 'missing.db'
    [ ! -e missing.db ] || flunk "$command makes a file"
done
sqlite3 plain.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(x)' >/dev/null
run outbox status --db plain.db
exits 3
complains 'plain.db' 'no outbox'
head -c 8192 /dev/urandom >garbage.db
run outbox status --db garbage.db
exits 7
complains 'garbage.db'
run outbox add a.b x --db garbage.db
exits 7
cp o.db cut.db
truncate -s 4100 cut.db
run outbox ls --db cut.db
exits 7
complains 'cut.db'
mkdir folder.db
run outbox status --db folder.db
exits 7
complains 'folder.db'

# Somebody who may read the file, but not write it.
mkdir locked
cp o.db locked/o.db
cp "$waybill" program
chmod 755 "$dir" program
chmod 444 locked/o.db
chmod 555 locked
as_other=()
[ "$(id -u)" -ne 0 ] || as_other=(setpriv --reuid=65534 --regid=65534 --clear-groups)
"${as_other[@]}" ./program outbox add a.b x --db locked/o.db >.out 2>.err
status=$? out=$(cat .out) err=$(cat .err) last='outbox add to a file that is read only'
exits 5
complains 'locked/o.db'
chmod 755 locked
finish
