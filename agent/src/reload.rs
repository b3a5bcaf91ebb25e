//! How a program is told that there is a new certificate.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::process::Command;

#[derive(Clone, Debug, PartialEq)]
pub enum Reload {
    Signal(Signal, Process),
    Exec(String, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Process {
    Id(i32),
    /// The file that holds the id.
    File(PathBuf),
}

#[derive(Debug, PartialEq)]
pub enum Told {
    Program,
    /// It does not run, or not where it is looked for: in words, which.
    Nobody(String),
}

/// A reload that takes longer hangs, and would keep the agent from looking.
const PATIENCE: Duration = Duration::from_secs(60);

impl Reload {
    /// Tells the program.
    pub async fn run(&self) -> Result<Told, String> {
        match self {
            Self::Signal(signal, process) => {
                let Some(pid) = process.id()? else { return Ok(Told::Nobody(format!("there is no {process}"))) };
                let id = pid.as_raw_nonzero();
                // Each container's first process is 1 to itself, as the agent is, unless they share their ids.
                if pid == getpid() {
                    return Err(format!("process {id} is the agent itself: the task definition needs \"pidMode\": \"task\""));
                }
                match kill_process(pid, *signal) {
                    Ok(()) => Ok(Told::Program),
                    Err(Errno::SRCH) => Ok(Told::Nobody(format!("there is no process {id}"))),
                    Err(error) => Err(format!("process {id}: {error}")),
                }
            }
            Self::Exec(program, arguments) => {
                // What it prints is the program's business; its input would be the agent's.
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
                match tokio::time::timeout(PATIENCE, command.status()).await {
                    Ok(Ok(status)) if status.success() => Ok(Told::Program),
                    Ok(Ok(status)) => Err(format!("`{program}` ended with {status}")),
                    Ok(Err(error)) => Err(format!("`{program}`: {error}")),
                    Err(_) => Err(format!("`{program}` did not end within {} s", PATIENCE.as_secs())),
                }
            }
        }
    }
}

impl Process {
    /// `None` while there is no file of that name.
    fn id(&self) -> Result<Option<Pid>, String> {
        let id = match self {
            Self::Id(id) => *id,
            Self::File(file) => match std::fs::read_to_string(file) {
                Ok(text) => text.trim().parse().map_err(|_| format!("{} holds no process id", file.display()))?,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(format!("{}: {error}", file.display())),
            },
        };
        // 0 and below would be whole groups of processes.
        match Some(id).filter(|id| *id > 0).and_then(Pid::from_raw) {
            Some(pid) => Ok(Some(pid)),
            None => Err(format!("{id} is not the id of a process")),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "process {id}"),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

impl FromStr for Reload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, process) =
            text.split_once(':').filter(|(_, process)| !process.is_empty()).ok_or("a signal is NAME:PROCESS")?;
        let signal = match name.strip_prefix("SIG").unwrap_or(name) {
            "HUP" => Signal::HUP,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "WINCH" => Signal::WINCH,
            "INT" => Signal::INT,
            "QUIT" => Signal::QUIT,
            "TERM" => Signal::TERM,
            _ => return Err(format!("there is no signal `{name}`: HUP, USR1, USR2, WINCH, INT, QUIT, TERM")),
        };
        let process = process.parse().map_or_else(|_| Process::File(process.into()), Process::Id);
        Ok(Self::Signal(signal, process))
    }
}
