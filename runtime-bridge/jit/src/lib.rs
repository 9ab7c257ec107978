//! Machine code, by rbpf's JIT compiler: the code that runs in a database, and the same code in the
//! simulator.
//!
//! Stage: verified instructions with the maps' addresses in them → [`Code`] ([`compile`]).
//!
//! The verifier has proved the program safe for a machine that does what the instruction set
//! says, and has refused the few instructions for which rbpf 0.4.1 does something else.
//!
//! Architecture invariant: it must not know policies, objects or maps; it trusts that what it compiles
//! was verified.

use durac_abi::Insn;
use durac_abi::{Helper, Verdict};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::panic::AssertUnwindSafe;

/// Machine code: `fn(_, _, context, length, _, _) -> r0`, in the C calling convention.
type MachineCode = unsafe extern "C" fn(usize, usize, *mut u8, usize, usize, usize) -> u64;

/// A compiled program, with the memory that holds it.
pub struct Code {
    entry: MachineCode,
    _memory: Memory,
}

impl Code {
    /// Runs the program on `context`, of `length` bytes.
    ///
    /// # Safety
    /// The program was verified for contexts of that length; `context` points to one that lives
    /// until the return, and the helpers find what they work on.
    #[inline]
    pub unsafe fn run(&self, context: *mut u8, length: usize) -> Verdict {
        // SAFETY: the verifier has proved that the program stays inside its context, stack and
        // maps; the caller vouches for the rest.
        Verdict::decode(unsafe { (self.entry)(0, 0, context, length, 0, 0) })
    }
}

/// Defines a helper's entry as machine code calls it, which goes on to the Rust function `$body`.
///
/// rbpf's code calls with the stack 8 bytes off the alignment that the calling convention promises,
/// and compiled Rust may use aligned vector stores on its stack: the entry puts it right.
#[macro_export]
macro_rules! entry {
    ($name:ident => $body:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
            ::std::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "and rsp, -16",
                "call {body}",
                "leave",
                "ret",
                body = sym $body,
            )
        }
    };
}

/// A helper as machine code calls it.
pub type HelperCode = unsafe extern "C" fn(u64, u64, u64, u64, u64) -> u64;

/// The most that rbpf emits for a slot is below this many bytes.
const BYTES_PER_SLOT: usize = 96;
/// Prologue and epilogue, rounded up: rbpf insists on a page.
const BYTES_BESIDES: usize = 4096;

/// Why a program was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// rbpf refuses the program.
    #[error("{0:?}")]
    Refused(rbpf::lib::Error),
    /// rbpf has panicked: it asserts where it could return an error.
    #[error("the JIT compiler gave up")]
    Panicked,
    /// No memory to write the code to.
    #[error("no memory for code: {0}")]
    Memory(#[source] io::Error),
    /// The system does not allow executable memory.
    #[error("code cannot be made executable: {0}")]
    Executable(#[source] io::Error),
}

/// Compiles `insns`, in which every `lddw` of a map already holds the map's address.
///
/// # Errors
/// If the program cannot be compiled, or the system refuses memory for it.
pub fn compile(insns: &[Insn], helpers: &[(Helper, HelperCode)]) -> Result<Code, JitError> {
    let bytes: Vec<u8> = insns.iter().flat_map(|i| i.to_bytes()).collect();
    let size = (insns.len() * BYTES_PER_SLOT + BYTES_BESIDES).next_multiple_of(4096);
    let memory = Memory::new(size)?;
    // The compiler asserts where it could return an error.
    let compiled = std::panic::catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the mapping has `size` bytes, is writable, and nothing else refers to it.
        let target = unsafe { std::slice::from_raw_parts_mut(memory.address, size) };
        let mut vm = rbpf::EbpfVmRaw::new(Some(&bytes)).map_err(JitError::Refused)?;
        for &(helper, code) in helpers {
            // SAFETY: both are pointers to functions. rbpf only copies the address into machine
            // code, which calls it in the C convention that it really has.
            let code = unsafe {
                std::mem::transmute::<HelperCode, fn(u64, u64, u64, u64, u64) -> u64>(code)
            };
            vm.register_helper(helper.number() as u32, code).map_err(JitError::Refused)?;
        }
        vm.set_jit_exec_memory(target).map_err(JitError::Refused)?;
        vm.jit_compile().map_err(JitError::Refused)
    }));
    match compiled {
        Ok(result) => result?,
        Err(_) => return Err(JitError::Panicked),
    }
    memory.into_code()
}

/// Memory that is written first and run later, never both.
struct Memory {
    address: *mut u8,
    size: usize,
}

// SAFETY: nothing writes to it once it is code, and it is unmapped by its one owner.
unsafe impl Send for Memory {}
// SAFETY: a shared reference only reads the address and the size; nobody writes to the code.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(size: usize) -> Result<Self, JitError> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping; the kernel chooses the address.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(JitError::Memory(io::Error::last_os_error()));
        }
        Ok(Self { address: address.cast(), size })
    }

    /// Makes it executable.
    fn into_code(self) -> Result<Code, JitError> {
        let memory = match self.protect() {
            Ok(()) => self,
            // systemd's MemoryDenyWriteExecute allows only what was executable from the start.
            Err(_) => self.copy().map_err(JitError::Executable)?,
        };
        // SAFETY: rbpf put a function there that follows the C calling convention. It is the same
        // at any address: its jumps are relative, its calls absolute.
        let entry = unsafe { std::mem::transmute::<*mut u8, MachineCode>(memory.address) };
        Ok(Code { entry, _memory: memory })
    }

    fn protect(&self) -> io::Result<()> {
        let access = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: the mapping is ours and nobody writes to it any more.
        match unsafe { libc::mprotect(self.address.cast(), self.size, access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// An executable mapping of a file in memory with the same content.
    fn copy(&self) -> io::Result<Self> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` has room for the result.
        let is_known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0;
        if is_known && limit.rlim_cur < self.size as libc::rlim_t {
            // The process would get SIGXFSZ.
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        // SAFETY: the name is a C string.
        let file = unsafe { libc::memfd_create(c"durac".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let mut file = unsafe { std::fs::File::from_raw_fd(file) };
        // SAFETY: the mapping is ours, readable, and nobody writes to it any more.
        file.write_all(unsafe { std::slice::from_raw_parts(self.address, self.size) })?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
        let any = std::ptr::null_mut();
        // SAFETY: a new mapping of the file's size; the kernel chooses the address.
        match unsafe { libc::mmap(any, self.size, access, flags, file.as_raw_fd(), 0) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            address => Ok(Self { address: address.cast(), size: self.size }),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its address leaves with it.
        unsafe { libc::munmap(self.address.cast(), self.size) };
    }
}
