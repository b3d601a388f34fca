//! The program `cursus`: reads its settings, starts the runtime and runs the requested task. The library does
//! everything else.

use std::process::ExitCode;

use cursus::config::{self, Task};
use cursus::{app, http, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let task = match config::parse() {
        Ok(task) => task,
        Err(config::Error::Args(err)) => err.exit(),
        Err(err) => {
            eprintln!("error: {err}");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), app::Error> {
    match task {
        Task::Serve(config) => {
            telemetry::init(&config.logging);
            block_on(config.tuning.worker_threads, app::run(config))
        }
        Task::ShowConfig(table) => {
            print!("{table}");
            Ok(())
        }
        Task::CreateKey {
            config,
            tenant,
            settings,
        } => {
            let created = app::create_key(config, &tenant, &settings);
            println!("{}", block_on(1, created)?);
            Ok(())
        }
        Task::PrintOpenapi => {
            print!("{}", http::openapi_text());
            Ok(())
        }
    }
}

fn block_on<T>(
    threads: u32,
    work: impl Future<Output = Result<T, app::Error>>,
) -> Result<T, app::Error> {
    let threads = usize::try_from(threads)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(work)
}
