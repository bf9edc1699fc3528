//! Elements as a hostile peer would write them: mostly in form, since what is not is refused at once.

use dmuc_core::{Element, Facts, Incoming};

use crate::script::Script;

/// Numbers that are likely to mean something, and some that are not.
pub fn number(script: &mut Script<'_>, near: u64) -> String {
    match script.below(16) {
        0 => script.text(),
        1 => u64::MAX.to_string(),
        2 => i64::MAX.to_string(),
        3 => u32::MAX.to_string(),
        4 => (near + 1).to_string(),
        5 => near.saturating_sub(1).to_string(),
        6 => near.to_string(),
        n => (n as u64 - 7).to_string(),
    }
}

/// A set of indexes.
pub fn indexes(script: &mut Script<'_>, bound: u64) -> String {
    match script.below(8) {
        0 => script.text(),
        1 => format!("0-{}", bound.saturating_sub(1)),
        2 => format!("0-{}", u32::MAX),
        3 => format!("{}-{}", script.below(8), bound.saturating_sub(1)),
        4 => {
            let first = script.below(6);
            format!("{first} {}", first + 1 + script.below(4))
        }
        5 => bound.saturating_sub(1).to_string(),
        _ => script.below(12).to_string(),
    }
}

/// A list of slots.
pub fn slots(script: &mut Script<'_>) -> String {
    let block = script.of(&[0, 0, 1, 2, 2, 15, 16, 1 << 29]) << 32;
    let mut parts = Vec::new();
    for _ in 0..=script.below(4) {
        let first = block + script.below(20) as u64;
        parts.push(match script.below(8) {
            0 => script.text(),
            1 => format!("{first}-{}", i64::MAX),
            2 => format!("{first}-{}", first + 150_000),
            3 | 4 => format!("{first}-{}", first + 1 + script.below(6) as u64),
            5 => format!("{first} {first}"),
            _ => first.to_string(),
        });
    }
    parts.join(" ")
}

pub fn class(script: &mut Script<'_>) -> String {
    match script.below(8) {
        0 => script.text(),
        n if n % 2 == 0 => "full".to_owned(),
        _ => "anonymous".to_owned(),
    }
}

/// What a stanza is: something that the core looks at, or any bits at all.
pub fn facts(script: &mut Script<'_>) -> Facts {
    const OCCUPANT: u32 = Facts::PRESENCE | Facts::NICK;
    const GONE: u32 = OCCUPANT | Facts::UNAVAILABLE;
    Facts(match script.below(12) {
        0 => script.word(),
        1 => OCCUPANT | Facts::CODE_110,
        2 => GONE | Facts::CODE_110,
        3 => GONE | Facts::CODE_110 | Facts::CODE_303,
        4 => GONE | Facts::DESTROY,
        5 => GONE,
        6 => OCCUPANT | Facts::ERROR,
        7 => OCCUPANT | Facts::ITEM_JID,
        8 | 9 => OCCUPANT,
        10 => Facts::MESSAGE | Facts::NICK,
        _ => Facts::MESSAGE | Facts::GROUPCHAT | Facts::NICK,
    })
}

/// A stanza of a room. `number` tells it from all others; what it holds begins with its room.
pub fn payload(script: &mut Script<'_>, room: &str, other: &str, number: u64) -> Incoming {
    let padding = if script.once_in(8) { 1 << script.below(12) } else { 0 };
    let from = match script.below(16) {
        0 => other.to_owned(),
        1 => script.text(),
        2 => room.to_owned(),
        n => format!("{room}/n{}", n % 5),
    };
    Incoming {
        facts: facts(script),
        from,
        has_to: script.once_in(32),
        packed: (!script.once_in(16))
            .then(|| format!("{room}/{number}/{}", " ".repeat(padding)).into_bytes().into()),
    }
}

/// Changes an element as a wire might that means ill.
pub fn alter(script: &mut Script<'_>, element: &mut Element<Incoming>) {
    let near = element.children.len() as u64;
    match script.below(8) {
        0 if !element.attrs.is_empty() => {
            let at = script.below(element.attrs.len());
            element.attrs[at].1 = number(script, near);
        }
        1 if !element.attrs.is_empty() => {
            let at = script.below(element.attrs.len());
            element.attrs.remove(at);
        }
        2 if !element.children.is_empty() => {
            let at = script.below(element.children.len());
            element.children.remove(at);
        }
        3 if !element.children.is_empty() && element.children.len() < 64 => {
            let at = script.below(element.children.len());
            let again = element.children[at].clone();
            element.children.push(again);
        }
        4 if element.children.len() > 1 => {
            let (a, b) =
                (script.below(element.children.len()), script.below(element.children.len()));
            element.children.swap(a, b);
        }
        5 if element.payload.is_some() => {
            if let Some(payload) = &mut element.payload {
                payload.facts = facts(script);
            }
        }
        6 if element.name == "drop" || element.name == "dropped" || element.name == "replay" => {
            let slots = slots(script);
            element.attrs.retain(|(name, _)| name != "slots");
            element.attrs.push(("slots".to_owned(), slots));
        }
        _ if !element.children.is_empty() => {
            let at = script.below(element.children.len());
            alter(script, &mut element.children[at]);
        }
        _ => {
            let name = *script.of(&["i", "slot", "slots", "seq", "refusals", "except", "class"]);
            let value = indexes(script, near);
            element.attrs.retain(|(n, _)| n != name);
            element.attrs.push((name.to_owned(), value));
        }
    }
}
