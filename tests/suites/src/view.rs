//! What a server tells an operator of its links.

use anyhow::{Context, Result};
use dmuc_testkit::{Kind, Server};
use serde_json::{Map, Value};

/// A link as the core describes it.
pub type Link = Map<String, Value>;

/// All links of a server, as its commands give them to machines.
pub async fn links(server: &Server) -> Result<Vec<Link>> {
    let json = match server.kind() {
        // Rows as lists of the columns' values.
        Kind::Ejabberd => {
            let call = format!(
                "Names = [Name || {{Name, _, _}} <- mod_dmuc_nif:columns()], \
                 Quoted = fun(V) when is_integer(V) -> integer_to_list(V); \
                 (V) -> [$\", V, $\"] end, \
                 Object = fun(Row) -> [${{, lists:join($,, [[$\", N, $\", $:, Quoted(V)] || \
                 {{N, V}} <- lists:zip(Names, tuple_to_list(Row))]), $}}] end, \
                 base64:encode(iolist_to_binary([$[, lists:join($,, [Object(Row) || Row <- \
                 mod_dmuc:dmuc_links(<<\"{}\">>, <<\"all\">>)]), $]]))",
                server.domain()
            );
            let coded = server.eval(&call).await?;
            let coded = coded.split('"').nth(1).context("no binary")?;
            let json = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, coded)?;
            String::from_utf8(json)?
        }
        Kind::Prosody => {
            let printed = server.shell("dmuc:json()").await?;
            let line = printed.lines().find_map(|line| line.find('[').map(|at| &line[at..]));
            line.context("no list")?.trim_end().to_owned()
        }
    };
    serde_json::from_str(&json).with_context(|| format!("not readable: {json}"))
}
