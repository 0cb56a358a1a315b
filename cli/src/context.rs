//! Contexts: server, identity and trust under one name, so that commands are short.
//!
//! ```toml
//! server = "127.0.0.1:7433"
//! identity = "."                  # folder with tls.crt and tls.key
//! trust = "../../trust.toml"      # relative paths are relative to this file
//! ```

use std::path::{Path, PathBuf};

use sealbus_client::{Bus, Identity, Trust};
use serde::{Deserialize, Serialize};

use crate::arguments::ConnectionArguments;
use crate::failure::Failure;

/// The name of a context's file in the folder of an identity.
pub(crate) const FILE_NAME: &str = "context.toml";

/// Bytes of a context file; a real one has three lines.
const FILE_BYTES_MAX: u64 = 64 * 1_024;

/// Which bus, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// `host:port`.
    pub(crate) server: String,
    /// The folder with `tls.crt` and `tls.key`.
    pub(crate) identity: PathBuf,
    /// The `trust.toml`.
    pub(crate) trust: PathBuf,
}

/// The file's form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    pub(crate) server: String,
    pub(crate) identity: PathBuf,
    pub(crate) trust: PathBuf,
}

impl ContextFile {
    /// The file's text.
    pub(crate) fn to_text(&self) -> Result<String, Failure> {
        toml::to_string(self).map_err(|error| Failure::new("write a context as TOML", error))
    }
}

impl Context {
    /// Reads a context file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let attempted = || format!("read the context {}", path.display());
        let text = read_bounded(path, FILE_BYTES_MAX).map_err(|error| Failure::new(attempted(), error))?;
        let file: ContextFile = toml::from_str(&text).map_err(|error| {
            Failure::new(attempted(), error.to_string().trim_end())
                .advising("a context has the keys server, identity and trust")
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self { server: file.server, identity: folder.join(file.identity), trust: folder.join(file.trust) })
    }

    /// The context that the arguments name, with what they replace in it.
    pub(crate) fn resolve(arguments: &ConnectionArguments) -> Result<Self, Failure> {
        let ConnectionArguments { context, server, identity, trust } = arguments;
        let named = context.as_deref().map(|context| Self::read(&find(context)?)).transpose()?;
        match (named, server, identity, trust) {
            (Some(named), _, _, _) => Ok(Self {
                server: server.clone().unwrap_or(named.server),
                identity: identity.clone().unwrap_or(named.identity),
                trust: trust.clone().unwrap_or(named.trust),
            }),
            (None, Some(server), Some(identity), Some(trust)) => {
                Ok(Self { server: server.clone(), identity: identity.clone(), trust: trust.clone() })
            }
            (None, _, _, _) => {
                let missing = [
                    ("--server", server.is_none()),
                    ("--identity", identity.is_none()),
                    ("--trust", trust.is_none()),
                ];
                let missing: Vec<_> =
                    missing.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect();
                let found = format!("no context is named, and {} is not given", missing.join(", "));
                Err(Failure::usage("know which bus is meant", found).advising(
                    "name a context, as in `--context bus/identities/operator` or SEALBUS_CONTEXT,\n\
                     or give --server, --identity and --trust; `sealbus init bus` makes a bus with a context",
                ))
            }
        }
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Bus, Failure> {
        let (identity, trust) = self.load()?;
        sealbus_client::connect(&self.server, identity, trust)
            .await
            .map_err(|error| self.not_connected(&error))
    }

    /// Reads the files that the context names.
    pub(crate) fn load(&self) -> Result<(Identity, Trust), Failure> {
        let identity = Identity::from_dir(&self.identity).map_err(|error| {
            Failure::new(format!("read the identity in {}", self.identity.display()), error)
                .advising("`sealbus identity issue NAME --dir DIR` makes one")
        })?;
        let trust = Trust::from_file(&self.trust).map_err(|error| {
            Failure::new(format!("read {}", self.trust.display()), error)
                .advising("`sealbus init` writes one; its form is in the documentation of the client")
        })?;
        Ok((identity, trust))
    }

    /// The failure to connect.
    pub(crate) fn not_connected(&self, error: &sealbus_client::ConnectError) -> Failure {
        let attempted =
            format!("connect to {} with the identity in {}", self.server, self.identity.display());
        Failure::new(attempted, error)
            .advising("is the broker running there, and did its `client_ca` issue this identity?")
    }
}

/// A text file of at most so many bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(bytes_max.saturating_add(1)).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        let found = format!("the file is longer than {bytes_max} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, found));
    }
    Ok(text)
}

/// Where the contexts with names are.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("sealbus").join("contexts")).ok_or_else(|| {
        Failure::new("find the folder of contexts", "neither XDG_CONFIG_HOME nor HOME names an absolute path")
            .advising("set one of them, or name a context by its path")
    })
}

/// The file of a context with this name. A name stays inside the folder.
pub(crate) fn named_file(name: &str) -> Result<PathBuf, Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
        let found = format!("\"{name}\" is not a context's name");
        return Err(Failure::usage("find the context", found)
            .advising("names are letters, digits, `-`, `_` and `.`, and do not begin with `.`"));
    }
    Ok(folder()?.join(format!("{name}.toml")))
}

/// The file that a path or a name stands for.
fn find(path_or_name: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(path_or_name);
    let in_folder = path.join(FILE_NAME);
    if in_folder.is_file() {
        return Ok(in_folder);
    }
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let attempted = format!("find the context {path_or_name}");
    let advice = "`sealbus context list` shows the names; a bus made by `sealbus init DIR` has DIR/identities/operator";
    if path_or_name.contains('/') {
        let found = format!("there is neither a file of that path nor a {FILE_NAME} in it");
        return Err(Failure::new(attempted, found).advising(advice));
    }
    let named = named_file(path_or_name)?;
    if named.is_file() {
        return Ok(named);
    }
    let found = format!("there is neither a folder with {FILE_NAME} nor the file {}", named.display());
    Err(Failure::new(attempted, found).advising(advice))
}
