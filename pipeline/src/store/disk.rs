//! Room on disks.

use std::path::Path;

/// Bytes free for this user on the disk where `path` is, or would be: the nearest folder above that is there
/// counts. `None` where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let full = std::path::absolute(path).ok()?;
    let there = full.ancestors().find(|folder| folder.exists())?;
    fs4::available_space(there).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_there_yet_has_the_room_of_the_folder_above() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).is_some_and(|bytes| bytes > 0));
        assert!(free_bytes(&folder.path().join("a/b/c.mp4")).is_some_and(|bytes| bytes > 0));
    }
}
