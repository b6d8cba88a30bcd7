use super::*;
use crate::dialect::{Ending, Request};
use crate::dialects::learnt::tests::{content, files};
use crate::finding::{Finding, Rule};
use crate::oracle::tests::{LIMITS, seen};
use proptest::prelude::*;

const KEY: Key = Key { seed: 7, number: 3 };

fn http(strictness: Strictness) -> Http {
    let files = files(
        &[("/a", content(1, 3_000)), ("/b", content(2, 400_000)), ("/empty", Vec::new())],
        usize::MAX,
    );
    Http { known: Arc::new(Known { host: "h:1".into(), files, strictness }) }
}

fn phrases(text: &str) -> Vec<Phrase> {
    text.split(',').map(Into::into).collect()
}

fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn a() -> Vec<u8> {
    content(1, 3_000)
}

/// Returns the result of a checker for `bytes` and a FIN, after everything was sent.
fn receive(
    http: &Http,
    say: &str,
    bytes: &[u8],
    cuts: &[usize],
) -> (Result<(), Finding>, u64, bool) {
    let mut checker = http.checker(KEY, &phrases(say)).expect("phrases");
    let mut start = 0;
    let mut ends: Vec<usize> = cuts.to_vec();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut result = Ok(());
    for end in ends {
        result = result.and_then(|()| checker.receive(&bytes[start..end], u64::MAX));
        start = end;
    }
    (result.and_then(|()| checker.fin()), checker.replies(), checker.is_last())
}

fn rule(strictness: Strictness, say: &str, bytes: &[u8]) -> Rule {
    receive(&http(strictness), say, bytes, &[]).0.expect_err(say).rule
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn right_replies_are_right_however_they_are_cut(
        cuts in prop::collection::vec(0_usize..4_000, 0..20),
    ) {
        let replies = [
            &ok(&a())[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n",
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\
              Content-Range: bytes 7-9/3000\r\n\r\n",
            &a()[7..10],
            b"HTTP/1.1 416 No\r\nContent-Length: 2\r\n\r\nno",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nbb8\r\n", &a(), b"\r\n0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ].concat();
        let say = "get:/a,head:/b,range:/a:7-9,range:/a:3000-3001,body:/a:10,bad:no-host";
        for strictness in [Strictness::Own, Strictness::Foreign] {
            let received = receive(&http(strictness), say, &replies, &cuts);
            prop_assert_eq!(received, (Ok(()), 6, true));
        }
    }

    #[test]
    fn one_wrong_byte_in_a_body_is_found(
        at in 0_usize..3_000, by in 1_u8.., cuts in prop::collection::vec(0_usize..3_000, 0..5),
    ) {
        let mut body = a();
        body[at] ^= by;
        let received = receive(&http(Strictness::Foreign), "get:/a", &ok(&body), &cuts);
        let finding = received.0.expect_err("a wrong byte");
        prop_assert_eq!(finding.rule, Rule::WrongBytes);
        let says = format!("reply 1 (get:/a): byte {at} of /a is");
        prop_assert!(finding.detail.starts_with(&says), "{}", finding.detail);
    }

    #[test]
    fn a_fin_anywhere_in_a_reply_cuts_it(end in 1_usize..3_038) {
        let reply = ok(&a());
        assert!(end < reply.len());
        let finding = receive(&http(Strictness::Foreign), "get:/a", &reply[..end], &[]).0;
        prop_assert_eq!(finding.expect_err("cut").rule, Rule::CutReply);
    }

    #[test]
    fn what_is_drawn_can_be_said(mut state: u64, in_file: bool) {
        let http = http(Strictness::Own);
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let drawn = http.draw(in_file, &mut random);
        let outgoing = http.outgoing(KEY, &drawn).expect("phrases");
        let is_file = |request: &Request| request.is_file;
        prop_assert!(!in_file || outgoing.requests.iter().any(is_file), "{:?}", drawn);
        let (last, before) = outgoing.requests.split_last().expect("at least one");
        prop_assert!(before.iter().all(|request| request.is_proper), "{:?}", drawn);
        prop_assert_eq!(last.end, outgoing.bytes.len() as u64);
    }
}

#[test]
fn what_a_script_asks_for_can_be_learnt_from_it() {
    let say = phrases("get:/a:1,head:/a:1,range:/b:7-9,body:/c:5,bad:tls,nonsense");
    assert_eq!(paths(&say), ["/a:1", "/b", "/c"]);
}

#[test]
fn another_files_bytes_are_told_whose_they_are() {
    let b = &content(2, 400_000)[..3_000];
    let finding =
        receive(&http(Strictness::Foreign), "get:/a", &ok(b), &[40]).0.expect_err("foreign");
    assert_eq!(finding.rule, Rule::ForeignBytes);
    assert!(finding.detail.contains("these bytes belong to offset 0 of /b"), "{finding:?}");
    // The same if the reply has the length of the other file.
    let b = content(2, 400_000);
    assert_eq!(rule(Strictness::Foreign, "get:/a", &ok(&b)), Rule::ForeignBytes);
}

#[test]
fn each_way_to_answer_wrongly_has_its_rule() {
    let short = ok(&a()[..2_999]);
    let twice = [ok(&a()), ok(&a())].concat();
    let close = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let part = b"HTTP/1.1 206 Part\r\nContent-Length: 1\r\nContent-Range: bytes 8-8/3000\r\n\r\nx";
    let behind = [&close[..], b"HTTP/1.1 200 OK\r\n"].concat();
    for (say, bytes, own, foreign) in [
        ("get:/a", &b"SSH-2.0-OpenSSH\r\n"[..], Some(Rule::Protocol), Some(Rule::Protocol)),
        ("get:/a", &short, Some(Rule::WrongBytes), Some(Rule::WrongBytes)),
        ("get:/a", &twice, Some(Rule::Unasked), Some(Rule::Unasked)),
        ("get:/a", close, Some(Rule::BadStatus), Some(Rule::BadStatus)),
        ("get:/a", busy, Some(Rule::BadStatus), None),
        ("range:/a:7-7", part, Some(Rule::Protocol), Some(Rule::Protocol)),
        ("range:/a:7-7", &ok(&a()), Some(Rule::BadStatus), None),
        ("bad:no-host", busy, Some(Rule::Protocol), None),
        ("bad:no-host", &ok(b""), Some(Rule::Protocol), Some(Rule::Protocol)),
        ("bad:bare-lf", &ok(b""), Some(Rule::Protocol), None),
        ("bad:tls,get:/a", &behind, Some(Rule::Unasked), Some(Rule::Unasked)),
    ] {
        for (strictness, expected) in [(Strictness::Own, own), (Strictness::Foreign, foreign)] {
            let received = receive(&http(strictness), say, bytes, &[]).0;
            assert_eq!(
                received.err().map(|finding| finding.rule),
                expected,
                "{say} {strictness:?}"
            );
        }
    }
}

#[test]
fn a_body_that_varies_is_read_to_its_end_and_not_compared() {
    let mut http = http(Strictness::Own);
    let known = Arc::get_mut(&mut http.known).expect("the only one");
    known.files.0[0].varies = true;
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let replies = [&ok(b"now"), &chunked[..], &ok(b"")].concat();
    let received = receive(&http, "get:/a,body:/a:10,range:/a:0-1", &replies, &[50]);
    assert_eq!(received, (Ok(()), 3, false));
    let cut = receive(&http, "get:/a", &ok(b"now")[..30], &[]).0;
    assert_eq!(cut.expect_err("cut").rule, Rule::CutReply);
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let finding = receive(&http, "get:/a", missing, &[]).0.expect_err("a status");
    assert_eq!(finding.rule, Rule::BadStatus);
}

#[test]
fn nothing_is_answered_before_it_was_asked() {
    let http = http(Strictness::Own);
    for (sent, must) in [(0, Err(Rule::Unasked)), (5, Err(Rule::Unasked)), (30, Ok(()))] {
        let mut checker = http.checker(KEY, &phrases("get:/a")).expect("phrases");
        let received = checker.receive(&ok(&a()), sent).map_err(|finding| finding.rule);
        assert_eq!(received, must, "{sent}");
    }
    // A foreign server may explain the end of a silent connection.
    let farewell = b"HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    for (strictness, must) in [(Strictness::Own, Err(Rule::Unasked)), (Strictness::Foreign, Ok(()))]
    {
        let mut checker = self::http(strictness).checker(KEY, &phrases("get:/a")).expect("phrases");
        assert_eq!(
            checker.receive(farewell, 0).map_err(|finding| finding.rule),
            must,
            "{strictness:?}"
        );
    }
    // HTTP gives the body of a GET no meaning, but ringwrightd waits for it.
    for (strictness, must) in [(Strictness::Own, Err(Rule::Unasked)), (Strictness::Foreign, Ok(()))]
    {
        let mut checker =
            self::http(strictness).checker(KEY, &phrases("body:/a:100")).expect("phrases");
        assert_eq!(
            checker.receive(&ok(&a()), 70).map_err(|finding| finding.rule),
            must,
            "{strictness:?}"
        );
    }
    // A server may time out on half a request.
    let mut checker = http.checker(KEY, &phrases("get:/a")).expect("phrases");
    let late = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(checker.receive(late, 5), Ok(()));
    assert!(checker.is_last());
    assert_eq!(checker.receive(b"more", 5).expect_err("behind the end").rule, Rule::Unasked);
    // It may not know yet that the method is HEAD.
    let mut checker = http.checker(KEY, &phrases("head:/a")).expect("phrases");
    let late = b"HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate";
    assert_eq!(checker.receive(late, 5), Ok(()));
    assert_eq!((checker.fin(), checker.replies()), (Ok(()), 1));
}

/// Returns the finding on a connection that sends `get:/a,get:/a`, 60 bytes.
fn judged(strictness: Strictness, record: &Record) -> Option<Rule> {
    let http = http(strictness);
    let outgoing = http.outgoing(KEY, &phrases("get:/a,get:/a")).expect("phrases");
    assert_eq!(outgoing.bytes.len(), 60);
    http.judge(&outgoing, record, &LIMITS).finding.map(|finding| finding.rule)
}

#[test]
fn endings_are_judged_by_what_the_server_promises() {
    use Ending::{Fin, Reset, Silence};
    let (lost, reset) = (Some(Rule::LostReply), Some(Rule::ResetInsteadOfReply));
    let (provoked, silent) = (Some(Rule::UnprovokedReset), Some(Rule::NotServed));
    for (sent, replies, fin, ending, own, foreign) in [
        // Half a request needs no reply.
        (20, 0, true, Fin, None, None),
        (20, 0, false, Reset, provoked, provoked),
        (20, 0, true, Reset, provoked, None),
        // The first request must be answered; pipelined ones need not be.
        (30, 0, false, Fin, lost, lost),
        (60, 1, false, Fin, lost, None),
        (60, 1, true, Fin, lost, None),
        (30, 0, true, Fin, lost, None),
        (60, 2, false, Fin, None, None),
        // A reset must not replace a reply.
        (30, 0, false, Reset, reset, reset),
        (30, 0, true, Reset, reset, reset),
        (60, 1, true, Reset, reset, reset),
        (60, 2, false, Reset, provoked, provoked),
        (60, 1, false, Silence, silent, silent),
        (60, 2, false, Silence, None, None),
        (60, 2, true, Silence, Some(Rule::NoReaction), Some(Rule::NoReaction)),
    ] {
        let mut record = seen(sent, replies * 3_038, ending);
        record.replies = replies;
        record.actions.fin = fin;
        let shown = format!("{sent} said, {replies} replies, fin {fin}, {ending:?}");
        assert_eq!(judged(Strictness::Own, &record), own, "own: {shown}");
        assert_eq!(judged(Strictness::Foreign, &record), foreign, "foreign: {shown}");
        record.announced_end = true;
        if ending != Silence {
            assert_eq!(judged(Strictness::Own, &record), None, "announced: {shown}");
        }
        record.actions.gone = true;
        if ending != Silence {
            assert_eq!(judged(Strictness::Own, &record), None, "gone: {shown}");
        }
    }
    let mut record = seen(60, 3_038, Silence);
    (record.replies, record.announced_end) = (1, true);
    assert_eq!(judged(Strictness::Foreign, &record), Some(Rule::NoReaction));
}

#[test]
fn what_is_malformed_is_refused_by_ours() {
    let judged = |strictness, replies, ending| {
        let http = http(strictness);
        let outgoing = http.outgoing(KEY, &phrases("get:/a,bad:tls")).expect("phrases");
        let mut record = seen(outgoing.bytes.len() as u64, 5_000, ending);
        record.replies = replies;
        http.judge(&outgoing, &record, &LIMITS).finding.map(|finding| finding.rule)
    };
    use Ending::{Fin, Reset, Silence};
    use Strictness::{Foreign, Own};
    assert_eq!(judged(Own, 1, Fin), Some(Rule::LostReply));
    assert_eq!(judged(Own, 2, Fin), None);
    assert_eq!(judged(Own, 1, Silence), Some(Rule::NotServed));
    for ending in [Fin, Reset, Silence] {
        assert_eq!(judged(Foreign, 1, ending), None, "{ending:?}");
    }
    assert_eq!(judged(Foreign, 0, Silence), Some(Rule::NotServed));
}
