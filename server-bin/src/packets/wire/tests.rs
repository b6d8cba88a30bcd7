use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn code_of(body: &[u8]) -> Option<Code> {
    parse(body).1.err().map(|refusal| refusal.code)
}

#[test]
fn every_request_is_read() {
    let cases: &[(&[u8], Request<'_>)] = &[
        (b"\x01abc", Request::Echo(b"abc")),
        (b"\x01", Request::Echo(b"")),
        (b"\x02abc", Request::Digest(b"abc")),
        (b"\x03name", Request::DigestFile(b"name")),
        (b"\x04abc", Request::Broadcast(b"abc")),
        (b"\x05", Request::List(b"")),
        (b"\x05name", Request::List(b"name")),
        (b"\x06n", Request::Get(b"n")),
        (b"\x07\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\0", Request::Take { offset: 1, length: 5 << 32 }),
        (b"\x08\x01\0\0\0\x05\0\0\0\0n", Request::Put { replace: true, size: 5 << 32, name: b"n" }),
        (b"\x08\0\0\0\0\0\0\0\0\x07n", Request::Put { replace: false, size: 7, name: b"n" }),
        (b"\x09\0\0\0\x01", Request::Data(1)),
        (b"\x09\0\x40\0\0", Request::Data(CHUNK_IN_BYTES_MAX)),
        (b"\x0a", Request::Abort),
        (
            b"\x0b\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\0vvvvvvvvvvvvvvvvn",
            Request::GetRange { offset: 1, length: 5 << 32, version: [b'v'; 16], name: b"n" },
        ),
        (
            b"\x0c\x01\0\0\0\x05\0\0\0\0vvvvvvvvvvvvvvvvn",
            Request::PutResumable { replace: true, size: 5 << 32, version: [b'v'; 16], name: b"n" },
        ),
    ];
    for (packet, request) in cases {
        let body = [&packet[..1], &[0xff, 2, 3, 4], &packet[1..]].concat();
        assert_eq!(parse(&body), (0xff02_0304, Ok(*request)), "{packet:02x?}");
    }
}

#[test]
fn what_is_wrong_has_its_code() {
    let long = [&[0x06, 0, 0, 0, 1][..], &[b'n'; 256]].concat();
    let longest = &long[..long.len() - 1];
    assert_eq!(code_of(longest), None, "255 bytes are a name");
    let cases: &[(&[u8], Code)] = &[
        (b"", Code::Malformed),
        (b"\x01\0\0\0", Code::Malformed),
        (b"\0\0\0\0\0", Code::UnknownType),
        (b"\x0d\0\0\0\0", Code::UnknownType),
        (b"\x81\0\0\0\0", Code::UnknownType),
        (b"\x03\0\0\0\0", Code::BadName),
        (b"\x06\0\0\0\0", Code::BadName),
        (b"\x06\0\0\0\0.", Code::BadName),
        (b"\x06\0\0\0\0..", Code::BadName),
        (b"\x06\0\0\0\0.hidden", Code::BadName),
        (b"\x06\0\0\0\0a/b", Code::BadName),
        (b"\x06\0\0\0\0/", Code::BadName),
        (b"\x06\0\0\0\0a\0", Code::BadName),
        (b"\x05\0\0\0\0..", Code::BadName),
        (b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Code::Malformed),
        (b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Code::Malformed),
        (b"\x08\0\0\0\0", Code::Malformed),
        (b"\x08\0\0\0\0\0\0\0\0\0\0\0\0", Code::Malformed),
        (b"\x08\0\0\0\0\0\0\0\0\0\0\0\0\0", Code::BadName),
        (b"\x08\0\0\0\0\x02\0\0\0\0\0\0\0\0n", Code::Malformed),
        (b"\x09\0\0\0\0\0\0\0\0", Code::Malformed),
        (b"\x09\0\0\0\0\0\0\0", Code::Malformed),
        (b"\x09\0\0\0\0\0\0\0\x01x", Code::Malformed),
        (b"\x09\0\0\0\0\0\x40\0\x01", Code::TooLong),
        (b"\x09\0\0\0\0\xff\xff\xff\xff", Code::TooLong),
        (b"\x0a\0\0\0\0x", Code::Malformed),
        (&long, Code::BadName),
        (&[&[0x0b, 0, 0, 0, 0][..], &[0; 15]].concat(), Code::Malformed),
        (&[&[0x0b, 0, 0, 0, 0][..], &[0; 31]].concat(), Code::Malformed),
        (&[&[0x0b, 0, 0, 0, 0][..], &[0; 32]].concat(), Code::BadName),
        (&[&[0x0c, 0, 0, 0, 0][..], &[0; 24]].concat(), Code::Malformed),
        (&[&[0x0c, 0, 0, 0, 0, 2][..], &[0; 24], b"n"].concat(), Code::Malformed),
        (&[&[0x0c, 0, 0, 0, 0][..], &[0; 25]].concat(), Code::BadName),
    ];
    for (body, code) in cases {
        assert_eq!(code_of(body), Some(*code), "{body:02x?}");
    }
}

#[test]
fn only_what_nobody_can_read_on_behind_ends_a_connection() {
    let ends = |code| Refusal::new(code, "").ends_connection();
    assert!(ends(Code::Malformed) && ends(Code::TooLong));
    assert!(!ends(Code::UnknownType) && !ends(Code::Expired) && !ends(Code::ReadOnly));
}

#[test]
fn errors_of_the_system_have_codes() {
    let of = |errno, of: fn(&io::Error) -> Refusal| of(&io::Error::from_raw_os_error(errno));
    for errno in [libc::ENOENT, libc::ELOOP, libc::ENXIO, libc::EXDEV] {
        assert_eq!(of(errno, Refusal::of_reading).code, Code::NoSuchFile);
    }
    assert_eq!(of(libc::EACCES, Refusal::of_reading).code, Code::Failed);
    assert_eq!(of(libc::ENOSPC, Refusal::of_writing).code, Code::DiskFull);
    assert_eq!(of(libc::EDQUOT, Refusal::of_writing).code, Code::DiskFull);
    assert_eq!(of(libc::EFBIG, Refusal::of_writing).code, Code::TooLarge);
    assert_eq!(of(libc::EEXIST, Refusal::of_writing).code, Code::Exists);
    let no_support = of(libc::EOPNOTSUPP, Refusal::of_writing);
    assert_eq!(no_support.code, Code::Failed);
    assert!(no_support.text.contains("os error 95"), "{}", no_support.text);
    assert_eq!(of(libc::EIO, Refusal::of_writing).code, Code::Failed);
}

proptest! {
    /// Any bytes are a request or a refusal, and the fields of a request lie within the packet.
    #[test]
    fn any_bytes_are_read(body in vec(any::<u8>(), 0..300)) {
        let (id, request) = parse(&body);
        if body.len() >= HEAD_BYTES {
            prop_assert_eq!(&id.to_be_bytes()[..], &body[1..HEAD_BYTES]);
        } else {
            let code = request.as_ref().err().map(|refusal| refusal.code);
            prop_assert_eq!(code, Some(Code::Malformed));
        }
        match request {
            Err(refusal) => prop_assert!(refusal.text.len() < 100),
            Ok(
                Request::Get(name)
                | Request::DigestFile(name)
                | Request::Put { name, .. }
                | Request::GetRange { name, .. }
                | Request::PutResumable { name, .. },
            ) => {
                prop_assert!((1..=255).contains(&name.len()) && name[0] != b'.');
                prop_assert!(!name.contains(&b'/') && !name.contains(&0));
            }
            Ok(Request::Data(count)) => prop_assert!((1..=CHUNK_IN_BYTES_MAX).contains(&count)),
            Ok(_) => {}
        }
    }

    /// Known types with arbitrary fields.
    #[test]
    fn any_fields_are_read(kind in 0_u8..14, fields in vec(any::<u8>(), 0..40)) {
        let body = [&[kind, 0, 0, 0, 1][..], &fields].concat();
        let (id, request) = parse(&body);
        prop_assert_eq!(id, 1);
        match request {
            Ok(Request::Echo(bytes) | Request::Digest(bytes) | Request::Broadcast(bytes)) => {
                prop_assert_eq!(bytes, &fields[..]);
            }
            Ok(Request::Take { offset, length }) => {
                let back = [offset.to_be_bytes(), length.to_be_bytes()].concat();
                prop_assert_eq!(back, fields);
            }
            _ => {}
        }
    }
}
