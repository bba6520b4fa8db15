//! Numbers as they are read.

/// 40000 as "40,000".
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time left as "1:02:03", "2:03", or a dash when nobody knows.
pub fn duration(seconds: f64) -> String {
    if !(0.0..1e8).contains(&seconds) {
        return "–".into();
    }
    let s = seconds.round() as u64;
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 40_000, 1_234_567].map(thousands), ["0", "999", "1,000", "40,000", "1,234,567"]);
        assert_eq!([0.4, 61.0, 3723.0, f64::INFINITY, -1.0].map(duration), ["0:00", "1:01", "1:02:03", "–", "–"]);
    }
}
