//! The device: how long a sync takes, and how syncs that overlap share a commit.

use super::random::Random;
use durac_engine::Time;

/// Processor time of a sync of which nothing was measured: what `fdatasync` of ext4 on a virtual
/// disk cost where the agent was developed.
pub const SYNC_CPU: u64 = 45_000;

/// What the kernel's own threads and interrupts take of the processors for a sync while its caller
/// sleeps, with what it costs others that their caches are cold afterwards: under `window` Redis
/// lost 100 to 200 µs to each sync, of which the syncer's own part is measured.
pub const KERNEL_CPU: u64 = 80_000;

/// A device and its file system.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Where its figures come from.
    pub source: String,
    /// A sync of a file that needs no new block.
    pub plain: Costs,
    /// A sync of a file that has grown into a new block, which the file system has to find and to
    /// record.
    pub growing: Costs,
    /// Time for each further KiB that a sync writes.
    pub per_kib: u64,
}

/// What a sync that runs alone costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Durations without the processor time, rising, all as likely as the ranges between them.
    waits: Vec<u64>,
    /// Processor time of the thread that syncs.
    pub cpu: u64,
    /// Processor time of the kernel's own threads meanwhile.
    pub kernel: u64,
}

/// A sync of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// How long it took.
    pub took: u64,
    /// Processor time of its thread, if it is known.
    pub cpu: Option<u64>,
    /// Whether the file had grown into a new block.
    pub grew: bool,
}

/// A kind of device. The figures are rough: a sync of a few KiB on ext4, that is, one write of the
/// data, one journal commit, and the flushes they need. The middle and the tail of each are those
/// that the named source reports; a device at hand is better measured, by recording a trace on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// NVMe with power-loss protection: a flush of the write cache returns at once, so a sync is
    /// two writes into the device's memory. Data sheets of data centre drives (Intel P4510, Samsung
    /// PM9A3): 10–20 µs a write.
    NvmePlp,
    /// NVMe of a desktop: the flush programs flash pages. Published `fdatasync` measurements of
    /// such drives: 0.5–2 ms, with pauses of 10 ms and more.
    Nvme,
    /// SATA SSD without protection: 1–5 ms a flush.
    SataSsd,
    /// A network volume of a cloud (gp3 and its like): a write is acknowledged by several machines
    /// in 0.5–1 ms and needs no flush; a commit is two in a row.
    CloudVolume,
    /// A disk with 7,200 rotations a minute, 8.3 ms each: a commit waits for two on average.
    Disk,
}

impl Preset {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::NvmePlp, Self::Nvme, Self::SataSsd, Self::CloudVolume, Self::Disk];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NvmePlp => "nvme-plp",
            Self::Nvme => "nvme",
            Self::SataSsd => "sata-ssd",
            Self::CloudVolume => "cloud-volume",
            Self::Disk => "disk",
        }
    }

    /// Durations at 0, 10, 50, 90, 99, 99.9 and 100 %, microseconds; nanoseconds for each KiB.
    fn figures(self) -> ([u64; 7], u64) {
        match self {
            Self::NvmePlp => ([25, 30, 40, 60, 120, 500, 2_000], 500),
            Self::Nvme => ([300, 500, 900, 1_800, 5_000, 15_000, 50_000], 600),
            Self::SataSsd => ([800, 1_200, 2_500, 5_000, 12_000, 40_000, 120_000], 2_000),
            Self::CloudVolume => ([800, 1_000, 1_400, 2_200, 5_000, 20_000, 80_000], 8_000),
            Self::Disk => ([6_000, 9_000, 16_000, 25_000, 45_000, 90_000, 250_000], 7_000),
        }
    }
}

/// Quantiles that a device keeps.
const QUANTILES: usize = 2048;

impl Measured {
    /// A sync of a file that did not grow into a new block.
    #[must_use]
    pub fn plain(took: u64, cpu: u64) -> Self {
        Self { took, cpu: Some(cpu), grew: false }
    }
}

/// Syncs of a kind that a trace must have for their figures to be taken.
const ENOUGH: usize = 30;

impl Costs {
    fn measured(syncs: impl Iterator<Item = Measured> + Clone) -> Self {
        let (sum, count) = syncs
            .clone()
            .filter_map(|sync| sync.cpu)
            .fold((0_u128, 0), |(sum, count), cpu| (sum + u128::from(cpu), count + 1));
        let cpu = sum.checked_div(count).map_or(SYNC_CPU, |cpu| cpu as u64);
        let mut durations: Vec<u64> = syncs.map(|sync| sync.took).collect();
        durations.sort_unstable();
        let last = durations.len().saturating_sub(1);
        let at = |i: usize| durations.get(i * last / QUANTILES.min(last).max(1)).copied();
        let waits = (0..=QUANTILES.min(last)).filter_map(at).map(|d| d.saturating_sub(cpu));
        Self { waits: waits.collect(), cpu, kernel: KERNEL_CPU }
    }

    /// The duration, without processor time, of a sync that runs alone.
    fn sample(&self, random: &mut Random) -> u64 {
        let ranges = self.waits.len().saturating_sub(1) as u64;
        let place = random.below((ranges << 16).max(1));
        let (at, part) = ((place >> 16) as usize, place & 0xffff);
        let low = self.waits.get(at).copied().unwrap_or(0);
        let high = self.waits.get(at + 1).copied().unwrap_or(low);
        low + (((high - low) * part) >> 16)
    }

    /// The duration of a whole sync that `share` of them do not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let at = (self.waits.len().saturating_sub(1) as f64 * share).round() as usize;
        self.waits.get(at).map_or(0, |wait| wait + self.cpu)
    }
}

impl Device {
    /// A device that was measured, by syncs in any order.
    #[must_use]
    pub fn measured(syncs: &[Measured], source: &str) -> Self {
        let of = |grew| syncs.iter().copied().filter(move |sync| sync.grew == grew);
        let (name, source) = ("as recorded".to_owned(), source.to_owned());
        let (plain, growing) = if of(true).count() < ENOUGH || of(false).count() < ENOUGH {
            let all = Costs::measured(syncs.iter().copied());
            (all.clone(), all)
        } else {
            let (plain, growing) = (Costs::measured(of(false)), Costs::measured(of(true)));
            // The kernel's threads do more in the measure in which the caller does.
            let more = growing.cpu.max(plain.cpu) as f64 / plain.cpu.max(1) as f64;
            let kernel = (KERNEL_CPU as f64 * more) as u64;
            (plain, Costs { kernel, ..growing })
        };
        Self { name, source, plain, growing, per_kib: 0 }
    }

    /// A device of a kind.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        let (points, per_kib) = preset.figures();
        let shares = [0, 100, 500, 900, 990, 999, 1000];
        let curve: Vec<(u64, u64)> = shares.into_iter().zip(points).collect();
        let at = |share: u64| {
            let mut before = (0, points[0]);
            for &(end, value) in &curve {
                if share <= end {
                    let (begin, first) = before;
                    let part = (share - begin) * (value - first) / (end - begin).max(1);
                    return first + part;
                }
                before = (end, value);
            }
            before.1
        };
        let waits = (0..=1000).map(|share| at(share) * 1000).collect();
        let source = "a preset: rough figures of such devices".to_owned();
        let plain = Costs { waits, cpu: SYNC_CPU, kernel: KERNEL_CPU };
        Self { name: preset.name().to_owned(), source, growing: plain.clone(), plain, per_kib }
    }

    /// The duration, without processor time, of a sync of `bytes` that runs alone.
    pub fn sample(&self, grows: bool, bytes: u64, random: &mut Random) -> u64 {
        self.costs(grows).sample(random) + (bytes >> 10) * self.per_kib
    }

    /// What a sync costs of a file that has grown into a new block, or has not.
    #[must_use]
    pub fn costs(&self, grows: bool) -> &Costs {
        if grows { &self.growing } else { &self.plain }
    }
}

/// The journal of the file system. A sync that finds a commit under way cannot join it, because
/// what it has written belongs to the next transaction; all that ask meanwhile share that one, as
/// in jbd2 (`fs/jbd2/journal.c`, `jbd2_log_wait_commit`).
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// When the commit under way ends.
    current: Time,
    /// When the one after it ends, if somebody has asked for it.
    next: Option<Time>,
}

impl Journal {
    /// A sync asks for a commit that would take `takes` alone; answers when it is over.
    pub fn commit(&mut self, now: Time, takes: u64) -> Time {
        if let Some(next) = self.next.take_if(|_| self.current <= now) {
            self.current = next;
        }
        if self.current <= now {
            self.current = now + takes;
            return self.current;
        }
        *self.next.get_or_insert(self.current + takes)
    }
}

/// A block of the file system, bytes.
pub const BLOCK: u64 = 4096;

/// When writes to a file wait for a commit. An append to a block that has its place on the device
/// changes the inode's size in the journal, and while a commit writes the inode, that waits
/// (`BH_Shadow` in `fs/jbd2/transaction.c`). An append to a new block changes it later.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata {
    from: Time,
    until: Time,
    /// The file's last block that has a place.
    block: u64,
}

impl Metadata {
    /// A commit of a file with `bytes` begins that will take `takes`: it writes data, then
    /// metadata, then its own end, one third of the time each.
    #[must_use]
    pub fn new(now: Time, takes: u64, bytes: u64) -> Self {
        Self { from: now + takes / 3, until: now + takes / 3 * 2, block: bytes / BLOCK }
    }

    /// Until when an append at `position` waits; none if it need not.
    #[must_use]
    pub fn holds(&self, now: Time, position: u64) -> Option<Time> {
        let inside = self.from <= now && now < self.until;
        (inside && position / BLOCK == self.block).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_the_distribution() {
        let syncs: Vec<Measured> =
            (0..10_000).map(|i| Measured::plain(50_000 + i * 10, 20_000)).collect();
        let device = Device::measured(&syncs, "");
        let costs = &device.plain;
        let mut random = Random::new(7);
        let mut samples: Vec<u64> =
            (0..20_000).map(|_| device.sample(false, 0, &mut random)).collect();
        samples.sort_unstable();
        for share in [0.01, 0.25, 0.5, 0.75, 0.99] {
            let sample = samples[(20_000.0 * share) as usize] + costs.cpu;
            assert!(sample.abs_diff(costs.quantile(share)) < 2_000, "{share}: {sample}");
        }
    }

    #[test]
    fn growing_costs_what_it_was_measured_to_cost() {
        let grown = Measured { grew: true, ..Measured::plain(300_000, 60_000) };
        let mut syncs = vec![Measured::plain(200_000, 40_000); 1000];
        syncs.extend(vec![grown; ENOUGH]);
        let device = Device::measured(&syncs, "");
        let figures = |costs: &Costs| (costs.quantile(0.5), costs.cpu, costs.kernel);
        assert_eq!(figures(device.costs(false)), (200_000, 40_000, KERNEL_CPU));
        assert_eq!(figures(device.costs(true)), (300_000, 60_000, KERNEL_CPU * 3 / 2));
        // Of too few nothing is concluded.
        syncs.pop();
        let device = Device::measured(&syncs, "");
        assert_eq!(device.plain, device.growing);
    }

    #[test]
    fn one_duration_is_a_distribution() {
        let device = Device::measured(&[Measured::plain(9000, 1000)], "");
        assert_eq!(device.sample(false, 0, &mut Random::new(1)), 8000);
        assert_eq!((device.plain.quantile(0.5), device.plain.quantile(0.99)), (9000, 9000));
    }

    #[test]
    fn presets_rise_from_kind_to_kind() {
        let middles = Preset::ALL.map(|p| Device::preset(p).plain.quantile(0.5) / 1000);
        assert_eq!(middles, [85, 945, 2545, 1445, 16045]);
    }

    #[test]
    fn overlapping_syncs_share_the_next_commit() {
        let mut journal = Journal::default();
        assert_eq!(journal.commit(100, 50), 150);
        assert_eq!(journal.commit(120, 50), 200);
        assert_eq!(journal.commit(130, 90), 200);
        // The commit that was next is under way now.
        assert_eq!(journal.commit(160, 10), 210);
        assert_eq!(journal.commit(300, 10), 310);
    }

    #[test]
    fn appends_wait_while_the_inode_is_written() {
        let metadata = Metadata::new(1000, 300, 5000);
        let held = [1000, 1099, 1100, 1199, 1200].map(|now| metadata.holds(now, 5100));
        assert_eq!(held, [None, None, Some(1200), Some(1200), None]);
        assert_eq!(metadata.holds(1150, 8192), None);
    }
}
