// SPDX-License-Identifier: Apache-2.0
//! What is known of a table's entries, found by their number without a search: grants are taken and given back for each
//! page that a device moves.

/// Values by grant reference. As long as the largest reference in it: no longer than the table.
pub(super) struct ByRef<T> {
    places: Vec<Option<T>>,
}

impl<T> ByRef<T> {
    pub(super) const fn new() -> ByRef<T> {
        ByRef { places: Vec::new() }
    }

    pub(super) fn get(&self, gref: u32) -> Option<&T> {
        self.places.get(gref as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, gref: u32) -> Option<&mut T> {
        self.places.get_mut(gref as usize)?.as_mut()
    }

    fn place(&mut self, gref: u32) -> Option<&mut Option<T>> {
        let at = gref as usize;
        if at >= self.places.len() {
            self.places.resize_with(at + 1, || None);
        }
        self.places.get_mut(at)
    }

    /// `gref`: one of the table's.
    pub(super) fn insert(&mut self, gref: u32, value: T) {
        if let Some(place) = self.place(gref) {
            *place = Some(value);
        }
    }

    pub(super) fn remove(&mut self, gref: u32) {
        if let Some(place) = self.places.get_mut(gref as usize) {
            *place = None;
        }
    }

    /// In the order of references.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(gref, value)| Some((gref, value.as_ref()?)))
    }
}

impl<T: Default> ByRef<T> {
    /// What is there, or was put there now. `gref`: one of the table's.
    pub(super) fn entry(&mut self, gref: u32) -> Option<&mut T> {
        Some(self.place(gref)?.get_or_insert_with(T::default))
    }
}
