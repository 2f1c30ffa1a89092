//! Frames from a wire.
//!
//! **Invariant.** Any bytes are a packet or dropped, and what is dropped has a name. A packet's payload lies inside the frame. Built
//! again, the packet is the same; so is one whose ICRC is made right before.

use refault_roce::{FlushIcrc, Received, frame};

/// Runs the target. The first byte chooses how a FLUSH is sealed.
pub fn run(bytes: &[u8]) {
    let Some((&shape, bytes)) = bytes.split_first() else { return };
    let way = if shape & 1 == 0 { FlushIcrc::Standard } else { FlushIcrc::SoftRoce };
    if let Ok(received) = frame::parse(bytes) {
        rebuilt(&received, bytes);
    }
    let mut sealed = bytes.to_vec();
    let was_sealed = frame::seal(&mut sealed, way);
    let unsealed = frame::parse_unsealed(&sealed);
    assert!(was_sealed.is_ok() || unsealed.is_err(), "{was_sealed:?}, but {unsealed:?}");
    if let Ok(unsealed) = unsealed {
        let received = frame::parse(&sealed).expect("it was sealed");
        assert_eq!((received.packet, received.payload), (unsealed.packet, unsealed.payload));
        rebuilt(&received, &sealed);
    }
}

/// Builds a packet again from what was read.
fn rebuilt(received: &Received<'_>, from: &[u8]) {
    assert!(from.as_ptr_range().contains(&received.payload.as_ptr()) || received.payload.is_empty());
    let mut again = Vec::new();
    let length = received.payload.len();
    let Some(place) = frame::begin(&mut again, &received.envelope, &received.packet, length) else {
        assert!(length > frame::PAYLOAD_MAX);
        return;
    };
    again[place].copy_from_slice(received.payload);
    frame::seal(&mut again, received.icrc.expect("it was checked")).expect("our own frame");
    let second = frame::parse(&again).expect("our own frame");
    assert_eq!(second, *received);
}
