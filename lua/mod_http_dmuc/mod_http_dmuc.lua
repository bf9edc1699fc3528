-- The page of dmuc: rooms, where their links go, and what was saved. What it shows comes from the core;
-- here is who may see it.
--
-- Prosody has no web interface for admins whose protection could be shared. So this asks for an account
-- (HTTP Basic, RFC 7617) that is an admin of this host, and answers in clear text to this machine only.

module:depends "http";

local base64 = require "util.encodings".base64;
local saslprep = require "util.encodings".stringprep.saslprep;
local cache = require "util.cache";
local formdecode = require "util.http".formdecode;
local hmac = require "util.hashes".hmac_sha256;
local jid = require "util.jid";
local monotonic = require "util.time".monotonic;
local random = require "util.random";
local create_throttle = require "util.throttle".create;
local usermanager = require "core.usermanager";

-- Wrong passwords of one address, in seconds.
local failures_most, failures_period = 10, 60;
-- A password that was right is taken for so many seconds without asking again: each time costs as much as a
-- login, and the page comes back every five seconds.
local remembered_for = 60;
local reports = module:shared "/*/dmuc/reports";

-- Where there are permissions (13), one may give this one to others.
local permission = ":page";
if module.default_permission then module:default_permission("prosody:admin", permission); end

local function may(account)
	if module.default_permission then return module:may(permission, account); end
	return usermanager.is_admin(account, module.host);
end

local function is_here(ip)
	return ip == "::1" or ip:find("^127%.") or ip:find("^::ffff:127%.");
end

local throttles = cache.new(1000);
local function throttle_of(ip)
	local throttle = throttles:get(ip);
	if not throttle then
		throttle = create_throttle(failures_most, failures_period);
		throttles:set(ip, throttle);
	end
	return throttle;
end

-- Not by what was sent, but by what only we can make of it: looking it up tells nothing.
local secret = random.bytes(32);
local remembered = cache.new(100);
for _, event in ipairs { "user-password-changed", "user-deleted", "user-disabled" } do
	module:hook_global(event, function () remembered = cache.new(100); end);
end

-- The account whose name and password these are, if there is one.
local function account_of(name, password)
	if not name:find("@", 1, true) then name = name .. "@" .. module.host; end
	local account = jid.prep(name);
	local user, host, resource = jid.split(account);
	local known = host and prosody.hosts[host];
	password = saslprep(password);
	if not (user and known and known.type == "local" and not resource and password) then return nil; end
	-- mod_auth_internal_plain throws an error for an account that does not exist.
	local ok, right = pcall(usermanager.test_password, user, host, password);
	return ok and right and account or nil;
end

-- The account that a request is from, or nil and the status to answer with.
local function authenticate(request)
	local coded = (request.headers.authorization or ""):match("^[Bb][Aa][Ss][Ii][Cc] +(%S+)$");
	local name, password = (coded and base64.decode(coded) or ""):match("^([^:]+):(.*)$");
	if not name then return nil, 401; end
	local key = hmac(secret, coded);
	local known = remembered:get(key);
	if known and monotonic() < known.till then return known.account; end
	local throttle = throttle_of(request.ip);
	if not throttle:peek(1) then return nil, 429; end
	local account = account_of(name, password);
	if not account then
		throttle:poll(1);
		module:log("info", "A wrong name or password for the page, from %s", request.ip);
		return nil, 401;
	end
	remembered:set(key, { account = account, till = monotonic() + remembered_for });
	return account;
end

-- The status to refuse a request with, and why; or nil if it may see the page.
local function refused(request)
	if not request.secure and not is_here(request.ip) then
		return 403, "Over HTTPS only, or from the machine itself";
	end
	local account, status = authenticate(request);
	if account and not may(account) then
		module:log("info", "%s, who is no admin here, has asked for the page", account);
		status = 401;
	end
	return status, status == 429 and "Too many wrong passwords: wait a minute" or "For admins of this host";
end

-- This host, and the MUC components below it.
local function hosts()
	local list = {};
	for host in pairs(reports) do
		local known = prosody.hosts[host];
		local parent = known and known.type == "component"
			and module:context(host):get_option_string("parent_host", (host:gsub("^[^.]+%.", "")));
		if host == module.host or parent == module.host then list[#list + 1] = host; end
	end
	table.sort(list);
	return list;
end

-- What the core answers, or why there is none.
local function answer(name, query)
	local page, list = nil, {};
	for _, host in ipairs(hosts()) do
		local report = reports[host];
		page = page or report.page;
		list[#list + 1] = { host = host; off = report.off; report = report };
	end
	if not page then
		return { status = 503; headers = {}; body = list[1] and "dmuc is off: " .. list[1].off or "dmuc is not loaded here" };
	end
	local file = page.file(name);
	if file then return file; end
	for _, entry in ipairs(list) do
		if not entry.off then
			entry.shared, entry.rows = entry.report.page.shared(), entry.report.links();
		end
	end
	local asked = query and formdecode(query);
	if type(asked) ~= "table" then asked = {}; end
	return page.document(asked.room or "", asked.filter or "", list);
end

local function serve(event, name)
	local request, response = event.request, event.response;
	local status, why = refused(request);
	local given;
	if status then
		given = { status = status; headers = { ["Content-Type"] = "text/plain; charset=utf-8" }; body = why .. "\n" };
		if status == 401 then
			response.headers.www_authenticate = ('Basic realm="dmuc on %s", charset="UTF-8"'):format(module.host);
		elseif status == 429 then
			response.headers.retry_after = tostring(failures_period);
		end
	else
		given = answer(name, request.url.query);
	end
	response.status_code = given.status;
	for header, value in pairs(given.headers) do
		response.headers[header:lower():gsub("-", "_")] = value;
	end
	return given.body;
end

module:provides("http", {
	name = "dmuc";
	default_path = "/dmuc";
	-- No script of another site has anything to ask here.
	cors = { enabled = false };
	route = { ["GET /*"] = serve };
});
