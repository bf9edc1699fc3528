//! What a host reads off a stanza for the core.

/// Properties of a stanza as bits, so that they cross the boundary as one integer.
///
/// The hosts have parsed the stanza already; the core decides what the properties mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts(pub u32);

impl Facts {
    /// Kind of stanza, bits 0 and 1.
    pub const KIND: u32 = 0b11;
    /// A `<message/>`.
    pub const MESSAGE: u32 = 0;
    /// A `<presence/>`.
    pub const PRESENCE: u32 = 1;
    /// An `<iq/>`.
    pub const IQ: u32 = 2;
    /// `type` attribute, bits 2 to 4; 0 is none or any that is not named here.
    pub const TYPE: u32 = 0b111 << 2;
    /// `type='unavailable'`.
    pub const UNAVAILABLE: u32 = 1 << 2;
    /// `type='error'`.
    pub const ERROR: u32 = 2 << 2;
    /// Presence of another type (subscription, probe).
    pub const OTHER: u32 = 3 << 2;
    /// A message with `type='groupchat'`.
    pub const GROUPCHAT: u32 = 4 << 2;
    /// XEP-0045 status code 110: the presence is the recipient's own.
    pub const CODE_110: u32 = 1 << 5;
    /// XEP-0045 status code 303: a nick change.
    pub const CODE_303: u32 = 1 << 6;
    /// `muc#user` `<destroy/>` (XEP-0045 section 10.9).
    pub const DESTROY: u32 = 1 << 7;
    /// `muc#user` `<item jid=…/>`: the payload tells a real JID.
    pub const ITEM_JID: u32 = 1 << 8;
    /// The `from` has a resource: an occupant, not the room.
    pub const NICK: u32 = 1 << 9;
    /// `<x xmlns='http://jabber.org/protocol/muc'/>`: a join (XEP-0045 section 7.2).
    pub const MUC_X: u32 = 1 << 10;
    /// An error with `<remote-server-not-found/>` or `<remote-server-timeout/>` (RFC 6120 sections
    /// 8.3.3.16 and 8.3.3.17): a server says it that could not reach the room, not the room.
    pub const NOT_REACHED: u32 = 1 << 11;

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether it is a presence.
    pub fn is_presence(self) -> bool {
        self.0 & Self::KIND == Self::PRESENCE
    }

    /// Whether `type='error'`.
    pub fn is_error(self) -> bool {
        self.0 & Self::TYPE == Self::ERROR
    }

    /// Whether it says that what was sent has not reached the room.
    pub fn is_not_reached(self) -> bool {
        self.is_error() && self.has(Self::NOT_REACHED)
    }

    /// An available presence from an occupant: the first that a session gets makes it one too.
    pub fn is_available(self) -> bool {
        self.is_presence() && self.0 & Self::TYPE == 0 && self.has(Self::NICK)
    }

    /// An unavailable presence.
    pub fn is_unavailable(self) -> bool {
        self.is_presence() && self.0 & Self::TYPE == Self::UNAVAILABLE
    }

    /// The recipient's own available presence: the room's yes to a join (XEP-0045 7.2.2).
    pub fn is_own_available(self) -> bool {
        self.is_available() && self.has(Self::CODE_110)
    }

    /// The room's own end of the recipient's stay: 110-unavailable that is no nick change, or the
    /// destruction of the room.
    pub fn is_own_end(self) -> bool {
        self.is_unavailable()
            && self.has(Self::NICK)
            && ((self.has(Self::CODE_110) && !self.has(Self::CODE_303)) || self.has(Self::DESTROY))
    }

    /// A presence of the recipient himself.
    pub fn is_own(self) -> bool {
        self.is_presence() && self.has(Self::CODE_110)
    }

    /// A presence of another occupant, of which there may be a variant with the real JID.
    pub fn is_others_presence(self) -> bool {
        (self.is_available() || (self.is_unavailable() && self.has(Self::NICK)))
            && !self.has(Self::CODE_110)
    }

    /// A message of a room to its occupants.
    pub fn is_groupchat(self) -> bool {
        self.0 & (Self::KIND | Self::TYPE) == Self::MESSAGE | Self::GROUPCHAT
    }

    /// Whether it can be wanted again: the presence of another occupant, or what a room has said to
    /// all (XEP-0045 sections 7.2.3 and 7.2.13). Never what tells the recipient of his own stay.
    pub fn is_lasting(self) -> bool {
        self.is_groupchat() || self.is_available() && !self.has(Self::CODE_110)
    }

    /// Whether the payload tells a real JID.
    pub fn tells_jid(self) -> bool {
        self.has(Self::ITEM_JID)
    }

    /// Whether a carried stanza can change a consent record of its recipient.
    pub fn concerns_consent(self) -> bool {
        self.is_presence()
            && (self.has(Self::CODE_110) || self.has(Self::DESTROY) || self.is_error())
    }
}
