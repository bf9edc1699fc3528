-- The primary: a MUC component watches what its rooms send to whom and lets the core carry it.
--
-- A room's stanza to a remote session passes `route/remote`, where the core says whether it is held.
-- What is held goes to the core when the event that made the room send is over, so that a
-- broadcast is seen whole. The core's actions are then carried out in order.

local xml = module:require "xml";
local new_buffer = module:require "buffer".new;
local burst = module:require "burst";
local loop = module:require "loop";
local form = module:require "form";

local st = require "util.stanza";
local new_id = require "util.id".medium;

local hosts = prosody.hosts;
local coroutine_running = coroutine.running;
local s_find, s_match = string.find, string.match;
local setmetatable, pairs, ipairs, pcall, next = setmetatable, pairs, ipairs, pcall, next;

local xmlns_disco_info = "http://jabber.org/protocol/disco#info";
-- A question about support that is not answered in this many seconds counts as not answered.
local disco_timeout = 30;
-- The same for a set-up; as long as it may be waited for at all.
local setup_timeout = 300;
-- How often handles of rooms without remote occupants are looked for, in seconds.
local sweep_interval = 60;
-- A room whose core failed is linked anew after so many seconds; after the last it stays plain.
local rebuild_delays = { 1, 10, 60 };

-- Copies of an event after which it is likely to have as many as the last that had so many.
local few = 16;

local pass, hold, pass_poll = 0, 1, 2; -- luacheck: ignore 211/pass

-- A full JID of a user of another server.
local function is_remote_session(jid)
	local domain = s_match(jid, "^[^@/]+@([^/]+)/");
	return domain and not hosts[domain];
end

return function (core)
	local native, now, recent, is_from_server = core.native, core.now, core.recent, core.is_from_server;
	local inspect = xml.inspector(native);

	local support;
	-- Room JID -> { jid, room (the core's), buffer, poll, busy, todo, wake, failures }
	local handles = {};
	-- Room JID -> live room object. A room that is evicted from mod_muc's cache tells nobody, but
	-- nothing else keeps it.
	local live = setmetatable({}, { __mode = "v" });
	-- Stanzas that the core sends plainly and must not see again.
	local own = setmetatable({}, { __mode = "k" });
	-- Handles with something for the next flush.
	local dirty = {};

	local flush, flush_all, run, perform, discard;

	local function log_once(handle, what, err)
		if handle.logged then return; end
		handle.logged = true;
		module:log("error", "%s failed in %s, its occupants are served plainly: %s", what, handle.jid, tostring(err));
	end

	--- Timers

	-- The flush after everything that is ready has been handled, for what a room sends outside of the
	-- events below: timers, shell commands, other modules. One for all rooms and at most one for each turn
	-- of the server's loop; it also comes to the aid of an event that raised or that waits for
	-- a storage.
	local depth = setmetatable({}, { __mode = "k" });
	local main = coroutine_running() or "main";
	local turn_armed = false;
	local function on_turn()
		turn_armed = false;
		-- Timers run outside of all events: a count that is left is of an event that raised.
		depth[coroutine_running() or "main"] = nil;
		flush_all();
	end
	local function mark(handle)
		dirty[handle] = true;
		if not turn_armed then
			turn_armed = true;
			module:add_timer(0, on_turn);
		end
	end

	local function arm(handle, wake)
		if handle.wake and handle.wake <= wake then return; end
		handle.wake = wake;
		local delay = (wake - now()) / 1000;
		if delay < 0 then delay = 0; end
		if handle.timer then handle.timer:stop(); end
		handle.timer = module:add_timer(delay, function ()
			handle.wake, handle.timer = nil, nil;
			if not handle.dead then
				run(handle, function (room) return room:tick(now()); end);
			end
		end);
	end

	--- Handles

	local function new_handle(jid)
		local ok, room = pcall(native.room, jid, core.seed(), core.secret(), core.shared);
		if not ok then
			module:log("error", "No link for %s: %s", jid, tostring(room));
			return nil;
		end
		local handle = { jid = jid, room = room, capture = room.capture, buffer = new_buffer(), todo = {}, usual = 0, failures = 0 };
		handles[jid] = handle;
		room:may_show_domains(live[jid] ~= nil and form.may_show_domains(live[jid]));
		return handle;
	end

	local function end_handle(handle)
		handle.dead = true;
		dirty[handle] = nil;
		if handle.timer then handle.timer:stop(); end
		if handles[handle.jid] == handle then handles[handle.jid] = nil; end
	end

	local function remote_occupants(room)
		local jids = {};
		for _, occupant in room:each_occupant() do
			for jid in occupant:each_session() do
				if is_remote_session(jid) then jids[#jids + 1] = jid; end
			end
		end
		return jids;
	end

	--- Takes a live room's remote occupants as they are now.
	local function adopt(room, failures)
		live[room.jid] = room;
		local jids = remote_occupants(room);
		local handle = handles[room.jid];
		if not jids[1] and not handle then return; end
		handle = handle or new_handle(room.jid);
		if not handle then return; end
		if failures then
			-- After a failure that has been logged.
			handle.failures, handle.logged = failures, true;
		end
		run(handle, function (r) return r:occupants(now(), jids); end);
	end

	--- The core of this room has failed: its copies go out as they would have without it.
	function discard(handle, what, err, held)
		log_once(handle, what, err);
		end_handle(handle);
		handles[handle.jid] = handle;
		for _, buffer in ipairs { held or false, handle.buffer } do
			if buffer then
				buffer:each(function (stanza, jid)
					local copy = st.clone(stanza);
					copy.attr.to = jid;
					own[copy] = true;
					module:send(copy);
				end);
			end
		end
		handle.buffer = new_buffer();
		local delay = rebuild_delays[handle.failures + 1];
		-- The replicas would tell their users that they are out once the link had been silent for
		-- long; a new link tells them what to forget.
		if delay then
			module:add_timer(delay, function ()
				if handles[handle.jid] ~= handle then return; end
				handles[handle.jid] = nil;
				local room = live[handle.jid];
				if room then adopt(room, handle.failures + 1); end
			end);
		end
	end

	--- Actions

	-- Calls `answered` with the result, or with nil and the error if one came. Not module:send_iq, which sends in the next turn
	-- of the loop: what the room sends until then would overtake a set-up that does not know of it.
	local function send_iq(stanza, timeout, answered)
		local kind = s_find(stanza.attr.from, "@", 1, true) and "bare" or "host";
		local result = ("iq-result/%s/%s"):format(kind, stanza.attr.id);
		local failure = ("iq-error/%s/%s"):format(kind, stanza.attr.id);
		local timer, on_result, on_error;
		local function finish(reply, err)
			module:unhook(result, on_result);
			module:unhook(failure, on_error);
			timer:stop();
			answered(reply, err);
		end
		function on_result(event)
			if event.stanza.attr.from ~= stanza.attr.to then return; end
			finish(event.stanza);
			return true;
		end
		function on_error(event)
			if event.stanza.attr.from ~= stanza.attr.to then return; end
			finish(nil, event.stanza);
			return true;
		end
		module:hook(result, on_result, 1);
		module:hook(failure, on_error, 1);
		timer = module:add_timer(timeout, function () finish(nil); end);
		module:send(stanza);
	end

	local function guarded(what, f)
		return function (...)
			local ok, err = pcall(f, ...);
			if not ok then module:log("error", "Could not handle the answer %s: %s", what, tostring(err)); end
		end
	end

	local ask_domain;

	local function answer_support(domain, yes)
		for _, jid in ipairs(support:answered(now(), domain, yes)) do
			local handle = handles[jid];
			if handle then
				run(handle, function (room) return room:support(now(), domain, yes); end);
			end
		end
		local waiting = support:next_question();
		while waiting do
			ask_domain(waiting);
			waiting = support:next_question();
		end
	end

	function ask_domain(domain)
		local query = st.iq({ type = "get", from = module.host, to = domain, id = new_id() })
			:tag("query", { xmlns = xmlns_disco_info }):up();
		send_iq(query, disco_timeout, guarded("about support", function (reply)
			local yes;
			local info = reply and reply:get_child("query", xmlns_disco_info);
			if info then
				yes = info:get_child_with_attr("feature", nil, "var", xml.xmlns) ~= nil;
			end
			answer_support(domain, yes);
		end));
	end

	local function ask_support(handle, domain)
		local answer = support:ask(now(), domain, handle.jid);
		if answer == "query" then
			ask_domain(domain);
		elseif answer ~= "wait" then
			run(handle, function (room) return room:support(now(), domain, answer == "yes"); end);
		end
	end

	local performers = {};

	function performers.plain(_, action, find)
		local stanza = st.clone(find(action.payload));
		own[stanza] = true;
		-- One object for all, as the room itself does it.
		for _, jid in ipairs(action.to) do
			stanza.attr.to = jid;
			module:send(stanza);
		end
	end

	function performers.envelope(handle, action, find)
		-- Without a type, which is normal then.
		module:send(st.message({ from = handle.jid, to = action.to, id = action.id })
			:add_child(xml.build(action.body, find)));
	end

	-- The names of the conditions of an error. They have namespaces of their own, which childtags() would want named.
	local function conditions(stanza)
		local list = {};
		for _, child in ipairs(stanza:get_child("error").tags) do list[#list + 1] = child.name; end
		return list;
	end

	function performers.setup(handle, action, find)
		local domain, id = action.to, action.id;
		local iq = st.iq({ type = "set", from = handle.jid, to = domain, id = id }):add_child(xml.build(action.body, find));
		-- The core gives up earlier than this.
		send_iq(iq, setup_timeout, guarded("to a set-up", function (reply, err)
			if handle.dead then return; end
			if err and err:get_child("error") then
				run(handle, function (room) return room:setup_refused(now(), domain, id, conditions(err)); end);
				return;
			end
			local link = reply and reply:get_child("link", xml.xmlns);
			run(handle, function (room) return room:setup_result(now(), domain, id, link); end);
		end));
	end

	function performers.ask_support(handle, action) ask_support(handle, action.domain); end
	function performers.support_seen(_, action) support:announced(now(), action.domain); end
	function performers.forget_support(_, action) support:forget(action.domain); end

	local function fail(handle, jids)
		-- The room's own code kicks with 333, as for any stanza that bounces.
		for _, jid in ipairs(jids) do
			prosody.core_post_stanza(hosts[module.host], st.message({ type = "error", from = jid, to = handle.jid, id = new_id() })
				:tag("error", { type = "cancel" })
					:tag("recipient-unavailable", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):up():up());
		end
	end

	function perform(handle, actions, stanzas)
		local parsed = {};
		local function find(payload)
			if stanzas and stanzas[payload] then return stanzas[payload]; end
			local stanza = parsed[payload];
			if not stanza then
				stanza = assert(xml.parse(payload));
				parsed[payload] = stanza;
			end
			return stanza;
		end
		local failed;
		for i = 1, #actions do
			local action = actions[i];
			if action[1] == "fail" then
				-- Makes the room send more, which is to come after the rest of this list.
				failed = failed or {};
				failed[#failed + 1] = action.to;
			else
				local ok, err = pcall(performers[action[1]], handle, action, find);
				if not ok then module:log("error", "Could not carry out %s for %s: %s", action[1], handle.jid, tostring(err)); end
			end
		end
		if actions.wake then arm(handle, actions.wake); end
		return failed;
	end

	--- Gives the core what it held.
	local function event(handle)
		if handle.loop then handle.loop(); end
		local buffer = handle.buffer;
		if buffer.copies == 0 and not handle.poll then return; end
		if buffer.copies >= few then
			handle.usual = buffer.copies;
			burst.finish();
		end
		handle.buffer, handle.poll = new_buffer(), nil;
		local ok, actions = pcall(handle.room.event, handle.room, now(), buffer);
		if not ok then return discard(handle, "The core", actions, buffer); end
		return perform(handle, actions, buffer.stanzas);
	end

	--- Calls the core and does what it says. All actions of a call are carried out before the next call,
	-- so what comes up meanwhile waits here.
	function run(handle, call)
		local todo = handle.todo;
		if call then todo[#todo + 1] = call; end
		if handle.busy then return; end
		handle.busy = true;
		local failed = {};
		repeat
			dirty[handle] = nil;
			local jids = event(handle);
			if jids then for _, list in ipairs(jids) do failed[#failed + 1] = list; end end
			local next_call = not handle.dead and table.remove(todo, 1);
			if next_call then
				local ok, actions = pcall(next_call, handle.room);
				if ok then
					jids = perform(handle, actions);
					if jids then for _, list in ipairs(jids) do failed[#failed + 1] = list; end end
				else
					discard(handle, "The core", actions);
				end
			end
			if failed[1] and not todo[1] then
				local list = table.remove(failed, 1);
				local ok, err = pcall(fail, handle, list);
				if not ok then module:log("error", "Could not remove unreachable occupants of %s: %s", handle.jid, tostring(err)); end
			end
		until handle.dead or (not todo[1] and not failed[1] and handle.buffer.copies == 0 and not handle.poll);
		handle.busy = nil;
	end

	function flush(handle)
		if not handle.dead then run(handle); end
	end

	function flush_all()
		local handle = next(dirty);
		while handle do
			dirty[handle] = nil;
			-- One that is at work flushes by itself before it ends.
			if not handle.busy then flush(handle); end
			handle = next(dirty);
		end
	end

	--- Hooks

	local function capture(handle, stanza, to)
		if handle.loop then handle.loop(); end
		local buffer = handle.buffer;
		local bits, digest = inspect(stanza);
		local verdict, known = handle.capture(handle.room, recent(), to, bits, digest);
		if verdict == hold then
			buffer:add(to, buffer:payload(stanza, bits, digest, known));
			if buffer.copies == few then
				-- As many as the last time.
				burst.begin(handle.usual);
			elseif buffer.copies == burst.most then
				burst.finish();
			end
			mark(handle);
			return true;
		elseif verdict == pass_poll then
			handle.poll = true;
			mark(handle);
		end
	end

	-- After all other modules, just before mod_s2s: what they drop or change is dropped and changed as ever.
	local function on_remote(event_data)
		local stanza = event_data.stanza;
		local to, from = stanza.attr.to, stanza.attr.from;
		if own[stanza] or not s_find(to, "^[^@/]+@[^/]+/") then return; end
		local jid = s_match(from, "^[^/]+");
		local handle = handles[jid];
		if not handle then
			-- Errors from rooms that do not exist come this way too.
			if not live[jid] then return; end
			handle = new_handle(jid);
		end
		if not handle or handle.dead then return; end
		local ok, held = pcall(capture, handle, stanza, to);
		if ok then return held; end
		discard(handle, "Capture", held);
	end
	module:hook("route/remote", on_remote, -0.5);

	-- Everything that makes a room send within one of these belongs together. Counted for each
	-- coroutine, since one that waits for a storage lets others in.
	local function bracket(handlers, event_name, event_data)
		local thread = coroutine_running() or main;
		local level = (depth[thread] or 0) + 1;
		depth[thread] = level;
		now();
		local ret = handlers(event_name, event_data);
		if level > 1 then
			depth[thread] = level - 1;
		else
			depth[thread] = nil;
			if next(dirty) then flush_all(); end
		end
		return ret;
	end
	for _, kind in ipairs { "message", "presence", "iq" } do
		for _, target in ipairs { "full", "bare", "host" } do
			module:wrap_event(kind .. "/" .. target, bracket);
		end
	end

	local function on_error(stanza, origin)
		local domain, id = stanza.attr.from, stanza.attr.id;
		if not id or not domain or s_find(domain, "[@/]") or not native.is_envelope_id(id) then return; end
		local handle = handles[stanza.attr.to];
		if handle and not handle.dead then
			local refused = is_from_server(origin, domain);
			run(handle, function (room) return room:bounced(now(), domain, id, refused); end);
		end
		return true;
	end

	local function on_report(stanza, origin)
		local domain = stanza.attr.from;
		local report, announce = stanza:get_child("report", xml.xmlns), stanza:get_child("announce", xml.xmlns);
		if not report and not announce then return; end
		if not domain or s_find(domain, "[@/]") or not is_from_server(origin, domain) then return; end
		if announce then support:announced(now(), domain); end
		local jid = stanza.attr.to;
		local handle = handles[jid];
		if not handle and report and report:get_child("ask") then
			-- Whoever asks is to be told if there is no such room, and the room may be in storage.
			if not hosts[module.host].modules.muc.get_room_from_jid(jid) then return; end
			handle = handles[jid] or new_handle(jid);
		end
		if handle and not handle.dead then
			run(handle, function (room) return room:report(now(), domain, report or announce); end);
		end
		return true;
	end

	module:hook("message/bare", function (event_data)
		local stanza, origin = event_data.stanza, event_data.origin;
		local handler = stanza.attr.type == "error" and on_error or on_report;
		local ok, ret = pcall(handler, stanza, origin);
		if not ok then
			module:log("error", "Could not handle %s: %s", stanza:top_tag(), tostring(ret));
			return;
		end
		return ret;
	end, 1000);

	module:hook("muc-room-pre-create", function (event_data)
		live[event_data.room.jid] = event_data.room;
	end, -1001);
	module:hook("muc-room-created", function (event_data)
		live[event_data.room.jid] = event_data.room;
	end, 1000);
	-- Back from storage, with its occupants: what the core knew of them still holds, and it is told
	-- of any that differ.
	module:hook("muc-room-restored", function (event_data)
		local ok, err = pcall(adopt, event_data.room);
		if not ok then module:log("error", "Could not link %s: %s", event_data.jid, tostring(err)); end
	end, 1000);
	module:hook("muc-room-destroyed", function (event_data)
		local jid = event_data.room.jid;
		if live[jid] == event_data.room then live[jid] = nil; end
		local handle = handles[jid];
		-- Those who were told so have left; a room that goes without telling leaves no link behind.
		if handle and not handle.dead and event_data.room:has_occupant() then
			run(handle, function (room) return room:close(now()); end);
			end_handle(handle);
		end
	end, -1000);

	--- A stanza for all: the room's own loop copies every occupant and routes every copy. What it would
	-- send is known here, so the remote ones are told to the core at once. Of these occupants the full JIDs
	-- that are left to the room, and those that are and shall not be captured again; nothing if all are.
	local function hold_for(handle, occupants, stanza)
		if handle.dead then return; end
		local crowd, others = native.crowd(occupants, hosts);
		if not crowd then return; end
		local bits, digest = inspect(stanza);
		-- Before the core takes note of the copies, so that nothing can fail once it has.
		local buffer = handle.buffer;
		local position = buffer:payload(stanza, bits, digest);
		local ok, passed = pcall(handle.room.capture_crowd, handle.room, now(), crowd, bits);
		if not ok then
			discard(handle, "Capture", passed);
			return;
		end
		buffer:add_crowd(crowd, position);
		handle.poll = true;
		mark(handle);
		return others, passed or {};
	end

	-- What is left of it, with one object for all as the room has it.
	local function route_rest(room, stanza, others, passed)
		local to = stanza.attr.to;
		for i = 1, #others do
			stanza.attr.to = others[i];
			room:route_stanza(stanza);
		end
		own[stanza] = true;
		for i = 1, #passed do
			stanza.attr.to = passed[i];
			room:route_stanza(stanza);
		end
		own[stanza] = nil;
		stanza.attr.to = to;
	end

	-- Another module may have put its own way of sending into rooms, or want to see what goes to remote
	-- domains; then their loop and route/remote do.
	local function is_usual(room, method)
		return loop.is_stock(room, method) and loop.is_unwatched(hosts[module.host].events.get_handlers("route/remote"), on_remote);
	end

	module:hook("muc-broadcast-message", function (event_data)
		local room, stanza = event_data.room, event_data.stanza;
		local handle = handles[room.jid];
		if not handle or not is_usual(room, "broadcast") then return; end
		local ok, others, passed = pcall(hold_for, handle, room._occupants, stanza);
		if not ok then
			module:log("error", "Could not see a broadcast of %s whole: %s", room.jid, tostring(others));
			return;
		end
		if not others then return; end
		route_rest(room, stanza, others, passed);
		return true;
	end, -1e6);

	-- Sessions of a room's occupants, as its own loop has them.
	local function sessions(occupants)
		local jids = {};
		for i = 1, #occupants do
			for jid, presence in pairs(occupants[i].sessions) do
				if presence.attr.type ~= "unavailable" or jid == occupants[i].jid then jids[#jids + 1] = jid; end
			end
		end
		return jids;
	end

	module:hook("muc-broadcast-presence", function (event_data)
		local room = event_data.room;
		local handle = handles[room.jid];
		if not handle or handle.dead or handle.loop or not is_usual(room, "publicise_occupant_status") then return; end
		handle.loop = loop.begin(room, function (runs)
			handle.loop = nil;
			local rest = {};
			-- All that is held before anything is sent: whoever gets it may change the stanza.
			for i, part in ipairs(runs) do
				local ok, others, passed = pcall(hold_for, handle, part.occupants, part.stanza);
				if not ok then
					module:log("error", "Could not see a presence of %s whole: %s", room.jid, tostring(others));
				end
				rest[i] = ok and others and { others, passed } or { sessions(part.occupants), {} };
			end
			for i, part in ipairs(runs) do route_rest(room, part.stanza, rest[i][1], rest[i][2]); end
		end);
		-- Should the loop end with an error.
		mark(handle);
	end, -1e6);

	form.hook(native, function () return core.shared:asks_owners(); end, function (muc_room, may_show)
		local handle = handles[muc_room.jid];
		if not handle or handle.dead then return; end
		run(handle, function (room)
			room:may_show_domains(may_show);
			return room:tick(now());
		end);
	end);

	--- Handles of rooms that no remote occupant is in any more.
	local function sweep()
		for jid, handle in pairs(handles) do
			if not handle.busy and not dirty[handle] then
				if handle.dead then
					if not live[jid] then handles[jid] = nil; end
				else
					local ok, links = pcall(handle.room.links, handle.room, now());
					if not ok then
						discard(handle, "The core", links);
					elseif not links[1] then
						end_handle(handle);
					end
				end
			end
		end
		return sweep_interval;
	end

	local function live_rooms()
		local muc = hosts[module.host].modules.muc;
		return muc.live_rooms();
	end

	local role = {};

	function role.start()
		support = native.support(core.seed(), core.shared);
		for room in live_rooms() do adopt(room); end
		module:add_timer(sweep_interval, sweep);
	end

	function role.stop()
		for _, handle in pairs(handles) do
			if not handle.dead then run(handle, function (room) return room:close(now()); end); end
		end
	end

	function role.save()
		flush_all();
		return { support = support, handles = handles, stop = role.stop };
	end

	function role.restore(saved)
		support = saved.support;
		for jid, old in pairs(saved.handles) do
			local handle = { jid = jid, room = old.room, capture = old.capture, buffer = new_buffer(), todo = {}, usual = 0,
				failures = old.failures, dead = old.dead, logged = old.logged };
			handles[jid] = handle;
			if old.wake and not old.dead then arm(handle, old.wake); end
		end
		for room in live_rooms() do live[room.jid] = room; end
		module:add_timer(sweep_interval, sweep);
	end

	function role.replace(saved)
		if saved and saved.stop then saved.stop(); end
		role.start();
	end

	--- Something may be due under them.
	function role.options_changed()
		for _, handle in pairs(handles) do
			if not handle.dead then run(handle, function (room) return room:tick(now()); end); end
		end
	end

	--- Rows for the operator.
	function role.links()
		local rows = {};
		for _, handle in pairs(handles) do
			local of_room = handle.dead and native.failed(handle.jid) or handle.room:links(now());
			for _, row in ipairs(of_room) do rows[#rows + 1] = row; end
		end
		table.sort(rows, function (a, b) return a.room .. " " .. a.peer < b.room .. " " .. b.peer; end);
		return rows;
	end

	return role;
end
