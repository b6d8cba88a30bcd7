//! The options that change what `ringload http` sends, and which replies are right.

use crate::support::{http, run_http, server};

#[test]
fn only_expected_statuses_pass() {
    let address = server(|stream| {
        let not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone";
        http(stream, |_, _| Some(not_found.to_vec()));
    });
    run_http(address, "-n 10 -c 2").only("bad_status");
    for list in ["404", "200,4xx"] {
        let ended = run_http(address, &format!("-n 10 -c 2 --expect-status {list}"));
        ended.passed();
        assert_eq!(ended.report["statuses"], serde_json::json!({ "404": 10 }), "{ended}");
        assert_eq!(ended.report["plan"]["expect_status"], list, "{ended}");
    }
    run_http(address, "-n 10 -c 2 --expect-status 2xx,304").only("bad_status");
}
