//! The dashboard and the alerts, asked of Debian's Prometheus after it has scraped the daemon.

use super::shipped;
use crate::common::{PATIENCE, Server};
use crate::configured::{Configured, Port, folder, request, wait_until};
use ringwright_test_support::needs_program;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A running Prometheus that scrapes one daemon each second and evaluates the shipped rules.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _port: Port,
    _folder: TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), Port::reserve());
        let rules = shipped("alerts.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n\
             - job_name: ringwrightd\n\
             \x20 static_configs: [{{targets: [\"{target}\"]}}]\n\
             - job_name: prometheus\n\
             \x20 static_configs: [{{targets: [\"{}\"]}}]\n",
            port.address()
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let (address, log) = (port.address(), folder.path().join("log"));
        let prometheus = Self { child, address, _port: port, _folder: folder };
        let give_up = std::time::Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(&log).unwrap();
            assert!(std::time::Instant::now() < give_up, "Prometheus does not start: {}", log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        prometheus
    }

    /// The values of an instant query.
    fn query(&self, query: &str) -> Vec<f64> {
        let url = format!("http://{}", self.address);
        let output = promtool(&["query", "instant", "--format=json", &url, query], "");
        // It answers 503 while it starts.
        let Ok(Value::Array(samples)) = serde_json::from_slice(&output.stdout) else {
            return Vec::new();
        };
        let value = |sample: &Value| sample["value"][1].as_str().unwrap().parse().unwrap();
        samples.iter().map(value).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// It has no complaint.
#[track_caller]
fn is_clean(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[must_use]
#[track_caller]
fn has_prometheus() -> bool {
    needs_program("promtool", "prometheus") && needs_program("prometheus", "prometheus")
}

/// A daemon with an admin listener and one that only reads, which is the last one.
fn start() -> Configured {
    let text = "[admin]\nlisten = \"127.0.0.1:0\"\nread = \"127.0.0.1:0\"\n\
                [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\nnames = [\"example.org\"]\n";
    let schemes = ["http", "admin http", "admin http"];
    Configured::start(folder(&[("www/a.txt", "file")]), text, &schemes)
}

/// Connections with some requests each.
fn load(server: &Server) {
    for target in ["/a.txt", "/missing"].repeat(5) {
        let mut client = server.client();
        for _ in 0..5 {
            client.ask(&request("GET", target, ""));
        }
    }
}

/// All queries of the dashboard, for one job and all instances.
fn queries() -> Vec<String> {
    let text = fs::read_to_string(shipped("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| {
            let query = target["expr"].as_str().unwrap().replace("$job", "ringwrightd");
            let query = query.replace("$instance", ".*").replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "a variable that Grafana does not have: {query}");
            query
        })
        .collect()
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ringwright_") || word.starts_with("process_")).collect()
}

#[test]
fn prometheus_answers_every_query() {
    if !has_prometheus() {
        return;
    }
    let running = start();
    let prometheus = Prometheus::start(running.server.admin.unwrap());
    let alerts = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let mut open = queries();
    assert!(open.len() > 25, "{open:?}");
    open.extend(metrics(&alerts).iter().map(|name| format!("count({name})")));
    wait_until("a scrape", || {
        load(&running.server);
        !prometheus.query("ringwright_http_requests_total > 0").is_empty()
    });
    wait_until(&format!("answers to {open:#?}"), || {
        load(&running.server);
        let is_answered = |query: &String| prometheus.query(query).iter().any(|it| it.is_finite());
        open.retain(|query| !is_answered(query));
        open.is_empty()
    });
    wait_until("the rules are evaluated", || {
        !prometheus.query("prometheus_rule_evaluations_total > 0").is_empty()
    });
    assert!(prometheus.query("prometheus_rule_evaluation_failures_total > 0").is_empty());
    assert!(prometheus.query("ALERTS").is_empty(), "an alert about a healthy daemon");
    running.stop();
}

#[test]
fn promtool_finds_the_metrics_clean() {
    if !has_prometheus() {
        return;
    }
    let running = start();
    load(&running.server);
    let page = running.server.admin().request("GET", "/metrics");
    let page = String::from_utf8(page.body).unwrap();
    is_clean(&promtool(&["check", "metrics"], &page));
    // It does complain about others.
    let damaged = page.replace("_total", "_sum");
    assert!(!promtool(&["check", "metrics"], &damaged).stderr.is_empty());
    running.stop();
}

#[test]
fn promtool_finds_the_rules_clean() {
    if has_prometheus() {
        let rules: &Path = &shipped("alerts.yml");
        is_clean(&promtool(&["check", "rules", "--lint-fatal", rules.to_str().unwrap()], ""));
    }
}
