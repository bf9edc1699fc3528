-- `module` is Prosody's environment for modules; its fields load, unload, save and restore are set.
std = "lua54c"
max_line_length = 150
files["mod_dmuc/"] = { globals = { "module" }; read_globals = { "prosody" } }
files["spec/"] = { std = "+busted"; globals = { "module" } }
files["mod_http_dmuc/"] = { globals = { "module" }; read_globals = { "prosody" } }
