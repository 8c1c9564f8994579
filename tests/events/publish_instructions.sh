#!/bin/sh
# The gate on the cost of a publish: at most 40 instructions, and 16 more for each of the 16 inline
# subscribers, whose own work is 4 or 5 of them. Instructions, unlike times, are the same on every
# run: the difference of two lengths leaves out the start of the program.
# Usage: publish_instructions.sh <program>; exits with 77 (skipped) where valgrind is missing.
set -eu
limit=$((40 + 16 * 16))
command -v valgrind >/dev/null || { echo "skipped: valgrind is not installed"; exit 77; }

instructions() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

program=$1
short=$(instructions 1000)
long=$(instructions 11000)
each=$(((long - short) / 10000))
echo "$each instructions for a publish to 16 inline subscribers, limit $limit"
[ "$each" -gt 0 ] && [ "$each" -le "$limit" ]
