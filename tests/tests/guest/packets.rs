//! Reliable connections in packets, on a link that loses some.

use crate::support::script;

/// All storms at once, in both modes. With an ACK timeout the programs know that the link loses packets: it must be longer
/// than a page takes to come on a slow machine, for each try counts.
const STORMS: &str = r#"
export REFAULT_ACK_TIMEOUT=19
for mode in pasid odp; do
    REFAULT_ODP_MODE=$mode refault-storm --scale 0.1 all
done
refault-storm --sabotage --scale 0.1 dontneed >/tmp/sabotaged && exit 1
grep -q words_wrong=1 /tmp/sabotaged
echo all done
"#;

#[test]
fn storms_find_no_wrong_byte_though_one_packet_in_a_hundred_is_lost() {
    let options = ["--loopback", "packets", "--packet-loss", "1", "--append", "numa=fake=2"];
    let (said, _) = script(2, &options, STORMS);
    assert!(said.status == 0 && said.stdout.contains("all done"), "{said:#?}");
    assert_eq!(said.stdout.matches("result=pass").count(), 2, "{said:#?}");
}
