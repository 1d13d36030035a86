#!/usr/bin/env bash
# Help, mistakes on the command line, the configuration, version.
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "$0")/lib.sh"

# ---- help ------------------------------------------------------------------------------------------
run
exits 0
says 'usage: waybill COMMAND'
is examples "$(grep -c '^  waybill ' "$dir/.out")" 5
begun=$(date +%s%N)
run version
exits 0
says 'waybill '
[ $(($(date +%s%N) - begun)) -lt 5000000000 ] || flunk 'version took longer than 5 s'
run --version
exits 0
run version --json
exits 0
keeps version
run help --json
exits 0
keeps help
run help
exits 0
for command in serve 'outbox add' 'outbox run' doctor 'config show' demo 'audit verify'; do
    says "  $command "
done
for command in serve pub sub match 'outbox add' 'outbox status' 'outbox ls' 'outbox show' 'outbox run' \
    'outbox verify' 'outbox repair' 'outbox incidents' 'outbox orphans' 'outbox retry' 'dlq ls' 'dlq groups' 'dlq show' 'dlq retry' 'dlq edit' \
    'dlq discard' 'dlq export' 'dlq import' 'operator log' 'inbox ls' 'inbox show' 'inbox forget' \
    doctor 'config show' version demo 'audit verify'; do
    # shellcheck disable=SC2086 # noun and verb are two words
    run help $command
    exits 0
    says "usage: waybill $command"
    # shellcheck disable=SC2086
    run $command --help
    exits 0
    says "usage: waybill $command"
done
run help outbox
exits 0
says 'outbox show'
run help frobnicate
exits 3
complains "no command 'frobnicate'"

# ---- mistakes ----------------------------------------------------------------------------------------
run mtach
exits 2
silent
complains "unknown command 'mtach'" "did you mean 'match'?"
run frobnicate
exits 2
complains 'waybill help'
run --frobnicate
exits 2
run $'m\033[2J'
exits 2
[[ $err != *$'\033'* ]] || flunk 'an escape sequence reached the terminal'
run outbox
exits 2
complains 'add, status, ls, show, run'
run outbox stauts
exits 2
complains "did you mean 'status'?"
run pub a.b --conut 3
exits 2
complains "did you mean '--count'?"
run pub a.b --count zero
exits 2
complains "--count 'zero'" 'whole number from 1'
run pub a.b --count 2 --id x
exits 2
run pub a.b --timeout 5
exits 2
complains '500ms, 5s'
run sub 'a.>' --all --new
exits 2
run pub a.b x -H novalue
exits 2
complains 'NAME:VALUE'
run pub --json a.b --conut 3
exits 2
run --json pub a.b --conut 3
exits 2
run audit verfy
exits 2
complains "did you mean 'verify'?"
run outbox status
exits 2
complains '--db FILE'
run -s nats://user:hunter2@127.0.0.1:1 pub a.b
exits 2
complains 'NATS_PASSWORD'
[[ $err$out != *hunter2* ]] || flunk 'a secret was printed'
run serve --bus dual
exits 7
complains 'no dual bus yet'
run serve --bus rabbit
exits 2
complains 'memory' 'nats'

# ---- configuration -------------------------------------------------------------------------------------
cat >good.conf <<'END'
bus = "nats" # the bus
data = "./here"

[nats]
url = "nats://127.0.0.1:4222"
END
run config show --config good.conf
exits 0
says 'bus = "nats"'
says 'data = "./here"'
run config show --origin --config good.conf
exits 0
says 'data = "./here"  # file good.conf:2'
says 'log.level = "info"  # default'
WAYBILL_DATA=./env run config show --origin --config good.conf
says 'data = "./env"  # env WAYBILL_DATA'
WAYBILL_DATA=./env run config show --origin --config good.conf --data ./flag
says 'data = "./flag"  # flag --data'
WAYBILL_CONFIG=good.conf run config show --origin -s nats://127.0.0.1:4333
exits 0
says 'data = "./here"'
says 'nats.url = "nats://127.0.0.1:4333"  # flag --server'
run config show --origin -s nats://127.0.0.1:4333
says 'bus = "nats"  # flag --server'
run config show -s nats://127.0.0.1:4333 --bus memory
says 'bus = "memory"'
run config show --json --config good.conf
exits 0
keeps config.show
NATS_URL=nats://u:hunter2@127.0.0.1:4222 NATS_PASSWORD=hunter3 run config show --origin
exits 0
[[ $out != *hunter* ]] || flunk 'config show prints a secret'
input=good.conf run config show --origin --config -
exits 0
says 'data = "./here"'
input=''

bad() { # TEXT EXIT WORDS...: a configuration file of this text is refused
    local text=$1 code=$2
    shift 2
    printf '%b' "$text" >bad.conf
    run config show --config bad.conf
    exits "$code"
    silent
    complains "$@"
}
bad 'bus = "nats"\ndta = "x"\n' 7 'bad.conf:2' 'dta' 'data'
bad 'bus = "rabbit"\n' 7 'bad.conf:1' 'rabbit' 'memory' 'nats'
bad 'bus = "nats"\nbus = "nats"\n' 7 'bad.conf:2' 'bus'
bad '[http\n' 7 'bad.conf:1'
bad 'bus = nats\n' 7 'bad.conf:1'
bad 'data = "a\\0b"\0\n' 7 'bad.conf:1'
run config show --config no-such-file.conf
exits 3
complains 'no-such-file.conf'
WAYBILL_BSU=nats run config show
exits 7
complains 'WAYBILL_BSU' 'WAYBILL_BUS'
WAYBILL_BUS=rabbit run config show
exits 7
complains 'WAYBILL_BUS' 'memory'
# What needs no configuration works without a sound one.
WAYBILL_CONFIG=bad.conf run match a.b a.b
exits 0

# ---- standard output that is gone ------------------------------------------------------------------------
"$waybill" help >/dev/full 2>.err
is 'exit code when standard output is full' "$?" 1
grep -q 'standard output' .err || flunk 'a full standard output is not named'
finish
