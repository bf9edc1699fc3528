-- mod_dmuc: what the rooms of this server have to say to many users of another one crosses the link
-- once. To enable it, put "dmuc" into modules_enabled of the VirtualHosts whose users are in rooms
-- elsewhere, and of the MUC components that have rooms; a component takes over none of the modules
-- of the global section. Then systemctl restart prosody. With "http_dmuc" as well on a VirtualHost its
-- admins see the links at https://example.com:5281/dmuc/.

VirtualHost "example.com"
	modules_enabled = { "dmuc" }

Component "conference.example.com" "muc"
	modules_enabled = { "dmuc" }
