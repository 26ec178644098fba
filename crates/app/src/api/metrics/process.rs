//! The process itself, by the names that every Prometheus client gives: from /proc, by hand, because the libraries that
//! do it bring more than these four numbers need.

use std::fs;

use prometheus::proto::MetricFamily;

use super::{
    alone,
    family::{counter, gauge},
    number,
};

/// What Linux counts processor time in, for programs: 100 a second on every machine that Mimeo is built for.
const TICKS: f64 = 100.0;
/// utime and stime, counted behind the command's closing bracket: proc(5) has them as 14 and 15.
const TIMES: std::ops::Range<usize> = 11..13;

/// Those that can be read.
pub(super) fn families() -> Vec<MetricFamily> {
    let memory = resident_bytes()
        .map(|bytes| gauge("process_resident_memory_bytes", "Memory that is resident.", alone(number(bytes))));
    let files =
        open_files().map(|files| gauge("process_open_fds", "File descriptors that are open.", alone(number(files))));
    let limit =
        most_files().map(|files| gauge("process_max_fds", "File descriptors that may be open.", alone(number(files))));
    let time = processor_seconds()
        .map(|time| counter("process_cpu_seconds_total", "Processor time, of user and system.", alone(time)));
    [memory, files, limit, time].into_iter().flatten().collect()
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
    Some(kibibytes.parse::<u64>().ok()? << 10)
}

fn open_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

fn most_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(TIMES)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(number(ticks) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(open_files().unwrap() >= 3 && open_files() <= most_files());
        assert!(processor_seconds().is_some());
        assert_eq!(families().len(), 4);
    }
}
