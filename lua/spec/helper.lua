-- Loads a library of mod_dmuc as Prosody's module:require does, without a server. Run from `lua/`:
--   LUA_CPATH='/usr/lib/prosody/?.so;;' busted --lua=/usr/bin/lua5.4 --lpath='/usr/lib/prosody/?.lua' spec

local helper = {};

-- `api` is what the library uses of Prosody's `module`.
function helper.require(name, api)
	local module = setmetatable({ require = function (_, lib) return helper.require(lib, api); end }, { __index = api });
	local env = setmetatable({ module = module }, { __index = _G });
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
