//! A checked policy: names resolved, units checked, literals scaled, actions allowed.
//!
//! Architecture invariant: building a [`Policy`] without diagnostics of severity error is what
//! "the policy is right" means; later stages do not look at the syntax tree.

use crate::bounds::Loss;
use crate::unit::Unit;
pub use durac_abi::object::Failure;
use durac_abi::object::{Action, OnError};
use durac_abi::{Callers, Engine, Hook, Layout, Reading, Records, words};
use durac_grammar::{Span, Spanned};
use std::fmt;

/// A checked policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name in the text, or the stem of the file.
    pub name: String,
    /// The target it runs at.
    pub target: Target,
    /// Parameters, in source order.
    pub params: Vec<Param>,
    /// State variables; the ones the compiler makes follow the written ones.
    pub states: Vec<State>,
    /// What the author wants proved.
    pub guarantees: Vec<Guarantee>,
    /// The hooks' bodies, in the order of the hooks' numbers.
    pub hooks: Vec<HookBody>,
    /// `flush within`, nanoseconds.
    pub flush_within: Option<Spanned<u64>>,
    /// `assume sync <= d`, nanoseconds.
    pub assume_sync: Option<Spanned<u64>>,
    /// What a failed background sync stops.
    pub on_error: OnError,
    /// `use kernel notify`, and where it says so.
    pub kernel_notify: Option<Span>,
    /// What it can lose, as derived from its text; whatever values its parameters have.
    pub loss: Loss,
}

/// The part of a target's definition that the object needs.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Its dotted name.
    pub name: String,
    /// Globs of the files it covers.
    pub files: Vec<String>,
    /// Globs of the files it does not cover after all.
    pub except: Vec<String>,
    /// How its hooks are entered.
    pub entries: Vec<HookEntry>,
    /// What writes staged bytes, if it says so.
    pub engine: Option<Engine>,
    /// Whether calls on one log overlap.
    pub callers: Callers,
    /// How the log is divided into updates.
    pub records: Records,
    /// Where the log is written.
    pub layout: Layout,
    /// Globs of files that are not written while the log is behind.
    pub protects: Vec<String>,
    /// What is sent to replicas is held as replies are.
    pub holds_replicas: bool,
}

impl Target {
    /// Whether what is sent to replicas is not held where replies are. Only of a server that speaks Redis' protocol is
    /// it known which connections are those of replicas.
    #[must_use]
    pub fn frees_replicas(&self) -> bool {
        self.records == Records::Resp && !self.holds_replicas
    }
}

/// How a hook of a target is entered.
#[derive(Clone, Debug)]
pub struct HookEntry {
    /// The hook.
    pub hook: Hook,
    /// Where the target defines it.
    pub span: Span,
    /// The functions that are the hook.
    pub functions: Vec<EntryFunction>,
    /// Its parameters, in order: name and type.
    pub params: Vec<(String, String)>,
}

impl HookEntry {
    /// The position of the parameter of that name and type.
    #[must_use]
    pub fn param(&self, name: &str, ty: &str) -> Option<usize> {
        self.params.iter().position(|(n, t)| n == name && t == ty)
    }
}

/// `libc "write"`, `symbol "durac_aof_write"`
#[derive(Clone, Debug)]
pub struct EntryFunction {
    /// Whose function it is, and when it is called.
    pub kind: EntryKind,
    /// Its symbol.
    pub symbol: Spanned<String>,
}

/// Whose function enters a hook, and when it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// `symbol`: a function of the application's own.
    Symbol,
    /// `barrier`: a function of the application's own that is called before a sync for which the hook
    /// is not called.
    Barrier,
    /// A library by its name: `libc`.
    Library(String),
}

impl EntryKind {
    /// What the word before the symbol means.
    #[must_use]
    pub fn of_word(word: &str) -> EntryKind {
        match word {
            "symbol" => EntryKind::Symbol,
            "barrier" => EntryKind::Barrier,
            library => EntryKind::Library(library.to_owned()),
        }
    }
}

impl Target {
    /// How a hook is entered.
    #[must_use]
    pub fn entry(&self, hook: Hook) -> Option<&HookEntry> {
        self.entries.iter().find(|entry| entry.hook == hook)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its table.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}
pub(crate) use id;

id!(
    /// A parameter: position in [`Policy::params`] and in the map `params`.
    ParamId, "p"
);
id!(
    /// A state variable: position in [`Policy::states`] and in the map `state`.
    StateId, "s"
);

/// A value that can be changed while the policy runs.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name in the policy.
    pub name: Spanned<String>,
    /// Its unit.
    pub unit: Unit,
    /// The value it starts with.
    pub default: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
}

/// A value that a hook leaves for the next call on the same log.
#[derive(Clone, Debug)]
pub struct State {
    /// Its name; begins with `.` when the compiler made it.
    pub name: Spanned<String>,
    /// Its unit.
    pub unit: Unit,
    /// The value it starts with.
    pub init: u64,
}

/// `guarantee loss <= n syncs on power_loss`
#[derive(Clone, Debug)]
pub struct Guarantee {
    /// The kind of crash.
    pub failure: Failure,
    /// It bounds what clients can see of it, not what the application was told.
    pub to_clients: bool,
    /// The place of the bound.
    pub span: Span,
    /// The most that may be lost.
    pub bound: Bound,
}

/// The most that may be lost, in one unit.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Nothing, whatever the unit.
    Nothing,
    /// Acknowledged syncs.
    Syncs(Expr),
    /// Acknowledged writes.
    Writes(Expr),
    /// Records of the log that an acknowledged sync covers.
    Updates(Expr),
    /// Acknowledged bytes.
    Bytes(Expr),
    /// Age of the oldest lost sync, nanoseconds.
    Age(Expr),
}

impl Policy {
    /// Whether writes that no sync call follows are synced within the deadline: `on write: defer`.
    #[must_use]
    pub fn defers_writes(&self) -> bool {
        self.hooks.iter().any(HookBody::defers_writes)
    }
}

impl HookBody {
    /// Whether it is `on write: defer`.
    #[must_use]
    pub fn defers_writes(&self) -> bool {
        let defer = |stmt: &Stmt| matches!(stmt.node, StmtKind::Verdict(Verdict::Defer));
        self.hook == Hook::Write && matches!(self.body.as_slice(), [stmt] if defer(stmt))
    }
}

/// The program of one hook.
#[derive(Clone, Debug)]
pub struct HookBody {
    /// The hook.
    pub hook: Hook,
    /// Where it is written.
    pub span: Span,
    /// Its statements.
    pub body: Vec<Stmt>,
}

/// A statement with its place.
pub type Stmt = Spanned<StmtKind>;

/// A statement or an expression, as [`visit`] comes to it.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A statement; what is in it follows.
    Stmt(&'a Stmt),
    /// An expression; what is in it follows.
    Expr(&'a Expr),
}

/// Calls `f` for every statement and expression, outer before inner, in the order of the text.
pub fn visit<'a>(stmts: &'a [Stmt], f: &mut dyn FnMut(Node<'a>)) {
    for stmt in stmts {
        f(Node::Stmt(stmt));
        match &stmt.node {
            StmtKind::Verdict(_) | StmtKind::Commit => {}
            StmtKind::Await(value) | StmtKind::Assign(_, value) => visit_expr(value, f),
            StmtKind::If(cond, then, otherwise) => {
                visit_expr(cond, f);
                visit(then, f);
                visit(otherwise, f);
            }
            StmtKind::EveryTime(_, _, body) | StmtKind::EveryCalls(_, _, body) => visit(body, f),
        }
    }
}

/// The same for one expression.
pub fn visit_expr<'a>(expr: &'a Expr, f: &mut dyn FnMut(Node<'a>)) {
    f(Node::Expr(expr));
    match &expr.kind {
        ExprKind::Const(_) | ExprKind::Param(_) | ExprKind::State(_) | ExprKind::Read(_) => {}
        ExprKind::Not(a) => visit_expr(a, f),
        ExprKind::And(a, b)
        | ExprKind::Or(a, b)
        | ExprKind::Compare(_, a, b)
        | ExprKind::Arith(_, a, b) => {
            visit_expr(a, f);
            visit_expr(b, f);
        }
    }
}

/// What a statement does.
#[derive(Clone, Debug)]
pub enum StmtKind {
    /// The call ends with this verdict.
    Verdict(Verdict),
    /// Park until the call `distance` calls ago, and all before it, are durable.
    Await(Expr),
    /// Write the staged bytes.
    Commit,
    /// Change a state variable.
    Assign(StateId, Expr),
    /// Choose.
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    /// Run the body when `now` is at least the period after the time in the state variable.
    EveryTime(u64, StateId, Vec<Stmt>),
    /// Run the body at each call whose number, counted in the state variable, fills the period.
    EveryCalls(u64, StateId, Vec<Stmt>),
}

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run the call as the application made it.
    Pass,
    /// Success now, sync in the background.
    Defer,
    /// Success now, nothing more.
    Skip,
    /// Copy the bytes, success now, write later.
    Stage,
    /// Hold the reply until durable.
    Hold,
    /// Look for more ready connections, for so many nanoseconds.
    Gather(u32),
    /// Fail with this errno.
    Fail(&'static str, i32),
}

impl Verdict {
    /// What a target has to grant for it.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Verdict::Pass => Action::Pass,
            Verdict::Defer => Action::Defer,
            Verdict::Skip => Action::Skip,
            Verdict::Stage => Action::Stage,
            Verdict::Hold => Action::Hold,
            Verdict::Gather(_) => Action::Gather,
            Verdict::Fail(..) => Action::Fail,
        }
    }
}

/// An expression of known unit.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its unit.
    pub unit: Unit,
    /// Its place.
    pub span: Span,
}

/// What an expression is. Bool values are 0 and 1; durations are nanoseconds.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// A scaled literal.
    Const(u64),
    /// A parameter's value now.
    Param(ParamId),
    /// A state variable's value now.
    State(StateId),
    /// A reading.
    Read(Reading),
    /// Logical not.
    Not(Box<Expr>),
    /// Both, short-circuit.
    And(Box<Expr>, Box<Expr>),
    /// Either, short-circuit.
    Or(Box<Expr>, Box<Expr>),
    /// A comparison of equal units, unsigned.
    Compare(Cmp, Box<Expr>, Box<Expr>),
    /// Arithmetic.
    Arith(Arith, Box<Expr>, Box<Expr>),
}

words! {
    /// An unsigned comparison.
    pub enum Cmp, text {
        /// `==`
        Eq => "==",
        /// `!=`
        Ne => "!=",
        /// `<`
        Lt => "<",
        /// `<=`
        Le => "<=",
        /// `>`
        Gt => ">",
        /// `>=`
        Ge => ">=",
    }
}

impl Cmp {
    /// The comparison that holds when this one does not.
    #[must_use]
    pub fn negated(self) -> Cmp {
        match self {
            Cmp::Eq => Cmp::Ne,
            Cmp::Ne => Cmp::Eq,
            Cmp::Lt => Cmp::Ge,
            Cmp::Le => Cmp::Gt,
            Cmp::Gt => Cmp::Le,
            Cmp::Ge => Cmp::Lt,
        }
    }

    /// The comparison with its sides exchanged.
    #[must_use]
    pub fn swapped(self) -> Cmp {
        match self {
            Cmp::Eq | Cmp::Ne => self,
            Cmp::Lt => Cmp::Gt,
            Cmp::Le => Cmp::Ge,
            Cmp::Gt => Cmp::Lt,
            Cmp::Ge => Cmp::Le,
        }
    }

    /// Whether it holds for `a` and `b`.
    #[must_use]
    pub fn holds(self, a: u64, b: u64) -> bool {
        match self {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::Lt => a < b,
            Cmp::Le => a <= b,
            Cmp::Gt => a > b,
            Cmp::Ge => a >= b,
        }
    }
}

words! {
    /// Arithmetic on unsigned 64-bit numbers.
    pub enum Arith, text {
        /// Sum; wraps.
        Add => "+",
        /// Difference; 0 when it would be negative, so that `pending - 4` is never huge.
        Sub => "-",
        /// Product; wraps.
        Mul => "*",
        /// Quotient by a constant above zero.
        Div => "/",
        /// Remainder by a constant above zero.
        Rem => "%",
        /// Difference that wraps; only the compiler makes it, for times.
        WrappingSub => "-%",
    }
}

impl Arith {
    /// The result, as the programs compute it.
    #[must_use]
    pub fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Arith::Add => a.wrapping_add(b),
            Arith::Sub => a.saturating_sub(b),
            Arith::Mul => a.wrapping_mul(b),
            Arith::Div => a.checked_div(b).unwrap_or(0),
            Arith::Rem => a.checked_rem(b).unwrap_or(a),
            Arith::WrappingSub => a.wrapping_sub(b),
        }
    }
}
