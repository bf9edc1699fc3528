//! Who is in a room, as its server says.

use anyhow::Result;
use dmuc_testkit::{Kind, Server};

/// Full addresses of all sessions in a room, read from the room itself: to a question of disco it
/// would answer with nicks.
pub async fn occupants(server: &Server, room: &str) -> Result<Vec<String>> {
    let name = room.split('@').next().unwrap_or_default();
    let text = match server.kind() {
        Kind::Ejabberd => {
            let call = format!(
                "lists:join(<<\" \">>, [element(1, O) || O <- \
                 mod_muc_admin:get_room_occupants(<<\"{name}\">>, <<\"{}\">>)])",
                server.muc()
            );
            server.eval(&format!("iolist_to_binary({call})")).await?
        }
        Kind::Prosody => {
            // The shell prints what the last expression is.
            let call = format!(
                "> (function () local t = {{}}; local room = \
                 prosody.hosts[\"{}\"].modules.muc.get_room_from_jid(\"{room}\"); \
                 for _, o in room:each_occupant() do for jid in o:each_session() do \
                 t[#t + 1] = jid; end end return table.concat(t, \" \"); end)()",
                server.muc()
            );
            server.shell(&call).await?
        }
    };
    let outer = |c: char| !c.is_ascii_alphanumeric();
    let words = text.split_whitespace().map(|word| word.trim_matches(outer));
    Ok(words.filter(|word| word.contains('@')).map(str::to_owned).collect())
}
