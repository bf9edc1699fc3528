-- Needs the native library on LUA_CPATH.

describe("the README", function ()
	it("names every option with the core's default and range", function ()
		local ok, native = pcall(require, "dmuc_native");
		if not ok then return pending("dmuc_native.so is not on LUA_CPATH"); end
		local readme = assert(io.open("mod_dmuc/README.md")):read("a");
		local documented = 0;
		for _, option in ipairs(native.options()) do
			local row = readme:match("\n(| `dmuc_" .. option.name .. "` [^\n]*)");
			assert.is_string(row, option.name .. " is missing");
			local default, min, max, unit, doc = row:match("|[^|]*| ([%d.]+) +| ([%d.]+) to ([%d.]+)( ?s?) +| (.-) |$");
			local function value(text)
				return option.time and tonumber(text) * 1000 or tonumber(text);
			end
			assert.equal(option.time, unit == " s", option.name);
			assert.same({ option.default, option.min, option.max, option.doc },
				{ value(default), value(min), value(max), doc }, option.name);
			documented = documented + 1;
		end
		local _, rows = readme:gsub("\n| `dmuc_", "");
		assert.equal(documented, rows);
	end);
end);
