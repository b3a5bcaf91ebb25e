//! Promise 7 from the outside: every private key and passphrase that went into a secret, looked for in everything else.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use local_aws::Call;
use pkcs8::der::Decode;
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};

/// Texts are searched in steps of this many characters.
const STEP: usize = 12;

#[derive(Default)]
pub struct Leaks {
    /// As PEM.
    pub keys: HashSet<String>,
    pub searched: usize,
    runs: HashSet<[u8; STEP]>,
}

impl Leaks {
    /// A secret holds this key: it must not be seen anywhere else, neither as it stands there nor decrypted.
    pub fn learn(&mut self, pem: &str, passphrase: Option<&str>) -> Result<(), String> {
        if !self.keys.insert(pem.to_owned()) {
            return Ok(());
        }
        if let Some(passphrase) = passphrase {
            self.add(passphrase);
            let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
            // Its beginning only says how it is encrypted.
            self.add(body.get(192..).unwrap_or_default());
        }
        let key = BASE64_STANDARD.encode(open(pem, passphrase)?.as_bytes());
        // Half of an RSA key is public, and so is an EC key but for these 30 bytes.
        let private = if key.len() > 400 { key.get(key.len() / 128 * 64..) } else { key.get(48..88) };
        self.add(private.unwrap_or_default());
        Ok(())
    }

    /// The beginning of every line, as lines are in PEM: long enough to be found by the steps of a search.
    fn add(&mut self, secret: &str) {
        for line in secret.as_bytes().chunks(64) {
            let beginning = &line[..line.len().min(2 * STEP)];
            self.runs.extend(beginning.windows(STEP).filter_map(|run| <[u8; STEP]>::try_from(run).ok()));
        }
    }

    /// Whether something secret is in a text.
    pub fn are_in(&mut self, text: &str) -> bool {
        self.searched += text.len();
        text.contains("PRIVATE KEY-----") || text.as_bytes().chunks_exact(STEP).any(|run| self.runs.contains(run))
    }
}

/// What the functions log, until somebody takes it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn take(&self) -> String {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that a call says: an object of S3 as it is written too.
pub fn said(call: &Call) -> String {
    let object = BASE64_STANDARD.decode(call.input["Body"].as_str().unwrap_or_default()).unwrap_or_default();
    format!("{}\n{}", call.input, String::from_utf8_lossy(&object))
}

/// A private key as it stands in a secret: the key itself, PKCS#8, DER.
pub fn open(pem: &str, passphrase: Option<&str>) -> Result<SecretDocument, String> {
    let (_, document) = SecretDocument::from_pem(pem).map_err(|error| error.to_string())?;
    let Some(passphrase) = passphrase else { return Ok(document) };
    let encrypted = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|error| error.to_string())?;
    encrypted.decrypt(passphrase).map_err(|error| error.to_string())
}
