//! A bus in a folder: what `sealbus init` makes and `sealbus identity issue` adds to.
//!
//! ```text
//!   DIR/ca/{ca.pem, ca.key, crl.pem}                  the development authority
//!       broker/{tls.crt, tls.key, log.key}            the broker's certificate, and what it signs checkpoints with
//!       identities/NAME/{tls.crt, tls.key, context.toml}
//!       operator/signing.key                          for signed policies, which a later version has
//!       sealbus.toml  policy.toml  trust.toml  data/
//! ```

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sealbus_protocol::identity::{Principal, check_trust_domain};
use sealbus_protocol::ids::{BusId, StreamId};
use serde::Deserialize;
use zeroize::Zeroizing;

use self::signing_key::SigningKeyLines;
use self::texts::{policy_toml, sealbus_toml, trust_toml};
use crate::context::{self, Context, ContextFile, read_bounded};
use crate::failure::Failure;
use crate::pki::{Authority, Issued, PkiError, write_new};

mod signing_key;
mod texts;

/// Bytes of a PEM or TOML file of the folder; ours are a few hundred.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// The name of the identity that administers.
pub(crate) const OPERATOR: &str = "operator";

/// A folder with a bus in it.
#[derive(Debug, Clone)]
pub(crate) struct BusFolder {
    root: PathBuf,
}

/// What a new bus shall be.
#[derive(Debug, Clone)]
pub(crate) struct NewBus {
    /// The SPIFFE trust domain of its principals.
    pub(crate) trust_domain: String,
    /// Names of the broker beside localhost and the address it listens on.
    pub(crate) hosts: Vec<String>,
    /// Where the broker listens.
    pub(crate) address: SocketAddr,
}

/// What `sealbus init` tells of a bus.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) bus_id: BusId,
    pub(crate) operator: Principal,
    /// The operator's public signing key, as a C2SP verifier key line.
    pub(crate) operator_key: String,
    /// The public key of the broker's checkpoints, in base64.
    pub(crate) log_key: String,
    pub(crate) broker_names: Vec<String>,
}

impl BusFolder {
    /// The bus in this folder.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes a bus in a folder that is empty or does not exist.
    pub(crate) fn create(root: impl Into<PathBuf>, new: &NewBus) -> Result<(Self, Made), Failure> {
        let folder = Self::at(root);
        let attempted = || format!("make a bus in {}", folder.root.display());
        let pki = |error: PkiError| Failure::new(attempted(), error);
        folder.refuse_used()?;
        check_trust_domain(&new.trust_domain).map_err(|error| {
            Failure::usage(attempted(), format!("trust domain \"{}\": {error}", new.trust_domain))
                .advising("a trust domain is lower-case letters, digits, `.`, `-` and `_`, as in bus.local")
        })?;
        let broker_names = new.broker_names();
        let authority =
            Authority::new(&format!("sealbus development CA of {}", new.trust_domain)).map_err(pki)?;
        let broker = authority.issue_broker(&broker_names).map_err(pki)?;
        let revocation_list = authority.revocation_list(1, &[]).map_err(pki)?;
        let operator = principal(&new.trust_domain, OPERATOR)?;
        let operator_identity = authority.issue_client(&operator, &[]).map_err(pki)?;
        let signing_key = SigningKeyLines::new(OPERATOR).map_err(pki)?;
        let bus_id = BusId::new(random().map_err(pki)?);
        let stream_id = StreamId::new(random().map_err(pki)?);
        let log_key = SigningKeyLines::new(&format!("{bus_id}/log")).map_err(pki)?;

        for part in ["", "ca", "broker", "identities", "operator", "data"] {
            folder.make_folder(part)?;
        }
        let write = |path: &str, text: &str| write_new(&folder.root.join(path), text.as_bytes()).map_err(pki);
        write("ca/ca.pem", authority.certificate_pem())?;
        write("ca/ca.key", &authority.key_pem())?;
        write("ca/crl.pem", &revocation_list)?;
        broker.write_to(&folder.root.join("broker")).map_err(pki)?;
        write("broker/log.key", &log_key.private)?;
        write("operator/signing.key", &signing_key.private)?;
        write("trust.toml", &trust_toml(bus_id, &new.trust_domain, &log_key.public_key))?;
        write("sealbus.toml", &sealbus_toml(bus_id, &new.trust_domain, new.address))?;
        write("policy.toml", &policy_toml(&operator, &new.trust_domain, stream_id))?;
        folder.write_identity(OPERATOR, &operator_identity, &new.server())?;
        let (operator_key, log_key) = (signing_key.public, log_key.public_key);
        Ok((folder, Made { bus_id, operator, operator_key, log_key, broker_names }))
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of something in the folder.
    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    /// The folder of an identity, which is a context too.
    pub(crate) fn identity(&self, name: &str) -> PathBuf {
        self.root.join("identities").join(name)
    }

    /// The authority of the folder.
    pub(crate) fn authority(&self) -> Result<Authority, Failure> {
        let attempted = || format!("use the authority in {}", self.path("ca").display());
        let read = |part: &str| {
            read_bounded(&self.path(part), FILE_BYTES_MAX).map_err(|error| {
                Failure::new(attempted(), format!("{}: {error}", self.path(part).display()))
                    .advising("`sealbus init DIR` makes a folder with an authority; name it with --dir")
            })
        };
        let certificate = read("ca/ca.pem")?;
        let key = Zeroizing::new(read("ca/ca.key")?);
        Authority::from_pem(&certificate, &key).map_err(|error| Failure::new(attempted(), error))
    }

    /// Issues a certificate for a service of this bus, into a folder of its own.
    pub(crate) fn issue(&self, name: &str, hosts: &[String]) -> Result<Principal, Failure> {
        let authority = self.authority()?;
        let principal = principal(&self.trust_domain()?, name)?;
        let issued = authority
            .issue_client(&principal, hosts)
            .map_err(|error| Failure::new(format!("issue a certificate for {principal}"), error))?;
        let server = Context::read(&self.identity(OPERATOR).join(context::FILE_NAME))?.server;
        self.write_identity(name, &issued, &server)?;
        Ok(principal)
    }

    /// The trust domain, as `trust.toml` names it.
    fn trust_domain(&self) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct TrustFile {
            trust_domain: Vec<Domain>,
        }
        #[derive(Deserialize)]
        struct Domain {
            name: String,
        }
        let path = self.path("trust.toml");
        let attempted = || format!("read {}", path.display());
        let text = read_bounded(&path, FILE_BYTES_MAX).map_err(|error| Failure::new(attempted(), error))?;
        let file: TrustFile = toml::from_str(&text).map_err(|error| Failure::new(attempted(), error))?;
        match <[Domain; 1]>::try_from(file.trust_domain) {
            Ok([domain]) => Ok(domain.name),
            Err(domains) => Err(Failure::new(attempted(), format!("{} trust domains", domains.len()))
                .advising("the development CA issues for exactly one; use your own PKI for more")),
        }
    }

    fn write_identity(&self, name: &str, issued: &Issued, server: &str) -> Result<(), Failure> {
        let folder = self.identity(name);
        let attempted = || format!("write the identity in {}", folder.display());
        let context = ContextFile {
            server: server.to_owned(),
            identity: PathBuf::from("."),
            trust: PathBuf::from("../../trust.toml"),
        };
        let text = context.to_text()?;
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| {
            let failure = Failure::new(attempted(), &error);
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => failure.advising(
                    "an identity is never written over: remove the folder first, or choose another name",
                ),
                _ => failure,
            }
        })?;
        issued
            .write_to(&folder)
            .and_then(|()| write_new(&folder.join(context::FILE_NAME), text.as_bytes()))
            .map_err(|error| Failure::new(attempted(), error))
    }

    fn refuse_used(&self) -> Result<(), Failure> {
        let attempted = || format!("make a bus in {}", self.root.display());
        let is_used = match std::fs::read_dir(&self.root) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(Failure::new(attempted(), error)),
        };
        if is_used {
            return Err(Failure::new(attempted(), "the folder is not empty")
                .advising("name a folder that does not exist: keys are never written over"));
        }
        Ok(())
    }

    fn make_folder(&self, part: &str) -> Result<(), Failure> {
        let path = self.root.join(part);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| Failure::new(format!("make the folder {}", path.display()), error))
    }
}

impl NewBus {
    /// The names that clients may use for the broker.
    fn broker_names(&self) -> Vec<String> {
        let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        if !self.address.ip().is_unspecified() {
            names.push(self.address.ip().to_string());
        }
        names.extend(self.hosts.iter().cloned());
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// What clients connect to: the first host that was named, since it is meant to be reached from elsewhere.
    fn server(&self) -> String {
        match self.hosts.first() {
            Some(host) if host.contains(':') => format!("[{host}]:{}", self.address.port()),
            Some(host) => format!("{host}:{}", self.address.port()),
            None if self.address.ip().is_unspecified() => format!("localhost:{}", self.address.port()),
            None => self.address.to_string(),
        }
    }
}

/// Random bytes, for an id.
fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(PkiError::Random)?;
    Ok(bytes)
}

/// The principal of a service of this bus. A service's name is one segment of a SPIFFE path, and a folder's name.
fn principal(trust_domain: &str, name: &str) -> Result<Principal, Failure> {
    let invalid = |found: String| {
        Failure::usage(format!("name an identity \"{name}\""), found)
            .advising("a name is letters, digits, `.`, `-` and `_`, as in `billing`")
    };
    if name.contains('/') {
        return Err(invalid("it has a `/`".to_owned()));
    }
    Principal::parse(&format!("spiffe://{trust_domain}/{name}")).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "ä", "a\n", "*"] {
            assert!(principal("bus.local", name).is_err(), "{name:?}");
        }
        assert_eq!(principal("bus.local", "billing").unwrap().as_str(), "spiffe://bus.local/billing");
    }

    #[test]
    fn clients_connect_to_a_name_that_the_broker_has() {
        for (address, hosts, server) in [
            ("127.0.0.1:7433", &[][..], "127.0.0.1:7433"),
            ("0.0.0.0:7433", &[], "localhost:7433"),
            ("[::]:7433", &[], "localhost:7433"),
            ("[::1]:7433", &[], "[::1]:7433"),
            ("0.0.0.0:7433", &["bus.example"], "bus.example:7433"),
            ("0.0.0.0:7433", &["2001:db8::1"], "[2001:db8::1]:7433"),
        ] {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            let new =
                NewBus { trust_domain: "bus.local".to_owned(), hosts, address: address.parse().unwrap() };
            assert_eq!(new.server(), server);
            let (host, _) = server.rsplit_once(':').unwrap();
            assert!(new.broker_names().contains(&host.trim_matches(['[', ']']).to_owned()), "{server}");
        }
    }
}
