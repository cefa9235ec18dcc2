// SPDX-License-Identifier: Apache-2.0
//! The audit: uses of grants counted again from the users' side, and references on frames from the grants'.

use super::{DomainGrants, GrantResult, Grants, Key, Slot, State};
use crate::mem::Mfn;
use std::collections::BTreeMap;

/// Which grant is used, and whether for writing.
type Use = (Key, u32, bool);

fn add<K: Ord>(counts: &mut BTreeMap<K, i64>, key: K, count: i64) {
    *counts.entry(key).or_default() += count;
}

impl State {
    /// Who uses which grant, as the users know it.
    fn uses(&self) -> BTreeMap<Use, i64> {
        let mut uses = BTreeMap::new();
        for slot in self.slots.values() {
            for m in slot.track.mappings.values() {
                add(&mut uses, (m.owner, m.gref, m.writable()), 1);
            }
            for (gref, host) in slot.table.host.iter() {
                for writable in [false, true] {
                    let of = host.of(writable);
                    let count = i64::from(of.plain) + i64::from(of.mappings);
                    add(&mut uses, (slot.key, gref, writable), count);
                }
            }
            for (_, active) in slot.table.active.iter() {
                if let Some((third, gref)) = active.via {
                    add(&mut uses, (third, gref, false), i64::from(active.readers));
                    add(&mut uses, (third, gref, true), i64::from(active.writers));
                }
            }
        }
        uses.retain(|(owner, ..), count| *count != 0 && self.slot(*owner).is_ok());
        uses
    }

    fn audit_slot(&self, slot: &Slot, out: &mut Vec<String>) {
        let d = slot.key.domid;
        for (gref, a) in slot.table.active.iter() {
            if a.readers + a.writers == 0 {
                out.push(format!("d{d} grant {gref}: in the books, and not in use"));
            }
            if gref >= slot.table.entries() {
                out.push(format!("d{d} grant {gref}: in use beyond the end of the table"));
            }
        }
        for (handle, m) in &slot.track.mappings {
            let entry = self.slot(m.owner).ok();
            let entry = entry.and_then(|s| s.table.active.get(m.gref));
            if entry.is_some_and(|a| (a.mfn, a.domid) != (m.mfn, d)) {
                let mfn = m.mfn.0;
                out.push(format!(
                    "d{d} handle {handle}: frame {mfn:#x}, the grant says {entry:?}"
                ));
            }
        }
    }

    fn audit(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut wrong = self.uses();
        for slot in self.slots.values() {
            self.audit_slot(slot, &mut out);
            for (gref, a) in slot.table.active.iter() {
                add(&mut wrong, (slot.key, gref, false), -i64::from(a.readers));
                add(&mut wrong, (slot.key, gref, true), -i64::from(a.writers));
            }
        }
        for ((owner, gref, writable), more) in wrong.into_iter().filter(|(_, more)| *more != 0) {
            let what = if writable { "writers" } else { "readers" };
            let d = owner.domid;
            out.push(format!(
                "d{d} grant {gref}: {more:+} {what} found than are counted"
            ));
        }
        out
    }
}

impl Grants {
    /// Says where the books are wrong; guests may run meanwhile. What guests can write proves nothing and is not
    /// looked at.
    pub fn audit(&self) -> Vec<String> {
        self.lock().audit()
    }
}

impl DomainGrants {
    /// The references from outside on frames of this domain that are not its grants': (frame, plain ones, writable
    /// ones). Less than none where the machine counts fewer than the grants hold.
    pub fn other_refs(&self) -> GrantResult<Vec<(Mfn, i64, i64)>> {
        // One look at both, so that what guests do meanwhile makes no difference.
        let state = self.grants.lock();
        let slot = state.slot(self.key)?;
        let mut refs: BTreeMap<Mfn, (i64, i64)> = BTreeMap::new();
        for (mfn, plain, writable) in self.domain.outside_refs() {
            refs.insert(mfn, (i64::from(plain), i64::from(writable)));
        }
        for (_, a) in slot.table.active.iter().filter(|(_, a)| a.via.is_none()) {
            let (plain, writable) = refs.entry(a.mfn).or_default();
            *plain -= i64::from(a.readers);
            *writable -= i64::from(a.writers);
        }
        refs.retain(|_, counts| *counts != (0, 0));
        Ok(refs
            .into_iter()
            .map(|(mfn, (plain, w))| (mfn, plain, w))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Two;

    #[test]
    fn the_audit_finds_uses_that_nobody_has_and_users_that_are_not_counted() {
        let two = Two::new();
        let mfn = two.grant(9, 0);
        let mapping = two.granter.client(0).map(9, true).unwrap();
        assert_eq!(two.grants.audit(), Vec::<String>::new());
        let damage = |f: &dyn Fn(&mut super::Slot)| {
            let key = two.granter.key;
            f(two.grants.lock().slots.get_mut(&key.domid).unwrap());
            let found = two.grants.audit().join("\n");
            assert!(found.contains("writers"), "{found}");
        };
        damage(&|slot| slot.table.active.get_mut(9).unwrap().writers = 2);
        damage(&|slot| {
            slot.table.active.get_mut(9).unwrap().writers = 1;
            slot.table.host.remove(9);
        });
        assert_eq!(two.granter.other_refs().unwrap(), vec![]);
        two.granter.domain.get_ref(mfn, false).unwrap();
        assert_eq!(two.granter.other_refs().unwrap(), vec![(mfn, 1, 0)]);
        std::mem::forget(mapping); // its use is not in the books any more
    }
}
