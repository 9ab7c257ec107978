" Colours for durability policies (*.dur).
if exists("b:current_syntax")
    finish
endif

syntax match duracName "\<[A-Za-z_][A-Za-z0-9_]*\>"
syntax match duracNumber "\<[0-9][0-9_]*\%(ns\|us\|ms\|s\|min\|B\|KiB\|MiB\|GiB\)\?\>"
syntax match duracReading "\<\%(pending\%(\.\%(bytes\|updates\|age\)\)\?\|staged\|sync\.latency\|notify\.\%(done\|count\)\|child\.active\|call\.\%(len\|updates\)\|now\)\>"
syntax match duracErrno "\<E[A-Z]\{2,}\>"
syntax keyword duracItem policy target guarantee assume param state on flush within use in test
syntax keyword duracItem hook files except engine callers layout protects records entry may borrowed
syntax keyword duracStatement pass defer skip stage commit fail hold gather await until
syntax keyword duracConditional if else unless every
syntax keyword duracType syncs writes updates bytes calls count duration bool
syntax keyword duracConstant true false power_loss process_crash
syntax region duracString start=+"+ end=+"\|$+
syntax match duracComment "//.*$" contains=@Spell

highlight default link duracComment Comment
highlight default link duracConditional Conditional
highlight default link duracConstant Boolean
highlight default link duracErrno Constant
highlight default link duracItem Keyword
highlight default link duracNumber Number
highlight default link duracReading Identifier
highlight default link duracStatement Statement
highlight default link duracString String
highlight default link duracType Type

setlocal commentstring=//\ %s
let b:current_syntax = "durac"
