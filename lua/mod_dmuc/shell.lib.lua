-- The commands of mod_admin_shell: what the core tells, as text.

local json = require "util.json";

local sections = {};

-- The hosts of a command: all that have the module, or one.
local function each(reports, wanted, f)
	local hosts = {};
	for host in pairs(reports) do
		if not wanted or host == wanted then hosts[#hosts + 1] = host; end
	end
	table.sort(hosts);
	for _, host in ipairs(hosts) do f(host, reports[host]); end
	return #hosts;
end

local function none(wanted)
	return nil, wanted and ("dmuc is not loaded on " .. wanted) or "dmuc is not loaded on any host";
end

-- For `dmuc:status(host)` and `dmuc:counters(host)`: named values of each host.
local function named(reports, list)
	return function (self, wanted)
		local count = each(reports, wanted, function (host, report)
			if report.off then
				self.session.print(("%s: off: %s"):format(host, report.off));
				return;
			end
			for _, item in ipairs(list(report)) do
				self.session.print(("%s: %s: %s"):format(host, item[1], tostring(item[2])));
			end
		end);
		if count == 0 then return none(wanted); end
		return true, ("%d host%s"):format(count, count == 1 and "" or "s");
	end;
end

local function counters(report)
	local list = {};
	for name, value in pairs(report.counters()) do
		if value > 0 then list[#list + 1] = { name, ("%d"):format(value) }; end
	end
	table.sort(list, function (a, b) return a[1] < b[1]; end);
	return list;
end

-- For `dmuc:links(which)` and `dmuc:json(which)`: a host, the address of a room, or nothing.
local function links(reports, write)
	return function (self, which)
		local room = which and which:find("@", 1, true) and which;
		local rows, tabulate = {}, nil;
		local count = each(reports, not room and which or nil, function (host, report)
			if report.off then
				self.session.print(("%s: off: %s"):format(host, report.off));
				return;
			end
			tabulate = tabulate or report.table;
			for _, row in ipairs(report.links()) do
				if not room or row.room == room then rows[#rows + 1] = row; end
			end
		end);
		if count == 0 then return none(which); end
		write(self.session.print, rows, tabulate);
		return true, ("%d link%s"):format(#rows, #rows == 1 and "" or "s");
	end;
end

local function as_table(print, rows, tabulate)
	if not rows[1] then return; end
	for line in tabulate(rows):gmatch("[^\n]+") do print(line); end
end

local function as_json(print, rows)
	print(rows[1] and json.encode(rows) or "[]");
end

local help = {
	desc = "Rooms whose traffic crosses server-to-server links once";
	commands = {
		status = { desc = "Roles, links, what waits and what was saved", args = { { name = "host" } }, module = "dmuc" };
		links = { desc = "Links of a host or room, and why there is none", args = { { name = "host_or_room" } }, module = "dmuc" };
		json = { desc = "The same as links for machines", args = { { name = "host_or_room" } }, module = "dmuc" };
		counters = { desc = "What was counted since the module was loaded", args = { { name = "host" } }, module = "dmuc" };
	};
};

return function (reports)
	-- One section for all hosts, which find it there already.
	sections.status = named(reports, function (report) return report.overview(); end);
	sections.counters = named(reports, counters);
	sections.links = links(reports, as_table);
	sections.json = links(reports, as_json);
	module:shared "/*/admin_shell/env".dmuc = setmetatable(sections, { help = help });
end
