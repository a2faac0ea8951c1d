// SPDX-License-Identifier: GPL-2.0

//! What a guest knows of the shared directory: its inodes, how often it has looked each of
//! them up, and the names by which a server that takes over finds them. Pure data.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::record::{Place, Record};

/// The number of the root directory, which is always known.
pub const ROOT: u64 = 1;

/// What the server knows of an inode.
#[derive(Debug, Default, PartialEq, Eq)]
struct Node {
    /// How often the guest has looked it up, less what it has forgotten. 0 for a directory
    /// that is here for the names in it only.
    count: u64,
    /// Where it is, as far as the server has seen.
    names: Vec<Place>,
    /// How many names of other nodes are in it.
    children: u64,
    /// When it was made; 0 if that is not known.
    born: u64,
}

/// A request that must not be made twice, and may have been made when the server died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The guest's number of the request.
    pub request: u64,
    /// The inode that had the name that it is about; 0 for none.
    pub before: u64,
}

/// An inode, for the server that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub node: u64,
    /// How often the guest has looked it up. 0 for a directory that it no longer knows, but
    /// that is needed to find what it does know.
    pub count: u64,
    /// The names that it has, or had.
    pub names: Vec<Place>,
    /// When it was made, in nanoseconds; 0 if that is not known.
    pub born: u64,
}

/// The whole of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// What the guest can do, if it has mounted the directory.
    capable: Option<u64>,
    nodes: BTreeMap<u64, Node>,
    by_place: HashMap<Place, u64>,
    /// The last such request of each queue.
    begun: BTreeMap<u32, Begun>,
}

impl Table {
    /// What the guest can do, if it has mounted the directory.
    pub(super) fn capable(&self) -> Option<u64> {
        self.capable
    }

    /// The last request of a queue that must not be made twice.
    pub(super) fn begun(&self, queue: u32) -> Option<Begun> {
        self.begun.get(&queue).copied()
    }

    /// How often the guest has looked up an inode.
    pub(super) fn count(&self, node: u64) -> u64 {
        self.nodes.get(&node).map_or(0, |node| node.count)
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Init { capable } => {
                *self = Table {
                    capable: Some(*capable),
                    ..Table::default()
                };
            }
            Record::End => *self = Table::default(),
            Record::Look {
                place,
                node,
                count,
                born,
            } => self.look(place, *node, *count, *born),
            Record::Forget { node, count } => self.forget(*node, *count),
            Record::Unlink { place } => self.unname(place),
            Record::Rename { from, to, exchange } => self.rename(from, to, *exchange),
            Record::Begin {
                queue,
                request,
                before,
            } => {
                let (request, before) = (*request, *before);
                self.begun.insert(*queue, Begun { request, before });
            }
        }
    }

    fn look(&mut self, place: &Place, node: u64, count: u64, born: u64) {
        if node == ROOT {
            return;
        }
        if self.by_place.get(place) != Some(&node) {
            // Something else had that name.
            self.unname(place);
            self.name(place.clone(), node);
        }
        let known = self.nodes.entry(node).or_default();
        known.count += count;
        if born != 0 {
            known.born = born;
        }
    }

    fn forget(&mut self, node: u64, count: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.count = known.count.saturating_sub(count);
            self.drop_unused(node);
        }
    }

    fn rename(&mut self, from: &Place, to: &Place, exchange: bool) {
        let moved = self.by_place.get(from).copied();
        let other = self.by_place.get(to).copied();
        // One of them may be kept by a name in the other, or by no more than its name.
        let keep: Vec<u64> = moved.into_iter().chain(other).collect();
        for &node in &keep {
            self.nodes.entry(node).or_default().children += 1;
        }
        self.unname(from);
        self.unname(to);
        if let Some(node) = moved {
            self.name(to.clone(), node);
        }
        if let Some(node) = other.filter(|_| exchange) {
            self.name(from.clone(), node);
        }
        for node in keep {
            self.nodes.entry(node).or_default().children -= 1;
            self.drop_unused(node);
        }
    }

    fn name(&mut self, place: Place, node: u64) {
        if place.parent != ROOT {
            self.nodes.entry(place.parent).or_default().children += 1;
        }
        self.nodes
            .entry(node)
            .or_default()
            .names
            .push(place.clone());
        self.by_place.insert(place, node);
    }

    fn unname(&mut self, place: &Place) {
        let Entry::Occupied(entry) = self.by_place.entry(place.clone()) else {
            return;
        };
        let node = entry.remove();
        if let Some(named) = self.nodes.get_mut(&node) {
            named.names.retain(|other| other != place);
        }
        self.leave(place.parent);
        self.drop_unused(node);
    }

    /// A name in this directory is gone.
    fn leave(&mut self, parent: u64) {
        if let Some(directory) = self.nodes.get_mut(&parent) {
            directory.children -= 1;
            self.drop_unused(parent);
        }
    }

    /// Removes a node that neither the guest nor a name needs, and its names; and then the
    /// directories that had no more than these.
    fn drop_unused(&mut self, node: u64) {
        // Not by recursion: a guest makes directories as deep as it likes.
        let mut todo = vec![node];
        while let Some(node) = todo.pop() {
            let unused = |known: &mut Node| known.count == 0 && known.children == 0;
            if !self.nodes.get_mut(&node).is_some_and(unused) {
                continue;
            }
            let names = self
                .nodes
                .remove(&node)
                .map_or(Vec::new(), |node| node.names);
            for place in names {
                self.by_place.remove(&place);
                if let Some(directory) = self.nodes.get_mut(&place.parent) {
                    directory.children -= 1;
                    todo.push(place.parent);
                }
            }
        }
    }

    /// The records that make this table from an empty one.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        records.extend(self.capable.map(|capable| Record::Init { capable }));
        for known in self.known() {
            // The count once, with the first name.
            let counts = std::iter::once(known.count).chain(std::iter::repeat(0));
            for (place, count) in known.names.into_iter().zip(counts) {
                let (node, born) = (known.node, known.born);
                records.push(Record::Look {
                    place,
                    node,
                    count,
                    born,
                });
            }
        }
        for (&queue, &Begun { request, before }) in &self.begun {
            records.push(Record::Begin {
                queue,
                request,
                before,
            });
        }
        records
    }

    /// All inodes that have a name. A directory comes before what is in it.
    pub(super) fn known(&self) -> Vec<Known> {
        let mut known = Vec::new();
        let mut done = HashSet::from([ROOT]);
        for &node in self.nodes.keys() {
            self.add_known(node, &mut done, &mut known);
        }
        known
    }

    fn add_known(&self, node: u64, done: &mut HashSet<u64>, known: &mut Vec<Known>) {
        // Not by recursion: a guest makes directories as deep as it likes.
        let mut todo = vec![node];
        let mut begun = HashSet::from([node]);
        while let Some(&node) = todo.last() {
            let Some(found) = self.nodes.get(&node).filter(|_| !done.contains(&node)) else {
                todo.pop();
                continue;
            };
            // A directory in itself is what remains of two renames that passed each other.
            let missing: Vec<_> = (found.names.iter().map(|place| place.parent))
                .filter(|parent| !done.contains(parent) && self.nodes.contains_key(parent))
                .filter(|parent| begun.insert(*parent))
                .collect();
            if !missing.is_empty() {
                todo.extend(missing);
                continue;
            }
            done.insert(node);
            todo.pop();
            if !found.names.is_empty() {
                known.push(Known {
                    node,
                    count: found.count,
                    names: found.names.clone(),
                    born: found.born,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(parent: u64, name: &str) -> Place {
        Place {
            parent,
            name: name.as_bytes().to_vec(),
        }
    }

    fn look(table: &mut Table, parent: u64, name: &str, node: u64) {
        table.apply(&Record::Look {
            place: at(parent, name),
            node,
            count: 1,
            born: 10 * node,
        });
    }

    fn forget(table: &mut Table, node: u64, count: u64) {
        table.apply(&Record::Forget { node, count });
    }

    /// The names and counts of all nodes, in the order in which they are restored.
    fn names(table: &Table) -> Vec<(u64, String, u64, u64)> {
        let name = |record| match record {
            Record::Look {
                place,
                node,
                count,
                born,
            } => {
                assert_eq!(born, 10 * node);
                let name = String::from_utf8(place.name).unwrap();
                Some((place.parent, name, node, count))
            }
            _ => None,
        };
        table.records().into_iter().filter_map(name).collect()
    }

    /// A table made of the records of another is the same.
    fn check(table: &Table) {
        let mut copy = Table::default();
        for record in table.records() {
            copy.apply(&record);
        }
        assert_eq!(names(&copy), names(table));
    }

    #[test]
    fn lookups_are_counted_and_forgotten() {
        let mut table = Table::default();
        look(&mut table, ROOT, "a", 7);
        look(&mut table, ROOT, "a", 7);
        assert_eq!(names(&table), [(ROOT, "a".into(), 7, 2)]);
        check(&table);
        forget(&mut table, 7, 1);
        assert_eq!(table.count(7), 1);
        forget(&mut table, 7, 5);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn directory_stays_for_the_names_in_it() {
        let mut table = Table::default();
        look(&mut table, ROOT, "dir", 9);
        look(&mut table, 9, "file", 2);
        forget(&mut table, 9, 1);
        let expected = [(ROOT, "dir".into(), 9, 0), (9, "file".into(), 2, 1)];
        assert_eq!(names(&table), expected);
        check(&table);
        forget(&mut table, 2, 1);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn directories_may_be_as_deep_as_a_guest_likes() {
        const DEPTH: u64 = 200_000;
        let mut table = Table::default();
        look(&mut table, ROOT, "d", ROOT + 1);
        for parent in ROOT + 1..ROOT + DEPTH {
            look(&mut table, parent, "d", parent + 1);
            forget(&mut table, parent, 1);
        }
        let known = table.known();
        assert!(
            known
                .iter()
                .map(|known| known.node)
                .eq(ROOT + 1..=ROOT + DEPTH)
        );
        forget(&mut table, ROOT + DEPTH, 1);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn renamed_directory_takes_its_names_along() {
        let mut table = Table::default();
        look(&mut table, ROOT, "old", 9);
        look(&mut table, 9, "file", 2);
        look(&mut table, ROOT, "other", 5);
        let rename = |table: &mut Table, from, to, exchange| {
            table.apply(&Record::Rename { from, to, exchange });
        };
        rename(&mut table, at(ROOT, "old"), at(5, "new"), false);
        let expected = [
            (ROOT, "other".into(), 5, 1),
            (5, "new".into(), 9, 1),
            (9, "file".into(), 2, 1),
        ];
        assert_eq!(names(&table), expected);
        check(&table);
        // Over something: that keeps its count, and has no name.
        look(&mut table, ROOT, "victim", 6);
        rename(&mut table, at(9, "file"), at(ROOT, "victim"), false);
        assert_eq!(table.count(6), 1);
        assert!(names(&table).contains(&(ROOT, "victim".into(), 2, 1)));
        assert!(!names(&table).iter().any(|name| name.2 == 6));
        rename(&mut table, at(ROOT, "victim"), at(5, "new"), true);
        assert!(names(&table).contains(&(ROOT, "victim".into(), 9, 1)));
        assert!(names(&table).contains(&(5, "new".into(), 2, 1)));
        check(&table);
        for node in [2, 5, 6, 9] {
            forget(&mut table, node, 1);
        }
        assert_eq!(table, Table::default());
    }

    #[test]
    fn rename_of_a_name_that_nobody_knows_changes_no_other() {
        let mut table = Table::default();
        look(&mut table, ROOT, "a", 2);
        let (from, to, exchange) = (at(ROOT, "x"), at(ROOT, "y"), false);
        table.apply(&Record::Rename { from, to, exchange });
        assert_eq!(names(&table), [(ROOT, "a".into(), 2, 1)]);
    }

    #[test]
    fn unlinked_file_is_found_by_its_other_name() {
        let mut table = Table::default();
        look(&mut table, ROOT, "a", 2);
        look(&mut table, ROOT, "b", 2);
        let unlink = |table: &mut Table, name| {
            table.apply(&Record::Unlink {
                place: at(ROOT, name),
            });
        };
        unlink(&mut table, "a");
        assert_eq!(names(&table), [(ROOT, "b".into(), 2, 2)]);
        unlink(&mut table, "b");
        assert_eq!(names(&table), []);
        assert_eq!(table.count(2), 2);
        forget(&mut table, 2, 2);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn name_that_means_another_file_now_is_taken_away() {
        let mut table = Table::default();
        look(&mut table, ROOT, "a", 2);
        look(&mut table, ROOT, "a", 3);
        assert_eq!(names(&table), [(ROOT, "a".into(), 3, 1)]);
        forget(&mut table, 2, 1);
        forget(&mut table, 3, 1);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn mount_begins_with_nothing() {
        let mut table = Table::default();
        look(&mut table, ROOT, "a", 2);
        table.apply(&Record::Init { capable: 5 });
        assert_eq!((table.capable(), table.count(2)), (Some(5), 0));
        table.apply(&Record::Begin {
            queue: 1,
            request: 10,
            before: 0,
        });
        let begun = Begun {
            request: 10,
            before: 0,
        };
        assert_eq!((table.begun(1), table.begun(2)), (Some(begun), None));
        assert_eq!(table.records().len(), 2);
        table.apply(&Record::End);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn any_sequence_leaves_nothing_behind() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            // A linear congruential generator, from its better bits.
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut table = Table::default();
            for _ in 0..100 {
                let node = 2 + random(6);
                // Directories have smaller numbers than what is in them.
                let place = Place {
                    parent: ROOT + random(node - 1),
                    name: vec![b'a' + random(3) as u8],
                };
                table.apply(&match random(8) {
                    0 => Record::Unlink { place },
                    1 => Record::Rename {
                        from: place.clone(),
                        to: Place {
                            name: b"z".to_vec(),
                            ..place
                        },
                        exchange: random(2) == 0,
                    },
                    2 => Record::Forget { node, count: 2 },
                    _ => Record::Look {
                        place,
                        node,
                        count: 1,
                        born: 10 * node,
                    },
                });
                check(&table);
            }
            for node in 0..20 {
                forget(&mut table, node, u64::MAX);
            }
            assert_eq!(table, Table::default());
        }
    }
}
