package.path = "./spec/?.lua;" .. package.path;
local loop = require "helper".require "loop";

-- As the room of mod_muc: it goes through copies.
local room_mt = {};
room_mt.__index = room_mt;

function room_mt:get_occupant_by_nick(nick)
	return { name = self._occupants[nick].name, copied = true };
end

function room_mt:each_occupant()
	return function (occupants, nick)
		local next_nick = next(occupants, nick);
		if next_nick then return next_nick, self:get_occupant_by_nick(next_nick); end
	end, self._occupants, nil;
end

function room_mt:route_to_occupant(occupant, stanza)
	assert.is_true(occupant.copied);
	table.insert(self.sent, { occupant.name, stanza });
end

function room_mt:publicise_occupant_status(stanza_for, before, within)
	if before then before(self); end
	for _, occupant in self:each_occupant() do
		if within then within(self, occupant); end
		self:route_to_occupant(occupant, stanza_for(occupant));
	end
end

local function new_room(...)
	local room = setmetatable({ _occupants = {}, sent = {} }, room_mt);
	for n, name in ipairs { ... } do room._occupants[n] = { name = name }; end
	return room;
end

local function gives(stanza)
	return function () return stanza; end
end

-- The finished runs of a loop, as names.
local function watch(room)
	local seen = {};
	local close = loop.begin(room, function (runs)
		seen.times = (seen.times or 0) + 1;
		for i, run in ipairs(runs) do
			seen[i] = run.stanza;
			for _, occupant in pairs(run.occupants) do
				assert.is_nil(occupant.copied);
				seen[i] = seen[i] .. " " .. occupant.name;
			end
		end
	end);
	return seen, close;
end

local function assert_as_before(room)
	assert.is_nil(rawget(room, "each_occupant"));
	assert.is_nil(rawget(room, "route_to_occupant"));
end

describe("loop", function ()
	it("takes down who is to get what, and leaves the room as it was", function ()
		local room = new_room("a", "b", "c");
		local seen = watch(room);
		room:publicise_occupant_status(gives "p");
		assert.same({ "p a b c", times = 1 }, seen);
		assert.same({}, room.sent);
		assert_as_before(room);
		room:publicise_occupant_status(gives "q");
		assert.equal(3, #room.sent);
	end);

	it("keeps the order of different stanzas", function ()
		local room = new_room("a", "b", "c", "d");
		local seen = watch(room);
		room:publicise_occupant_status(function (occupant)
			return (occupant.name == "c" or occupant.name == "a") and "full" or "anon";
		end);
		assert.same({ "full a", "anon b", "full c", "anon d", times = 1 }, seen);
	end);

	it("lends occupants to the room's loop only", function ()
		local room = new_room("a", "b");
		local seen = watch(room);
		for _, occupant in room:each_occupant() do assert.is_true(occupant.copied); end
		assert.same({ times = 1 }, seen);
		assert_as_before(room);

		seen = watch(room);
		room:publicise_occupant_status(gives "p", function (self)
			for _, occupant in self:each_occupant() do assert.is_true(occupant.copied); end
		end);
		assert.same({ times = 1 }, seen);
		assert.equal(2, #room.sent);
	end);

	it("gives what it has when it is ended within, and the room does the rest", function ()
		local room = new_room("a", "b", "c");
		local seen, close = watch(room);
		room:publicise_occupant_status(gives "p", nil, function (_, occupant)
			if occupant.name == "b" then close(); end
		end);
		assert.same({ "p a", times = 1 }, seen);
		assert.same({ { "b", "p" }, { "c", "p" } }, room.sent);
		assert_as_before(room);
	end);

	it("is over when it is ended before it began", function ()
		local room = new_room("a");
		local seen, close = watch(room);
		close();
		room:publicise_occupant_status(gives "p");
		assert.same({ times = 1 }, seen);
		assert.same({ { "a", "p" } }, room.sent);
	end);

	local function of(file)
		return assert(load("return function () end", "@/usr/lib/prosody/modules/" .. file))();
	end

	it("is for rooms that send in Prosody's own way", function ()
		local methods = {};
		for _, name in ipairs { "broadcast", "each_occupant", "route_to_occupant", "route_stanza" } do
			methods[name] = of "muc/muc.lib.lua";
		end
		assert.is_true(loop.is_stock(methods, "broadcast"));
		for name, method in pairs(methods) do
			methods[name] = of "mod_other.lua";
			assert.is_false(loop.is_stock(methods, "broadcast"), name);
			methods[name] = method;
		end
	end);

	it("is for what no other module looks at", function ()
		local own, s2s, other = of "mod_dmuc/primary.lib.lua", of "mod_s2s.lua", of "mod_firewall.lua";
		assert.is_true(loop.is_unwatched({ own, s2s, s2s }, own));
		assert.is_false(loop.is_unwatched({ other, own, s2s }, own));
	end);
end);
