//! Two macros that define a layout once for Rust and for the C header.

/// One field of a layout, as the C header prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CField {
    /// Field name, the same in both languages.
    pub name: &'static str,
    /// Rust type: an unsigned integer, a code, a layout, or an array of one.
    pub rust_type: &'static str,
    /// Documentation, in one line.
    pub doc: &'static str,
}

/// A layout that the C header contains.
pub trait CLayout {
    /// CamelCase name: the C name is made from it. The Rust name, unless the layout has both.
    const NAME: &'static str;
    /// Size in bytes.
    const SIZE: usize;
    /// What it is.
    const DOC: &'static [&'static str];
    /// The fields in memory order.
    const FIELDS: &'static [CField];
}

/// A layout as data.
pub(crate) struct Struct {
    pub(crate) name: &'static str,
    pub(crate) size: usize,
    pub(crate) doc: &'static [&'static str],
    pub(crate) fields: &'static [CField],
}

impl Struct {
    pub(crate) const fn of<T: CLayout>() -> Self {
        Self { name: T::NAME, size: T::SIZE, doc: T::DOC, fields: T::FIELDS }
    }
}

/// The type of a group of constants, as the header generator needs it.
#[derive(Clone, Copy)]
pub(crate) struct CodeType {
    /// Rust name. The C header has no such type.
    pub(crate) name: &'static str,
    /// The integer that it wraps, and that C uses in its place.
    pub(crate) integer: &'static str,
}

/// A group of constants as data: name, value, documentation.
pub(crate) struct Constants {
    /// Empty: these constants go on with the group before.
    pub(crate) heading: &'static str,
    /// Their type, if it is not a plain integer.
    pub(crate) code: Option<CodeType>,
    pub(crate) items: &'static [(&'static str, u64, &'static str)],
}

/// Defines `#[repr(C)]` structs without padding whose bytes are all meaningful, each asserted to be the given
/// number of bytes long, and describes them to the header generator. `as` gives a name for C that is not Rust's.
macro_rules! layouts {
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $c_name:ident) => { stringify!($c_name) };
    ($table:ident: $($(#[doc = $sdoc:literal])+ pub struct $name:ident $(as $c_name:ident)? [$size:literal] {
        $($(#[doc = $fdoc:literal])+ pub $field:ident: $type:ty,)+
    })+) => {
        $(
            $(#[doc = $sdoc])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes,
                     zerocopy::KnownLayout, zerocopy::Immutable)]
            #[repr(C)]
            pub struct $name {
                $($(#[doc = $fdoc])+ pub $field: $type,)+
            }

            const _: () = assert!(core::mem::size_of::<$name>() == $size);

            impl Default for $name {
                fn default() -> Self {
                    zerocopy::FromZeros::new_zeroed()
                }
            }

            impl crate::layout::CLayout for $name {
                const NAME: &'static str = layouts!(@name $name $($c_name)?);
                const SIZE: usize = $size;
                const DOC: &'static [&'static str] = &[$($sdoc),+];
                const FIELDS: &'static [crate::layout::CField] = &[$(crate::layout::CField {
                    name: stringify!($field),
                    rust_type: stringify!($type),
                    doc: concat!($($fdoc),+),
                }),+];
            }
        )+

        /// What the header prints for this module's layouts.
        pub(crate) const $table: &[crate::layout::Struct] = &[$(crate::layout::Struct::of::<$name>()),+];
    };
}

/// Defines integer constants and describes them to the header generator, grouped under a heading. Without one they go
/// on with the group before.
macro_rules! constants {
    ($table:ident $(, $heading:literal)?: $($(#[doc = $doc:literal])+ pub const $name:ident: $type:ty = $value:expr;)+) => {
        $(
            $(#[doc = $doc])+
            pub const $name: $type = $value;
        )+

        /// What the header prints for these constants.
        pub(crate) const $table: crate::layout::Constants = crate::layout::Constants {
            heading: concat!($($heading)?),
            code: None,
            items: &[$((stringify!($name), $name as u64, concat!($($doc),+))),+],
        };
    };
}
