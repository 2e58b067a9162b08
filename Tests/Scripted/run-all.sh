#!/bin/bash
# Runs every scripted test and adds up what they say. Arguments choose some by name: run-all.sh qemu copying.
set -u
folder=$(cd "$(dirname "$0")" && pwd)
if [ $# -eq 0 ]; then set -- command-line nbdsh copying qemu filesystem; fi
passed=0 failed=0 skipped=0
for name in "$@"; do
  echo "# $name"
  # The longest takes half a minute; a test that hangs shall not hold up everything.
  output=$(timeout --kill-after=30 300 "$folder/$name.sh" 2>&1)
  status=$?
  printf '%s\n' "$output"
  counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' <<<"$output" | tail -n 1)
  read -r p f s <<<"${counts:-0 1 0}"
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "# all scripted tests"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
