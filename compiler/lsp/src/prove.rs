//! The proof, in a thread of its own: the editor never waits for it.

use durac_driver::{Options, Watch, report};
use durac_grammar::{Diagnostic, Sources};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// As much as the main thread of `durac check` has: what that proves, this does.
const STACK: usize = 8 << 20;

/// A text to prove.
#[derive(Debug)]
pub struct Job {
    /// Whose text.
    pub document: String,
    /// Which of its texts.
    pub version: i32,
    /// Name of the policy, if it gives none.
    pub stem: String,
    /// The text.
    pub text: String,
}

/// What became of a proof.
#[derive(Debug)]
pub struct Outcome {
    /// Whose text.
    pub document: String,
    /// Which of its texts.
    pub version: i32,
    /// All findings, those of the proof included.
    pub diagnostics: Vec<Diagnostic>,
    /// The lines of `durac check`; empty if the text is wrong, or the proof did not end.
    pub report: Vec<String>,
    /// What a power loss takes, in a few words.
    pub bound: Option<String>,
}

/// Ends a proof whose text is not the newest any more.
#[derive(Debug)]
struct Newest {
    of: Arc<AtomicU64>,
    job: u64,
}

impl Watch for Newest {
    fn goes_on(&self, _: usize) -> bool {
        self.of.load(Ordering::Relaxed) == self.job
    }
}

/// The thread that proves; one text at a time, the newest.
#[derive(Debug)]
pub struct Prover {
    jobs: Option<Sender<(u64, Job)>>,
    newest: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Prover {
    /// Starts the thread, which hands each outcome to `done`.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(done: impl Fn(Outcome) + Send + 'static) -> std::io::Result<Self> {
        let (jobs, received) = channel();
        let newest = Arc::new(AtomicU64::new(0));
        let of = Arc::clone(&newest);
        let thread = std::thread::Builder::new()
            .name("durac-prove".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&received, &of, &done))?;
        Ok(Self { jobs: Some(jobs), newest, thread: Some(thread) })
    }

    /// Proves this text next; what is being proved of an older one is given up.
    pub fn prove(&self, job: Job) {
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(jobs) = &self.jobs {
            // It only fails when the thread has ended.
            let _ = jobs.send((number, job));
        }
    }
}

impl Drop for Prover {
    fn drop(&mut self) {
        self.newest.fetch_add(1, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(jobs: &Receiver<(u64, Job)>, newest: &Arc<AtomicU64>, done: &dyn Fn(Outcome)) {
    let mut waiting: Vec<(u64, Job)> = Vec::new();
    loop {
        if waiting.is_empty() {
            match jobs.recv() {
                Ok(job) => waiting.push(job),
                Err(_) => return,
            }
        }
        waiting.extend(jobs.try_iter());
        let Some((number, job)) = waiting.pop() else { continue };
        // Older texts of the same document are of no interest; other documents come next.
        waiting.retain(|(_, other)| other.document != job.document);
        let watch = Newest { of: Arc::clone(newest), job: number };
        let outcome = prove(job, &watch);
        let given_up = newest.load(Ordering::Relaxed) != number;
        match outcome {
            Proved::Ended(outcome) => done(outcome),
            // Another document's text came between: once more, after it.
            Proved::GivenUp(job) if given_up => {
                waiting.extend(jobs.try_iter());
                if waiting.iter().all(|(_, other)| other.document != job.document) {
                    let again = newest.load(Ordering::Relaxed);
                    waiting.insert(0, (again, job));
                }
            }
            Proved::GivenUp(_) => {}
        }
    }
}

enum Proved {
    Ended(Outcome),
    GivenUp(Job),
}

fn prove(job: Job, watch: &Newest) -> Proved {
    let mut sources = Sources::new();
    let file = sources.add(&*job.document, &*job.text);
    let options = Options { stem: &job.stem, watch: Some(watch), ..Options::default() };
    let compiled = durac_driver::compile(&mut sources, file, &options);
    if watch.of.load(Ordering::Relaxed) != watch.job {
        return Proved::GivenUp(job);
    }
    let (mut lines, mut bound) = (Vec::new(), None);
    if let (Some(policy), Some(proved)) = (&compiled.analysis.policy, &compiled.proved) {
        lines = report::report(policy, &proved.proof);
        bound = Some(report::loss_text(policy, &proved.proof));
    }
    Proved::Ended(Outcome {
        document: job.document,
        version: job.version,
        diagnostics: compiled.analysis.diagnostics,
        report: lines,
        bound,
    })
}
