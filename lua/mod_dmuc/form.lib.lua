-- What owners say in the configuration forms of rooms (XEP-0045 section 10.2): whether servers of occupants
-- may learn of each other. It is kept with the rest of a room's configuration.

local function may_show_domains(room)
	return room._data.dmuc_show_domains == true;
end

-- `asks` says whether owners are asked, `said` is called with a room and what its owner has said.
local function hook(native, asks, said)
	-- At the end of the last section that Prosody's own form has.
	module:hook("muc-config-form", function (event)
		if not asks() then return; end
		table.insert(event.form, {
			name = native.owner_field;
			type = "boolean";
			label = native.owner_label;
			value = may_show_domains(event.room);
		});
	end, 1);

	module:hook("muc-config-submitted/" .. native.owner_field, function (event)
		local room, value = event.room, event.value;
		-- Without one it cannot be read, which Prosody tells nobody.
		if value == nil or value == may_show_domains(room) then return; end
		room._data.dmuc_show_domains = value or nil;
		event.status_codes["104"] = true;
		said(room, value);
	end);
end

return { may_show_domains = may_show_domains, hook = hook };
