package.path = "./spec/?.lua;" .. package.path;
local native = require "dmuc_native";
local st = require "util.stanza";

local hosts = { ["a.test"] = {}, ["conference.a.test"] = {} };

local function occupant(jid, ...)
	local sessions = {};
	for _, full in ipairs { jid, ... } do sessions[full] = st.presence(); end
	return { jid = jid, sessions = sessions };
end

local function sorted(list)
	table.sort(list);
	return list;
end

describe("crowd", function ()
	it("divides a room's sessions into remote ones and others", function ()
		local crowd, others = native.crowd({
			["r@c/one"] = occupant("u@b.test/1", "u@b.test/2");
			["r@c/two"] = occupant("v@a.test/1");
			["r@c/three"] = occupant("w@c.test/x@a.test/y");
			["r@c/four"] = occupant("component.test/x");
		}, hosts);
		assert.same({ "u@b.test/1", "u@b.test/2", "w@c.test/x@a.test/y" }, sorted(crowd:list()));
		assert.same({ "component.test/x", "v@a.test/1" }, sorted(others));
	end);

	it("leaves out who is away, but not whose occupant it is", function ()
		local leaving = occupant("u@b.test/1", "u@b.test/2");
		for _, presence in pairs(leaving.sessions) do presence.attr.type = "unavailable"; end
		local crowd = native.crowd({ ["r@c/one"] = leaving }, hosts);
		assert.same({ "u@b.test/1" }, crowd:list());
	end);

	it("gives nothing for a room without remote sessions, or one of another make", function ()
		assert.is_nil((native.crowd({}, hosts)));
		assert.is_nil((native.crowd({ ["r@c/one"] = occupant("v@a.test/1") }, hosts)));
		assert.is_nil((native.crowd({ ["r@c/one"] = true }, hosts)));
		assert.is_nil((native.crowd({ ["r@c/one"] = { jid = "u@b.test/1" } }, hosts)));
		assert.is_nil((native.crowd({ ["r@c/one"] = { jid = "u@b.test/1", sessions = { ["u@b.test/1"] = true } } }, hosts)));
		assert.is_nil((native.crowd({ ["r@c/one"] = { jid = "u@b.test/1", sessions = { [1] = st.presence() } } }, hosts)));
	end);
end);
