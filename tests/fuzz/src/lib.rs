//! Hostile input for every parser of bytes from outside: no panic, no memory out of proportion, and nothing accepted that a second
//! opinion would not accept.
//!
//! `cargo test -p fuzz` runs each parser over its corpus and over mutations of it, the same ones each time; `make fuzz` lets
//! libFuzzer look for as long as it is given. What breaks a parser is put into `corpus/` and stays there.

mod items;
mod requests;
mod secrets;
mod x509;

use peak_alloc::PeakAlloc;
use time::OffsetDateTime;
use time::macros::datetime;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// When everything is judged: what was made for the corpus is valid then.
const NOW: OffsetDateTime = datetime!(2026-12-06 06:00 UTC);

/// A parser by the name of its corpus: reads the input, says whether it accepts it, and panics when that is nonsense.
pub type Parser = (&'static str, fn(&[u8]) -> bool);

pub const PARSERS: [Parser; 17] = [
    ("request", requests::issuance),
    ("revocation", requests::revocation),
    ("retirement", requests::retirement),
    ("rotation", requests::rotation),
    ("name", requests::name),
    ("declaration", requests::declaration),
    ("event", requests::event),
    ("csr", x509::csr),
    ("leaf", x509::leaf),
    ("chain", x509::chain),
    ("extra", x509::extra),
    ("crl", x509::crl),
    ("secret", secrets::material),
    ("waiting", secrets::waiting),
    ("key", secrets::key),
    ("item", items::item),
    ("tags", items::tags),
];

/// JSON is what takes the most: `[[],[]]` has a value of 32 bytes for every three of its text, read and copied once, and every
/// field that is refused has a sentence.
const MEMORY_PER_BYTE: usize = 256;

/// For what does not depend on the input, such as tables that are filled once.
const MEMORY_AT_LEAST: usize = 1 << 20;

/// Runs a parser over an input and watches the memory that it takes. Whether it accepts it.
pub fn run((name, parse): Parser, input: &[u8]) -> bool {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let accepted = parse(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let allowed = MEMORY_AT_LEAST + MEMORY_PER_BYTE * input.len();
    assert!(taken <= allowed, "`{name}` takes {taken} bytes of memory for an input of {}", input.len());
    accepted
}

/// The text of an input, where it is one.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

#[cfg(test)]
mod tests;
