//! What the operating system knows of this process: `process_*`.
//!
//! Registered by the binary alone: in a simulation, whose runs must be equal byte for byte, these are the machine's
//! business, and would show in what a scraper receives.

use std::{fmt, fs};

use conduit_identity::UnixTime;
use conduit_runtime::metrics::Registry;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Ticks a second in `/proc/*/stat`: USER_HZ, which the kernel keeps at 100 for programs whatever its own clock is
/// (include/asm-generic/param.h).
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the metrics of a process that started at `started`.
pub(crate) fn register(registry: &Registry, started: UnixTime) {
    registry.register_collector(Box::new(Process { started }));
}

#[derive(Debug)]
struct Process {
    started: UnixTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauge(
            &mut encoder,
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            Some(self.started.0.as_secs_f64()),
        )?;
        if let Some(seconds) = read("stat").as_deref().and_then(cpu_seconds) {
            encoder
                .encode_descriptor(
                    "process_cpu_seconds",
                    "Processor time used, in seconds",
                    None,
                    MetricType::Counter,
                )?
                .encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        let status = read("status").unwrap_or_default();
        gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory", kilobytes(&status, "VmSize:"))?;
        gauge(
            &mut encoder,
            "process_resident_memory_bytes",
            "Resident memory",
            kilobytes(&status, "VmRSS:"),
        )?;
        gauge(&mut encoder, "process_open_fds", "Open file descriptors", open_fds())?;
        let limits = read("limits").unwrap_or_default();
        gauge(&mut encoder, "process_max_fds", "File descriptors that may be open", max_fds(&limits))
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
    // Elsewhere than on Linux there is nothing to read, and nothing is shown.
    let Some(value) = value else { return Ok(()) };
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

/// User and system time, fields 14 and 15 of proc_pid_stat(5), counted after the command's closing parenthesis: the
/// command itself may contain blanks and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_ascii_whitespace().skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS_PER_SECOND)
}

fn kilobytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

fn open_fds() -> Option<f64> {
    // One of them is the directory that is being read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_in_seconds_whatever_the_command_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 2 0 5 1000 20 1844";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (x) S"), None);
    }

    #[test]
    fn memory_and_limits_are_read_as_linux_writes_them() {
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2_097_152.0));
        assert_eq!(kilobytes("", "VmRSS:"), None);
        assert_eq!(max_fds("Limit  Soft Hard Units\nMax open files   1024  4096  files\n"), Some(1_024.0));
        assert_eq!(max_fds("Max open files unlimited unlimited files"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_metrics() {
        let registry = Registry::default();
        register(&registry, UnixTime::from_secs(1_700_000_000));
        let text = registry.encode();
        for name in [
            "process_start_time_seconds 1700000000.0",
            "process_cpu_seconds_total ",
            "process_virtual_memory_bytes ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
    }
}
