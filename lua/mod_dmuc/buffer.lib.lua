-- What a room has sent and the core holds, until the room's event is over.
--
-- Prosody's room code sends one stanza object to many occupants, changes its `to` for each, and
-- sometimes goes on to change the object itself: status 110 is added to the very presence that an
-- occupant's own other sessions have just been sent. So it is the content that names a payload, by its
-- digest, and what is kept of the object is a copy.

local xml = module:require "xml";

local setmetatable, ipairs = setmetatable, ipairs;
local s_match = string.match;
local serialize, freeze = xml.serialize, xml.freeze;

local buffer_mt = {};
buffer_mt.__index = buffer_mt;

local function new()
	return setmetatable({
		-- Payloads by position: XML, or the id of one that the core has; facts, nick, digest, and stanza.
		bytes = {}, facts = {}, nicks = {}, digests = {}, stanzas = {}, payloads = 0;
		-- Copies in the order sent: full JID and position of the payload. Where `to` is false, a crowd of
		-- the core's is in its place.
		to = {}, position = {}, crowds = {}, copies = 0;
		by_digest = {};
	}, buffer_mt);
end

--- The position of a stanza's present state among the payloads, found or new. `known` is the id of an
-- equal payload that the core has: then the stanza is neither copied nor written, and kept only for the
-- case that the core fails.
function buffer_mt:payload(stanza, facts, digest, known)
	local position = self.by_digest[digest];
	if position then return position; end
	position = self.payloads + 1;
	self.bytes[position] = known or serialize(stanza);
	self.stanzas[position] = known and stanza or freeze(stanza);
	self.facts[position] = facts;
	self.nicks[position] = s_match(stanza.attr.from, "^[^/]*/(.*)$") or "";
	self.digests[position] = digest;
	self.payloads = position;
	self.by_digest[digest] = position;
	return position;
end

function buffer_mt:add(to, position)
	local n = self.copies + 1;
	self.copies = n;
	self.to[n] = to;
	self.position[n] = position;
end

--- Copies of one payload for many.
function buffer_mt:add_crowd(crowd, position)
	self:add(false, position);
	self.crowds[self.copies] = crowd;
end

--- Calls f(stanza, jid) for each copy in its order.
function buffer_mt:each(f)
	for i = 1, self.copies do
		local stanza, to = self.stanzas[self.position[i]], self.to[i];
		for _, jid in ipairs(to and { to } or self.crowds[i]:list()) do f(stanza, jid); end
	end
end

return { new = new };
