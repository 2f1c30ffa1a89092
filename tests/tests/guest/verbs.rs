//! What the verbs of driver and provider refuse: transitions, values, operations. rdma-core's own tests cover little of
//! that.

use crate::support::{script, workspace};

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    let program = workspace().join("tests/tests/guest/verbs.py");
    let program = format!("{}:/usr/bin/verbs.py", program.display());
    let (said, _) = script(2, &["--add", &program], "python3 /usr/bin/verbs.py; refault-udata");
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(said.stdout.matches("ok - ").count(), 15, "{said:#?}");
    assert_eq!(said.stdout.matches(": as it must be").count(), 8, "{said:#?}");
}
