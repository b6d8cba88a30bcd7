//! The base of kustomize: it builds, and its probes get answers from a daemon with its
//! configuration.

use super::{replaced, shipped};
use crate::common::{Client, Server, command};
use crate::configured::{Port, folder, wait_until};
use ringwright_test_support::needs_program;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use tempfile::TempDir;
use yaml_rust2::{Yaml, YamlLoader};

/// The document of this kind.
#[track_caller]
fn of_kind<'a>(documents: &'a [Yaml], kind: &str) -> &'a Yaml {
    let mut found = documents.iter().filter(|document| document["kind"].as_str() == Some(kind));
    let (Some(document), None) = (found.next(), found.next()) else { panic!("one {kind}") };
    document
}

/// The documents that the base builds.
fn documents() -> Vec<Yaml> {
    let output = Command::new("kubectl").arg("kustomize").arg(shipped("kustomize")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    YamlLoader::load_from_str(std::str::from_utf8(&output.stdout).unwrap()).unwrap()
}

/// A daemon as in the pod, and the addresses of its ports.
struct Pod {
    container: Yaml,
    server: Server,
    ports: [(i64, SocketAddr); 2],
    _reserved: [Port; 3],
    _folder: TempDir,
}

impl Pod {
    fn start(documents: &[Yaml]) -> Self {
        let deployment = &of_kind(documents, "Deployment")["spec"]["template"]["spec"];
        let container = deployment["containers"][0].clone();
        let volume = &deployment["volumes"][0]["configMap"]["name"];
        let map = of_kind(documents, "ConfigMap");
        assert_eq!(*volume, map["metadata"]["name"]);
        let reserved = [Port::reserve(), Port::reserve(), Port::reserve()];
        let [http, admin, read] = reserved.each_ref().map(|port| port.address().to_string());
        let text = map["data"]["ringwrightd.toml"].as_str().unwrap();
        let text = replaced(
            text,
            &[
                ("0.0.0.0:8080", &http),
                ("127.0.0.1:9000", &admin),
                ("0.0.0.0:9001", &read),
                ("/srv/www", "www"),
            ],
        );
        let folder = folder(&[("www/a.txt", "file")]);
        let file = folder.path().join("ringwrightd.toml");
        fs::write(&file, text).unwrap();
        let arguments = ["run", "/etc/ringwrightd/ringwrightd.toml"];
        let given: Vec<_> = container["args"].as_vec().unwrap().iter().collect();
        assert_eq!(given.iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>(), arguments);
        let mut daemon = command(&["run", file.to_str().unwrap()]);
        let server = Server::start_listening(&mut daemon, &["http", "admin http", "admin http"]);
        let ports = [(8080, reserved[0].address()), (9001, reserved[2].address())];
        Self { container, server, ports, _reserved: reserved, _folder: folder }
    }

    /// The status that a probe gets.
    #[track_caller]
    fn probe(&self, name: &str) -> u16 {
        let get = &self.container[name]["httpGet"];
        let (path, port) = (get["path"].as_str().unwrap(), get["port"].as_str().unwrap());
        self.get(port, path)
    }

    /// The status of a path at a named port.
    #[track_caller]
    fn get(&self, port: &str, path: &str) -> u16 {
        let ports = self.container["ports"].as_vec().unwrap();
        let port = ports.iter().find(|it| it["name"].as_str() == Some(port)).expect("a port");
        let number = port["containerPort"].as_i64().unwrap();
        let (_, address) = self.ports.iter().find(|(it, _)| *it == number).expect("a listener");
        let mut client = Client::new(*address);
        // As the kubelet and a scraper name it.
        let request = format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:{number}\r\n\r\n");
        client.ask(&request).status
    }
}

/// Seconds of a duration in a configuration.
#[track_caller]
fn seconds(text: &str, key: &str) -> i64 {
    let (_, rest) = text.split_once(&format!("{key} = \"")).expect(key);
    rest.split_once("s\"").unwrap().0.parse().unwrap()
}

#[test]
fn the_probes_of_the_kustomize_base_are_answered() {
    if !needs_program("kubectl", "kubernetes-client") {
        return;
    }
    let documents = documents();
    let pod = Pod::start(&documents);
    let service = &of_kind(&documents, "Service")["spec"];
    let port = service["ports"][0]["targetPort"].as_str().unwrap();
    assert_eq!(pod.get(port, "/a.txt"), 200);
    let template = &of_kind(&documents, "Deployment")["spec"]["template"];
    for (label, value) in service["selector"].as_hash().unwrap() {
        assert_eq!(template["metadata"]["labels"][label.as_str().unwrap()], *value);
    }
    assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"].as_str(), Some("9001"));
    assert_eq!(pod.get("admin-read", "/metrics"), 200);
    assert_eq!((pod.probe("readinessProbe"), pod.probe("livenessProbe")), (200, 200));
    // At SIGTERM the pod leaves the Service, and new clients are still served.
    pod.server.signal(libc::SIGTERM);
    wait_until("the pod is not ready", || pod.probe("readinessProbe") == 503);
    assert_eq!((pod.probe("livenessProbe"), pod.get(port, "/a.txt")), (200, 200));
    // The kubelet kills it after the grace period.
    let map = of_kind(&documents, "ConfigMap");
    let text = map["data"]["ringwrightd.toml"].as_str().unwrap();
    let grace = template["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace > seconds(text, "drain_delay") + seconds(text, "timeouts = { drain"));
    pod.server.signal(libc::SIGTERM);
    pod.server.wait().cleanly();
}
