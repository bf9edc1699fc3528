package.path = "./spec/?.lua;" .. package.path;
local helper = require "helper";
local st = require "util.stanza";

local new_buffer = helper.require "buffer".new;
local inspect = helper.require "xml".inspector(require "dmuc_native");

local function hold(buffer, stanza, known)
	local facts, digest = inspect(stanza);
	return buffer:payload(stanza, facts, digest, known);
end

describe("buffer", function ()
	it("gives one object one position, whoever gets it", function ()
		local buffer, stanza = new_buffer(), st.message { from = "r@c/n" }:body("x");
		for _, jid in ipairs { "a@b/r", "c@b/r" } do
			stanza.attr.to = jid;
			buffer:add(jid, hold(buffer, stanza));
		end
		assert.same({ "a@b/r", "c@b/r" }, buffer.to);
		assert.same({ 1, 1 }, buffer.position);
		assert.same({ "<message from='r@c/n'><body>x</body></message>" }, buffer.bytes);
		assert.same({ "n" }, buffer.nicks);
	end);

	it("has the copies of a crowd in their place", function ()
		local buffer = new_buffer();
		local position = hold(buffer, st.message { from = "r@c/n" });
		buffer:add("a@b/r", position);
		buffer:add_crowd({ list = function () return { "c@b/r", "d@b/r" }; end }, position);
		buffer:add("e@b/r", position);
		local seen = {};
		buffer:each(function (stanza, jid)
			assert.equal("r@c/n", stanza.attr.from);
			seen[#seen + 1] = jid;
		end);
		assert.same({ "a@b/r", "c@b/r", "d@b/r", "e@b/r" }, seen);
	end);

	it("gives equal stanzas one position", function ()
		local buffer = new_buffer();
		assert.equal(1, hold(buffer, st.presence { from = "r@c/n", to = "a@b/r" }));
		assert.equal(1, hold(buffer, st.presence { to = "c@b/r", from = "r@c/n" }));
		assert.equal(2, hold(buffer, st.presence { from = "r@c/m" }));
		assert.equal(3, hold(buffer, st.presence { from = "r@c" }));
		assert.same({ "n", "m", "" }, buffer.nicks);
	end);

	it("does not let a later change into an earlier copy", function ()
		-- room:publicise_occupant_status: own other sessions first, then 110 into the same object.
		local buffer = new_buffer();
		local x = st.stanza("x", { xmlns = "http://jabber.org/protocol/muc#user" });
		local self_p = st.presence { from = "r@c/n" }:add_child(x);
		assert.equal(1, hold(buffer, self_p));
		x:tag("status", { code = "110" }):up();
		assert.equal(2, hold(buffer, self_p));
		assert.same({ 1 + 512, 1 + 32 + 512 }, buffer.facts);
		assert.is_nil(buffer.stanzas[1].tags[1].tags[1]);
		assert.equal("110", buffer.stanzas[2].tags[1].tags[1].attr.code);
	end);

	it("goes back to the first position when a change is taken back", function ()
		local buffer, stanza = new_buffer(), st.message { from = "r@c/n" };
		assert.equal(1, hold(buffer, stanza));
		stanza.attr.from = "r@c/m";
		assert.equal(2, hold(buffer, stanza));
		stanza.attr.from = "r@c/n";
		assert.equal(1, hold(buffer, stanza));
	end);

	it("neither writes nor copies what the core has", function ()
		local buffer, stanza = new_buffer(), st.presence { from = "r@c/n" };
		assert.equal(1, hold(buffer, stanza, 77));
		assert.same({ 77 }, buffer.bytes);
		assert.equal(stanza, buffer.stanzas[1]);
	end);
end);

describe("inspect", function ()
	local native = require "dmuc_native";

	local function digest(stanza)
		return (select(2, inspect(stanza)));
	end

	it("tells the same facts as the walk in Lua", function ()
		local xml = helper.require "xml";
		local muc_user = "http://jabber.org/protocol/muc#user";
		for _, stanza in ipairs {
			st.message { from = "r@c/n", type = "groupchat" }, st.message { from = "r@c", type = "error" },
			st.message { from = "r@c/n", type = "chat" }, st.iq { from = "r@c/n", type = "get", id = "1" },
			st.iq { from = "r@c/n", type = "error", id = "1" }, st.presence { from = "r@c/n", type = "unavailable" },
			st.presence { from = "r@c/n", type = "subscribe" }, st.presence { from = "r@c/n", type = "error" }, st.presence {},
			st.presence { from = "r@c/n" }:tag("x", { xmlns = muc_user }):tag("item", { jid = "a@b/r" }):up()
				:tag("status", { code = "110" }):up():tag("status", { code = "303" }):up():up(),
			st.presence { from = "r@c/n" }:tag("x", { xmlns = muc_user }):tag("destroy"):up():up(),
			st.presence { from = "r@c/n" }:tag("x", { xmlns = "http://jabber.org/protocol/muc" }):up(),
			st.message { from = "r@c/n" }:tag("y"):tag("x", { xmlns = muc_user }):tag("destroy"):up():up():up(),
		} do
			assert.equal(xml.facts(stanza), (native.inspect(stanza)), tostring(stanza));
		end
	end);

	it("has one digest for equal stanzas", function ()
		local one = st.presence { from = "r@c/n", ["xml:lang"] = "en", to = "a@b/r" }:tag("show"):text("xa"):up();
		local other = st.presence { ["xml:lang"] = "en", to = "c@b/r", from = "r@c/n", xmlns = "jabber:client" }
			:tag("show"):text("xa"):up();
		assert.equal(digest(one), digest(other));
		assert.equal(16, #digest(one));
	end);

	it("has another digest for anything else", function ()
		local seen = {};
		for n, stanza in ipairs {
			st.message { from = "r@c/n" }, st.presence { from = "r@c/n" }, st.message { from = "r@c/m" }, st.message { id = "r@c/n" },
			st.message { from = "r@c/n", id = "" }, st.message { from = "r@c/n" }:tag("a"):up(),
			st.message { from = "r@c/n" }:tag("a"):up():tag("b"):up(), st.message { from = "r@c/n" }:tag("a"):tag("b"):up():up(),
			st.message { from = "r@c/n" }:tag("a", { xmlns = "b" }):up(), st.message { from = "r@c/n" }:tag("a", { to = "b" }):up(),
			st.message { from = "r@c/n" }:tag("a"):text("b"):up(), st.message { from = "r@c/n" }:tag("a"):text("b "):up(),
			st.message { from = "r@c/n" }:tag("a"):up():text("b"),
		} do
			assert.is_nil(seen[digest(stanza)], n .. ": " .. tostring(stanza));
			seen[digest(stanza)] = true;
		end
	end);

	it("leaves what is too deep or too wide to the slower way", function ()
		local deep, wide = st.message { from = "r@c/n" }, {};
		for _ = 1, 200 do deep:tag("a"); end
		for n = 1, 30 do wide["a" .. n] = "x"; end
		deep:reset();
		for _, stanza in ipairs { deep, st.message { from = "r@c/n" }:tag("a", wide):up() } do
			assert.is_nil((native.inspect(stanza)));
			assert.equal(digest(stanza), digest(st.clone(stanza)));
			assert.equal(512, (inspect(stanza)));
		end
	end);

	it("does not stumble over what is no stanza", function ()
		for _, odd in ipairs { {}, { name = "a" }, { name = "a", attr = { [1] = "x" } }, { name = "a", attr = { x = 1 } },
			{ name = "a", attr = {}, false } } do
			assert.is_nil((native.inspect(odd)));
		end
		assert.error(function () native.inspect("text"); end);
	end);
end);
