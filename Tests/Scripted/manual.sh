#!/bin/bash
# The plugin's manual page is right POD, has each section once, and names what the plugin has.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "the manual page" podchecker nbdkit

page=$repository/plugin/nbdkit-lacuna-plugin.pod
# The value of a line `lacuna_NAME=...` of --dump-plugin: as the plugin says it, or as the page's example has it.
said_by_plugin() { sed -n "s/^lacuna_$1=//p" "$work/dump"; }
said_by_page() { sed -n "s/^ lacuna_$1=//p" "$page"; }

check_equal "podchecker finds nothing" "$page pod syntax OK." "$(podchecker -warnings -warnings "$page" 2>&1)"
check_equal "no section is there twice" "" "$(sed -n 's/^=head1 //p' "$page" | sort | uniq --repeated)"
for section in NAME SYNOPSIS DESCRIPTION EXPORTS PARAMETERS EXAMPLES ERRORS FILES "SEE ALSO" VERSION AUTHORS COPYRIGHT; do
  check "there is a section $section" grep -qx "=head1 $section" "$page"
done

nbdkit "$plugin" --dump-plugin >"$work/dump"
for name in version parameters engines; do
  check_equal "the example has the plugin's $name" "$(said_by_plugin "$name")" "$(said_by_page "$name")"
done
check "the page is of the plugin's version" grep -qF "This page is of version $(said_by_plugin version)." "$page"
synopsis=$(sed -n '/^=head1 SYNOPSIS/,/^=head1 DESCRIPTION/p' "$page")
for parameter in $(said_by_plugin parameters | tr , ' '); do
  check "the parameter $parameter is explained" grep -q "^=item .*B<$parameter=" "$page"
  if [ "$parameter" = store ]; then word='[store=]' word_end=''; else word="$parameter" word_end='='; fi
  check "the synopsis has $parameter" grep -qF "$word$word_end" <<<"$synopsis"
done
