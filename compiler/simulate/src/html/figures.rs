//! Figures and texts as the page writes them. `base.js` writes figures in the same way.

/// A text as HTML, also in an attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `2026-11-24 13:50 UTC`: seconds since 1970.
#[must_use]
pub fn date(seconds: u64) -> String {
    // A file may say anything; later years are not written in this form.
    const LAST: u64 = 253_402_300_799;
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(LAST));
    let text = humantime::format_rfc3339_seconds(at).to_string().replace('T', " ");
    format!(
        "{} UTC",
        text.trim_end_matches('Z').trim_end_matches(|c| c != ':').trim_end_matches(':')
    )
}

/// `12,345`; one decimal below ten, unless it is zero.
pub fn count(value: f64) -> String {
    if value.abs() < 10.0 && value.fract().abs() >= 0.05 {
        return format!("{value:.1}");
    }
    grouped(value)
}

/// `12,345`: a whole number without its sign.
#[must_use]
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `150 ns`, `4.5 µs`, `35.4 µs`, `1.5 ms`, `2 s`: nanoseconds in three digits at most.
pub fn time(ns: f64) -> String {
    scaled(ns, &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")])
}

/// `118 B`, `1.2 kB`, `3.4 MB`, powers of a thousand.
pub fn bytes(value: f64) -> String {
    scaled(value, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")])
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    // What would be rounded to 1000 belongs to the next unit.
    let unit = units.iter().find(|(scale, _)| value >= scale * 0.9995).or(units.last());
    let (scale, name) = unit.copied().unwrap_or((1.0, ""));
    format!("{} {name}", digits(value / scale))
}

/// Three digits at most, and no zeros at the end.
fn digits(value: f64) -> String {
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(
            [0.0, 0.4, 3.0, 999.0, 12_345.0, 1e6].map(count),
            ["0", "0.4", "3", "999", "12,345", "1,000,000"]
        );
        assert_eq!(
            [0.0, 150.0, 4_500.0, 35_400.0, 999_900.0, 1.5e6, 2e9, 3.6e12].map(time),
            ["0 ns", "150 ns", "4.5 µs", "35.4 µs", "1 ms", "1.5 ms", "2 s", "3600 s"]
        );
        assert_eq!([0.0, 118.0, 1_234.0, 5e7].map(bytes), ["0 B", "118 B", "1.23 kB", "50 MB"]);
    }

    #[test]
    fn escapes() {
        assert_eq!(escaped("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
    }
}
