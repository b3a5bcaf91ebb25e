#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::process::ExitCode;

use everleaf_agent::health::Health;
use everleaf_agent::settings::{Command, HELP};
use everleaf_agent::{aws, fetch, say, watch};
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};

/// Keys pass through buffers of the SDK and of TLS too: whatever is freed is overwritten.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// For `health`, 1 is what a container's health check takes for ill.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the one place where the agent reads its environment")]
    let command = Command::parse(std::env::args().skip(1).collect(), |name| std::env::var(name).ok());
    match command {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(command) => match run(command).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                say(&why);
                ExitCode::from(FAILED)
            }
        },
        Err(faults) => {
            say(&format!("{faults} (see --help)"));
            ExitCode::from(MISUSED)
        }
    }
}

async fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Help => {}
        Command::Health { directory } => println!("{}", Health::read(&directory)?.judge(now())?),
        Command::Fetch(settings) => {
            let client = aws::client(settings.region().map(str::to_owned)).await;
            fetch(&settings, &client, now()).await?;
        }
        Command::Watch(settings, how) => {
            let listen = |kind| signal(kind).map_err(|error| format!("listen for signals: {error}"));
            let mut hangup = listen(SignalKind::hangup())?;
            let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
            let client = aws::client(settings.region().map(str::to_owned)).await;
            tokio::select! {
                never = watch(&settings, &how, &client, now, async || _ = hangup.recv().await) => match never {},
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let state = Health::read(&settings.directory)?.judge_certificates(now())?;
            say(&format!("ends: {state}"));
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place where the agent reads the clock")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
