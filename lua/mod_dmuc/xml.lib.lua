-- Stanzas: what the core wants to know of them, and their ways in and out of envelopes.
--
-- Pure functions over util.stanza tables, free of the server; see spec/xml_spec.lua.

local st = require "util.stanza";
local parse_xml = require "util.xml".parse;
local jid_prep = require "util.jid".prep;

local pairs, tostring, type, setmetatable = pairs, tostring, type, setmetatable;
local s_find, s_match = string.find, string.match;
local t_concat, t_sort = table.concat, table.sort;
local xml_escape, stanza_mt = st.xml_escape, st.stanza_mt;

local xmlns_dmuc = "urn:xmpp:tmp:dmuc:1";
local xmlns_client = "jabber:client";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

--- Facts: properties of a stanza as bits, see `Facts` in the core.

local kinds = { message = 0, presence = 1, iq = 2 };
local types = { unavailable = 4, error = 8 };
local groupchat = 16;
local other_presence = 12;
local code_110, code_303, destroy, item_jid, nick, muc_x, not_reached = 32, 64, 128, 256, 512, 1024, 2048;

local xmlns_errors = "urn:ietf:params:xml:ns:xmpp-stanzas";

-- Whether an error says that the room has not been reached: then it is not the room's.
local function is_not_reached(stanza)
	local err = stanza:get_child("error");
	return err and (err:get_child("remote-server-not-found", xmlns_errors) or err:get_child("remote-server-timeout", xmlns_errors));
end

local function facts(stanza)
	local attr, tags = stanza.attr, stanza.tags;
	local kind, stanza_type = kinds[stanza.name] or 0, attr.type;
	local bits = kind;
	if stanza_type then
		if kind == 1 or stanza_type == "error" then
			bits = bits + (types[stanza_type] or other_presence);
			if kind == 1 and stanza_type == "error" and is_not_reached(stanza) then bits = bits + not_reached; end
		elseif kind == 0 and stanza_type == "groupchat" then
			bits = bits + groupchat;
		end
	end
	if s_find(attr.from or "", "/", 1, true) then bits = bits + nick; end
	local has_110, has_303, has_destroy, has_jid, has_muc;
	for i = 1, #tags do
		local xmlns = tags[i].attr.xmlns;
		if xmlns == xmlns_muc_user and tags[i].name == "x" then
			local children = tags[i].tags;
			for j = 1, #children do
				local child = children[j];
				local name = child.name;
				if name == "status" then
					local code = child.attr.code;
					if code == "110" then has_110 = true; elseif code == "303" then has_303 = true; end
				elseif name == "item" then
					if child.attr.jid then has_jid = true; end
				elseif name == "destroy" then
					has_destroy = true;
				end
			end
		elseif xmlns == xmlns_muc and tags[i].name == "x" then
			has_muc = true;
		end
	end
	if has_110 then bits = bits + code_110; end
	if has_303 then bits = bits + code_303; end
	if has_destroy then bits = bits + destroy; end
	if has_jid then bits = bits + item_jid; end
	if has_muc then bits = bits + muc_x; end
	return bits;
end

--- The same stanza gives the same bytes: attributes are sorted, since the order of `pairs` is no
-- property of the stanza and the core recognises payloads by their bytes. `to` is left out at the top.

local write;
local function write_attr(buf, n, name, value, nsid)
	if s_find(name, "\1", 1, true) then
		local ns, local_name = s_match(name, "^([^\1]*)\1?(.*)$");
		buf[n + 1] = " xmlns:ns" .. nsid .. "='" .. xml_escape(ns) .. "' ns" .. nsid .. ":" .. local_name .. "='";
		nsid = nsid + 1;
	else
		buf[n + 1] = " " .. name .. "='";
	end
	buf[n + 2] = xml_escape(value);
	buf[n + 3] = "'";
	return n + 3, nsid;
end

function write(buf, n, element, parent_xmlns, top)
	local attr, nsid = element.attr, 1;
	n = n + 1;
	buf[n] = "<" .. element.name;
	local names, count = {}, 0;
	for name, value in pairs(attr) do
		if not (name == "xmlns" and value == parent_xmlns) and not (top and (name == "to" or name == "xmlns")) then
			count = count + 1;
			names[count] = name;
		end
	end
	if count > 1 then t_sort(names); end
	for i = 1, count do
		n, nsid = write_attr(buf, n, names[i], attr[names[i]], nsid);
	end
	if #element == 0 then
		n = n + 1;
		buf[n] = "/>";
		return n;
	end
	n = n + 1;
	buf[n] = ">";
	for i = 1, #element do
		local child = element[i];
		if type(child) == "string" then
			n = n + 1;
			buf[n] = xml_escape(child);
		else
			n = write(buf, n, child, attr.xmlns, false);
		end
	end
	n = n + 1;
	buf[n] = "</" .. element.name .. ">";
	return n;
end

local function serialize(stanza)
	local buf = {};
	write(buf, 0, stanza, nil, true);
	return t_concat(buf);
end

--- An immutable copy without `to`.
local function freeze(stanza)
	local copy = st.clone(stanza);
	copy.attr.to = nil;
	copy.attr.xmlns = nil;
	return copy;
end

--- Facts and digest of a stanza. The library knows both for all but odd ones, which are very deep or
-- wide and have to be written.
local function inspector(native)
	local inspect, digest_of = native.inspect, native.digest;
	return function (stanza)
		local bits, digest = inspect(stanza);
		if bits then return bits, digest; end
		return facts(stanza), digest_of(serialize(stanza));
	end
end

--- A stanza in a form to be kept, and the way back: the library's own but for odd ones.
local function packer(native)
	local pack, unpack = native.pack, native.unpack;
	return function (stanza)
		return pack(stanza) or serialize(stanza);
	end, function (packed)
		if s_find(packed, "^<") then return assert(parse_xml(packed)); end
		return unpack(packed, stanza_mt);
	end
end

--- A copy of a stanza for `to` that shares what its elements have in them, as a room's own copies for local
-- occupants do. The tables are made with the room that nearly all stanzas need.
local function share(stanza, to)
	local from, tags = stanza.attr, stanza.tags;
	local attr = { to = to, from = from.from, type = from.type, id = from.id, ["xml:lang"] = from["xml:lang"] };
	for name, value in pairs(from) do attr[name] = value; end
	attr.to = to;
	local copy = {
		name = stanza.name, attr = attr, namespaces = stanza.namespaces, tags = { tags[1], tags[2], tags[3], tags[4] },
		stanza[1], stanza[2], stanza[3], stanza[4],
	};
	for i = 5, #tags do copy.tags[i] = tags[i]; end
	for i = 5, #stanza do copy[i] = stanza[i]; end
	return setmetatable(copy, stanza_mt);
end

--- Writes stanzas as `tostring` does, several times as fast; odd ones its way.
local function writer(native)
	local write_native = native.serialize;
	return function (stanza)
		return write_native(stanza) or tostring(stanza);
	end
end

local function parse(bytes)
	local stanza, err = parse_xml(bytes);
	if not stanza then return nil, err; end
	return stanza;
end

--- A stanza inside a carrier needs its namespace said; its children are shared with the original.
local function wrap(stanza)
	local attr = {};
	for name, value in pairs(stanza.attr) do attr[name] = value; end
	attr.xmlns = xmlns_client;
	local copy = { name = stanza.name, attr = attr, tags = stanza.tags, namespaces = stanza.namespaces };
	for i = 1, #stanza do copy[i] = stanza[i]; end
	return setmetatable(copy, stanza_mt);
end

--- On a server stream the namespace of a carried stanza stands on every element of it. Only those
-- that inherited it from the stanza are ours: a stanza forwarded inside another keeps what it says.
local function unwrap(stanza)
	if stanza.attr.xmlns == xmlns_client then
		stanza.attr.xmlns = nil;
		local tags = stanza.tags;
		for i = 1, #tags do unwrap(tags[i]); end
	end
	return stanza;
end

--- An element of the core's as a stanza. `find(payload)` gives the stanza that a payload stands for.
local function build(element, find)
	local attr, tags = element.attr, {};
	attr.xmlns = xmlns_dmuc;
	local built = { name = element.name, attr = attr, tags = tags };
	if element.payload then
		local carried = wrap(find(element.payload));
		built[1], tags[1] = carried, carried;
	else
		for i = 1, #element do
			local child = build(element[i], find);
			built[i], tags[i] = child, child;
		end
	end
	return setmetatable(built, stanza_mt);
end

local stanza_names = { message = true, presence = true, iq = true };
local iq_types = { get = true, set = true, result = true, error = true };

-- What Prosody itself does with a stanza before it lets it in from a server.
local function is_sound(stanza)
	local attr = stanza.attr;
	if not stanza_names[stanza.name] then return false; end
	attr.from = attr.from and jid_prep(attr.from);
	if not attr.from then return false; end
	return stanza.name ~= "iq" or attr.id and iq_types[attr.type]
		and (#stanza.tags == 1 or attr.type == "result" or attr.type == "error");
end

--- The one stanza in an element and, for the core, what is to be known of it, packed if `keep`. Nothing for anything else.
-- `lang` is that of the stanza around it: a carried one has it by inheritance if it has none of
-- its own, as Prosody gives every stanza that of its stream.
local function open_one(element, lang, pack, keep)
	local stanza = element.tags[1];
	if not stanza or element.tags[2] or stanza.attr.xmlns ~= xmlns_client or not is_sound(stanza) then return; end
	unwrap(stanza);
	stanza.attr["xml:lang"] = stanza.attr["xml:lang"] or lang;
	return stanza, { facts(stanza), stanza.attr.from, stanza.attr.to ~= nil, keep and pack(stanza) or nil };
end

--- Takes the stanzas out of an envelope: `payloads[n]` is the one in the n-th operation, and
-- `described[n]` what the core wants to know of it. An operation that carries anything else than one
-- stanza gets none, which the core refuses.
local function open(envelope, lang, pack)
	local payloads, described, n = {}, {}, 0;
	local tags = envelope.tags;
	-- On a link that lies in a room stream it may have to wait.
	local waits = envelope.attr.nth;
	for i = 1, #tags do
		local op = tags[i];
		if op.attr.xmlns == xmlns_dmuc then
			n = n + 1;
			payloads[n], described[n] = open_one(op, lang, pack, waits or op.attr.slot);
		end
	end
	return payloads, described;
end

--- The text of the stanza in an element, as it came.
local function carried(element)
	local stanza = element.tags[1];
	return stanza and serialize(stanza) or "";
end

return {
	xmlns = xmlns_dmuc;
	facts = facts;
	serialize = serialize;
	freeze = freeze;
	inspector = inspector;
	packer = packer;
	share = share;
	writer = writer;
	parse = parse;
	wrap = wrap;
	unwrap = unwrap;
	build = build;
	open = open;
	open_one = open_one;
	carried = carried;
};
