-- The replica: a VirtualHost hands what remote rooms send in envelopes to its own sessions.
--
-- The core is told which sessions ask to be in rooms and when their stay ends, and delivers to no
-- other. What it delivers goes the way of any stanza from a server stream.

local xml = module:require "xml";
local in_burst = module:require "burst".each;

local filters = require "util.filters";
local st = require "util.stanza";
local new_id = require "util.id".medium;

local hosts, full_sessions = prosody.hosts, prosody.full_sessions;
local s_match = string.match;
local setmetatable, pairs, ipairs, pcall = setmetatable, pairs, ipairs, pcall;

local xmlns_stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
-- Consent records also expire on a tick, which nothing else may cause for long; in seconds.
local idle_tick = 60;
-- A filter's place behind all others.
local behind_all = -1e6;

-- An available presence to an occupant JID with `<x xmlns=muc/>`, as facts.
local join_facts = xml.facts(st.presence({ from = "r@c/n" }):tag("x", { xmlns = "http://jabber.org/protocol/muc" }):up());

return function (core)
	local pack, unpack = xml.packer(core.native);
	local share, write = xml.share, xml.writer(core.native);
	local native, now, is_from_server = core.native, core.now, core.is_from_server;

	local replica;
	local broken = false;
	local wake, timer;
	-- Stanzas under delivery: the core has read them in their envelope.
	local delivering = setmetatable({}, { __mode = "k" });

	-- Host of this server -> what takes a cast for it from another host.
	local neighbours = module:shared "/*/dmuc/neighbours";

	-- Room JID -> the last envelope that was carried out, for the leave-taking without the core.
	local handled = {};

	local function send_report(to, id, report)
		module:send(st.message({ from = module.host, to = to, id = id }):add_child(report));
	end

	-- Without its core the replica is as if the module were not there: envelopes are answered as any
	-- server answers what it does not know, and the rooms go on plainly. What has been carried out
	-- is told, or the rooms would have to take their occupants here for lost.
	local function break_off(err)
		if broken then return; end
		broken = true;
		if timer then timer:stop(); end
		module:remove_item("feature", xml.xmlns);
		for room, last in pairs(handled) do
			send_report(room, new_id(), st.stanza("report", { xmlns = xml.xmlns, epoch = last.epoch, ack = ("%d"):format(last.seq) })
				:tag("bye"):up());
		end
		module:log_status("error", "The core failed, rooms serve the users of %s plainly from here on: %s", module.host, tostring(err));
	end

	local perform;

	local function arm(at)
		if wake and wake <= at then return; end
		wake = at;
		if timer then timer:stop(); end
		local delay = (at - now()) / 1000;
		timer = module:add_timer(delay > 0 and delay or 0, function ()
			wake, timer = nil, nil;
			if broken then return; end
			local ok, actions = pcall(replica.tick, replica, now());
			if not ok then return break_off(actions); end
			perform(actions);
		end);
	end

	-- What is delivered is written here, after all other modules have had it.
	local function written(stanza)
		return delivering[stanza] and write(stanza) or stanza;
	end

	-- Before each stanza, since a session that is resumed gets other filters.
	local function write_for(session)
		if session and session.filters then filters.add_filter(session, "stanzas/out", written, behind_all); end
	end

	local function stop_writing()
		for _, session in pairs(full_sessions) do
			if session.host == module.host then filters.remove_filter(session, "stanzas/out", written); end
		end
	end

	--- Actions

	local performers = {};

	local function report_error(what, err)
		module:log("error", "Could not %s: %s", what, tostring(err));
	end

	-- Those who deliver may keep or change the stanza, so each session gets its own.
	local function post(stanza, to, origin)
		write_for(full_sessions[to]);
		delivering[stanza] = true;
		local ok, err = pcall(prosody.core_post_stanza, origin, stanza);
		delivering[stanza] = nil;
		if not ok then report_error("deliver a stanza to " .. to, err); end
	end

	local function deliver(payload, to, origin)
		in_burst(#to, function (first, last)
			for i = first, last do
				post(share(payload, to[i]), to[i], origin);
			end
		end);
	end

	function performers.deliver(action, origin, payloads) deliver(payloads[action.op], action.to, origin); end

	function performers.replay(action, origin)
		local stanzas, to = action.stanzas, action.to;
		if not stanzas[2] then
			return deliver(unpack(stanzas[1]), to, origin);
		end
		for i = 1, #to do
			in_burst(#stanzas, function (first, last)
				for j = first, last do
					local stanza = unpack(stanzas[j]);
					stanza.attr.to = to[i];
					post(stanza, to[i], origin);
				end
			end);
		end
	end

	function performers.report(action)
		send_report(action.to, action.id, xml.build(action.body));
	end

	function performers.refuse(action)
		module:send(st.message({ type = "error", from = module.host, to = action.to, id = action.id })
			:tag("error", { type = "cancel" })
				:tag(action.condition, { xmlns = xmlns_stanzas }):up()
				:tag(action.dmuc, { xmlns = xml.xmlns }):up():up());
	end

	function performers.result(action, origin, _, iq)
		origin.send(st.reply(iq):add_child(xml.build(action.body)));
	end

	function performers.setup_error(action, origin, _, iq)
		local reply = st.error_reply(iq, "cancel", action.condition);
		reply:get_child("error"):tag(action.dmuc, { xmlns = xml.xmlns }):up();
		origin.send(reply);
	end

	function performers.evict(action)
		local presence = st.presence({ type = "unavailable", from = action.room .. "/" .. action.nick, to = action.session })
			:tag("x", { xmlns = xmlns_muc_user })
				:tag("item", { affiliation = "none", role = "none" }):up()
				:tag("status", { code = "110" }):up()
				:tag("status", { code = "333" }):up():up();
		delivering[presence] = true;
		prosody.core_post_stanza(hosts[module.host], presence);
		delivering[presence] = nil;
	end

	function performers.depart(action)
		module:send(st.presence({ type = "unavailable", from = action.session, to = action.room .. "/" .. action.nick }));
	end

	function performers.link_over(action) handled[action.room] = nil; end

	function performers.handled(action) handled[action.room] = { epoch = action.epoch, seq = action.seq }; end

	function performers.announce(action)
		module:send(st.message({ from = module.host, to = action.room, id = new_id() })
			:tag("announce", { xmlns = xml.xmlns }):up());
	end

	-- Records live as long as this process and its sessions do, here and nowhere else.
	function performers.consent_changed() end

	function perform(actions, origin, payloads, iq)
		for i = 1, #actions do
			local action = actions[i];
			local ok, err = pcall(performers[action[1]], action, origin, payloads, iq);
			if not ok then report_error("carry out " .. action[1], err); end
		end
		if actions.wake then arm(actions.wake); end
	end

	--- Hooks

	-- The bare JID of a room that has really sent this over a server stream, or nil: local clients
	-- reach these hooks too.
	local function room_of(event_data)
		-- The events of the host are also those of its resources.
		if event_data.stanza.attr.to ~= module.host then return; end
		local from = event_data.stanza.attr.from;
		local domain = from and s_match(from, "^[^@/]+@([^@/]+)$");
		if domain and is_from_server(event_data.origin, domain) then return from; end
	end

	-- The room's server does not know the link that was asked about.
	local function returned(event_data)
		local id = event_data.stanza.attr.id;
		local room = not broken and id and native.is_question_id(id) and room_of(event_data);
		if not room then return; end
		local ok, actions = pcall(replica.returned, replica, now(), room, id);
		if not ok then
			break_off(actions);
			return;
		end
		perform(actions);
		return true;
	end

	-- A cast of a room that has trees. It goes on to others as it came, before it is made fit for those here.
	local function take_cast(from, element, lang, origin)
		local passed_on, text = st.clone(element), xml.carried(element);
		local _, described = xml.open_one(element, lang, pack, true);
		local ok, actions = pcall(replica.cast, replica, now(), from, element, described, text);
		if not ok then return break_off(actions); end
		for _, domain in ipairs(actions.relays or {}) do
			if neighbours[domain] then
				neighbours[domain](module.host, st.clone(passed_on), lang, origin);
			else
				module:send(st.message({ from = module.host, to = domain, id = new_id() }):add_child(st.clone(passed_on)));
			end
		end
		perform(actions, origin);
	end

	-- Another host of this server has no stream that it could come over.
	neighbours[module.host] = function (from, element, lang, origin)
		module:add_timer(0, function ()
			if not broken and neighbours[module.host] then take_cast(from, element, lang, origin); end
		end);
	end;

	-- From the room or from another replica.
	local function relayed(event_data, element)
		local stanza, origin = event_data.stanza, event_data.origin;
		local from, to = stanza.attr.from, stanza.attr.to;
		local domain = from and (s_match(from, "^[^@/]+$") or s_match(from, "^[^@/]+@([^@/]+)$"));
		if to ~= module.host or not domain or not is_from_server(origin, domain) then return; end
		take_cast(from, element, stanza.attr["xml:lang"], origin);
		return true;
	end

	-- Elements that only a room sends.
	local from_room = { envelope = true, newest = true, resume = true };

	module:hook("message/host", function (event_data)
		local stanza = event_data.stanza;
		if stanza.attr.type == "error" then return returned(event_data); end
		local envelope = stanza:get_child(nil, xml.xmlns);
		if not envelope or broken or (stanza.attr.type or "normal") ~= "normal" then return; end
		if envelope.name == "relayed" then return relayed(event_data, envelope); end
		if not from_room[envelope.name] then return; end
		local room = room_of(event_data);
		if not room then return; end
		local payloads, described = xml.open(envelope, stanza.attr["xml:lang"], pack);
		local ok, actions = pcall(replica.envelope, replica, now(), room, stanza.attr.id or "", envelope, described);
		if not ok then
			break_off(actions);
			return; -- mod_message's answer tells the room that the envelope was not taken
		end
		perform(actions, event_data.origin, payloads);
		return true;
	end, 1000);

	module:hook("iq-set/host/" .. xml.xmlns .. ":link", function (event_data)
		local stanza = event_data.stanza;
		if broken then return; end
		local room = room_of(event_data);
		if not room then return; end
		local ok, actions = pcall(replica.setup, replica, now(), room, stanza:get_child("link", xml.xmlns));
		if not ok then
			break_off(actions);
			return;
		end
		perform(actions, event_data.origin, nil, stanza);
		return true;
	end, 1000);

	-- A session's presence to a remote JID: a join, a leave, or neither. After other modules, which may
	-- have rejected it.
	local function outgoing(event_data)
		local stanza, session = event_data.stanza, event_data.origin.full_jid;
		local to = stanza.attr.to;
		if broken or not session or not to then return; end
		local domain = s_match(to, "^[^@/]+@([^/]+)");
		if not domain or hosts[domain] then return; end
		local ok, err = pcall(function ()
			replica:outgoing(now(), session, to, xml.facts(stanza));
		end);
		if not ok then break_off(err); end
	end
	module:hook("pre-presence/full", outgoing, -1000);
	module:hook("pre-presence/bare", outgoing, -1000);

	-- A plain presence from a remote JID to a session may be the room's end of its stay.
	module:hook("presence/full", function (event_data)
		local stanza = event_data.stanza;
		if broken or delivering[stanza] then return; end
		local from = stanza.attr.from;
		local domain = from and s_match(from, "^[^@/]+@([^/]+)");
		if not domain or hosts[domain] then return; end
		if stanza.attr.type ~= "error" and not stanza:get_child("x", xmlns_muc_user) then return; end
		local ok, err = pcall(function ()
			replica:incoming(now(), stanza.attr.to, from, xml.facts(stanza));
		end);
		if not ok then break_off(err); end
	end, 1000);

	module:hook("resource-unbind", function (event_data)
		local session = event_data.session.full_jid;
		if broken or not session then return; end
		local ok, err = pcall(replica.session_closed, replica, now(), session);
		if not ok then break_off(err); end
	end, -1000);

	local role = {};

	--- Consent records of sessions that were there before the module. Those that it has left with them still
	-- hold for rooms that they have not left since; of others only directed presence is known: that may be
	-- to rooms, whose answers are still to be seen or will never come.
	local function rebuild()
		for jid, session in pairs(full_sessions) do
			if session.host == module.host then
				local kept = session.dmuc_consents or {};
				session.dmuc_consents = nil;
				for to in pairs(session.directed or {}) do
					local room, domain = s_match(to, "^([^@/]+@([^/]+))/");
					if kept[room] then
						replica:import_consent(now(), room, jid, kept[room]);
					elseif domain and not hosts[domain] then
						replica:outgoing(now(), jid, to, join_facts);
					end
				end
			end
		end
	end

	-- Nothing else lives as long as a session and no longer.
	local function leave_behind()
		for _, record in ipairs(replica:consents()) do
			local room, jid, opaque = record[1], record[2], record[3];
			local session = full_sessions[jid];
			if session then
				session.dmuc_consents = session.dmuc_consents or {};
				session.dmuc_consents[room] = opaque;
			end
		end
	end

	local function start_ticking()
		module:add_timer(idle_tick, function ()
			if broken then return; end
			arm(now());
			return idle_tick;
		end);
	end

	local function begin(fill)
		replica = core.native.replica(module.host, core.seed(), core.shared);
		local ok, err = pcall(function ()
			fill();
			perform(replica:announce(now()));
		end);
		if not ok then return break_off(err); end
		start_ticking();
	end

	function role.start() begin(rebuild); end

	function role.unload()
		neighbours[module.host] = nil;
		stop_writing();
	end

	function role.stop()
		if broken then return; end
		local ok, actions = pcall(replica.close, replica, now());
		if not ok then return break_off(actions); end
		perform(actions);
		leave_behind();
	end

	function role.save()
		return { replica = not broken and replica or nil, wake = wake, handled = handled, stop = role.stop };
	end

	function role.restore(saved)
		if not saved.replica then return role.start(); end
		replica, handled = saved.replica, saved.handled;
		if saved.wake then arm(saved.wake); end
		start_ticking();
	end

	function role.replace(saved)
		local old = saved and saved.replica;
		if not old then return role.start(); end
		local ok, actions = pcall(old.close, old, now());
		if ok then perform(actions); end
		begin(function ()
			for _, record in ipairs(old:consents()) do
				replica:import_consent(now(), record[1], record[2], record[3]);
			end
		end);
	end

	--- Something may be due under them.
	function role.options_changed() if not broken then arm(now()); end end

	--- Rows for the operator.
	function role.links()
		if broken then return {}; end
		return replica:links(now());
	end

	return role;
end
