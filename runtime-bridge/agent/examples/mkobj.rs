#[allow(dead_code)]
#[path = "../tests/common/objects.rs"]
mod objects;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let put = |n: &str, o| std::fs::write(format!("{dir}/{n}.o"), objects::bytes(&o)).unwrap();
    put("pass", objects::pass());
    for n in [1, 2, 4, 8, 16, 64, 256] { put(&format!("w{n}"), objects::window(n)); }
    put("wparam", objects::window_param(64));
    put("everysec", objects::skip(Some(1_000_000_000)));
    put("defer", objects::defer());
}
