// SPDX-License-Identifier: GPL-2.0

//! The layout of a space, as the kernel tells it in its two ways.

use address_space::Mapped;
use anyhow::{Context as _, Result};
use rig::fdinfo;

use super::Machine;
use crate::files::Shared;
use crate::op::*;

impl Machine {
    /// The layout of an open space, with the name of the way in which it was told.
    pub fn layouts(&self, space: usize) -> Result<[(&'static str, Vec<Line>); 2]> {
        let space = self.space(space)?;
        let text = fdinfo::mappings(&fdinfo::read(space)?).context("fdinfo")?;
        let told = space.layout(..)?;
        Ok([
            ("fdinfo", text.iter().map(|it| self.line(it)).collect()),
            (
                "ADDRESS_SPACE_LAYOUT",
                told.iter().map(|it| self.told(it)).collect(),
            ),
        ])
    }

    fn line(&self, mapping: &fdinfo::Mapping) -> Line {
        let bits = (0..).zip(mapping.prot.chars().take(3));
        let set = bits.filter(|(_, letter)| *letter != '-');
        Line {
            at: pages(&mapping.range),
            prot: set.fold(0, |prot, (bit, _)| prot | (1 << bit)),
            offset: mapping.offset / PAGE,
            file: self.file_that(|file| file.is_at(&mapping.path)),
            private: mapping.prot.ends_with('p'),
        }
    }

    fn told(&self, mapping: &Mapped) -> Line {
        Line {
            at: pages(&mapping.range),
            prot: mapping.prot.bits(),
            offset: mapping.offset / PAGE,
            file: self.file_that(|file| file.is_shown(&mapping.source)),
            private: mapping.is_private,
        }
    }

    fn file_that(&self, is: impl Fn(&Shared) -> bool) -> Option<usize> {
        self.files
            .iter()
            .position(|it| it.as_ref().is_some_and(&is))
    }
}

fn pages(range: &std::ops::Range<u64>) -> Span {
    Span::new(range.start / PAGE, (range.end - range.start) / PAGE)
}
