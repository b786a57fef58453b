//! Sizes and counts, with one way to print each.

use std::fmt;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let text = match unit {
            0 => format!("{} B", self.0),
            _ if value < 10.0 => format!("{value:.2} {}", UNITS.get(unit).unwrap_or(&"")),
            _ if value < 100.0 => format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"")),
            _ => format!("{value:.0} {}", UNITS.get(unit).unwrap_or(&"")),
        };
        f.pad(&text)
    }
}

/// A count of things (parameters, examples), printed with thousands separators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(c);
        }
        f.pad(&text)
    }
}

/// A time to come, no finer than an estimate is: `40 s`, `3 min`, `2 h 10 min`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct About(pub f64);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.max(0.0);
        let minutes = (seconds / 60.0).round() as u64;
        let text = if seconds < 10.0 {
            format!("{seconds:.1} s")
        } else if seconds < 100.0 {
            format!("{seconds:.0} s")
        } else if minutes < 100 {
            format!("{minutes} min")
        } else {
            format!("{} h {} min", minutes / 60, minutes % 60)
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_print_for_people() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes(1536).to_string(), "1.50 KiB");
        assert_eq!(Bytes(6 << 30).to_string(), "6.00 GiB");
        assert_eq!(About(7.25).to_string(), "7.2 s");
        assert_eq!(About(130.0).to_string(), "2 min");
        assert_eq!(About(7800.0).to_string(), "2 h 10 min");
        assert_eq!(Count(355_361_794).to_string(), "355,361,794");
    }
}
