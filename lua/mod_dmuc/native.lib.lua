-- Finding, checking and listening to the native core.

local abi = 9;
-- Log records of the core are drained this often, in seconds.
local drain_interval = 1;

local lua_version = _VERSION:match("%d+%.%d+$");

-- `prosodyctl install` puts the library below a directory of Prosody's that is not on the search
-- path for native modules.
local function extend_search_path()
	local installer = prosody.paths and prosody.paths.installer;
	if not installer then return; end
	local path = installer .. "/lib/lua/" .. lua_version .. "/?.so";
	if not (";" .. package.cpath .. ";"):find(";" .. path .. ";", 1, true) then
		package.cpath = path .. ";" .. package.cpath;
	end
end

local function first_line(err)
	return (tostring(err):match("^[^\n]*"));
end

--- The library, or nil and why not.
local function load()
	extend_search_path();
	local ok, native = pcall(require, "dmuc_native");
	if not ok then
		local err = tostring(native);
		if err:find("module 'dmuc_native' not found", 1, true) then
			return nil, "the native library dmuc_native.so for Lua " .. lua_version .. " is not installed (not found on package.cpath)";
		end
		return nil, "the native library dmuc_native.so could not be loaded: " .. first_line(err);
	end
	if type(native) ~= "table" or type(native.info) ~= "function" then
		return nil, "the native library dmuc_native.so is not one of dmuc's";
	end
	local info = native.info();
	if info.abi ~= abi then
		return nil, ("the native library dmuc_native.so (version %s) has interface %s, this module needs %d; "
			.. "install both from the same release and restart Prosody"):format(info.version, info.abi, abi);
	end
	return native, info;
end

--- Hands the core's log records to the module's log until the module is unloaded. The queue belongs to
-- the process, so whichever host drains first logs them. Returns what does it at once.
local function start_log(native)
	local function drain()
		local records, lost = native.drain_log();
		for i = 1, #records do
			module:log(records[i][1], "%s", records[i][3]);
		end
		if lost > 0 then
			module:log("warn", "%d log records of the core were lost", lost);
		end
		return drain_interval;
	end
	module:add_timer(drain_interval, drain);
	return drain;
end

return { load = load; start_log = start_log; };
