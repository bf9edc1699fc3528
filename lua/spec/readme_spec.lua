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
			local default, min, max, doc = row:match("|[^|]*| (%d+) +| (%d+) to (%d+) +| (.-) |$");
			assert.same({ option.default, option.min, option.max, option.doc },
				{ tonumber(default), tonumber(min), tonumber(max), doc }, option.name);
			documented = documented + 1;
		end
		local _, rows = readme:gsub("\n| `dmuc_", "");
		assert.equal(documented, rows);
	end);
end);
