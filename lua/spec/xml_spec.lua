package.path = "./spec/?.lua;" .. package.path;
local helper = require "helper";
local st = require "util.stanza";
local parse = require "util.xml".parse;
local pack, unpack = helper.require "xml".packer(require "dmuc_native");

local xml = helper.require "xml";
local muc_user = "http://jabber.org/protocol/muc#user";

local function presence(attr, ...)
	local x = st.stanza("x", { xmlns = muc_user });
	for _, code in ipairs { ... } do x:tag("status", { code = code }):up(); end
	return st.presence(attr):add_child(x);
end

describe("facts", function ()
	it("tell kinds and types apart", function ()
		assert.equal(16, xml.facts(st.message { from = "r@c", type = "groupchat" }));
		assert.equal(0, xml.facts(st.message { from = "r@c", type = "chat" }));
		assert.equal(2, xml.facts(st.iq { from = "r@c", type = "get", id = "1" }));
		assert.equal(8, xml.facts(st.message { from = "r@c", type = "error" }));
		assert.equal(1 + 512, xml.facts(st.presence { from = "r@c/n" }));
		assert.equal(1 + 4 + 512, xml.facts(st.presence { from = "r@c/n", type = "unavailable" }));
		assert.equal(1 + 8, xml.facts(st.presence { from = "r@c", type = "error" }));
		assert.equal(1 + 12, xml.facts(st.presence { from = "r@c", type = "subscribe" }));
	end);

	it("tell errors of the room from those of servers that did not reach it", function ()
		local join = st.presence { from = "u@b/r", to = "r@c/n" };
		assert.equal(1 + 8 + 512, xml.facts(st.error_reply(join, "cancel", "conflict")));
		assert.equal(1 + 8 + 512 + 2048, xml.facts(st.error_reply(join, "cancel", "remote-server-not-found")));
		assert.equal(1 + 8 + 512 + 2048, xml.facts(st.error_reply(join, "wait", "remote-server-timeout")));
	end);

	it("count each property once, however often it is said", function ()
		assert.equal(1 + 32 + 64 + 512, xml.facts(presence({ from = "r@c/n" }, "110", "303", "110")));
	end);

	it("see real JIDs, destroyed rooms and joins", function ()
		local stanza = presence { from = "r@c/n" };
		stanza.tags[1]:tag("item", { jid = "u@b/r" }):up();
		assert.equal(1 + 256 + 512, xml.facts(stanza));
		stanza.tags[1]:reset():tag("destroy"):up();
		assert.equal(1 + 128 + 256 + 512, xml.facts(stanza));
		assert.equal(1 + 1024, xml.facts(st.presence { from = "u@b" }:tag("x", { xmlns = "http://jabber.org/protocol/muc" }):up()));
	end);

	it("ignore status codes of other namespaces", function ()
		local stanza = st.presence { from = "r@c/n" }:tag("x", { xmlns = "other" }):tag("status", { code = "110" }):up():up();
		assert.equal(1 + 512, xml.facts(stanza));
	end);
end);

describe("serialize", function ()
	it("leaves out the addressee and sorts attributes", function ()
		local a = st.message { to = "a@b/c", id = "1", from = "r@c/n", type = "groupchat" };
		assert.equal("<message from='r@c/n' id='1' type='groupchat'/>", xml.serialize(a));
	end);

	it("gives what a parser reads back as the same stanza", function ()
		local stanza = st.message { from = "r@c/n", ["xml:lang"] = "en" }:body("a < b & 'c'\n")
			:tag("forwarded", { xmlns = "urn:xmpp:forward:0" })
				:tag("message", { xmlns = "jabber:client", from = "x" }):text_tag("body", "inner"):up():up()
			:tag("x", { xmlns = "urn:x", ["urn:attr\1name"] = "value" }):up();
		local bytes = xml.serialize(stanza);
		assert.equal(bytes, xml.serialize(parse(bytes)));
		assert.equal("a < b & 'c'\n", parse(bytes):get_child_text("body"));
		assert.equal("value", parse(bytes):get_child("x", "urn:x").attr["urn:attr\1name"]);
	end);
end);

describe("stanzas that go out", function ()
	local native = require "dmuc_native";
	local function stanzas()
		local deep, wide = st.message { from = "r@c/n" }, { xmlns = "urn:x" };
		for _ = 1, 150 do deep:tag("a"); end
		for n = 1, 40 do wide["a" .. n] = "<&'\">"; end
		local foreign = assert(parse("<message xmlns:p='urn:p' p:x='1' from='r@c'><p:e p:y='2' z='3'/>text<e xmlns='urn:p'/></message>"));
		return {
			st.presence { from = "r@c/n", ["xml:lang"] = "de" }:tag("show"):text("<xa> & 'ü'\""):up():text("mixed"):tag("b"):up(),
			st.message { from = "r@c/n", type = "groupchat" }:body("a")
				:tag("x", { xmlns = "urn:x" }):tag("y", { xmlns = "urn:x" }):tag("z", { xmlns = "urn:z" }):up():up():up(),
			st.message { from = "r@c/n" }:body(("x"):rep(100000)), st.message(), st.message { id = "1" }:text(""), foreign,
			deep:reset(), st.message { from = "r@c" }:tag("w", wide):up(),
		};
	end
	local write = xml.writer(native);

	it("are copied for each recipient", function ()
		for _, stanza in ipairs(stanzas()) do
			local before, copy = tostring(stanza), xml.share(stanza, "a@b/c");
			local own = st.clone(stanza);
			own.attr.to = "a@b/c";
			assert.equal(xml.serialize(own), xml.serialize(copy));
			assert.equal("a@b/c", copy.attr.to);
			assert.equal(#stanza, #copy);
			assert.equal(#stanza.tags, #copy.tags);
			assert.truthy(st.is_stanza(copy));
			-- What modules add to one is not in the others.
			copy:tag("new"):up():text("text");
			copy.attr.id = "other";
			copy:remove_children("body");
			assert.equal(before, tostring(stanza));
		end
		local many = st.message();
		for n = 1, 9 do many:text_tag("a", "b" .. n):text("t" .. n); end
		local copy = xml.share(many, "a@b/c");
		assert.equal(xml.serialize(many), xml.serialize(copy));
		copy:maptags(function () return nil; end);
		assert.equal(9, #many.tags);
	end);

	it("are written as Prosody writes them, but for the order of attributes", function ()
		for _, stanza in ipairs(stanzas()) do
			local own, ours = tostring(stanza), write(stanza);
			assert.equal(#own, #ours);
			if #own < 50000 then
				assert.equal(xml.serialize(assert(parse(own))), xml.serialize(assert(parse(ours))));
			end
		end
		assert.equal("<message><body>&lt;&apos;&quot;&amp;&gt;</body></message>", write(st.message():body("<'\"&>")));
	end);

	it("are left to Prosody when they are odd", function ()
		assert.is_nil(native.serialize(stanzas()[7]));
		assert.is_nil(native.serialize(stanzas()[8]));
		assert.is_nil(native.serialize { name = "message" });
		local odd = st.message {};
		odd.attr.n = 1;
		assert.is_nil(native.serialize(odd));
		assert.equal("<message n='1'/>", write(odd));
	end);
end);

describe("packing", function ()
	it("gives back what it got, to the last tag", function ()
		local deep, wide = st.message { from = "r@c/n" }, { xmlns = "urn:x" };
		for _ = 1, 150 do deep:tag("a"); end
		for n = 1, 40 do wide["a" .. n] = "<&'\">"; end
		for _, stanza in ipairs {
			st.presence { from = "r@c/n", ["xml:lang"] = "de" }:tag("show"):text("<xa> & 'ü'"):up():text("mixed"):tag("b"):up(),
			st.message { from = "r@c/n" }:body(("x"):rep(100000)), deep:reset(), st.message { from = "r@c" }:tag("w", wide):up(),
		} do
			local back = unpack(pack(stanza));
			assert.equal(xml.serialize(stanza), xml.serialize(back));
			assert.equal(#stanza.tags, #back.tags);
			assert.equal(back[1], back.tags[1]);
			assert.equal(getmetatable(stanza), getmetatable(back));
			assert.equal(xml.serialize(st.clone(stanza)), xml.serialize(st.clone(back)));
		end
	end);

	it("takes no bytes that it has not made", function ()
		local bytes = pack(st.message { from = "r@c/n" }:body("x"));
		for cut = 0, #bytes - 1 do
			assert.error(function () unpack(bytes:sub(1, cut)); end);
		end
		assert.error(function () unpack(bytes .. "E"); end);
	end);
end);

describe("a carried stanza", function ()
	-- As mod_s2s reads it: a server stream's own namespace is left out, any other stands on every element.
	local function over_stream(stanza)
		return parse((tostring(stanza):gsub("^<message", "<message xmlns='jabber:server'")));
	end

	local function carry(stanza, slot, nth)
		local body = xml.build({ name = "envelope", attr = { seq = "1", nth = nth }, { name = "enter", attr = { i = "1" } },
			{ name = "cast", attr = { slot = slot }, payload = 1 } }, function () return stanza; end);
		local carrier = over_stream(st.message { from = "r@c", to = "b" }:add_child(body));
		return xml.open(carrier:get_child("envelope", xml.xmlns), nil, pack);
	end

	it("comes out as it went in", function ()
		local stanza = st.message { from = "r@c/n", type = "groupchat" }:body("x"):tag("x", { xmlns = "urn:x" }):tag("y"):up():up();
		local payloads, described = carry(stanza);
		assert.is_nil(payloads[1]);
		assert.equal("x", payloads[2]:get_child_text("body"));
		assert.is_nil(payloads[2].attr.xmlns);
		assert.equal("urn:x", payloads[2]:get_child("x", "urn:x").tags[1].attr.xmlns);
		assert.same({ 16 + 512, "r@c/n", false }, described[2]);
		assert.is_nil(stanza.attr.xmlns);
	end);

	it("is written down where it is to be kept", function ()
		local stanza = st.presence { from = "r@c/n", ["xml:lang"] = "de" }:tag("show"):text("xa"):up()
			:tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):tag("message", { xmlns = "jabber:client" }):up():up();
		local payloads, described = carry(stanza, "7");
		local kept = unpack(described[2][4]);
		assert.equal(xml.serialize(stanza), xml.serialize(kept));
		assert.equal(xml.serialize(payloads[2]), xml.serialize(kept));
		assert.is_nil(select(2, carry(stanza))[2][4]);
		assert.equal(described[2][4], select(2, carry(stanza, nil, "1"))[2][4], "it may have to wait");
	end);

	it("has the text that its room has signed", function ()
		local stanza = st.message { from = "r@c/n", ["xml:lang"] = "de" }:body("a<b"):tag("x", { xmlns = "urn:x" }):tag("y"):up():up()
			:tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):tag("message", { xmlns = "jabber:client" }):text_tag("body", "c"):up():up();
		local body = xml.build({ name = "relayed", attr = { room = "r@c" }, payload = 1 }, function () return stanza; end);
		local relayed = over_stream(st.message { from = "a", to = "b" }:add_child(body)):get_child("relayed", xml.xmlns);
		assert.equal(xml.serialize(stanza), xml.carried(relayed));
		local opened, described = xml.open_one(relayed, "en", pack, true);
		assert.equal(xml.serialize(stanza), xml.serialize(opened));
		assert.equal(xml.serialize(stanza), xml.serialize(unpack(described[4])));
	end);

	it("keeps the namespace of a stanza that it forwards", function ()
		local stanza = st.message { from = "r@c/n" }:tag("forwarded", { xmlns = "urn:xmpp:forward:0" })
			:tag("message", { xmlns = "jabber:client" }):text_tag("body", "inner"):up():up();
		local payloads = carry(stanza);
		local forwarded = payloads[2]:get_child("forwarded", "urn:xmpp:forward:0");
		assert.equal("jabber:client", forwarded.tags[1].attr.xmlns);
		assert.equal("inner", forwarded:get_child("message", "jabber:client"):get_child_text("body"));
		assert.truthy(tostring(payloads[2]):find("<message xmlns='jabber:client'", 1, true));
	end);

	it("tells of an addressee that it must not have", function ()
		local _, described = carry(st.message { from = "r@c/n", to = "u@b/r" });
		assert.is_true(described[2][3]);
	end);

	it("is none if there is more than one stanza, or something else", function ()
		local function op(...)
			local cast = st.stanza("cast", { xmlns = xml.xmlns });
			for _, child in ipairs { ... } do cast:add_child(child); end
			return xml.open(st.stanza("envelope", { xmlns = xml.xmlns }):add_child(cast));
		end
		local function stanza(name, attr)
			attr.xmlns, attr.from = attr.xmlns or "jabber:client", attr.from or "r@c/n";
			return st.stanza(name, attr);
		end
		assert.is_table(op(stanza("message", {}))[1]);
		assert.is_nil(op(stanza("message", {}), stanza("message", {}))[1]);
		assert.is_nil(op(stanza("stream", {}))[1]);
		assert.is_nil(op(stanza("message", { xmlns = "jabber:server" }))[1]);
		-- Nor what Prosody would not take from a server by itself.
		assert.is_nil(op(st.stanza("message", { xmlns = "jabber:client" }))[1]);
		assert.is_nil(op(stanza("message", { from = "r@c/" }))[1]);
		assert.equal("r@c/N", op(stanza("message", { from = "R@C/N" }))[1].attr.from);
		assert.is_table(op(stanza("iq", { type = "result", id = "1" }))[1]);
		assert.is_nil(op(stanza("iq", { type = "get", id = "1" }))[1]);
		assert.is_nil(op(stanza("iq", { type = "result" }))[1]);
		assert.is_nil(op(stanza("iq", { type = "take", id = "1" }))[1]);
	end);
end);
