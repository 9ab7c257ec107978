//! The seccomp filter of the command: which system calls the kernel asks about.
//!
//! Everything else is allowed, for which the kernel has a bitmap: it costs nothing. The table knows the calls of
//! x86-64 and of 32-bit programs; those of the x32 ABI do not exist under the filter.

use crate::fault_injection::{Fault, injects};
use durac_abi::Object;
use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386` (linux/audit.h).
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT` (asm/unistd.h).
const X32: u32 = 0x4000_0000;
/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Actions.
const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const NO_CALL: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// What a call is to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `fdatasync` of the descriptor in argument 0.
    Fdatasync,
    /// `fsync` of the same.
    Fsync,
    /// It makes something durable, or changes names or lengths: what is deferred comes first.
    Order,
    /// As `Order`; it changes the length of the descriptor in this argument.
    Length(usize),
    /// As `Order`; it may change any log, too, until it ends: which one is not looked at.
    Change,
    /// The same, and it may write after it has ended.
    Submit,
    /// It opens a file.
    Open(Open),
    /// It would sync and write where no filter sees it: refused. The command may have inherited a ring.
    Ring,
    /// The process ends.
    Exit,
    /// It writes to a file.
    Write(Write),
    /// It maps a file.
    Map(Map),
}

/// Where the arguments of a mapping are: address, length, `PROT_*`, `MAP_*`, descriptor, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// They are the call's own.
    Arguments,
    /// Words of 32 bits that argument 0 points to.
    Memory,
}

/// The arguments of a call that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The one that is the descriptor.
    pub fd: usize,
    /// Where its offset is.
    pub at: Offset,
    /// The one that has the `RWF_*`, if there is one.
    pub flags: Option<usize>,
    /// Where the number of bytes is.
    pub length: Length,
    /// The one that is the descriptor of what it reads from, if it may wait for that.
    pub source: Option<usize>,
}

/// Where a call says to which place of the file it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// It writes at the position of the descriptor.
    Position,
    /// In this argument.
    Argument(usize),
    /// In memory, if this argument is not null; else as `Position`.
    Memory(usize),
}

/// Where a call says how many bytes it writes, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// In this argument.
    Argument(usize),
    /// In the pieces that argument 1 points to; argument 2 is their number.
    Pieces,
}

/// The arguments of a call that opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The one that has the name; argument 0 is then the folder, unless it is the name. None if the file is not named.
    pub name: Option<usize>,
    /// Where its `O_*` are.
    pub flags: Flags,
}

/// Where the `O_*` of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// It always creates and truncates.
    Creates,
    /// In this argument.
    Argument(usize),
    /// In memory.
    Unseen,
}

/// What the kernel is asked about beside syncs and changes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Writes.
    pub writes: bool,
    /// Every open of a file that may be written through.
    pub opens: bool,
}

impl Asked {
    /// What an object needs.
    #[must_use]
    pub fn by(object: &Object) -> Self {
        Self { writes: object.asks_about_writes(), opens: object.meta.defers_writes }
    }
}

/// When a call is asked about.
#[derive(Clone, Copy, Debug)]
enum Test {
    Always,
    /// If argument `.0` has one of these bits.
    Has(usize, u32),
    /// If argument `.0` is another number than this.
    Not(usize, u32),
    /// If argument `.0` is one of these numbers.
    Is(usize, &'static [u32]),
}

struct Rule {
    kind: Kind,
    number: u32,
    test: Test,
}

const fn rule(number: u32, kind: Kind, test: Test) -> Rule {
    Rule { kind, number, test }
}

/// `O_CREAT`, `O_TRUNC`, `O_DSYNC` and the bit that makes it `O_SYNC`.
const OPENS: u32 = (libc::O_CREAT | libc::O_TRUNC | libc::O_SYNC) as u32;
/// What of these makes or changes a file by itself.
pub const MAKES: u64 = (libc::O_CREAT | libc::O_TRUNC) as u64;
/// `O_WRONLY` and `O_RDWR`.
const ACCESS: u32 = libc::O_ACCMODE as u32;
/// What of these makes every write durable by itself.
pub const DURABLE: u64 = libc::O_SYNC as u64;
const MS_SYNC: u32 = libc::MS_SYNC as u32;
/// `SYNC_FILE_RANGE_WAIT_BEFORE` and `_AFTER`.
const WAITS: u32 = 1 | 4;
/// `FALLOC_FL_KEEP_SIZE` (linux/falloc.h): the only mode of `fallocate` that leaves the file as it is.
const KEEP_SIZE: u32 = 1;
/// `RWF_DSYNC` and `RWF_SYNC`: the write is durable by itself.
pub const RWF: u32 = 2 | 4;
/// `RWF_APPEND`: the write goes to the end of the file, whatever the descriptor says.
pub const RWF_APPEND: u64 = 0x10;
/// `RWF_NOAPPEND`: it does not, whatever the descriptor says.
pub const RWF_NOAPPEND: u64 = 0x20;

use Kind::{Change, Exit, Fdatasync, Fsync, Length as Resize, Order, Ring, Submit};
use Test::{Always, Has, Is, Not};

const fn open(name: usize, flags: usize) -> Kind {
    Kind::Open(Open { name: Some(name), flags: Flags::Argument(flags) })
}

const CREAT: Kind = Kind::Open(Open { name: Some(0), flags: Flags::Creates });
const OPENAT2: Kind = Kind::Open(Open { name: Some(1), flags: Flags::Unseen });
const BY_HANDLE: Kind = Kind::Open(Open { name: None, flags: Flags::Argument(2) });

/// arch/x86/entry/syscalls/syscall_64.tbl
const CALLS_64: &[Rule] = &[
    rule(75, Fdatasync, Always),
    rule(74, Fsync, Always),
    rule(162, Order, Always),                // sync
    rule(306, Order, Always),                // syncfs
    rule(277, Order, Has(3, WAITS)),         // sync_file_range
    rule(26, Order, Has(2, MS_SYNC)),        // msync
    rule(328, Order, Has(5, RWF)),           // pwritev2
    rule(209, Submit, Always),               // io_submit
    rule(82, Order, Always),                 // rename
    rule(264, Order, Always),                // renameat
    rule(316, Order, Always),                // renameat2
    rule(87, Order, Always),                 // unlink
    rule(263, Order, Always),                // unlinkat
    rule(84, Order, Always),                 // rmdir
    rule(86, Order, Always),                 // link
    rule(265, Order, Always),                // linkat
    rule(88, Order, Always),                 // symlink
    rule(266, Order, Always),                // symlinkat
    rule(83, Order, Always),                 // mkdir
    rule(258, Order, Always),                // mkdirat
    rule(133, Order, Always),                // mknod
    rule(259, Order, Always),                // mknodat
    rule(76, Change, Always),                // truncate
    rule(77, Resize(0), Always),             // ftruncate
    rule(285, Resize(0), Not(1, KEEP_SIZE)), // fallocate
    rule(85, CREAT, Always),                 // creat
    rule(2, open(0, 1), Has(1, OPENS)),      // open
    rule(257, open(1, 2), Has(2, OPENS)),    // openat
    rule(437, OPENAT2, Always),              // openat2
    rule(304, BY_HANDLE, Has(2, OPENS)),     // open_by_handle_at
    rule(425, Ring, Always),                 // io_uring_setup
    rule(426, Ring, Always),                 // io_uring_enter
    rule(427, Ring, Always),                 // io_uring_register
    rule(231, Exit, Always),                 // exit_group
];

/// arch/x86/entry/syscalls/syscall_32.tbl
const CALLS_32: &[Rule] = &[
    rule(148, Fdatasync, Always),
    rule(118, Fsync, Always),
    rule(36, Order, Always),
    rule(344, Order, Always),
    rule(314, Order, Has(5, WAITS)),
    rule(144, Order, Has(2, MS_SYNC)),
    rule(379, Order, Has(5, RWF)),
    rule(248, Submit, Always),
    rule(38, Order, Always),
    rule(302, Order, Always),
    rule(353, Order, Always),
    rule(10, Order, Always),
    rule(301, Order, Always),
    rule(40, Order, Always),
    rule(9, Order, Always),
    rule(303, Order, Always),
    rule(83, Order, Always),
    rule(304, Order, Always),
    rule(39, Order, Always),
    rule(296, Order, Always),
    rule(14, Order, Always),
    rule(297, Order, Always),
    rule(92, Change, Always),
    rule(193, Change, Always), // truncate64
    rule(93, Resize(0), Always),
    rule(194, Resize(0), Always), // ftruncate64
    rule(324, Resize(0), Not(1, KEEP_SIZE)),
    rule(8, CREAT, Always),
    rule(5, open(0, 1), Has(1, OPENS)),
    rule(295, open(1, 2), Has(2, OPENS)),
    rule(437, OPENAT2, Always),
    rule(342, BY_HANDLE, Has(2, OPENS)),
    rule(425, Ring, Always),
    rule(426, Ring, Always),
    rule(427, Ring, Always),
    rule(252, Exit, Always),
];

const fn write(fd: usize, at: Offset, length: Length) -> Kind {
    Kind::Write(Write { fd, at, flags: None, length, source: None })
}

const fn counted(fd: usize, count: usize) -> Kind {
    write(fd, Offset::Position, Length::Argument(count))
}

const PWRITE: Kind = write(0, Offset::Argument(3), Length::Argument(2));
const WRITEV: Kind = write(0, Offset::Position, Length::Pieces);
const PWRITEV: Kind = write(0, Offset::Argument(3), Length::Pieces);
const PWRITEV2: Kind = Kind::Write(Write {
    fd: 0,
    at: Offset::Argument(3),
    flags: Some(5),
    length: Length::Pieces,
    source: None,
});
const COPY_FILE_RANGE: Kind = write(2, Offset::Memory(3), Length::Argument(4));
const SPLICE: Kind = Kind::Write(Write {
    fd: 2,
    at: Offset::Memory(3),
    flags: None,
    length: Length::Argument(4),
    source: Some(0),
});
const SENDFILE: Kind = Kind::Write(Write {
    fd: 0,
    at: Offset::Position,
    flags: None,
    length: Length::Argument(3),
    source: Some(1),
});
const MMAP: Kind = Kind::Map(Map::Arguments);

/// `MAP_SHARED`, the lowest bit of the type of a mapping; `MAP_PRIVATE` has another.
const SHARED: u32 = 1;

/// `MADV_REMOVE`: a hole in the file that is mapped, which a mapping that cannot be written through may make, too.
const REMOVE: &[u32] = &[libc::MADV_REMOVE as u32];
/// Calls of `ioctl` that change what is in a file: `FICLONE`, `FICLONERANGE`, `FIDEDUPERANGE` (linux/fs.h),
/// `EXT4_IOC_MOVE_EXT`, `XFS_IOC_EXCHANGE_RANGE`, and `FS_IOC_UNRESVSP`, `FS_IOC_UNRESVSP64`, `FS_IOC_ZERO_RANGE`
/// (linux/falloc.h), which have a number of their own in 32-bit programs.
const CHANGES: &[u32] = &[
    0x4004_9409,
    0x4020_940d,
    0xc018_9436,
    0xc028_660f,
    0x4028_5881,
    0x4030_5829,
    0x4030_582b,
    0x4030_5839,
    0x402c_5829,
    0x402c_582b,
    0x402c_5839,
];

/// Asked about as well if writes are.
const WRITES_64: &[Rule] = &[
    rule(18, PWRITE, Always),           // pwrite64
    rule(1, counted(0, 2), Always),     // write
    rule(20, WRITEV, Always),           // writev
    rule(296, PWRITEV, Always),         // pwritev
    rule(328, PWRITEV2, Always),        // pwritev2
    rule(40, SENDFILE, Always),         // sendfile
    rule(275, SPLICE, Always),          // splice
    rule(326, COPY_FILE_RANGE, Always), // copy_file_range
    rule(9, MMAP, Has(3, SHARED)),      // mmap
    rule(28, Change, Is(2, REMOVE)),    // madvise
    rule(440, Change, Is(3, REMOVE)),   // process_madvise
    rule(16, Change, Is(1, CHANGES)),   // ioctl
];

const WRITES_32: &[Rule] = &[
    rule(181, PWRITE, Always),
    rule(4, counted(0, 2), Always),
    rule(146, WRITEV, Always),
    rule(334, PWRITEV, Always),
    rule(379, PWRITEV2, Always),
    rule(187, SENDFILE, Always),
    rule(239, SENDFILE, Always), // sendfile64
    rule(313, SPLICE, Always),
    rule(377, COPY_FILE_RANGE, Always),
    rule(192, MMAP, Has(3, SHARED)),          // mmap2
    rule(90, Kind::Map(Map::Memory), Always), // mmap
    rule(219, Change, Is(2, REMOVE)),
    rule(440, Change, Is(3, REMOVE)),
    rule(54, Change, Is(1, CHANGES)),
];

/// What a call is that the kernel asks about; none if the table does not have it. `writes` says whether the filter asks
/// about writes.
#[must_use]
pub fn kind(arch: u32, number: i32, writes: bool) -> Option<Kind> {
    let (calls, asked) = match arch {
        X86_64 => (CALLS_64, WRITES_64),
        I386 => (CALLS_32, WRITES_32),
        _ => return None,
    };
    let is_it = |rule: &&Rule| i64::from(rule.number) == i64::from(number);
    let of_writes = || asked.iter().filter(|_| writes).find(is_it);
    // Syncs first, which are most of what is asked about; no call of a sync is in both.
    let found = match calls.iter().find(is_it) {
        Some(rule) if matches!(rule.test, Test::Always) => Some(rule),
        other => of_writes().or(other),
    };
    let sees = |rule: &&Rule| arch != I386 || rule.kind != Order || !injects(Fault::Only64);
    found.filter(sees).map(|rule| rule.kind)
}

/// Bytes of a pointer and of a length.
#[must_use]
pub fn word(arch: u32) -> u64 {
    if arch == I386 { 4 } else { 8 }
}

/// The filter that asks about syncs, changes of names, and what is `asked` beside.
#[must_use]
pub fn program(asked: Asked) -> Vec<sock_filter> {
    let with = |writes: &'static [Rule], calls: &'static [Rule]| {
        table(writes.iter().filter(|_| asked.writes).chain(calls), asked)
    };
    let (of_64, of_32) = (with(WRITES_64, CALLS_64), with(WRITES_32, CALLS_32));
    let mut program = vec![
        statement(BPF_LD | BPF_W | BPF_ABS, ARCH),
        jump(BPF_JEQ, I386, 0, 1),
        // Jumps by a number of 32 bits.
        statement(BPF_JMP, of_64.len() as u32 + 5),
        jump(BPF_JEQ, X86_64, 1, 0),
        statement(BPF_RET | BPF_K, ALLOW),
        statement(BPF_LD | BPF_W | BPF_ABS, NUMBER),
        jump(BPF_JGE, X32, 0, 1),
        statement(BPF_RET | BPF_K, NO_CALL),
    ];
    program.extend(of_64);
    program.push(statement(BPF_LD | BPF_W | BPF_ABS, NUMBER));
    program.extend(of_32);
    program
}

/// Tells filters apart: two of the same number ask about the same calls.
#[must_use]
pub fn mark(asked: Asked) -> u64 {
    let words = |insn: &sock_filter| {
        let [a, b] = insn.code.to_le_bytes();
        let [c, d, e, f] = insn.k.to_le_bytes();
        [a, b, insn.jt, insn.jf, c, d, e, f]
    };
    let bytes: Vec<u8> = program(asked).iter().flat_map(words).collect();
    durac_abi::object::fingerprint(&bytes)
}

/// The number of the call is loaded: what becomes of it.
fn table<'a>(rules: impl Iterator<Item = &'a Rule>, asked: Asked) -> Vec<sock_filter> {
    let mut table = Vec::new();
    for rule in rules {
        match rule.test {
            Test::Always => {
                table.push(jump(BPF_JEQ, rule.number, 0, 1));
                table.push(statement(BPF_RET | BPF_K, NOTIFY));
            }
            Test::Not(argument, number) => {
                table.push(jump(BPF_JEQ, rule.number, 0, 4));
                // The lower half: the system looks at no more.
                let place = ARGUMENTS + 8 * argument as u32;
                table.push(statement(BPF_LD | BPF_W | BPF_ABS, place));
                table.push(jump(BPF_JEQ, number, 1, 0));
                table.push(statement(BPF_RET | BPF_K, NOTIFY));
                table.push(statement(BPF_RET | BPF_K, ALLOW));
            }
            Test::Is(argument, numbers) => {
                let count = numbers.len() as u8;
                table.push(jump(BPF_JEQ, rule.number, 0, count + 3));
                // The lower half: the system looks at no more.
                let place = ARGUMENTS + 8 * argument as u32;
                table.push(statement(BPF_LD | BPF_W | BPF_ABS, place));
                for (index, number) in (0..).zip(numbers) {
                    table.push(jump(BPF_JEQ, *number, count - index, 0));
                }
                table.push(statement(BPF_RET | BPF_K, ALLOW));
                table.push(statement(BPF_RET | BPF_K, NOTIFY));
            }
            Test::Has(argument, bits) => {
                let opens = asked.opens && matches!(rule.kind, Kind::Open(_));
                let bits = if opens { bits | ACCESS } else { bits };
                table.push(jump(BPF_JEQ, rule.number, 0, 4));
                // The lower half: no flag is above it.
                let place = ARGUMENTS + 8 * argument as u32;
                table.push(statement(BPF_LD | BPF_W | BPF_ABS, place));
                table.push(jump(BPF_JSET, bits, 0, 1));
                table.push(statement(BPF_RET | BPF_K, NOTIFY));
                table.push(statement(BPF_RET | BPF_K, ALLOW));
            }
        }
    }
    table.push(statement(BPF_RET | BPF_K, ALLOW));
    table
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | code | BPF_K) as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel does.
    fn run(arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        run_of(&program(Asked::default()), arch, number, arguments)
    }

    fn run_of(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |at: u32| match at {
            NUMBER => number,
            ARCH => arch,
            at => {
                let value = arguments[((at - ARGUMENTS) / 8) as usize];
                (value >> (8 * ((at - ARGUMENTS) % 8))) as u32
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let insn = program[at];
            let code = u32::from(insn.code);
            at += 1;
            match code & 7 {
                BPF_LD => a = word(insn.k),
                BPF_RET => return insn.k,
                BPF_JMP => {
                    let holds = match code & 0xf0 {
                        0 => {
                            at += insn.k as usize;
                            continue;
                        }
                        BPF_JEQ => a == insn.k,
                        BPF_JGE => a >= insn.k,
                        BPF_JSET => a & insn.k != 0,
                        other => panic!("{other}"),
                    };
                    at += usize::from(if holds { insn.jt } else { insn.jf });
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn the_kernel_asks_about_the_calls_of_the_table_and_no_others() {
        for (arch, rules) in [(X86_64, CALLS_64), (I386, CALLS_32)] {
            for number in 0..600 {
                let rule = rules.iter().find(|rule| rule.number == number);
                let all = run(arch, number, [u64::MAX; 6]);
                assert_eq!(all == NOTIFY, rule.is_some(), "{arch:x} {number}");
                let none = run(arch, number, [0; 6]);
                let asked = rule.is_some_and(|rule| !matches!(rule.test, Test::Has(..)));
                assert_eq!(none == NOTIFY, asked, "{arch:x} {number}");
                assert_eq!(kind(arch, number as i32, false), rule.map(|rule| rule.kind));
                assert!(all == NOTIFY || all == ALLOW);
            }
        }
        assert_eq!(run(X86_64, X32 | 75, [0; 6]), NO_CALL);
        assert_eq!(run(0xc000_00b7, 82, [0; 6]), ALLOW);
    }

    #[test]
    fn filters_are_told_apart() {
        let asked = [(false, false), (true, false), (false, true), (true, true)];
        let marks: std::collections::HashSet<u64> =
            asked.map(|(writes, opens)| mark(Asked { writes, opens })).into_iter().collect();
        assert_eq!(marks.len(), 4);
    }

    #[test]
    fn writes_are_asked_about_where_they_matter() {
        let program = program(Asked { writes: true, opens: false });
        for (arch, asked, calls) in [(X86_64, WRITES_64, CALLS_64), (I386, WRITES_32, CALLS_32)] {
            for rule in asked.iter().chain(calls) {
                let Test::Is(argument, numbers) = rule.test else {
                    assert_eq!(run_of(&program, arch, rule.number, [u64::MAX; 6]), NOTIFY);
                    continue;
                };
                for number in numbers {
                    let with = |value| {
                        let mut arguments = [0; 6];
                        arguments[argument] = value;
                        run_of(&program, arch, rule.number, arguments)
                    };
                    assert_eq!(with((*number).into()), NOTIFY);
                    assert_eq!(with(u64::from(*number) | 7 << 32), NOTIFY);
                    assert_eq!(with(u64::from(*number) + 0x100), ALLOW);
                }
                assert_eq!(run_of(&program, arch, rule.number, [0; 6]), ALLOW);
            }
            for rule in asked {
                assert_eq!(kind(arch, rule.number as i32, true), Some(rule.kind));
                assert_ne!(kind(arch, rule.number as i32, false), Some(rule.kind));
            }
        }
        // A private mapping. The old call of 32-bit programs has its flags in memory.
        assert_eq!(run_of(&program, X86_64, 9, [0, 0, 3, 2, 4, 0]), ALLOW);
        assert_eq!(run_of(&program, I386, 90, [0; 6]), NOTIFY);
    }

    #[test]
    fn flags_decide_about_calls_that_have_some() {
        let open = |flags: i32| run(X86_64, 257, [0, 0, flags as u64, 0, 0, 0]);
        assert_eq!(open(libc::O_RDWR | libc::O_CLOEXEC | libc::O_DIRECTORY), ALLOW);
        for flag in [libc::O_CREAT, libc::O_TRUNC, libc::O_DSYNC, libc::O_SYNC] {
            assert_eq!(open(libc::O_RDWR | flag), NOTIFY);
        }
        // Access to write is asked about where a policy looks for what is written.
        let program = program(Asked { writes: false, opens: true });
        let open = |number, flags: [u64; 3]| {
            run_of(&program, X86_64, number, [0, flags[0], flags[1], flags[2], 0, 0])
        };
        assert_eq!(open(257, [0, libc::O_RDONLY as u64, 0]), ALLOW);
        assert_eq!(open(257, [0, libc::O_WRONLY as u64, 0]), NOTIFY);
        assert_eq!(open(257, [0, (libc::O_RDWR | libc::O_APPEND) as u64, 0]), NOTIFY);
        assert_eq!(open(304, [0, libc::O_RDWR as u64, 0]), NOTIFY);
        assert_eq!(run_of(&program, X86_64, 1, [1; 6]), ALLOW);
        // Only preallocation that keeps the size leaves a file as it is.
        for (arch, number) in [(X86_64, 285), (I386, 324)] {
            let allocate = |mode| run(arch, number, [3, mode, 0, 4096, 0, 0]);
            assert_eq!(allocate(1), ALLOW);
            assert_eq!(allocate(1 | 7 << 32), ALLOW);
            for mode in [0, 2, 3, 0x10, 0x11, 0x40] {
                assert_eq!(allocate(mode), NOTIFY, "{mode:x}");
            }
        }
    }
}
