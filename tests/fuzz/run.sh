#!/bin/sh
# Run every fuzz target, some seconds each: tests/fuzz/run.sh [SECONDS]. What it finds new lies in
# build/fuzz/corpus; an input that breaks something is left in build/fuzz and named.
set -eu

seconds=${1:-30}
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/fuzz
status=0

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DWAYBILL_FUZZ=ON -DWAYBILL_TESTS=ON >/dev/null
targets=
for file in "$root"/tests/fuzz/*_fuzz.c; do
    targets="$targets fuzz_$(basename "$file" _fuzz.c)"
done
# shellcheck disable=SC2086 # a list of words
cmake --build "$build" --target $targets

for target in $targets; do
    seeds=$root/tests/fuzz/corpus/${target#fuzz_}
    found=$build/corpus/${target#fuzz_}
    mkdir -p "$found"
    log=$build/$target.log
    if "$build/tests/fuzz/$target" -max_total_time="$seconds" -artifact_prefix="$build/" \
        "$found" "$seeds" >"$log" 2>&1; then
        echo "$target: $(tail -n 1 "$log")"
    else
        status=1
        echo "$target: FAILED, all of it in $log"
        tail -n 40 "$log"
    fi
done
exit $status
