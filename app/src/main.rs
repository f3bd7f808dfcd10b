//! The `kinora` command.

mod cli;
mod commands;
mod embedded;
mod engines;
mod failure;
#[cfg(feature = "gui")]
mod gui;
mod output;
mod progress;
mod session;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::failure::{Kind, Outcome};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked_for_it = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked_for_it { 0 } else { Kind::Usage.code() });
        }
    };
    start_log(cli.verbose);
    failure::install_diagnostics();
    install_panic_message();
    // A command in a message is to be copied whole; the terminal breaks long lines where it likes.
    let _ =
        miette::set_hook(Box::new(|_| Box::new(miette::MietteHandlerOpts::new().wrap_lines(false).build())));
    match std::panic::catch_unwind(|| dispatch(cli.command)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            use std::io::Write as _;
            let _ = std::io::stderr().lock().write_all(failure.render().as_bytes());
            ExitCode::from(failure.kind.code())
        }
        Err(_) => ExitCode::from(Kind::Bug.code()),
    }
}

#[cfg(feature = "gui")]
fn dispatch(command: Option<Command>) -> Outcome {
    match command {
        Some(command) => perform(command),
        None if gui::has_display() => gui::open(None, None),
        None => {
            let help = <Cli as clap::CommandFactory>::command().render_help();
            Err(failure::Failure::message(
                Kind::Usage,
                format!("no command given, and no display for a window\n\n{help}"),
            ))
        }
    }
}

#[cfg(not(feature = "gui"))]
fn dispatch(command: Command) -> Outcome {
    perform(command)
}

fn perform(command: Command) -> Outcome {
    match command {
        #[cfg(feature = "gui")]
        Command::Open(args) => gui::open(args.file.as_deref(), args.measure),
        Command::Render(args) => commands::render::run(&args),
        Command::Animate(args) => commands::animate::run(&args),
        Command::Validate(args) => commands::validate::run(&args),
        Command::Schema => commands::schema::run(),
        Command::Models(command) => commands::models::run(&command),
        Command::Eval(command) => commands::eval::run(&command),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
    }
}

/// `KINORA_LOG` (the usual filter syntax) wins over `-v`.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("KINORA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}

fn install_panic_message() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        tracing::error!(
            "this is a bug in Kinora, not in your input; please report it with the document and the lines above"
        );
    }));
}
