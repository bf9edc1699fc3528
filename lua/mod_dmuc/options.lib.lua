-- Options: their names, defaults and ranges are the core's, with `dmuc_` before them. Times are in
-- seconds, as everywhere in Prosody; the core has milliseconds.

local prefix = "dmuc_";

--- The options that the configuration sets, or nil and a message for the operator.
local function read(native)
	local set, known = {}, {};
	for _, option in ipairs(native.options()) do
		local name = prefix .. option.name;
		known[name] = true;
		local value = module:get_option(name);
		if value ~= nil then
			local unit = option.time and 1000 or 1;
			local number = tonumber(value);
			if not number or (unit == 1 and number % 1 ~= 0) then
				return nil, ("option '%s' must be a %s, not %s"):format(name,
					option.time and "number of seconds" or "whole number", tostring(value));
			end
			number = math.floor(number * unit + 0.5);
			if number < option.min or number > option.max then
				return nil, ("option '%s' is %s, must be from %g to %g%s (%s)"):format(name, tostring(value),
					option.min / unit, option.max / unit, option.time and " seconds" or "", option.doc);
			end
			set[option.name] = number;
		end
	end
	local config = require "core.configmanager".getconfig();
	for _, section in ipairs { config["*"] or {}, config[module.host] or {} } do
		for name in pairs(section) do
			if type(name) == "string" and name:sub(1, #prefix) == prefix and not known[name] then
				module:log("warn", "Unknown option '%s' in the configuration", name);
			end
		end
	end
	-- What two options say together.
	local ok, err = pcall(native.shared, set);
	if not ok then return nil, (tostring(err):match("^[^\n]*")); end
	return set;
end

--- Whether two sets of options are the same.
local function equal(a, b)
	for name, value in pairs(a) do if b[name] ~= value then return false; end end
	for name in pairs(b) do if a[name] == nil then return false; end end
	return true;
end

return { read = read; equal = equal; };
