-- What a room has sent and the core holds, until the room's event is over.
--
-- Prosody's room code sends one stanza object to many occupants, changes its `to` for each, and
-- sometimes goes on to change the object itself: status 110 is added to the very presence that an
-- occupant's own other sessions have just been sent. So an object names a payload only as long
-- as it equals the copy taken when it was first seen, and is another payload from then on.

local xml = module:require "xml";

local setmetatable = setmetatable;
local facts, serialize, same, freeze = xml.facts, xml.serialize, xml.same, xml.freeze;

local buffer_mt = {};
buffer_mt.__index = buffer_mt;

local function new()
	return setmetatable({
		-- Payloads: XML, facts and frozen stanza, by position.
		bytes = {}, facts = {}, stanzas = {}, payloads = 0;
		-- Copies in the order sent: full JID and position of the payload.
		to = {}, position = {}, copies = 0;
		by_object = {}, by_bytes = {};
	}, buffer_mt);
end

--- The position of a stanza among the payloads, if it has been seen as it is now.
function buffer_mt:find(stanza)
	local position = self.by_object[stanza];
	if position and same(stanza, self.stanzas[position]) then return position; end
end

--- The position of a stanza's present state among the payloads, found or new.
function buffer_mt:payload(stanza, stanza_facts)
	local position = self:find(stanza);
	if position then return position; end
	local bytes = serialize(stanza);
	position = self.by_bytes[bytes];
	if not position then
		position = self.payloads + 1;
		self.payloads = position;
		self.bytes[position] = bytes;
		self.facts[position] = stanza_facts or facts(stanza);
		self.stanzas[position] = freeze(stanza);
		self.by_bytes[bytes] = position;
	end
	self.by_object[stanza] = position;
	return position;
end

function buffer_mt:add(to, position)
	local n = self.copies + 1;
	self.copies = n;
	self.to[n] = to;
	self.position[n] = position;
end

return { new = new };
