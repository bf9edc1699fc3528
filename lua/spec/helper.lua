-- Loads a library of mod_dmuc as Prosody's module:require does, without a server. Run from `lua/`:
--   LUA_CPATH='/usr/lib/prosody/?.so;;' busted --lua=/usr/bin/lua5.4 --lpath='/usr/lib/prosody/?.lua' spec

local helper = {};

function helper.require(name)
	local env = setmetatable({ module = { require = function (_, lib) return helper.require(lib); end } }, { __index = _G });
	local path = "mod_dmuc/" .. name .. ".lib.lua";
	local chunk;
	if setfenv then -- luacheck: ignore 113
		chunk = setfenv(assert(loadfile(path)), env); -- luacheck: ignore 113
	else
		chunk = assert(loadfile(path, "t", env));
	end
	return chunk();
end

return helper;
