use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::ExposeSecret;

use super::*;

/// Memory is counted for the whole process, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every input that is kept for a parser, by its file.
fn corpus(parser: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(parser);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |file: PathBuf| (file.clone(), fs::read(file).expect("the file can be read"));
    files.map(|entry| read(entry.expect("the folder can be read").path())).collect()
}

/// The same numbers each time: xorshift64*, Marsaglia and Vigna.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn mutate(&mut self, input: &mut Vec<u8>, others: &[&Vec<u8>]) {
        let place = self.below(input.len() + 1);
        let end = place + self.below(16).min(input.len() - place);
        let odd = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'\n', b'-', b'9', b'.', b'*'];
        match self.below(6) {
            0 if place < input.len() => input[place] ^= 1 << self.below(8),
            1 if place < input.len() => input[place] = odd[self.below(odd.len())],
            2 => _ = input.drain(place..end),
            3 => input.insert(place, odd[self.below(odd.len())]),
            4 => {
                let copy = input[place..end].to_vec();
                input.splice(place..place, copy);
            }
            _ => {
                let other = others[self.below(others.len())];
                let from = self.below(other.len());
                let part = &other[from..from + self.below(64).min(other.len() - from)];
                input.splice(place..end, part.iter().copied());
            }
        }
    }
}

#[test]
fn every_parser_stands_its_corpus_and_mutations_of_it() {
    let _alone = alone();
    for parser in PARSERS {
        let corpus = corpus(parser.0);
        let accepted = corpus.values().filter(|input| check(parser, input)).count();
        assert!(accepted > 0, "`{}` accepts nothing of its corpus", parser.0);
        let inputs: Vec<_> = corpus.values().collect();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for round in 0..MUTATIONS {
            let mut input = inputs[round % inputs.len()].clone();
            for _ in 0..=dice.below(4) {
                dice.mutate(&mut input, &inputs);
            }
            check(parser, &input);
        }
    }
}

/// Of each parser: what takes a few seconds for all of them.
const MUTATIONS: usize = 20_000;

fn check(parser: Parser, input: &[u8]) -> bool {
    std::panic::catch_unwind(|| run(parser, input)).unwrap_or_else(|_| {
        let kept = std::env::temp_dir().join(format!("everleaf-fuzz-{}", parser.0));
        fs::write(&kept, input).expect("the input can be written down");
        panic!("`{}` fails; the input is in {}: once it is small, keep it in corpus/{0}", parser.0, kept.display())
    })
}

#[test]
fn every_corpus_has_a_parser() {
    let folders = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).expect("there is a corpus");
    let mut folders: Vec<_> =
        folders.map(|entry| entry.expect("it can be read").file_name().into_string().expect("a name")).collect();
    folders.sort();
    let mut parsers = PARSERS.map(|(name, _)| name);
    parsers.sort_unstable();
    assert_eq!(folders, parsers);
}

/// What openssl says to an input, on either stream; `None` when it refuses.
fn openssl(arguments: &[&str], input: &[u8]) -> Option<String> {
    let mut openssl = Command::new("openssl");
    let openssl = openssl.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut openssl = openssl.expect("openssl is installed");
    openssl.stdin.take().expect("it is piped").write_all(input).expect("openssl reads");
    let output = openssl.wait_with_output().expect("openssl ends");
    let text = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
    output.status.success().then(|| text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn an_accepted_csr_is_accepted_by_openssl_and_says_the_same_there() {
    let _alone = alone();
    let mut accepted = 0;
    for (file, input) in corpus("csr") {
        let Some(pem) = x509::accepted_csr(&input) else { continue };
        let text = openssl(&["req", "-verify", "-noout", "-text"], pem.as_bytes());
        let text = text.unwrap_or_else(|| panic!("openssl refuses {}", file.display()));
        // It ends well also when the signature is not the key's.
        assert!(text.contains("verify OK"), "{}: {text}", file.display());
        let csr = lifecycle::leaf::Csr::from_pem(&pem).expect("it was accepted");
        let names = ["DNS:", "URI:", "IP Address:", "email:"].map(|kind| text.matches(kind).count());
        assert_eq!(names.iter().sum::<usize>(), csr.names.len(), "{}: {text}", file.display());
        let subject =
            openssl(&["req", "-noout", "-subject", "-nameopt", "multiline"], pem.as_bytes()).expect("it was read before");
        let attributes = csr.subject.attributes().iter().filter(|(.., value)| value.is_some()).count();
        assert_eq!(subject.lines().filter(|line| line.contains(" = ")).count(), attributes, "{}: {subject}", file.display());
        accepted += 1;
    }
    assert!(accepted > 3, "the corpus has {accepted} good CSRs");
}

#[test]
fn the_key_of_an_accepted_pair_is_its_leafs_by_openssl_too() {
    let _alone = alone();
    let mut accepted = 0;
    for (file, input) in corpus("secret") {
        let Some(material) = secrets::accepted_material(&input) else { continue };
        let Some(key) = &material.key else { continue };
        let passphrase = format!("pass:{}", key.passphrase.as_ref().map_or("", |passphrase| passphrase.expose_secret()));
        let of_key = openssl(&["pkey", "-pubout", "-passin", &passphrase], key.pem.expose_secret().as_bytes());
        let of_leaf = openssl(&["x509", "-noout", "-pubkey"], material.certificate.as_bytes());
        assert!(of_key.is_some() && of_key == of_leaf, "{}", file.display());
        accepted += 1;
    }
    assert!(accepted > 1, "the corpus has {accepted} good pairs");
}

#[test]
fn a_key_that_asks_for_time_or_memory_is_not_opened() {
    let _alone = alone();
    for file in ["memory-of-scrypt", "scrypt-of-little", "two-million-iterations"] {
        let text = fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/key")).join(file));
        let text = text.expect("the file can be read");
        let (passphrase, pem) = text.split_once('\n').expect("the passphrase comes first");
        let key = material::Key { pem: pem.into(), passphrase: Some(passphrase.into()) };
        let why = key.open().err().unwrap_or_default();
        assert!(why.contains("PBKDF2 of at most 1000000 iterations"), "{file}: {why}");
    }
}
