//! A macro that defines a code: an integer whose values have names, in a type of its own.

/// The type of a group of constants, as the header generator needs it.
#[derive(Clone, Copy)]
pub(crate) struct CodeType {
    /// Rust name. The C header has no such type.
    pub(crate) name: &'static str,
    /// The integer that it wraps, and that C uses in its place.
    pub(crate) integer: &'static str,
}

/// Defines a code and its constants, and describes both to the header generator. The other side may write any value,
/// so every value of the integer is valid; `Debug` prints the name of those that have one.
macro_rules! codes {
    ($table:ident, $heading:literal: $(#[doc = $tdoc:literal])+ pub struct $type:ident($integer:ident) {
        $($(#[doc = $doc:literal])+ $name:ident = $value:expr;)+
    }) => {
        $(#[doc = $tdoc])+
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, zerocopy::FromBytes, zerocopy::IntoBytes,
                 zerocopy::KnownLayout, zerocopy::Immutable)]
        #[repr(transparent)]
        pub struct $type(pub $integer);

        $(
            $(#[doc = $doc])+
            pub const $name: $type = $type($value);
        )+

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $($name => f.write_str(stringify!($name)),)+
                    Self(value) => write!(f, concat!(stringify!($type), "({})"), value),
                }
            }
        }

        /// What the header prints for these constants.
        pub(crate) const $table: crate::layout::Constants = crate::layout::Constants {
            heading: $heading,
            code: Some(crate::typed::CodeType {
                name: stringify!($type),
                integer: stringify!($integer),
            }),
            items: &[$((stringify!($name), $name.0 as u64, [$($doc),+][0])),+],
        };
    };
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use zerocopy::{FromBytes, IntoBytes};

    use crate::codes::{QPS_RTS, QpState};

    #[test]
    fn every_value_is_a_code_and_known_ones_print_their_name() {
        assert_eq!(QpState::read_from_bytes(&[3]), Ok(QPS_RTS));
        assert_eq!(QpState(200).as_bytes(), [200]);
        assert_eq!(format!("{:?} {:?}", QPS_RTS, QpState(200)), "QPS_RTS QpState(200)");
    }
}
