//! TLS of `--http-listen`: the certificate and its key, from PEM files that are read again when
//! they change.
//!
//! Whoever renews certificates replaces two files, one after the other and at any time. A pair that
//! cannot be used leaves the last one that could in place, so a renewal that has come half way
//! costs no connection.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// What handshakes of new connections are answered with.
pub struct Tls {
    files: TlsFiles,
    acceptor: TlsAcceptor,
    /// Of the files as they were read last, whether they could be used or not.
    marks: Marks,
    looked_at: Instant,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: TlsFiles, now: Instant) -> Result<Self, TlsError> {
        // Before the files: what is written while they are read is a change.
        let marks = Marks::of(&files);
        let acceptor = read(&files)?;
        Ok(Self { files, acceptor, marks, looked_at: now })
    }

    /// For a connection that has come at `now`. Looks after the files, which takes two `stat` calls,
    /// but only once per [`LOOK_INTERVAL`].
    pub(super) fn acceptor(&mut self, now: Instant) -> TlsAcceptor {
        if now.duration_since(self.looked_at) >= LOOK_INTERVAL {
            self.looked_at = now;
            self.look();
        }
        self.acceptor.clone()
    }

    fn look(&mut self) {
        let marks = Marks::of(&self.files);
        if marks == self.marks {
            return;
        }
        self.marks = marks;
        let cert = self.files.cert.display();
        match read(&self.files) {
            Ok(acceptor) => {
                self.acceptor = acceptor;
                tracing::info!(%cert, "new connections get the new certificate");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(
                    %error,
                    cause,
                    "the new certificate cannot be used; new connections get the last one that could"
                );
            }
        }
    }
}

/// What tells that a file has been replaced or written; `None` while it cannot be found.
#[derive(PartialEq, Eq)]
struct Marks([Option<Mark>; 2]);

#[derive(PartialEq, Eq)]
struct Mark {
    /// Another file under the name, as renaming and symbolic links make it.
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Marks {
    fn of(files: &TlsFiles) -> Self {
        Self([&files.cert, &files.key].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            let modified = (file.mtime(), file.mtime_nsec());
            Some(Mark { inode: file.ino(), bytes: file.size(), modified })
        }))
    }
}

/// Why certificates cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or not ours to read.
    #[error("{flag} {}: name a file that this process may read", path.display())]
    Unreadable {
        /// Whose value it is.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// Not what such a file looks like.
    #[error("{flag} {} has more than {FILE_MAX} bytes: name a PEM file", path.display())]
    TooLarge {
        /// Whose value it is.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A section that cannot be read.
    #[error("{flag} {} is not in order: name a PEM file", path.display())]
    Pem {
        /// Whose value it is.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// No section of the kind that is needed.
    #[error(
        "--tls-cert {} holds no certificate: name a PEM file with -----BEGIN CERTIFICATE----- in it",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No section of the kind that is needed.
    #[error(
        "--tls-key {} holds no private key: name a PEM file with one (PKCS #8, PKCS #1 or SEC 1) \
         that is not encrypted",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A section that is no certificate inside.
    #[error("the first certificate of --tls-cert {} cannot be used: have it issued again", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A key of an algorithm or a size that nobody uses in TLS.
    #[error(
        "the private key in --tls-key {} cannot be used: take an RSA key of 2048 bits or more, ECDSA \
         P-256 or P-384, or Ed25519",
        path.display()
    )]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Files of two pairs.
    #[error(
        "--tls-key {} is not the key of the first certificate in --tls-cert {}: name the files of one \
         pair, the server's own certificate first",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// TLS 1.2 and 1.3, HTTP/1.1 above it, no certificates of clients.
fn read(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let provider = ring::default_provider();
    let certified = Arc::new(SingleCertAndKey::from(certified_key(files, &provider)?));
    let bad = |source| TlsError::BadKey { path: files.key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_no_client_auth()
        .with_cert_resolver(certified);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn certified_key(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { cert, key } = files;
    let pem = |flag, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { flag, path, source }
    };
    let text = contents("--tls-cert", cert)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(pem("--tls-cert", cert))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: cert.clone() });
    }
    let text = contents("--tls-key", key)?;
    let private = match PrivateKeyDer::from_pem_slice(&text) {
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { path: key.clone() }),
        read => read.map_err(pem("--tls-key", key))?,
    };
    let signer = provider
        .key_provider
        .load_private_key(private)
        .map_err(|source| TlsError::BadKey { path: key.clone(), source })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // A key that does not tell its public half is believed.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { cert: cert.clone(), key: key.clone() })
        }
        Err(source) => Err(TlsError::BadCertificate { path: cert.clone(), source }),
    }
}

fn contents(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Unreadable { flag, path: path.to_owned(), source })?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(TlsError::TooLarge { flag, path: path.to_owned() });
    }
    Ok(bytes)
}

/// A chain takes a few kilobytes.
const FILE_MAX: u64 = 1 << 20;
/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey as Pair, KeyPair, generate_simple_self_signed};
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;

    use super::super::connections::Connections;
    use super::super::http::{self, Manners};
    use super::*;

    /// A folder of this test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("ringway-tls-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> TlsFiles {
            TlsFiles { cert: self.0.join("cert.pem"), key: self.0.join("key.pem") }
        }

        fn put(&self, pair: &Pair<KeyPair>) {
            let files = self.files();
            fs::write(files.cert, pair.cert.pem()).unwrap();
            fs::write(files.key, pair.signing_key.serialize_pem()).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pair() -> Pair<KeyPair> {
        generate_simple_self_signed(["relay.example".to_owned()]).unwrap()
    }

    /// Believes everybody, so that the test can look at what it was shown.
    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    /// The certificate that a client is shown, and the protocol agreed on.
    async fn shown(
        acceptor: TlsAcceptor,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (CertificateDer<'static>, Option<Vec<u8>>) {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("relay.example").unwrap();
        let (client, server) = tokio::io::duplex(16_384);
        let connector = TlsConnector::from(Arc::new(config));
        let (client, server) =
            tokio::join!(connector.connect(name, client), acceptor.accept(server));
        server.unwrap();
        let client = client.unwrap();
        let (_, connection) = client.get_ref();
        let first = connection.peer_certificates().unwrap()[0].clone().into_owned();
        (first, connection.alpn_protocol().map(<[u8]>::to_vec))
    }

    async fn served(tls: &mut Tls, now: Instant) -> CertificateDer<'static> {
        shown(tls.acceptor(now), rustls::ALL_VERSIONS).await.0
    }

    #[tokio::test]
    async fn both_versions_of_tls_are_spoken_and_http_1_is_agreed_on() {
        let (folder, pair) = (Folder::new("versions"), pair());
        folder.put(&pair);
        let now = Instant::now();
        let mut tls = Tls::open(folder.files(), now).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (certificate, protocol) = shown(tls.acceptor(now), &[version]).await;
            assert_eq!(certificate, *pair.cert.der());
            assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
        }
    }

    #[tokio::test]
    async fn a_replaced_pair_is_served_after_the_next_look() {
        let (folder, old, new) = (Folder::new("replaced"), pair(), pair());
        folder.put(&old);
        let now = Instant::now();
        let mut tls = Tls::open(folder.files(), now).unwrap();
        // Renamed into place: an inode of its own, whatever the clock of the file system says.
        let next = Folder::new("replaced-next");
        next.put(&new);
        fs::rename(next.files().cert, folder.files().cert).unwrap();
        fs::rename(next.files().key, folder.files().key).unwrap();
        assert_eq!(served(&mut tls, now + LOOK_INTERVAL / 2).await, *old.cert.der());
        assert_eq!(served(&mut tls, now + LOOK_INTERVAL).await, *new.cert.der());
    }

    #[tokio::test]
    async fn a_pair_that_is_replaced_half_way_leaves_the_old_one_until_it_is_whole() {
        let (folder, old, new) = (Folder::new("half"), pair(), pair());
        folder.put(&old);
        let now = Instant::now();
        let mut tls = Tls::open(folder.files(), now).unwrap();
        let next = Folder::new("half-next");
        next.put(&new);
        fs::rename(next.files().cert, folder.files().cert).unwrap();
        assert_eq!(served(&mut tls, now + LOOK_INTERVAL).await, *old.cert.der());
        fs::rename(next.files().key, folder.files().key).unwrap();
        assert_eq!(served(&mut tls, now + 2 * LOOK_INTERVAL).await, *new.cert.der());
    }

    #[tokio::test]
    async fn files_that_break_or_vanish_leave_what_was_read_before() {
        let (folder, old) = (Folder::new("broken"), pair());
        folder.put(&old);
        let now = Instant::now();
        let mut tls = Tls::open(folder.files(), now).unwrap();
        fs::write(folder.files().cert, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        assert_eq!(served(&mut tls, now + LOOK_INTERVAL).await, *old.cert.der());
        fs::remove_file(folder.files().cert).unwrap();
        assert_eq!(served(&mut tls, now + 2 * LOOK_INTERVAL).await, *old.cert.der());
    }

    #[tokio::test]
    async fn a_client_that_begins_no_handshake_gives_way_to_the_next() {
        let folder = Folder::new("silent");
        folder.put(&pair());
        let tls = Tls::open(folder.files(), Instant::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, connections) = (axum::Router::new(), Connections::new(1));
        tokio::spawn(http::serve(listener, Some(tls), router, connections, Manners::PROMPT));
        let mut silent = TcpStream::connect(address).await.unwrap();
        let _next = TcpStream::connect(address).await.unwrap();
        let end = timeout(http::REQUEST_TIMEOUT / 2, silent.read(&mut [0; 8])).await;
        assert_eq!(end.expect("it is dismissed before its own time is over").unwrap(), 0);
    }

    #[test]
    fn files_that_cannot_be_served_are_named_with_what_to_do() {
        let (folder, right, other) = (Folder::new("errors"), pair(), pair());
        let (cert, key) = (right.cert.pem(), right.signing_key.serialize_pem());
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let open_end = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (cert, key, flag, words) in [
            ("", &*key, "--tls-cert", "holds no certificate"),
            (&*key, &*key, "--tls-cert", "holds no certificate"),
            (open_end, &*key, "--tls-cert", "is not in order"),
            (garbage, &*key, "--tls-cert", "cannot be used"),
            (&*cert, "", "--tls-key", "holds no private key"),
            (&*cert, &*cert, "--tls-key", "holds no private key"),
            (&*cert, &*encrypted, "--tls-key", "that is not encrypted"),
            (&*cert, no_key, "--tls-key", "cannot be used"),
            (&*cert, &*other.signing_key.serialize_pem(), "--tls-key", "is not the key of"),
        ] {
            let files = folder.files();
            fs::write(&files.cert, cert).unwrap();
            fs::write(&files.key, key).unwrap();
            let path = if flag == "--tls-cert" { &files.cert } else { &files.key };
            let named = format!("{flag} {}", path.display());
            let error = Tls::open(files.clone(), Instant::now()).err().unwrap().to_string();
            assert!(error.contains(&named) && error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_and_one_without_end_are_refused() {
        let files = |cert: &str| TlsFiles { cert: cert.into(), key: "key.pem".into() };
        let open = |cert: &str| Tls::open(files(cert), Instant::now()).err().unwrap();
        assert!(matches!(open("/nonexistent/cert.pem"), TlsError::Unreadable { .. }));
        assert!(matches!(open("/dev/zero"), TlsError::TooLarge { .. }));
    }
}
