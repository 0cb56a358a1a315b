//! What somebody may have meant who wrote a word that is not known. Documents and configuration files share it.

/// Bytes of a word beyond which nothing is suggested.
const FOUND_BYTES_MAX: usize = 128;

/// The candidate that is fewest edits from `found`, if that is at most one edit in three characters.
#[must_use]
pub fn nearest<'c>(found: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // The work grows with the product of the lengths, and nothing so long is a slip of the pen.
    if found.len() > FOUND_BYTES_MAX {
        return None;
    }
    let edits_max = found.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (edits(found, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements that lead from one text to the other (Levenshtein), without regard to
/// case. One row of the table is kept: `row[j]` is the distance from what was read of `one` to the first `j` of
/// `two`.
fn edits(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (read, from) in one.to_lowercase().chars().enumerate() {
        let mut left = read + 1;
        let mut diagonal = read;
        for (cell, to) in row.iter_mut().skip(1).zip(&two) {
            let above = *cell;
            let replaced = diagonal + usize::from(from != *to);
            *cell = replaced.min(above + 1).min(left + 1);
            left = *cell;
            diagonal = above;
        }
        if let Some(first) = row.first_mut() {
            *first = read + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (one, two, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("topics", "topics", 0),
            ("Topics", "topics", 0),
            ("topic", "topics", 1),
            ("tpoics", "topics", 2),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(edits(one, two), expected, "{one} {two}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let keys = ["id", "who", "verbs", "topics", "when"];
        for (found, expected) in [
            ("topic", Some("topics")),
            ("verb", Some("verbs")),
            ("hwo", None),
            ("whom", Some("who")),
            ("principals", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, keys), expected, "{found}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), keys), None);
    }
}
