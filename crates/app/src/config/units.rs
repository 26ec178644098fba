//! Durations (`500ms`, `60s`, `1h30m`), sizes (`8MiB`) and bandwidths (`100MiB/s`) as people write them.

use std::{num::NonZeroU64, time::Duration};

const DURATION_RULE: &str = "is no duration; write it like \"500ms\", \"60s\", \"5m\", \"24h\" or \"1h30m\"";
const SIZE_RULE: &str = "is no size; write it like \"512KiB\", \"8MiB\" or \"1GiB\"";
const BANDWIDTH_RULE: &str =
    "is no bandwidth; write it like \"512KiB/s\" or \"100MiB/s\", or leave it out for no limit";

/// One or more numbers, each with its unit: `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    let mut total = Some(Duration::ZERO).filter(|_| !rest.is_empty());
    while !rest.is_empty() {
        let (number, after) = split(rest, |byte| byte.is_ascii_digit());
        let (unit, after) = split(after, |byte| byte.is_ascii_alphabetic());
        let amount = number.parse::<u64>().ok().zip(milliseconds(unit));
        let part = amount.and_then(|(count, unit)| count.checked_mul(unit)).map(Duration::from_millis);
        total = total.zip(part).and_then(|(sum, part)| sum.checked_add(part));
        if total.is_none() {
            break;
        }
        rest = after;
    }
    total.ok_or_else(|| format!("\"{text}\" {DURATION_RULE}"))
}

fn milliseconds(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

/// A whole number of bytes, `KiB`, `MiB`, `GiB` (1024) or `KB`, `MB`, `GB` (1000).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text.trim(), |byte| byte.is_ascii_digit());
    let unit = match unit.trim_start() {
        "" | "B" => Some(1),
        "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
    bytes.ok_or_else(|| format!("\"{text}\" {SIZE_RULE}"))
}

/// A size for each second: `100MiB/s`.
pub(crate) fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let bytes = text.trim().strip_suffix("/s").and_then(|bytes| size(bytes).ok());
    let bytes = bytes.ok_or_else(|| format!("\"{text}\" {BANDWIDTH_RULE}"))?;
    NonZeroU64::new(bytes).ok_or_else(|| format!("\"{text}\" lets nothing through; leave it out for no limit"))
}

fn split(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !belongs(byte)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let cases = [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("24h", 86_400_000), ("1h30m", 5_400_000)];
        for (text, expected) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for bad in ["", "5", "s", "5 s", "-5s", "5x", "5s3", "99999999999999999999s", "9999999999999999999h", "5µs"] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn sizes_are_bytes_with_units() {
        let cases = [("0", 0), ("17", 17), ("8MiB", 8 << 20), ("2 GiB", 2 << 30), ("3MB", 3_000_000)];
        for (text, expected) in cases {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for bad in ["", "MiB", "8mib", "8.5MiB", "-1", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn bandwidths_are_sizes_for_each_second() {
        for (text, expected) in [("17/s", 17), ("64KiB/s", 65_536), ("100 MB/s", 100_000_000)] {
            assert_eq!(bandwidth(text).map(NonZeroU64::get), Ok(expected), "{text}");
        }
        for bad in ["", "/s", "0/s", "0MiB/s", "8MiB", "8MiB/m", "8Mbit/s", "-1/s"] {
            assert!(bandwidth(bad).is_err(), "{bad:?} was taken");
        }
    }
}
