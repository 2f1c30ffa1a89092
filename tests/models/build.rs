//! Writes the variants of each model: the devices' own files, with the model checker's locks and atomics in place of
//! std's, once as they are and once for each mistake of `variants.rs`.

mod variants;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use variants::{MODELS, Mistake, Model};

/// Where the crate is that all devices import.
const BUS: &str = "device/bus";

/// Modules that are added to each variant, of this package.
const OWN: [&str; 2] = ["scenario", "words"];

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=variants.rs");
    let mut list = String::new();
    for model in MODELS {
        // The devices' lints hold for the originals.
        let lints = "clippy::all, dead_code, missing_docs, unreachable_pub, unused";
        writeln!(list, "#[allow({lints})]\npub mod {} {{", model.name).expect("a string grows");
        let variants = std::iter::once(None).chain(model.mistakes.iter().map(Some));
        variants.for_each(|mistake| list.push_str(&variant(&here, &out, model, mistake)));
        list.push_str("}\n");
    }
    fs::write(out.join("variants.rs"), list).expect("OUT_DIR is writable");
}

/// Writes the files of one variant, and returns the module that consists of them.
fn variant(here: &Path, out: &Path, model: &Model, mistake: Option<&Mistake>) -> String {
    let name = mistake.map_or("intact", |mistake| mistake.name);
    let folder = out.join(model.name).join(name);
    let mut folders = BTreeMap::<&str, String>::new();
    let mut planted = false;
    for part in OWN.iter().chain(model.of_bus).chain(model.modules) {
        let source = match *part {
            "scenario" => here.join("src/scenarios").join(model.name),
            "words" => here.join("src/scenarios/words"),
            file if model.of_bus.contains(&file) => here.join("../..").join(BUS).join("src").join(file),
            file => here.join("../..").join(model.source).join("src").join(file),
        };
        let source = source.with_extension("rs");
        println!("cargo::rerun-if-changed={}", source.display());
        let mut text = fs::read_to_string(&source).expect("a modelled file exists");
        if let Some(mistake) = mistake.filter(|mistake| mistake.module == *part) {
            let (from, to) = mistake.change;
            assert_eq!(
                text.matches(from).count(),
                1,
                "{name}: {from:?} must be once in {}",
                source.display()
            );
            text = text.replace(from, to);
            planted = true;
        }
        let file = folder.join(part).with_extension("rs");
        fs::create_dir_all(file.parent().expect("a folder")).expect("OUT_DIR is writable");
        if !OWN.contains(part) {
            check_locks(&text, &source);
        }
        fs::write(&file, in_variant(&text, model, name)).expect("OUT_DIR is writable");
        let (folder, leaf) = part.rsplit_once('/').unwrap_or(("", part));
        let item = format!("#[path = {:?}] pub mod {leaf};\n", file.display().to_string());
        folders.entry(folder).or_default().push_str(&item);
    }
    assert_eq!(planted, mistake.is_some(), "{name}: no module is called {:?}", mistake.map(|of| of.module));
    let folders = folders.into_iter().map(|(folder, items)| match folder {
        "" => items,
        _ => format!("pub mod {folder} {{\n{items}}}\n"),
    });
    format!("pub mod {name} {{\n{}}}\n", folders.collect::<String>())
}

/// Fails if a device's file has locks or atomics that the model checker does not see.
fn check_locks(text: &str, source: &Path) {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    assert!(
        !code.contains("std::sync"),
        "{}: take locks and atomics from refault_bus::sync",
        source.display()
    );
}

/// The text of a file as part of a variant, without its unit tests.
fn in_variant(text: &str, model: &Model, variant: &str) -> String {
    let root = format!("crate::{}::{variant}::", model.name);
    let text = text.replace("#[cfg(test)]", "#[cfg(any())]");
    // As refault-bus itself names it.
    let text = text.replace("crate::sync", "refault_bus::sync").replace("crate::", &root);
    let own =
        |text: String, part: &&str| text.replace(&format!("refault_bus::{part}"), &format!("{root}{part}"));
    model.of_bus.iter().fold(text, own).replace("refault_bus::sync", "crate::sync")
}
