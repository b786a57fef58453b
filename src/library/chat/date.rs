//! The date that a template may write.

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl Date {
    /// A day written as `2026-11-26`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = |digits: usize| -> Option<u16> {
            let part = parts.next().filter(|p| p.len() == digits)?;
            let all = part.bytes().all(|b| b.is_ascii_digit());
            all.then(|| part.parse().ok()).flatten()
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        let made = Self {
            year,
            month: u8::try_from(month).ok()?,
            day: u8::try_from(day).ok()?,
        };
        let known = year > 0 && (1..=12).contains(&month) && (1..=made.days()).contains(&made.day);
        (parts.next().is_none() && known).then_some(made)
    }

    /// Days of its month.
    const fn days(self) -> u8 {
        match self.month {
            4 | 6 | 9 | 11 => 30,
            2 if self.leap() => 29,
            2 => 28,
            _ => 31,
        }
    }

    const fn leap(self) -> bool {
        self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    /// Its place in the year, from 1.
    fn of_year(self) -> u16 {
        let before = (1..self.month).map(|month| u16::from(Self { month, ..self }.days()));
        before.sum::<u16>() + u16::from(self.day)
    }

    /// Its name in the week.
    fn weekday(self) -> &'static str {
        let years = u32::from(self.year) - 1;
        let days = 365 * years + years / 4 - years / 100 + years / 400 + u32::from(self.of_year());
        WEEKDAYS
            .get((days % 7) as usize)
            .copied()
            .unwrap_or_default()
    }

    fn month_name(self) -> &'static str {
        let place = usize::from(self.month).saturating_sub(1);
        MONTHS.get(place).copied().unwrap_or_default()
    }

    /// It as Python's `strftime` writes it.
    ///
    /// # Errors
    /// The code that is no part of a date.
    pub fn format(self, form: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = form.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let mut code = rest.next().unwrap_or_default();
            let bare = code == '-';
            if bare {
                code = rest.next().unwrap_or_default();
            }
            let two = |n: u16| {
                if bare {
                    n.to_string()
                } else {
                    format!("{n:02}")
                }
            };
            let short = |name: &str| name.chars().take(3).collect::<String>();
            text += &match code {
                'Y' => format!("{:04}", self.year),
                'y' => two(self.year % 100),
                'm' => two(self.month.into()),
                'd' => two(self.day.into()),
                'e' if !bare => format!("{:2}", self.day),
                'j' if bare => self.of_year().to_string(),
                'j' => format!("{:03}", self.of_year()),
                'B' => self.month_name().to_owned(),
                'b' | 'h' => short(self.month_name()),
                'A' => self.weekday().to_owned(),
                'a' => short(self.weekday()),
                'F' => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                '%' => "%".to_owned(),
                other => return Err(format!("%{}{other}", if bare { "-" } else { "" })),
            };
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Date;

    #[test]
    fn days_are_written_as_python_writes_them() {
        let day = |text: &str| Date::parse(text).expect("a day");
        let of = |text: &str, form: &str| day(text).format(form).expect("a form");
        assert_eq!(
            of("2026-11-26", "%d %b %Y, %A %-d.%-m.%y"),
            "26 Nov 2026, Thursday 26.11.26"
        );
        assert_eq!(
            of("2024-02-29", "%a %j %F 100%%"),
            "Thu 060 2024-02-29 100%"
        );
        assert_eq!(of("2000-01-01", "%A %B %e"), "Saturday January  1");
        assert_eq!(day("2026-01-02").format("%H:%M"), Err("%H".to_owned()));
        for wrong in [
            "2023-02-29",
            "2026-13-01",
            "2026-1-1",
            "26-01-01",
            "2026-01-01-1",
            "+026-01-01",
            "",
        ] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }
}
