//! The readers of elements, for the fuzz targets and in no package.

use std::fmt::Debug;

use crate::indexes;
use crate::ops::{LinkAccept, LinkOffer, Op, Report, Resume};
use crate::slots::SlotList;
use crate::{Element, Incoming};

/// Reads an element as everything that it may be. What is read, written and read again is the same.
///
/// # Panics
///
/// If it is not.
pub fn elements(element: &Element<Incoming>, bound: u32) {
    same(Op::read(element, bound), |op| Op::read(&op.write(), bound));
    same(LinkOffer::read(element), |offer| LinkOffer::read(&offer.write::<()>()));
    same(LinkAccept::read(element, bound), |accept| LinkAccept::read(&accept.write::<()>(), bound));
    same(Resume::read(element), |resume| Resume::read(&resume.write::<()>()));
    same(Report::read(element), |report| Report::read(&report.write::<()>()));
}

/// The same for texts.
///
/// # Panics
///
/// If it is not.
pub fn texts(text: &str, bound: u32) {
    same(indexes::parse(text, bound), |set| {
        let written = indexes::write(set);
        assert!(written.len() == indexes::text_len(set) && written.len() <= text.len());
        assert!(set.max().is_none_or(|last| last < bound), "{set:?} of {bound}");
        indexes::parse(&written, bound)
    });
    same(SlotList::parse(text), |list| {
        assert_eq!(list.write(), text);
        let ranges = list.ranges().all(|(first, last)| 0 < first && first <= last);
        assert!(ranges && list.len() >= list.ranges().count() as u64);
        SlotList::parse(&list.write())
    });
    same(indexes::long(text), |n| {
        assert_eq!(n.to_string(), text);
        indexes::long(&n.to_string())
    });
}

fn same<T: PartialEq + Debug>(read: Option<T>, again: impl FnOnce(&T) -> Option<T>) {
    if let Some(read) = read {
        assert_eq!(again(&read).as_ref(), Some(&read));
    }
}
