//! The machine: agent, rights, and what the kernel offers.

use super::Findings;
use crate::cache::Cache;
use crate::launch;
use std::fs;
use std::path::Path;

/// Looks at everything that does not depend on a process or policy.
pub(super) fn look(findings: &mut Findings) {
    let kernel = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    findings.ok(
        "durac",
        format!(
            "version {}, on Linux {} ({})",
            env!("CARGO_PKG_VERSION"),
            text(kernel.release()),
            text(kernel.machine())
        ),
    );
    agent(findings);
    let advice = "set DURAC_CACHE to a folder that only this user can write";
    match Cache::look() {
        Ok(Some(_)) => findings.ok("cache", "proofs are remembered"),
        Ok(None) => findings.note(
            "cache",
            "off, or there is no folder for it: each start of a text proves it again",
            advice,
        ),
        Err(why) => {
            findings.note("cache", format!("{why}: each start of a text proves it again"), advice)
        }
    }
    notify("kernel notify", "", findings);
    io_uring("io_uring", "", findings);
}

fn agent(findings: &mut Findings) {
    let advice = "build it with `cargo build --release -p durac-preload`, put it beside durac or in ../lib/durac, or name \
                  it with DURAC_AGENT";
    match launch::agent(None).and_then(|agent| launch::check_agent(&agent).map(|()| agent)) {
        Ok(agent) => findings.ok("agent", format!("`{}`", agent.display())),
        Err(why) => findings.failed("agent", &why, advice),
    }
}

/// What `use kernel notify` needs. What is found begins with `name`, unless the line is about that.
pub(super) fn notify(about: &str, name: &str, findings: &mut Findings) {
    let without = "without it a policy learns of completions from the engine; no bound changes";
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        let found = format!("{name}the kernel has no types (BTF)");
        findings.note(
            about,
            found,
            format!("use a kernel with CONFIG_DEBUG_INFO_BTF=y; {without}"),
        );
        return;
    }
    // CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF of linux/capability.h.
    let all = capabilities("self").unwrap_or(0);
    let may = all & (1 << 21) != 0 || (all & (1 << 38) != 0 && all & (1 << 39) != 0);
    if may {
        findings.ok(about, format!("{name}types and rights are there"));
    } else {
        let advice = format!("start durac as root, or with CAP_BPF and CAP_PERFMON; {without}");
        findings.note(about, format!("{name}no right to load programs"), advice);
    }
}

/// What the engine `io_uring` needs, in the same way.
pub(super) fn io_uring(about: &str, name: &str, findings: &mut Findings) {
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match setting.trim() {
        "1" => findings.note(
            about,
            format!("{name}is only for members of kernel.io_uring_group"),
            "use `--engine thread`, or sysctl kernel.io_uring_disabled=0",
        ),
        "2" => findings.note(
            about,
            format!("{name}is disabled"),
            "use `--engine thread`, or sysctl kernel.io_uring_disabled=0",
        ),
        _ => findings.ok(about, format!("{name}is not disabled by sysctl")),
    }
}

/// The effective capabilities of a process.
pub(super) fn capabilities(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
