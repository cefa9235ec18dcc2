// SPDX-License-Identifier: Apache-2.0
//! Free frames, in the order in which they are handed out; any of them can be taken out of the middle.

/// A stack that knows where each frame lies in it.
#[derive(Debug, Default)]
pub(super) struct FreeFrames {
    list: Vec<u64>,
    /// By frame number; of frames that are not free, where they were last.
    place: Vec<u32>,
}

impl FreeFrames {
    /// `list` of a machine with `frames` frames, the last one to be handed out first.
    pub(crate) fn new(list: Vec<u64>, frames: u64) -> FreeFrames {
        let mut free = FreeFrames {
            list: Vec::with_capacity(list.len()),
            place: vec![0; frames as usize],
        };
        list.into_iter().for_each(|m| free.push(m));
        free
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &u64> {
        self.list.iter()
    }

    pub(crate) fn push(&mut self, mfn: u64) {
        if let Some(place) = self.place.get_mut(mfn as usize) {
            *place = self.list.len() as u32;
            self.list.push(mfn);
        }
    }

    /// The next `count` of them, if there are so many.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u64>> {
        let left = self.list.len().checked_sub(count)?;
        let mut taken = self.list.split_off(left);
        taken.reverse();
        Some(taken)
    }

    /// Whether this one is free.
    pub(crate) fn contains(&self, mfn: u64) -> bool {
        let at = self.place.get(mfn as usize).map_or(usize::MAX, |at| *at as usize);
        self.list.get(at) == Some(&mfn)
    }

    /// Those of `mfns` that are free are handed out after all others, which keep their order.
    pub(crate) fn hand_out_last(&mut self, mfns: &[u64]) {
        let mut last = vec![false; self.place.len()];
        for m in mfns {
            if let Some(flag) = last.get_mut(*m as usize) {
                *flag = true;
            }
        }
        let is_last = |m: &u64| last.get(*m as usize).copied().unwrap_or(false);
        let (first, rest): (Vec<u64>, Vec<u64>) =
            std::mem::take(&mut self.list).into_iter().partition(is_last);
        first.into_iter().chain(rest).for_each(|m| self.push(m));
    }

    /// Takes a certain one, if it is free; another one gets its place.
    pub(crate) fn remove(&mut self, mfn: u64) {
        let at = self.place.get(mfn as usize).map_or(usize::MAX, |at| *at as usize);
        if self.list.get(at) != Some(&mfn) {
            return;
        }
        self.list.swap_remove(at);
        if let Some(place) = self.list.get(at).and_then(|m| self.place.get_mut(*m as usize)) {
            *place = at as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_last_is_free_until_then() {
        let mut free = FreeFrames::new(vec![3, 9, 4, 7], 10);
        free.hand_out_last(&[7, 4, 8, 99]);
        assert_eq!(free.take(2), Some(vec![9, 3]));
        assert!(free.contains(4) && free.contains(7) && !free.contains(9) && !free.contains(99));
        free.remove(4);
        assert_eq!((free.take(1), free.contains(7)), (Some(vec![7]), false));
    }

    #[test]
    fn frames_are_taken_from_the_end_or_from_anywhere_once() {
        let mut free = FreeFrames::new(vec![3, 9, 4, 7], 10);
        free.remove(9);
        free.remove(9);
        free.remove(8);
        assert_eq!(free.iter().copied().collect::<Vec<_>>(), [3, 7, 4]);
        assert_eq!(free.take(4), None);
        assert_eq!(free.take(2), Some(vec![4, 7]));
        free.push(9);
        free.push(4);
        free.remove(3);
        free.remove(4);
        assert_eq!((free.len(), free.take(1)), (1, Some(vec![9])));
    }
}
