//! File name patterns.

use durac_abi::glob::matches;
use std::path::Path;

#[test]
fn name_or_path() {
    let yes = [
        ("*.aof", "/data/appendonly.aof.1.incr.aof"),
        ("*.aof", "x.aof"),
        ("a?c", "/b/abc"),
        ("/data/*/x*", "/data/one/xyz"),
        ("*", "anything"),
        ("*a*b*", "xxaxxbxx"),
        ("wal-*.log", "wal-.log"),
        ("**/journal/*.ldg", "/a/b/journal/x.ldg"),
        ("**/journal/*.ldg", "/journal/x.ldg"),
        ("**/journal/*.ldg", "journal/x.ldg"),
        ("/data/**/x", "/data/x"),
        ("/data/**/x", "/data/a/b/x"),
        ("/data/**/a/*/x", "/data/a/a/a/b/x"),
        ("/data/**", "/data/a/b"),
        ("/data/**.log", "/data/a/b.log"),
        ("**/a*/**/*c", "/ab/d/bc"),
    ];
    for (pattern, path) in yes {
        assert!(matches(pattern, Path::new(path)), "{pattern} {path}");
    }
    let no = [
        ("*.aof", "/data.aof/manifest"),
        ("a?c", "ac"),
        ("/data/*", "/data/one/xyz"),
        ("**/journal/*.ldg", "/a/journal/b/x.ldg"),
        ("**/journal/*.ldg", "/a/xjournal/x.ldg"),
        ("/data/**/x", "/data/ax"),
        ("/data/**/x", "/other/x"),
        ("/data/**", "/dat/a"),
        ("/data/?x", "/data//x"),
        ("*.aof", "appendonly.aof.manifest"),
        ("", "x"),
        ("*a*b", "ba"),
    ];
    for (pattern, path) in no {
        assert!(!matches(pattern, Path::new(path)), "{pattern} {path}");
    }
}
