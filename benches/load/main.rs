//! The load bench: closed-loop clients over real HTTP against a node that this program starts, compared with a bare
//! axum echo in the same run. `cargo bench --bench load -- --help` lists its flags, `README.md` explains what is
//! measured. It uses a node only as a client does, and its Postgres only to count and to hold a transaction open. It
//! links nothing of the service, so it measures the binary that ships. Some scenarios compare with Redis Streams if
//! `redis-server` is in PATH.

mod args;
mod bodies;
mod client;
mod echo;
mod flow;
mod histogram;
mod machine;
mod node;
mod postgres;
mod probe;
mod redis;
mod report;
mod requests;
mod resp;
mod row;
mod run;
mod scenario;
mod sink;
mod unique;
mod wire;

use clap::Parser;

use crate::args::Args;

/// The echo and the client use the node's allocator, so that the allocator makes no difference.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Any failure ends the run with its message.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let args = Args::parse();
    if args.is_echo() {
        return echo::serve_until_stdin_closes();
    }
    let passed = runtime(args.client_threads)?.block_on(bench(args))?;
    if !passed {
        std::process::exit(1);
    }
    Ok(())
}

/// Two threads by default: with one, the client would limit the echo.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    }
    .worker_threads(threads.max(1))
    .enable_all()
    .build()
}

async fn bench(args: Args) -> Result<bool> {
    let mut report = report::Report::new(&args);
    if let Some(warning) = machine::warning(&args.directory)? {
        eprintln!("warning: {warning}");
        report.warnings.push(warning);
    }
    let context = scenario::Context::new(args).await?;
    for name in context.args.scenarios()? {
        eprintln!("{name} …");
        match scenario::run(&context, name).await {
            Ok(row) => report.add(row),
            Err(error) => report.add(row::Row::broken(name, &error.to_string())),
        }
    }
    report.postgres = context.postgres_settings();
    print!("{}", report.table());
    if let Some(path) = &context.args.json {
        std::fs::write(path, report.json()?)?;
    }
    Ok(report.passed())
}
