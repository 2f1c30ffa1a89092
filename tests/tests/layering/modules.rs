//! Which module of a crate uses which, from the tokens of its files: `use` declarations and paths, including those in
//! macros. Unit tests and re-exports are left out; a re-exported name counts as a use of the module that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::sources;

/// Names from the crate's root to a module; the root's own is empty.
pub(crate) type Module = Vec<String>;

/// A crate's modules.
pub(crate) struct Modules {
    files: BTreeMap<Module, File>,
}

/// What a file names of its own crate.
#[derive(Default)]
struct File {
    /// Paths that it uses, from the crate's root.
    used: Vec<Module>,
    /// Names that are re-exported here, and the paths that they stand for.
    re_exported: BTreeMap<String, Module>,
}

impl Modules {
    /// Reads the sources below `folder`, a crate's `src`.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for path in sources(folder) {
            let place = path.strip_prefix(folder).expect("below the folder").with_extension("");
            let mut module: Module = place.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.iter().any(|part| part == "tests") {
                continue;
            }
            if ["mod", "lib", "main"].map(Some).contains(&module.last().map(String::as_str)) {
                module.pop();
            }
            let text = std::fs::read_to_string(&path).expect("a readable source");
            let tokens = TokenStream::from_str(&text).expect("a source that compiles");
            files.entry(module.clone()).or_insert_with(File::default).read(tokens, &module);
        }
        Self { files }
    }

    /// For each module of at most `depth` names, the other ones that it uses; deeper modules count as part of it.
    pub(crate) fn uses(&self, depth: usize) -> BTreeMap<Module, BTreeSet<Module>> {
        let cut = |module: &[String]| module[..module.len().min(depth)].to_vec();
        let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, file) in self.files.iter().filter(|(module, _)| !module.is_empty()) {
            let from = uses.entry(cut(module)).or_default();
            let targets = file.used.iter().map(|path| cut(&self.resolve(path, 0)));
            from.extend(targets.filter(|to| !to.is_empty() && *to != cut(module)));
        }
        uses
    }

    /// The module in which what `path` names is defined.
    fn resolve(&self, path: &[String], turns: u32) -> Module {
        let mut module = Module::new();
        for name in path {
            module.push(name.clone());
            if self.files.contains_key(&module) {
                continue;
            }
            module.pop();
            let stands_for = self.files.get(&module).and_then(|file| file.re_exported.get(name));
            return match stands_for {
                Some(path) if turns < 8 => self.resolve(path, turns + 1),
                _ => module,
            };
        }
        module
    }
}

impl File {
    fn read(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(hash) if hash.as_char() == '#' && is_test(tokens.get(at + 1)) => {
                    after_item(&tokens, at + 2)
                }
                TokenTree::Ident(word) if word == "use" => {
                    let end = after_item(&tokens, at);
                    let paths = tree(&tokens[at + 1..end - 1], &[]);
                    let public = is_public(&tokens[..at]);
                    paths.into_iter().for_each(|path| self.declare(path, public, module));
                    end
                }
                TokenTree::Ident(word) if word == "crate" || word == "super" || word == "self" => {
                    let (path, end) = simple_path(&tokens, at);
                    if path.len() > 1 {
                        self.used.extend(absolute(&path, module));
                    }
                    end
                }
                TokenTree::Group(group) => {
                    self.read(group.stream(), module);
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Takes one name of a `use`: `(path, name)`.
    fn declare(&mut self, (path, name): (Module, String), public: bool, module: &[String]) {
        // A path without a prefix may lead to a module below this one.
        let path = absolute(&path, module).unwrap_or_else(|| [module, &path].concat());
        if public {
            self.re_exported.insert(name, path);
        } else {
            self.used.push(path);
        }
    }
}

/// Whether these tokens, behind a `#`, are `[cfg(test)]`.
fn is_test(attribute: Option<&TokenTree>) -> bool {
    let text = attribute.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace().collect::<String>() == "[cfg(test)]"
}

/// Whether what follows these tokens is visible outside of its module.
fn is_public(before: &[TokenTree]) -> bool {
    let word = match before {
        [.., TokenTree::Ident(word)] => Some(word),
        [.., TokenTree::Ident(word), TokenTree::Group(group)]
            if group.delimiter() == Delimiter::Parenthesis =>
        {
            Some(word)
        }
        _ => None,
    };
    word.is_some_and(|word| word == "pub")
}

/// The place behind the item that begins at `at`: behind its semicolon or its body.
fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    let is_use = matches!(tokens.get(at), Some(TokenTree::Ident(word)) if word == "use");
    let semicolon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
    let found = tokens[at..].iter().position(|token| if is_use { semicolon(token) } else { is_end(token) });
    found.map_or(tokens.len(), |length| at + length + 1)
}

/// All names that a `use` tree brings: the path of each, and what it is called here.
fn tree(tokens: &[TokenTree], prefix: &[String]) -> Vec<(Module, String)> {
    let mut path = prefix.to_vec();
    let mut name = None;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "as" => {
                name = tokens.get(index + 1).map(ToString::to_string);
                break;
            }
            TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Group(group) => {
                let tokens: Vec<_> = group.stream().into_iter().collect();
                let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
                return tokens.split(comma).flat_map(|branch| tree(branch, &path)).collect();
            }
            _ => {}
        }
    }
    if tokens.is_empty() {
        return Vec::new();
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    vec![(path, name)]
}

/// The names of the path that begins at `at`, and the place behind it.
fn simple_path(tokens: &[TokenTree], mut at: usize) -> (Module, usize) {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let mut path = Module::new();
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        path.push(word.to_string());
        at += 1;
        if !(colon(at) && colon(at + 1)) {
            break;
        }
        at += 2;
    }
    (path, at)
}

/// A path that begins with `crate`, `super` or `self` in `module`, from the crate's root.
fn absolute(path: &[String], module: &[String]) -> Option<Module> {
    let (first, mut rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Module::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().saturating_sub(1)].to_vec(),
        _ => return None,
    };
    while let Some((_, further)) = rest.split_first().filter(|(name, _)| *name == "super") {
        base.pop();
        rest = further;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The circles in `uses`: sets of modules in which each leads to all others.
pub(crate) fn circles(uses: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        uses.keys().map(|module| (module, reach(uses, module))).collect();
    let circle = |module: &&Module| -> BTreeSet<Module> {
        let back = |other: &&&Module| reached.get(**other).is_some_and(|reached| reached.contains(*module));
        reached[*module].iter().filter(back).map(|other| (*other).clone()).collect()
    };
    let all: BTreeSet<_> = uses.keys().map(|module| circle(&module)).collect();
    all.into_iter().filter(|circle| circle.len() > 1).collect()
}

fn reach<'a>(uses: &'a BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Module> = uses[from].iter().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(uses.get(module).into_iter().flatten());
        }
    }
    reached
}
