//! Splitting JIDs that a host has already prepared.
//!
//! The core compares JIDs as strings and never normalises them: hosts differ in how they
//! prepare (see RFC 7622), and each key here comes from the same host that asks for it.

/// `user@domain` of `user@domain/resource`; the whole when there is no resource.
pub fn bare(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}

/// The resource, if there is one.
pub fn resource(jid: &str) -> Option<&str> {
    jid.split_once('/').map(|(_, resource)| resource)
}

/// The domain.
pub fn domain(jid: &str) -> &str {
    let bare = bare(jid);
    bare.split_once('@').map_or(bare, |(_, domain)| domain)
}

/// Whether it is the bare JID of a room: a local part, a domain, no resource.
pub fn is_room(jid: &str) -> bool {
    jid.split_once('@').is_some_and(|(node, domain)| !node.is_empty() && !domain.is_empty())
        && resource(jid).is_none()
}

/// Whether it is a full JID with a local part.
pub fn is_session(jid: &str) -> bool {
    bare(jid).contains('@') && resource(jid).is_some_and(|r| !r.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_may_hold_at_signs_and_slashes() {
        let jid = "u@b.test/a@b/c";
        assert_eq!((bare(jid), domain(jid), resource(jid)), ("u@b.test", "b.test", Some("a@b/c")));
        assert_eq!(domain("b.test/x@y"), "b.test");
        assert!(is_room("r@c.test") && !is_room("r@c.test/x") && !is_room("c.test"));
        assert!(is_session(jid) && !is_session("b.test/x@y") && !is_session("u@b.test/"));
    }
}
