//! The measurements of `make bench`; `tests/bench.py` compares them and prints the table.
#![expect(clippy::print_stdout, reason = "a program for the command line")]

mod account;
mod end_to_end;
mod instructions;
mod limits;
mod sandbox;
mod start;

use std::error::Error;
use std::path::PathBuf;

use local_aws::AwsError;
use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Time is virtual until an account is set up.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    match (what.as_str(), &paths[..]) {
        ("start", [binaries, hello, python]) => start::measure(binaries, hello, python).await,
        ("end-to-end", [binaries]) => end_to_end::measure(binaries).await,
        ("instructions", [binaries]) => instructions::measure(binaries).await,
        ("memory", [binaries]) => limits::measure(binaries).await,
        _ => Err("give what to measure: start BINARIES HELLO PYTHON, or end-to-end, instructions or memory and BINARIES".into()),
    }
}

fn print(figures: Value) {
    println!("{figures}");
}

fn told(error: AwsError) -> Box<dyn Error> {
    error.message.into()
}
