//! One parser under libFuzzer, which takes its options from the command line: see `make fuzz`.
#![no_main]

use std::sync::LazyLock;

use fuzz::{PARSERS, Parser};

static PARSER: LazyLock<Parser> = LazyLock::new(|| {
    let names = PARSERS.map(|(name, _)| name);
    #[expect(clippy::disallowed_methods, reason = "the command line is libFuzzer's")]
    let asked = std::env::var("PARSER").unwrap_or_default();
    let found = PARSERS.into_iter().find(|(name, _)| *name == asked);
    found.unwrap_or_else(|| panic!("PARSER is `{asked}`, and not one of {}", names.join(", ")))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::run(*PARSER, input);
});
