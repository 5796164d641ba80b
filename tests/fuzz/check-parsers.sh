#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# PARSERS.md names files and targets that exist, and every target: TAP.
set -u
cd "${srcdir:-.}" || exit 1
table=$(sed -n 's/^| [^|]* | \([a-z0-9/.-]*\.c\) | \([a-z-]*\) |$/\1 \2/p' tests/fuzz/PARSERS.md)
bad=0
for file in $(echo "$table" | cut -d ' ' -f 1); do
    [ -e "$file" ] || { echo "# $file is not there"; bad=1; }
done
for target in $(echo "$table" | cut -d ' ' -f 2 | sort -u); do
    [ -e "tests/fuzz/fuzz-$target.c" ] || { echo "# there is no fuzz-$target"; bad=1; }
    grep -q "tests/fuzz/fuzz-$target\( \|$\)" tests/fuzz/Makefile.inc || { echo "# fuzz-$target is not built"; bad=1; }
done
for source in tests/fuzz/fuzz-*.c; do
    target=${source#tests/fuzz/fuzz-}
    echo "$table" | grep -q " ${target%.c}\$" || { echo "# fuzz-${target%.c} fuzzes nothing in the table"; bad=1; }
done
echo 1..1
[ $bad -eq 0 ] && echo "ok 1 - every parser has its target" || echo "not ok 1 - every parser has its target"
exit $bad
