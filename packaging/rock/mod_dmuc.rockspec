-- `cargo xtask package` fills in the version and puts the files beside this one.
rockspec_format = "3.0"
package = "mod_dmuc"
version = "@VERSION@-1"
source = { url = "file://mod_dmuc-@VERSION@" }
description = {
	summary = "Room traffic crosses a server-to-server link once for all occupants behind it",
	license = "MIT",
}
-- The library is for this one.
dependencies = { "lua ~> 5.4" }
supported_platforms = { "linux" }
build = {
	type = "none",
	install = {
		lua = {
			["mod_dmuc"] = "mod_dmuc/mod_dmuc.lua",
			["mod_http_dmuc"] = "mod_http_dmuc/mod_http_dmuc.lua",
@MODULES@
		},
		lib = { dmuc_native = "dmuc_native.so" },
	},
}
