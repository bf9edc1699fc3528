//! What docs/operations.md says exists, and is as it says.

use std::fs;
use std::path::{Path, PathBuf};

use dmuc_core::view::LinkRow;
use dmuc_core::{Config, Shared, Unit};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn operations() -> String {
    fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md")
}

/// Everything that may log or answer, with text that is broken over lines put together.
fn sources() -> Vec<String> {
    let dirs = [
        "native/core/src",
        "native/nif/src",
        "native/lua/src",
        "erlang/src",
        "lua/mod_dmuc",
        "lua/mod_http_dmuc",
    ];
    let mut sources = Vec::new();
    let mut dirs: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                sources.push(joined(&text));
            }
        }
    }
    sources
}

/// Without the ends of lines inside of a text: Rust's `\`, Erlang's `" "`, Lua's `" .. "`.
fn joined(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        if out.ends_with('\\') {
            out.pop();
        } else if out.ends_with('"') && line.starts_with('"') {
            out.pop();
            out.push_str(&line[1..]);
            continue;
        } else if out.ends_with('"') && line.starts_with(".. \"") {
            out.pop();
            out.push_str(&line[4..]);
            continue;
        } else {
            out.push('\n');
        }
        out.push_str(line);
    }
    out
}

/// The code spans of the document, without blocks; a span may go over the end of a line.
fn spans(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line.trim_start());
            prose.push(if line.is_empty() { '\n' } else { ' ' });
        }
    }
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the table that begins with this line, as cells.
fn rows<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, table) = text.split_once(head).expect("the table");
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_option_is_there_with_its_default_and_range() {
    let text = operations();
    let rows = rows(&text, "| Option | Default | Range |");
    assert_eq!(rows.len(), Config::OPTIONS.len());
    for (row, option) in rows.iter().zip(Config::OPTIONS) {
        let unit = match option.unit {
            Unit::Count => "",
            Unit::Bytes => "bytes",
            Unit::Millis => "ms",
        };
        let range = format!("{} to {}", option.min, option.max);
        let name = format!("`{}`", option.name);
        let default = option.default.to_string();
        assert_eq!(row[..5], [&name, &default, &range, unit, option.doc.trim()], "{name}");
        assert!(["at once", "new links", "new trees"].contains(&row[6]), "{name}: {}", row[6]);
        assert!(row[7].ends_with('.'), "{name}: {}", row[7]);
    }
}

#[test]
fn every_column_is_there_with_its_meaning() {
    let text = operations();
    let rows = rows(&text, "| Name | Meaning |");
    assert_eq!(rows.len(), LinkRow::COLUMNS.len());
    for (row, column) in rows.iter().zip(LinkRow::COLUMNS) {
        let shown = if column.shown { "" } else { " (not in the table)" };
        assert_eq!(row[..], [&format!("`{}`{shown}", column.name), column.doc.trim()]);
    }
}

#[test]
fn every_metric_is_there_with_its_meaning() {
    let shared = Shared::new(Config::default());
    let text = operations();
    let counters = shared.counters.described();
    let of_counters = counters.iter().map(|(name, doc, _)| (format!("`{name}_total`"), *doc));
    let gauges = shared.gauges();
    let of_gauges = gauges.iter().map(|(name, doc, _)| (format!("`{name}`"), *doc));
    for (head, all) in [
        ("| Counter | Meaning |", of_counters.collect::<Vec<_>>()),
        ("| Gauge | Meaning |", of_gauges.collect()),
    ] {
        let rows = rows(&text, head);
        assert_eq!(rows.len(), all.len(), "{head}");
        for (row, (name, doc)) in rows.iter().zip(&all) {
            assert_eq!(row[..], [name, doc.trim()]);
        }
    }
    // Those that are named elsewhere, as the servers call them.
    for span in spans(&text) {
        let name = span.trim_start_matches("prosody_mod_dmuc__").trim_start_matches("dmuc_");
        if let Some(counter) = name.strip_suffix("_total").filter(|counter| !counter.is_empty()) {
            let option = Config::OPTIONS.iter().any(|option| option.name == name);
            assert!(
                option || counters.iter().any(|(known, ..)| *known == counter),
                "no metric {span}"
            );
        }
    }
}

#[test]
fn every_command_is_one() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a source");
    let (erlang, lua) = (read("erlang/src/mod_dmuc.erl"), read("lua/mod_dmuc/shell.lib.lua"));
    let mut named = [0, 0];
    let text = operations() + &read("README.md") + &read("lua/mod_dmuc/README.md");
    for span in text.split(['`', '\'', '\n']) {
        if let Some(rest) = span.strip_prefix("ejabberdctl dmuc_") {
            let name = rest.split(' ').next().unwrap_or_default();
            assert!(erlang.contains(&format!("name = dmuc_{name},")), "no command {span}");
            named[0] += 1;
        } else if let Some(rest) = span.strip_prefix("dmuc:") {
            let name = rest.split('(').next().unwrap_or_default();
            assert!(lua.contains(&format!("sections.{name} = ")), "no command {span}");
            named[1] += 1;
        }
    }
    assert!(named[0] >= 5 && named[1] >= 5, "{named:?}");
    // And all of them are told.
    let text = operations();
    let after = |text: &str, mark: &str, end: char| -> Vec<String> {
        let names = text.split(mark).skip(1).filter_map(|rest| rest.split(end).next());
        names.map(str::to_owned).collect()
    };
    let (erlang, lua) = (after(&erlang, "name = dmuc_", ','), after(&lua, "sections.", ' '));
    assert!(erlang.len() >= 4 && lua.len() >= 4, "{erlang:?}, {lua:?}");
    for name in erlang {
        assert!(text.contains(&format!("`ejabberdctl dmuc_{name} ")), "dmuc_{name} is not told");
    }
    for name in lua {
        assert!(text.contains(&format!("`dmuc:{name}(")), "dmuc:{name}() is not told");
    }
}

/// What is quoted of logs, answers and reasons: each part between the placeholders stands in one source,
/// in this order.
#[test]
fn every_line_of_the_log_is_in_the_code() {
    let sources = sources();
    let mut quoted = 0;
    for span in spans(&operations()) {
        let is_line = span.contains('<') && span.contains(' ')
            || rows_of_reasons(&span)
            || span.starts_with("the ")
            || span.starts_with("an envelope");
        if !is_line {
            continue;
        }
        quoted += 1;
        let parts: Vec<&str> = parts(&span).filter(|part| part.trim().len() > 2).collect();
        let has = |source: &&String| {
            let mut rest = source.as_str();
            // Not in order only where two texts are put together.
            parts.iter().all(|part| match rest.find(part.trim()) {
                Some(at) => {
                    rest = &rest[at..];
                    true
                }
                None => source.contains(part.trim()),
            })
        };
        let anywhere = || parts.iter().all(|part| sources.iter().any(|s| s.contains(part.trim())));
        let found = sources.iter().any(|source| has(&source));
        assert!(found || span.contains(": <reason>") && anywhere(), "nothing logs {span:?}");
    }
    assert!(quoted >= 30, "{quoted}");
}

/// The other way round: what is logged at info and above stands in the document.
#[test]
fn every_line_of_the_code_is_told() {
    // How a line begins in each of the languages; its text is the next one in quotes.
    const CALLS: &[&str] = &[
        "log::info!(",
        "log::warn!(",
        "log::error!(",
        "?INFO_MSG(",
        "?NOTICE_MSG(",
        "?WARNING_MSG(",
        "?ERROR_MSG(",
        "?CRITICAL_MSG(",
        "module:log(\"info\", ",
        "module:log(\"warn\", ",
        "module:log(\"error\", ",
        "module:log_status(\"error\", ",
    ];
    let spans = spans(&operations());
    let mut lines = Vec::new();
    for source in sources() {
        for call in CALLS {
            for rest in source.split(call).skip(1) {
                let text = rest.split('"').nth(1).expect("a text");
                lines.push(fixed(text));
            }
        }
    }
    assert!(lines.len() >= 25, "{lines:?}");
    for parts in lines {
        let told = |span: &String| {
            let mut rest = span.as_str();
            parts.iter().all(|part| match rest.split_once(part.as_str()) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
        };
        // What only hands on is told where it comes from.
        assert!(parts.is_empty() || spans.iter().any(told), "{parts:?} is not told");
    }
}

/// What stays the same in a text for `format!`, `io_lib` or `string.format`, of its first line.
fn fixed(text: &str) -> Vec<String> {
    let text = text.split("~n").next().unwrap_or_default();
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' => {
                parts.push(String::new());
                chars.by_ref().find(|c| *c == '}');
            }
            '~' | '%' => {
                parts.push(String::new());
                chars.next_if_eq(&'t');
                chars.next();
            }
            c => parts.last_mut().expect("a part").push(c),
        }
    }
    let told = parts.iter().map(|part| part.trim_matches([' ', ':', '.']));
    told.filter(|part| part.len() > 1 && *part != "mod_dmuc").map(str::to_owned).collect()
}

#[test]
fn what_stays_the_same_in_a_text() {
    assert_eq!(fixed("{}: link with {name} is up: {} ms"), ["link with", "is up", "ms"]);
    assert_eq!(fixed("mod_dmuc: ~ts; it goes on. Told once:~n** ~ts"), ["; it goes on. Told once"]);
    assert_eq!(fixed("Unknown option '%s' in it"), ["Unknown option '", "' in it"]);
}

/// The core says why in phrases of plain words; it has no others, but those of `expect`.
#[test]
fn every_reason_is_told() {
    let text = operations();
    let spans = spans(&text);
    let mut reasons = 0;
    for dir in ["room", "replica"] {
        let dir = root().join("native/core/src").join(dir);
        for entry in fs::read_dir(dir).expect("sources") {
            let source = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
            let (code, _) = source.split_once("#[cfg(test)]\nmod ").unwrap_or((&source, ""));
            let lines = code.lines().filter(|line| {
                !["//", ".expect(", "assert", "log::debug"].iter().any(|mark| line.contains(mark))
            });
            for phrase in lines.flat_map(|line| line.split('"').skip(1).step_by(2)) {
                let words = |c: char| c.is_ascii_lowercase() || c == ' ' || c == '-';
                if phrase.trim() == phrase && phrase.contains(' ') && phrase.chars().all(words) {
                    reasons += 1;
                    assert!(spans.iter().any(|span| span == phrase), "{phrase:?} is not told");
                }
            }
        }
    }
    assert!(reasons >= 25, "{reasons}");
}

/// The reasons that stand in the table of those.
fn rows_of_reasons(span: &str) -> bool {
    let text = operations();
    let rows = rows(&text, "| `reason` begins with |");
    rows.iter().any(|row| row[0].contains(&format!("`{span}`")))
}

/// The text outside of `<placeholders>`.
fn parts(span: &str) -> impl Iterator<Item = &str> {
    span.split('<').enumerate().map(|(n, part)| match n {
        0 => part,
        _ => part.split_once('>').map_or("", |(_, rest)| rest),
    })
}

/// docs/adoption.md has no figures of its own: each row's stand in the document that it, or a row before it,
/// links to, and so do its commands.
#[test]
fn the_figures_for_adoption_are_those_of_the_others() {
    let docs = root().join("docs");
    let text = fs::read_to_string(docs.join("adoption.md")).expect("docs/adoption.md");
    let rows = rows(&text, "| | Without dmuc | With it | From |");
    assert!(rows.len() >= 10, "{}", rows.len());
    let mut source = String::new();
    for row in &rows {
        let [_, plain, dmuc, from] = row[..] else { panic!("{row:?}") };
        if let Some((_, link)) = from.split_once("](") {
            let file = link.split(['#', ')']).next().unwrap_or_default();
            source = fs::read_to_string(docs.join(file)).expect("the document");
            for command in from.split('`').skip(1).step_by(2) {
                let unbroken = source.replace('\n', " ");
                assert!(unbroken.contains(command), "{file} has no {command}");
            }
        }
        let figure = |figure: &str| {
            let digit = |c: char| c.is_ascii_digit() || c == '.';
            source.split(|c| !digit(c)).any(|known| known == figure)
        };
        assert!(figure(plain) && figure(dmuc), "not in its document: {row:?}");
    }
}
