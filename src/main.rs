//! The program `cursus`: reads its settings, starts the runtime and runs the requested task. The library does
//! everything else.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use cursus::config::{self, Task};
use cursus::{app, cli, http, telemetry};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Time that calls of the system without a deadline get to end, such as a look-up of a name or a read of a file that a
/// network drive does not answer.
const CALLS_WITHIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let task = match cli::parse() {
        Ok(cli::Task::Node(task)) => *task,
        Ok(cli::Task::Client(call)) => return client(call),
        Err(config::Error::Args(err)) => err.exit(),
        Err(err) => {
            telemetry::say(&format!("error: {err}"));
            return ExitCode::from(2);
        }
    };
    let ended = match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            telemetry::say(&format!("error: {err}"));
            ExitCode::FAILURE
        }
    };
    telemetry::flush();
    ended
}

/// Runs a command of the client. One thread is enough for it, and leaves the other cores to a node on the same machine.
fn client(call: cli::Call) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (code, text) = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(cli::run(call));
            runtime.shutdown_timeout(CALLS_WITHIN);
            ended
        }
        Err(error) => (1, Some(error.to_string())),
    };
    if let Some(text) = text {
        telemetry::say(&format!("error: {text}"));
        telemetry::flush();
    }
    ExitCode::from(code)
}

fn run(task: Task) -> Result<(), app::Error> {
    match task {
        Task::Serve(config) => {
            telemetry::init(&config.logging);
            block_on(config.tuning.worker_threads, app::run(config))
        }
        Task::ShowConfig(table) => show(&table),
        Task::Health(config) => {
            let said = block_on(1, app::health(&config))?;
            show(&format!("{said}\n"))
        }
        Task::Keys {
            config,
            tenant,
            task,
        } => {
            if let Some(note) = app::note_on_keys(&config, &task) {
                telemetry::say(&format!("note: {note}"));
            }
            let done = block_on(1, app::manage_keys(config, &tenant, &task))?;
            Ok(print(&format!("{done}\n"))?)
        }
        Task::PrintOpenapi => show(&http::openapi_text()),
    }
}

/// Writes a text to standard output. A reader that has seen enough of it and left is no error.
fn show(text: &str) -> Result<(), app::Error> {
    match print(text) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => Err(err.into()),
        _ => Ok(()),
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn block_on<T>(
    threads: u32,
    work: impl Future<Output = Result<T, app::Error>>,
) -> Result<T, app::Error> {
    let threads = usize::try_from(threads)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // Dropping it would wait for such a call without limit.
    runtime.shutdown_timeout(CALLS_WITHIN);
    done
}
