#!/usr/bin/env bash
# Colours a policy with the real editors' engines: VS Code's TextMate engine (vscode-tmgrammar-test, from npm)
# and Vim. Needs a network for npm.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=../../tests/setup.sh
. "$root/tests/setup.sh"
install_missing npm:npm vim:vim

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$here/vscode/." "$work"
say "VS Code"
(
    cd "$work"
    npm install --silent --no-audit --no-fund >&2
    npx vscode-tmgrammar-test -g syntaxes/durac.tmLanguage.json "syntaxes/*.test.dur"
    node --check extension.js
)

say "Vim"
cat >"$work/colours.vim" <<EOF
set nocompatible
set runtimepath^=$here/vim
filetype on
syntax on
edit $root/stdlib/policies/window.dur
function! Group(text)
    call cursor(1, 1)
    call search('\V' . a:text)
    return synIDattr(synID(line('.'), col('.'), 1), 'name')
endfunction
for [text, group] in [['policy', 'duracItem'], ['await', 'duracStatement'], ['pending', 'duracReading'],
    \\ ['4096', 'duracNumber'], ['power_loss', 'duracConstant'], ['At most', 'duracComment'],
    \\ ['a full', 'duracString']]
    if Group(text) !=# group
        call writefile([text . ': ' . Group(text) . ', not ' . group], '$work/wrong', 'a')
    endif
endfor
call writefile([&filetype], '$work/filetype')
qa!
EOF
timeout 60 vim -es -u "$work/colours.vim" </dev/null
[ "$(cat "$work/filetype")" = durac ]
if [ -e "$work/wrong" ]; then
    cat "$work/wrong"
    exit 1
fi
echo "both colour a policy as it should be"
