use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn framing(body_bytes_max: usize) -> Framing {
    Framing::new(body_bytes_max, &Config::default()).expect("it fits")
}

fn stream_of(packets: &[Vec<u8>]) -> Vec<u8> {
    let framing = framing(1_000);
    let packet = |body: &Vec<u8>| [&framing.header(body.len()).unwrap()[..], body].concat();
    packets.iter().flat_map(packet).collect()
}

/// What the engine does with `need` and what `received` returns: keeps the rest, and calls only
/// when so much is there. Returns the packets, and how often it called.
fn receive(framing: Framing, stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, usize) {
    let (mut packets, mut calls, mut used, mut need) = (Vec::new(), 0, 0, 0);
    for end in cuts.iter().copied().chain([stream.len()]) {
        let shown = &stream[used..end.max(used)];
        if shown.is_empty() || shown.len() < need {
            continue;
        }
        let mut split = framing.packets(shown);
        packets.extend((&mut split).map(|body| body.expect("short enough").to_vec()));
        (calls, need, used) = (calls + 1, split.need(), used + split.used());
    }
    assert_eq!(used, stream.len(), "everything is used");
    (packets, calls)
}

#[test]
fn a_maximum_that_a_connection_cannot_keep_is_refused() {
    let config = Config { message_bytes_max: 104, ..Config::default() };
    assert_eq!(Framing::new(100, &config).unwrap().body_bytes_max(), 100);
    let refused = Framing::new(101, &config).unwrap_err();
    assert_eq!(refused, CreateFramingError { body_bytes_max: 101, message_bytes_max: 104 });
    assert!(refused.to_string().contains("raise it to 105"), "{refused}");
    let boundless = Config { message_bytes_max: usize::MAX, ..Config::default() };
    assert!(Framing::new(u32::MAX as usize, &boundless).is_ok());
    assert!(Framing::new(u32::MAX as usize + 1, &boundless).is_err());
    assert!(Framing::new(usize::MAX, &boundless).is_err());
}

#[test]
fn a_length_above_the_maximum_names_both_and_ends_it() {
    let bytes = [&[0, 0, 0, 1, 7, 0, 0, 1, 0][..], &[0; 300]].concat();
    let mut packets = framing(255).packets(&bytes);
    assert_eq!(packets.next(), Some(Ok(&[7][..])));
    let too_long = FramePacketError { body_bytes: 256, body_bytes_max: 255 };
    assert_eq!(packets.next(), Some(Err(too_long)));
    assert_eq!(packets.next(), Some(Err(too_long)), "nothing follows it");
    assert_eq!((packets.used(), packets.need()), (5, 4), "it would be seen again");
    let said = too_long.to_string();
    assert!(said.contains("256") && said.contains("255"), "{said}");
    assert_eq!(framing(255).header(256), Err(too_long));
    assert_eq!(framing(255).header(255), Ok([0, 0, 0, 255]));
    // Seen from the length alone, before the body has come.
    assert!(framing(10).packets(&[0, 0, 0, 11]).next().is_some_and(|packet| packet.is_err()));
}

#[test]
fn an_empty_packet_is_one_and_no_bytes_are_none() {
    let mut packets = framing(0).packets(&[0; 8]);
    assert_eq!(packets.next(), Some(Ok(&[][..])));
    assert_eq!(packets.next(), Some(Ok(&[][..])));
    assert_eq!(packets.next(), None);
    assert_eq!((packets.used(), packets.need()), (8, 4));
    assert_eq!(framing(0).packets(&[]).next(), None);
}

#[test]
fn what_was_not_taken_is_not_used() {
    let stream = stream_of(&[vec![1; 3], vec![2; 5], vec![3; 7]]);
    let mut packets = framing(10).packets(&stream);
    let first = packets.next().unwrap().unwrap();
    assert_eq!(first.as_ptr(), stream[4..].as_ptr(), "it is not a copy");
    assert_eq!((packets.used(), packets.need()), (7, 9), "the second is there already");
}

proptest! {
    /// Cut anywhere, any number of times, the same packets come out; and beside the first a call
    /// is made only for the length of a packet and for its end.
    #[test]
    fn packets_do_not_depend_on_how_the_stream_is_cut(
        packets in vec(vec(any::<u8>(), 0..40), 0..8),
        cuts in vec(any::<proptest::sample::Index>(), 0..60),
    ) {
        let stream = stream_of(&packets);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let (received, calls) = receive(framing(1_000), &stream, &cuts);
        prop_assert!(calls <= 1 + 2 * packets.len(), "{} calls", calls);
        prop_assert_eq!(received, packets);
    }

    /// Byte by byte, and every split in two.
    #[test]
    fn every_split_in_two_gives_the_same(packets in vec(vec(any::<u8>(), 0..20), 1..5)) {
        let stream = stream_of(&packets);
        for cut in 0..=stream.len() {
            prop_assert_eq!(&receive(framing(1_000), &stream, &[cut]).0, &packets);
        }
        let everywhere: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&receive(framing(1_000), &stream, &everywhere).0, &packets);
    }

    /// Any bytes: nothing panics, nothing is used twice, and what is needed is more than is there
    /// unless a packet is too long.
    #[test]
    fn any_bytes_are_packets_or_an_error(bytes in vec(0u8..3, 0..200), most in 0usize..70_000) {
        let most = most.min(Config::default().message_bytes_max - Framing::HEADER_BYTES);
        let mut packets = framing(most).packets(&bytes);
        let mut bodies = 0;
        let mut too_long = false;
        for packet in &mut packets {
            match packet {
                Ok(body) => bodies += Framing::HEADER_BYTES + body.len(),
                Err(error) => {
                    prop_assert!(error.body_bytes > most && error.body_bytes_max == most);
                    too_long = true;
                    break;
                }
            }
        }
        let rest = bytes.len() - packets.used();
        prop_assert_eq!(packets.used(), bodies);
        prop_assert!(too_long || packets.need() > rest);
        prop_assert!(packets.need() <= Config::default().message_bytes_max);
    }
}
