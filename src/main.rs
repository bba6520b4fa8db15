//! The program: arguments in, exit code out.

use clap::Parser as _;
use ddpm_film::cli::{self, Cli};
use ddpm_film::error::Kind;
use ddpm_film::kernels::allocator::{Allocator, keep_freed_pages};
use std::io::Write as _;
use std::process::ExitCode;

// Fresh pages from the system allocator cost more than the mathematics on them.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    keep_freed_pages();
    ddpm_film::kernels::threads::keep_candle_on_the_calling_thread();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { 2 } else { 0 };
            return if e.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,ddpm_film=info"))
        .format_timestamp(None)
        .format_target(false)
        .init();
    match cli::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // nobody may be listening
            writeln!(std::io::stderr(), "error: {e}").ok();
            ExitCode::from(match e.kind {
                Kind::Failed | Kind::Diverged => 1,
                Kind::Usage => 2,
                Kind::Cancelled => 130,
            })
        }
    }
}
