//! The commands, one file each, and which of them runs.

use crate::arguments::{Arguments, Command};
use crate::failure::{Failure, Verdict};

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod consumer;
pub(crate) mod context;
pub(crate) mod demo;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod policy;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod subscribe;

/// Runs what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<Verdict, Failure> {
    let connection = arguments.connection;
    match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Identity(command) => identity::run(&command, &connection),
        Command::Context(command) => context::run(&command, &connection),
        Command::Publish(arguments) => block_on(publish::run(&arguments, &connection)),
        Command::Subscribe(arguments) => block_on(subscribe::run(&arguments, &connection)),
        Command::Policy(command) => policy::run(&command, &connection),
        Command::Replay(arguments) => block_on(replay::run(&arguments, &connection)),
        Command::Consume(arguments) => block_on(consume::run(&arguments, &connection)),
        Command::Stream(command) => stream::run(&command, &connection),
        Command::Consumer(command) => block_on(consumer::run(&command, &connection)),
        Command::Stats(arguments) => block_on(stats::run(&arguments, &connection)),
        Command::Audit(command) => block_on(audit::run(&command, &connection)),
        Command::Bench(command) => bench::run(&command),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// Runs an asynchronous command to its end. What it leaves behind on other threads is not waited for.
pub(crate) fn block_on<F>(command: F) -> Result<Verdict, Failure>
where
    F: Future<Output = Result<Verdict, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("start the runtime", error))?;
    // Boxed: a command's future holds its whole state, and stacks are small.
    let verdict = runtime.block_on(Box::pin(command));
    runtime.shutdown_background();
    verdict
}
