# shellcheck shell=bash
# What the scripts share: run the program, compare, start and stop servers by their process id.
#   source lib.sh WAYBILL JSON_CHECK SCHEMAS NATS_SERVER
set -uo pipefail
waybill=$1
json_check=$2
schemas=$3
nats_server=${4:-}

# Nothing of the caller's settings gets in.
for name in $(compgen -e); do
    case $name in WAYBILL_* | NATS_* | NO_COLOR | FORCE_COLOR) unset "$name" ;; esac
done
export TERM=dumb

dir=$(mktemp -d)
pids=()
failures=0
checks=0
out='' err='' status=0

cleanup() {
    local pid
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir" || exit 1
for program in "$waybill" "$json_check"; do
    [ -x "$program" ] || { echo "FAIL: $program is not built"; exit 1; }
done

# ---- comparing -----------------------------------------------------------------------------------

flunk() {
    local line=${BASH_LINENO[1]}
    [ "$line" -ne 0 ] || line=${BASH_LINENO[0]} # called by the script itself
    failures=$((failures + 1))
    printf 'FAIL line %s: %s\n  status %s\n  stdout: %s\n  stderr: %s\n' "$line" "$1" \
        "$status" "${out:0:600}" "${err:0:600}"
    [ "$failures" -lt 20 ] || die "too many failures, the rest is left out"
}

# run ARGS...: the program with these arguments; sets out, err, status. Bounded in time.
run() {
    timeout -k 5 60 "$waybill" "$@" >"$dir/.out" 2>"$dir/.err" <"${input:-/dev/null}"
    status=$?
    out=$(tr -d '\0' <"$dir/.out")
    err=$(tr -d '\0' <"$dir/.err")
    last="waybill $*"
}

# exits CODE: the last run ended so. An error says more than a word, on standard error only.
exits() {
    checks=$((checks + 1))
    [ "$status" -eq "$1" ] || flunk "$last: expected exit $1"
}

says() { # TEXT: standard output contains it
    checks=$((checks + 1))
    [[ $out == *"$1"* ]] || flunk "$last: standard output lacks '$1'"
}

complains() { # TEXT...: standard error contains each
    local text
    for text in "$@"; do
        checks=$((checks + 1))
        [[ $err == *"$text"* ]] || flunk "$last: standard error lacks '$text'"
    done
}

silent() { # nothing on standard output
    checks=$((checks + 1))
    [ -z "$out" ] || flunk "$last: expected nothing on standard output"
}

keeps() { # SCHEMA [MIN]: each line of standard output is a document of the schema
    checks=$((checks + 1))
    "$json_check" "$schemas/$1.schema.json" "${2:-1}" <"$dir/.out" ||
        flunk "$last: not as contracts/cli/$1.schema.json promises"
}

keeps_error() { # with --json the last line on standard error is an error object
    checks=$((checks + 1))
    tail -n 1 "$dir/.err" | "$json_check" "$schemas/error.schema.json" ||
        flunk "$last: not as contracts/cli/error.schema.json promises"
}

is() { # WHAT GOT EXPECTED
    checks=$((checks + 1))
    [ "$2" = "$3" ] || flunk "$1: got '$2', expected '$3'"
}

finish() {
    echo "$checks checks, $failures failures"
    [ "$checks" -gt 0 ] && [ "$failures" -eq 0 ]
    exit
}

die() {
    echo "FAIL: $*"
    exit 1
}

# ---- servers ---------------------------------------------------------------------------------------

# start_nats NAME [LINES OF CONFIGURATION...]: on a free port; sets url and nats_pid. The line
# "no-jetstream" leaves JetStream off.
start_nats() {
    local home=$dir/$1 ports line jetstream="jetstream: { store_dir: \"$dir/$1/store\" }"
    shift
    mkdir -p "$home"
    [ -x "$nats_server" ] || die "no nats-server found (Debian: apt install nats-server)"
    {
        echo 'listen: "127.0.0.1:-1"'
        echo "ports_file_dir: \"$home\""
        echo "log_file: \"$home/log\""
        for line in "$@"; do
            if [ "$line" = no-jetstream ]; then jetstream=''; else echo "$line"; fi
        done
        echo "$jetstream"
    } >"$home/nats.conf"
    "$nats_server" -c "$home/nats.conf" &
    nats_pid=$!
    pids+=("$nats_pid")
    ports=$home/nats-server_$nats_pid.ports
    for _ in $(seq 500); do
        [ -s "$ports" ] && break
        kill -0 "$nats_pid" 2>/dev/null || die "nats-server ended: $(tail -5 "$home/log")"
        sleep 0.02
    done
    url=$(grep -oE 'nats://127\.0\.0\.1:[0-9]+' "$ports" | head -1)
    [ -n "$url" ] || die "nats-server wrote no port into $ports"
}

# js VERB BODY: one request to the stream's API, over a connection of its own; prints the answer.
js() {
    local line length
    exec 3<>"/dev/tcp/127.0.0.1/${url##*:}"
    # shellcheck disable=SC2016 # the dollar is of a subject
    printf 'CONNECT {"verbose":false}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.%s answer %d\r\n%s\r\n' \
        "$1" "${#2}" "$2" >&3
    while IFS= read -r -t 5 line <&3; do
        [[ $line == MSG* ]] || continue
        length=${line##* }
        IFS= read -r -t 5 -N "${length%$'\r'}" line <&3
        printf '%s\n' "$line"
        break
    done
    exec 3>&-
}

lose() { # STREAM SEQUENCE...
    local stream=$1 sequence
    shift
    for sequence in "$@"; do
        [[ $(js "MSG.DELETE.$stream" "{\"seq\":$sequence}") == *'"success":true'* ]] ||
            die "cannot delete $sequence of $stream"
    done
}

# start NAME ARGS...: the program in the background, its output in files NAME.out and NAME.err;
# sets started. Signals reach it: bash lets background jobs of scripts ignore SIGINT.
start() {
    local name=$1
    shift
    "$waybill" "$@" >"$dir/$name.out" 2>"$dir/$name.err" </dev/null &
    started=$!
    pids+=("$started")
}

# await FILE TEXT: the file contains it within 20 s.
await() {
    for _ in $(seq 1000); do
        grep -qF -- "$2" "$1" 2>/dev/null && return 0
        sleep 0.02
    done
    die "line ${BASH_LINENO[0]}: '$2' never came into $1: $(head -c 600 "$1")"
}

# ends PID CODE [SECONDS]: the process ends by itself with this code.
ends() {
    local limit=${3:-20} code
    checks=$((checks + 1))
    for _ in $(seq $((limit * 50))); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.02
    done
    kill -0 "$1" 2>/dev/null && die "line ${BASH_LINENO[0]}: process $1 still runs after $limit s"
    wait "$1"
    code=$?
    [ "$code" -eq "$2" ] || {
        status=$code
        flunk "a process in the background: expected exit $2"
    }
}

# A port that nobody listens on: bound by nobody now, and far from the ephemeral ones.
closed_port() { echo 1; }
