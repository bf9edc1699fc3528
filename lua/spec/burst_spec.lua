package.path = "./spec/?.lua;" .. package.path;
local helper = require "helper";

local timers = {};
local shared = {};
local burst = helper.require("burst", {
	shared = function () return shared; end;
	add_timer = function (_, _, f) timers[#timers + 1] = f; end;
});

-- Whether the collector is at work: what nobody refers to goes while others are made.
local function collects()
	local gone = setmetatable({ {} }, { __mode = "v" });
	for n = 1, 300000 do
		gone[2] = { n };
		if not gone[1] then return true; end
	end
	return false;
end

describe("burst", function ()
	it("holds the collector up, and only while it lasts", function ()
		local seen = {};
		local held_up;
		burst.each(1000, function (first, last)
			seen[#seen + 1] = { first, last };
			held_up = not collects();
		end);
		assert.same({ { 1, 1000 } }, seen);
		assert.is_true(held_up);
		assert.is_true(collects());
	end);

	it("lets it go on after an error, and tells that", function ()
		local ok, err = pcall(burst.each, 1000, function () error("oops", 0); end);
		assert.is_false(ok);
		assert.equal("oops", err);
		assert.is_true(collects());
	end);

	it("does so with the turn of the loop when the end is never told", function ()
		timers = {};
		assert.is_true(burst.begin(1000));
		assert.is_false(burst.begin(1000));
		assert.is_false(collects());
		timers[1]();
		assert.is_true(collects());
	end);

	it("is nothing for a few, and not for more than it may be", function ()
		assert.is_false(burst.begin(10));
		local seen = {};
		burst.each(burst.most + 5, function (first, last) seen[#seen + 1] = { first, last }; end);
		assert.same({ { 1, burst.most }, { burst.most + 1, burst.most + 5 } }, seen);
	end);
end);
