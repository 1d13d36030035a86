#!/usr/bin/env bash
# What a service's consumers have handled: ls, show, forget, and a dead letter handled again.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

# ---- nothing there -----------------------------------------------------------------------------------
run inbox ls
exits 2
complains '--db FILE'
run inbox ls --db none.db
exits 3
run outbox add orders.placed 1 --db o.db
run inbox ls --db o.db
exits 3
complains 'no inbox'

# ---- a service with consumers --------------------------------------------------------------------------
start serve serve --data "$dir/var" --http 127.0.0.1:0
serve=$started
await serve.err 'waybill serves: http://'
http=$(sed -nE 's,.*waybill serves: http://([0-9.:]+)\, bus memory.*,\1,p' serve.err)
run pub auth.events.thing.happened '{"n":1}' --id thing-1 --http "$http"
exits 0
for _ in $(seq 200); do
    run inbox ls --db var/audit.db
    [[ $out == *' 1 foreign'* ]] && break
    sleep 0.05
done
exits 0
says 'audit_record'
says '1 foreign'
says 'stream   AUTH  at sequence 1'
run inbox ls --db var/audit.db --json
keeps inbox.ls
says '"consumer":"audit_record","handled":0,"pages":0,"foreign":1'

run inbox show audit_record thing-1 --db var/audit.db
exits 0
says 'state    handled'
run inbox show audit_record thing-1 --db var/audit.db --json
keeps inbox.show
says '"handled":true'
run inbox show audit_record 0123456789abcdef/7 --db var/audit.db --json
keeps inbox.show
says '"handled":false'
run inbox show nobody thing-1 --db var/audit.db
exits 3
complains 'waybill inbox ls'
run inbox show audit_record '' --db var/audit.db
exits 7

# ---- forget, beside the running service ------------------------------------------------------------------
run inbox forget audit_record thing-1 --db var/audit.db
exits 2
complains '--yes'
run inbox forget audit_record thing-1 --db var/audit.db --yes --json --reason 'a drill'
exits 0
keeps inbox.forget
run inbox show audit_record thing-1 --db var/audit.db
says 'not handled'
run inbox forget audit_record thing-1 --db var/audit.db --yes
exits 3
run operator log --db var/audit.db
says 'inbox forget'
says 'audit_record thing-1'
says 'a drill'
kill -TERM "$serve"
wait "$serve"

finish
