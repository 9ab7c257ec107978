autocmd BufRead,BufNewFile *.dur setfiletype durac
