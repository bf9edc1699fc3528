//! The packages as an operator meets them: installed into a clean Debian, enabled, upgraded in
//! mid-chat, and purged.

mod people;
mod root;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Kind, Lab, Server, ServerSpec};

use self::people::People;
use self::root::Root;
use crate::operations::seen::Metrics;
use crate::page::seen::Page;
use crate::page::web::basic;
use crate::runner::Suite;

/// A release and its packages, by `$DMUC_PACKAGES`: `name:root:packages:newer`.
#[derive(Clone)]
struct Release {
    name: String,
    root: PathBuf,
    packages: PathBuf,
    newer: PathBuf,
}

/// Names of the Debian packages.
const PACKAGES: [&str; 2] = ["ejabberd-mod-dmuc", "prosody-mod-dmuc"];

/// How ejabberd is configured by an example of its package, and where.
const EXAMPLE: &str = "usr/share/doc/ejabberd-mod-dmuc/examples/mod_dmuc.yml";
const MODULES_D: &str = "etc/ejabberd/modules.d/mod_dmuc.yml";

pub fn suite() -> Suite {
    let told = std::env::var("DMUC_PACKAGES").unwrap_or_default();
    let releases = told.split(',').filter_map(|text| {
        let mut parts = text.split(':');
        let mut next = || parts.next();
        let (name, root) = (next()?.to_owned(), next()?.into());
        Some(Release { name, root, packages: next()?.into(), newer: next()?.into() })
    });
    let mut suite = Suite::new("packages");
    let mut none = true;
    for release in releases {
        none = false;
        let (debian, modules) = (release.clone(), release.clone());
        suite = suite
            .case(format!("{} debian", release.name), move || installed(debian.clone()))
            .case(format!("{} contrib and rock", release.name), move || added(modules.clone()));
    }
    if none {
        suite = suite.case("built", || async { anyhow::bail!("run this through cargo xtask") });
    }
    suite
}

/// An ejabberd and a Prosody as the packages of a release start them.
async fn lab(name: &str, release: &Release, root: &Root) -> Result<Lab> {
    Lab::builder(&format!("packages-{name}-{}", release.name))
        .server(ServerSpec::ejabberd("a").installed(root.path()).http())
        .server(ServerSpec::prosody("b").installed(root.path()).http())
        .wire("a", "b")
        .start()
        .await
}

/// The Debian packages from the first installation to the purge.
async fn installed(release: Release) -> Result<()> {
    let root = Root::copy(&release.root, &format!("{}-debian", release.name))?;
    let clean = root.files()?;
    root.dpkg("--install", &release.packages, &["."]).await?;
    let lab = lab("debian", &release, &root).await?;
    let outcome = live(&lab, &release, &root).await;
    lab.finish(outcome).await?;
    root.is_as(&clean)?;
    root.delete()
}

async fn live(lab: &Lab, release: &Release, root: &Root) -> Result<()> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    for server in [a, b] {
        ensure!(!server.has_dmuc().await?, "{} has dmuc, and nobody enabled it", server.kind());
    }
    restart(lab, true).await?;
    let people = People::gather(lab, "before").await?;
    people.linked(lab).await?;
    for server in [a, b] {
        as_packaged(server, root, "0.1.0")?;
    }

    let unloaded =
        "[M || {M, _, false} <- code:all_available(), string:prefix(M, \"mod_dmuc\") =/= nomatch]";
    let unloaded = a.eval(unloaded).await?;
    ensure!(unloaded == "[]", "after an upgrade ejabberd would look in vain for {unloaded}");

    let pids = (a.pid().await?, b.pid().await?);
    let upgrade = async {
        people.seen(lab).await?;
        for server in [a, b] {
            let metrics = Metrics::of(server).await?;
            metrics.has("links", 1..=1)?;
            metrics.has("links_served", 1..=1)?;
        }
        root.dpkg("--install", &release.newer, &["."]).await?;
        // The directories of the loaded version are gone by now.
        a.run_beside("ejabberdctl", &["reload_config"]).await?;
        b.shell("config:reload()").await.map(drop)
    };
    people.talk_during(lab, upgrade).await.context("during the upgrade")?;
    ensure!(pids == (a.pid().await?, b.pid().await?) && a.is_running().await, "restarted");
    drop(people);

    // This time by the example that comes with the package.
    root.copy_inside(EXAMPLE, MODULES_D)?;
    a.restart_with_dmuc(false).await?;
    b.restart_with_dmuc(true).await?;
    let people = People::gather(lab, "upgraded").await?;
    people.linked(lab).await?;
    for server in [a, b] {
        as_packaged(server, root, "9.9.9")?;
    }
    let purge = async {
        people.seen(lab).await?;
        root.dpkg("--purge", &release.newer, &PACKAGES).await
    };
    people.talk_during(lab, purge).await.context("during the purge")?;
    drop(people);

    root.remove(MODULES_D)?;
    restart(lab, false).await?;
    People::gather(lab, "after").await?.plainly(lab).await?;
    for server in [a, b] {
        let page = Page::of(server).get("", &[basic("admin", "admin")]).await?;
        ensure!(page.status == 404, "there is a page: {page:?}");
        server.stop().await?;
    }
    Ok(())
}

/// The modules as the servers' own means install them, and remove them again.
async fn added(release: Release) -> Result<()> {
    let root = Root::copy(&release.root, &format!("{}-modules", release.name))?;
    let lab = lab("modules", &release, &root).await?;
    let outcome = add(&lab, &root).await;
    lab.finish(outcome).await?;
    root.delete()
}

async fn add(lab: &Lab, root: &Root) -> Result<()> {
    let files = std::env::var("DMUC_MODULES").unwrap_or_default();
    let (contrib, rock) = files.split_once(':').context("no DMUC_MODULES")?;
    let (a, b) = (lab.server("a"), lab.server("b"));
    root.unpack(Path::new(contrib), "var/lib/ejabberd/.ejabberd-modules/sources", "ejabberd")?;
    let said = a.run_beside("ejabberdctl", &["module_install", "mod_dmuc"]).await?;
    ensure!(a.has_dmuc().await?, "module_install: {said}");
    let rock = root.take(Path::new(rock))?;
    let said = b.run_beside("prosodyctl", &["install", &rock]).await?;
    b.restart_with_dmuc(true).await.with_context(|| format!("prosodyctl install: {said}"))?;
    let people = People::gather(lab, "added").await?;
    people.linked(lab).await?;
    people.talk_during(lab, people.seen(lab)).await?;
    drop(people);

    let said = a.run_beside("ejabberdctl", &["module_uninstall", "mod_dmuc"]).await?;
    ensure!(!a.has_dmuc().await?, "module_uninstall: {said}");
    b.restart_with_dmuc(false).await?;
    b.run_beside("prosodyctl", &["remove", "mod_dmuc"]).await?;
    People::gather(lab, "removed").await?.plainly(lab).await?;
    for server in [a, b] {
        server.stop().await?;
    }
    Ok(())
}

/// Both servers, as an operator would after a change of the configuration.
async fn restart(lab: &Lab, dmuc: bool) -> Result<()> {
    for server in lab.servers() {
        server.restart_with_dmuc(dmuc).await?;
    }
    Ok(())
}

/// The server is its own user's, and the library that it has loaded is the package's.
fn as_packaged(server: &Server, root: &Root, version: &str) -> Result<()> {
    let (library, owner) = match server.kind() {
        Kind::Ejabberd => {
            (format!("usr/lib/erlang/lib/mod_dmuc-{version}/priv/lib/mod_dmuc.so"), "ejabberd")
        }
        Kind::Prosody => ("lua/5.4/dmuc_native.so".into(), "prosody"),
    };
    let owners = root.owners_mapping(&library)?;
    let expected = root.uid(owner)?;
    ensure!(owners == [expected], "{library} is mapped by processes of {owners:?}, not {expected}");
    root.profile_allows(&library)
}
