-- The loops of a room that sends something to all of its occupants, which need not be gone through if they
-- are Prosody's own.
--
-- Of one that shows a presence there is no event that stands for the whole. The room makes a copy of each
-- occupant and routes the stanza to each session. So for this one loop it is lent its occupants themselves, and it is taken down who is to get what.
-- When the loop is over all of it is sent.

local getinfo, next, rawget, ipairs = debug.getinfo, next, rawget, ipairs;
local s_find = string.find;

-- Function -> the file it is from.
local sources = setmetatable({}, { __mode = "k" });
local function is_from(f, file)
	local source = sources[f];
	if not source then
		source = getinfo(f, "S").source;
		sources[f] = source;
	end
	return s_find(source, file) ~= nil;
end

--- Whether all that a loop of the room calls is Prosody's own, as is the loop itself.
local function is_stock(room, method)
	for _, name in ipairs { method, "each_occupant", "route_to_occupant", "route_stanza" } do
		if not is_from(room[name], "muc%.lib%.lua$") then return false; end
	end
	return true;
end

--- Whether nobody but mod_s2s and `own` handles what goes to remote domains.
local function is_unwatched(handlers, own)
	for _, handler in ipairs(handlers) do
		if handler ~= own and not is_from(handler, "mod_s2s%.lua$") then return false; end
	end
	return true;
end

--- To be called from the room's last event before the loop. `finish(runs)` is called once: at the end of the
-- loop, or before when somebody calls what this returns, after which the room does the rest by itself. A run has
-- a list of `occupants`, with nothing else in it, who get `stanza` one after the other.
local function begin(room, finish)
	local runs, run, occupants, count = {}, nil, nil, 0;
	local each_occupant, route_to_occupant;
	local open = true;
	-- The occupant whose turn it is, and its nick.
	local lent, lent_nick;

	local function give_back(name, own)
		if rawget(room, name) == own then room[name] = nil; end
	end
	local function close()
		if not open then return; end
		open = false;
		give_back("each_occupant", each_occupant);
		if not lent then give_back("route_to_occupant", route_to_occupant); end
		finish(runs);
	end

	function each_occupant(self, ...)
		give_back("each_occupant", each_occupant);
		if not open or getinfo(2, "f").func ~= self.publicise_occupant_status then
			-- Others may change what they get.
			close();
			return self:each_occupant(...);
		end
		self.route_to_occupant = route_to_occupant;
		return function (all, nick)
			lent_nick, lent = next(all, nick);
			if not lent then close(); end
			if open then return lent_nick, lent; end
			give_back("route_to_occupant", route_to_occupant);
			return lent_nick, lent and self:get_occupant_by_nick(lent_nick);
		end, self._occupants, nil;
	end

	function route_to_occupant(self, occupant, stanza)
		if not open then
			give_back("route_to_occupant", route_to_occupant);
			return self:route_to_occupant(occupant == lent and self:get_occupant_by_nick(lent_nick) or occupant, stanza);
		end
		if not run or run.stanza ~= stanza then
			occupants, count = {}, 0;
			run = { stanza = stanza, occupants = occupants };
			runs[#runs + 1] = run;
		end
		count = count + 1;
		occupants[count] = occupant;
	end

	room.each_occupant = each_occupant;
	return close;
end

return { begin = begin, is_stock = is_stock, is_unwatched = is_unwatched };
