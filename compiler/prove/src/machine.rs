//! One program run: the bytecode of an object in rbpf, its helpers answered by a [`World`].
//!
//! A program cannot be suspended in a wait. A world that has to park a call lets the rest of the run
//! come to nothing, and later runs the program again from its beginning with the same readings up
//! to the wait: a program is a function of what it reads.

use durac_abi::Insn;
use durac_abi::Object;
use durac_abi::bpftime::{Argument, MAX_ERRNO, REGISTERS_SIZE};
use durac_abi::link::{self, LinkError, MapRef};
use durac_abi::notify::count::SYNCS_MAP;
use durac_abi::object::{EntryPoint, Map, Program};
use durac_abi::session::{self, OfHook, SESSION_MAP};
use durac_abi::{CONTEXT_SIZE, Context, Helper, Hook, PARAMS_MAP, Reading, STATE_MAP, Verdict};
use durac_jit::{Code, HelperCode, entry};
use std::cell::Cell;
use std::ptr::null;

/// What runs the bytecode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// rbpf's interpreter, which checks every access.
    Interpreter,
    /// rbpf's JIT compiler, which the agent uses.
    Jit,
}

/// Why an object cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Its maps cannot be put in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A map or a relocation that the compiler does not make.
    #[error("this is not a durac policy object: {0}")]
    Foreign(&'static str),
    /// The JIT compiler refused.
    #[error("on {hook}: {why}")]
    Jit {
        /// The program's hook.
        hook: Hook,
        /// In words.
        why: String,
    },
    /// The interpreter refused, or stopped.
    #[error("on {hook}: rbpf: {why}")]
    Run {
        /// The program's hook.
        hook: Hook,
        /// In words.
        why: String,
    },
}

/// What a program reads and writes.
#[derive(Debug)]
pub struct Memory {
    context: Cell<Context>,
    params: Box<[Cell<u64>]>,
    state: Box<[Cell<u64>]>,
    /// The process that the kernel counts for, and the count.
    syncs: Box<[Cell<u64>]>,
    /// What BPFtime's programs look at first: the loader vouches for ever, and one thread calls. Where it is not
    /// so, they leave the call to the application; and what they write there, they do not read.
    session: Box<[Cell<u64>]>,
}

impl Memory {
    /// What the program reads from now on.
    pub fn set_context(&self, context: Context) {
        self.context.set(context);
    }

    /// Parameters, in the order of the object's note.
    #[must_use]
    pub fn params(&self) -> &[Cell<u64>] {
        &self.params
    }

    /// State variables, in the order of the object's note.
    #[must_use]
    pub fn state(&self) -> &[Cell<u64>] {
        &self.state
    }

    /// Copies `values` into the state variables.
    pub fn set_state(&self, values: &[u64]) {
        self.state.iter().zip(values).for_each(|(cell, value)| cell.set(*value));
    }

    /// The process that the kernel counts for; 0 before there is one.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.syncs.first().map_or(0, Cell::get)
    }

    /// Sets that.
    pub fn set_process(&self, process: u64) {
        self.syncs.iter().take(1).for_each(|cell| cell.set(process));
    }

    /// Whether the loader of BPFtime's programs vouches for them; it does at first.
    pub fn vouch(&self, vouches: bool) {
        let until = if vouches { u64::MAX } else { 0 };
        self.session.get(session::WORD_UNTIL).into_iter().for_each(|word| word.set(until));
    }

    /// Copies `values` into the parameters.
    pub fn set_params(&self, values: &[u64]) {
        self.params.iter().zip(values).for_each(|(cell, value)| cell.set(*value));
    }

    /// The state variables.
    #[must_use]
    pub fn copy_state(&self) -> Vec<u64> {
        self.state.iter().map(Cell::get).collect()
    }
}

/// Answers a program's helpers.
pub trait World {
    /// The program asks for a background sync that covers its call.
    fn request(&mut self);

    /// The program waits at `distance`. With `true` it goes on, and reads `memory` as it is then;
    /// with `false` its call is parked.
    fn wait(&mut self, distance: u64, memory: &Memory) -> bool;

    /// What one of the helpers of BPFtime's ring answers. Without a ring, an error.
    fn ring(&mut self, _helper: Helper) -> u64 {
        u64::MAX
    }

    /// How many syncs of the ring the kernel has counted.
    fn completed(&self) -> u64 {
        0
    }

    /// The program has come to a [`PROBE`] with this number in r1.
    fn reached(&mut self, _place: u64) {}
}

/// Number of a helper that no compiled object calls: who wants to see a program's way puts calls of it into a
/// copy. The interpreter changes no register but r0 in a call. Not for the JIT.
pub const PROBE: i32 = 0xdff;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a verdict.
    Verdict(Verdict),
    /// In a wait; what the run has left in the state variables afterwards means nothing.
    Parked,
}

/// The programs of an object, ready to run. One call at a time.
pub struct Machine {
    memory: Box<Memory>,
    /// For BPFtime's programs, the functions they are attached to.
    entries: Option<Vec<EntryPoint>>,
    programs: [Option<Loaded>; Hook::COUNT],
}

/// What r1 points to.
enum Input {
    Context(*mut u8),
    Registers(Box<[u64; REGISTERS_SIZE / 8]>),
}

impl Input {
    fn bytes(&mut self) -> (*mut u8, usize) {
        match self {
            Input::Context(context) => (*context, CONTEXT_SIZE),
            Input::Registers(registers) => (registers.as_mut_ptr().cast(), REGISTERS_SIZE),
        }
    }
}

enum Loaded {
    Interpreted { hook: Hook, bytes: Vec<u8> },
    Compiled(Code),
}

/// Addresses that stand for the maps; the programs only hand them to the lookup.
const PARAMS: u64 = 0x1000;
const STATE: u64 = 0x2000;
const SYNCS: u64 = 0x3000;
const SESSION: u64 = 0x4000;

impl Machine {
    /// Prepares the programs of a verified object. Parameters have their defaults, state its first
    /// values, the log has key 0.
    ///
    /// # Errors
    /// When the object is not a policy object or rbpf refuses it.
    pub fn new(object: &Object, backend: Backend) -> Result<Self, MachineError> {
        let cells = |values: Vec<u64>| values.into_iter().map(Cell::new).collect();
        let memory = Box::new(Memory {
            context: Cell::default(),
            params: cells(object.meta.params.iter().map(|p| p.default).collect()),
            state: cells(object.meta.state.iter().map(|s| s.init).collect()),
            syncs: cells(vec![0; 2]),
            session: cells(session()),
        });
        for map in &object.maps {
            if map.fields.len() != fields(map, &memory)? {
                return Err(MachineError::Foreign("a map of another size than its note says"));
            }
        }
        let mut programs = [const { None }; Hook::COUNT];
        for program in &object.programs {
            let insns = linked(program, object)?;
            let hook = program.hook;
            let loaded = match backend {
                Backend::Interpreter => {
                    let bytes = insns.iter().flat_map(|i| i.to_bytes()).collect();
                    Loaded::Interpreted { hook, bytes }
                }
                Backend::Jit => {
                    let code = durac_jit::compile(&insns, HELPERS);
                    Loaded::Compiled(
                        code.map_err(|why| MachineError::Jit { hook, why: why.to_string() })?,
                    )
                }
            };
            if let Some(place) = programs.get_mut(hook as usize) {
                *place = Some(loaded);
            }
        }
        let entries =
            object.meta.runtime.backend().needs_entry().then(|| object.meta.entries.clone());
        Ok(Self { memory, entries, programs })
    }

    /// Whether there is a program for `hook`.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.programs.get(hook as usize).is_some_and(Option::is_some)
    }

    /// What the programs read and write.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Runs the program of `hook`; without one the verdict is [`Verdict::Pass`].
    ///
    /// # Errors
    /// When the interpreter stops the program: it left its memory.
    pub fn run(&mut self, hook: Hook, world: &mut dyn World) -> Result<Ended, MachineError> {
        let Some(program) = self.programs.get(hook as usize).and_then(Option::as_ref) else {
            return Ok(Ended::Verdict(Verdict::Pass));
        };
        // SAFETY: only the lifetime changes; `run` takes it back before `world` can end.
        let world = unsafe {
            std::mem::transmute::<*mut (dyn World + '_), *mut (dyn World + 'static)>(world)
        };
        let run = Run {
            memory: &raw const *self.memory,
            world,
            parked: Cell::new(false),
            overridden: Cell::new(None),
        };
        let mut input = self.input(hook);
        let before = RUN.replace(&raw const run);
        let verdict = match program {
            Loaded::Compiled(code) => {
                let (context, length) = input.bytes();
                // SAFETY: the object was verified, the memory and the run outlive the call.
                Ok(unsafe { code.run(context, length) })
            }
            Loaded::Interpreted { hook, bytes } => {
                interpret(*hook, bytes, &self.memory, &mut input)
            }
        };
        RUN.set(before);
        if run.parked.get() {
            return Ok(Ended::Parked);
        }
        match self.entries {
            // There r0 says nothing.
            Some(_) => verdict.and_then(|_| overridden(hook, run.overridden.get())),
            None => verdict,
        }
        .map(Ended::Verdict)
    }

    /// What the program gets. No earlier sync has failed: the engine answers for those itself.
    fn input(&self, hook: Hook) -> Input {
        let Some(entries) = &self.entries else {
            return Input::Context(self.memory.context.as_ptr().cast());
        };
        let mut registers = Box::new([0; REGISTERS_SIZE / 8]);
        let entry = entries.iter().find(|entry| entry.hook == hook);
        let offset = entry.and_then(|entry| entry.len).and_then(Argument::offset);
        let place = offset.and_then(|offset| registers.get_mut(offset as usize / 8));
        if let Some(place) = place {
            *place = self.memory.context.get().len;
        }
        Input::Registers(registers)
    }
}

/// What the call does after `bpf_override_return`, or without it.
fn overridden(hook: Hook, value: Option<u64>) -> Result<Verdict, MachineError> {
    let errnos = -i64::from(MAX_ERRNO)..=-1;
    match value.map(|value| value as i64) {
        None => Ok(Verdict::Pass),
        Some(0) => Ok(Verdict::Skip),
        Some(error) if errnos.contains(&error) => Ok(Verdict::Fail(-error as i32)),
        Some(other) => {
            let why = format!("the call is answered with {other}, which means nothing");
            Err(MachineError::Run { hook, why })
        }
    }
}

/// Members that the map must have.
fn fields(map: &Map, memory: &Memory) -> Result<usize, MachineError> {
    match map.name.as_str() {
        PARAMS_MAP => Ok(memory.params.len()),
        STATE_MAP => Ok(memory.state.len()),
        SESSION_MAP => Ok(memory.session.len()),
        _ => Err(MachineError::Foreign("a map that is neither `params` nor `state`")),
    }
}

/// The instructions with the maps' addresses in them.
fn linked(program: &Program, object: &Object) -> Result<Vec<Insn>, MachineError> {
    let address = |map| {
        Some(MapRef::Address(match object.map(map)?.name {
            PARAMS_MAP => PARAMS,
            SYNCS_MAP => SYNCS,
            SESSION_MAP => SESSION,
            _ => STATE,
        }))
    };
    Ok(link::link(&program.insns, &program.relocs, address)?)
}

fn interpret(
    hook: Hook,
    bytes: &[u8],
    memory: &Memory,
    input: &mut Input,
) -> Result<Verdict, MachineError> {
    let stopped = |why: rbpf::lib::Error| MachineError::Run { hook, why: format!("{why:?}") };
    let mut vm = rbpf::EbpfVmMbuff::new(Some(bytes)).map_err(stopped)?;
    for &(helper, code) in HELPERS {
        // SAFETY: both are pointers to functions that the processor calls alike; rbpf calls it
        // with a cast pointer as it does its own helpers.
        let code =
            unsafe { std::mem::transmute::<HelperCode, fn(u64, u64, u64, u64, u64) -> u64>(code) };
        vm.register_helper(helper.number() as u32, code).map_err(stopped)?;
    }
    vm.register_helper(PROBE as u32, probe).map_err(stopped)?;
    for cells in [&memory.params, &memory.state, &memory.syncs, &memory.session] {
        let at = cells.as_ptr() as u64;
        vm.register_allowed_memory(at..at + size_of_val::<[Cell<u64>]>(cells) as u64);
    }
    let (context, length) = input.bytes();
    // SAFETY: the memory outlives the run; rbpf only takes the address and the length.
    let context = unsafe { std::slice::from_raw_parts(context, length) };
    vm.execute_program(&[], context).map(Verdict::decode).map_err(stopped)
}

/// What the helpers of this thread work on.
struct Run {
    memory: *const Memory,
    world: *mut (dyn World + 'static),
    parked: Cell<bool>,
    /// What the hooked function returns instead of being run.
    overridden: Cell<Option<u64>>,
}

thread_local! {
    static RUN: Cell<*const Run> = const { Cell::new(null()) };
}

const HELPERS: &[(Helper, HelperCode)] = &[
    (Helper::MapLookup, look_up),
    (Helper::MapUpdate, update),
    (Helper::RingInit, ring_init),
    (Helper::RingSync, ring_sync),
    (Helper::RingWait, ring_wait),
    (Helper::RingSubmit, ring_submit),
    (Helper::Clock, clock),
    (Helper::Process, process),
    (Helper::Override, overrides),
    (Helper::Request, request),
    (Helper::Await, wait),
];

/// The only process there is, as `bpf_get_current_pid_tgid` gives it.
const PROCESS: u64 = 1 << 32 | 1;

/// The session of that process and its one thread.
fn session() -> Vec<u64> {
    let mut words = vec![0; session::WORDS];
    let owners = Hook::PROGRAMS.map(|hook| (session::word(hook, OfHook::Owner), PROCESS));
    let loader = [(session::WORD_ID, session::ID), (session::WORD_UNTIL, u64::MAX)];
    for (word, value) in loader.into_iter().chain(owners) {
        words.get_mut(word).into_iter().for_each(|place| *place = value);
    }
    words
}

entry!(look_up => look_up_body);
entry!(update => update_body);
entry!(ring_init => ring_init_body);
entry!(ring_sync => ring_sync_body);
entry!(ring_wait => ring_wait_body);
entry!(ring_submit => ring_submit_body);
entry!(clock => clock_body);
entry!(process => process_body);
entry!(overrides => override_body);
entry!(request => request_body);
entry!(wait => wait_body);

/// The run of this thread.
fn current() -> Option<&'static Run> {
    // SAFETY: `Machine::run` sets it to a run that outlives the program, and takes it away after.
    unsafe { RUN.get().as_ref() }
}

unsafe extern "C" fn look_up_body(map: u64, key: u64) -> u64 {
    let Some(run) = current() else { return 0 };
    // SAFETY: the verifier has proved that the key is four readable bytes of the program's stack.
    let key = unsafe { (key as *const u32).read_unaligned() };
    // SAFETY: the memory outlives the run.
    let memory = unsafe { &*run.memory };
    match map {
        PARAMS if key == 0 => memory.params.as_ptr() as u64,
        STATE if key == 0 => memory.state.as_ptr() as u64,
        SESSION if key == 0 => memory.session.as_ptr() as u64,
        SYNCS if key == 0 => {
            if let Some(count) = memory.syncs.get(1) {
                // SAFETY: the world outlives the run, and helpers do not nest.
                count.set(unsafe { (*run.world).completed() });
            }
            memory.syncs.as_ptr() as u64
        }
        _ => 0,
    }
}

unsafe extern "C" fn update_body(map: u64, _key: u64, value: u64) -> u64 {
    let Some(run) = current().filter(|_| map == SYNCS) else { return u64::MAX };
    // SAFETY: the memory outlives the run.
    let memory = unsafe { &*run.memory };
    for (cell, at) in memory.syncs.iter().zip((value..).step_by(8)) {
        // SAFETY: the verifier has proved that the value is on the program's stack.
        cell.set(unsafe { (at as *const u64).read_unaligned() });
    }
    0
}

unsafe extern "C" fn ring_init_body() -> u64 {
    ring(Helper::RingInit)
}

unsafe extern "C" fn ring_sync_body(_fd: u64) -> u64 {
    ring(Helper::RingSync)
}

unsafe extern "C" fn ring_wait_body() -> u64 {
    ring(Helper::RingWait)
}

unsafe extern "C" fn ring_submit_body() -> u64 {
    ring(Helper::RingSubmit)
}

fn ring(helper: Helper) -> u64 {
    // SAFETY: the world outlives the run, and helpers do not nest.
    current().map_or(u64::MAX, |run| unsafe { (*run.world).ring(helper) })
}

unsafe extern "C" fn clock_body() -> u64 {
    // SAFETY: the memory outlives the run.
    current().map_or(0, |run| unsafe { (*run.memory).context.get().now })
}

unsafe extern "C" fn process_body() -> u64 {
    PROCESS
}

unsafe extern "C" fn override_body(_registers: u64, value: u64) -> u64 {
    if let Some(run) = current() {
        run.overridden.set(Some(value));
    }
    0
}

fn probe(place: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    if let Some(run) = current().filter(|run| !run.parked.get()) {
        // SAFETY: the world outlives the run, and helpers do not nest.
        unsafe { (*run.world).reached(place) };
    }
    0
}

unsafe extern "C" fn request_body() -> u64 {
    if let Some(run) = current().filter(|run| !run.parked.get()) {
        // SAFETY: the world outlives the run, and helpers do not nest.
        unsafe { (*run.world).request() };
    }
    0
}

unsafe extern "C" fn wait_body(distance: u64) -> u64 {
    if let Some(run) = current().filter(|run| !run.parked.get()) {
        // SAFETY: both outlive the run, and helpers do not nest.
        let goes_on = unsafe { (*run.world).wait(distance, &*run.memory) };
        run.parked.set(!goes_on);
    }
    0
}

/// Bit `i` is set if programs of the object load reading number `i`.
#[must_use]
pub fn reads(object: &Object) -> u32 {
    object.meta.reads.iter().fold(0, |set, reading| set | reading.bit())
}

/// The bit of a reading in [`reads`].
#[must_use]
pub const fn bit(reading: Reading) -> u32 {
    reading.bit()
}
