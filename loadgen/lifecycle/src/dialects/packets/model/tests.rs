use super::*;
use crate::dialect::Key;
use crate::dialects::learnt::tests::files;
use crate::dialects::packets::phrase::Phrase;
use crate::dialects::packets::speaker::Speaker;

/// Returns the expected answers to `say` as text.
fn expected(say: &str) -> Vec<String> {
    let files = files(&[("a", vec![1; 10])], usize::MAX);
    let mut speaker = Speaker::new(Key { seed: 1, number: 0 }, &files, 9);
    for text in say.split(',') {
        speaker.say(&Phrase::read(text, &files).expect(text));
    }
    let model = Model::of(&speaker.bytes, &files);
    let end = speaker.bytes.len() as u64;
    assert!(model.expected.iter().all(|expected| expected.due <= end));
    assert!(model.expected.is_sorted_by_key(|expected| expected.due));
    let show = |expected: &Expected| {
        let what = format!("{:?}", expected.what);
        let name = what.split([' ', '(']).next().unwrap_or_default();
        match &expected.what {
            What::Refusal { code, is_last } => {
                format!("{} error {code}{}", expected.id, if *is_last { "!" } else { "" })
            }
            _ => format!("{} {name}", expected.id),
        }
    };
    model.expected.iter().map(show).collect()
}

#[test]
fn each_request_has_its_answers() {
    for (say, must) in [
        ("echo:2,digest:3,list", "1 Echoed,2 Digested,3 Listed"),
        ("get:a,get:a:2:3", "1 Offer,1 Sent,2 Offer,2 Sent"),
        ("range:a:2:3,range:a:2:18446744073709551615", "1 Range,1 Sent,2 Range,2 Sent"),
        ("range:a:2:9,range:a:11:0,echo:1", "1 error 14,2 error 14,3 Echoed"),
        ("resume:5,echo:1", "1 Resumed,1 Aborted,2 Echoed"),
        ("get:a:2:9,abort", "1 Offer,1 error 14,2 error 12"),
        ("put:0,put:7", "1 Accepted,1 Stored,2 DigestedFile,3 Accepted,3 Stored,4 DigestedFile"),
        ("abort-get:a,abort-take:a", "1 Offer,1 Aborted,2 Offer,2 Sent,2 Aborted"),
        ("abort-put:9,echo:1", "1 Accepted,1 Aborted,2 Echoed"),
        ("data:9,echo:1,broadcast:1", "2 Echoed,3 BroadcastSent"),
    ] {
        assert_eq!(expected(say).join(","), must, "{say}");
    }
}

#[test]
fn lies_are_read_as_they_must_be() {
    for (say, must) in [
        // A packet that is too long or too short ends the connection.
        ("lie:65537:20,echo:1", "0 error 2!"),
        ("lie:4294967295:0,echo:1", "0 error 2!"),
        ("lie:2147483648:9", "0 error 2!"),
        ("lie:0:0,echo:1", "0 error 1!"),
        ("lie:4:4,echo:1", "0 error 1!"),
        ("lie:65536:65536,echo:1", "1 Echoed,2 Echoed"),
        // The next bytes belong to the body: 12 bytes of an echo, the second of which is 10.
        ("lie:17:5,echo:3,echo:1", "1 Echoed,3 Echoed"),
        // The body never comes.
        ("lie:500:20,echo:3", ""),
        ("type:ff:9,type:0d:0,echo:0", "1 error 3,2 error 3,3 Echoed"),
        ("type:07:15,echo:0", "1 error 1!"),
        ("type:08:0", "1 error 1!"),
        ("type:09:3", "1 error 1!"),
        ("type:0a:1", "1 error 1!"),
        ("type:06:0,type:03:0,echo:0", "1 error 5,2 error 5,3 Echoed"),
        ("type:0b:31", "1 error 1!"),
        ("type:0b:32,echo:0", "1 error 5,2 Echoed"),
        ("type:0c:0", "1 error 1!"),
        ("chunk:0,echo:0", "1 error 1!"),
        ("chunk:4194305,echo:0", "1 error 2!"),
        ("chunk:9,echo:0,echo:0", "3 Echoed"),
        ("over:5,echo:0", "1 Accepted,1 error 1!"),
    ] {
        assert_eq!(expected(say).join(","), must, "{say}");
    }
}

#[test]
fn an_answer_is_due_with_the_last_byte_of_its_request() {
    let model = Model::of(&[0, 0, 0, 5, 1, 0, 0, 0, 1, 0, 0, 0, 5, 1], &Files::default());
    assert_eq!((model.due(8), model.due(9), model.due(14)), (0, 1, 1));
}
