//! "Did you mean": the one place that finds the nearest of a set of words.

/// The candidate nearest to `word`, if it is near enough to be a typing error.
///
/// Case does not count. One edit is allowed in words of up to four letters, two in words of up to
/// eight, three in longer ones; a transposition is one edit. Of equally near candidates the first
/// wins.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = match word.len() {
        0..=2 => return None,
        3..=4 => 1,
        5..=8 => 2,
        9..=64 => 3,
        _ => return None,
    };
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::osa_distance(&word, &c.to_ascii_lowercase()), c))
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
        assert_eq!(nearest("eoi", ["EIO", "ENOSPC"]), Some("EIO"));
        assert_eq!(nearest("delay_sync", ["delayed_fsync"]), Some("delayed_fsync"));
    }
}
