//! Chromium without a screen. It draws a page in a time of its own, until nothing is left to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::process;
use tokio::process::Command;

/// A screen.
#[derive(Clone, Copy)]
pub struct Screen {
    pub name: &'static str,
    width: u32,
    height: u32,
    dark: bool,
}

pub const DESK: Screen = Screen { name: "desk", width: 1280, height: 1100, dark: false };
pub const NIGHT: Screen = Screen { name: "night", width: 1280, height: 1100, dark: true };
pub const TABLET: Screen = Screen { name: "tablet", width: 900, height: 1100, dark: false };
pub const PHONE: Screen = Screen { name: "phone", width: 360, height: 800, dark: false };
pub const PHONE_NIGHT: Screen = Screen { name: "phone-night", width: 360, height: 800, dark: true };

/// Chromium with a profile of its own.
pub struct Browser {
    profile: PathBuf,
    /// Names that lead to an address.
    names: String,
}

impl Browser {
    /// With its profile in this directory; a name that leads to an address.
    pub fn new(dir: &Path, name: &str, address: &str) -> Self {
        Browser { profile: dir.join("chromium"), names: format!("MAP {name} {address}") }
    }

    /// The page as elements when all is drawn, as text.
    pub async fn elements(&self, url: &str, screen: Screen) -> Result<String> {
        self.run(url, screen, "--dump-dom").await
    }

    /// A picture of the page, beside the other files of the laboratory or in `$DMUC_PICTURES`, to be looked
    /// at.
    pub async fn picture(&self, url: &str, screen: Screen, name: &str) -> Result<()> {
        let dir = std::env::var("DMUC_PICTURES").map(PathBuf::from).unwrap_or_default();
        let dir = if dir.as_os_str().is_empty() { self.profile.with_file_name("") } else { dir };
        let file = dir.join(format!("{name}-{}.png", screen.name));
        self.run(url, screen, &format!("--screenshot={}", file.display())).await?;
        let picture = std::fs::read(&file).with_context(|| format!("no {}", file.display()))?;
        ensure!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "an empty picture");
        Ok(())
    }

    async fn run(&self, url: &str, screen: Screen, task: &str) -> Result<String> {
        let mut command = Command::new("chromium");
        command
            // What it draws is ours, and it may be run by root.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", self.profile.display()))
            .arg(format!("--host-resolver-rules={}", self.names))
            .arg(format!("--window-size={},{}", screen.width, screen.height))
            .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!screen.dark)))
            .arg("--virtual-time-budget=6000")
            .args([task, url])
            .env("HOME", &self.profile);
        process::output(command, "", Duration::from_secs(60)).await
    }
}
