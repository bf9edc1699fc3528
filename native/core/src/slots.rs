//! Lists of slots as text: numbers and ascending ranges in the order of delivery, `17 3-5 9`.

use std::fmt::Write;

use crate::indexes::long;

/// Slots are numbered in blocks of 2^32, so that what is replayed together can have numbers that
/// follow each other.
pub(crate) const BLOCK_BITS: u32 = 32;
/// How many blocks there are.
pub(crate) const BLOCKS: usize = 16;

/// The block of a slot, if it is in one.
pub(crate) fn block(slot: u64) -> Option<usize> {
    usize::try_from(slot >> BLOCK_BITS).ok().filter(|block| *block < BLOCKS)
}

/// Whether a slot is in one of these ranges, which [`SlotList::merged`] gives.
pub(crate) fn is_among(ranges: &[(u64, u64)], slot: u64) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= slot);
    after > 0 && slot <= ranges[after - 1].1
}

/// Slots in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotList(Vec<(u64, u64)>);

impl SlotList {
    /// Adds one at the end.
    pub fn push(&mut self, slot: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => self.0.push((slot, slot)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many slots it names.
    pub fn len(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first + 1))
    }

    /// First and last of each range.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Every slot: only after a look at [`Self::len`].
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The slots as ascending ranges that do not overlap, for [`is_among`].
    pub fn merged(&self) -> Vec<(u64, u64)> {
        let mut ranges = self.0.clone();
        ranges.sort_unstable();
        ranges.dedup_by(|(first, last), (_, end)| {
            let overlap = *first <= *end;
            if overlap {
                *end = (*end).max(*last);
            }
            overlap
        });
        ranges
    }

    pub fn write(&self) -> String {
        let mut text = String::new();
        for (first, last) in &self.0 {
            if !text.is_empty() {
                text.push(' ');
            }
            // Writing to a String cannot fail.
            let _ = match first == last {
                true => write!(text, "{first}"),
                false => write!(text, "{first}-{last}"),
            };
        }
        text
    }

    /// Reads what [`Self::write`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut list = SlotList::default();
        for part in text.split(' ') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (long(first)?, long(last)?),
                None => (long(part)?, long(part)?),
            };
            let joins = list.0.last().is_some_and(|(_, end)| end + 1 == first);
            if first == 0 || joins || last < first || part.contains('-') && first == last {
                return None;
            }
            list.0.push((first, last));
        }
        Some(list)
    }
}

impl FromIterator<u64> for SlotList {
    fn from_iter<I: IntoIterator<Item = u64>>(slots: I) -> Self {
        let mut list = SlotList::default();
        slots.into_iter().for_each(|slot| list.push(slot));
        list
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        for bad in ["", "0", "0-3", "3-3", "5-3", "1 2", "1-3 4", " 1", "1 ", "1-", "-1", "01", "x"]
        {
            assert_eq!(SlotList::parse(bad), None, "{bad:?}");
        }
        let list = SlotList::parse("17 3-5 9").expect("canonical");
        assert_eq!(list.iter().collect::<Vec<_>>(), [17, 3, 4, 5, 9]);
        assert_eq!(list.len(), 5);
    }

    #[test]
    fn the_length_of_a_hostile_list_does_not_overflow() {
        let all = format!("1-{max} 1-{max} 1-{max}", max = i64::MAX);
        assert_eq!(SlotList::parse(&all).expect("canonical").len(), u64::MAX);
    }

    proptest! {
        #[test]
        fn merged_ranges_have_the_same_slots(
            list in proptest::collection::vec((1u64..40, 0u64..9), 1..12)
        ) {
            let list = SlotList(list.into_iter().map(|(first, len)| (first, first + len)).collect());
            let merged = list.merged();
            prop_assert!(merged.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", merged);
            for slot in 0..60 {
                prop_assert_eq!(is_among(&merged, slot), list.iter().any(|s| s == slot), "{}", slot);
            }
        }

        #[test]
        fn what_is_written_is_read(slots in proptest::collection::vec(1u64..50, 1..40)) {
            let list: SlotList = slots.iter().copied().collect();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), slots);
            prop_assert_eq!(SlotList::parse(&list.write()), Some(list));
        }
    }
}
