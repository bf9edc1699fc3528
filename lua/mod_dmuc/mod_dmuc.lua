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
local reports = module:shared "/*/dmuc/reports";
local function off(reason)
	-- A reload has left us links that nobody would look after.
	function module.restore(saved)
		if saved.role and saved.role.stop then saved.role.stop(); end
	end
	function module.unload() reports[module.host] = nil; end
	reports[module.host] = { off = reason };
	module:require "shell"(reports);
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
if not options then
	if not module.reloading then return off(problem); end
	-- What the links have stays in force, and may not go with a slip of the pen.
	module:log("error", "The options are refused, dmuc goes on with those that it had: %s", problem);
	options = {};
end

if is_muc then module:depends "muc"; end
module:depends "disco";

-- In seconds; samples are of a minute.
local sample_interval = 10;

local random = require "util.random";
local monotonic = require "util.time".monotonic;

local last_now = math.floor(monotonic() * 1000);
local core = {
	native = native;
	shared = native.shared(options);
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
	secret = function () return random.bytes(32); end;
	-- Whether a stanza has really come from that domain over a server stream. What mod_s2s and
	-- mod_smacks make themselves when a stream fails comes from a dummy or from the host.
	is_from_server = function (origin, domain)
		if (origin.type ~= "s2sin" and origin.type ~= "s2sout") or origin.dummy then return false; end
		local host = origin.hosts and origin.hosts[domain];
		return host ~= nil and host.authed == true;
	end;
};

local role = module:require(is_muc and "primary" or "replica")(core);

local drain_log = native_lib.start_log(native);

--- What the core counts, as metrics.
local measured = {};
module:hook_global("stats-update", function ()
	for _, metric in ipairs(core.shared:metrics()) do
		local known = measured[metric.name];
		if not known then
			known = module:metric(metric.kind, metric.name, "", metric.doc, {}):with_labels();
			measured[metric.name] = known;
		end
		-- Not added up here: the core's counters outlive a reload, and so do the metrics.
		known:set(metric.value);
	end
end);

-- For what was saved over time; it looks at the clock itself.
module:add_timer(sample_interval, function ()
	core.shared:sample(core.now());
	return sample_interval;
end);

--- What the shell and the page of mod_http_dmuc show. Each host that has the module adds itself here.
reports[module.host] = {
	links = role.links;
	overview = function ()
		local list = core.shared:overview();
		table.insert(list, 1, { "role", is_muc and "primary" or "replica" });
		return list;
	end;
	counters = function () return core.shared:counters(); end;
	table = native.table;
	page = {
		file = native.page_file;
		document = function (room, filter, hosts) return native.page_document(core.now(), room, filter, hosts); end;
		shared = function () return core.shared; end;
	};
};
module:require "shell"(reports);

--- Other options, while links go on. Refused ones change nothing.
local function apply(given)
	core.shared:set(given);
	options = given;
	role.options_changed();
end

module:hook_global("config-reloaded", function ()
	local given, wrong = options_lib.read(native);
	if not given then
		module:log("error", "The options are refused, dmuc goes on with those that it had: %s", wrong);
	elseif not options_lib.equal(given, options) then
		apply(given);
		module:log("debug", "Other options are in force");
	end
end);

function module.load()
	module:log("debug", "dmuc %s, %s", info.version, is_muc and "primary" or "replica");
	if not module.reloading then role.start(); end
end

function module.save()
	return { abi = info.abi, options = options, shared = core.shared, role = role.save() };
end

function module.restore(saved)
	-- Handles of the core outlive a reload, since the library stays loaded; links and records go on.
	if saved.abi == info.abi and saved.role then
		core.shared = saved.shared;
		role.restore(saved.role);
		if problem then
			options = saved.options;
		elseif not options_lib.equal(saved.options, options) then
			apply(options);
		end
	else
		role.replace(saved.role);
	end
	module:add_feature(xml.xmlns);
end

function module.unload()
	reports[module.host] = nil;
	if role.unload then role.unload(); end
	if not module.reloading then role.stop(); end
	-- The last word of the links that have ended; no timer comes any more.
	drain_log();
end

if not module.reloading then module:add_feature(xml.xmlns); end
