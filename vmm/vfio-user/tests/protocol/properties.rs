//! Properties that hold for everything a client may send.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use proptest::collection::vec;
use proptest::prelude::*;
use refault_vfio_user::connection::Connection;
use refault_vfio_user::request::{DATA_MAX, PAYLOAD_MAX, Request, parse};

use crate::client::{Client, POSTED, bytes, message, send};
use crate::recorder::Recorder;

/// A field value: small, at an edge, or arbitrary.
fn field() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..0x30u32,
        2 => prop_oneof![Just(0xff8), Just(0xffc), Just(0x1000), Just(1 << 20), Just(u32::MAX), Just(u32::MAX - 7)],
        1 => any::<u32>(),
    ]
}

/// A payload of arbitrary bytes, or of as many fields as some command has.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop_oneof![Just(0usize), Just(4), Just(5), Just(6), Just(8), 0..12usize];
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        4 => fields
            .prop_flat_map(|count| vec(field(), count))
            .prop_map(|fields| fields.iter().flat_map(|field| field.to_le_bytes()).collect()),
        2 => (field(), 0..9u32, 0..12u32).prop_map(|(offset, region, count)| {
            [bytes![u64::from(offset), region, count], vec![0xa5; count as usize]].concat()
        }),
    ]
}

fn command() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 0..16u16, 1 => any::<u16>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_request_that_is_accepted_lies_in_its_bounds(command in command(), payload in payload()) {
        match parse(command, &payload) {
            Ok(Request::DmaMap(map)) => {
                prop_assert!(map.size > 0);
                prop_assert!(map.address.checked_add(map.size).is_some());
                prop_assert!(map.offset.checked_add(map.size).is_some());
            }
            Ok(Request::DmaUnmap(unmap)) => {
                prop_assert!(unmap.address.checked_add(unmap.size).is_some());
                prop_assert!(unmap.all || unmap.size > 0);
            }
            Ok(Request::SetIrqs(set)) => prop_assert!(set.start.checked_add(set.count).is_some()),
            Ok(Request::RegionRead(access) | Request::RegionWrite(access, _)) => {
                prop_assert!((1..=DATA_MAX).contains(&(access.count as usize)));
                prop_assert!(access.offset.checked_add(access.count.into()).is_some());
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn each_request_that_waits_is_answered_once_in_order(
        requests in vec((any::<u16>(), command(), any::<bool>(), payload()), 0..24),
    ) {
        let client = Client::greeted(&Recorder::new());
        for (id, command, posted, payload) in &requests {
            let flags = if *posted { POSTED } else { 0 };
            send(&client.stream, &message(*id, *command, flags, payload), &[]);
        }
        let (answers, end) = client.leave();
        prop_assert!(end.is_ok());
        let waits = requests.iter().filter(|(_, _, posted, _)| !posted);
        let expected: Vec<_> = waits.map(|(id, command, ..)| (*id, *command)).collect();
        let got: Vec<_> = answers.iter().map(|answer| (answer.id, answer.command)).collect();
        prop_assert_eq!(got, expected);
        for answer in answers {
            prop_assert!(matches!((answer.flags, answer.error), (1, 0) | (0x21, 1..)));
            prop_assert!(answer.payload.len() <= PAYLOAD_MAX);
        }
    }

    #[test]
    fn any_bytes_are_messages_within_bounds_and_then_an_end(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..400),
            vec((any::<u16>(), 0..40u32, 0..0x40u32), 0..40).prop_map(|headers| {
                headers.iter().flat_map(|(word, size, flags)| bytes![*word, *word, *size, *flags, 0u32]).collect()
            }),
        ],
    ) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&bytes).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let connection = Connection::new(theirs).unwrap();
        let mut taken = 0;
        while let Ok(Some(message)) = connection.receive() {
            prop_assert!(message.payload.len() <= PAYLOAD_MAX);
            prop_assert_eq!(message.header.size as usize, 16 + message.payload.len());
            taken += 16 + message.payload.len();
        }
        prop_assert!(taken <= bytes.len());
    }
}
