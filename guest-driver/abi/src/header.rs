//! Prints the C header that the kernel module and the provider are built against.

use alloc::format;
use alloc::string::{String, ToString};

use crate::layout::{Constants, Struct};
use crate::{codes, command, doorbell, event, queue, regs, uverbs};

const CONSTANTS: &[&Constants] = &[
    &regs::REGISTERS,
    &regs::REGISTER_VALUES,
    &doorbell::DOORBELLS,
    &queue::QUEUE_SIZES,
    &queue::WQE_FLAGS,
    &queue::CQE_FLAGS,
    &queue::OWNER,
    &event::EVENT_TYPES,
    &event::FAULTS,
    &event::SRQ_EVENTS,
    &event::PORT_EVENTS,
    &event::QP_EVENTS,
    &event::EVENT_SIZES,
    &codes::OPERATIONS,
    &codes::WC_STATUSES,
    &codes::FLUSH,
    &codes::CAUSES,
    &codes::ACCESS,
    &codes::QP_TYPES,
    &codes::QP_STATES,
    &command::COMMAND_SIZES,
    &command::OPCODES,
    &command::COMMAND_STATUSES,
    &command::MR_MODES,
    &command::ODP_WORDS,
    &command::FAULT_ANSWERS,
    &command::QP_ATTRIBUTES,
    &command::FEATURES,
    &command::PORT_FLAGS,
    &uverbs::UVERBS_FLAGS,
];

const LAYOUTS: &[&[Struct]] =
    &[queue::QUEUE_LAYOUTS, event::EVENT_LAYOUTS, command::COMMAND_LAYOUTS, uverbs::UVERBS_LAYOUTS];

/// The header `refault_abi.h`: every constant as `REFAULT_<NAME>`, every layout as `struct refault_<name>`,
/// with a static assertion of its size. Needs `<linux/types.h>` on both sides.
pub fn c_header() -> String {
    let mut out = String::from(
        "/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT */\n\
         /* Generated from the crate refault-abi: change it there. */\n\
         #ifndef REFAULT_ABI_H\n#define REFAULT_ABI_H\n\n#include <linux/types.h>\n",
    );
    for group in CONSTANTS {
        if !group.heading.is_empty() {
            out += &format!("\n/* {} */\n", group.heading);
        }
        for (name, value, doc) in group.items {
            let suffix = if *value > u64::from(u32::MAX) { "ULL" } else { "U" };
            out += &format!("#define REFAULT_{name} {value:#x}{suffix} /*{doc} */\n");
        }
    }
    for layout in LAYOUTS.iter().copied().flatten() {
        out += &c_struct(layout);
    }
    out + "\n#endif\n"
}

fn c_struct(layout: &Struct) -> String {
    let name = c_name(layout.name);
    let doc = layout.doc.join("\n *");
    let mut out = format!("\n/*{doc} */\nstruct {name} {{\n");
    for field in layout.fields {
        let (element, count) = element_and_count(field.rust_type);
        out += &format!("\t{} {}{}; /*{} */\n", c_type(integer_of(element)), field.name, count, field.doc);
    }
    out + &format!("}};\n_Static_assert(sizeof(struct {name}) == {}, \"{name}\");\n", layout.size)
}

/// Splits `[T; n]` into `T` and `[n]`.
fn element_and_count(rust_type: &str) -> (&str, String) {
    match rust_type.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|a| a.split_once(';'))
    {
        Some((element, count)) => (element.trim(), format!("[{}]", count.trim())),
        None => (rust_type, String::new()),
    }
}

/// The integer in a code; any other type is returned unchanged.
fn integer_of(rust_type: &str) -> &str {
    let mut codes = CONSTANTS.iter().filter_map(|group| group.code);
    codes.find(|code| code.name == rust_type).map_or(rust_type, |code| code.integer)
}

fn c_type(rust_type: &str) -> String {
    match rust_type {
        "u8" => "__u8".to_string(),
        "u16" => "__le16".to_string(),
        "u32" => "__le32".to_string(),
        "u64" => "__le64".to_string(),
        layout => format!("struct {}", c_name(layout)),
    }
}

/// `SqWqe` becomes `refault_sq_wqe`.
fn c_name(rust_name: &str) -> String {
    let mut name = String::from("refault");
    for character in rust_name.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arrays_become_c() {
        assert_eq!(c_name("QpDoorbellRecord"), "refault_qp_doorbell_record");
        assert_eq!(element_and_count("[Sge; 4]"), ("Sge", "[4]".to_string()));
    }

    #[expect(unreachable_pub, reason = "the macro is for public constants")]
    mod long {
        constants! { LONG, "Long":
            /// One line,
            /// and another.
            pub const LONG_VALUE: u32 = 1;
        }
    }

    #[test]
    fn a_comment_of_several_lines_is_printed_in_one() {
        assert_eq!(long::LONG.items, [("LONG_VALUE", 1, " One line, and another.")]);
        assert!(c_header().contains("`pages` is zero and `page_shift` 12. */"));
    }

    #[test]
    fn the_header_names_every_layout_and_its_size() {
        let header = c_header();
        assert!(header.contains("_Static_assert(sizeof(struct refault_sq_wqe) == 256"));
        assert!(header.contains("\tstruct refault_sge sge[12];"));
        assert!(header.contains("#define REFAULT_CMD_CREATE_QP 0x50U"));
        assert!(header.contains("#define REFAULT_EQ_ARM 0x80000000U"), "a constant keeps its type's width");
    }
}
