//! The syntax tree: one for the compiler and the formatter.
//!
//! The tree holds what was written, not what it means: names are unresolved, units unchecked.
//! Comments are kept beside it (see [`File::comments`]) so that the formatter can put them back.

use crate::span::{Span, Spanned};

/// A name as written.
pub type Ident = Spanned<String>;

/// A dotted name, such as `redis.aof` or `sync.latency`. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The parts between the dots.
    pub parts: Vec<Ident>,
}

impl Path {
    /// The name with its dots.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.parts.iter().map(|p| p.node.as_str()).collect::<Vec<_>>().join(".")
    }
}

/// One source file: a policy, or the definition of targets.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// In source order.
    pub items: Vec<Spanned<Item>>,
    /// Every comment, in source order. Equal trees may differ in them: see [`Comments`].
    pub comments: Comments,
}

/// The comments of a file. Always equal to each other, so that trees compare by meaning.
#[derive(Clone, Debug, Default)]
pub struct Comments(pub Vec<Comment>);

impl PartialEq for Comments {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// `// text` or `/// text`.
#[derive(Clone, Debug)]
pub struct Comment {
    /// The whole comment with its slashes, without the line end.
    pub text: String,
    /// Its place.
    pub span: Span,
}

/// A top-level item.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `policy NAME`
    Policy(Ident),
    /// `target NAME`: the target this policy is for.
    Target(Path),
    /// `target NAME { … }`: the definition of a target.
    TargetDef(TargetDef),
    /// `guarantee loss <= 2 syncs on power_loss`
    Guarantee(Guarantee),
    /// `assume sync <= 10ms`
    Assume(Assume),
    /// `param n: syncs = 64 in 1..=4096`
    Param(Param),
    /// `state slow: bool = false`
    State(State),
    /// `on fdatasync: …` or `on fdatasync { … }`
    On(On),
    /// `on error: fail` or `on error: stop`
    OnError(Ident),
    /// `flush within 50ms`
    Flush(Spanned<Expr>),
    /// `use kernel notify`
    Use(Vec<Ident>),
    /// `test "idle tail" { … }`
    Test(Test),
    /// What could not be parsed; a diagnostic says why.
    Error,
}

/// `guarantee loss <= 2 syncs on power_loss`
#[derive(Clone, Debug, PartialEq)]
pub struct Guarantee {
    /// What is bounded: `loss`.
    pub subject: Ident,
    /// `<=` or `=` ([`BinOp::Le`], [`BinOp::Eq`]), or another comparison, which the checker refuses.
    pub relation: Spanned<BinOp>,
    /// The bound.
    pub bound: Spanned<Expr>,
    /// `to clients`: whose loss is bounded, if not the application's.
    pub audience: Option<(Ident, Ident)>,
    /// `power_loss` or `process_crash`.
    pub failure: Ident,
}

/// `assume sync <= 10ms`
#[derive(Clone, Debug, PartialEq)]
pub struct Assume {
    /// What is bounded: `sync`.
    pub subject: Ident,
    /// `<=`, or another comparison, which the checker refuses.
    pub relation: Spanned<BinOp>,
    /// The bound.
    pub bound: Spanned<Expr>,
}

/// `param n: syncs = 64 in 1..=4096`
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Name in the policy.
    pub name: Ident,
    /// Its type.
    pub ty: Ident,
    /// The value it starts with.
    pub default: Spanned<Expr>,
    /// `low..=high`, both included.
    pub range: Option<(Spanned<Expr>, Spanned<Expr>)>,
}

/// `state slow: bool = false`
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Name in the policy.
    pub name: Ident,
    /// Its type.
    pub ty: Ident,
    /// The value it starts with, for each log.
    pub init: Spanned<Expr>,
}

/// A hook and what to do there.
#[derive(Clone, Debug, PartialEq)]
pub struct On {
    /// `write`, `fsync`, `fdatasync`, `reply`.
    pub hook: Ident,
    /// Whether the body was written with braces; the formatter keeps the choice.
    pub braces: bool,
    /// The statements.
    pub body: Block,
}

/// Statements in order. Equal to another block whatever their places.
#[derive(Clone, Debug)]
pub struct Block {
    /// The statements.
    pub stmts: Vec<Spanned<Stmt>>,
    /// From the first statement (or brace) to the last.
    pub span: Span,
    /// Whether it is in braces.
    pub braces: bool,
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.stmts == other.stmts && self.braces == other.braces
    }
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// `pass`
    Pass,
    /// `defer`
    Defer,
    /// `skip`
    Skip,
    /// `stage`
    Stage,
    /// `commit`
    Commit,
    /// `fail EIO`
    Fail(Ident),
    /// `hold until durable`
    Hold(Ident),
    /// `gather within 60us`
    Gather(Spanned<Expr>),
    /// `await previous`, `await all`, `await pending < n`: the checker looks at the shape.
    Await(Spanned<Expr>),
    /// `slow = sync.latency > 5ms`
    Assign(Path, Spanned<Expr>),
    /// `if c { … } else { … }`; the else branch may be a block that holds one `if`.
    If {
        /// The condition.
        cond: Spanned<Expr>,
        /// Taken when it holds.
        then: Block,
        /// Taken when it does not.
        otherwise: Option<Block>,
    },
    /// `unless c { … }`
    Unless {
        /// The condition.
        cond: Spanned<Expr>,
        /// Taken when it does not hold.
        then: Block,
    },
    /// `every 1s { … }`, `every 48 calls { … }`
    Every {
        /// The period.
        period: Spanned<Expr>,
        /// Run once in each period.
        body: Block,
    },
    /// What could not be parsed; a diagnostic says why.
    Error,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `64`, or with its unit attached: `50ms`, `4MiB`. The value is as written, not scaled.
    Number {
        /// The digits' value.
        value: u64,
        /// The suffix.
        unit: Option<Suffix>,
    },
    /// `true`, `false`
    Bool(bool),
    /// `n`, `pending`, `sync.latency`
    Name(Path),
    /// `2 syncs`, `n syncs`, `48 calls`: an expression with a unit word.
    Unit(Box<Spanned<Expr>>, Spanned<UnitWord>),
    /// `!a`
    Not(Box<Spanned<Expr>>),
    /// `a + b`
    Binary(Box<Spanned<Expr>>, Spanned<BinOp>, Box<Spanned<Expr>>),
    /// What could not be parsed; a diagnostic says why.
    Error,
}

/// The largest number, with its unit: nothing that is counted or measured comes near it, and twice as much still fits into 64 bits.
pub const LARGEST: u64 = u64::MAX / 2;

/// A unit attached to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffix {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
    /// Minutes.
    Min,
    /// Bytes.
    B,
    /// 1024 bytes.
    KiB,
    /// 1024 KiB.
    MiB,
    /// 1024 MiB.
    GiB,
}

impl Suffix {
    /// Every suffix, in the order of the documentation.
    pub const ALL: [Suffix; 9] = [
        Suffix::Ns,
        Suffix::Us,
        Suffix::Ms,
        Suffix::S,
        Suffix::Min,
        Suffix::B,
        Suffix::KiB,
        Suffix::MiB,
        Suffix::GiB,
    ];

    /// As it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Suffix::Ns => "ns",
            Suffix::Us => "us",
            Suffix::Ms => "ms",
            Suffix::S => "s",
            Suffix::Min => "min",
            Suffix::B => "B",
            Suffix::KiB => "KiB",
            Suffix::MiB => "MiB",
            Suffix::GiB => "GiB",
        }
    }

    /// A number of it in base units; none if that is larger than [`LARGEST`].
    #[must_use]
    pub fn scaled(self, number: u64) -> Option<u64> {
        number.checked_mul(self.scale()).filter(|value| *value <= LARGEST)
    }

    /// How many base units (nanoseconds or bytes) one of it is.
    #[must_use]
    pub fn scale(self) -> u64 {
        match self {
            Suffix::Ns | Suffix::B => 1,
            Suffix::Us => 1_000,
            Suffix::Ms => 1_000_000,
            Suffix::S => 1_000_000_000,
            Suffix::Min => 60_000_000_000,
            Suffix::KiB => 1 << 10,
            Suffix::MiB => 1 << 20,
            Suffix::GiB => 1 << 30,
        }
    }

    /// Whether it measures time; otherwise it measures bytes.
    #[must_use]
    pub fn is_time(self) -> bool {
        matches!(self, Suffix::Ns | Suffix::Us | Suffix::Ms | Suffix::S | Suffix::Min)
    }
}

/// A reserved word that gives a number its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitWord {
    /// `syncs` (also written `sync` after a number: not a word of its own, since `sync` is a name).
    Syncs,
    /// `writes`
    Writes,
    /// `updates`
    Updates,
    /// `bytes`
    Bytes,
    /// `calls`
    Calls,
}

impl UnitWord {
    /// As it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            UnitWord::Syncs => "syncs",
            UnitWord::Writes => "writes",
            UnitWord::Updates => "updates",
            UnitWord::Bytes => "bytes",
            UnitWord::Calls => "calls",
        }
    }
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinOp {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`, and `=` in a guarantee
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Rem,
}

impl BinOp {
    /// As it is written in an expression.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            BinOp::Or => "||",
            BinOp::And => "&&",
            BinOp::Eq => "==",
            BinOp::Ne => "!=",
            BinOp::Lt => "<",
            BinOp::Le => "<=",
            BinOp::Gt => ">",
            BinOp::Ge => ">=",
            BinOp::Add => "+",
            BinOp::Sub => "-",
            BinOp::Mul => "*",
            BinOp::Div => "/",
            BinOp::Rem => "%",
        }
    }

    /// Binding strength; higher binds tighter. Comparisons do not chain.
    #[must_use]
    pub fn precedence(self) -> u8 {
        match self {
            BinOp::Or => 1,
            BinOp::And => 2,
            BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge => 3,
            BinOp::Add | BinOp::Sub => 4,
            BinOp::Mul | BinOp::Div | BinOp::Rem => 5,
        }
    }
}

/// `target redis.aof { files "*.incr.aof"  hook … }`
#[derive(Clone, Debug, PartialEq)]
pub struct TargetDef {
    /// Its dotted name.
    pub name: Path,
    /// `files "a", "b"`: globs on the last path component, or on the whole path if they have a `/`.
    pub files: Vec<Spanned<String>>,
    /// `except "c"`: globs that take files out again.
    pub except: Vec<Spanned<String>>,
    /// `engine thread`: what writes staged bytes; one at most, if it is right.
    pub engines: Vec<Ident>,
    /// `callers one`: whether calls on one log overlap; one at most, if it is right.
    pub callers: Vec<Ident>,
    /// `records resp`: how the log is divided into updates; one at most, if it is right.
    pub records: Vec<Ident>,
    /// `layout ring`: where the log is written; one at most, if it is right.
    pub layouts: Vec<Ident>,
    /// `protects "*.db"`: globs of files that are not written while the log is behind.
    pub protects: Vec<Spanned<String>>,
    /// `hold replicas`: what is sent to replicas is held as replies are; one at most, if it is right.
    pub holds: Vec<Ident>,
    /// The hooks, in order.
    pub hooks: Vec<Spanned<HookDef>>,
}

/// `hook write(log: file, data: borrowed bytes, len: bytes) -> bytes { entry … may … }`
#[derive(Clone, Debug)]
pub struct HookDef {
    /// `write`
    pub name: Ident,
    /// Its parameters.
    pub params: Vec<HookParam>,
    /// Its result type.
    pub result: Option<Ident>,
    /// `entry libc "write", "writev"`
    pub entries: Vec<Entry>,
    /// `may pass, defer, await`: what a policy may do at this hook, in this order.
    pub may: Vec<Ident>,
    /// The whole `may` line, for the diagnostic that refuses more; the closing brace if there is
    /// none.
    pub may_span: Span,
}

impl PartialEq for HookDef {
    fn eq(&self, other: &Self) -> bool {
        // Every field but the place.
        let Self { name, params, result, entries, may, may_span: _ } = self;
        *name == other.name
            && *params == other.params
            && *result == other.result
            && *entries == other.entries
            && *may == other.may
    }
}

/// `data: borrowed bytes`
#[derive(Clone, Debug, PartialEq)]
pub struct HookParam {
    /// `data`
    pub name: Ident,
    /// Whether the application keeps it: the policy cannot hold it beyond the hook.
    pub borrowed: bool,
    /// `bytes`, `file`
    pub ty: Ident,
}

/// `libc "write"`: where the hook is entered.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `libc` or `symbol` (a function the patched application exports).
    pub kind: Ident,
    /// The symbol.
    pub symbol: Spanned<String>,
}

/// `test "idle tail" { write; fdatasync -> deferred }`
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Its name, without quotes.
    pub name: Spanned<String>,
    /// What happens, and what is expected.
    pub body: Steps,
}

/// Steps in braces. Equal to others whatever their places.
#[derive(Clone, Debug)]
pub struct Steps {
    /// In order.
    pub steps: Vec<Spanned<Step>>,
    /// From brace to brace.
    pub span: Span,
}

impl PartialEq for Steps {
    fn eq(&self, other: &Self) -> bool {
        self.steps == other.steps
    }
}

/// A step of a test: something that happens, or something that is expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `write 100B -> staged`, `fdatasync -> deferred`, `reply -> held`, `turn 3 -> gathers`: the application makes a
    /// call.
    Call {
        /// The hook.
        hook: Ident,
        /// `clean reply`: what the reply depends on is durable.
        clean: bool,
        /// Bytes of a write or reply, descriptors of a turn, if given.
        len: Option<Spanned<Expr>>,
        /// What the call is expected to do.
        returns: Option<Spanned<Outcome>>,
    },
    /// `sync ends`, `sync fails EIO`: the sync under way ends.
    Sync {
        /// The error, if it fails.
        error: Option<Ident>,
        /// What the call that waits is expected to do then.
        returns: Option<Spanned<Outcome>>,
    },
    /// `next sync fails EIO`: the next sync that a call makes itself.
    NextFails(Ident),
    /// `after 20ms`
    After(Spanned<Expr>),
    /// `set n = 4`
    Set(Ident, Spanned<Expr>),
    /// `child starts`, `child ends`
    Child {
        /// Whether it starts.
        starts: bool,
    },
    /// `another file is synced`
    Another {
        /// What that call is expected to do.
        returns: Option<Spanned<Outcome>>,
    },
    /// `power_loss: loses 1 sync`: what would be lost now. The run goes on as if it had not happened.
    Crash {
        /// `power_loss` or `process_crash`.
        failure: Ident,
        /// Whether less is right, too.
        at_most: bool,
        /// How much; none for `nothing`.
        loses: Option<Spanned<Expr>>,
    },
    /// `sync runs`, `no sync runs`: whether a background sync is under way.
    Runs(bool),
    /// `pending == 2`
    Expect(Spanned<Expr>),
    /// `repeat 16 { write; fdatasync }`
    Repeat {
        /// How often.
        times: Spanned<Expr>,
        /// The braces and what is between them.
        body: Steps,
    },
    /// What could not be parsed; a diagnostic says why.
    Error,
}

/// What a call is expected to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `passed`: it ran as the application made it, and succeeded.
    Passed,
    /// `deferred`: it reported success, and a sync in the background was requested.
    Deferred,
    /// `skipped`: it reported success.
    Skipped,
    /// `staged`: its bytes were copied.
    Staged,
    /// `held`: the reply is sent later.
    Held,
    /// `gathers`: the turn looks for more ready descriptors.
    Gathers,
    /// `waits`: it has not returned yet.
    Waits,
    /// `fails EIO`
    Fails(Ident),
}

impl Outcome {
    /// The words that stand for one, for "did you mean".
    pub const WORDS: [&str; 8] =
        ["passed", "deferred", "skipped", "staged", "held", "gathers", "waits", "fails"];

    /// Its first word, as it is written.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Deferred => "deferred",
            Outcome::Skipped => "skipped",
            Outcome::Staged => "staged",
            Outcome::Held => "held",
            Outcome::Gathers => "gathers",
            Outcome::Waits => "waits",
            Outcome::Fails(_) => "fails",
        }
    }
}
