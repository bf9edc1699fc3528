-- dmuc: room traffic crosses a server-to-server link once for all occupants behind it.
--
-- On a MUC component this module is the primary, on a VirtualHost the replica. The protocol is in
-- the native core; here are hooks, options and commands.

local native_lib = module:require "native";
local options_lib = module:require "options";
local xml = module:require "xml";

local is_muc = module:get_host_type() == "component";
if is_muc and not prosody.hosts[module.host].modules.muc then
	module:log_status("error", "%s is no MUC component: mod_dmuc belongs on MUC components and on VirtualHosts", module.host);
	return;
end

-- Without the core, or with options that it cannot take, the module stays loaded and does nothing: the
-- server starts, rooms work as without it, and the reason stands in the module's status and, once for all
-- hosts, in the log.
local told = module:shared "/*/dmuc/told";
local function off(reason)
	local text = ("dmuc is off for %s, rooms work as without it: %s"):format(module.host, reason);
	if told[reason] and told[reason] ~= module.host then
		module:set_status("error", text);
	else
		told[reason] = module.host;
		module:log_status("error", "%s", text);
	end
end
local native, info = native_lib.load();
if not native then return off(info); end
local options, problem = options_lib.read(native);
if not options then return off(problem); end
local ok, shared = pcall(native.shared, options);
if not ok then return off(tostring(shared)); end

if is_muc then module:depends "muc"; end
module:depends "disco";

local random = require "util.random";
local monotonic = require "util.time".monotonic;

local last_now = math.floor(monotonic() * 1000);
local core = {
	native = native;
	shared = shared;
	-- The value of an option, set or default.
	option = function (name)
		for _, option in ipairs(native.options()) do
			if option.name == name then return options[name] or option.default; end
		end
	end;
	-- Milliseconds on a clock that never goes backwards.
	now = function ()
		last_now = math.floor(monotonic() * 1000);
		return last_now;
	end;
	-- The time last given, for what is asked once for each copy.
	recent = function () return last_now; end;
	-- 48 bits, which a Lua without integers holds too.
	seed = function ()
		local seed = 0;
		for byte in random.bytes(6):gmatch(".") do seed = seed * 256 + byte:byte(); end
		return seed;
	end;
	-- Whether a stanza has really come from that domain over a server stream. What mod_s2s and
	-- mod_smacks make themselves when a stream fails comes from a dummy or from the host.
	is_from_server = function (origin, domain)
		if (origin.type ~= "s2sin" and origin.type ~= "s2sout") or origin.dummy then return false; end
		local host = origin.hosts and origin.hosts[domain];
		return host ~= nil and host.authed == true;
	end;
};

local role = module:require(is_muc and "primary" or "replica")(core);

native_lib.start_log(native);

--- Counters of the core as statistics.
local measured = {};
module:hook_global("stats-update", function ()
	for name, value in pairs(core.shared:counters()) do
		local counter = measured[name];
		if not counter then
			counter = { last = 0, count = module:measure(name, "counter") };
			measured[name] = counter;
		end
		counter.count(value - counter.last);
		counter.last = value;
	end
end);

--- The shell's commands. Each host that has the module adds itself here.
local reports = module:shared "/*/dmuc/reports";
reports[module.host] = {
	status = role.status;
	counters = function ()
		local lines = {};
		for name, value in pairs(core.shared:counters()) do
			if value > 0 then lines[#lines + 1] = ("%s %s: %d"):format(module.host, name, value); end
		end
		table.sort(lines);
		return lines;
	end;
};

local function command(report, empty)
	return function (_, host)
		local lines = {};
		for name, of_host in pairs(reports) do
			if not host or host == name then
				for _, line in ipairs(of_host[report]()) do lines[#lines + 1] = line; end
			end
		end
		return true, lines[1] and table.concat(lines, "\n") or empty;
	end;
end

module:shared "/*/admin_shell/env".dmuc = {
	status = command("status", "no links");
	counters = command("counters", "nothing counted");
};

function module.load()
	module:log("debug", "dmuc %s, %s", info.version, is_muc and "primary" or "replica");
	if not module.reloading then role.start(); end
end

function module.save()
	return { abi = info.abi, options = options, shared = core.shared, role = role.save() };
end

function module.restore(saved)
	-- Handles of the core outlive a reload, since the library stays loaded; links and records go on. With
	-- other options they have to be made anew.
	if saved.abi == info.abi and saved.role and options_lib.equal(saved.options, options) then
		core.shared = saved.shared;
		role.restore(saved.role);
	else
		role.replace(saved.role);
	end
	module:add_feature(xml.xmlns);
end

function module.unload()
	reports[module.host] = nil;
	if role.unload then role.unload(); end
	if not module.reloading then role.stop(); end
end

if not module.reloading then module:add_feature(xml.xmlns); end
