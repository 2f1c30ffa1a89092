//! Macros that define codes and flags: integers whose values, or whose bits, have names, in types of their own.

/// Defines a type around an integer and its constants, and describes both to the header generator. The other side may
/// write any value, so every value of the integer is valid.
macro_rules! named_integers {
    ($table:ident $(, $heading:literal)?: $(#[doc = $tdoc:literal])+ pub struct $type:ident($integer:ident) {
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

        /// What the header prints for these constants.
        pub(crate) const $table: crate::layout::Constants = crate::layout::Constants {
            heading: concat!($($heading)?),
            code: Some(crate::layout::CodeType {
                name: stringify!($type),
                integer: stringify!($integer),
            }),
            items: &[$((stringify!($name), $name.0 as u64, concat!($($doc),+))),+],
        };
    };
}

/// Defines a code: at most one of the constants. `Debug` prints its name, or the number of an unknown value.
macro_rules! codes {
    ($table:ident $(, $heading:literal)?: $(#[doc = $tdoc:literal])+ pub struct $type:ident($integer:ident) {
        $($(#[doc = $doc:literal])+ $name:ident = $value:expr;)+
    }) => {
        named_integers! { $table $(, $heading)?: $(#[doc = $tdoc])+ pub struct $type($integer) {
            $($(#[doc = $doc])+ $name = $value;)+
        } }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $($name => f.write_str(stringify!($name)),)+
                    Self(value) => write!(f, concat!(stringify!($type), "({})"), value),
                }
            }
        }
    };
}

/// Defines flags: any of the constants at once. `Debug` prints their names, and the bits that have none.
macro_rules! flags {
    ($table:ident $(, $heading:literal)?: $(#[doc = $tdoc:literal])+ pub struct $type:ident($integer:ident) {
        $($(#[doc = $doc:literal])+ $name:ident = $value:expr;)+
    }) => {
        named_integers! { $table $(, $heading)?: $(#[doc = $tdoc])+ pub struct $type($integer) {
            $($(#[doc = $doc])+ $name = $value;)+
        } }

        impl $type {
            /// No flag.
            pub const NONE: Self = Self(0);
            /// Every flag that has a name.
            pub const ALL: Self = Self($($name.0)|+);

            /// Whether all of `flags` are set.
            pub const fn contains(self, flags: Self) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// Whether any of `flags` is set.
            pub const fn intersects(self, flags: Self) -> bool {
                self.0 & flags.0 != 0
            }

            /// The flags of both. `|` does the same outside constants.
            pub const fn union(self, flags: Self) -> Self {
                Self(self.0 | flags.0)
            }

            /// These flags without `flags`.
            pub const fn difference(self, flags: Self) -> Self {
                Self(self.0 & !flags.0)
            }
        }

        impl core::ops::BitOr for $type {
            type Output = Self;

            fn bitor(self, flags: Self) -> Self {
                self.union(flags)
            }
        }

        impl core::ops::BitOrAssign for $type {
            fn bitor_assign(&mut self, flags: Self) {
                *self = self.union(flags);
            }
        }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut separator = "";
                $(if self.contains($name) {
                    write!(f, "{separator}{}", stringify!($name))?;
                    separator = " | ";
                })+
                let unnamed = self.difference(Self::ALL).0;
                if unnamed != 0 || *self == Self::NONE {
                    write!(f, "{separator}{unnamed:#x}")?;
                }
                Ok(())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use zerocopy::{FromBytes, IntoBytes};

    use crate::codes::{
        ACCESS_LOCAL_WRITE, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights, QPS_RTS, QpState,
    };

    #[test]
    fn every_value_is_a_code_and_known_ones_print_their_name() {
        assert_eq!(QpState::read_from_bytes(&[3]), Ok(QPS_RTS));
        assert_eq!(QpState(200).as_bytes(), [200]);
        assert_eq!(format!("{:?} {:?}", QPS_RTS, QpState(200)), "QPS_RTS QpState(200)");
    }

    #[test]
    fn flags_are_sets_and_keep_unknown_bits() {
        let both = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ;
        assert!(both.contains(ACCESS_REMOTE_READ) && both.contains(AccessRights::NONE));
        assert!(!both.contains(ACCESS_REMOTE_READ | ACCESS_REMOTE_WRITE));
        assert!(both.intersects(ACCESS_REMOTE_READ | ACCESS_REMOTE_WRITE));
        assert!(!both.intersects(ACCESS_REMOTE_WRITE) && !both.intersects(AccessRights::NONE));
        assert_eq!(both.difference(ACCESS_REMOTE_READ), ACCESS_LOCAL_WRITE);
        assert!(!AccessRights::ALL.contains(AccessRights(1 << 4)));
        assert_eq!(
            format!("{:?}", both | AccessRights(1 << 4)),
            "ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ | 0x10"
        );
        assert_eq!(format!("{:?}", AccessRights::NONE), "0x0");
    }
}
