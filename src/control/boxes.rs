//! A map whose entries lie apart from it.
//!
//! A table of hashes has twice as many places as entries when it has just grown. With the key beside
//! the value, behind one pointer, an empty place costs 9 bytes.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

/// Keys and their values. Peers choose the keys, so the hasher is seeded.
pub(super) struct Boxes<K, V> {
    entries: HashTable<Box<(K, V)>>,
    hasher: RandomState,
}

impl<K: Hash + Eq, V> Boxes<K, V> {
    pub(super) fn new() -> Self {
        Self { entries: HashTable::new(), hasher: RandomState::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|entry| &entry.1)
    }

    pub(super) fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let hash = self.hasher.hash_one(key);
        self.entries.find(hash, |entry| entry.0 == *key).map(|entry| (&entry.0, &entry.1))
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        self.entries.find_mut(hash, |entry| entry.0 == *key).map(|entry| &mut entry.1)
    }

    /// Puts an entry in, and gives back what was there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.remove(&key);
        let hash = self.hasher.hash_one(&key);
        self.entries
            .insert_unique(hash, Box::new((key, value)), |entry| self.hasher.hash_one(&entry.0));
        before
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let entry = self.entries.find_entry(hash, |entry| entry.0 == *key).ok()?;
        let (entry, _) = entry.remove();
        let (_, value) = *entry;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_until_it_is_removed() {
        let mut boxes = Boxes::new();
        for number in 0..100 {
            assert_eq!(boxes.insert(number, number.to_string()), None);
        }
        assert_eq!(boxes.insert(7, "seven".to_owned()), Some("7".to_owned()));
        assert_eq!((boxes.len(), boxes.get(&7).map(String::as_str)), (100, Some("seven")));
        assert_eq!(boxes.remove(&7), Some("seven".to_owned()));
        assert_eq!((boxes.len(), boxes.get(&7)), (99, None));
        assert_eq!(boxes.remove(&7), None);
        assert_eq!(boxes.values().count(), 99);
    }
}
