//! "Did you mean": the nearest of a set of words.

/// The candidate nearest to `word`, if it is near enough to be a slip of the fingers.
///
/// One edit is allowed in words of up to four letters, two in longer ones; a transposition counts
/// as one. The first of equally near candidates wins, so the order of the candidates decides.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = match word.len() {
        0..=2 => return None,
        3..=4 => 1,
        5..=64 => 2,
        _ => return None,
    };
    candidates
        .into_iter()
        .map(|c| (strsim::osa_distance(&word.to_ascii_lowercase(), c), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words() {
        let words = ["defer", "skip", "stage", "pass"];
        assert_eq!(nearest("defr", words), Some("defer"));
        assert_eq!(nearest("DEFER", words), Some("defer"));
        assert_eq!(nearest("sikp", words), Some("skip"));
        assert_eq!(nearest("stgae", words), Some("stage"));
        assert_eq!(nearest("zzz", words), None);
        assert_eq!(nearest("n", words), None);
    }
}
