//! `ddpm-film watch`.

use super::Machine;
use crate::engine::{Error, Result, Watch};
use crate::ui;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// Folder of a run, or any folder of TensorBoard event files; it is only read
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print the newest numbers and end, as without a display
    #[arg(long)]
    once: bool,
}

pub(super) fn run(args: &WatchArgs, machine: &Machine) -> Result<()> {
    let mut watch = Watch::open(&args.path)?;
    if !args.once && ui::has_display() {
        return super::window(machine, Some(args.path.clone()));
    }
    while watch.look().1 {}
    let seen = watch.watched();
    let problems: Vec<String> = seen.problems.iter().map(|problem| plain(problem)).collect();
    if seen.runs.is_empty() {
        let why = problems.first().map_or("there are no TensorBoard event files in it", String::as_str);
        return Err(Error::new("cannot watch this run", why, "name the folder of a run").at(&args.path));
    }
    problems.iter().for_each(|problem| log::warn!("{problem}"));
    for run in &seen.runs {
        say!("{}", plain(&run.name));
        let scalars: Vec<_> = run.scalars.iter().map(|(tag, series)| (plain(tag), series)).collect();
        let width = scalars.iter().map(|(tag, _)| tag.chars().count()).max().unwrap_or(0);
        for (tag, series) in scalars {
            if let Some((step, value)) = series.points().last() {
                say!("  {tag:width$}  {value:<12}  step {step}");
            }
        }
    }
    Ok(())
}

/// What others wrote, as one line that moves no cursor.
fn plain(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}
