-- Bursts of stanzas, and the collector.
--
-- For each byte that is allocated Lua's collector looks at some of the heap, by default so much that it has seen
-- all of it by the time the heap has grown by a fifth. In a burst, such as a message for a thousand sessions, that
-- is more than half of all work, and nearly everything that it sees is in use. So it is held up in bursts, and
-- does a part of that work after them: the heap may grow more, and the work is less.

local collectgarbage, pcall, error = collectgarbage, pcall, error;

-- KB that a stanza for one session leaves behind, about, and the KB that make a burst.
local weight, least = 2.5, 500;
-- Stanzas for which the collector is held up at most: some 10 MB.
local most = 4000;
-- The part of the work that is done.
local pace = 1 / 4;

-- One collector for all hosts.
local state = module:shared "/*/dmuc/burst";

local function finish()
	if not state.on then return; end
	local allocated = collectgarbage("count") - state.on;
	state.on = nil;
	collectgarbage("restart");
	if allocated > 0 then collectgarbage("step", math.ceil(allocated * pace)); end
end

--- Whether so many stanzas are a burst, of which the end is to be told then. What is not ended ends with
-- the turn of the server's loop, as when somebody waits for a storage in it.
local function begin(stanzas)
	if state.on or stanzas * weight < least then return false; end
	state.on = collectgarbage("count");
	module:add_timer(0, finish);
	collectgarbage("stop");
	return true;
end

--- Calls f(from, to) for stanzas 1 to n.
local function each(n, f)
	local first = n < most and n or most;
	if not begin(first) then return f(1, n); end
	local ok, err = pcall(f, 1, first);
	finish();
	if not ok then error(err, 0); end
	if first < n then f(first + 1, n); end
end

return { begin = begin, finish = finish, each = each, most = most };
