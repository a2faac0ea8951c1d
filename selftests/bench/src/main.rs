// SPDX-License-Identifier: GPL-2.0

//! What an address space costs, side by side with what programs do without one.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

mod attack;
mod chart;
mod clock;
mod comparison;
mod group;
mod guest;
mod huge;
mod lender;
mod linux;
mod memory;
mod on_demand;
mod peer;
mod report;
mod rounds;
mod row_a;
mod row_b;
mod row_c;
mod row_c_guest;
mod row_d;
mod row_e;
mod row_f;
mod row_g;
mod row_h;
mod row_i;
mod row_j;
mod row_j_restore;
mod row_k;
mod row_k_fork;
mod row_l;
mod row_l_guest;
mod row_m;
mod uffd;

use clock::Clock;
use rounds::Bench;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Change an attachment of 2 MiB
    A,
    /// Map and unmap 4 KiB, single and in batches, among many
    B,
    /// First touch of 64 MiB, from a process and from a guest
    C,
    /// Steady state
    D,
    /// Revocation: processes that have it attached, and a running guest
    E,
    /// Faults in parallel, and faults while another thread maps and unmaps
    F,
    /// Bytes of kernel memory
    G,
    /// I/O of a vhost-user disk behind an IOMMU: needs qemu-storage-daemon
    H,
    /// Memory that another process lends
    I,
    /// Memory that comes as it is touched, in a process and in a guest
    J,
    /// The same with much beside it, and with little
    K,
    /// A DAX window, of a file server alone and under Linux guests: needs build/release
    L,
    /// Delay of an owner and of a bystander while a holder of a view attacks: only in time
    M,
}

impl Row {
    fn run(self, bench: &mut Bench) -> Result<()> {
        match self {
            Row::A => row_a::run(bench),
            Row::B => row_b::run(bench),
            Row::C => row_c::run(bench).and_then(|()| row_c_guest::run(bench)),
            Row::D => row_d::run(bench),
            Row::E => row_e::run(bench),
            Row::F => row_f::run(bench),
            Row::G => row_g::run(bench),
            Row::H => row_h::run(bench),
            Row::I => row_i::run(bench),
            Row::J => row_j::run(bench).and_then(|()| row_j_restore::run(bench)),
            Row::K => row_k::run(bench).and_then(|()| row_k_fork::run(bench)),
            Row::L => row_l::run(bench).and_then(|()| row_l_guest::run(bench)),
            Row::M => row_m::run(bench),
        }
    }
}

/// Measure address spaces and what programs do without them, side by side.
///
/// Each row makes comparisons, which consist of rounds; in each round everything compared is
/// measured once. The output has medians, quartiles and ratios. It says which goals are met;
/// a goal that is not met does not fail the program. It needs the address_space module and
/// root.
#[derive(Parser)]
struct Arguments {
    /// Which rows, as in a,b,c; all if not given
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<Row>,

    /// How many rounds; comparisons that take long make fewer
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,

    /// A few rounds, to see that everything can be measured
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,

    /// Only contenders with this text in "COMPARISON: NAME", for example for a profile
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Count instructions: only where QEMU's -icount shift=0 moves the clock
    #[arg(long)]
    instructions: bool,

    /// Where to put NAME.json and NAME.svg
    #[arg(long, default_value = "build/bench", value_name = "NAME")]
    output: PathBuf,
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(peer::ARGUMENT) => return peer::live(),
        Some(lender::ARGUMENT) => return lender::live(),
        Some(attack::ARGUMENT) => return attack::live(),
        Some(row_m::ARGUMENT) => return row_m::live(),
        _ => {}
    }
    let arguments = Arguments::parse();
    let mut bench = Bench {
        clock: if arguments.instructions {
            Clock::Instructions
        } else {
            Clock::Time
        },
        rounds: if arguments.quick {
            3
        } else {
            arguments.rounds as usize
        },
        only: arguments.only,
        results: Vec::new(),
    };
    let all = arguments.rows.is_empty();
    let chosen = |row: &&Row| all || arguments.rows.contains(row);
    for row in Row::value_variants().iter().filter(chosen) {
        row.run(&mut bench)?;
    }
    let unit = bench.clock.unit();
    report::write_json(
        unit,
        &bench.results,
        &arguments.output.with_extension("json"),
    )?;
    let picture = arguments.output.with_extension("svg");
    chart::draw(unit, &bench.results, &picture)
        .with_context(|| format!("cannot draw {}", picture.display()))?;
    report::summary(&bench.results);
    Ok(())
}
