//! TLS of the HTTP API: what clients are shown, what renewal does, and starts that cannot be.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::http::{self, eventually};
use crate::support::process::{Program, Ringway, address_after, ringway};

/// A relay with TLS, and the folder that its certificate is read from.
struct Secured {
    relay: Ringway,
    https: SocketAddr,
    folder: Folder,
}

impl Secured {
    fn start(name: &str, pair: &CertifiedKey<KeyPair>) -> Self {
        let folder = Folder::new(name);
        folder.put(pair);
        let (cert, key) = (folder.cert(), folder.key());
        let mut relay = Ringway::start(&[
            "--http-listen",
            "127.0.0.1:0",
            "--tls-cert",
            cert.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ]);
        let said = relay.program.said();
        let line = said.lines().find(|line| line.contains("HTTP API on ")).unwrap();
        assert!(line.ends_with(" (TLS)"), "{line}");
        let https = address_after(line, "HTTP API on ");
        Self { relay, https, folder }
    }

    /// A request by a client that trusts this certificate and no other.
    fn ask(&self, trusted: &CertifiedKey<KeyPair>) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("relay.example").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.https)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut stream = StreamOwned::new(session, socket);
        let head = "GET /api/v1/versions HTTP/1.1\r\nHost: relay.example\r\nConnection: close";
        write!(stream, "{head}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// A folder of one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringway-https-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn cert(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// As tools that renew certificates do it: each file is written beside the old one and renamed.
    fn put(&self, pair: &CertifiedKey<KeyPair>) {
        self.replace(self.cert(), &pair.cert.pem());
        self.replace(self.key(), &pair.signing_key.serialize_pem());
    }

    fn replace(&self, file: PathBuf, text: &str) {
        let next = self.0.join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, file).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["relay.example".to_owned()]).unwrap()
}

#[test]
fn a_request_over_tls_is_answered_and_the_system_api_stays_plain() {
    let pair = pair();
    let secured = Secured::start("answer", &pair);
    let answer = secured.ask(&pair).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(http::get(secured.relay.system, "/api/v1/versions").unwrap().status, 200);
}

#[test]
fn a_replaced_certificate_is_served_without_a_restart() {
    let (old, new) = (pair(), pair());
    let mut secured = Secured::start("renewal", &old);
    assert!(secured.ask(&new).is_err(), "it is not there yet");
    secured.folder.put(&new);
    eventually("the new certificate is served", || secured.ask(&new).ok());
    assert!(secured.ask(&old).is_err());
    secured.relay.program.wait_for("new connections get the new certificate");
}

#[test]
fn a_broken_replacement_is_said_once_and_the_old_certificate_stays() {
    let pair = pair();
    let mut secured = Secured::start("broken", &pair);
    secured.folder.replace(secured.folder.cert(), "nothing of the kind");
    let (mut said, mut warnings) = (String::new(), 0);
    eventually("the broken certificate is said", || {
        assert!(secured.ask(&pair).unwrap().starts_with("HTTP/1.1 200 OK"));
        said = secured.relay.program.said();
        warnings = said.matches("the new certificate cannot be used").count();
        (warnings > 0).then_some(())
    });
    assert!(said.contains("holds no certificate"), "{said}");
    secured.folder.put(&pair);
    eventually("the repaired certificate is said", || {
        secured.ask(&pair).unwrap();
        said = secured.relay.program.said();
        said.contains("new connections get the new certificate").then_some(())
    });
    assert_eq!(said.matches("the new certificate cannot be used").count(), 1, "{said}");
}

#[test]
fn plain_http_on_the_tls_port_ends_the_connection_and_nothing_else() {
    let pair = pair();
    let secured = Secured::start("plain", &pair);
    for noise in
        ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\u{16}\u{3}\u{1}\u{0}\u{4}junk", "\0\0\0\0\0\0\0\0"]
    {
        let mut stream = TcpStream::connect(secured.https).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(noise.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // An alert or a reset, and then the end.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{noise:?}");
    }
    assert!(secured.ask(&pair).unwrap().starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn certificates_that_cannot_be_served_end_the_start_with_code_2_and_the_remedy() {
    let (folder, right, other) = (Folder::new("start"), pair(), pair());
    folder.put(&right);
    let empty = folder.0.join("empty.pem");
    fs::write(&empty, "").unwrap();
    let foreign = folder.0.join("foreign.pem");
    fs::write(&foreign, other.signing_key.serialize_pem()).unwrap();
    let missing = folder.0.join("missing.pem");
    for (cert, key, named, remedy) in [
        (&missing, &folder.key(), &missing, "name a file that this process may read"),
        (&empty, &folder.key(), &empty, "-----BEGIN CERTIFICATE-----"),
        (&folder.cert(), &empty, &empty, "name a PEM file with one"),
        (&folder.cert(), &foreign, &foreign, "name the files of one pair"),
    ] {
        let mut command = ringway();
        command.args(["--srt-listen", "127.0.0.1:0", "--webrtc-listen", "off"]);
        command.args(["--system-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        let mut program = Program::start(command);
        let (code, _) = program.wait();
        let said = program.said();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(named.to_str().unwrap()) && said.contains(remedy), "{said}");
    }
}
