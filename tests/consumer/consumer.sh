#!/usr/bin/env bash
# Installs the library into an empty prefix, cuts the C program out of the README, builds it by
# pkg-config and by find_package, and runs both. consumer.sh SOURCE BUILD CC
set -euo pipefail
source=$1 build=$2 cc=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cmake --install "$build" --prefix "$dir/prefix" >/dev/null
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$source/README.md" >"$dir/app.c"
[ -s "$dir/app.c" ] || { echo "the README has no C program"; exit 1; }
lib=$(dirname "$(find "$dir/prefix" -name libwaybill.so)")
export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib

run() { # NAME PROGRAM
    local out
    mkdir "$dir/$1.run"
    out=$(cd "$dir/$1.run" && "$2")
    [ "$out" = "orders.placed" ] || { echo "$1: printed '$out', expected 'orders.placed'"; exit 1; }
    echo "$1: ok"
}

# shellcheck disable=SC2046 # words are what pkg-config prints
"$cc" -std=c11 -Wall -Wextra -Werror "$dir/app.c" $(pkg-config --cflags --libs waybill sqlite3) -o "$dir/by_pkg_config"
run pkg-config "$dir/by_pkg_config"

mkdir "$dir/project"
cp "$dir/app.c" "$dir/project/"
cat >"$dir/project/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.25)
project(app LANGUAGES C)
find_package(waybill 0.1 REQUIRED)
find_package(SQLite3 REQUIRED)
add_executable(app app.c)
target_link_libraries(app PRIVATE waybill::waybill SQLite::SQLite3)
EOF
cmake -G Ninja -S "$dir/project" -B "$dir/project/build" -DCMAKE_PREFIX_PATH="$dir/prefix" -DCMAKE_C_COMPILER="$cc" >/dev/null
cmake --build "$dir/project/build" >/dev/null
run find_package "$dir/project/build/app"

# What the headers need is in them: each compiles alone, as C11 and as C++ where there is a compiler.
for header in "$dir"/prefix/include/waybill/*.h; do
    echo "#include <waybill/$(basename "$header")>" | "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror \
        -fsyntax-only -I"$dir/prefix/include" -x c -
done
echo "headers: ok"
