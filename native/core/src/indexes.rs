//! Sets of audience indexes as text: ascending numbers and ranges, `3 5-9 12`.

use std::fmt::Write;

use roaring::RoaringBitmap;

/// Writes a set.
pub fn write(set: &RoaringBitmap) -> String {
    let mut text = String::new();
    for (start, end) in ranges(set) {
        if !text.is_empty() {
            text.push(' ');
        }
        // Writing to a String cannot fail.
        let _ = if start == end { write!(text, "{start}") } else { write!(text, "{start}-{end}") };
    }
    text
}

/// Length of the text of a set.
pub fn text_len(set: &RoaringBitmap) -> usize {
    ranges(set)
        .map(|(start, end)| 1 + digits(start) + if start == end { 0 } else { 1 + digits(end) })
        .sum::<usize>()
        .saturating_sub(1)
}

fn digits(n: u32) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

fn ranges(set: &RoaringBitmap) -> impl Iterator<Item = (u32, u32)> + '_ {
    let mut numbers = set.iter().peekable();
    std::iter::from_fn(move || {
        let start = numbers.next()?;
        let mut end = start;
        while numbers.next_if(|n| *n == end + 1).is_some() {
            end += 1;
        }
        Some((start, end))
    })
}

/// Reads a set of numbers below `bound`. `None` for anything that [`write()`] would not write:
/// numbers that do not ascend, reach the bound, or are not plain decimals.
pub fn parse(text: &str, bound: u32) -> Option<RoaringBitmap> {
    let mut set = RoaringBitmap::new();
    if text.is_empty() {
        return Some(set);
    }
    let mut least = 0u32;
    for part in text.split(' ') {
        let (start, end) = match part.split_once('-') {
            Some((start, end)) => (number(start)?, number(end)?),
            None => (number(part)?, number(part)?),
        };
        if start < least || start > end || end >= bound {
            return None;
        }
        set.insert_range(start..=end);
        // `end < bound`, so this does not overflow.
        least = end + 1;
    }
    Some(set)
}

/// Reads one index: decimal digits without sign or leading zero, within 32 bits.
pub fn number(text: &str) -> Option<u32> {
    u32::try_from(long(text)?).ok()
}

/// Reads one sequence number: decimal digits without sign or leading zero, within 63 bits.
pub fn long(text: &str) -> Option<u64> {
    if text.is_empty()
        || !text.bytes().all(|b| b.is_ascii_digit())
        || (text.len() > 1 && text.starts_with('0'))
    {
        return None;
    }
    text.parse().ok().filter(|n| *n <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        for bad in [
            "3 3",
            "5 4",
            "9-5",
            "1  2",
            " 1",
            "1 ",
            "-1",
            "1-",
            "+1",
            "01",
            "x",
            "10",
            "4294967296",
        ] {
            assert_eq!(parse(bad, 10), None, "{bad:?}");
        }
        assert_eq!(parse("", 0), Some(RoaringBitmap::new()));
        assert_eq!(parse("0 2-4 9", 10), Some([0, 2, 3, 4, 9].into_iter().collect()));
        assert_eq!(long("9223372036854775808"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers in proptest::collection::btree_set(0u32..500, 0..80)) {
            let set: RoaringBitmap = numbers.into_iter().collect();
            let text = write(&set);
            prop_assert_eq!(text.len(), text_len(&set));
            prop_assert_eq!(parse(&text, 500), Some(set));
        }
    }
}
