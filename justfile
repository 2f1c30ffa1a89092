# Short names for long commands, for those who have `just`. Everything works without it: see CONTRIBUTING.md.

# Lists the recipes.
default:
    @just --list

# Formats all crates.
fmt:
    cargo fmt --all

# Format and lints, as CI checks them.
lint:
    cargo fmt --all --check
    cargo lint

# The tests of one crate: just test nic
test crate:
    cargo test -p refault-{{crate}}

# One test in a real guest, by name: just guest misbehave
guest name:
    cargo test -p refault-tests --test guest -- {{name}}

# Every test, real guests included.
test-all:
    cargo test

# The demo; options go to it: just demo --model
demo *options:
    cargo demo {{options}}

# Mutation tests of a crate, or a share of them: just mutants iommu --shard 0/24; needs cargo-mutants.
mutants crate *options:
    cargo mutants --package refault-{{crate}} {{options}}

# Compares printed output with tests/golden.
golden:
    cargo test -p refault-tests --test golden

# An experiment of the lab: just lab run cold-4k
lab *options:
    cargo lab {{options}}

# Writes tests/golden anew.
bless:
    cargo bless

# The crates' documentation; a broken link is an error.
docs:
    cargo docs

# Licences and duplicate dependencies; needs cargo-deny.
deny:
    cargo deny check licenses bans sources

# Everything that must hold, from a clean checkout.
ci:
    .ci/run
