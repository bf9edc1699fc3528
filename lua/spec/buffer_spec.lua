package.path = "./spec/?.lua;" .. package.path;
local helper = require "helper";
local st = require "util.stanza";

local new_buffer = helper.require "buffer".new;

describe("buffer", function ()
	it("gives one object one position, whoever gets it", function ()
		local buffer, stanza = new_buffer(), st.message { from = "r@c/n" }:body("x");
		for _, jid in ipairs { "a@b/r", "c@b/r" } do
			stanza.attr.to = jid;
			buffer:add(jid, buffer:payload(stanza));
		end
		assert.same({ "a@b/r", "c@b/r" }, buffer.to);
		assert.same({ 1, 1 }, buffer.position);
		assert.same({ "<message from='r@c/n'><body>x</body></message>" }, buffer.bytes);
	end);

	it("gives equal stanzas one position", function ()
		local buffer = new_buffer();
		assert.equal(1, buffer:payload(st.presence { from = "r@c/n", to = "a@b/r" }));
		assert.equal(1, buffer:payload(st.presence { to = "c@b/r", from = "r@c/n" }));
		assert.equal(2, buffer:payload(st.presence { from = "r@c/m" }));
	end);

	it("does not let a later change into an earlier copy", function ()
		-- room:publicise_occupant_status: own other sessions first, then 110 into the same object.
		local buffer = new_buffer();
		local x = st.stanza("x", { xmlns = "http://jabber.org/protocol/muc#user" });
		local self_p = st.presence { from = "r@c/n" }:add_child(x);
		assert.equal(1, buffer:payload(self_p));
		x:tag("status", { code = "110" }):up();
		assert.equal(2, buffer:payload(self_p));
		assert.same({ 1 + 512, 1 + 32 + 512 }, buffer.facts);
		assert.is_nil(buffer.stanzas[1].tags[1].tags[1]);
		assert.equal("110", buffer.stanzas[2].tags[1].tags[1].attr.code);
	end);

	it("goes back to the first position when a change is taken back", function ()
		local buffer, stanza = new_buffer(), st.message { from = "r@c/n" };
		assert.equal(1, buffer:payload(stanza));
		stanza.attr.from = "r@c/m";
		assert.equal(2, buffer:payload(stanza));
		stanza.attr.from = "r@c/n";
		assert.equal(1, buffer:payload(stanza));
	end);
end);
